//! Behind a proxy of connections.

use super::*;
use crate::source::Networks;

const LINE: &str = "PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n";

fn behind(networks: &[&str]) -> ListenConfig {
    let networks = networks.iter().map(|network| Networks::parse(network).unwrap());
    ListenConfig { proxies: Some(networks.collect()), ..config() }
}

fn block(command: u8) -> Vec<u8> {
    let mut block = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    block.extend_from_slice(&[command, 0x21, 0, 36]);
    block.extend_from_slice(&"2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets());
    block.extend_from_slice(&[0; 20]);
    block
}

#[tokio::test]
async fn the_client_of_the_header_is_the_source_of_every_request() {
    let server = Server::start(behind(&["127.0.0.1"]));
    for (header, source) in [
        (LINE.into(), "192.0.2.7"),
        (block(0x21), "2001:db8::7"),
        (b"PROXY TCP6 ::ffff:192.0.2.8 ::1 1 2\r\n".to_vec(), "192.0.2.8"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (block(0x20), "127.0.0.1"),
    ] {
        let expected = format!("{source} http / 0");
        let mut client = server.connect().await;
        // In one piece with the request, and in single bytes.
        client.send([&header, GET.as_bytes()].concat()).await;
        assert_eq!(client.answer().await.body, expected);
        assert_eq!(client.ask(GET).await.body, expected);
        let mut slow = server.connect().await;
        for byte in &header {
            slow.send([*byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(slow.ask(GET).await.body, expected);
    }
    assert_eq!(load(&server.stats.proxy_header_failures), 0);
}

#[tokio::test]
async fn what_is_no_header_closes_the_connection_and_is_counted() {
    let server = Server::start(behind(&["127.0.0.1"]));
    let long = format!("PROXY TCP4 {}\r\n", "1".repeat(100));
    let claims = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".as_slice(), &[0; 64]].concat();
    let all = [GET.as_bytes(), long.as_bytes(), &claims, &b"\0"[..], b"PROXY TCP4 a b c d\r\n"];
    for (n, bytes) in (1..).zip(all) {
        let mut client = server.connect().await;
        client.send(bytes).await;
        client.closed().await;
        assert!(client.buffer.is_empty(), "no word to whom is no proxy");
        until(|| load(&server.stats.proxy_header_failures) == n).await;
    }
    // A second header is no request.
    let mut twice = server.connect().await;
    twice.send([LINE, LINE, GET].concat()).await;
    assert_eq!(twice.answer().await.status, 400);
    // To look whether the port is open is no fault.
    drop(server.connect().await);
    server.idle_after(7).await;
    assert_eq!(load(&server.stats.proxy_header_failures), 5);
    assert_eq!(load(&server.signals.requests), 0);
}

#[tokio::test]
async fn a_header_without_which_a_listener_was_set_up_is_no_request() {
    let server = Server::start(config());
    let mut client = server.connect().await;
    client.send([LINE, GET].concat()).await;
    assert_eq!(client.answer().await.status, 400);
    assert_eq!(load(&server.signals.requests), 0);
}

#[tokio::test]
async fn who_is_no_proxy_is_closed_whatever_he_says() {
    let server = Server::start(behind(&["127.0.0.2", "::1"]));
    let mut stranger = server.connect().await;
    let _ = stranger.stream.write_all([LINE, GET].concat().as_bytes()).await;
    stranger.closed().await;
    assert!(stranger.buffer.is_empty());
    assert_eq!(load(&server.stats.refused_proxies), 1);
    let mut proxy = server.connect_from(Ipv4Addr::new(127, 0, 0, 2)).await;
    proxy.send(LINE).await;
    assert_eq!(proxy.ask(GET).await.body, "192.0.2.7 http / 0");
    assert_eq!((load(&server.stats.refused_proxies), load(&server.signals.requests)), (1, 1));
}

#[tokio::test]
async fn a_header_that_does_not_come_to_its_end_in_time_closes_the_connection() {
    let head_timeout = Duration::from_millis(200);
    let server = Server::start(ListenConfig { head_timeout, ..behind(&["127.0.0.1"]) });
    for (n, bytes) in (1..).zip(["", "PROXY TCP4 192.0.2.7 127", "\r\n\r\n\0\r\nQUIT\n\x21"]) {
        let mut client = server.connect().await;
        client.send(bytes).await;
        client.closed().await;
        until(|| load(&server.stats.proxy_header_timeouts) == n).await;
    }
    assert_eq!(load(&server.stats.head_timeouts), 0);
    let mut client = server.connect().await;
    client.send(LINE).await;
    assert_eq!(client.ask(GET).await.status, 200);
}

#[tokio::test]
async fn a_client_has_its_share_and_the_proxy_all_of_it() {
    let proxies = behind(&["127.0.0.1"]).proxies;
    let server =
        Server::start(ListenConfig { connections: 8, per_source: 25, proxies, ..config() });
    let mut held = Vec::new();
    for client in ["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        let mut connection = server.connect().await;
        connection.send(format!("PROXY TCP4 {client} 127.0.0.1 1 2\r\n")).await;
        assert_eq!(connection.ask(GET).await.status, 200);
        held.push(connection);
    }
    for _ in 0..3 {
        let mut check = server.connect().await;
        check.send("PROXY UNKNOWN\r\n").await;
        assert_eq!(check.ask(GET).await.status, 200);
        held.push(check);
    }
    let mut over = server.connect().await;
    over.send("PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n").await;
    let answer = over.answer().await;
    assert_eq!((answer.status, answer.header("hookgate-outcome")), (503, Some("overloaded")));
    assert_eq!(load(&server.stats.refused_by_share), 1);
    held.remove(0);
    until(|| load(&server.stats.active) == 6).await;
    let mut again = server.connect().await;
    again.send("PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n").await;
    assert_eq!(again.ask(GET).await.status, 200);
}

#[tokio::test]
async fn a_connection_without_its_header_does_not_hold_up_the_end() {
    let server = Server::start(behind(&["127.0.0.1"]));
    let mut client = server.connect().await;
    client.send("PROXY ").await;
    until(|| load(&server.stats.active) == 1).await;
    assert_eq!(server.stop().await, 0);
    client.closed().await;
}

#[tokio::test]
async fn the_header_comes_before_tls_and_never_within_it() {
    let pair = tls::Pair::new();
    let config = ListenConfig { tls: Some(pair.server()), ..behind(&["127.0.0.1"]) };
    let server = Server::start(config);
    for header in [LINE.into(), block(0x21)] {
        let mut client = server.connect().await;
        client.send(&header).await;
        let mut client = Client::new(pair.over(client.stream, &["http/1.1"]).await.unwrap());
        let answer = client.ask(GET).await;
        assert!(answer.body.ends_with(" https / 0") && !answer.body.contains("127."), "{answer:?}");
    }
    assert!(pair.connect(&server, &["http/1.1"]).await.is_err());
    until(|| load(&server.stats.proxy_header_failures) == 1).await;
    assert_eq!(load(&server.stats.handshake_failures), 0);
}
