//! The real program in a folder of its own.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::client::{self, Answer, Client, Request};
use super::spool::{self, Counts};
use super::upstream::Upstream;
use super::{PATIENCE, until, within};

/// In a configuration, before the hooks: deliveries are sent while the host waits, or not at all.
pub(crate) const NO_SPOOL: &str = "[spool]\nenabled = false\n";

/// How the program is to be started. Ports are chosen by the system unless something else is said.
#[derive(Debug)]
pub(crate) struct Setup {
    folder: Arc<TempDir>,
    /// The command that runs the program, if it is not run by itself.
    runner: Vec<OsString>,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
    stdin: Option<PathBuf>,
    passed: Vec<OwnedFd>,
}

impl Setup {
    /// `hookgate serve` in a fresh folder, with its log as JSON.
    pub(crate) fn new() -> Self {
        Self::bare(&["serve", "--log-format", "json"]).args(&[
            "--listen",
            "127.0.0.1:0",
            "--health",
            "127.0.0.1:0",
            "--state-dir",
            "state",
        ])
    }

    /// `hookgate` with these arguments alone, in a fresh folder.
    pub(crate) fn bare(args: &[&str]) -> Self {
        let folder = Arc::new(TempDir::with_prefix("hookgate-").expect("a folder"));
        let (runner, env, passed) = (Vec::new(), Vec::new(), Vec::new());
        Self { folder, runner, args: Vec::new(), env, stdin: None, passed }.args(args)
    }

    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(OsString::from));
        self
    }

    /// Run by this command, which must become the program and not stay its parent.
    pub(crate) fn under(mut self, runner: &[&str]) -> Self {
        self.runner = runner.iter().map(OsString::from).collect();
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// With these sockets as systemd passes them: from file descriptor 3 on, with these names between colons.
    /// One or two, since they go through the shell as its standard input and output.
    pub(crate) fn passing(mut self, names: &str, sockets: Vec<OwnedFd>) -> Self {
        let script = match sockets.len() {
            1 => "exec 3<&0 </dev/null; export LISTEN_PID=$$; exec \"$@\"",
            2 => "exec 3<&0 4>&1 </dev/null >/dev/null; export LISTEN_PID=$$; exec \"$@\"",
            other => panic!("{other} sockets"),
        };
        let count = sockets.len().to_string();
        self.passed = sockets;
        self.under(&["/bin/sh", "-c", script, "sh"])
            .env("LISTEN_FDS", &count)
            .env("LISTEN_FDNAMES", names)
    }

    /// With this on its standard input; otherwise there is nothing.
    pub(crate) fn stdin(mut self, bytes: impl AsRef<[u8]>) -> Self {
        let path = self.path("stdin");
        fs::write(&path, bytes).expect("a file");
        self.stdin = Some(path);
        self
    }

    /// In this folder, where another process ran before or runs now.
    pub(crate) fn within(self, folder: &Arc<TempDir>) -> Self {
        Self { folder: Arc::clone(folder), ..self }
    }

    /// Writes `hookgate.toml` and names it.
    pub(crate) fn config(self, text: &str) -> Self {
        fs::write(self.path("hookgate.toml"), text).expect("a file");
        self.args(&["--config", "hookgate.toml"])
    }

    /// The same with hooks that take a delivery again and again: most tests send one many times.
    pub(crate) fn hooks(self, text: &str) -> Self {
        self.config(&text.replace("[[hook]]\n", "[[hook]]\ndedupe_window = \"0s\"\n"))
    }

    /// The same with one hook that is all defaults but for that.
    pub(crate) fn hook(self) -> Self {
        self.hooks("[[hook]]\nname = \"default\"\n")
    }

    /// Writes `webhook.key` for its owner alone, and names it.
    pub(crate) fn keys(self, text: &str) -> Self {
        write_private(&self.path("webhook.key"), text);
        self.args(&["--key-file", "webhook.key"])
    }

    /// Names the service for hooks that name none.
    pub(crate) fn upstream(self, upstream: &Upstream) -> Self {
        self.args(&["--upstream", &upstream.url()])
    }

    pub(crate) fn folder(&self) -> &Arc<TempDir> {
        &self.folder
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts `serve` and waits until it says where it listens.
    #[track_caller]
    pub(crate) fn start(self) -> Gate {
        let mut running = self.spawn();
        let started = within(PATIENCE, || {
            let log = running.stderr.text();
            let probes_known =
                log.contains("answering /live") || log.contains("probes and metrics are off");
            (probes_known || running.child.try_wait().ok()?.is_some()).then_some(log)
        });
        let log = started.unwrap_or_default();
        assert!(log.contains("taking deliveries"), "not started: {log}");
        let address = address_after(&log, "taking deliveries");
        Gate { address, health: address_after(&log, "answering /live"), running }
    }

    /// Starts the program and ends it after this time, wherever it is then.
    pub(crate) fn start_and_kill(self, after: Duration) {
        let mut running = self.spawn();
        std::thread::sleep(after);
        running.child.kill().expect("our own child");
        running.ended(PATIENCE).expect("the program did not end in time");
    }

    /// Runs the program to its end, which must come by itself.
    #[track_caller]
    pub(crate) fn run(self) -> Finished {
        self.spawn().wait(PATIENCE)
    }

    /// Runs the program until this happens, and interrupts it.
    #[track_caller]
    pub(crate) fn run_until(self, what: &str, happens: impl FnMut() -> Option<()>) -> Finished {
        let running = self.spawn();
        until(what, happens);
        assert!(running.signal("INT"), "the program is gone");
        running.wait(PATIENCE)
    }

    fn spawn(self) -> Running {
        let mut passed = self.passed.into_iter();
        let program = OsString::from(env!("CARGO_BIN_EXE_hookgate"));
        let mut words = self.runner.iter().chain([&program]).chain(&self.args);
        let mut command = Command::new(words.next().expect("a command"));
        command
            .args(words)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env("RUST_BACKTRACE", "1")
            .current_dir(self.folder.path())
            .stdin(match (passed.next(), &self.stdin) {
                (Some(socket), _) => Stdio::from(socket),
                (None, Some(path)) => Stdio::from(fs::File::open(path).expect("our own file")),
                (None, None) => Stdio::null(),
            })
            .stdout(passed.next().map_or_else(Stdio::piped, Stdio::from))
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program");
        let stdout = child.stdout.take().map_or_else(Output::none, Output::follow);
        let stderr = Output::follow(child.stderr.take().expect("a pipe"));
        Running { child, stdout, stderr, folder: self.folder, reaped: false }
    }
}

/// The program while it serves. Dropping it stops it, and fails the test if it panicked.
#[derive(Debug)]
pub(crate) struct Gate {
    /// None for a Unix socket.
    address: Option<SocketAddr>,
    health: Option<SocketAddr>,
    running: Running,
}

impl Gate {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address.expect("listens on TCP")
    }

    /// Where probes are answered.
    #[track_caller]
    pub(crate) fn health(&self) -> SocketAddr {
        self.health.expect("probes are on")
    }

    pub(crate) fn folder(&self) -> &Arc<TempDir> {
        &self.running.folder
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder().path().join(name)
    }

    #[track_caller]
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    #[track_caller]
    pub(crate) fn ask(&self, request: &Request) -> Answer {
        client::ask(self.address(), request)
    }

    /// Asks the listener for probes.
    #[track_caller]
    pub(crate) fn probe(&self, path: &str) -> Answer {
        client::ask(self.health.expect("probes are on"), &Request::new("GET", path))
    }

    pub(crate) fn metrics(&self) -> String {
        self.probe("/metrics").text()
    }

    /// The value of a series, by the text before its value; zero if it is not there.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let metrics = self.metrics();
        let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// How many requests had this outcome, whatever their hook and provider.
    pub(crate) fn counted(&self, outcome: &str) -> f64 {
        let wanted = format!("outcome=\"{outcome}\"");
        let metrics = self.metrics();
        let lines = metrics
            .lines()
            .filter(|line| line.starts_with("hookgate_requests_total{") && line.contains(&wanted));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// How many deliveries of the spool are in each state.
    #[track_caller]
    pub(crate) fn spool(&self) -> Counts {
        spool::counts(&self.path("state"))
    }

    /// Waits until nothing in the spool is on its way any more.
    #[track_caller]
    pub(crate) fn drains(&self) {
        until("the spool is drained", || (self.spool().active() == 0).then_some(()));
    }

    /// The log so far.
    pub(crate) fn log(&self) -> String {
        self.running.stderr.text()
    }

    /// What was printed so far.
    pub(crate) fn printed(&self) -> String {
        self.running.stdout.text()
    }

    /// Waits until the log has this text; cheaper than [`logged`](Self::logged) where the log is long.
    #[track_caller]
    pub(crate) fn shows(&self, text: &str) {
        until(text, || self.running.stderr.contains(text).then_some(()));
    }

    /// Waits for a line of the log, which must be JSON, and gives the first.
    #[track_caller]
    pub(crate) fn logged(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        until(what, || {
            let log = self.log();
            log.lines().filter_map(|line| serde_json::from_str(line).ok()).find(|it| is_it(it))
        })
    }

    /// Waits for a line of the log whose message is this one.
    #[track_caller]
    pub(crate) fn says(&self, message: &str) -> Value {
        self.logged(message, |line| line["message"] == message)
    }

    /// The audit records so far.
    pub(crate) fn records(&self) -> Vec<Value> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["target"] == "hookgate::audit").collect()
    }

    /// Sends a signal by its name, such as `TERM`.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        assert!(self.running.signal(name), "the program is gone");
    }

    /// Waits until the program has ended.
    #[track_caller]
    pub(crate) fn wait(self) -> Finished {
        self.running.wait(PATIENCE)
    }

    /// Ends the program where it stands. Returns its folder.
    #[track_caller]
    pub(crate) fn kill(mut self) -> Arc<TempDir> {
        self.running.child.kill().expect("our own child");
        self.running.ended(PATIENCE).expect("the program did not end in time");
        Arc::clone(&self.running.folder)
    }

    /// The number of the process.
    pub(crate) fn id(&self) -> u32 {
        self.running.child.id()
    }

    /// The most memory that the program has had so far, in bytes.
    #[track_caller]
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("Linux");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.parse::<u64>().ok()).expect("a size") * 1024
    }

    /// Stops the program as an operator would, and waits for it.
    #[track_caller]
    pub(crate) fn stop(self) -> Finished {
        self.signal("TERM");
        self.wait()
    }
}

