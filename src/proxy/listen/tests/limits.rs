//! How many connections may be open.

use std::io::ErrorKind;
use std::time::Instant;

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
    let taken = ListenConfig { address: server.address.into(), ..config() };
    let error = Listener::bind(taken).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {}", server.address));
    assert_eq!(error.address().as_ip(), Some(server.address));
    assert!(std::error::Error::source(&error).is_some());
}

/// Runs in a process of its own, since file descriptors are the process's.
#[tokio::test]
async fn without_a_free_file_descriptor_accepting_pauses_and_then_goes_on() {
    const CHILD: &str = "HOOKGATE_TEST_FEW_FILES";
    if std::env::var_os(CHILD).is_none() {
        let path = concat!(
            module_path!(),
            "::without_a_free_file_descriptor_accepting_pauses_and_then_goes_on"
        );
        let output = tokio::process::Command::new("sh")
            .args(["-c", "ulimit -n 64 && exec \"$0\" --exact \"$1\""])
            .arg(std::env::current_exe().unwrap())
            .arg(path.split_once("::").unwrap().1)
            .env(CHILD, "1")
            .kill_on_drop(true)
            .output();
        let output = within(output).await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let server = Server::start(config());
    let mut files = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        files.push(file);
    }
    // One for the client, none for the server.
    files.pop();
    let begun = Instant::now();
    let mut client = server.connect().await;
    client.send(GET).await;
    until(|| load(&server.stats.accept_errors) >= 3).await;
    let pauses = load(&server.stats.accept_errors) - 1;
    assert!(begun.elapsed() >= super::super::ACCEPT_PAUSE * pauses as u32);
    files.pop();
    assert_eq!(client.answer().await.status, 200);
}

#[test]
fn only_the_loss_of_one_connection_is_passed_over_without_a_pause() {
    let is_lost = super::super::is_lost_connection;
    for kind in [ErrorKind::ConnectionAborted, ErrorKind::ConnectionReset] {
        assert!(is_lost(&kind.into()), "{kind}");
    }
    let (emfile, enfile, enomem, einval) = (24, 23, 12, 22);
    for code in [emfile, enfile, enomem, einval] {
        assert!(!is_lost(&std::io::Error::from_raw_os_error(code)), "{code}");
    }
}
