//! Requests that two programs could read in two ways, over raw sockets.
//!
//! Whatever they are answered, the service gets the verified body in a request of the gate's own, or
//! nothing. Each case says how it is answered, whether the connection is kept after that, and how many
//! requests the service got.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::support::client::Request;
use crate::support::gate::{Gate, Setup};
use crate::support::host::{self, KEY, KEYS, OTHER_KEY, github_push};
use crate::support::tls::Pair;
use crate::support::until;
use crate::support::upstream::Upstream;

/// What would be a request of its own if somebody took it for one.
const SMUGGLED: &str = "POST /admin HTTP/1.1\r\nhost: internal\r\ncontent-length: 0\r\n\r\n";

/// How a case is answered: status and outcome, which is empty where the parser answers.
type Told = (u16, &'static str);

const FORWARDED: Told = (200, "forwarded");
const UNAUTHORIZED: Told = (401, "unauthorized");
const MALFORMED: Told = (400, "malformed");
const NOT_FOUND: Told = (404, "not-found");
const UNREADABLE: Told = (400, "");

const KEPT: bool = true;
const CLOSED: bool = false;

/// A gate, and a service that must see nothing but the verified push.
struct Rig {
    upstream: Upstream,
    gate: Gate,
}

impl Rig {
    fn new() -> Self {
        let upstream = Upstream::start();
        let gate = Setup::new().keys(KEYS).hook().upstream(&upstream).start();
        Self { upstream, gate }
    }

    /// Sends the bytes over a connection of their own.
    #[track_caller]
    fn check(&self, what: &str, bytes: impl AsRef<[u8]>, told: &[Told], kept: bool) {
        let mut client = self.gate.connect();
        // The gate may close before it has taken all.
        let _ = client.try_send(bytes);
        for wanted in told {
            let answer = client.try_answer().unwrap_or_else(|error| panic!("{what}: {error}"));
            let outcome = answer.header("hookgate-outcome").unwrap_or_default();
            assert_eq!((answer.status, outcome), *wanted, "{what}: {answer:?}");
        }
        let _ = client.try_send("GET /probe HTTP/1.1\r\nhost: gate.test\r\n\r\n");
        let rest = String::from_utf8_lossy(&if kept {
            client.try_answer().map(|answer| answer.status.to_string()).unwrap_or_default().into()
        } else {
            client.rest()
        })
        .into_owned();
        assert_eq!(rest, if kept { "404" } else { "" }, "{what}");
        self.check_service(what, told.iter().filter(|told| **told == FORWARDED).count());
    }

    /// The service got so many pushes, each in a request of the gate's own.
    #[track_caller]
    fn check_service(&self, what: &str, forwarded: usize) {
        let received = self.upstream.take();
        assert_eq!(received.len(), forwarded, "{what}: {received:#?}");
        for one in received {
            assert_eq!(one.line, "POST /webhook HTTP/1.1", "{what}");
            assert_eq!(one.text(), host::host("github").body, "{what}");
            let named = |name: &str| {
                one.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).count()
            };
            assert_eq!((named("content-length"), named("host")), (1, 1), "{what}: {one:#?}");
            assert_eq!(one.header("content-length"), Some(&*one.body.len().to_string()), "{what}");
            assert_eq!(one.header("host"), Some(&*self.upstream.authority()), "{what}");
            for absent in ["transfer-encoding", "expect", "upgrade", "te", "trailer", "connection"]
            {
                assert_eq!(one.header(absent), None, "{what}");
            }
        }
    }
}

/// The signed push with these lines in its head, and after the head this.
fn push(lines: &str, body: &str) -> Vec<u8> {
    let mut bytes = github_push(KEY).head(lines);
    bytes.extend_from_slice(body.as_bytes());
    bytes
}

fn body() -> &'static str {
    host::host("github").body
}

/// `content-length` of the push.
fn length() -> String {
    format!("content-length: {}\r\n", body().len())
}

/// The push in one chunk.
fn chunk() -> String {
    format!("{:x}\r\n{}\r\n0\r\n\r\n", body().len(), body())
}

