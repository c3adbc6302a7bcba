//! What the service gets, and what of its answers goes back.

use hookgate::scheme::{Family, Gitea, Gitee, GiteeMode, Github};

use super::{gate, unique};
use crate::support::client::Request;
use crate::support::gate::{NO_SPOOL, Setup};
use crate::support::host::{self, KEY, KEYS, github_push, prove};
use crate::support::upstream::{Received, Reply, Upstream};

#[test]
fn what_the_service_answers_goes_back_without_its_headers() {
    let headers = &[
        ("content-type", "application/vnd.x+json; charset=utf-8"),
        ("location", "http://jira.example.com/webhook/s3cret"),
        ("set-cookie", "session=s3cret"),
        ("x-powered-by", "jira"),
        ("server", "jira"),
        ("www-authenticate", "Basic"),
        ("hookgate-outcome", "forged"),
        ("retry-after", "120"),
        ("connection", "close"),
    ];
    let upstream = Upstream::with(Reply::Answer(201, headers, "{\"success\": true}"));
    let gate = gate(&upstream);
    let answer = gate.ask(&github_push(KEY));
    assert_eq!(answer.told(), (200, "forwarded"));
    assert_eq!(answer.text(), "{\"success\": true}");
    let mut names: Vec<_> = answer.headers.iter().map(|(name, _)| &**name).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "content-type", "date", "hookgate-outcome"]);
    assert_eq!(answer.header("content-type"), Some("application/vnd.x+json; charset=utf-8"));
    // Without a body there is nothing to name the type of.
    upstream.next(Reply::Answer(204, &[], ""));
    let answer = gate.ask(&github_push(KEY));
    assert_eq!((answer.told(), answer.text()), ((200, "forwarded"), String::new()));
    upstream.next(Reply::Raw(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n",
    ));
    let answer = gate.ask(&github_push(KEY));
    assert_eq!((answer.told(), &*answer.text()), ((200, "forwarded"), "ok"));
    assert_eq!(answer.header("trailer"), None);
}

/// With a short time for a call.
const IMPATIENT: &str = "[upstream]\ntimeout = \"400ms\"\n[[hook]]\nname = \"default\"\n";

#[test]
fn without_a_spool_a_service_that_refuses_or_breaks_off_is_told_as_a_failure() {
    let upstream = Upstream::start();
    let config = format!("{NO_SPOOL}{IMPATIENT}");
    let gate = Setup::new().keys(KEYS).hooks(&config).upstream(&upstream).start();
    let location = &[("location", "http://127.0.0.1:1/elsewhere"), ("retry-after", "9")];
    // Reply, attempts, status of the answer.
    let cases = [
        (Reply::Answer(301, location, "moved"), 1, 502),
        (Reply::Answer(304, &[], ""), 1, 502),
        (Reply::Answer(400, location, "bad"), 1, 502),
        (Reply::Answer(401, &[("www-authenticate", "Basic")], "who"), 1, 502),
        (Reply::Answer(404, &[], "none"), 1, 502),
        (Reply::Answer(410, &[], "gone"), 1, 502),
        (Reply::Answer(429, location, "slower"), 1, 502),
        (Reply::Answer(500, &[], "oops"), 1, 502),
        (Reply::Answer(503, location, "later"), 1, 502),
        (Reply::Raw("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"), 1, 502),
        (Reply::Raw("220 smtp.example.com ESMTP\r\n"), 1, 502),
        (Reply::Raw("HTTP/1.1 200 OK\r\ncontent-len"), 2, 502),
        (Reply::Close, 2, 502),
        (Reply::Reset, 2, 502),
        (Reply::Hold, 1, 504),
    ];
    let mut failed = 0.0;
    for (reply, attempts, status) in cases {
        upstream.reply(reply.clone());
        let answer = gate.ask(&github_push(KEY));
        assert_eq!(answer.told(), (status, "upstream-failed"), "{reply:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{reply:?}");
        assert_eq!(answer.header("retry-after"), Some("5"), "{reply:?}");
        assert_eq!(answer.header("location"), None, "{reply:?}");
        assert_eq!(answer.json()["status"], status, "{reply:?}");
        let received = upstream.take();
        assert_eq!(received.len(), attempts, "{reply:?}");
        for one in &received {
            assert_eq!(one.text(), host::host("github").body);
        }
        failed += 1.0;
    }
    upstream.release();
    assert_eq!(gate.counted("upstream-failed"), failed);
    // A connection that dies before the answer costs a second attempt and no delivery.
    upstream.reply(Reply::Answer(200, &[], "fine"));
    for reply in [Reply::Close, Reply::Reset] {
        upstream.next(reply);
        let answer = gate.ask(&github_push(KEY));
        assert_eq!((answer.told(), &*answer.text()), ((200, "forwarded"), "fine"));
        let received = upstream.take();
        assert_eq!(received.len(), 2);
        assert_eq!(
            received[0].header("hookgate-delivery"),
            received[1].header("hookgate-delivery")
        );
    }
    let url = upstream.url();
    drop(gate);
    drop(upstream);
    let gate = Setup::new().keys(KEYS).hooks(&config).args(&["--upstream", &url]).start();
    assert_eq!(gate.ask(&github_push(KEY)).told(), (502, "upstream-failed"));
    let failures = "hookgate_upstream_failures_total{hook=\"default\",kind=\"connect\"}";
    assert_eq!(gate.metric(failures), 1.0);
}

