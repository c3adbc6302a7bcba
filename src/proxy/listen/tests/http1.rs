//! Raw HTTP/1: what each way of writing a request gives.
//!
//! A row that says 400 with a word was refused by [`head::check`]; one with an empty body, by
//! hyper's parser.

use super::*;

/// What a request gives, and whether the connection is then kept.
#[derive(Debug, PartialEq)]
struct Given {
    status: u16,
    body: String,
    kept: bool,
}

fn kept(status: u16, body: &str) -> Given {
    Given { status, body: body.to_owned(), kept: true }
}

fn closed(status: u16, body: &str) -> Given {
    Given { status, body: body.to_owned(), kept: false }
}

/// Sends `request` on a connection of its own.
async fn give(server: &Server, request: &[u8]) -> Given {
    let mut client = server.connect().await;
    client.send(request).await;
    let answer = client.answer().await;
    // A connection that is not kept may already be gone.
    let _ = within(client.stream.write_all(b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n")).await;
    let mut rest = [0; 12];
    let kept = match within(client.stream.read(&mut rest)).await {
        Ok(0) | Err(_) => false,
        Ok(_) => rest == *b"HTTP/1.1 200",
    };
    Given { status: answer.status, body: answer.body, kept }
}

async fn check(rows: impl IntoIterator<Item = (&str, &str, Given)>) {
    let server = Server::start(config());
    for (name, request, expected) in rows {
        assert_eq!(give(&server, request.as_bytes()).await, expected, "{name}");
    }
}

#[tokio::test]
async fn bodies_have_one_length_or_none() {
    check([
        (
            "one length",
            "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
            kept(200, "127.0.0.1 http /x 3"),
        ),
        (
            "chunks",
            "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            kept(200, "127.0.0.1 http /x 3"),
        ),
        (
            "chunks with white space around the coding, which is none of its name",
            "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \tchunked\t \r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            kept(200, "127.0.0.1 http /x 3"),
        ),
        (
            "the same length twice",
            "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
            kept(200, "127.0.0.1 http /x 3"),
        ),
        (
            "two lengths",
            "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
            closed(400, ""),
        ),
        (
            "two lengths in one line",
            "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 4\r\n\r\nabcd",
            closed(400, ""),
        ),
        (
            "a length with a sign",
            "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc",
            closed(400, ""),
        ),
        (
            "a negative length",
            "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: -3\r\n\r\nabc",
            closed(400, ""),
        ),
        (
            "a length in hex",
            "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 0x3\r\n\r\nabc",
            closed(400, ""),
        ),
        (
            "a length beyond 64 bits",
            "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551619\r\n\r\nabc",
            closed(400, ""),
        ),
        (
            "no length",
            "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\n",
            closed(400, ""),
        ),
        (
            "a chunk size that is no number",
            "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
            closed(400, "body"),
        ),
        (
            "a chunk size beyond 64 bits",
            "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
            closed(400, "body"),
        ),
        (
            "trailers, which are dropped",
            "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n",
            kept(200, "127.0.0.1 http /x 3"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_length_beside_chunks_does_not_count_and_closes_the_connection() {
    check([
        (
            "the length first",
            "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            closed(200, "127.0.0.1 http /x 3"),
        ),
        (
            "the chunks first",
            "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 9\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            closed(200, "127.0.0.1 http /x 3"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn what_is_smuggled_behind_a_body_is_never_a_request() {
    let server = Server::start(config());
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let length = 5 + smuggled.len();
    let given = give(
        &server,
        format!("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}")
            .as_bytes(),
    )
    .await;
    assert_eq!(given, closed(200, "127.0.0.1 http /x 0"));
    assert_eq!(load(&server.signals.requests), 1);

    // The twin: two requests in a row that are two.
    let mut client = server.connect().await;
    client.send(smuggled.repeat(2)).await;
    for _ in 0..2 {
        assert_eq!(client.answer().await.body, "127.0.0.1 http /smuggled 0");
    }
}

#[tokio::test]
async fn no_transfer_encoding_is_taken_but_chunked() {
    check([
        (
            "two codings that hyper takes for chunks",
            "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            closed(400, "transfer-encoding"),
        ),
        (
            "two codings in two lines",
            "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            closed(400, "transfer-encoding"),
        ),
        (
            "twice the same",
            "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            closed(400, "transfer-encoding"),
        ),
        (
            "an empty element",
            "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked,\r\n\r\n0\r\n\r\n",
            closed(400, ""),
        ),
        (
            "another order",
            "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
            closed(400, ""),
        ),
        (
            "another name",
            "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
            closed(400, ""),
        ),
        (
            "in HTTP/1.0",
            "POST /x HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            closed(400, ""),
        ),
    ])
    .await;
}

#[tokio::test]
async fn lines_are_lines() {
    check([
        ("a folded line", "GET /x HTTP/1.1\r\nhost: a\r\nx: 1\r\n 2\r\n\r\n", closed(400, "")),
        ("white space before the colon", "GET /x HTTP/1.1\r\nhost : a\r\n\r\n", closed(400, "")),
        (
            "white space before the first name",
            "GET /x HTTP/1.1\r\n host: a\r\n\r\n",
            closed(400, ""),
        ),
        ("a line without a colon", "GET /x HTTP/1.1\r\nhost: a\r\nx\r\n\r\n", closed(400, "")),
        ("NUL in a value", "GET /x HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n", closed(400, "")),
        ("NUL in the path", "GET /\0 HTTP/1.1\r\nhost: a\r\n\r\n", closed(400, "")),
        ("CR in a value", "GET /x HTTP/1.1\r\nhost: a\r\nx: 1\r2\r\n\r\n", closed(400, "")),
        (
            "bare LF, which RFC 9112 allows to take",
            "GET /x HTTP/1.1\nhost: a\n\n",
            kept(200, "127.0.0.1 http /x 0"),
        ),
        (
            "empty lines before the request",
            "\r\n\r\nGET /x HTTP/1.1\r\nhost: a\r\n\r\n",
            kept(200, "127.0.0.1 http /x 0"),
        ),
        ("two spaces in the request line", "GET  /x HTTP/1.1\r\nhost: a\r\n\r\n", closed(400, "")),
        ("no version", "GET /x\r\nhost: a\r\n\r\n", closed(400, "")),
        ("another version", "GET /x HTTP/1.2\r\nhost: a\r\n\r\n", closed(400, "")),
        ("TLS on a plain port", "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n", closed(400, "")),
    ])
    .await;
}

#[tokio::test]
async fn there_is_one_host_and_it_is_the_targets() {
    check([
        ("none", "GET /x HTTP/1.1\r\n\r\n", kept(400, "host-missing")),
        ("two", "GET /x HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", kept(400, "host-repeated")),
        ("an empty one", "GET /x HTTP/1.1\r\nhost:\r\n\r\n", kept(400, "host-invalid")),
        ("a user", "GET /x HTTP/1.1\r\nhost: u@a\r\n\r\n", kept(400, "host-invalid")),
        ("a path", "GET /x HTTP/1.1\r\nhost: a/b\r\n\r\n", kept(400, "host-invalid")),
        ("none in HTTP/1.0", "GET /x HTTP/1.0\r\n\r\n", closed(200, "127.0.0.1 http /x 0")),
        (
            "the target's",
            "GET http://a/x HTTP/1.1\r\nhost: a\r\n\r\n",
            kept(200, "127.0.0.1 http /x 0"),
        ),
        (
            "not the target's",
            "GET http://evil/x HTTP/1.1\r\nhost: a\r\n\r\n",
            kept(400, "host-mismatch"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_path_is_its_bytes_and_never_a_host() {
    check([
        (
            "two slashes",
            "GET //evil/x HTTP/1.1\r\nhost: a\r\n\r\n",
            kept(200, "127.0.0.1 http //evil/x 0"),
        ),
        (
            "an encoded slash",
            "GET /a%2fx HTTP/1.1\r\nhost: a\r\n\r\n",
            kept(200, "127.0.0.1 http /a%2fx 0"),
        ),
        ("dots", "GET /a/../x HTTP/1.1\r\nhost: a\r\n\r\n", kept(200, "127.0.0.1 http /a/../x 0")),
        ("a parameter", "GET /x;a HTTP/1.1\r\nhost: a\r\n\r\n", kept(200, "127.0.0.1 http /x;a 0")),
        ("a query", "GET /x?/hold HTTP/1.1\r\nhost: a\r\n\r\n", kept(200, "127.0.0.1 http /x 0")),
        (
            "a fragment, which hyper drops",
            "GET /x#/hold HTTP/1.1\r\nhost: a\r\n\r\n",
            kept(200, "127.0.0.1 http /x 0"),
        ),
        (
            "an absolute target without a path",
            "GET http://a HTTP/1.1\r\nhost: a\r\n\r\n",
            kept(200, "127.0.0.1 http / 0"),
        ),
        ("no slash", "GET x HTTP/1.1\r\nhost: a\r\n\r\n", kept(400, "target")),
    ])
    .await;
}

#[tokio::test]
async fn there_is_no_other_protocol_to_change_to() {
    check([
        ("connect", "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n", kept(400, "connect")),
        (
            "upgrade",
            "GET /x HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            kept(400, "upgrade"),
        ),
        (
            "an offer of HTTP/2, which is overlooked",
            "GET /x HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n",
            kept(200, "127.0.0.1 http /x 0"),
        ),
    ])
    .await;
    let server = Server::start(config());
    let mut client = server.connect().await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(client.rest().await, b"", "HTTP/2 is spoken on TLS only");
    server.idle().await;
    assert_eq!(load(&server.stats.parse_errors), 1);
}

#[tokio::test]
async fn names_that_could_pass_for_others_do_not_reach_the_service() {
    check([(
        "spellings",
        "GET /names HTTP/1.1\r\nhost: a\r\nX_Forwarded_For: 1\r\nHookgate-Key: 1\r\nhookgate_key: 1\r\nx-forwarded-for: 1\r\n\r\n",
        kept(200, "host x-forwarded-for"),
    )])
    .await;
}

#[tokio::test]
async fn a_head_over_16_kib_or_100_headers_is_431_and_one_below_is_not() {
    let server = Server::start(config());
    let value =
        |length: usize| format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(length));
    let names =
        |count: usize| format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(count - 1));
    let path = |length: usize| format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(length));
    for request in [value(16_000), names(100), path(16_000)] {
        assert_eq!(give(&server, request.as_bytes()).await.status, 200);
    }
    assert_eq!(load(&server.stats.parse_errors), 0);
    let too_large = [value(17_000), names(101), path(17_000), value(300_000), path(300_000)];
    for request in &too_large {
        let mut client = server.connect().await;
        // The server may close before it has taken all.
        let _ = within(client.stream.write_all(request.as_bytes())).await;
        assert_eq!(client.answer().await.status, 431);
    }
    server.idle().await;
    assert_eq!(load(&server.stats.parse_errors), too_large.len() as u64);
    assert_eq!(load(&server.stats.heads_too_large), too_large.len() as u64);
}

#[tokio::test]
async fn endless_chunk_extensions_and_trailers_end_the_body_with_an_error() {
    let server = Server::start(config());
    let head = "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    for endless in [format!("1;{}", "x".repeat(17_000)), format!("0\r\nx: {}", "x".repeat(17_000))]
    {
        let mut client = server.connect().await;
        let _ = within(client.stream.write_all(format!("{head}{endless}").as_bytes())).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, &*answer.body), (400, "body"));
        assert_eq!(answer.header("connection"), Some("close"));
    }
}

#[tokio::test]
async fn every_refusal_of_the_parser_is_counted() {
    let server = Server::start(config());
    let before = "GET /x HTTP/1.1\r\nhost: a\r\n\r\n";
    assert_eq!(give(&server, before.as_bytes()).await.status, 200);
    assert_eq!(give(&server, b"nonsense\r\n\r\n").await, closed(400, ""));
    server.idle().await;
    assert_eq!(load(&server.stats.parse_errors), 1);
    assert_eq!(load(&server.stats.heads_too_large), 0);
}
