//! How many connections may be open.

use super::*;

const WHILE: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_connection_over_the_limit_waits_until_another_is_closed() {
    let server = Server::start(ListenConfig { connections: 2, ..config() });
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    assert_eq!(first.ask(GET).await.status, 200);
    assert_eq!(second.ask(GET).await.status, 200);
    let mut third = server.connect().await;
    third.send(GET).await;
    assert!(third.is_silent_for(WHILE).await);
    assert_eq!(load(&server.stats.accepted), 2);
    drop(first);
    assert_eq!(third.answer().await.status, 200);
    assert_eq!(load(&server.stats.active), 2);
}

#[tokio::test]
async fn a_source_over_its_share_hears_503_and_others_are_served() {
    let server = Server::start(ListenConfig { connections: 8, per_source: 25, ..config() });
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = server.connect().await;
        assert_eq!(client.ask(GET).await.status, 200);
        held.push(client);
    }
    let mut refused = server.connect().await;
    let answer = refused.answer().await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert_eq!(answer.header("hookgate-outcome"), Some("overloaded"));
    assert_eq!(answer.header("connection"), Some("close"));
    let problem: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(problem["status"], 503);
    assert_eq!(refused.rest().await, b"", "the declared length is the length");

    let mut other = server.connect_from(Ipv4Addr::new(127, 0, 0, 2)).await;
    assert_eq!(other.ask(GET).await.body, "127.0.0.2 http / 0");
    assert_eq!(load(&server.stats.refused_by_share), 1);
    assert_eq!(load(&server.stats.active), 3);

    held.pop();
    until(|| load(&server.stats.active) == 2).await;
    let mut again = server.connect().await;
    assert_eq!(again.ask(GET).await.status, 200);
}

#[tokio::test]
async fn an_address_that_is_in_use_is_an_error_that_names_it() {
    let server = Server::start(config());
    let taken = ListenConfig { address: server.address, ..config() };
    let error = Listener::bind(taken).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {}", server.address));
    assert_eq!(error.address(), server.address);
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn only_the_loss_of_one_connection_is_passed_over_without_a_pause() {
    let is_lost = |code| super::super::is_lost_connection(&std::io::Error::from_raw_os_error(code));
    let (econnaborted, econnreset) = (103, 104);
    assert!(is_lost(econnaborted) && is_lost(econnreset));
    let (emfile, enfile, enobufs, enomem, einval) = (24, 23, 105, 12, 22);
    for code in [emfile, enfile, enobufs, enomem, einval] {
        assert!(!is_lost(code), "{code}");
    }
}
