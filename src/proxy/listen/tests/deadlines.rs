//! What a client may take its time for, and what not.

use std::time::Instant;

use super::*;

const SHORT: Duration = Duration::from_millis(150);
const LONGER: Duration = Duration::from_millis(600);

fn short_head() -> ListenConfig {
    ListenConfig { head_timeout: SHORT, ..config() }
}

#[tokio::test]
async fn a_connection_that_sends_nothing_is_closed_when_its_head_is_due() {
    let server = Server::start(short_head());
    let begun = Instant::now();
    let mut client = server.connect().await;
    assert_eq!(client.rest().await, b"");
    assert!(begun.elapsed() >= SHORT);
    assert_eq!(load(&server.stats.head_timeouts), 1);
}

#[tokio::test]
async fn half_a_head_is_cut_when_it_is_due_however_it_dribbles() {
    let server = Server::start(short_head());
    let mut client = server.connect().await;
    let begun = Instant::now();
    client.send("GET / HTTP/1.1\r\n").await;
    within(async {
        while client.is_silent_for(SHORT / 10).await {
            // Fails once the server has gone.
            let _ = client.stream.write_all(b"x").await;
        }
    })
    .await;
    assert!(begun.elapsed() >= SHORT);
    assert_eq!(load(&server.stats.head_timeouts), 1);
    assert_eq!(load(&server.signals.requests), 0);
}

#[tokio::test]
async fn a_head_in_two_pieces_is_answered_if_it_is_in_time() {
    let server = Server::start(ListenConfig { head_timeout: PATIENCE, ..config() });
    let mut client = server.connect().await;
    client.send(&GET[..10]).await;
    assert!(client.is_silent_for(SHORT).await);
    assert_eq!(client.ask(&GET[10..]).await.status, 200);
}

#[tokio::test]
async fn an_idle_connection_outlives_the_time_for_a_head_and_is_served_again() {
    let server = Server::start(short_head());
    let mut client = server.connect().await;
    for _ in 0..2 {
        assert_eq!(client.ask(GET).await.status, 200);
        assert!(client.is_silent_for(LONGER).await);
    }
    assert_eq!(load(&server.stats.head_timeouts), 0);
}

#[tokio::test]
async fn half_a_second_head_is_cut_when_it_is_due() {
    let server = Server::start(short_head());
    let mut client = server.connect().await;
    assert_eq!(client.ask(GET).await.status, 200);
    assert!(client.is_silent_for(LONGER).await);
    let begun = Instant::now();
    client.send(&GET[..10]).await;
    client.closed().await;
    assert!(begun.elapsed() >= SHORT);
    assert_eq!(load(&server.stats.head_timeouts), 1);
}

#[tokio::test]
async fn a_connection_is_closed_in_order_when_it_was_idle_for_long_enough() {
    let server = Server::start(ListenConfig { keep_alive: SHORT, ..config() });
    let mut client = server.connect().await;
    assert_eq!(client.ask(GET).await.status, 200);
    let begun = Instant::now();
    assert_eq!(client.rest().await, b"");
    assert!(begun.elapsed() >= SHORT / 2, "the answer came before the idle time began");
    assert_eq!(load(&server.stats.head_timeouts), 0);
    server.idle().await;
}

#[tokio::test]
async fn neither_a_slow_body_nor_a_slow_service_is_the_listeners_matter() {
    let server = Server::start(ListenConfig { keep_alive: SHORT, ..short_head() });
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n").await;
    for _ in 0..4 {
        assert!(client.is_silent_for(SHORT).await);
        client.send("x").await;
    }
    assert_eq!(client.answer().await.body, "127.0.0.1 http / 4");
    client.send("GET /hold HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(client.is_silent_for(LONGER).await);
    server.signals.release.notify_one();
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_is_cut() {
    let server = Server::start(ListenConfig { write_timeout: SHORT, ..config() });
    let mut client = server.connect().await;
    client.send("GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await;
    server.idle_after(1).await;
    assert_eq!(load(&server.stats.write_timeouts), 1);
}

#[tokio::test]
async fn a_client_that_takes_its_answer_slowly_gets_all_of_it() {
    let server = Server::start(ListenConfig { write_timeout: LONGER, ..config() });
    let mut client = server.connect().await;
    client.send("GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    let mut chunk = vec![0; 8 * 1024 * 1024];
    let mut length = 0;
    loop {
        // Slower than it could be, but never for as long as the limit.
        tokio::time::sleep(SHORT / 10).await;
        match within(client.stream.read(&mut chunk)).await.unwrap() {
            0 => break,
            read => length += read,
        }
    }
    assert!(length > 64 * 1024 * 1024, "{length}");
    assert_eq!(load(&server.stats.write_timeouts), 0);
}
