//! Calls to services that behave, and to those that do not.

mod contract;
mod gij;

use std::future::{Future, pending};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::PrivateKeyDer;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::*;

/// Longer than anything here takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A service on a port of its own, which does to each connection what a test says.
struct Double {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Double {
    async fn start<F, S>(serve: F) -> Self
    where
        F: Fn(Peer<TcpStream>, usize) -> S + Send + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::<AtomicUsize>::default(), Arc::default());
        let (counter, record) = (Arc::clone(&connections), Arc::clone(&requests));
        let task = tokio::spawn(async move {
            let mut peers = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = counter.fetch_add(1, Ordering::SeqCst);
                peers.spawn(serve(Peer { stream, requests: Arc::clone(&record) }, number));
            }
        });
        Self { addr, connections, requests, task }
    }

    /// Answers every request on every connection with `answer`.
    async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::start(move |mut peer, _| {
            let answer = Arc::clone(&answer);
            async move {
                while peer.request().await {
                    peer.send(&answer).await;
                }
            }
        })
        .await
    }

    fn config(&self, scheme: &str) -> UpstreamConfig {
        UpstreamConfig::new(&format!("{scheme}://{}/base/", self.addr)).unwrap()
    }

    fn upstream(&self, patience: Duration) -> Upstream {
        Upstream::new(&self.config("http").timeout(patience).unwrap())
    }

    /// What one call to a client of its own brings.
    async fn call(&self) -> Result<UpstreamAnswer, UpstreamFailure> {
        self.upstream(PATIENCE).send(request("hello")).await
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection of a [`Double`].
struct Peer<S> {
    stream: S,
    requests: Arc<Mutex<Vec<String>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    /// Reads and records one request; false if the other side is gone.
    async fn request(&mut self) -> bool {
        let mut bytes = Vec::new();
        let head = loop {
            if let Some(at) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
                break at + 4;
            }
            match self.stream.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return false,
                Ok(_) => {}
            }
        };
        let length: usize = String::from_utf8_lossy(&bytes[..head])
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ").map(str::to_owned))
            .map_or(0, |length| length.parse().unwrap());
        while bytes.len() < head + length {
            if self.stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return false;
            }
        }
        self.requests.lock().unwrap().push(String::from_utf8(bytes).unwrap());
        true
    }

    /// The client may leave early, so errors are nothing special.
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
        let _ = self.stream.flush().await;
    }

    /// Waits until the other side closes.
    async fn closed(&mut self) {
        while self.stream.read(&mut [0; 1024]).await.is_ok_and(|n| n > 0) {}
    }
}