const CHUNKED: &str = "transfer-encoding: chunked\r\n";

#[test]
fn a_request_has_one_length() {
    let rig = Rig::new();
    let length = length();
    rig.check("one length", push(&length, body()), &[FORWARDED], KEPT);
    rig.check("the same length twice", push(&length.repeat(2), body()), &[FORWARDED], KEPT);
    let size = body().len();
    for wrong in [
        format!("{length}content-length: 3\r\n"),
        format!("content-length: 3\r\n{length}"),
        format!("content-length: {size}, 3\r\n"),
        format!("content-length: +{size}\r\n"),
        format!("content-length: -{size}\r\n"),
        format!("content-length: {size:#x}\r\n"),
        format!("content-length: {size}.0\r\n"),
        format!("content-length: {size} {size}\r\n"),
        format!("content-length: 18446744073709551{size}\r\n"),
        "content-length:\r\n".to_owned(),
        format!("content-length : {size}\r\n"),
    ] {
        let what = wrong.trim_end();
        rig.check(what, push(&wrong, &format!("{}{SMUGGLED}", body())), &[UNREADABLE], CLOSED);
    }
    // A body that is shorter than it is said to be takes in what follows, and is another body.
    let longer = format!("content-length: {}\r\n", size + SMUGGLED.len());
    let smuggled = format!("{}{SMUGGLED}", body());
    rig.check("a length with more in it", push(&longer, &smuggled), &[UNAUTHORIZED], KEPT);
    // One that is longer leaves the rest as a request, which is a stranger's.
    let bytes = push(&length, &smuggled);
    rig.check("a request behind the body", bytes, &[FORWARDED, NOT_FOUND], KEPT);
    rig.check("no length", push("", body()), &[UNAUTHORIZED, UNREADABLE], CLOSED);
    let underscored = length.replace('-', "_");
    rig.check(
        "a length by another name",
        push(&underscored, body()),
        &[UNAUTHORIZED, UNREADABLE],
        CLOSED,
    );
}

#[test]
fn chunks_stand_above_a_length_and_close_the_connection() {
    let rig = Rig::new();
    rig.check("chunks", push(CHUNKED, &chunk()), &[FORWARDED], KEPT);
    let small = "content-length: 6\r\n";
    let smuggled = format!("{}{SMUGGLED}", chunk());
    for lines in [
        format!("{CHUNKED}{}", length()),
        format!("{}{CHUNKED}", length()),
        format!("{CHUNKED}{small}"),
        format!("{small}{CHUNKED}"),
    ] {
        rig.check(&lines, push(&lines, &smuggled), &[FORWARDED], CLOSED);
        let hidden = format!("0\r\n\r\n{SMUGGLED}");
        rig.check(&lines, push(&lines, &hidden), &[UNAUTHORIZED], CLOSED);
    }
}

