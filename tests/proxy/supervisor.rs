//! What the program tells a service manager, and what not: sd_notify(3).

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::client::{Client, Request};
use crate::support::gate::{Gate, Setup, write_private};
use crate::support::host::{KEY, KEYS, github_push};
use crate::support::upstream::{Down, Upstream};
use crate::support::{PATIENCE, until, within};

/// Another key file, with another key.
const OTHER_KEYS: &str = "Qm9vdHN0cmFwS2V5Rm9yT2xkSG9va3M name=other\n";

/// The service manager: what it was told, message by message.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn new(folder: &Path) -> Self {
        let socket = UnixDatagram::bind(folder.join("notify")).expect("a socket");
        socket.set_nonblocking(true).expect("our own socket");
        Self { socket, heard: Vec::new() }
    }

    /// Everything since the start.
    fn listen(&mut self) -> &[String] {
        let mut message = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut message) {
            self.heard.push(String::from_utf8(message[..length].to_vec()).expect("text"));
        }
        &self.heard
    }

    /// Waits for a message, and forgets it and those before it.
    #[track_caller]
    fn hears(&mut self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        until(what, || {
            let at = self.listen().iter().position(|message| is_it(message))?;
            self.heard.drain(..=at).next_back()
        })
    }

    /// Waits for a message with this line.
    #[track_caller]
    fn hears_line(&mut self, line: &str) -> String {
        self.hears(line, |message| has_line(message, line))
    }
}

fn has_line(message: &str, line: &str) -> bool {
    message.lines().any(|it| it == line)
}

fn setup() -> Setup {
    Setup::new().keys(KEYS).env("NOTIFY_SOCKET", "notify")
}

#[test]
fn a_service_manager_hears_of_the_start_reloads_and_the_end() {
    let setup = setup().hook();
    let mut manager = Manager::new(setup.folder().path());
    let gate = setup.start();
    let ready = manager.hears_line("READY=1");
    let status = "STATUS=ready; 1 of 1 hooks enabled; in the spool 0 waiting, 0 set aside";
    assert!(has_line(&ready, status), "{ready}");
    assert_eq!(gate.probe("/ready").status, 200);
    assert_eq!(gate.ask(&github_push(KEY)).told(), (202, "printed"));

    // When READY=1 comes, what is new is in force.
    write_private(&gate.path("webhook.key"), OTHER_KEYS);
    gate.signal("HUP");
    let reloading = manager.hears_line("RELOADING=1");
    let began = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    let began: u64 = began.expect(&reloading).parse().expect("a time");
    let uptime = fs::read_to_string("/proc/uptime").expect("Linux");
    let uptime: f64 = uptime.split(' ').next().expect("a time").parse().expect("seconds");
    let ago = uptime - Duration::from_micros(began).as_secs_f64();
    assert!((-1.0..PATIENCE.as_secs_f64()).contains(&ago), "{ago} s ago");
    manager.hears_line("READY=1");
    assert_eq!(gate.ask(&github_push(KEY)).told(), (401, "unauthorized"));

    // A reload that comes to nothing is over too.
    fs::write(gate.path("hookgate.toml"), "listen = 1\n").expect("a file");
    gate.signal("HUP");
    manager.hears_line("RELOADING=1");
    manager.hears_line("READY=1");
    gate.says("configuration is not taken, the last good one stays in force");

    gate.signal("TERM");
    let stopping = manager.hears_line("STOPPING=1");
    // 25 s of grace period and 10 s beyond it.
    assert!(has_line(&stopping, "EXTEND_TIMEOUT_USEC=35000000"), "{stopping}");
    assert_eq!(gate.wait().code, Some(0));
    assert!(!manager.listen().iter().any(|message| has_line(message, "READY=1")));
}

#[test]
fn the_status_tells_of_what_waits_and_what_is_missing() {
    let down = Down::new();
    let setup = setup()
        .args(&["--upstream", &down.url()])
        .hooks("[[hook]]\nname = \"a\"\n[[hook]]\nname = \"b\"\npath = \"/b\"\nenabled = false\n");
    let mut manager = Manager::new(setup.folder().path());
    let gate = setup.start();
    assert_eq!(gate.ask(&github_push(KEY)).told(), (202, "queued"));
    let status = |waiting| {
        format!("STATUS=ready; 1 of 2 hooks enabled; in the spool {waiting} waiting, 0 set aside")
    };
    manager.hears_line(&status(1));
    let upstream = down.up();
    manager.hears_line(&status(0));
    assert_eq!(upstream.count(), 1);
    fs::remove_file(gate.path("webhook.key")).expect("our own file");
    write_private(
        &gate.path("webhook.key"),
        "sdf34tGdfgGDG345g3y0045TYG23te37 until=2020-01-01T00:00:00Z\n",
    );
    manager.hears("not ready", |message| {
        message.contains("STATUS=not ready: hook a has no active key; 1 of 2 hooks enabled")
    });
}

#[test]
fn without_a_manager_there_is_nothing_to_tell_and_one_that_is_gone_changes_nothing() {
    let gate = Setup::new().keys(KEYS).hook().env("WATCHDOG_USEC", "200000").start();
    gate.says("spool is open");
    assert_eq!(gate.ask(&github_push(KEY)).told(), (202, "printed"));
    assert!(!gate.log().contains("service manager"));
    assert_eq!(gate.stop().code, Some(0));

    let gate = Setup::new().keys(KEYS).hook().env("NOTIFY_SOCKET", "nowhere/notify").start();
    let warning = "the service manager cannot be told anything (NOTIFY_SOCKET)";
    assert_eq!(gate.says(warning)["level"], "WARN");
    gate.signal("HUP");
    gate.says("looking at every file, as told by SIGHUP");
    assert_eq!(gate.ask(&github_push(KEY)).told(), (202, "printed"));
    let finished = gate.stop();
    assert_eq!(finished.code, Some(0));
    assert_eq!(finished.stderr.matches(warning).count(), 1, "{}", finished.stderr);
}

