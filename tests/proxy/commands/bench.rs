//! `hookgate bench`: what it sends, what it measures, and where it sends nothing.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::run_in;
use crate::support::gate::{Finished, Setup};
use crate::support::host::{HOOK, KEY, KEYS, OTHER_KEY};
use crate::support::tls::Pair;
use crate::support::until;
use crate::support::upstream::{Down, Received, Reply, Upstream};

/// `hookgate bench` as GitHub, with a key, against this URL.
fn bench(to: &str, args: &[&str]) -> Setup {
    let setup = Setup::bare(&["bench", "--provider", "github", "--to", to]).args(args);
    setup.keys(&format!("{KEY} name=plain\n"))
}

/// The report of a run that ended with this code.
#[track_caller]
fn report(finished: &Finished, code: i32) -> Value {
    assert_eq!((finished.code, &*finished.stderr), (Some(code), ""), "{}", finished.stdout);
    serde_json::from_str(&finished.stdout).expect("JSON")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[test]
fn the_deliveries_of_every_host_are_authentic_and_new() {
    // It remembers what it has seen, and would call a delivery that is not new a duplicate.
    let gate = Setup::new().config(HOOK).keys(KEYS).start();
    let to = format!("http://{}/webhook", gate.address());
    let mut printed = 0;
    for provider in [
        "github",
        "gitlab",
        "bitbucket-cloud",
        "bitbucket-server",
        "gitea",
        "forgejo",
        "gogs",
        "azure-devops",
        "gerrit",
        "gitee",
        "manual",
        "generic",
        "standard-webhooks",
    ] {
        let fixed =
            ["bench", "--config", "hookgate.toml", "--key-file", "webhook.key", "--to", &to];
        let load = ["--provider", provider, "--rate", "100", "--duration", "200ms", "--json"];
        let about = ["--repositories", "7", "--size", "3000B"];
        let report = report(&run_in(gate.folder(), &[&fixed[..], &load, &about].concat()), 0);
        assert_eq!(report["outcomes"]["printed"], 20, "{provider}: {report}");
        assert_eq!((&report["sent"], &report["body_bytes"]), (&20.into(), &3000.into()));
        printed += 20;
        let lines = until("all is printed", || {
            let text = gate.printed();
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            (text.ends_with('\n') && lines.len() == printed).then_some(lines)
        });
        let lines = lines[printed - 20..].iter();
        let lines: Vec<Value> =
            lines.map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let each = |key: &str| lines.iter().map(|it| it[key].to_string()).collect::<HashSet<_>>();
        assert_eq!(each("payload").len(), 20, "{provider}");
        assert_eq!(each("repository").len(), 7, "{provider}: {:?}", each("repository"));
        let commits = lines.iter().map(|line| line["payload"]["after"].as_str());
        let commits: HashSet<_> = commits.flatten().collect();
        assert!(commits.is_empty() || commits.len() == 20, "{provider}: {commits:?}");
    }
}

#[test]
fn a_connection_of_a_closed_loop_sends_when_it_has_its_answer() {
    let upstream = Upstream::start();
    let args = ["--connections", "2", "--duration", "300ms", "--size", "1KiB", "--threads", "2"];
    let to = format!("{}/in", upstream.url());
    let report = report(&bench(&to, &args).args(&["--json"]).run(), 0);
    let received = upstream.take();
    assert_eq!(number(&report["sent"]) as usize, received.len());
    assert_eq!(report["statuses"]["200"], report["sent"]);
    assert_eq!(report["connections_opened"], 2, "{report}");
    assert_eq!(report["latency"]["percentiles"][0]["percentile"], 0.0);
    let ids: HashSet<_> = received.iter().map(|one| one.header("x-github-delivery")).collect();
    let bodies: HashSet<_> = received.iter().map(|one| &one.body).collect();
    assert_eq!((ids.len(), bodies.len()), (received.len(), received.len()));
    assert!(received.iter().all(|one| one.body.len() == 1024 && one.line == "POST /in HTTP/1.1"));
}

#[test]
fn deliveries_are_signed_before_the_start_as_far_as_there_is_memory() {
    let gate = Setup::new().config(HOOK).keys(KEYS).start();
    let to = format!("http://{}/webhook", gate.address());
    // Each is authentic and new, wherever it was signed.
    for (memory, before) in [("64MiB", 20..=20), ("1KiB", 1..=19), ("0B", 0..=0)] {
        let load = ["--rate", "100", "--duration", "200ms", "--prepare", memory];
        let text = bench(&to, &load).run();
        let report = report(&bench(&to, &load).args(&["--json"]).run(), 0);
        assert_eq!(report["outcomes"]["printed"], 20, "{memory}: {report}");
        let signed = number(&report["signed_before"]) as u64;
        assert!(before.contains(&signed), "{memory}: {report}");
        let line = format!("signed        {} of them while sending\n", 20 - signed);
        assert_eq!(text.stdout.contains(&line), signed < 20, "{}", text.stdout);
    }
}

#[test]
fn what_is_sent_to_warm_up_does_not_count() {
    let upstream = Upstream::start();
    let args = ["--rate", "100", "--warm-up", "200ms", "--duration", "100ms", "--json"];
    let report = report(&bench(&upstream.url(), &args).run(), 0);
    assert_eq!((&report["warm_up"], &report["sent"]), (&20.into(), &10.into()), "{report}");
    assert_eq!(upstream.count(), 30);
}

/// When the services of the test below got their first request.
static FIRST: [OnceLock<Instant>; 3] = [const { OnceLock::new() }; 3];

/// Answers nothing from half a second after its first request on, for a second.
fn stall<const N: usize>(received: &Received) -> Reply {
    let since = received.at.saturating_duration_since(*FIRST[N].get_or_init(|| received.at));
    let (begin, end) = (Duration::from_millis(500), Duration::from_millis(1500));
    if (begin..end).contains(&since) {
        Reply::Wait(end - since, 200)
    } else {
        Reply::Answer(200, &[], "")
    }
}

#[test]
fn a_stall_is_in_the_latency_of_all_that_were_due_meanwhile() {
    let measured = |reply: fn(&Received) -> Reply, args: &[&str]| {
        let upstream = Upstream::with(Reply::By(reply));
        let args = [args, &["--duration", "2s", "--json"]].concat();
        report(&bench(&upstream.url(), &args).run(), 0)
    };
    // How many of so many took longer than a tenth of the stall.
    let slow = |times: &Value| {
        let steps = times["percentiles"].as_array().expect("steps").iter();
        let below = steps.filter(|step| number(&step["ms"]) < 100.0);
        200.0 - below.map(|step| number(&step["count"])).fold(0.0, f64::max)
    };
    let open = measured(stall::<0>, &["--rate", "100"]);
    assert_eq!(open["answered"], 200);
    let latency = &open["latency"];
    assert!(slow(latency) >= 80.0, "{latency}");
    assert!(number(&latency["p90_ms"]) > 500.0 && number(&latency["max_ms"]) > 900.0, "{latency}");

    // One connection sends nothing during the stall: what was due is measured all the same.
    let one = measured(stall::<1>, &["--rate", "100", "--connections-max", "1"]);
    let (latency, sending) = (&one["latency"], &one["from_sending"]);
    assert!(slow(latency) >= 80.0, "{latency}");
    assert!(number(&latency["p90_ms"]) > 500.0, "{latency}");
    assert!(number(&sending["p90_ms"]) < number(&latency["p90_ms"]) / 2.0, "{sending}");
    assert_eq!((&one["schedule"]["kept"], &one["answered"]), (&false.into(), &200.into()));

    // So does a closed loop, where only the correction shows it.
    let closed = measured(stall::<2>, &["--connections", "1"]);
    let (latency, sending) = (&closed["latency"], &closed["from_sending"]);
    assert!(number(&latency["p90_ms"]) > 200.0, "{latency}");
    assert!(number(&sending["p90_ms"]) < number(&latency["p90_ms"]) / 2.0, "{sending}");
}

#[test]
fn what_was_not_answered_2xx_is_told_by_its_kind_and_by_the_exit_code() {
    let down = Down::new();
    for (reply, kind) in [
        (None, "connect"),
        (Some(Reply::Reset), "reset"),
        (Some(Reply::Close), "reset"),
        (Some(Reply::Hold), "timeout"),
        (Some(Reply::Raw("EHLO there\r\n\r\n")), "protocol"),
    ] {
        let upstream = reply.clone().map(Upstream::with);
        let to = upstream.as_ref().map_or_else(|| down.url(), Upstream::url);
        let args = ["--rate", "50", "--duration", "100ms", "--timeout", "300ms", "--json"];
        let report = report(&bench(&to, &args).run(), 1);
        assert_eq!(report["errors"][kind]["count"], 5, "{reply:?}: {report}");
        assert_eq!((&report["answered"], &report["good"]), (&0.into(), &false.into()));
        if kind == "timeout" {
            assert!(number(&report["latency"]["p50_ms"]) >= 290.0, "{report}");
        }
    }
    let gate = Setup::new().hook().keys(&format!("{OTHER_KEY}\n")).start();
    let to = format!("http://{}/webhook", gate.address());
    let finished = bench(&to, &["--rate", "50", "--duration", "100ms"]).run();
    assert_eq!((finished.code, &*finished.stderr), (Some(1), ""));
    for line in ["answered      401 5\n", "outcome       unauthorized 5\n"] {
        assert!(finished.stdout.contains(line), "{}", finished.stdout);
    }
}

#[test]
fn what_the_connections_could_not_send_is_told() {
    let upstream = Upstream::with(Reply::Hold);
    let args = ["--rate", "50", "--duration", "100ms", "--timeout", "300ms"];
    let finished = bench(&upstream.url(), &[&args[..], &["--connections-max", "1"]].concat()).run();
    assert_eq!(finished.code, Some(1));
    let schedule = finished.stdout.lines().find(|line| line.starts_with("schedule"));
    let schedule = schedule.expect("an open loop has one");
    assert!(schedule.contains(" began more than 10 ms late, the latest "), "{schedule}");
    assert!(schedule.contains(" were never sent; all 1 connections were in use"), "{schedule}");
}

#[test]
fn an_interrupt_ends_it_and_the_report_is_printed() {
    let upstream = Upstream::start();
    for load in ["--rate", "--connections"] {
        // So many requests that some connection had an answer before it sent the last of them.
        let setup = bench(&upstream.url(), &[load, "20", "--duration", "1h", "--json"]);
        let before = upstream.count();
        let finished =
            setup.run_until("deliveries", || (upstream.count() > before + 50).then_some(()));
        let report = report(&finished, 0);
        assert_eq!(report["interrupted"], true);
        assert!(number(&report["answered"]) >= 10.0 && number(&report["duration_seconds"]) < 60.0);
    }
}

#[test]
fn nothing_is_sent_to_another_machine_unless_its_owner_says_so() {
    for to in [
        "http://192.0.2.1/webhook",
        "http://[::ffff:192.0.2.1]:8080/webhook",
        "https://[2001:db8::1]/webhook",
        "http://0.0.0.0:9/webhook",
    ] {
        let finished = bench(to, &["--rate", "1"]).run();
        assert_eq!((finished.code, &*finished.stdout), (Some(2), ""), "{to}");
        assert!(finished.stderr.contains(" is not on this machine: "), "{to}: {}", finished.stderr);
    }
    // An address that is not the loopback's, and leads here.
    let upstream = Upstream::start();
    let to = upstream.url().replace("127.0.0.1", "0.0.0.0");
    let args = ["--rate", "10", "--duration", "100ms"];
    assert_eq!(bench(&to, &args).run().code, Some(2));
    assert_eq!(upstream.count(), 0);
    assert_eq!(bench(&to, &args).args(&["--i-own-this-endpoint"]).run().code, Some(0));
    for host in ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]"] {
        let to = upstream.url().replace("127.0.0.1", host);
        assert_eq!(bench(&to, &args).run().code, Some(0), "{host}");
    }
    assert_eq!(upstream.count(), 4);
}