#[test]
fn no_transfer_encoding_is_taken_but_chunked() {
    let rig = Rig::new();
    rig.check(
        "white space around it",
        push("Transfer-Encoding: \t chunked \r\n", &chunk()),
        &[FORWARDED],
        KEPT,
    );
    rig.check("in capitals", push("TRANSFER-ENCODING: CHUNKED\r\n", &chunk()), &[FORWARDED], KEPT);
    let smuggled = format!("{}{SMUGGLED}", chunk());
    for (coding, told) in [
        ("gzip, chunked", MALFORMED),
        ("chunked, chunked", MALFORMED),
        ("identity, chunked", MALFORMED),
        (", chunked", MALFORMED),
        ("chunked, gzip", UNREADABLE),
        ("chunked,", UNREADABLE),
        ("chunked;q=1", UNREADABLE),
        ("xchunked", UNREADABLE),
        ("chunkedx", UNREADABLE),
        ("\"chunked\"", UNREADABLE),
        ("identity", UNREADABLE),
        ("gzip", UNREADABLE),
        ("", UNREADABLE),
        ("\u{b}chunked", UNREADABLE),
    ] {
        let line = format!("transfer-encoding: {coding}\r\n");
        rig.check(coding, push(&line, &smuggled), &[told], CLOSED);
        let with_length = format!("{}{line}", length());
        rig.check(coding, push(&with_length, &smuggled), &[told], CLOSED);
    }
    for lines in [
        format!("{CHUNKED}{CHUNKED}"),
        format!("transfer-encoding: gzip\r\n{CHUNKED}"),
        format!("transfer-encoding: identity\r\n{CHUNKED}"),
    ] {
        rig.check(&lines, push(&lines, &smuggled), &[MALFORMED], CLOSED);
    }
    let last = format!("{CHUNKED}transfer-encoding: identity\r\n");
    rig.check("chunked is not the last", push(&last, &smuggled), &[UNREADABLE], CLOSED);
    // Spelt otherwise it says nothing, so there is no body.
    let underscored = CHUNKED.replace('-', "_");
    rig.check("another name", push(&underscored, &chunk()), &[UNAUTHORIZED, UNREADABLE], CLOSED);
    for line in [
        "transfer-encoding : chunked\r\n",
        " transfer-encoding: chunked\r\n",
        "x: y\r\n transfer-encoding: chunked\r\n",
    ] {
        rig.check(line, push(line, &smuggled), &[UNREADABLE], CLOSED);
    }
}

#[test]
fn chunks_that_are_none_end_the_body_with_an_error() {
    let rig = Rig::new();
    let size = body().len();
    for (what, chunks) in [
        ("no number", format!("x\r\n{}\r\n0\r\n\r\n", body())),
        ("a prefix", format!("{size:#x}\r\n{}\r\n0\r\n\r\n", body())),
        ("a sign", format!("+{size:x}\r\n{}\r\n0\r\n\r\n", body())),
        ("a negative size", "-1\r\n\r\n0\r\n\r\n".to_owned()),
        ("a size beyond 64 bits", format!("1{size:016x}\r\n{}\r\n0\r\n\r\n", body())),
        ("nothing", format!("\r\n{}\r\n0\r\n\r\n", body())),
        ("too much after the chunk", format!("{:x}\r\n{}\r\n0\r\n\r\n", size - 1, body())),
        ("too little", format!("{:x}\r\n{}\r\n0\r\n\r\n", size + 1, body())),
        ("a bare CR after the size", format!("{size:x}\r{}\r\n0\r\n\r\n", body())),
        ("an endless extension", format!("{size:x};{}", "x".repeat(17_000))),
    ] {
        rig.check(what, push(CHUNKED, &format!("{chunks}{SMUGGLED}")), &[MALFORMED], CLOSED);
    }
    // Extensions say nothing, and trailers go nowhere.
    let trailed = "hookgate-key: admin\r\nx-forwarded-for: 10.0.0.1\r\ncontent-length: 3\r\nhost: internal\r\n";
    let chunks = format!("{size:x};name=\"value\"\r\n{}\r\n0\r\n{trailed}\r\n", body());
    rig.check("trailers", push(CHUNKED, &chunks), &[FORWARDED], KEPT);
    let endless = format!("{size:x}\r\n{}\r\n0\r\nx: {}", body(), "x".repeat(17_000));
    rig.check("an endless trailer", push(CHUNKED, &endless), &[MALFORMED], CLOSED);
    let signature = github_push(KEY).value("x-hub-signature-256").map(str::to_owned);
    let late = format!(
        "{}\r\nx-hub-signature-256: {}\r\n\r\n",
        &chunk()[..chunk().len() - 4],
        signature.unwrap_or_default()
    );
    let unsigned = host::host("github").unproved().header("x-event-key", "x").head(CHUNKED);
    let unsigned = [unsigned, late.into_bytes()].concat();
    rig.check("a signature that comes as a trailer", unsigned, &[UNAUTHORIZED], CLOSED);
}

