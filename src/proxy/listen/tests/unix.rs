//! On a Unix socket.

use std::path::Path;

use tokio::net::UnixStream;

use super::*;
use crate::proxy::socket::ListenAddress;
use crate::source::Networks;

fn on(path: &Path) -> ListenConfig {
    ListenConfig { address: ListenAddress::Unix(path.into()), ..config() }
}

async fn connect(path: &Path) -> Client<UnixStream> {
    Client::new(within(UnixStream::connect(path)).await.unwrap())
}

#[tokio::test]
async fn a_request_has_no_source_and_its_peer_no_share() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gate.sock");
    let server = Server::start(ListenConfig { connections: 4, per_source: 25, ..on(&path) });
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut client = connect(&path).await;
        assert_eq!(client.ask(GET).await.body, "nobody http / 0");
        held.push(client);
    }
    let mut waits = connect(&path).await;
    waits.send(GET).await;
    assert!(waits.is_silent_for(Duration::from_millis(200)).await, "the limit of all holds");
    held.pop();
    assert_eq!(waits.answer().await.status, 200);
    assert_eq!(load(&server.stats.refused_by_share), 0);
}

#[tokio::test]
async fn the_socket_goes_with_the_listener_and_open_requests_are_finished() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gate.sock");
    let server = Server::start(on(&path));
    let mut client = connect(&path).await;
    client.send("GET /hold HTTP/1.1\r\nhost: a\r\n\r\n").await;
    until(|| load(&server.signals.held) == 1).await;
    let signals = Arc::clone(&server.signals);
    let stopped = server.stop();
    until(|| !path.exists()).await;
    signals.release.notify_one();
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(stopped.await, 0);
}

#[tokio::test]
async fn a_socket_that_another_listener_has_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gate.sock");
    let _server = Server::start(on(&path));
    let error = Listener::bind(on(&path)).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on unix:{}", path.display()));
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.starts_with("another process listens on "), "{source}");
    assert_eq!(connect(&path).await.ask(GET).await.status, 200);
}

#[tokio::test]
async fn behind_a_proxy_the_client_is_the_source_and_has_a_share() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gate.sock");
    // Nobody is named: who may open the socket is trusted.
    let proxies = Some(Networks::default());
    let server =
        Server::start(ListenConfig { connections: 4, per_source: 25, proxies, ..on(&path) });
    let mut first = connect(&path).await;
    first.send("PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n").await;
    assert_eq!(first.ask(GET).await.body, "192.0.2.7 http / 0");
    let mut second = connect(&path).await;
    second.send("PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n").await;
    assert_eq!(second.answer().await.status, 503);
    let mut other = connect(&path).await;
    other.send("PROXY UNKNOWN\r\n").await;
    assert_eq!(other.ask(GET).await.body, "nobody http / 0");
    assert_eq!(load(&server.stats.refused_by_share), 1);
}
