//! Where the gate listens and where the service does: Unix sockets, sockets that were passed, and proxies of
//! connections.

use std::fs;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use hookgate::scheme::Github;

use crate::support::client::{Answer, Client, Request};
use crate::support::gate::{Gate, Setup};
use crate::support::host::{self, HOOK, KEY, KEYS, OTHER_KEY, github_push, prove};
use crate::support::upstream::{Reply, Upstream};
use crate::support::{PATIENCE, until};

const SERVE: &[&str] = &["serve", "--log-format", "json", "--state-dir", "state"];

fn serve(listen: &str, health: &str) -> Setup {
    Setup::bare(SERVE).args(&["--listen", listen, "--health", health]).keys(KEYS)
}

fn connect(path: &Path) -> Client<UnixStream> {
    let stream = UnixStream::connect(path).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("ours");
    stream.set_write_timeout(Some(PATIENCE)).expect("ours");
    Client::over(stream)
}

fn ask(path: &Path, request: &Request) -> Answer {
    connect(path).ask(request.bytes())
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket())
}

/// A Unix socket with a service behind it, until this is dropped.
struct Behind {
    path: PathBuf,
    ends: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        // It waits for a client. Where the folder is gone already, there is no way to it.
        if UnixStream::connect(&self.path).is_ok()
            && let Some(accepting) = self.accepting.take()
        {
            let _ = accepting.join();
        }
    }
}