#[test]
fn a_target_is_a_path_of_ours_byte_for_byte() {
    let rig = Rig::new();
    let ask = |target: &str| github_push(KEY).to(target).bytes();
    for target in [
        "/webhook",
        "/webhook/",
        "/webhook?",
        "/webhook?x=/../../admin&payload={}",
        "/webhook?x=//evil",
        "/webhook#/admin",
        "http://gate.test/webhook",
        "HTTP://GATE.TEST/webhook",
        "http://gate.test:80/webhook",
        "https://gate.test/webhook",
    ] {
        rig.check(target, ask(target), &[FORWARDED], KEPT);
    }
    for target in [
        "//webhook",
        "//evil/webhook",
        "///webhook",
        "/./webhook",
        "/x/../webhook",
        "/webhook/../webhook",
        "/webhook//",
        "/webhook/a/b",
        "/%77ebhook",
        "/webhook%2f",
        "/webhook%00",
        "/webhook;x=y",
        "/WEBHOOK",
        "/\\webhook",
        "http://gate.test//webhook",
        "http://gate.test",
    ] {
        rig.check(target, ask(target), &[NOT_FOUND], CLOSED);
    }
    // Behind the path stands a key, and these are none.
    let encoded: String = KEY.bytes().map(|byte| format!("%{byte:02x}")).collect();
    for key in [
        "..",
        ".",
        "%2e%2e",
        "..%2f..%2fadmin",
        "..;",
        "%00",
        "*",
        &encoded,
        &format!("{KEY};x"),
        &format!("{KEY}%2f.."),
    ] {
        let target = format!("/webhook/{key}");
        rig.check(&target, ask(&target), &[UNAUTHORIZED], CLOSED);
    }
    // Another host than the one that was asked, or nothing that is a path.
    for target in [
        "http://evil/webhook",
        "http://gate.test@evil/webhook",
        "http://evil.gate.test/webhook",
        "webhook",
        "gate.test:80",
        "*",
    ] {
        let told = if target == "*" { NOT_FOUND } else { MALFORMED };
        rig.check(target, ask(target), &[told], CLOSED);
    }
    for target in [
        "/web hook",
        "/webhook\t",
        "",
        "http://",
        "http:///webhook",
        "ftp://[/webhook",
        "/webhook\u{0}",
    ] {
        rig.check(target, ask(target), &[UNREADABLE], CLOSED);
    }
}

#[test]
fn there_is_one_host() {
    let rig = Rig::new();
    let push = github_push(KEY).bytes();
    let push = String::from_utf8(push).expect("text");
    let with = |host: &str| push.replacen("host: gate.test\r\n", host, 1);
    for host in [
        "host: gate.test:8080\r\n",
        "Host:gate.test\r\n",
        "host: [::1]:8080\r\n",
        "HOST: 127.0.0.1\r\n",
    ] {
        rig.check(host, with(host), &[FORWARDED], KEPT);
    }
    for host in [
        "",
        "host:\r\n",
        "host: gate.test\r\nhost: gate.test\r\n",
        "host: gate.test\r\nhost: evil\r\n",
        "host: evil\r\nHOST: gate.test\r\n",
        "host: gate.test, evil\r\n",
        "host: user@gate.test\r\n",
        "host: gate.test/webhook\r\n",
        "host: gate.test:\u{ff18}\r\n",
        "host: gate.test:99999\r\n",
        "host: gate test\r\n",
        "host: http://gate.test\r\n",
        "h_ost: gate.test\r\n",
    ] {
        rig.check(host, with(host), &[MALFORMED], CLOSED);
    }
    let old = push.replacen("HTTP/1.1", "HTTP/1.0", 1);
    rig.check("HTTP/1.0", &old, &[FORWARDED], CLOSED);
    let old = old.replacen("host: gate.test\r\n", "", 1);
    rig.check("HTTP/1.0 without a host", &old, &[FORWARDED], CLOSED);
    let chunked = String::from_utf8(github_push(KEY).chunked(100)).expect("text");
    let old = chunked.replacen("HTTP/1.1", "HTTP/1.0", 1);
    rig.check("HTTP/1.0 in chunks", old, &[UNREADABLE], CLOSED);
}