#[test]
fn what_a_service_breaks_off_is_queued_and_what_it_refuses_is_set_aside() {
    let upstream = Upstream::start();
    let gate = Setup::new().keys(KEYS).hooks(IMPATIENT).upstream(&upstream).start();
    let headers = &[
        ("location", "http://127.0.0.1:1/elsewhere"),
        ("retry-after", "0"),
        ("set-cookie", "session=s3cret"),
        ("content-type", "text/html"),
    ];
    // Reply, attempts, outcome.
    let cases = [
        (Reply::Answer(301, headers, "moved"), 1, "set-aside"),
        (Reply::Answer(304, &[], ""), 1, "set-aside"),
        (Reply::Answer(400, headers, "bad"), 1, "set-aside"),
        (Reply::Answer(401, &[("www-authenticate", "Basic")], "who"), 1, "set-aside"),
        (Reply::Answer(404, &[], "none"), 1, "set-aside"),
        (Reply::Answer(410, &[], "gone"), 1, "set-aside"),
        (Reply::Answer(408, &[], "slow"), 1, "queued"),
        (Reply::Answer(425, &[], "early"), 1, "queued"),
        (Reply::Answer(429, &[], "slower"), 1, "queued"),
        (Reply::Answer(500, headers, "oops"), 1, "queued"),
        (Reply::Answer(503, &[], "later"), 1, "queued"),
        (Reply::Raw("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"), 1, "queued"),
        (Reply::Raw("220 smtp.example.com ESMTP\r\n"), 1, "queued"),
        (Reply::Raw("HTTP/1.1 200 OK\r\ncontent-len"), 2, "queued"),
        (Reply::Close, 2, "queued"),
        (Reply::Reset, 2, "queued"),
        (Reply::Hold, 1, "queued"),
    ];
    let (mut dead, mut delivered) = (0, 0);
    for (reply, attempts, outcome) in cases {
        for _ in 0..attempts {
            upstream.next(reply.clone());
        }
        let answer = gate.ask(&github_push(KEY));
        assert_eq!(answer.told(), (202, outcome), "{reply:?}");
        let mut names: Vec<_> = answer.headers.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        let ours = ["content-length", "content-type", "date", "hookgate-outcome"];
        assert_eq!(names, ours, "{reply:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{reply:?}");
        let id = host::host("github").delivery.expect("an id");
        let wanted = serde_json::json!({"outcome": outcome, "delivery": id});
        assert_eq!(answer.json(), wanted, "{reply:?}");
        let mut calls = attempts;
        if outcome == "queued" {
            gate.drains();
            calls += 1;
            delivered += 1;
        } else {
            dead += 1;
        }
        let received = upstream.take();
        assert_eq!(received.len(), calls, "{reply:?}");
        for one in &received {
            assert_eq!(one.text(), host::host("github").body, "{reply:?}");
            let sent = |one: &Received| {
                let mut headers = one.headers.clone();
                // Each call is a span of its own.
                headers.retain(|(name, _)| name != "traceparent");
                headers.sort();
                headers
            };
            assert_eq!(sent(one), sent(&received[0]), "{reply:?}");
        }
        let counts = gate.spool();
        assert_eq!((counts.dead, counts.delivered), (dead, delivered), "{reply:?}");
    }
    upstream.release();
    assert_eq!(gate.ask(&github_push(KEY)).told(), (200, "forwarded"), "the refused block nothing");
    let url = upstream.url();
    drop(gate);
    drop(upstream);
    let gate = Setup::new().keys(KEYS).hook().args(&["--upstream", &url]).start();
    assert_eq!(gate.ask(&github_push(KEY)).told(), (202, "queued"));
    assert_eq!(gate.spool().active(), 1);
}