#[test]
fn a_manager_that_does_not_listen_holds_up_nothing() {
    let setup = setup().hook().env("WATCHDOG_USEC", "2000");
    // Bound and never read: the kernel takes a few messages, and then whoever sends has to wait.
    let socket = UnixDatagram::bind(setup.path("notify")).expect("a socket");
    let gate = setup.start();
    gate.says("the service manager does not listen: a message to it is dropped");
    assert_eq!(gate.ask(&github_push(KEY)).told(), (202, "printed"));
    assert_eq!(gate.stop().code, Some(0));
    drop(socket);
}

#[test]
fn a_watchdog_is_fed_while_the_gate_works() {
    for (spool, upstream) in [("", true), ("", false), ("[spool]\nenabled = false\n", true)] {
        let text = format!("{spool}[[hook]]\nname = \"default\"\n");
        let mut setup = setup().hooks(&text).env("WATCHDOG_USEC", "100000");
        let service = Upstream::start();
        if upstream {
            setup = setup.upstream(&service);
        }
        let mut manager = Manager::new(setup.folder().path());
        let gate = setup.start();
        for _ in 0..5 {
            manager.hears_line("WATCHDOG=1");
        }
        // Also when a reload has put other workers in place, and while it drains.
        fs::write(
            gate.path("hookgate.toml"),
            format!(
                "{text}[[hook]]\nname = \"b\"\npath = \"/b\"\nupstream = \"http://127.0.0.1:9\"\n"
            ),
        )
        .expect("a file");
        gate.signal("HUP");
        manager.hears("the new hook", |message| {
            has_line(message, "READY=1") && message.contains("2 of 2 hooks")
        });
        for _ in 0..5 {
            manager.hears_line("WATCHDOG=1");
        }
        let mut client = gate.connect();
        client.send(github_push(KEY).head("content-length: 100\r\n"));
        until("the request is under way", || {
            (gate.metric("hookgate_connections") > 0.0).then_some(())
        });
        gate.signal("TERM");
        manager.hears_line("STOPPING=1");
        for _ in 0..3 {
            manager.hears_line("WATCHDOG=1");
        }
        drop(client);
        gate.wait();
    }
}

#[test]
fn a_watchdog_that_is_meant_for_another_process_is_not_fed() {
    let setup = setup().hook().env("WATCHDOG_USEC", "20000").env("WATCHDOG_PID", "1");
    let mut manager = Manager::new(setup.folder().path());
    let gate: Gate = setup.start();
    manager.hears_line("READY=1");
    // As long as several meals would take.
    assert_eq!(within(Duration::from_millis(300), || fed(&mut manager)), None);
    assert_eq!(gate.stop().code, Some(0));
}

/// A process that works no more, though it is there and its threads are: nobody reads its log, and
/// whoever writes to that waits. Ended when this is dropped.
struct Hanging {
    child: Child,
    address: SocketAddr,
    log: Option<BufReader<std::process::ChildStderr>>,
}

impl Hanging {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hookgate"))
            .args(["serve", "--listen", "127.0.0.1:0", "--health", "off", "--state-dir", "state"])
            .env_clear()
            .envs([("NOTIFY_SOCKET", "notify"), ("WATCHDOG_USEC", "200000")])
            .env("TOKIO_WORKER_THREADS", "1")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program");
        let mut log = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(log.read_line(&mut line).expect("a log") > 0, "not started");
            if let Some((_, address)) = line.split_once("address=http://") {
                break address.trim().parse().expect("an address");
            }
            assert!(!line.contains("hook is ready"), "no address before it: {line}");
        };
        Self { child, address, log: Some(log) }
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn fed(manager: &mut Manager) -> Option<()> {
    let fed = manager.listen().iter().any(|message| has_line(message, "WATCHDOG=1"));
    manager.heard.clear();
    fed.then_some(())
}

#[test]
fn a_gate_that_hangs_does_not_feed_its_watchdog_and_one_that_recovers_does() {
    let folder = Arc::new(tempfile::TempDir::with_prefix("hookgate-").expect("a folder"));
    let mut manager = Manager::new(folder.path());
    let mut gate = Hanging::start(folder.path());
    until("the first meal", || fed(&mut manager));
    // Each answer is a line of the log, until the pipe is full.
    let request = Request::post(&format!("/{}", "x".repeat(2000))).bytes();
    let asking = std::thread::spawn({
        let address = gate.address;
        move || {
            let deadline = Instant::now() + PATIENCE;
            while let Ok(mut client) = Client::try_connect(address) {
                assert!(Instant::now() < deadline, "its log takes everything");
                client.set_read_timeout(Duration::from_millis(500));
                if client.try_send(&request).is_err() || client.try_answer().is_err() {
                    return;
                }
            }
        }
    });
    asking.join().expect("it hangs");
    fed(&mut manager);
    // Five times as long as it takes from one meal to the next.
    assert_eq!(within(Duration::from_millis(500), || fed(&mut manager)), None);
    // Somebody reads, and it goes on.
    let mut log = gate.log.take().expect("a log");
    let reading = std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    until("a meal after it hung", || fed(&mut manager));
    drop(gate);
    assert!(reading.join().expect("a log").expect("a pipe") > 0);
}