#[test]
fn a_head_is_lines_of_names_and_values() {
    let rig = Rig::new();
    let push = String::from_utf8(github_push(KEY).bytes()).expect("text");
    let (head, body) = push.split_once("\r\n\r\n").expect("a head");
    let bare = format!("{}\n\n{body}", head.replace("\r\n", "\n"));
    rig.check("bare LF", bare, &[FORWARDED], KEPT);
    rig.check("empty lines before it", format!("\r\n\r\n{push}"), &[FORWARDED], KEPT);
    for (what, line) in [
        ("no colon", "x-nothing\r\n"),
        ("no name", ": value\r\n"),
        ("a space in the name", "x nothing: 1\r\n"),
        ("a space before the colon", "x-nothing : 1\r\n"),
        ("a folded line", "x-nothing: 1\r\n 2\r\n"),
        ("NUL", "x-nothing: \0\r\n"),
        ("bare CR", "x-nothing: 1\r2\r\n"),
        ("a control character", "x-nothing: \u{7f}\r\n"),
        ("a name beyond ASCII", "x-n\u{f6}thing: 1\r\n"),
    ] {
        let bytes = push.replacen("host:", &format!("{line}host:"), 1);
        rig.check(what, bytes, &[UNREADABLE], CLOSED);
    }
    for line in [
        "POST /webhook HTTP/1.2",
        "POST /webhook HTTP/2.0",
        "POST /webhook HTTP/2",
        "POST /webhook HTTPS/1.1",
        "POST /webhook",
        "POST  /webhook HTTP/1.1",
        " POST /webhook HTTP/1.1",
        "POST\t/webhook\tHTTP/1.1",
        "POST /webhook HTTP/1.1 x",
        "P@ST /webhook HTTP/1.1",
    ] {
        let bytes = push.replacen("POST /webhook HTTP/1.1", line, 1);
        rig.check(line, bytes, &[UNREADABLE], CLOSED);
    }
    rig.check("HTTP/2 without TLS", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[], CLOSED);
    rig.check(
        "TLS without TLS",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\r\n\r\n",
        &[UNREADABLE],
        CLOSED,
    );
    rig.check("nonsense", "nonsense\r\n\r\n", &[UNREADABLE], CLOSED);
}

#[test]
fn a_head_that_is_too_large_is_431_and_counted() {
    let rig = Rig::new();
    let fill = |length: usize| github_push(KEY).header("x-fill", &"x".repeat(length)).bytes();
    let many = |count: usize| {
        let push = github_push(KEY);
        (push.headers.len() + 2..count).fold(push, |it, n| it.header(&format!("x-{n}"), "")).bytes()
    };
    rig.check("just below", fill(15_000), &[FORWARDED], KEPT);
    rig.check("a hundred headers", many(100), &[FORWARDED], KEPT);
    let long = format!("/webhook?{}", "x".repeat(17_000));
    for (what, bytes) in [
        ("one header of 17 KB", fill(17_000)),
        ("one of 400 KB", fill(400_000)),
        ("101 headers", many(101)),
        ("a long target", github_push(KEY).to(&long).bytes()),
    ] {
        rig.check(what, bytes, &[(431, "")], CLOSED);
    }
    let series = "hookgate_connections_failed_total{reason=\"head-too-large\"}";
    until("all are counted", || (rig.gate.metric(series) == 4.0).then_some(()));
}