/// What the program left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The process. It never outlives this.
#[derive(Debug)]
struct Running {
    child: Child,
    stdout: Output,
    stderr: Output,
    folder: Arc<TempDir>,
    reaped: bool,
}

impl Running {
    /// Whether there was a process to be sent this signal.
    fn signal(&self, name: &str) -> bool {
        let command = format!("kill -{name} {}", self.child.id());
        Command::new("sh").args(["-c", &command]).status().expect("a shell").success()
    }

    #[track_caller]
    fn wait(mut self, patience: Duration) -> Finished {
        let status = self.ended(patience).expect("the program did not end in time");
        let code = status.code();
        assert!(code.is_some(), "ended by a signal: {status}");
        self.stdout.end();
        self.stderr.end();
        Finished { code, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }

    fn ended(&mut self, patience: Duration) -> Option<ExitStatus> {
        let status = within(patience, || self.child.try_wait().expect("our own child"));
        self.reaped |= status.is_some();
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            // A second signal ends also what still waits for an answer.
            for _ in 0..2 {
                self.signal("TERM");
                if self.ended(Duration::from_millis(500)).is_some() {
                    break;
                }
            }
        }
        if !self.reaped && self.ended(Duration::from_secs(5)).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        self.stdout.end();
        self.stderr.end();
        let log = self.stderr.text();
        if log.contains("panicked") && !std::thread::panicking() {
            panic!("the program panicked: {log}");
        }
    }
}

