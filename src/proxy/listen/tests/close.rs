//! How connections end: refusals, half-closed clients, and the drain.

use std::time::Instant;

use super::*;

const SHORT: Duration = Duration::from_millis(150);
const HOLD: &str = "GET /hold HTTP/1.1\r\nhost: a\r\n\r\n";
const MEBIBYTE: usize = 1024 * 1024;

#[tokio::test]
async fn an_early_refusal_of_a_large_body_arrives_although_the_client_sends_on() {
    let server = Server::start(config());
    let mut client = server.connect().await;
    client
        .send(format!(
            "POST /refuse HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
            4 * MEBIBYTE
        ))
        .await;
    // A client that reads only when it has written all, or can write no more.
    let _ = within(client.stream.write_all(&vec![b'x'; 4 * MEBIBYTE])).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (401, Some("close")));
}

#[tokio::test]
async fn a_connection_closed_early_takes_what_was_under_way_and_ends_in_order() {
    let server = Server::start(ListenConfig { linger: PATIENCE, ..config() });
    let mut client = server.connect().await;
    let answer =
        client.ask("POST /refuse HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n").await;
    assert_eq!((answer.status, answer.header("connection")), (401, Some("close")));
    // The write side is shut at once; a reset here would fail the read.
    assert_eq!(client.rest().await, b"");
    for _ in 0..10 {
        client.send([b'x'; 4096]).await;
    }
    assert_eq!(client.rest().await, b"");
    assert_eq!(load(&server.stats.active), 1);
    drop(client);
    server.idle().await;
}

#[tokio::test]
async fn a_lingering_close_ends_with_its_time() {
    let server = Server::start(ListenConfig { linger: SHORT, ..config() });
    let mut client = server.connect().await;
    let begun = Instant::now();
    client.ask("POST /refuse HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n").await;
    server.idle().await;
    assert!(begun.elapsed() >= SHORT);
}

#[tokio::test]
async fn an_answer_after_the_whole_body_keeps_the_connection() {
    let server = Server::start(config());
    let mut client = server.connect().await;
    for _ in 0..2 {
        let answer =
            client.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody").await;
        assert_eq!((answer.status, answer.header("connection")), (200, None));
    }
    assert_eq!(client.ask("GET /refuse HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 401);
    assert_eq!(client.ask(GET).await.status, 200, "there was no body to read");
}

#[tokio::test]
async fn who_expects_100_hears_an_early_refusal_without_it() {
    let server = Server::start(config());
    let expect = |path| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n"
        )
    };
    let mut refused = server.connect().await;
    let answer = refused.ask(expect("/refuse")).await;
    assert_eq!((answer.status, answer.header("connection")), (401, Some("close")));

    let mut taken = server.connect().await;
    assert_eq!(taken.ask(expect("/")).await.status, 100);
    assert_eq!(taken.ask("body").await.body, "127.0.0.1 http / 4");
}

#[tokio::test]
async fn a_client_that_shuts_its_write_side_still_gets_its_answer() {
    let server = Server::start(config());
    let mut client = server.connect().await;
    client.send(HOLD).await;
    client.stream.shutdown().await.unwrap();
    until(|| load(&server.signals.held) == 1).await;
    assert!(client.is_silent_for(SHORT).await);
    server.signals.release.notify_one();
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn a_drain_closes_idle_connections_at_once_and_lets_requests_finish() {
    let server = Server::start(ListenConfig { linger: LONG, ..config() });
    let address = server.address;
    let signals = Arc::clone(&server.signals);
    let mut idle = server.connect().await;
    assert_eq!(
        idle.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody").await.status,
        200
    );
    let mut silent = server.connect().await;
    let mut busy = server.connect().await;
    busy.send(HOLD).await;
    until(|| load(&signals.held) == 1 && load(&server.stats.active) == 3).await;

    let stats = Arc::clone(&server.stats);
    let stopped = server.stop();
    assert_eq!(idle.rest().await, b"");
    assert_eq!(silent.rest().await, b"");
    until(|| load(&stats.active) == 1).await;
    assert!(TcpStream::connect(address).await.is_err(), "nothing is accepted any more");
    signals.release.notify_one();
    let answer = busy.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    drop(busy);
    assert_eq!(stopped.await, 0);
    assert_eq!(load(&stats.cut), 0);
}

#[tokio::test]
async fn a_drain_cuts_what_has_not_ended_by_its_deadline() {
    let server = Server::start(ListenConfig { drain: SHORT, ..config() });
    let signals = Arc::clone(&server.signals);
    let stats = Arc::clone(&server.stats);
    let mut half = server.connect().await;
    half.send(&GET[..10]).await;
    let mut dribbler = server.connect().await;
    dribbler.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n").await;
    let mut held = server.connect().await;
    held.send(HOLD).await;
    until(|| load(&signals.requests) == 2 && load(&stats.active) == 3).await;

    let begun = Instant::now();
    let stopped = server.stop();
    within(async {
        while dribbler.is_silent_for(SHORT / 10).await {
            // Fails once the server has gone.
            let _ = dribbler.stream.write_all(b"x").await;
        }
    })
    .await;
    held.closed().await;
    half.closed().await;
    assert_eq!(stopped.await, 3);
    assert!(begun.elapsed() >= SHORT);
    assert_eq!((load(&stats.cut), load(&stats.active), load(&signals.held)), (3, 0, 0));
}

#[tokio::test]
async fn a_server_that_is_dropped_cuts_its_connections() {
    let server = Server::start(config());
    let mut client = server.connect().await;
    client.send(HOLD).await;
    until(|| load(&server.signals.held) == 1).await;
    server.task.abort();
    client.closed().await;
    until(|| load(&server.signals.held) == 0).await;
    server.idle().await;
}
