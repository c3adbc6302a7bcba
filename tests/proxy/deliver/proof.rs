//! Who is let in: every proof beside its twins that are none.

use std::collections::BTreeSet;

use hookgate::scheme::{AzureDevops, Github, StandardWebhooks};

use super::{gate, spoil};
use crate::support::client::{Answer, Request};
use crate::support::gate::Setup;
use crate::support::host::{self, KEY, KEYS, OTHER_KEY, Proof, TOKEN, github_push, prove};
use crate::support::until;
use crate::support::upstream::Upstream;

#[test]
fn the_same_push_without_a_good_proof_reaches_nothing() {
    let upstream = Upstream::start();
    let gate = gate(&upstream);
    for host in &host::ALL {
        let push = host.push();
        let refused = |what: &str, request: &Request| {
            let answer = gate.ask(request);
            assert_eq!(answer.told(), (401, "unauthorized"), "{} with {what}", host.provider);
        };
        refused("no proof", &host.unproved());
        if let Proof::Url = host.proof {
            refused("another key", &push.clone().to(&format!("/webhook/{OTHER_KEY}")));
            refused("a part of the key", &push.clone().to(&format!("/webhook/{}", &KEY[..31])));
            refused("more than the key", &push.clone().to(&format!("/webhook/{KEY}A")));
            refused(
                "the key in small letters",
                &push.to(&format!("/webhook/{}", KEY.to_lowercase())),
            );
            continue;
        }
        for name in host.credentials() {
            let value = push.value(&name).expect("a credential");
            let spoilt = spoil(value);
            if name != "webhook-id" {
                refused(&format!("another {name}"), &push.clone().with(&name, &spoilt));
            }
            refused(&format!("two {name}"), &push.clone().header(&name, value));
            refused(&format!("a good and a bad {name}"), &push.clone().header(&name, &spoilt));
        }
        if host.covers_body() {
            let mut body = host.body.as_bytes().to_vec();
            body.push(b' ');
            refused("a longer body", &push.clone().body(body));
            refused("a shorter body", &push.clone().body(&host.body[..host.body.len() - 1]));
            refused("another ref", &push.clone().body(host.body.replace("main\"", "mine\"")));
            refused("no body", &push.body(""));
        }
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_signature_that_is_not_one_is_refused_like_a_wrong_one_and_an_empty_one_is_absent() {
    let upstream = Upstream::start();
    let gate = gate(&upstream);
    let push = github_push(KEY);
    let good = push.value("x-hub-signature-256").expect("a signature").to_owned();
    let hex = good.strip_prefix("sha256=").expect("its prefix");
    let ask = |value: &str| gate.ask(&push.clone().with("x-hub-signature-256", value));
    let bad = [
        "yo".to_owned(),
        "sha256=yo".to_owned(),
        "sha256=0".to_owned(),
        format!("sha256={}", &hex[..62]),
        format!("sha256={}", &hex[..63]),
        format!("sha256={hex}0"),
        format!("sha256={hex}{hex}"),
        format!("sha256={hex} "),
        format!("sha256= {hex}"),
        format!("sha256=0x{}", &hex[2..]),
        format!("SHA256={hex}"),
        format!("sha1={hex}"),
        format!("sha512={hex}"),
        format!("sha256:{hex}"),
        hex.to_owned(),
        format!("{good},{good}"),
        format!("{good}; {good}"),
        format!("\"{good}\""),
        format!("sha256={}", "0".repeat(64)),
        format!("sha256={}", "f".repeat(8000)),
        "sha256=\u{e9}".to_owned(),
    ];
    let mut answers = BTreeSet::new();
    for value in &bad {
        let trimmed_by_http = value.trim() == good;
        let answer = ask(value);
        let wanted = if trimmed_by_http { (200, "forwarded") } else { (401, "unauthorized") };
        assert_eq!(answer.told(), wanted, "{value}");
        if !trimmed_by_http {
            answers.insert(shown(&answer));
        }
    }
    for absent in ["", "sha256="] {
        assert_eq!(ask(absent).told(), (401, "unauthorized"), "{absent:?} alone");
        let beside_a_key = push.clone().with("x-hub-signature-256", absent);
        let beside_a_key = beside_a_key.to(&format!("/webhook/{KEY}"));
        assert_eq!(gate.ask(&beside_a_key).told(), (200, "forwarded"), "{absent:?} beside a key");
        answers.insert(shown(&ask(absent)));
    }
    // Nor does the answer tell one reason from another.
    answers.insert(shown(&gate.ask(&push.clone().body("{}"))));
    answers.insert(shown(&gate.ask(&Request::post("/webhook/nokey").body("{}"))));
    answers.insert(shown(&gate.ask(&Request::post("/webhook").body("{}"))));
    assert_eq!(answers.len(), 1, "{answers:#?}");
    let only = answers.first().expect("an answer");
    assert!(only.contains("www-authenticate"), "{only}");
    assert_eq!(ask(&good.to_uppercase().replace("SHA", "sha")).told(), (200, "forwarded"));
    assert_eq!(ask(&good).told(), (200, "forwarded"));
}

/// What a sender sees of an answer, without the time and what is of the connection.
fn shown(answer: &Answer) -> String {
    let headers = answer.headers.iter();
    let kept = headers.filter(|(name, _)| !["date", "connection"].contains(&&**name));
    format!("{} {:?} {}", answer.status, kept.collect::<Vec<_>>(), answer.text())
}

#[test]
fn the_vectors_that_hosts_publish_hold() {
    // What is no JSON is answered 400 once its signature held, and 401 before.
    let github_docs = "base64:SXQncyBhIFNlY3JldCB0byBFdmVyeWJvZHk= name=everybody\n\
         0123456789abcdef name=go-github\n\
         bBg5lrt03VixkX85CNqYIcecC0SIGASE name=gitee\n\
         whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q= name=gitlab\n";
    let upstream = Upstream::start();
    let gate = Setup::new().keys(github_docs).hook().upstream(&upstream).start();
    let github = |event: &str, signature: &str, body: &str| {
        let request = Request::post("/webhook").header("X-GitHub-Event", event).body(body);
        let answer = gate.ask(&request.header("X-Hub-Signature-256", signature));
        (answer.status, answer.outcome().to_owned())
    };
    let told = |status, outcome: &str| (status, outcome.to_owned());
    // docs.github.com, "Validating webhook deliveries"
    let v1 = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    assert_eq!(github("push", v1, "Hello, World!"), told(400, "malformed"));
    assert_eq!(github("push", v1, "Hello, World?"), told(401, "unauthorized"));
    // google/go-github
    let v4 = "sha256=b1f8020f5b4cd42042f807dd939015c4a418bc1ff7f604dd55b0a19b5d953d9b";
    assert_eq!(github("watch", v4, r#"{"yo":true}"#), told(200, "ignored"));
    assert_eq!(github("watch", v4, r#"{"yo": true}"#), told(401, "unauthorized"));
    // Its SHA-1 counts for nothing.
    let v3 = "sha1=126f2c800419c60137ce748d7672e77b65cf16d6";
    assert_eq!(github("watch", v3, r#"{"yo":true}"#), told(401, "unauthorized"));
    let sha1_alone = Request::post("/webhook").header("X-GitHub-Event", "watch");
    let sha1_alone = sha1_alone.header("X-Hub-Signature", v3).body(r#"{"yo":true}"#);
    assert_eq!(gate.ask(&sha1_alone).told(), (401, "unauthorized"));
    // Atlassian
    let bitbucket = |body: &str| {
        let request = Request::post("/webhook").header("X-Event-Key", "repo:push").body(body);
        let v2 = "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9";
        let request = request.header("X-Hook-UUID", "1").header("X-Hub-Signature", v2);
        gate.ask(&request).status
    };
    assert_eq!(bitbucket("Hello World!"), 400);
    assert_eq!(bitbucket("Hello, World!"), 401);
    // The form of go-github, by GitHub's rule and by that of Gitea.
    let form = |signature: (&str, &str), event: &str| {
        let request = Request::post("/webhook").body("payload=%7B%22yo%22%3Atrue%7D");
        let request = request.header("Content-Type", "application/x-www-form-urlencoded");
        gate.ask(&request.header(event, "watch").header(signature.0, signature.1)).status
    };
    let raw = "sha256=30f622d549ca623f1c553f7e395a80c9487b43b9feaf9af4a1811381ddf5a94d";
    assert_eq!(form(("X-Hub-Signature-256", raw), "X-GitHub-Event"), 200);
    assert_eq!(form(("X-Hub-Signature-256", v4), "X-GitHub-Event"), 401);
    let (raw, inner) = (&raw["sha256=".len()..], &v4["sha256=".len()..]);
    for (signature, event) in [
        ("X-Gitea-Signature", "X-Gitea-Event"),
        ("X-Forgejo-Signature", "X-Forgejo-Event"),
        ("X-Gogs-Signature", "X-Gogs-Event"),
    ] {
        assert_eq!(form((signature, inner), event), 200, "{signature}");
        assert_eq!(form((signature, raw), event), 401, "{signature}");
    }
    // Recorded and published ones whose time is long past: right, and too late.
    let gitee = Request::post("/webhook").header("X-Gitee-Event", "Push Hook").body("{}");
    let gitee = gitee.header("X-Gitee-Timestamp", "1633679083918");
    let gitee = gitee.header("X-Gitee-Token", "Xvh4YPVe6l31XpDRL9J2yeaEXabsckIoUUschpXiVck=");
    assert_eq!(gate.ask(&gitee).told(), (401, "unauthorized"));
    let gitlab = Request::post("/webhook").header("X-Gitlab-Event", "Push Hook");
    let gitlab = gitlab.header("webhook-id", "f5e5f430-f57b-4e6e-9fac-d9128cd7232f");
    let gitlab = gitlab.header("webhook-timestamp", "1777000000").body(r#"{"object_kind":"push"}"#);
    let v9 = "v1,j2SLkjzfB4Vz+wCIGJLOeF5O+lu52S420Uzk/xN97fM=";
    assert_eq!(gate.ask(&gitlab.header("webhook-signature", v9)).told(), (401, "unauthorized"));
    let reasons: Vec<_> = until("two records", || {
        let late = "timestamp outside the tolerance";
        let late: Vec<_> = gate.records().into_iter().filter(|it| it["reason"] == late).collect();
        (late.len() == 2).then_some(late)
    });
    assert_eq!(reasons[0]["delivery.provider"], "gitee");
    assert_eq!(reasons[1]["delivery.provider"], "gitlab");
    assert_eq!(upstream.count(), 0);
}

#[test]
fn one_bad_credential_is_too_many_whatever_stands_beside_it() {
    let upstream = Upstream::start();
    let gate = gate(&upstream);
    let with_key = format!("/webhook/{KEY}");
    let bad_sha256 = format!("sha256={}", "0".repeat(64));
    let bad_hex = "0".repeat(64);
    let gitlab = host::gitlab_token();
    let signing = host::gitlab_signed();
    let forgejo = host::host("forgejo").push();
    let server = host::host("bitbucket-server");
    let basic = server.unproved();
    let basic = prove(basic, &AzureDevops::default(), KEY, b"");
    let basic = basic.value("authorization").expect("Basic credentials");
    let refused = [
        ("a bad signature and a good URL key", github_push(OTHER_KEY).to(&with_key)),
        ("a good signature and a bad URL key", github_push(KEY).to("/webhook/nokey")),
        ("a good signature and a key with more", github_push(KEY).to(&format!("{with_key}%20"))),
        ("a bad token and a good URL key", gitlab.signed_with(OTHER_KEY).to(&with_key)),
        (
            "a bad signature and a good token",
            gitlab.push().header("webhook-signature", "v1,AAAA").header("webhook-id", "1"),
        ),
        (
            "an expired signature and a good token",
            signing.push().with("webhook-timestamp", "1777000000").header("x-gitlab-token", KEY),
        ),
        (
            "a good Forgejo signature and a bad one of Gitea",
            forgejo.clone().with("x-gitea-signature", &bad_hex),
        ),
        (
            "a good Gitea signature and a bad one of Forgejo",
            forgejo.clone().with("x-forgejo-signature", &bad_hex),
        ),
        (
            "a good Forgejo signature and a bad one of GitHub",
            forgejo.with("x-hub-signature-256", &bad_sha256),
        ),
        (
            "a good signature and a bad password",
            server.push().header("Authorization", "Basic YTpi"),
        ),
        (
            "a bad signature and a good password",
            server.unproved().header("Authorization", basic).header("X-Hub-Signature", &bad_sha256),
        ),
        (
            "a list of signatures with none that fits",
            signing.push().with("webhook-signature", "v1,AAAA v2,BBBB v1a,CCCC"),
        ),
    ];
    for (what, request) in refused {
        assert_eq!(gate.ask(&request).told(), (401, "unauthorized"), "{what}");
    }
    assert_eq!(upstream.count(), 0);
    let good = signing.push();
    let list =
        format!("v2,AAAA v1a,BBBB v1,AAAA {}", good.value("webhook-signature").expect("one"));
    let taken = [
        ("both good", github_push(KEY).to(&with_key)),
        (
            "a good signature and another host's credential",
            github_push(KEY).header("Authorization", "Bearer x"),
        ),
        ("a good signature and a bad token, which then says nothing", {
            signing.push().header("x-gitlab-token", OTHER_KEY)
        }),
        ("a list of signatures with one that fits", good.with("webhook-signature", &list)),
        ("Basic and a signature, both good", server.push().header("Authorization", basic)),
        ("an empty signature of Gitea and a good URL key", {
            let gitea = host::host("gitea").unproved().header("x-gitea-signature", "");
            gitea
                .header("x-gogs-signature", "")
                .header("x-hub-signature-256", "sha256=")
                .to(&with_key)
        }),
    ];
    for (what, request) in taken {
        assert_eq!(gate.ask(&request).told(), (200, "forwarded"), "{what}");
    }
}

#[test]
fn a_hook_with_one_provider_asks_for_that_proof_whatever_headers_come() {
    let upstream = Upstream::start();
    let hook = "[[hook]]\nname = \"default\"\nproviders = [\"github\"]\nurl_key = \"refuse\"\n";
    let gate = Setup::new().keys(KEYS).hooks(hook).upstream(&upstream).start();
    for host in &host::ALL {
        let answer = gate.ask(&host.push().to("/webhook"));
        let wanted =
            if host.provider == "github" { (200, "forwarded") } else { (401, "unauthorized") };
        // Gitea and Forgejo also send what GitHub does, and sign the same bytes.
        let is_like_github = ["gitea", "forgejo"].contains(&host.provider);
        let wanted = if is_like_github { (200, "forwarded") } else { wanted };
        assert_eq!(answer.told(), wanted, "{}", host.provider);
    }
    assert!(upstream.take().iter().all(|it| it.header("hookgate-provider") == Some("github")));
    let token =
        github_push(OTHER_KEY).header("X-Gitlab-Token", KEY).header("X-Gitlab-Event", "Push Hook");
    assert_eq!(gate.ask(&token).told(), (401, "unauthorized"));
    let key = github_push(KEY).to(&format!("/webhook/{KEY}"));
    assert_eq!(gate.ask(&key).told(), (404, "not-found"), "no URL key on this hook");
}

#[test]
fn a_key_serves_only_what_it_is_for() {
    let upstream = Upstream::start();
    let (sign, token, url) = (KEY, OTHER_KEY, "U2VwYXJhdGVLZXlGb3JVUkxz");
    let (past, bound) = ("RXhwaXJlZEtleU9mTGFzdFllYXI", "Qm91bmRLZXlGb3JBY21lT25seQ");
    let keys = format!(
        "{sign} name=sign use=sign\n{token} name=token use=token\n{url} name=url use=url\n\
         {past} name=past until=2026-01-01T00:00:00Z\n\
         {bound} name=bound use=sign repositories=github.com/acme/*\n\
         base64:SXQncyBhIFNlY3JldCB0byBFdmVyeWJvZHk= name=encoded\n"
    );
    let gate = Setup::new().keys(&keys).hook().upstream(&upstream).start();
    let gitlab = host::gitlab_token();
    let gerrit = host::host("gerrit");
    let secret = "base64:SXQncyBhIFNlY3JldCB0byBFdmVyeWJvZHk=";
    let elsewhere = host::host("github").body.replace("acme/widgets", "other/widgets");
    let elsewhere = prove(host::host("github").unproved().body(elsewhere), &Github, bound, b"");
    let both = host::host("github").body.replace("git://github.com/acme", "git://github.com/other");
    let both = prove(host::host("github").unproved().body(both), &Github, bound, b"");
    let cases = [
        ("sign signs", github_push(sign), Some("sign")),
        ("sign is no token", gitlab.signed_with(sign), None),
        ("sign is no URL key", gerrit.signed_with(sign), None),
        ("token does not sign", github_push(token), None),
        ("token is a token", gitlab.signed_with(token), Some("token")),
        ("token is no URL key", gerrit.signed_with(token), None),
        ("url does not sign", github_push(url), None),
        ("url is no token", gitlab.signed_with(url), None),
        ("url is a URL key", gerrit.signed_with(url), Some("url")),
        ("an expired key does not sign", github_push(past), None),
        ("an expired key is no URL key", gerrit.signed_with(past), None),
        ("a secret of any bytes signs", github_push(secret), Some("encoded")),
        ("and is a token", gitlab.signed_with(secret), Some("encoded")),
        ("a bound key vouches for its own", github_push(bound), Some("bound")),
        ("and not for others", elsewhere, None),
        ("nor where one address is another's", both, None),
    ];
    for (what, request, key) in cases {
        let answer = gate.ask(&request);
        let received = upstream.take();
        match key {
            Some(key) => {
                assert_eq!(answer.told(), (200, "forwarded"), "{what}");
                assert_eq!(received[0].header("hookgate-key"), Some(key), "{what}");
            }
            None => {
                assert_eq!(answer.told(), (401, "unauthorized"), "{what}");
                assert_eq!(received.len(), 0, "{what}");
            }
        }
    }
}

#[test]
fn a_signing_token_serves_its_own_scheme_alone() {
    let upstream = Upstream::start();
    let gate =
        Setup::new().keys(&format!("{TOKEN} name=token\n")).hook().upstream(&upstream).start();
    assert_eq!(gate.ask(&host::host("standard-webhooks").push()).told(), (200, "forwarded"));
    let bytes = "base64:dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=";
    assert_eq!(gate.ask(&github_push(bytes)).told(), (401, "unauthorized"));
    let as_url = host::host("gerrit").unproved();
    assert_eq!(gate.ask(&as_url.to(&format!("/webhook/{TOKEN}"))).told(), (401, "unauthorized"));
    let as_token = host::gitlab_token().unproved().header("x-gitlab-token", TOKEN);
    assert_eq!(gate.ask(&as_token).told(), (401, "unauthorized"));
    // The id is signed; one with a dot could be cut in another way.
    let push = host::host("standard-webhooks").push();
    let moved = push.clone().with("webhook-id", &format!("{}.1", host::SIGNED_ID));
    assert_eq!(gate.ask(&moved).told(), (401, "unauthorized"));
    for timestamp in
        ["-9223372036854775808", "9223372036854775807", "99999999999999999999", "+1", " ", "1e9"]
    {
        let moved = push.clone().with("webhook-timestamp", timestamp);
        assert_eq!(gate.ask(&moved).told(), (401, "unauthorized"), "{timestamp}");
    }
    let now = hookgate::clock::Clock::now(&hookgate::clock::SystemClock);
    for (seconds, wanted) in [(-295, 200), (295, 200), (-310, 401), (310, 401)] {
        let then =
            hookgate::time::Timestamp::from_seconds(now.as_seconds() + seconds).expect("a time");
        let body = host::host("standard-webhooks");
        let request = host::prove_at(body.unproved(), &StandardWebhooks, TOKEN, b"", then);
        assert_eq!(gate.ask(&request).status, wanted, "{seconds} s");
    }
}