/// What comes out of a pipe, as it comes.
#[derive(Debug)]
struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn follow(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        let reader = std::thread::spawn({
            let bytes = Arc::clone(&bytes);
            move || {
                let mut piece = [0; 16 * 1024];
                while let Ok(read @ 1..) = pipe.read(&mut piece) {
                    bytes.lock().expect("no thread panicked").extend_from_slice(&piece[..read]);
                }
            }
        });
        Self { bytes, reader: Some(reader) }
    }

    fn none() -> Self {
        Self { bytes: Arc::default(), reader: None }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("no thread panicked")).into_owned()
    }

    fn contains(&self, text: &str) -> bool {
        let bytes = self.bytes.lock().expect("no thread panicked");
        std::str::from_utf8(&bytes).is_ok_and(|all| all.contains(text))
    }

    /// Waits for the end of the pipe.
    fn end(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Writes a file that only its owner can read.
pub(crate) fn write_private(path: &Path, text: impl AsRef<[u8]>) {
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("our own file");
}

/// `hookgate` with these arguments, run to its end in an empty folder.
#[track_caller]
pub(crate) fn run<A: AsRef<OsStr>>(args: &[A]) -> Finished {
    let args: Vec<_> = args.iter().map(|arg| arg.as_ref().to_str().expect("text")).collect();
    Setup::bare(&args).run()
}

/// The address in the line with this message.
fn address_after(log: &str, message: &str) -> Option<SocketAddr> {
    let line = log.lines().find(|line| line.contains(message))?;
    let (_, rest) = line.split_once("://")?;
    let end = rest.find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c)));
    rest[..end.unwrap_or(rest.len())].parse().ok()
}
