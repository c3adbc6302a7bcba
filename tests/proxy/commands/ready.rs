//! `hookgate ready`.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixListener;

use crate::support::gate::{Finished, Setup, write_private};
use crate::support::host::KEYS;
use crate::support::until;

use super::run_in;

fn told(finished: &Finished) -> (Option<i32>, &str, &str) {
    (finished.code, &finished.stdout, &finished.stderr)
}

#[test]
fn a_gate_that_is_ready_is_told_from_one_that_is_not() {
    let gate = Setup::new().keys(KEYS).hook().start();
    let folder = gate.folder().clone();
    let health = gate.health().to_string();
    let ready = run_in(&folder, &["ready", "--health", &health]);
    assert_eq!(told(&ready), (Some(0), "ready\n", ""));
    // Bound to all addresses, it is here as well.
    let any = health.replace("127.0.0.1", "0.0.0.0");
    assert_eq!(run_in(&folder, &["ready", "--health", &any]).code, Some(0));
    // Where the configuration says, and by the environment also when the file is broken.
    fs::write(gate.path("probe.toml"), format!("health = \"{health}\"\n")).expect("a file");
    let ready = run_in(&folder, &["ready", "--config", "probe.toml"]);
    assert_eq!(told(&ready), (Some(0), "ready\n", ""));
    fs::write(gate.path("broken.toml"), "health = 1\n").expect("a file");
    let ready = Setup::bare(&["ready", "--config", "broken.toml"]).within(&folder);
    assert_eq!(ready.env("HOOKGATE_HEALTH", &health).run().code, Some(0));
    let broken = run_in(&folder, &["ready", "--config", "broken.toml"]);
    assert!(broken.code == Some(1) && broken.stderr.contains("broken.toml:1:"), "{broken:?}");

    write_private(
        &gate.path("webhook.key"),
        "sdf34tGdfgGDG345g3y0045TYG23te37 until=2020-01-01T00:00:00Z\n",
    );
    gate.signal("HUP");
    until("it is not ready", || (gate.probe("/ready").status == 503).then_some(()));
    let ready = run_in(&folder, &["ready", "--health", &health]);
    assert_eq!(told(&ready), (Some(1), "not ready\nhook default has no active key\n", ""));
    let live = run_in(&folder, &["ready", "--live", "--health", &health]);
    assert_eq!(told(&live), (Some(0), "live\n", ""));

    gate.stop();
    let gone = run_in(&folder, &["ready", "--health", &health]);
    let refused = format!("error: no answer from {health}: Connection refused (os error 111)\n");
    assert_eq!(told(&gone), (Some(1), "", &*refused));
}

#[test]
fn what_is_no_gate_is_not_ready() {
    let folder = Setup::bare(&[]).folder().clone();
    let bind = || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        (listener, address)
    };
    // The kernel accepts, and nobody says anything.
    let (_silent, address) = bind();
    let silent = run_in(&folder, &["ready", "--health", &address, "--timeout", "300ms"]);
    assert_eq!(silent.code, Some(1));
    assert!(silent.stderr.starts_with(&format!("error: no answer from {address}: ")), "{silent:?}");
    let (listener, address) = bind();
    let answering = std::thread::spawn(move || {
        for text in ["HTTP/1.1 200 OK\r\n\r\nhello\n", "SSH-2.0-x\r\n"] {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.read_exact(&mut [0; 16]).expect("a request");
            stream.write_all(text.as_bytes()).expect("sent");
            stream.shutdown(Shutdown::Write).expect("our own connection");
            // Or closing over what was not read would take the answer away.
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    for _ in 0..2 {
        let other = run_in(&folder, &["ready", "--health", &address]);
        let stderr = format!("error: what answers at {address} is no hookgate\n");
        assert_eq!(told(&other), (Some(1), "", &*stderr));
    }
    answering.join().expect("a thread");
    for (args, wanted) in [
        (
            &["--health", "8081"][..],
            "--health: expected an address and a port such as 127.0.0.1:8081",
        ),
        (&["--health", "off"], "--health: expected an address"),
        (&["--config", "off.toml"], "probes are off"),
    ] {
        fs::write(folder.path().join("off.toml"), "health = \"off\"\n").expect("a file");
        let finished = run_in(&folder, &[&["ready"], args].concat());
        assert_eq!(finished.code, Some(1), "{args:?}");
        assert!(finished.stderr.starts_with(&format!("error: {wanted}")), "{finished:?}");
    }
    assert_eq!(run_in(&folder, &["ready", "--timeout", "soon"]).code, Some(2));
}

#[test]
fn a_unix_socket_is_asked_too() {
    let folder = Setup::bare(&[]).folder().clone();
    let listener = UnixListener::bind(folder.path().join("health.sock")).expect("a socket");
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = [0; 1024];
        let length = stream.read(&mut request).expect("a request");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nready\n").expect("sent");
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    let ready = run_in(&folder, &["ready", "--health", "unix:health.sock"]);
    assert_eq!(told(&ready), (Some(0), "ready\n", ""));
    let request = answering.join().expect("a thread");
    assert!(request.starts_with("GET /ready HTTP/1.1\r\nhost: localhost\r\n"), "{request}");
    assert_eq!(run_in(&folder, &["ready", "--health", "unix:other.sock"]).code, Some(1));
}