/// Puts a service behind a Unix socket.
fn behind(upstream: &Upstream, path: &Path) -> Behind {
    let listener = UnixListener::bind(path).expect("a socket");
    let authority = upstream.authority();
    let ends = Arc::new(AtomicBool::new(false));
    let is_over = ends.clone();
    let accepting = std::thread::spawn(move || {
        for client in listener.incoming() {
            if is_over.load(Ordering::Acquire) {
                return;
            }
            let (Ok(client), Ok(service)) = (client, TcpStream::connect(&authority)) else {
                return;
            };
            let (mut from, mut to) =
                (client.try_clone().expect("ours"), service.try_clone().expect("ours"));
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
            let (mut from, mut to) = (service, client);
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    });
    Behind { path: path.to_owned(), ends, accepting: Some(accepting) }
}

#[test]
fn a_delivery_goes_in_over_a_unix_socket_and_on_over_another() {
    let upstream = Upstream::start();
    let setup = serve("unix:gate.sock", "unix:health.sock").hooks(HOOK);
    let service = setup.path("service.sock");
    let served = behind(&upstream, &service);
    let url = format!("unix:{}:/base", service.display());
    let gate = setup.args(&["--upstream", &url]).start();
    let socket = gate.path("gate.sock");
    for host in &host::ALL {
        let answer = ask(&socket, &host.push());
        assert_eq!(answer.told(), (200, "forwarded"), "{}: {answer:?}", host.provider);
        let received = upstream.take_one();
        assert_eq!(received.line, "POST /base/webhook HTTP/1.1", "{}", host.provider);
        assert_eq!(received.text(), host.body, "{}", host.provider);
        assert_eq!(received.header("host"), Some("localhost"));
        // Nobody knows from where it came.
        for name in ["forwarded", "x-forwarded-for"] {
            assert_eq!(received.header(name), None, "{}", host.provider);
        }
    }
    assert_eq!(ask(&socket, &github_push(OTHER_KEY)).told(), (401, "unauthorized"));
    let refused = gate.logged("its record", |line| line["outcome"] == "unauthorized");
    assert_eq!(refused.get("client.addr"), None);
    assert!(upstream.take().is_empty());

    assert_eq!(ask(&gate.path("health.sock"), &Request::new("GET", "/ready")).status, 200);
    let metrics = ask(&gate.path("health.sock"), &Request::new("GET", "/metrics")).text();
    let up = format!("hookgate_upstream_up{{upstream=\"unix:{}\"}} 1", service.display());
    assert!(metrics.contains(&up), "{metrics}");
    // The same by a client of which we know nothing.
    let curl = std::process::Command::new("curl")
        .args(["-sS", "--max-time", "20", "--unix-socket"])
        .arg(&socket)
        .args(["-w", "%{http_code}", "-d", "{}", "http://gate.test/webhook"])
        .output()
        .expect("curl");
    assert!(String::from_utf8_lossy(&curl.stdout).ends_with("401"), "{curl:?}");

    let folder = gate.folder().clone();
    assert_eq!(gate.stop().code, Some(0));
    drop(served);
    for name in ["gate.sock", "health.sock"] {
        assert!(!folder.path().join(name).exists(), "{name} is gone");
    }
}

/// A gate on `gate.sock` under these settings, with one hook that says this.
fn on_socket(settings: &str, hook: &str, upstream: &Upstream) -> Gate {
    let config = format!("{settings}\n[[hook]]\nname = \"default\"\n{hook}\n");
    serve("unix:gate.sock", "127.0.0.1:0").hooks(&config).upstream(upstream).start()
}

/// The answer to a request with this header, and the client in its audit record.
#[track_caller]
fn ask_behind(gate: &Gate, client: Option<&str>) -> (Answer, Option<String>) {
    let push = github_push(KEY).header("Forwarded", "for=198.51.100.66");
    let push = client.iter().fold(push, |push, client| push.header("X-Forwarded-For", client));
    let before = gate.records().len();
    let answer = ask(&gate.path("gate.sock"), &push);
    let record = until("the audit record", || gate.records().into_iter().nth(before));
    (answer, record["client.addr"].as_str().map(str::to_owned))
}

#[test]
fn behind_a_proxy_on_a_unix_socket_the_client_is_whom_it_saw() {
    let upstream = Upstream::start();
    let settings = "trusted_proxies = [\"unix\", \"10.0.0.0/8\"]";
    let gate = on_socket(settings, "allow_from = [\"198.51.100.0/24\"]", &upstream);
    for line in ["198.51.100.7", "203.0.113.9, 198.51.100.7", "garbage, 198.51.100.7, 10.1.2.3"] {
        let (answer, client) = ask_behind(&gate, Some(line));
        assert_eq!(answer.told(), (200, "forwarded"), "{line}");
        assert_eq!(client.as_deref(), Some("198.51.100.7"), "{line}");
        let received = upstream.take_one();
        assert_eq!(received.header("x-forwarded-for"), Some("198.51.100.7"), "{line}");
        assert!(received.header("forwarded").expect("a header").starts_with("for=198.51.100.7;"));
    }
    for (line, client) in [
        // What the client wrote to the left of what the proxy saw.
        (Some("198.51.100.7, 203.0.113.9"), Some("203.0.113.9")),
        (Some("198.51.100.7, 203.0.113.9, 10.1.2.3"), Some("203.0.113.9")),
        // Where nothing can be read, nobody knows who it is.
        (Some("198.51.100.7, garbage"), None),
        (Some("198.51.100.7, unix:"), None),
        (Some("198.51.100.7,"), None),
        (Some(""), None),
        (None, None),
    ] {
        let (answer, told) = ask_behind(&gate, line);
        assert_eq!(answer.told(), (403, "forbidden"), "{line:?}");
        assert_eq!(told.as_deref(), client, "{line:?}");
    }
    assert!(upstream.take().is_empty());
    // Without the word, from the next request on.
    let config = gate.path("hookgate.toml");
    let text = fs::read_to_string(&config).expect("our own file");
    fs::write(&config, text.replace("\"unix\", ", "")).expect("a file");
    until("the configuration is in force", || {
        (ask_behind(&gate, Some("198.51.100.7")).0.status == 403).then_some(())
    });
    assert_eq!(ask_behind(&gate, Some("198.51.100.7")).1, None);
}

#[test]
fn on_a_unix_socket_nobody_is_believed_unless_that_was_said() {
    let upstream = Upstream::start();
    // All addresses there are, of which the peer has none.
    for settings in ["", "trusted_proxies = [\"0.0.0.0/0\", \"::/0\"]"] {
        let gate = on_socket(settings, "", &upstream);
        let (answer, client) = ask_behind(&gate, Some("198.51.100.7"));
        assert_eq!((answer.told(), client), ((200, "forwarded"), None), "{settings}");
        assert_eq!(upstream.take_one().header("x-forwarded-for"), None, "{settings}");
        let gate = on_socket(settings, "allow_from = [\"198.51.100.0/24\"]", &upstream);
        let (answer, client) = ask_behind(&gate, Some("198.51.100.7"));
        assert_eq!((answer.told(), client), ((403, "forbidden"), None), "{settings}");
    }
    // Nor does the word make anybody with an address a proxy.
    let config = "trusted_proxies = [\"unix\"]\nallow_from = [\"198.51.100.7\"]\n";
    let gate = Setup::new().keys(KEYS).config(config).upstream(&upstream).start();
    let spoofed = github_push(KEY).header("X-Forwarded-For", "198.51.100.7");
    assert_eq!(gate.ask(&spoofed).told(), (403, "forbidden"));
    assert!(upstream.take().is_empty());
}

#[test]
fn behind_a_proxy_on_a_unix_socket_each_client_has_limits_of_its_own() {
    let upstream = Upstream::start();
    // A hundredth of the room is 10,485 bytes.
    let settings = "trusted_proxies = [\"unix\"]\n[limits]\nunauthenticated_per_source = \"1/1h\"\n\
         unverified_bytes = \"1MiB\"\nper_source = \"1%\"\nbody_deadline = \"60s\"";
    let gate = on_socket(settings, "", &upstream);
    let socket = gate.path("gate.sock");
    let of = |client: &str, push: Request| push.header("X-Forwarded-For", client);
    let forged = |client: &str| ask(&socket, &of(client, github_push(OTHER_KEY))).told().0;
    assert_eq!(forged("203.0.113.9, 198.51.100.7"), 401);
    assert_eq!(forged("203.0.113.10, 198.51.100.7"), 429);
    assert_eq!(forged("198.51.100.8"), 401);
    // Of whom nobody knows who it is, nothing is counted.
    for _ in 0..3 {
        assert_eq!(forged("unix:"), 401);
    }

    let large = |client: &str| {
        let body = format!("{}{}", host::host("github").body, " ".repeat(8 << 10));
        of(client, prove(host::host("github").unproved().body(body), &Github, KEY, b""))
    };
    let mut holding = connect(&socket);
    let bytes = large("198.51.100.9").bytes();
    holding.send(&bytes[..bytes.len() - 1]);
    until("room is taken", || (gate.metric("hookgate_unverified_bytes") > 8192.0).then_some(()));
    assert_eq!(ask(&socket, &large("198.51.100.9")).told(), (503, "overloaded"));
    for other in ["198.51.100.10", "198.51.100.9, 198.51.100.10", "unix:"] {
        assert_eq!(ask(&socket, &large(other)).told(), (200, "forwarded"), "{other}");
    }
    assert_eq!(holding.ask(&bytes[bytes.len() - 1..]).told(), (200, "forwarded"));
    assert_eq!(upstream.count(), 4);
}

#[test]
fn a_service_on_a_unix_socket_that_is_down_gets_its_deliveries_when_it_is_up() {
    let upstream = Upstream::with(Reply::Answer(200, &[], ""));
    let setup = Setup::new().keys(KEYS).hook();
    let service = setup.path("service.sock");
    let gate = setup.args(&["--upstream", &format!("unix:{}", service.display())]).start();
    assert_eq!(gate.ask(&github_push(KEY)).told(), (202, "queued"));
    let _behind = behind(&upstream, &service);
    gate.drains();
    let received = upstream.take_one();
    assert_eq!(
        (&*received.line, received.text()),
        ("POST /webhook HTTP/1.1", host::host("github").body.into())
    );
}

#[test]
fn a_sample_is_sent_over_a_unix_socket_to_where_the_configuration_listens() {
    let config = "listen = \"unix:gate.sock\"\nhealth = \"off\"\nsocket_mode = \"0600\"\nstate_dir = \"state\"\n";
    let gate = Setup::bare(&["serve", "--log-format", "json"]).keys(KEYS).config(config).start();
    let mode = fs::metadata(gate.path("gate.sock")).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let send = |args: &[&str]| {
        let send = Setup::bare(&["send", "--provider", "github", "--config", "hookgate.toml"]);
        send.within(gate.folder()).args(&["--key-file", "webhook.key"]).args(args).run()
    };
    let to = format!("unix:{}:/webhook", gate.path("gate.sock").display());
    for args in [&[][..], &["--to", &to]] {
        let sent = send(args);
        assert_eq!(sent.code, Some(0), "{}", sent.stderr);
        assert!(sent.stdout.contains("202"), "{}", sent.stdout);
    }
    let nowhere = send(&["--to", "unix:/nowhere.sock:/webhook"]);
    assert_eq!(nowhere.code, Some(1));
    let wanted = "error: no answer from unix:/nowhere.sock: ";
    assert!(nowhere.stderr.starts_with(wanted), "{}", nowhere.stderr);
    let relative = send(&["--to", "unix:gate.sock:/webhook"]);
    assert_eq!((relative.code, relative.stderr.contains("--to: expected a URL")), (Some(1), true));
}

#[test]
fn a_socket_of_a_process_that_was_killed_is_replaced_and_that_of_one_that_lives_is_not() {
    let first = serve("unix:gate.sock", "off").hook().start();
    let socket = first.path("gate.sock");
    let other = |state: &str| {
        let args = ["serve", "--listen", "unix:gate.sock", "--health", "off", "--state-dir", state];
        Setup::bare(&args).within(first.folder())
    };
    let second = other("other").run();
    assert_eq!(second.code, Some(1));
    let wanted = "error: cannot listen on unix:gate.sock: another process listens on gate.sock\n";
    assert!(second.stderr.ends_with(wanted), "{}", second.stderr);
    assert_eq!(ask(&socket, &github_push(KEY)).told(), (202, "printed"));

    let folder = first.kill();
    assert!(is_socket(&socket), "left by the dead");
    let third = serve("unix:gate.sock", "off").within(&folder).hook().start();
    assert_eq!(ask(&socket, &github_push(KEY)).told(), (202, "printed"));
    assert_eq!(ask(&socket, &github_push(OTHER_KEY)).told(), (401, "unauthorized"));
    drop(third);

    fs::write(&socket, "precious").expect("ours");
    let fourth = serve("unix:gate.sock", "off").within(&folder).run();
    let wanted = "error: cannot listen on unix:gate.sock: gate.sock is there and is no socket\n";
    assert!(fourth.code == Some(1) && fourth.stderr.ends_with(wanted), "{}", fourth.stderr);
    assert_eq!(fs::read_to_string(&socket).expect("ours"), "precious");
}

#[test]
fn sockets_that_are_passed_are_taken_by_name() {
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = tcp.local_addr().expect("ours");
    let setup = serve("systemd:gate", "systemd:health").hook();
    let health = setup.path("passed.sock");
    let unix = UnixListener::bind(&health).expect("a socket");
    // Clients that came before the gate wait for it.
    let mut early = Client::connect(address);
    early.send(github_push(KEY).bytes());
    let gate = setup.passing("health:gate", vec![unix.into(), tcp.into()]).start();
    assert_eq!(gate.address(), address);
    assert_eq!(early.answer().told(), (202, "printed"));
    assert_eq!(gate.ask(&github_push(OTHER_KEY)).told(), (401, "unauthorized"));
    assert_eq!(ask(&health, &Request::new("GET", "/live")).text(), "live\n");
    let _folder = gate.folder().clone();
    assert_eq!(gate.stop().code, Some(0));
    assert!(is_socket(&health), "whoever made it removes it");
}

#[test]
fn a_socket_that_was_not_passed_is_an_error_that_tells_what_was() {
    let socket = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let finished = serve("systemd:gate", "off").run();
    assert_eq!(finished.code, Some(1));
    let wanted = "cannot listen on systemd:gate: no socket was passed; a systemd.socket unit with \
                  FileDescriptorName=gate does that\n";
    assert!(finished.stderr.ends_with(wanted), "{}", finished.stderr);

    let passed = serve("systemd:gate", "off").passing("web", vec![socket().into()]).run();
    let wanted = "cannot listen on systemd:gate: no socket gate was passed, but web\n";
    assert!(passed.code == Some(1) && passed.stderr.ends_with(wanted), "{}", passed.stderr);

    let two = vec![socket().into(), socket().into()];
    let twice = serve("systemd:gate", "off").passing("gate:gate", two).run();
    assert!(twice.code == Some(1) && twice.stderr.contains("several sockets gate were passed"));

    let both = serve("systemd:gate", "systemd:gate").passing("gate", vec![socket().into()]).run();
    assert!(
        both.code == Some(1) && both.stderr.contains("has another listener"),
        "{}",
        both.stderr
    );

    let file = fs::File::open("/dev/null").expect("a file");
    let connected = UnixStream::pair().expect("a pair").0;
    for useless in [file.into(), connected.into()] {
        let finished = serve("systemd:gate", "off").passing("gate", vec![useless]).run();
        let wanted = "what was passed as gate is no socket of TCP or Unix that listens\n";
        assert!(
            finished.code == Some(1) && finished.stderr.ends_with(wanted),
            "{}",
            finished.stderr
        );
    }
    // For another process.
    let foreign = serve("systemd:gate", "off").env("LISTEN_FDS", "1").env("LISTEN_PID", "1").run();
    assert!(foreign.code == Some(1) && foreign.stderr.contains("no socket was passed"));
}

#[test]
fn a_passed_socket_behind_proxies_that_nobody_named_says_who_may_connect() {
    let warning = "only proxies on this machine may connect: proxy_protocol_from names others";
    for (from, is_warned) in [("", true), ("proxy_protocol_from = [\"192.0.2.1\"]\n", false)] {
        let socket = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
        let config = format!("proxy_protocol = \"require\"\n{from}");
        let gate = serve("systemd:gate", "off").config(&config);
        let gate = gate.passing("gate", vec![socket.into()]).start();
        gate.says("hook is ready");
        assert_eq!(gate.log().contains(warning), is_warned);
    }
}

#[test]
fn a_passed_socket_that_nobody_names_is_told() {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let gate = serve("127.0.0.1:0", "off").hook().passing("other", vec![socket.into()]).start();
    assert_eq!(
        gate.says("a socket was passed that no listener names: it is closed")["name"],
        "other"
    );
}

fn proxied(upstream: &Upstream, config: &str) -> Gate {
    let config = format!("proxy_protocol = \"require\"\n{config}[[hook]]\nname = \"default\"\n");
    Setup::new().keys(KEYS).hooks(&config).upstream(upstream).start()
}

#[test]
fn the_client_behind_a_proxy_is_the_source_in_the_log_and_for_the_service() {
    let upstream = Upstream::start();
    let gate = proxied(&upstream, "");
    let mut two = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    two.extend_from_slice(&[198, 51, 100, 7, 127, 0, 0, 1, 0, 1, 0, 2]);
    for (header, client) in [
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n".to_vec(), "192.0.2.7"),
        (two, "198.51.100.7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ] {
        let mut good = gate.connect();
        good.send(&header);
        assert_eq!(good.ask(github_push(KEY).bytes()).told(), (200, "forwarded"), "{client}");
        assert_eq!(upstream.take_one().header("x-forwarded-for"), Some(client));
        let mut bad = gate.connect();
        bad.send(&header);
        assert_eq!(
            bad.ask(github_push(OTHER_KEY).bytes()).told(),
            (401, "unauthorized"),
            "{client}"
        );
        for outcome in ["forwarded", "unauthorized"] {
            gate.logged(client, |it| it["outcome"] == outcome && it["client.addr"] == client);
        }
    }
    assert!(upstream.take().is_empty());
}

#[test]
fn without_the_header_or_from_elsewhere_nothing_is_heard_and_it_is_counted() {
    let upstream = Upstream::start();
    let gate = proxied(&upstream, "");
    let mut client = gate.connect();
    client.send(github_push(KEY).bytes());
    assert!(client.rest().is_empty());
    let failed = |gate: &Gate, reason: &str| {
        gate.metric(&format!("hookgate_connections_failed_total{{reason=\"{reason}\"}}"))
    };
    until("it is counted", || (failed(&gate, "proxy-header") == 1.0).then_some(()));
    assert_eq!(gate.metric("hookgate_requests_total"), 0.0);

    let elsewhere = proxied(&upstream, "proxy_protocol_from = [\"192.0.2.0/24\"]\n");
    let mut client = elsewhere.connect();
    let _ = client.try_send(b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n");
    assert!(client.rest().is_empty());
    until("it is counted", || (failed(&elsewhere, "not-a-proxy") == 1.0).then_some(()));
    assert!(upstream.take().is_empty());
}

#[test]
fn what_is_written_of_listeners_is_checked_and_explained() {
    let good = Setup::bare(&["check"]).keys(KEYS).config(
        "listen = \"unix:/run/hookgate/gate.sock\"\nhealth = \"systemd:health\"\nproxy_protocol = \"require\"\n\
         [upstream]\nurl = \"unix:/run/service.sock:/base\"\n",
    );
    let good = good.run();
    assert_eq!(good.code, Some(0), "{}{}", good.stdout, good.stderr);
    for wanted in [
        "deliveries      unix:/run/hookgate/gate.sock\n",
        "from proxies alone, with the PROXY protocol\n",
        "health          systemd:health (/live /ready /metrics)\n",
        "unix:/run/service.sock",
    ] {
        assert!(good.stdout.contains(wanted), "{wanted}: {}", good.stdout);
    }
    // Nobody who calls has an address, unless one of these says who he is.
    let allowed = "listen = \"unix:gate.sock\"\nallow_from = [\"192.0.2.0/24\"]\n";
    let warning = "warning: hook default lets nobody in: on a Unix socket allow_from needs";
    for (more, is_warned) in [
        ("", true),
        ("trusted_proxies = [\"10.0.0.0/8\"]\n", true),
        ("trusted_proxies = [\"unix\"]\n", false),
        ("proxy_protocol = \"require\"\n", false),
    ] {
        let checked = Setup::bare(&["check"]).config(&format!("{allowed}{more}")).run();
        assert_eq!(checked.code, Some(0), "{more}{}", checked.stderr);
        assert_eq!(checked.stderr.contains(warning), is_warned, "{more}{}", checked.stderr);
        let told = "X-Forwarded-For of trusted_proxies names the client";
        assert_eq!(
            checked.stdout.contains(told),
            more.starts_with("trusted"),
            "{}",
            checked.stdout
        );
    }
    let open = "listen = \"0.0.0.0:8080\"\nproxy_protocol = \"require\"\n";
    let bad = Setup::bare(&["check"]).keys(KEYS).config(open).run();
    assert_eq!(bad.code, Some(1));
    let wanted = "hookgate.toml:2:18: proxy_protocol_from is missing";
    assert!(bad.stderr.contains(wanted), "{}", bad.stderr);
}