#[test]
fn headers_that_a_sender_makes_up_do_not_reach_the_service() {
    let upstream = Upstream::start();
    let hook =
        "[[hook]]\nname = \"default\"\nforward_headers = [\"X-Trace\", \"X-Hub-Signature-256\"]\n";
    let gate = Setup::new().keys(KEYS).hooks(hook).upstream(&upstream).start();
    let plain = github_push(KEY);
    assert_eq!(gate.ask(&plain).told(), (200, "forwarded"));
    let mut wanted = unique(&upstream.take_one());
    let signature = plain.value("x-hub-signature-256").expect("a signature");
    assert_eq!(wanted.get("x-hub-signature-256").map(String::as_str), Some(signature));
    let forged = [
        ("hookgate-provider", "gitlab"),
        ("hookgate-key", "admin"),
        ("Hookgate-Repository", "github.com/acme/secret"),
        ("HOOKGATE-REF", "refs/heads/other"),
        ("hookgate_event", "push"),
        ("hookgate.delivery", "1"),
        ("hookgate-outcome", "forwarded"),
        ("hookgate-admin", "yes"),
        ("Forwarded", "for=10.0.0.1;proto=https;host=internal"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X_Forwarded_For", "10.0.0.1"),
        ("X-Forwarded-Host", "internal"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Port", "443"),
        ("X-Forwarded-Server", "internal"),
        ("X-Forwarded-Uri", "/admin"),
        ("X-Real-IP", "10.0.0.1"),
        ("X-Original-URL", "/admin"),
        ("X-Rewrite-URL", "/admin"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("Via", "1.1 internal"),
        ("Cookie", "session=1"),
        ("Authorization", "Bearer s3cret"),
        ("Proxy-Authorization", "Basic s3cret"),
        ("X-Api-Key", "s3cret"),
        ("X-Gitlab-Token-2", "s3cret"),
        ("X-GitHub-Encoded-Secret", "s3cret"),
        ("X-Some-Host-Invented-This", "1"),
        ("Accept-Encoding", "gzip"),
        ("Range", "bytes=0-1"),
        ("If-None-Match", "*"),
        ("Referer", "http://gate.test/webhook/key"),
        ("Keep-Alive", "timeout=1"),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "trailers"),
        ("Trailer", "x"),
    ];
    let request =
        forged.iter().fold(plain.clone(), |request, (name, value)| request.header(name, value));
    assert_eq!(gate.ask(&request).told(), (200, "forwarded"));
    assert_eq!(unique(&upstream.take_one()), wanted);
    // What `Connection` names ends here, also if it is on the list; what the hook names goes on.
    let request =
        plain.header("Connection", "x-github-hook-id, keep-alive").header("x-trace", "a-7");
    assert_eq!(gate.ask(&request).told(), (200, "forwarded"));
    wanted.remove("x-github-hook-id");
    wanted.insert("x-trace".into(), "a-7".into());
    assert_eq!(unique(&upstream.take_one()), wanted);
}

#[test]
fn what_a_body_says_goes_into_headers_as_text_and_never_as_more() {
    let upstream = Upstream::start();
    let gate = gate(&upstream);
    let github = host::host("github");
    let branch = r#"refs/heads/a\r\nX-Evil: 1\r\n\r\n%0d%0a ü\u0000\u001b[31m""#;
    let body = github.body.replacen("refs/heads/main\"", branch, 1);
    let request = prove(github.unproved().body(body.clone()), &Github, KEY, b"");
    assert_eq!(gate.ask(&request).told(), (200, "forwarded"));
    let received = upstream.take_one();
    assert_eq!(received.text(), body);
    assert_eq!(received.header("x-evil"), None);
    let git_ref = received.header("hookgate-ref").unwrap_or_default();
    assert!(!git_ref.contains(['\r', '\n', '\0', '\u{1b}']), "{git_ref:?}");
    let long =
        github.body.replacen("refs/heads/main", &format!("refs/heads/{}", "x".repeat(20_000)), 1);
    let request = prove(github.unproved().body(long), &Github, KEY, b"");
    assert_eq!(gate.ask(&request).told(), (200, "forwarded"));
    assert_eq!(upstream.take_one().header("hookgate-ref"), None);
    // An id that would not stand in JSON or a log as it is counts as not sent.
    let request = github_push(KEY).with("x-github-delivery", "a\",\"outcome\":\"pong");
    let answer = gate.ask(&request);
    assert_eq!(answer.told(), (200, "forwarded"));
    assert_ne!(upstream.take_one().header("hookgate-delivery"), request.value("x-github-delivery"));
}

#[test]
fn secrets_that_hosts_repeat_in_the_body_are_blanked_in_every_copy() {
    let secret = "Tm90T3VyUmVhbEtleUJ1dEFuRXhhbXBsZQ";
    let upstream = Upstream::start();
    let config = "[[hook]]\nname = \"default\"\n[[hook]]\nname = \"password\"\npath = \"/password\"\n\
         [hook.gitee]\nmode = \"password\"\n";
    let keys = format!("{secret} name=plain\n");
    let setup = || Setup::new().keys(&keys).hooks(config);
    let forwarding = setup().upstream(&upstream).start();
    let printing = setup().start();

    let gitee = host::host("gitee");
    let filled = gitee.body.replace("\"password\":\"\"", &format!("\"password\":\"{secret}\""));
    let filled = filled.replace("\"password\": \"\"", &format!("\"password\": \"{secret}\""));
    assert!(filled.contains(secret));
    let password = prove(
        gitee.unproved().to("/password").body(filled.clone()),
        &Gitee::new(GiteeMode::Password),
        secret,
        b"",
    );
    let signed = prove(gitee.unproved().body(filled), &Gitee::default(), secret, b"");
    let sign = signed.value("x-gitee-token").expect("a token").to_owned();
    let text = String::from_utf8(signed.body.clone()).expect("text");
    let text = text.replace("\"sign\": \"\"", &format!("\"sign\": \"{sign}\""));
    assert!(text.contains(&sign));
    let signed = signed.body(text);

    let gitea = host::host("gitea");
    let with_secret = gitea.body.replacen('{', &format!("{{\n  \"secret\": \"{secret}\","), 1);
    let escaped: String = secret.chars().map(|c| format!("\\u{:04x}", c as u32)).collect();
    let escaped = gitea.body.replacen('{', &format!("{{\"s\\u0065cret\":\"{escaped}\","), 1);
    let gitea = |body: &str| {
        prove(gitea.unproved().body(body), &Gitea(Family::Gitea), secret, body.as_bytes())
    };
    let form = |request: &Request| {
        let encoded: String = request.body.iter().map(|byte| format!("%{byte:02X}")).collect();
        let form = "application/x-www-form-urlencoded";
        request.clone().with("content-type", form).body(format!("payload={encoded}"))
    };
    let requests =
        [password, signed, gitea(&with_secret), gitea(&escaped), form(&gitea(&with_secret))];
    for request in &requests {
        let answer = forwarding.ask(request);
        assert_eq!(answer.told(), (200, "forwarded"), "{request:?}");
        let received = upstream.take_one();
        let blanked: serde_json::Value = serde_json::from_slice(&received.body).expect("JSON");
        assert_eq!(received.header("content-length"), Some(&*received.body.len().to_string()));
        assert_eq!(received.header("content-type"), Some("application/json"));
        for name in ["password", "sign", "secret"] {
            if let Some(value) = blanked.get(name) {
                assert_eq!(value, "", "{name}");
            }
        }
        assert_eq!(printing.ask(request).told(), (202, "printed"));
    }
    let finished = printing.stop();
    assert_eq!(finished.stdout.lines().count(), requests.len());
    for text in [&finished.stdout, &finished.stderr, &forwarding.log()] {
        assert!(!text.contains(secret) && !text.contains(&sign), "{text}");
        assert!(!text.contains("\\u0054\\u006d\\u0039"), "{text}");
    }
}