#[test]
fn who_is_refused_need_not_send_the_body_and_is_told_to_go() {
    let rig = Rig::new();
    let expecting = |length: &str| format!("expect: 100-continue\r\ncontent-length: {length}\r\n");
    let stranger = |lines: &str| host::host("github").unproved().head(lines);
    for (what, bytes, told) in [
        ("a stranger", stranger(&expecting("650")), UNAUTHORIZED),
        ("too much", stranger(&expecting("99999999")), (413, "too-large")),
        ("elsewhere", github_push(KEY).to("/x").head(&expecting("650")), NOT_FOUND),
        (
            "another method",
            Request::new("PATCH", "/webhook").head(&expecting("650")),
            (405, "method"),
        ),
        ("two hosts", github_push(KEY).header("host", "evil").head(&expecting("650")), MALFORMED),
    ] {
        let mut client = rig.gate.connect();
        let answer = client.ask(bytes);
        assert_eq!(answer.told(), told, "{what}");
        assert_eq!(answer.header("connection"), Some("close"), "{what}");
        assert_eq!(client.rest(), b"", "{what}");
    }
    // Another expectation is no reason to do anything else; and nobody is refused after 100.
    let other = format!("expect: 200-ok\r\n{}", length());
    rig.check("another expectation", push(&other, body()), &[FORWARDED], KEPT);
    let expecting = expecting(&body().len().to_string());
    rig.check("with the body at once", push(&expecting, body()), &[(100, ""), FORWARDED], KEPT);
    // An answer arrives although the client is still sending.
    let mut client = rig.gate.connect();
    client.send(stranger("content-length: 4000000\r\n"));
    for _ in 0..40 {
        if client.try_send(vec![b' '; 100_000]).is_err() {
            break;
        }
    }
    assert_eq!(client.answer().told(), UNAUTHORIZED);
}

#[test]
fn requests_in_a_row_are_answered_in_a_row() {
    let rig = Rig::new();
    let good = github_push(KEY).bytes();
    let bad = github_push(OTHER_KEY).bytes();
    let row = [&good[..], &bad, &good, &github_push(KEY).chunked(100), &bad].concat();
    let told = [FORWARDED, UNAUTHORIZED, FORWARDED, FORWARDED, UNAUTHORIZED];
    rig.check("five at once", row, &told, KEPT);
    // Behind one that was refused without its body, nothing is looked at.
    let unread = host::host("github").unproved().bytes();
    let row = [&good[..], &unread, &good].concat();
    rig.check("behind an unread body", row, &[FORWARDED, UNAUTHORIZED], CLOSED);
    let mut client = rig.gate.connect();
    client.send(&good);
    client.half_close();
    assert_eq!(client.answer().told(), FORWARDED);
    assert_eq!(client.rest(), b"");
    rig.check_service("half closed", 1);
}

#[test]
fn there_is_no_other_protocol_to_change_to() {
    let rig = Rig::new();
    let closing = [
        (
            "a tunnel",
            "CONNECT internal:80 HTTP/1.1\r\nhost: internal:80\r\ncontent-length: 5\r\n\r\nhello"
                .to_owned(),
        ),
        (
            "a tunnel here",
            format!("CONNECT /webhook HTTP/1.1\r\nhost: gate.test\r\n\r\n{SMUGGLED}"),
        ),
    ];
    let mut client = rig.gate.connect();
    let answer = client.ask(&closing[0].1);
    assert_eq!(answer.told(), MALFORMED, "{}", closing[0].0);
    let mut client = rig.gate.connect();
    client.send(&closing[1].1);
    assert_eq!(client.answer().status, 400, "{}", closing[1].0);
    for protocol in ["websocket", "h2c, websocket", "TLS/1.0", "HTTP/3"] {
        let lines = format!("connection: upgrade\r\nupgrade: {protocol}\r\n{}", length());
        rig.check(protocol, push(&lines, body()), &[MALFORMED], CLOSED);
    }
    let offered =
        "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n";
    let lines = format!("{offered}{}", length());
    rig.check("an offer of HTTP/2", push(&lines, body()), &[FORWARDED], KEPT);
    rig.check_service("nothing came of it", 0);
}

