//! Who may call, who it is behind proxies, and how much a stranger may have refused.
//!
//! Linux has all of 127.0.0.0/8 on the loopback interface, so a test can call from as many addresses as it likes.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use hookgate::scheme::Github;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::support::client::{Answer, Client, Request};
use crate::support::gate::{Gate, Setup};
use crate::support::host::{self, KEY, KEYS, OTHER_KEY, github_push, prove};
use crate::support::upstream::Upstream;
use crate::support::{PATIENCE, until};

const HOOK: &str = "[[hook]]\nname = \"default\"\n";

/// 127.0.0.`last`.
fn local(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

/// A connection from this address.
#[track_caller]
fn connect_from(gate: &Gate, source: IpAddr) -> Client {
    let port = gate.address().port();
    let to = if source.is_ipv4() { local(1) } else { "::1".parse().expect("an address") };
    let socket = Socket::new(Domain::for_address(SocketAddr::new(to, port)), Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.bind(&SocketAddr::new(source, 0).into()).expect("a local address");
    socket.connect_timeout(&SocketAddr::new(to, port).into(), PATIENCE).expect("a connection");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
    Client::over(stream)
}

#[track_caller]
fn ask_from(gate: &Gate, source: IpAddr, request: &Request) -> Answer {
    connect_from(gate, source).ask(request.bytes())
}

/// A push that is signed with a key that the gate does not have.
fn forged() -> Request {
    github_push(OTHER_KEY)
}

/// A push whose proof is the key in its URL.
fn with_url_key(key: &str) -> Request {
    github_push(KEY).without("x-hub-signature-256").to(&format!("/webhook/{key}"))
}

/// Under these settings, with one hook that says this.
fn setup(settings: &str, hook: &str, upstream: &Upstream) -> Setup {
    Setup::new().keys(KEYS).hooks(&format!("{settings}\n{HOOK}{hook}\n")).upstream(upstream)
}

/// The answer to a request, and its audit record.
#[track_caller]
fn recorded(gate: &Gate, ask: impl FnOnce() -> Answer) -> (Answer, Value) {
    let before = gate.records().len();
    let answer = ask();
    let record = until("the audit record", || gate.records().into_iter().nth(before));
    (answer, record)
}

#[test]
fn a_hook_takes_requests_from_where_it_may_and_refuses_all_others_before_their_credentials() {
    let upstream = Upstream::start();
    let hook = "allow_from = [\"127.0.0.2\", \"127.0.1.0/24\"]";
    let gate = setup("", hook, &upstream).start();
    assert_eq!(ask_from(&gate, local(2), &github_push(KEY)).told(), (200, "forwarded"));
    assert_eq!(ask_from(&gate, local(2), &forged()).told(), (401, "unauthorized"));
    let from = Ipv4Addr::new(127, 0, 1, 9).into();
    assert_eq!(ask_from(&gate, from, &github_push(KEY)).told(), (200, "forwarded"));
    let mut bodies = Vec::new();
    for request in [
        github_push(KEY),
        forged(),
        with_url_key(KEY),
        with_url_key(OTHER_KEY),
        Request::new("DELETE", "/webhook"),
        Request::post("/webhook"),
    ] {
        let answer = gate.ask(&request);
        assert_eq!(answer.told(), (403, "forbidden"), "{request:?}");
        bodies.push(answer.text());
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "one answer for all: {bodies:?}");
    assert_eq!(gate.ask(&Request::post("/elsewhere")).told(), (404, "not-found"));
    assert_eq!(gate.counted("forbidden"), 6.0);
    until("all of them are recorded", || (gate.records().len() == 10).then_some(()));
    // Without a byte of the body.
    let (answer, record) = recorded(&gate, || {
        gate.connect().ask(github_push(KEY).head("content-length: 1000000\r\n"))
    });
    assert_eq!(answer.told(), (403, "forbidden"));
    assert_eq!(record["outcome"], "forbidden", "{record}");
    assert_eq!(record["client.addr"], "127.0.0.1", "{record}");
    assert_eq!(record["hook.name"], "default", "{record}");
    assert_eq!(upstream.count(), 2);
}

#[test]
fn an_ipv4_address_is_the_same_on_a_socket_of_both_families() {
    let upstream = Upstream::start();
    for (allowed, other) in [
        (local(1), "::1".parse().expect("an address")),
        ("::1".parse().expect("an address"), local(1)),
    ] {
        let config = format!("{HOOK}allow_from = [\"{allowed}\"]\n");
        let setup = Setup::bare(&["serve", "--log-format", "json", "--listen", "[::]:0"]).args(&[
            "--health",
            "127.0.0.1:0",
            "--state-dir",
            "state",
        ]);
        let gate = setup.keys(KEYS).hooks(&config).upstream(&upstream).start();
        assert_eq!(ask_from(&gate, allowed, &github_push(KEY)).told(), (200, "forwarded"));
        assert_eq!(ask_from(&gate, other, &github_push(KEY)).told(), (403, "forbidden"));
    }
}

#[test]
fn what_stands_above_the_hooks_is_for_those_that_say_nothing_of_their_own() {
    let upstream = Upstream::start();
    let text = "allow_from = [\"127.0.0.2\"]\n[[hook]]\nname = \"a\"\n\
        [[hook]]\nname = \"b\"\npath = \"/b\"\nallow_from = [\"127.0.0.3\"]\n";
    let gate = Setup::new().keys(KEYS).hooks(text).upstream(&upstream).start();
    let told = |last, path| ask_from(&gate, local(last), &github_push(KEY).to(path)).status;
    assert_eq!((told(2, "/webhook"), told(3, "/webhook")), (200, 403));
    assert_eq!((told(2, "/b"), told(3, "/b")), (403, 200));
}

#[test]
fn a_file_of_sources_is_followed_and_a_bad_one_never_opens_a_hook() {
    let upstream = Upstream::start();
    let setup = setup("", "allow_from_files = [\"hosts.cidr\"]", &upstream);
    let path = setup.path("hosts.cidr");
    let gate = setup.start();
    let told = |last: u8| ask_from(&gate, local(last), &github_push(KEY)).status;
    // It is not there.
    assert_eq!((told(1), told(2)), (403, 403));
    let ready = gate.probe("/ready");
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("hosts.cidr lists nobody yet"), "{}", ready.text());
    gate.shows("nobody in it may call");
    fs::write(&path, "# of the host\n127.0.0.2\n").expect("a file");
    until("the file is in force", || (told(2) == 200).then_some(()));
    assert_eq!(told(1), 403);
    assert!(!gate.probe("/ready").text().contains("hosts.cidr"));
    // A bad one leaves the last good one.
    for bad in ["127.0.0.1\nhost.example.com\n", "", "127.0.0.1/8\n"] {
        let failures = gate.log().matches("the last good one stays in force").count();
        fs::write(&path, bad).expect("a file");
        until("it is told", || {
            (gate.log().matches("the last good one stays in force").count() > failures)
                .then_some(())
        });
        assert_eq!((told(1), told(2)), (403, 200), "{bad}");
    }
    // And a good one is taken again, with what is no longer in it.
    fs::write(&path, "127.0.0.3\n").expect("a file");
    until("the file is in force", || (told(3) == 200).then_some(()));
    assert_eq!((told(1), told(2)), (403, 403));
    // So is a change of the configuration, which keeps the list.
    let config = gate.path("hookgate.toml");
    let text = fs::read_to_string(&config).expect("our own file");
    fs::write(&config, text + "allow_from = [\"127.0.0.1\"]\n").expect("a file");
    until("the configuration is in force", || (told(1) == 200).then_some(()));
    assert_eq!((told(2), told(3)), (403, 200));
}

#[test]
fn a_client_header_of_somebody_who_is_not_trusted_says_nothing() {
    let upstream = Upstream::start();
    let hook = "allow_from = [\"198.51.100.0/24\", \"127.0.0.3\"]";
    let settings = "trusted_proxies = [\"127.0.0.2\"]";
    let gate = setup(settings, hook, &upstream).start();
    let spoofed = github_push(KEY)
        .header("X-Forwarded-For", "198.51.100.7")
        .header("Forwarded", "for=198.51.100.7")
        .header("X-Real-IP", "198.51.100.7");
    let (answer, record) = recorded(&gate, || gate.ask(&spoofed));
    assert_eq!(answer.told(), (403, "forbidden"));
    assert_eq!(record["client.addr"], "127.0.0.1");
    // Nor does it take anything from who may call.
    let spoofed = github_push(KEY).header("X-Forwarded-For", "203.0.113.9");
    assert_eq!(ask_from(&gate, local(3), &spoofed).told(), (200, "forwarded"));
    assert_eq!(upstream.take_one().header("x-forwarded-for"), Some("127.0.0.3"));
}

#[test]
fn the_client_behind_trusted_proxies_is_read_from_the_right() {
    let upstream = Upstream::start();
    let hook = "allow_from = [\"198.51.100.0/24\"]";
    let settings = "trusted_proxies = [\"127.0.0.2\", \"10.0.0.0/8\"]";
    let gate = setup(settings, hook, &upstream).start();
    let behind = |lines: &[&str]| {
        let push = github_push(KEY).header("Forwarded", "for=198.51.100.66");
        let push = lines.iter().fold(push, |push, line| push.header("X-Forwarded-For", line));
        ask_from(&gate, local(2), &push)
    };
    for lines in [
        &["198.51.100.7"][..],
        &["203.0.113.9, 198.51.100.7"],
        &["203.0.113.9, 198.51.100.7, 10.1.2.3"],
        &["203.0.113.9", "\"garbage, 198.51.100.7", "10.1.2.3"],
        &["198.51.100.7:4711"],
    ] {
        let (answer, record) = recorded(&gate, || behind(lines));
        assert_eq!(answer.told(), (200, "forwarded"), "{lines:?}");
        assert_eq!(record["client.addr"], "198.51.100.7", "{lines:?}");
        let received = upstream.take_one();
        assert_eq!(received.header("x-forwarded-for"), Some("198.51.100.7"));
        assert!(received.header("forwarded").expect("a header").starts_with("for=198.51.100.7;"));
    }
    for (lines, client) in [
        // What the client wrote to the left of what the proxy saw.
        (&["198.51.100.7, 203.0.113.9"][..], "203.0.113.9"),
        (&["198.51.100.7", "203.0.113.9, 10.1.2.3"], "203.0.113.9"),
        // Where nothing can be read, the proxy itself is the source.
        (&["198.51.100.7, unknown"], "127.0.0.2"),
        (&["198.51.100.7,"], "127.0.0.2"),
        (&[], "127.0.0.2"),
    ] {
        let (answer, record) = recorded(&gate, || behind(lines));
        assert_eq!(answer.told(), (403, "forbidden"), "{lines:?}");
        assert_eq!(record["client.addr"], client, "{lines:?}");
    }
    assert_eq!(upstream.count(), 5, "the first ones");
    // The other header, from the next request on.
    let config = gate.path("hookgate.toml");
    let text = fs::read_to_string(&config).expect("our own file");
    fs::write(&config, format!("client_header = \"forwarded\"\n{text}")).expect("a file");
    until("the configuration is in force", || {
        (behind(&["203.0.113.9"]).status == 200).then_some(())
    });
    let shown = upstream.take().pop().expect("a delivery");
    assert_eq!(shown.header("x-forwarded-for"), Some("198.51.100.66"));
}

#[test]
fn a_stranger_who_was_refused_too_often_has_to_wait_and_nobody_else() {
    let upstream = Upstream::start();
    let settings = "[limits]\nunauthenticated_per_source = \"3/1h\"";
    let gate = setup(settings, "", &upstream).start();
    let stranger = local(2);
    for request in [forged(), with_url_key(OTHER_KEY), Request::post("/webhook")] {
        assert_eq!(ask_from(&gate, stranger, &request).told(), (401, "unauthorized"));
    }
    for request in [forged(), with_url_key(OTHER_KEY), Request::post("/webhook")] {
        let answer = ask_from(&gate, stranger, &request);
        assert_eq!(answer.told(), (429, "rate-limited"));
        let wait: u64 = answer.header("retry-after").expect("a time").parse().expect("seconds");
        assert!((1100..=1200).contains(&wait), "{wait}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    until("they are recorded", || (gate.records().len() == 6).then_some(()));
    // Before a byte of the body.
    let (answer, record) = recorded(&gate, || {
        connect_from(&gate, stranger).ask(forged().head("content-length: 1000000\r\n"))
    });
    assert_eq!(answer.told(), (429, "rate-limited"));
    assert_eq!(gate.counted("rate-limited"), 4.0);
    assert_eq!(record["outcome"], "rate-limited", "{record}");
    assert_eq!(record["client.addr"], "127.0.0.2", "{record}");
    // Another source is not touched by that.
    assert_eq!(gate.ask(&github_push(KEY)).told(), (200, "forwarded"));
    assert_eq!(gate.ask(&forged()).told(), (401, "unauthorized"));
    // A token or a URL key that is good is told by the head.
    let token = host::gitlab_token().push();
    assert_eq!(upstream.count(), 1);
    assert_eq!(ask_from(&gate, stranger, &token).told(), (200, "forwarded"));
    // And from then on the address is one of a host, which strangers can no longer lock out.
    for _ in 0..5 {
        assert_eq!(ask_from(&gate, stranger, &forged()).told(), (401, "unauthorized"));
    }
    assert_eq!(ask_from(&gate, stranger, &github_push(KEY)).told(), (200, "forwarded"));
    assert_eq!(upstream.count(), 3);
}

#[test]
fn authentic_deliveries_use_nothing_up_and_pings_without_proof_free_nobody() {
    let upstream = Upstream::start();
    let settings = "[limits]\nunauthenticated_per_source = \"2/1h\"";
    let gate = setup(settings, "", &upstream).start();
    for _ in 0..20 {
        assert_eq!(gate.ask(&github_push(KEY)).told(), (200, "forwarded"));
    }
    let ping = Request::post("/webhook").header("X-Event-Key", "diagnostics:ping");
    let ping = ping.body("{\"test\": true}");
    assert_eq!(ask_from(&gate, local(2), &ping).told(), (200, "pong"));
    for _ in 0..2 {
        assert_eq!(ask_from(&gate, local(2), &forged()).told(), (401, "unauthorized"));
    }
    assert_eq!(ask_from(&gate, local(2), &forged()).told(), (429, "rate-limited"));
    // Behind a proxy each client has its own allowance.
    let config = gate.path("hookgate.toml");
    let text = fs::read_to_string(&config).expect("our own file");
    fs::write(&config, format!("trusted_proxies = [\"127.0.0.2\"]\n{text}")).expect("a file");
    let behind = |client: &str, request: Request| {
        ask_from(&gate, local(2), &request.header("X-Forwarded-For", client)).status
    };
    until("the configuration is in force", || {
        (behind("2001:db8::7", github_push(KEY)) == 200).then_some(())
    });
    let of_proxy = ask_from(&gate, local(2), &forged()).status;
    assert_eq!(of_proxy, 429, "what was used up stays so when the configuration changes");
    assert_eq!(behind("203.0.113.9", forged()), 401);
    assert_eq!(behind("203.0.113.9", forged()), 401);
    assert_eq!(behind("203.0.113.9", forged()), 429);
    assert_eq!(behind("203.0.113.10", forged()), 401);
    // The addresses of one IPv6 network are one source.
    for (address, status) in
        [("2001:db8:1::1", 401), ("2001:db8:1::2", 401), ("2001:db8:1::3", 429)]
    {
        assert_eq!(behind(address, forged()), status, "{address}");
    }
}

#[test]
fn a_body_that_does_not_come_is_charged_too() {
    let upstream = Upstream::start();
    let settings = "[limits]\nbody_deadline = \"200ms\"\nunauthenticated_per_source = \"1/1h\"";
    let gate = setup(settings, "", &upstream).start();
    let push = github_push(KEY);
    let head = push.head(&format!("content-length: {}\r\n", push.body.len()));
    let mut client = connect_from(&gate, local(2));
    assert_eq!(client.ask(&head).told(), (408, "timeout"));
    assert_eq!(ask_from(&gate, local(2), &push).told(), (429, "rate-limited"));
}

#[test]
fn without_a_limit_a_stranger_is_refused_as_often_as_he_comes() {
    let upstream = Upstream::start();
    let gate = setup("", "", &upstream).start();
    let mut client = gate.connect();
    let wrong = prove(host::host("github").unproved(), &Github, OTHER_KEY, b"").bytes();
    for _ in 0..2000 {
        assert_eq!(client.ask(&wrong).told(), (401, "unauthorized"));
    }
}

#[test]
fn check_says_who_may_call_and_what_is_wrong_with_a_file_of_sources() {
    let text = "trusted_proxies = [\"10.0.0.0/8\"]\n\
        [limits]\nunauthenticated_per_source = \"60/1m\"\n\
        [[hook]]\nname = \"a\"\nrate = \"100/1m\"\nrepository_rate = \"10/60s burst 2\"\n\
        allow_from = [\"192.0.2.0/24\"]\nallow_from_files = [\"good.cidr\", \"bad.cidr\", \"none.cidr\"]\n";
    let setup = Setup::bare(&["check"]).config(text);
    fs::write(setup.path("good.cidr"), "192.0.2.0/24\n").expect("a file");
    fs::write(setup.path("bad.cidr"), "192.0.2.0/24\ncanary\n").expect("a file");
    let finished = setup.run();
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    for line in [
        "refusals        60/1m from each source, then 429",
        "proxies         X-Forwarded-For of trusted_proxies names the client",
        "  from          allow_from, good.cidr, bad.cidr, none.cidr",
        "  rate          100/1m, 10/1m burst 2 for each repository",
    ] {
        assert!(finished.stdout.contains(line), "{line}\n{}", finished.stdout);
    }
    let errors = finished.stderr;
    assert!(errors.contains("bad.cidr: line 2: expected an address"), "{errors}");
    assert!(
        errors.contains("none.cidr: no such file") && !errors.contains("good.cidr"),
        "{errors}"
    );
    assert!(!errors.contains("canary") && !errors.contains("whoever calls"), "{errors}");
    let open =
        Setup::bare(&["check"]).config("trusted_proxies = [\"10.0.0.0/8\", \"0.0.0.0/0\"]\n");
    let open = open.run();
    let warning = "warning: trusted_proxies has all of 0.0.0.0/0: whoever calls can say who he is";
    assert_eq!(open.code, Some(0), "{}", open.stderr);
    assert!(open.stderr.contains(warning) && !open.stderr.contains("::/0"), "{}", open.stderr);
}

#[test]
fn the_wait_that_is_told_is_the_wait_that_is_enough() {
    let upstream = Upstream::start();
    let settings = "[limits]\nunauthenticated_per_source = \"1/3s\"";
    let gate = setup(settings, "", &upstream).start();
    assert_eq!(ask_from(&gate, local(2), &forged()).told(), (401, "unauthorized"));
    let answer = ask_from(&gate, local(2), &forged());
    assert_eq!(answer.status, 429);
    let wait: u64 = answer.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=3).contains(&wait), "{wait}");
    std::thread::sleep(Duration::from_secs(wait));
    assert_eq!(ask_from(&gate, local(2), &forged()).told(), (401, "unauthorized"));
}