impl Peer<TcpStream> {
    /// Ends the connection with an RST in place of a FIN.
    fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

fn request(body: &str) -> UpstreamRequest {
    UpstreamRequest {
        path_and_query: "/webhook".parse().unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        delivery: "72d3162e".into(),
    }
}

fn answer_of(head: &str, body: &[u8]) -> Vec<u8> {
    [head.as_bytes(), format!("content-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

// --- the request

#[tokio::test]
async fn the_request_is_made_anew_whatever_the_map_of_its_caller_holds() {
    let double = Double::answering(OK).await;
    let mut call = request("hello");
    call.path_and_query = "/webhook?a=b%20c".parse().unwrap();
    for (name, value) in [
        ("content-type", "application/json"),
        ("connection", "keep-alive, X-Hop"),
        ("connection", "close"),
        ("x-hop", "1"),
        ("x-github-event", "push"),
        ("host", "evil.example"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers"),
        ("trailer", "x-checksum"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQAAP__"),
        ("expect", "100-continue"),
        ("content-length", "2"),
        ("content-length", "9"),
        ("transfer-encoding", "chunked"),
        ("authorization", "Basic eDp5"),
        ("cookie", "a=b"),
        ("x-gitlab-token", "token"),
        ("hookgate-key", "2026-11"),
    ] {
        call.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let answer = double.upstream(PATIENCE).send(call).await.unwrap();
    assert_eq!((answer.status, answer.attempts), (StatusCode::OK, 1));
    let expected = format!(
        "POST /base/webhook?a=b%20c HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
         x-github-event: push\r\nhookgate-key: 2026-11\r\ncontent-length: 5\r\n\r\nhello",
        double.addr
    );
    assert_eq!(double.requests(), [expected]);
}

#[tokio::test]
async fn an_empty_body_has_a_length_as_well() {
    let double = Double::answering(OK).await;
    double.upstream(PATIENCE).send(request("")).await.unwrap();
    let expected = format!(
        "POST /base/webhook HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\n\r\n",
        double.addr
    );
    assert_eq!(double.requests(), [expected]);
}

#[tokio::test]
async fn a_body_of_megabytes_arrives_whole() {
    let double = Double::answering(OK).await;
    let body = "0123456789abcdef".repeat(256 << 10);
    double.upstream(PATIENCE).send(request(&body)).await.unwrap();
    assert!(double.requests()[0].ends_with(&format!("content-length: 4194304\r\n\r\n{body}")));
}

#[tokio::test]
async fn a_path_that_leaves_the_one_of_the_url_is_never_sent() {
    let double = Double::answering(OK).await;
    let upstream = double.upstream(PATIENCE);
    for (path, sent) in [
        ("/", Some("/base/")),
        ("//evil.example/x", Some("/base//evil.example/x")),
        ("/a..b/..c/...", Some("/base/a..b/..c/...")),
        ("/acme%2Fwidgets", Some("/base/acme%2Fwidgets")),
        ("/x?../..", Some("/base/x?../..")),
        ("/..", None),
        ("/../admin", None),
        ("/a/./b", None),
        ("/a/%2e%2E/b", None),
        ("/a%2f..%2fb", None),
        ("/..;a=b/admin", None),
        ("/..%5cadmin", None),
        ("/%2e", None),
        ("*", None),
    ] {
        let mut call = request("");
        call.path_and_query = path.parse().unwrap();
        let before = double.requests().len();
        let result = upstream.send(call).await;
        match sent {
            Some(sent) => {
                assert!(result.is_ok(), "{path}");
                assert!(
                    double.requests()[before].starts_with(&format!("POST {sent} HTTP/1.1\r\n"))
                );
            }
            None => {
                let failure = result.unwrap_err();
                assert_eq!((failure.kind(), failure.attempts()), (FailureKind::Path, 0), "{path}");
                assert_eq!(double.requests().len(), before, "{path}");
            }
        }
    }
}

#[tokio::test]
async fn a_path_that_becomes_too_long_is_refused() {
    let double = Double::answering(OK).await;
    let mut call = request("");
    call.path_and_query = format!("/{}", "x".repeat(65_530)).parse().unwrap();
    let failure = double.upstream(PATIENCE).send(call).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Path);
}

// --- the answer

#[tokio::test]
async fn of_an_answer_only_status_content_type_and_body_are_kept() {
    let double = Double::answering(
        "HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\nset-cookie: s3cret\r\n\
         x-key: s3cret\r\nlocation: /s3cret\r\ncontent-length: 2\r\n\r\n{}",
    )
    .await;
    let answer = double.call().await.unwrap();
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.content_type.as_ref().unwrap(), "application/json");
    assert_eq!(&answer.body[..], b"{}");
    assert_eq!((answer.body_left_out, answer.retry_after), (false, None));
    assert!(!format!("{answer:?}").contains("s3cret"));
}

#[tokio::test]
async fn an_answer_that_comes_before_the_body_is_read_counts() {
    let double = Double::start(|mut peer, _| async move {
        let refusal = "HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        peer.stream.read_exact(&mut [0; 64]).await.unwrap();
        peer.send(refusal).await;
        peer.closed().await;
    })
    .await;
    let body = "x".repeat(8 << 20);
    let answer = double.upstream(PATIENCE).send(request(&body)).await.unwrap();
    assert_eq!((answer.status, answer.attempts), (StatusCode::PAYLOAD_TOO_LARGE, 1));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let elsewhere = Double::answering(OK).await;
    for status in [301, 302, 303, 307, 308] {
        let redirect = format!(
            "HTTP/1.1 {status} Moved\r\nlocation: http://{}/s3cret-key\r\ncontent-length: 0\r\n\r\n",
            elsewhere.addr
        );
        let double = Double::answering(redirect).await;
        let answer = double.call().await.unwrap();
        assert_eq!(answer.status, status);
        assert!(!format!("{answer:?}").contains("s3cret"));
        assert_eq!(double.requests().len(), 1);
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn an_answer_without_a_body_is_whole() {
    for head in [
        "204 No Content\r\n\r\n",
        "304 Not Modified\r\n\r\n",
        "500 Oops\r\ncontent-length: 0\r\n\r\n",
    ] {
        let double = Double::answering(format!("HTTP/1.1 {head}")).await;
        let answer = double.call().await.unwrap();
        assert_eq!(answer.status.as_str(), &head[..3]);
        assert!(answer.body.is_empty() && !answer.body_left_out && answer.content_type.is_none());
    }
}

#[tokio::test]
async fn a_chunked_answer_is_put_together_and_its_trailers_are_dropped() {
    let double = Double::answering(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-key\r\n\r\n\
         3\r\nabc\r\n4;ext=1\r\ndefg\r\n0\r\nx-key: s3cret\r\n\r\n",
    )
    .await;
    let answer = double.call().await.unwrap();
    assert_eq!(&answer.body[..], b"abcdefg");
}

#[tokio::test]
async fn informational_answers_are_passed_over_and_a_switch_of_protocols_does_not_hang() {
    let double = Double::answering(format!(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n{OK}"
    ))
    .await;
    assert_eq!(double.call().await.unwrap().status, StatusCode::OK);
    let switching =
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n";
    let double = Double::answering(switching).await;
    assert_eq!(double.call().await.unwrap().status, StatusCode::SWITCHING_PROTOCOLS);
}

#[tokio::test]
async fn an_answer_of_just_the_limit_is_kept_and_a_larger_one_counts_without_its_body() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n";
    let chunked = |length: usize| {
        let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
        let rest = format!("{:x}\r\n{}\r\n", length % 0x8000, "x".repeat(length % 0x8000));
        let last = if length.is_multiple_of(0x8000) { "" } else { &rest };
        let chunks = chunk.repeat(length / 0x8000);
        format!("{head}transfer-encoding: chunked\r\n\r\n{chunks}{last}0\r\n\r\n").into_bytes()
    };
    for (answer, kept) in [
        (answer_of(head, &vec![b'x'; MAX_ANSWER]), true),
        (chunked(MAX_ANSWER), true),
        (answer_of(head, &vec![b'x'; MAX_ANSWER + 1]), false),
        (chunked(MAX_ANSWER + 1), false),
    ] {
        let double = Double::answering(answer).await;
        let answer = double.call().await.unwrap();
        assert_eq!((answer.status, answer.attempts), (StatusCode::OK, 1));
        assert_eq!(answer.body.len(), if kept { MAX_ANSWER } else { 0 });
        assert_eq!(answer.content_type.is_some(), kept);
        assert_eq!(answer.body_left_out, !kept);
    }
}

#[tokio::test]
async fn an_answer_without_end_is_given_up_at_the_limit_and_its_connection_closed() {
    let (gone, mut closed) = mpsc::unbounded_channel();
    let double = Double::start(move |mut peer, _| {
        let gone = gone.clone();
        async move {
            peer.request().await;
            peer.send("HTTP/1.1 200 OK\r\n\r\n").await;
            while peer.stream.write_all(&[b'x'; 4096]).await.is_ok() {}
            let _ = gone.send(());
        }
    })
    .await;
    let answer = double.call().await.unwrap();
    assert!(answer.body_left_out && answer.body.is_empty());
    assert_eq!(timeout(PATIENCE, closed.recv()).await, Ok(Some(())));
}

#[tokio::test]
async fn a_body_in_an_encoding_that_nobody_asked_for_is_left_out() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-encoding: ";
    let double = Double::answering(answer_of(&format!("{head}gzip\r\n"), b"\x1f\x8b")).await;
    let answer = double.call().await.unwrap();
    assert!(answer.body_left_out && answer.body.is_empty() && answer.content_type.is_none());
    let double = Double::answering(answer_of(&format!("{head}Identity\r\n"), b"ok")).await;
    assert_eq!(&double.call().await.unwrap().body[..], b"ok");
}

#[tokio::test]
async fn an_absurd_content_type_is_dropped() {
    for (length, kept) in [(256, true), (257, false)] {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {}\r\n", "x".repeat(length));
        let double = Double::answering(answer_of(&head, b"ok")).await;
        assert_eq!(double.call().await.unwrap().content_type.is_some(), kept);
    }
}

#[tokio::test]
async fn when_to_try_again_is_seconds_or_a_date_seen_from_the_answers_own() {
    let date = "date: Fri, 31 Dec 1999 23:59:00 GMT\r\n";
    for (before, value, expected) in [
        ("", "120", Some(120)),
        ("", "0", Some(0)),
        ("", "99999999999999999999999", Some(86_400)),
        ("", "-1", None),
        ("", "1.5", None),
        ("", "", None),
        ("", "soon", None),
        (date, "Fri, 31 Dec 1999 23:59:59 GMT", Some(59)),
        (date, "Sat, 01 Jan 2000 00:01:00 GMT", Some(120)),
        (date, "Fri, 31 Dec 1999 23:00:00 GMT", Some(0)),
        (date, "Thu, 31 Dec 9998 23:59:59 GMT", Some(86_400)),
        ("", "Fri, 31 Dec 1999 23:59:59 GMT", None),
        ("date: soon\r\n", "Fri, 31 Dec 1999 23:59:59 GMT", None),
    ] {
        let head = format!("HTTP/1.1 503 Busy\r\n{before}retry-after: {value}\r\n");
        let double = Double::answering(answer_of(&head, b"")).await;
        let answer = double.call().await.unwrap();
        assert_eq!(answer.retry_after, expected.map(Duration::from_secs), "{value}");
    }
}

// --- connections that die

#[tokio::test]
async fn a_service_that_closes_without_an_answer_is_tried_once_more_and_then_given_up() {
    for reset in [false, true] {
        let double = Double::start(move |mut peer, _| async move {
            peer.request().await;
            if reset {
                peer.reset();
            }
        })
        .await;
        let failure = double.call().await.unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Closed, "{failure:?}");
        assert_eq!((failure.attempts(), failure.status()), (2, None));
        assert!(!failure.is_late());
        assert_eq!((double.connections(), double.requests().len()), (2, 2), "reset: {reset}");
    }
}

#[tokio::test]
async fn a_service_that_closes_at_once_is_tried_once_more_as_well() {
    let double = Double::start(|_, _| async {}).await;
    let failure = double.call().await.unwrap_err();
    assert_eq!((failure.kind(), failure.attempts()), (FailureKind::Closed, 2), "{failure:?}");
    assert_eq!(double.connections(), 2);
}

#[tokio::test]
async fn half_a_head_is_no_answer_yet_and_is_tried_again() {
    let double = Double::start(|mut peer, number| async move {
        peer.request().await;
        let answer = if number == 0 { "HTTP/1.1 200 OK\r\ncontent-le" } else { OK };
        peer.send(answer).await;
    })
    .await;
    let answer = double.call().await.unwrap();
    assert_eq!((answer.attempts, &answer.body[..]), (2, &b"ok"[..]));
    assert_eq!(double.connections(), 2);
}

#[tokio::test]
async fn half_an_answer_is_a_failure_that_is_not_tried_again() {
    for half in [
        "content-length: 10\r\n\r\nhalf",
        "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "transfer-encoding: chunked\r\n\r\na\r\nhalf",
    ] {
        let double = Double::start(move |mut peer, _| async move {
            peer.request().await;
            peer.send(format!("HTTP/1.1 200 OK\r\n{half}")).await;
        })
        .await;
        let failure = double.call().await.unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Closed, "{failure:?}");
        assert_eq!((failure.attempts(), failure.status()), (1, Some(StatusCode::OK)));
        assert_eq!((double.connections(), double.requests().len()), (1, 1));
    }
}

/// Answers the first request of a connection, and closes when it has read the second.
async fn one_answer(mut peer: Peer<TcpStream>, _: usize) {
    if peer.request().await {
        peer.send(OK).await;
        peer.request().await;
    }
}

#[tokio::test]
async fn a_pooled_connection_that_dies_costs_a_second_attempt_and_no_delivery() {
    let double = Double::start(one_answer).await;
    let upstream = double.upstream(PATIENCE);
    let mut second_attempts = 0;
    for _ in 0..20 {
        let answer = upstream.send(request("hello")).await.unwrap();
        second_attempts += answer.attempts - 1;
    }
    assert!(second_attempts > 0, "no connection was used again");
}

#[tokio::test]
async fn the_second_attempt_never_meets_another_dead_connection_of_the_pool() {
    const POOL: usize = 8;
    let all_there = Arc::new(Barrier::new(POOL));
    let double = Double::start(move |mut peer, number| {
        let all_there = Arc::clone(&all_there);
        async move {
            peer.request().await;
            if number < POOL {
                all_there.wait().await;
            }
            peer.send(OK).await;
            peer.request().await;
        }
    })
    .await;
    let upstream = double.upstream(PATIENCE);
    let mut calls = JoinSet::new();
    for _ in 0..POOL {
        let upstream = upstream.clone();
        calls.spawn(async move { upstream.send(request("hello")).await.unwrap() });
    }
    calls.join_all().await;
    // The client puts a connection back into its pool in a task of its own.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    // Each connection of the pool dies as soon as it is used again.
    let answer = upstream.send(request("hello")).await.unwrap();
    assert_eq!((answer.attempts, double.connections()), (2, POOL + 1));
}

#[tokio::test]
async fn a_service_with_a_keep_alive_of_ten_milliseconds_loses_none_of_250_deliveries() {
    let double = Double::start(|mut peer, _| async move {
        while timeout(Duration::from_millis(10), peer.request()).await == Ok(true) {
            peer.send(OK).await;
        }
    })
    .await;
    let upstream = double.upstream(PATIENCE);
    for n in 0..250 {
        // About as long as the service waits, so that the two often meet.
        sleep(Duration::from_micros(9_000 + 10 * n)).await;
        upstream.send(request("hello")).await.unwrap();
    }
    assert!(double.connections() > 1, "the service never closed");
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let double = Double::answering(OK).await;
    let upstream = double.upstream(PATIENCE);
    for _ in 0..20 {
        upstream.send(request("hello")).await.unwrap();
    }
    assert!(double.connections() < 20, "{} connections", double.connections());
}

#[tokio::test]
async fn an_idle_connection_is_closed_before_a_common_service_would_do_it() {
    let (gone, mut closed) = mpsc::unbounded_channel();
    let double = Double::start(move |mut peer, _| {
        let gone = gone.clone();
        async move {
            peer.request().await;
            peer.send(OK).await;
            peer.closed().await;
            let _ = gone.send(());
        }
    })
    .await;
    let upstream = double.upstream(PATIENCE);
    upstream.send(request("hello")).await.unwrap();
    tokio::time::pause();
    let idle_since = Instant::now();
    assert_eq!(timeout(PATIENCE, closed.recv()).await, Ok(Some(())));
    // The pool looks every four seconds.
    assert!((4..=8).contains(&idle_since.elapsed().as_secs()), "{:?}", idle_since.elapsed());
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_no_connection_and_is_not_tried_again() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let upstream = Upstream::new(&UpstreamConfig::new(&url).unwrap());
    let failure = upstream.send(request("hello")).await.unwrap_err();
    assert_eq!((failure.kind(), failure.attempts()), (FailureKind::Connect, 1), "{failure:?}");
}

#[tokio::test]
async fn what_is_not_http_is_malformed_and_is_not_tried_again() {
    for answer in ["SSH-2.0-OpenSSH_9.2p1\r\n\r\n", "HTTP/1.1 hello\r\n\r\n"] {
        let double = Double::answering(answer).await;
        let failure = double.call().await.unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Malformed, "{failure:?}");
        assert_eq!((failure.attempts(), double.connections()), (1, 1));
    }
}

#[tokio::test]
async fn a_head_of_tens_of_kilobytes_is_read_and_a_larger_one_is_malformed() {
    let head = |length| format!("HTTP/1.1 200 OK\r\nx: {}\r\n", "x".repeat(length));
    let double = Double::answering(answer_of(&head(32 << 10), b"ok")).await;
    assert_eq!(&double.call().await.unwrap().body[..], b"ok");
    let double = Double::answering(answer_of(&head(160 << 10), b"ok")).await;
    assert_eq!(double.call().await.unwrap_err().kind(), FailureKind::Malformed);
}

// --- time

#[tokio::test]
async fn a_service_that_never_answers_is_late() {
    let (gone, mut closed) = mpsc::unbounded_channel();
    let double = Double::start(move |mut peer, _| {
        let gone = gone.clone();
        async move {
            peer.request().await;
            peer.closed().await;
            let _ = gone.send(());
        }
    })
    .await;
    let patience = Duration::from_millis(200);
    let failure = double.upstream(patience).send(request("hello")).await.unwrap_err();
    assert_eq!((failure.kind(), failure.attempts()), (FailureKind::TimedOut, 1));
    assert!(failure.is_late() && failure.status().is_none());
    assert!((patience..PATIENCE).contains(&failure.elapsed()), "{:?}", failure.elapsed());
    // Nobody waits for that answer any more.
    assert_eq!(timeout(PATIENCE, closed.recv()).await, Ok(Some(())));
}

#[tokio::test]
async fn an_answer_that_dribbles_is_late_although_its_head_came_in_time() {
    let double = Double::start(|mut peer, _| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await;
        while peer.stream.write_all(b"x").await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let patience = Duration::from_millis(300);
    let started = Instant::now();
    let failure = double.upstream(patience).send(request("hello")).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::TimedOut);
    assert_eq!((failure.attempts(), failure.status()), (1, Some(StatusCode::OK)));
    assert!((patience..PATIENCE).contains(&started.elapsed()), "{:?}", started.elapsed());
    assert_eq!(double.connections(), 1);
}

#[tokio::test]
async fn the_last_success_and_the_last_failure_are_remembered_with_its_reason() {
    let double = Double::start(|mut peer, number| async move {
        peer.request().await;
        let answer = [OK, "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"];
        peer.send(answer[number.min(1)]).await;
    })
    .await;
    let upstream = double.upstream(PATIENCE);
    assert_eq!(upstream.calls(), UpstreamCalls::default());
    upstream.send(request("hello")).await.unwrap();
    let calls = upstream.calls();
    assert!(calls.last_success.is_some() && calls.last_failure.is_none(), "{calls:?}");
    drop(upstream.send(request("hello")).await);
    let after = upstream.calls();
    assert_eq!(after.last_success, calls.last_success);
    assert_eq!(after.last_failure.unwrap().1, "upstream answered 503");
    drop(double);
    let gone = Upstream::new(&UpstreamConfig::new("http://127.0.0.1:1").unwrap());
    gone.send(request("hello")).await.unwrap_err();
    let (_, reason) = gone.calls().last_failure.unwrap();
    assert!(reason.starts_with("no connection to upstream: "), "{reason}");
}

#[tokio::test]
async fn the_second_attempt_has_what_the_first_left_of_the_time() {
    let double = Double::start(|mut peer, number| async move {
        peer.request().await;
        if number > 0 {
            peer.closed().await;
        }
    })
    .await;
    let patience = Duration::from_millis(300);
    let failure = double.upstream(patience).send(request("hello")).await.unwrap_err();
    assert_eq!((failure.kind(), failure.attempts()), (FailureKind::TimedOut, 2));
    assert!(failure.elapsed() < PATIENCE);
}

#[tokio::test]
async fn a_call_that_is_dropped_closes_its_connection() {
    let (events, mut seen) = mpsc::unbounded_channel();
    let double = Double::start(move |mut peer, _| {
        let events = events.clone();
        async move {
            peer.request().await;
            let _ = events.send("read");
            peer.closed().await;
            let _ = events.send("closed");
        }
    })
    .await;
    let upstream = double.upstream(PATIENCE);
    let call = tokio::spawn(async move { upstream.send(request("hello")).await });
    assert_eq!(timeout(PATIENCE, seen.recv()).await, Ok(Some("read")));
    call.abort();
    assert_eq!(timeout(PATIENCE, seen.recv()).await, Ok(Some("closed")));
    assert_eq!(double.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_never_made_is_given_up() {
    use tower_service::Service as _;
    let mut connector =
        client::Patient(tower::service_fn(|_| pending::<Result<(), std::convert::Infallible>>()));
    let started = Instant::now();
    let error = connector.call("https://indexer".parse().unwrap()).await.unwrap_err();
    assert_eq!(started.elapsed().as_secs(), 5);
    let error = error.downcast::<std::io::Error>().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

// --- TLS

struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: rcgen::Issuer::new(params, key) }
    }

    fn pem(&self) -> Vec<u8> {
        self.certificate.pem().into_bytes()
    }

    /// A service over TLS whose certificate is for `name`.
    async fn service(&self, name: &str) -> Double {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Double::start(move |peer, _| {
            let acceptor = acceptor.clone();
            async move {
                let Peer { stream, requests } = peer;
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let mut peer = Peer { stream, requests };
                while peer.request().await {
                    peer.send(OK).await;
                }
            }
        })
        .await
    }
}

#[tokio::test]
async fn a_service_over_tls_is_reached_with_the_authority_that_vouches_for_it() {
    let authority = Authority::new();
    let double = authority.service("127.0.0.1").await;
    let config = double.config("https").certificate_authorities(&authority.pem()).unwrap();
    let answer = Upstream::new(&config).send(request("hello")).await.unwrap();
    assert_eq!(&answer.body[..], b"ok");
    let head = format!("POST /base/webhook HTTP/1.1\r\nhost: {}\r\n", double.addr);
    assert!(double.requests()[0].starts_with(&head));
}

#[tokio::test]
async fn a_certificate_that_does_not_hold_is_no_connection_and_nothing_is_sent() {
    let authority = Authority::new();
    let double = authority.service("127.0.0.1").await;
    let public = double.config("https");
    let other = public.clone().certificate_authorities(&Authority::new().pem()).unwrap();
    let misnamed = authority.service("indexer.example").await;
    let trusted = misnamed.config("https").certificate_authorities(&authority.pem()).unwrap();
    for config in [public, other, trusted] {
        let failure = Upstream::new(&config).send(request("hello")).await.unwrap_err();
        assert_eq!((failure.kind(), failure.attempts()), (FailureKind::Tls, 1), "{failure:?}");
    }
    assert_eq!(double.requests().len() + misnamed.requests().len(), 0);
}

#[tokio::test]
async fn a_service_that_does_not_speak_tls_is_told_from_one_that_is_not_there() {
    let double = Double::start(|mut peer, _| async move {
        peer.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        peer.closed().await;
    })
    .await;
    let failure = Upstream::new(&double.config("https")).send(request("hello")).await.unwrap_err();
    assert_eq!((failure.kind(), failure.attempts()), (FailureKind::Tls, 1), "{failure:?}");
}

// --- what is shown

#[tokio::test]
async fn neither_debug_nor_a_failure_shows_path_headers_or_body() {
    let double = Double::start(|mut peer, _| async move {
        peer.request().await;
        peer.send("HTTP/1.1 s3cret\r\n\r\n").await;
    })
    .await;
    let config = UpstreamConfig::new(&format!("http://{}/s3cret", double.addr)).unwrap();
    let upstream = Upstream::new(&config);
    let mut call = request("s3cret");
    call.path_and_query = "/s3cret?s3cret".parse().unwrap();
    call.headers.insert("x-key", HeaderValue::from_static("s3cret"));
    let shown = format!("{upstream:?} {call:?}");
    let failure = upstream.send(call).await.unwrap_err();
    let chain = std::iter::successors(Some(&failure as &dyn std::error::Error), |e| e.source());
    let shown = chain.fold(format!("{shown} {failure:?}"), |shown, e| format!("{shown} {e}"));
    assert!(!shown.contains("s3cret"), "{shown}");
    assert!(shown.contains("72d3162e") && shown.contains("upstream did not answer in HTTP"));
}

#[test]
fn every_kind_of_failure_has_a_word_of_its_own() {
    let mut words: Vec<_> = FailureKind::ALL.iter().map(|kind| kind.to_string()).collect();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words, ["closed", "connect", "malformed", "path", "timed-out", "tls"]);
}