#[test]
fn over_tls_both_versions_of_http_give_the_service_the_same() {
    let pair = Pair::new();
    let upstream = Upstream::start();
    let setup = Setup::new();
    std::fs::write(setup.path("cert.pem"), &pair.certificate).expect("a file");
    std::fs::write(setup.path("key.pem"), &pair.key).expect("a file");
    let config = "[tls]\ncertificate_file = \"cert.pem\"\nkey_file = \"key.pem\"\n\
         [[hook]]\nname = \"default\"\n";
    let gate = setup.keys(KEYS).hooks(config).upstream(&upstream).start();
    assert!(gate.log().contains("https://127.0.0.1:"));
    let rig = Rig { upstream, gate };

    let mut client = pair.connect(rig.gate.address()).expect("TLS");
    assert_eq!(client.ask(github_push(KEY).bytes()).told(), FORWARDED);
    assert_eq!(client.ask(github_push(OTHER_KEY).bytes()).told(), UNAUTHORIZED);
    let received = rig.upstream.take_one();
    assert_eq!(received.header("x-forwarded-proto"), Some("https"));
    assert_eq!(received.header("forwarded"), Some("for=127.0.0.1;proto=https;host=\"gate.test\""));
    assert!(Pair::new().connect(rig.gate.address()).is_err(), "another certificate");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let stream = tokio::net::TcpStream::connect(rig.gate.address()).await.expect("TCP");
        stream.set_nodelay(true).expect("a socket");
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = TlsConnector::from(pair.client(&["h2"]));
        let tls = connector.connect(name, stream).await.expect("TLS");
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls))
                .await
                .expect("HTTP/2");
        let connection = tokio::spawn(connection);
        let ask = |request: Request, authority: &str, forged: Option<(&str, &str)>| {
            let mut builder = http::Request::post(format!("https://{authority}{}", request.target));
            let headers = request.headers.iter().map(|(name, value)| (&**name, &**value));
            for (name, value) in headers.chain(forged) {
                builder = builder.header(name, value);
            }
            let request = builder.body(Full::new(Bytes::from(request.body))).expect("a request");
            let mut sender = sender.clone();
            async move {
                let answer = sender.send_request(request).await.expect("an answer");
                let (parts, body) = answer.into_parts();
                body.collect().await.expect("a body");
                let outcome = parts.headers["hookgate-outcome"].to_str().expect("a word");
                (parts.status.as_u16(), outcome.to_owned())
            }
        };
        let told = |told: Told| (told.0, told.1.to_owned());
        assert_eq!(ask(github_push(KEY), "gate.test", None).await, told(FORWARDED));
        let received = rig.upstream.take_one();
        assert_eq!(received.header("x-forwarded-host"), Some("gate.test"));
        assert_eq!(received.header("x-forwarded-proto"), Some("https"));
        let cases = [
            (github_push(OTHER_KEY), "gate.test", None, UNAUTHORIZED, 0),
            (host::host("github").unproved(), "gate.test", None, UNAUTHORIZED, 0),
            (github_push(KEY).to("//webhook"), "gate.test", None, NOT_FOUND, 0),
            (github_push(KEY), "gate.test", Some(("host", "evil")), MALFORMED, 0),
            (github_push(KEY), "u@gate.test", None, MALFORMED, 0),
            (github_push(KEY), "gate.test", Some(("hookgate-key", "admin")), FORWARDED, 1),
            (github_push(KEY), "gate.test", Some(("x_forwarded_for", "10.0.0.1")), FORWARDED, 1),
        ];
        for (request, authority, forged, wanted, forwarded) in cases {
            let what = format!("{authority} {} {forged:?}", request.target);
            assert_eq!(ask(request, authority, forged).await, told(wanted), "{what}");
            rig.check_service(&what, forwarded);
        }
        // Many at once, each answered for itself.
        let row: Vec<_> = (0..32)
            .map(|n| ask(github_push(if n % 2 == 0 { KEY } else { OTHER_KEY }), "gate.test", None))
            .collect();
        for (n, one) in row.into_iter().map(tokio::spawn).enumerate() {
            let wanted = if n % 2 == 0 { FORWARDED } else { UNAUTHORIZED };
            assert_eq!(one.await.expect("a task"), told(wanted));
        }
        rig.check_service("many at once", 16);
        drop(sender);
        connection.await.expect("a task").expect("a clean end");
    });
}
