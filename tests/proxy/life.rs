//! From the start to the end of the process: what it says, what it refuses to start with, how it stops.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hookgate::scheme::Github;

use crate::support::client::{Client, Request};
use crate::support::gate::{Finished, NO_SPOOL, Setup};
use crate::support::host::{self, KEY, KEYS, OTHER_KEY, github_push, prove};
use crate::support::upstream::{Reply, Upstream};
use crate::support::{key_of, until};

// --- The start

#[test]
fn the_first_start_makes_a_key_and_says_all_but_the_key() {
    let gate = Setup::new().start();
    let path = gate.path("state/webhook.key");
    let made = fs::read_to_string(&path).expect("a key file");
    let key = key_of(&made);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&gate.path("state")), 0o700);
    assert_eq!((key.len(), key.bytes().all(|b| b.is_ascii_alphanumeric())), (32, true));
    let url = format!("http://{}", gate.address());
    assert_eq!(gate.says("taking deliveries")["address"], *url);
    let ready = gate.says("hook is ready");
    let shown = ready["url"].as_str().expect("a URL");
    assert!(shown.starts_with(&format!("{url}/webhook")) && shown.contains("<key>"), "{shown}");
    assert_eq!(ready["key_file"], "state/webhook.key");
    assert_eq!(ready["keys"], 1);
    let warning = "no upstream is named: deliveries are printed; name one with --upstream";
    assert_eq!(gate.says(warning)["level"], "WARN");
    assert_eq!(gate.ask(&github_push(&key)).told(), (202, "printed"));
    assert_eq!(gate.ask(&github_push(OTHER_KEY)).told(), (401, "unauthorized"));
    assert!(gate.printed().contains("acme/widgets"));

    // A second start changes nothing of it.
    let before = fs::metadata(&path).expect("a file");
    let folder = Arc::clone(gate.folder());
    let finished = gate.stop();
    assert_eq!(finished.code, Some(0));
    assert!(!finished.stderr.contains(&key) && !finished.stdout.contains(&key));
    let upstream = Upstream::start();
    let gate = Setup::new().within(&folder).upstream(&upstream).start();
    assert_eq!(gate.ask(&github_push(&key)).told(), (200, "forwarded"));
    assert_eq!(gate.says("hook is ready")["upstream"], upstream.url());
    assert!(!gate.log().contains("no upstream is named") && !gate.log().contains(&key));
    assert_eq!(fs::read_to_string(&path).expect("a key file"), made);
    let after = fs::metadata(&path).expect("a file");
    assert_eq!(
        (before.ino(), before.mtime_nsec(), before.mode()),
        (after.ino(), after.mtime_nsec(), after.mode())
    );
    let names = fs::read_dir(folder.path().join("state")).expect("a folder");
    let names: BTreeSet<_> = names.map(|it| it.expect("an entry").file_name()).collect();
    assert_eq!(names, ["control.sock", "lock", "spool", "webhook.key"].map(Into::into).into());
    assert_eq!(mode(&folder.path().join("state/spool")), 0o700);
    assert_eq!(mode(&folder.path().join("state/spool/spool.db")), 0o600);
}