#[test]
fn an_endpoint_may_have_tls_or_be_a_socket() {
    let pair = Pair::new();
    let setup = Setup::new().keys(&format!("{KEY}\n"));
    std::fs::write(setup.path("tls.crt"), &pair.certificate).expect("a file");
    std::fs::write(setup.path("tls.key"), &pair.key).expect("a file");
    let tls = "[tls]\ncertificate_file = \"tls.crt\"\nkey_file = \"tls.key\"\n";
    let gate = setup.config(tls).start();
    let to = format!("https://localhost:{}/webhook", gate.address().port());
    let ca_file = gate.path("tls.crt");
    let trusted = ["--ca-file", ca_file.to_str().expect("text")];
    let args = ["--rate", "20", "--duration", "200ms", "--json"];
    assert_eq!(report(&bench(&to, &args).args(&trusted).run(), 0)["outcomes"]["printed"], 4);
    let untrusted = report(&bench(&to, &args).run(), 1);
    assert_eq!(untrusted["errors"]["connect"]["count"], 4, "{untrusted}");

    let socket = gate.path("endpoint.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let serving = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        let mut reader = BufReader::new(&stream);
        let (mut head, mut line) = (String::new(), String::new());
        while reader.read_line(&mut line).expect("a head") > 2 {
            head.push_str(&std::mem::take(&mut line));
        }
        reader.read_exact(&mut [0; 1000]).expect("a body");
        (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("a client");
        head
    });
    let args = ["--rate", "1", "--duration", "100ms", "--size", "1000B"];
    let finished = bench(&format!("unix:{}:/x", socket.display()), &args).run();
    assert_eq!(finished.code, Some(0), "{}{}", finished.stdout, finished.stderr);
    let head = serving.join().expect("no panic");
    assert!(head.starts_with("POST /x HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("host: localhost\r\n"), "{head}");
}

#[test]
fn what_cannot_be_a_load_is_wrong_usage() {
    let unused = "http://127.0.0.1:9/webhook";
    for args in [
        &[][..],
        &["--rate", "5", "--connections", "5"],
        &["--connections", "5", "--connections-max", "5"],
        &["--rate", "0"],
        &["--rate", "-1"],
        &["--rate", "NaN"],
        &["--rate", "1e9"],
        &["--connections", "0"],
        &["--rate", "1", "--duration", "0s"],
        &["--rate", "1", "--timeout", "soon"],
        &["--rate", "1", "--size", "1GiB"],
        &["--rate", "1", "--size", "10B"],
        &["--rate", "1", "--prepare", "some"],
        &["--rate", "1", "--prepare", "5GiB"],
        &["--rate", "1", "--repositories", "0"],
        &["--rate", "1", "--repository", "widgets"],
    ] {
        let finished = bench(unused, args).run();
        assert_eq!((finished.code, &*finished.stdout), (Some(2), ""), "{args:?}");
        assert!(finished.stderr.starts_with("error: "), "{args:?}: {}", finished.stderr);
    }
    let finished = bench("127.0.0.1:9", &["--rate", "1"]).run();
    assert!(finished.stderr.starts_with("error: --to: expected a URL"), "{}", finished.stderr);
    assert_eq!(finished.code, Some(2));
    let finished = bench(unused, &["--rate", "1", "--key", "x"]).run();
    assert_eq!(finished.stderr, "error: the key file has no key of this name\n");
    assert_eq!(finished.code, Some(1));
}