#[test]
fn a_key_file_that_is_there_stays_as_it_is_good_or_bad() {
    let upstream = Upstream::start();
    for (text, place) in [
        ("", ":1:1: the file has no key"),
        ("# nothing yet\n", ":1:1: the file has no key"),
        ("short name=a\n", ":1:1: a key of fewer than 16 bytes needs weak=allow"),
        (
            "sdf34tGdfgGDG345g3y0045TYG23te37 name=a\n\nQm9vdHN0cmFwS2V5Rm9yT2xkSG9va3M naem=b\n",
            ":3:33: unknown option, expected name, use, from, until, repositories or weak",
        ),
        (
            "sdf34tGdfgGDG345g3y0045TYG23te37 until=tomorrow\n",
            ":1:40: expected an RFC 3339 time such as 2026-12-01T00:00:00Z",
        ),
        (
            "key/with/slashes/in/it\n",
            ":1:1: a key may hold only A-Z a-z 0-9 and -._~!$&'()*+,;= (any other secret can be written as base64:...)",
        ),
        ("whsec_dGVzdA==\n", ":1:1: a whsec_ key is base64 of 24 to 64 bytes"),
        ("base64:SXQncyBh=IFNlY3JldA==\n", ":1:1: this is not base64 with its padding"),
    ] {
        let setup = Setup::new().keys(text).upstream(&upstream);
        let folder = Arc::clone(setup.folder());
        for command in
            [&["check", "--key-file", "webhook.key"][..], &["key", "check", "webhook.key"]]
        {
            let finished = Setup::bare(command).within(&folder).run();
            assert_eq!(finished.code, Some(1), "{text:?}");
            let wanted = format!("error: webhook.key{place}\n");
            assert!(finished.stderr.ends_with(&wanted), "{}", finished.stderr);
        }
        let gate = setup.start();
        let logged = gate.logged("what is wrong", |line| line["level"] == "ERROR");
        let error = logged["error"].as_str().expect("an error");
        let (line, rest) = place[1..].split_once(':').expect("a line");
        let (column, what) = rest.split_once(": ").expect("a column");
        assert_eq!(error, format!("line {line}, column {column}: {what}"));
        assert_eq!(gate.ask(&github_push(KEY)).told(), (401, "unauthorized"));
        let ready = gate.probe("/ready");
        assert_eq!(ready.status, 503);
        assert!(ready.text().contains("hook default has no active key"), "{}", ready.text());
        assert_eq!(gate.probe("/live").status, 200);
        assert_eq!(fs::read_to_string(gate.path("webhook.key")).expect("a file"), text);
        assert_eq!(gate.stop().code, Some(0));
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_state_folder_has_one_process_and_a_port_one_listener() {
    let first = Setup::new().keys(KEYS).hook().start();
    let folder = Arc::clone(first.folder());
    let second = Setup::new().within(&folder).run();
    assert_eq!(second.code, Some(1));
    assert!(
        second.stderr.ends_with(
            "error: another hookgate uses the state folder state already; give each its own with --state-dir\n"
        ),
        "{}",
        second.stderr
    );
    let taken = first.address().to_string();
    let serve = |listen: &str, health: &str| {
        Setup::bare(&["serve", "--listen", listen, "--health", health]).run()
    };
    for finished in [serve(&taken, "off"), serve("127.0.0.1:0", &taken)] {
        assert_eq!(finished.code, Some(1));
        let wanted =
            format!("error: cannot listen on {taken}: Address already in use (os error 98)\n");
        assert!(finished.stderr.ends_with(&wanted), "{}", finished.stderr);
    }
    assert_eq!(first.ask(&github_push(KEY)).told(), (202, "printed"));
    // A process that was killed leaves no lock behind.
    first.signal("KILL");
    until("the first is gone", || Client::try_connect(first.address()).is_err().then_some(()));
    let third = Setup::new().within(&folder).keys(KEYS).hook().start();
    assert_eq!(third.ask(&github_push(KEY)).told(), (202, "printed"));
}

#[test]
fn what_cannot_be_had_at_the_start_is_named() {
    let in_the_way = || {
        let setup = Setup::bare(&["serve", "--listen", "127.0.0.1:0", "--health", "off"]);
        fs::write(setup.path("file"), "").expect("a file");
        setup
    };
    let finished = in_the_way().args(&["--state-dir", "file"]).run();
    assert_eq!(finished.code, Some(1));
    let wanted = "error: cannot use the state folder file: ";
    assert!(last_line(&finished).starts_with(wanted), "{}", finished.stderr);
    let tls = "[tls]\ncertificate_file = \"none.pem\"\nkey_file = \"none.key\"\n";
    for command in ["serve", "check"] {
        let finished = Setup::bare(&[command]).config(tls).run();
        assert_eq!(finished.code, Some(1));
        assert!(last_line(&finished).contains("none.pem"), "{}", finished.stderr);
    }
    let finished = Setup::bare(&["serve", "--config", "none.toml"]).run();
    assert_eq!(finished.code, Some(1));
    let wanted = "error: none.toml: cannot be read: No such file or directory (os error 2)";
    assert_eq!(last_line(&finished), wanted);
    // A key file that cannot be made is none of these: the gate stands and lets nobody in.
    let gate = {
        let setup = Setup::new();
        fs::write(setup.path("file"), "").expect("a file");
        setup.args(&["--key-file", "file/webhook.key"]).start()
    };
    let logged = gate.says("key file is missing and cannot be made");
    assert_eq!((&logged["level"], &logged["path"]), (&"ERROR".into(), &"file/webhook.key".into()));
    assert_eq!(gate.ask(&github_push(KEY)).told(), (401, "unauthorized"));
    assert_eq!(gate.probe("/ready").status, 503);
}

// --- Probes

#[test]
fn the_listener_for_probes_answers_them_and_takes_no_delivery() {
    let gate = Setup::new().keys(KEYS).hook().start();
    assert_eq!((gate.probe("/live").status, gate.probe("/live").text()), (200, "live\n".into()));
    assert_eq!((gate.probe("/ready").status, gate.probe("/ready").text()), (200, "ready\n".into()));
    let metrics = gate.probe("/metrics");
    let media_type = metrics.header("content-type").expect("a type");
    assert!(media_type.starts_with("application/openmetrics-text"), "{media_type}");
    assert!(metrics.text().ends_with("# EOF\n"));
    for path in ["/", "/webhook", "/metrics/", "//metrics", "/metrics/x", "/config", "/keys"] {
        assert_eq!(gate.probe(path).status, 404, "{path}");
    }
    let health = gate.says("answering /live, /ready and /metrics");
    let health = health["address"].as_str().expect("an address").replace("http://", "");
    let health = health.parse().expect("an address");
    for path in ["/webhook", "/metrics", "/ready"] {
        let answer = Client::connect(health).ask(github_push(KEY).to(path).bytes());
        assert!([404, 405].contains(&answer.status), "{path}: {answer:?}");
    }
    for path in ["/live", "/ready", "/metrics"] {
        let answer = gate.ask(&Request::new("GET", path));
        assert_eq!(answer.told(), (404, "not-found"), "{path}");
    }
    assert_eq!(gate.printed(), "");
    drop(gate);

    let gate = Setup::bare(&["serve", "--log-format", "json", "--listen", "127.0.0.1:0"])
        .args(&["--health", "off", "--state-dir", "state"])
        .start();
    gate.says("probes and metrics are off");
}

#[test]
fn the_metrics_agree_with_what_was_sent() {
    let upstream = Upstream::start();
    let config = format!("{NO_SPOOL}[[hook]]\nname = \"default\"\n");
    let gate = Setup::new().keys(KEYS).hooks(&config).upstream(&upstream).start();
    let ping = Request::post("/webhook").header("X-GitHub-Event", "ping").body("{}");
    let ping = prove(ping, &Github, KEY, b"");
    let sent = [
        (3, github_push(KEY), "default", "github", "forwarded"),
        (2, host::gitlab_token().push(), "default", "gitlab", "forwarded"),
        (4, github_push(OTHER_KEY), "default", "github", "unauthorized"),
        (1, host::host("gerrit").unproved(), "default", "gerrit", "unauthorized"),
        (2, Request::post("/webhook"), "default", "", "unauthorized"),
        (1, ping, "default", "github", "pong"),
        (2, Request::post("/elsewhere"), "", "", "not-found"),
        (1, Request::new("DELETE", "/webhook"), "default", "", "method"),
        (
            1,
            github_push(KEY).without("x-hub-signature-256").to("/webhook/no"),
            "default",
            "github",
            "unauthorized",
        ),
    ];
    let mut wanted = BTreeMap::<_, u32>::new();
    for (times, request, hook, provider, outcome) in &sent {
        for _ in 0..*times {
            assert_eq!(gate.ask(request).outcome(), *outcome);
        }
        let labels = format!("hook=\"{hook}\",provider=\"{provider}\",outcome=\"{outcome}\"");
        *wanted.entry(format!("hookgate_requests_total{{{labels}}} ")).or_default() += times;
    }
    upstream.next(Reply::Answer(500, &[], ""));
    assert_eq!(gate.ask(&github_push(KEY)).outcome(), "upstream-failed");
    upstream.next(Reply::Close);
    assert_eq!(gate.ask(&github_push(KEY)).outcome(), "forwarded");
    let github = "hookgate_requests_total{hook=\"default\",provider=\"github\",outcome=";
    *wanted.entry(format!("{github}\"upstream-failed\"}} ")).or_default() += 1;
    *wanted.entry(format!("{github}\"forwarded\"}} ")).or_default() += 1;
    // What is no request at all is counted by connection.
    let mut client = gate.connect();
    client.send("GET / HTTP/1.1\nbad header\r\n\r\n");
    client.rest();
    let parse_errors = "hookgate_connections_failed_total{reason=\"parse-error\"}";
    until("it is counted", || (gate.metric(parse_errors) == 1.0).then_some(()));

    let metrics = gate.metrics();
    let lines: Vec<_> =
        metrics.lines().filter(|line| line.starts_with("hookgate_requests_total{")).collect();
    let mut wanted: Vec<_> =
        wanted.iter().map(|(series, count)| format!("{series}{count}")).collect();
    wanted.sort();
    let mut lines: Vec<_> = lines.into_iter().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, wanted);
    let requests: u32 = sent.iter().map(|it| it.0).sum::<u32>() + 2;
    let default = "{hook=\"default\"}";
    let elsewhere = "{hook=\"\"}";
    let count =
        |name: &str, hook: &str| gate.metric(&format!("hookgate_{name}_seconds_count{hook}"));
    assert_eq!(count("request_duration", default), f64::from(requests - 2));
    assert_eq!(count("request_duration", elsewhere), 2.0);
    assert_eq!(count("upstream_duration", default), 7.0);
    assert_eq!(gate.metric(&format!("hookgate_upstream_retries_total{default}")), 1.0);
    let failures = "hookgate_upstream_failures_total{hook=\"default\",kind=\"5xx\"}";
    assert_eq!(gate.metric(failures), 1.0);
    let key_file = |state: &str| format!("hookgate_keys{{file=\"webhook.key\",state=\"{state}\"}}");
    assert_eq!(gate.metric(&key_file("active")), 2.0);
    assert_eq!(gate.metric(&key_file("expired")), 0.0);
    assert_eq!(gate.metric("hookgate_keys_mixed_use{file=\"webhook.key\"}"), 1.0);
    assert_eq!(upstream.count(), 8);
    // And the log has one record for each of them.
    until("all records", || (gate.records().len() == requests as usize).then_some(()));
    let ids: BTreeSet<_> = gate.records().iter().map(|it| it["request.id"].to_string()).collect();
    assert_eq!(ids.len(), requests as usize);
}

#[test]
fn the_metrics_of_the_spool_agree_with_what_became_of_its_deliveries() {
    let upstream = Upstream::start();
    let gate = Setup::new().keys(KEYS).hook().upstream(&upstream).start();
    let result = |result: &str| {
        let labels = format!("{{hook=\"default\",result=\"{result}\"}}");
        gate.metric(&format!("hookgate_spool_deliveries_total{labels}"))
    };
    let records =
        |state: &str| gate.metric(&format!("hookgate_spool_records{{state=\"{state}\"}}"));
    assert_eq!(gate.metric("hookgate_spool_usable"), 1.0);
    assert_eq!(gate.metric("hookgate_spool_limit_bytes"), f64::from(1 << 30));
    let up = format!("hookgate_upstream_up{{upstream=\"{}\"}}", upstream.url());
    assert_eq!(gate.metric(&up), 1.0);

    assert_eq!(gate.ask(&github_push(KEY)).told(), (200, "forwarded"));
    upstream.next(Reply::Answer(500, &[], ""));
    upstream.next(Reply::Answer(500, &[], ""));
    assert_eq!(gate.ask(&github_push(KEY)).told(), (202, "queued"));
    until("it arrives", || (result("delivered") == 1.0).then_some(()));
    upstream.next(Reply::Answer(404, &[], ""));
    assert_eq!(gate.ask(&github_push(KEY)).told(), (202, "set-aside"));
    upstream.next(Reply::Answer(500, &[], ""));
    upstream.next(Reply::Answer(404, &[], ""));
    assert_eq!(gate.ask(&github_push(KEY)).told(), (202, "queued"));
    until("it is set aside", || (result("dead") == 2.0).then_some(()));
    assert_eq!((result("retried"), result("superseded")), (1.0, 0.0));
    // What the spool says of itself is asked for once a second.
    until("both are known", || (records("dead") == 2.0).then_some(()));
    let states = ["pending", "leased", "delivered"].map(records);
    assert_eq!(states, [0.0, 0.0, 1.0]);
    // The one that was refused at once is one of them.
    assert_eq!(gate.metric("hookgate_spool_attempts_total"), 4.0);
    assert_eq!(gate.metric("hookgate_spool_oldest_age_seconds"), 0.0);
    assert!(gate.metric("hookgate_spool_bytes") > 0.0);
    assert!(gate.metric("hookgate_spool_history_bytes") > 0.0);
    assert_eq!(upstream.count(), 7);
    let failures = |kind: &str| {
        let labels = format!("{{hook=\"default\",kind=\"{kind}\"}}");
        gate.metric(&format!("hookgate_upstream_failures_total{labels}"))
    };
    assert_eq!((failures("5xx"), failures("4xx")), (3.0, 2.0));
    assert_eq!((gate.counted("queued"), gate.counted("set-aside")), (2.0, 1.0));

    // And the log has one record for each request and for each attempt from the spool.
    until("all records", || (gate.records().len() == 7).then_some(()));
    let records = gate.records();
    let again: Vec<_> =
        records.iter().filter(|it| it["message"] == "Delivery sent from the spool").collect();
    let told = |it: &serde_json::Value| {
        let field = |name: &str| it[name].as_str().unwrap_or_default().to_owned();
        (field("outcome"), field("reason"), it["attempt"].as_u64())
    };
    let wanted = [
        ("upstream-failed", "upstream answered 500", 1),
        ("forwarded", "", 2),
        ("set-aside", "upstream answered 404", 1),
    ];
    let wanted = wanted.map(|(outcome, reason, n)| (outcome.into(), reason.into(), Some(n)));
    assert_eq!(again.iter().map(|it| told(it)).collect::<Vec<_>>(), wanted);
    let id = host::host("github").delivery.expect("an id");
    assert!(records.iter().all(|it| it["delivery.id"] == id), "{records:?}");

    // A service that wants to be left alone is taken to be down.
    upstream.next(Reply::Answer(503, &[("retry-after", "60")], ""));
    assert_eq!(gate.ask(&github_push(KEY)).told(), (202, "queued"));
    assert_eq!(gate.metric(&up), 0.0);
    until("it waits", || (gate.metric("hookgate_spool_oldest_age_seconds") > 0.0).then_some(()));
}

#[test]
fn the_log_of_a_request_says_who_what_and_why() {
    let upstream = Upstream::start();
    let gate = Setup::new().keys(KEYS).hook().upstream(&upstream).start();
    gate.ask(&github_push(KEY));
    gate.ask(&github_push(OTHER_KEY));
    until("two records", || (gate.records().len() == 2).then_some(()));
    let records = gate.records();
    let host = host::host("github");
    for (field, wanted) in [
        ("client.addr", "127.0.0.1"),
        ("hook.name", "default"),
        ("delivery.provider", "github"),
        ("delivery.event", "push"),
        ("delivery.repository", host.repository),
        ("delivery.id", host.delivery.expect("an id")),
        ("key.name", "plain"),
        ("outcome", "forwarded"),
    ] {
        assert_eq!(records[0][field], wanted, "{field}");
    }
    assert_eq!(records[0]["response.status"], 200);
    assert_eq!(records[0]["request.bytes"], host.body.len());
    assert!(
        records[0]["duration.total_ms"].as_f64() >= records[0]["duration.upstream_ms"].as_f64()
    );
    let wanted = ("unauthorized", "no active key fits", 401);
    let record = &records[1];
    assert_eq!(
        (&record["outcome"], &record["reason"], &record["response.status"]),
        (&wanted.0.into(), &wanted.1.into(), &wanted.2.into())
    );
    // Of a stranger nothing is repeated but what the gate knows itself.
    for field in ["delivery.event", "delivery.repository", "delivery.id", "key.name"] {
        assert!(record.get(field).is_none(), "{field}: {record}");
    }
}

// --- The end

#[test]
fn a_signal_lets_what_is_in_flight_finish_and_takes_nothing_new() {
    for signal in ["TERM", "INT"] {
        let upstream = Upstream::with(Reply::Hold);
        let gate = Setup::new().keys(KEYS).hook().upstream(&upstream).start();
        let mut idle = gate.connect();
        assert_eq!(idle.ask(host::host("github").unproved().bytes()).status, 401);
        let mut idle = gate.connect();
        let mut busy = gate.connect();
        busy.send(github_push(KEY).bytes());
        upstream.holds(1);
        gate.signal(signal);
        // Idle connections are closed at once, and nobody gets in.
        assert_eq!(idle.rest(), b"");
        until("nobody gets in", || Client::try_connect(gate.address()).is_err().then_some(()));
        let ready = gate.probe("/ready");
        assert_eq!((ready.status, ready.text()), (503, "not ready\nstopping\n".into()));
        assert_eq!(gate.probe("/live").status, 200);
        upstream.release();
        let answer = busy.answer();
        assert_eq!(answer.told(), (200, "forwarded"));
        assert_eq!(busy.rest(), b"");
        let finished = gate.wait();
        assert_eq!(finished.code, Some(0), "{signal}");
        assert!(finished.stderr.contains("stopped, everything was finished"));
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let upstream = Upstream::with(Reply::Hold);
    let gate = Setup::new().keys(KEYS).hook().upstream(&upstream).start();
    let mut busy = gate.connect();
    busy.send(github_push(KEY).bytes());
    upstream.holds(1);
    gate.signal("TERM");
    gate.says("stopping: no longer ready");
    let began = Instant::now();
    gate.signal("INT");
    let finished = gate.wait();
    assert_eq!(finished.code, Some(4));
    assert!(finished.stderr.contains("stopped at once by a second signal"));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(busy.try_answer().is_err());
}

#[test]
fn what_does_not_finish_within_the_grace_period_is_cut() {
    let upstream = Upstream::with(Reply::Hold);
    let config = "[limits]\ngrace_period = \"300ms\"\n[[hook]]\nname = \"default\"\n";
    let gate = Setup::new().keys(KEYS).config(config).upstream(&upstream).start();
    let mut busy = gate.connect();
    busy.send(github_push(KEY).bytes());
    upstream.holds(1);
    gate.signal("TERM");
    let finished = gate.wait();
    assert_eq!(finished.code, Some(3));
    let warned = "stopped, the grace period ended with connections open";
    assert!(finished.stderr.contains(warned), "{}", finished.stderr);
    assert!(finished.stderr.contains("\"connections\":1"), "{}", finished.stderr);
    assert!(busy.try_answer().is_err());
}

#[test]
fn before_it_stops_listening_it_says_for_a_while_that_it_is_not_ready() {
    let upstream = Upstream::start();
    let config = "[limits]\nshutdown_delay = \"700ms\"\n[[hook]]\nname = \"default\"\n";
    let gate = Setup::new().keys(KEYS).config(config).upstream(&upstream).start();
    assert_eq!(gate.probe("/ready").status, 200);
    gate.signal("TERM");
    until("it is not ready", || (gate.probe("/ready").status == 503).then_some(()));
    // Load balancers that have not noticed yet lose nothing.
    assert_eq!(gate.ask(&github_push(KEY)).told(), (200, "forwarded"));
    assert_eq!(gate.wait().code, Some(0));
}

fn last_line(finished: &Finished) -> &str {
    finished.stderr.lines().last().expect("an error")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o7777
}
