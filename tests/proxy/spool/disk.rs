//! A disk that is full or fails, under a gate that goes on and recovers without a restart.

use std::path::PathBuf;
use std::process::Command;
use std::{fs, io};

use super::{again, rows, setup};
use crate::support::gate::{Gate, Setup};
use crate::support::host::{KEY, large_change};
use crate::support::until;
use crate::support::upstream::{Received, Reply, Upstream};

/// Takes nothing of `acme/1`.
fn without_the_first(received: &Received) -> Reply {
    let status = if received.id().starts_with("1-") { 500 } else { 200 };
    Reply::Answer(status, &[], "")
}

/// Pushes of `acme/1`, one after the other, and those of them that were acknowledged.
#[derive(Default)]
struct Pushes {
    sent: usize,
    acknowledged: Vec<String>,
}

impl Pushes {
    /// Sends one of about 10 KiB; what the host is told if that is no success.
    fn send(&mut self, gate: &Gate) -> Option<(u16, String)> {
        self.sent += 1;
        let push = large_change(KEY, 1, self.sent, self.sent + 1, 10_000);
        let answer = gate.ask(&push);
        if answer.status == 202 {
            assert_eq!(answer.outcome(), "queued");
            self.acknowledged.push(format!("1-{}", self.sent + 1));
            return None;
        }
        assert_eq!(answer.header("retry-after"), Some("5"), "{answer:?}");
        Some((answer.status, answer.outcome().to_owned()))
    }

    /// Sends so many, which are all acknowledged.
    #[track_caller]
    fn keep(&mut self, gate: &Gate, count: usize) {
        for _ in 0..count {
            assert_eq!(self.send(gate), None);
        }
    }

    /// Sends until one is refused.
    #[track_caller]
    fn until_refused(&mut self, gate: &Gate) {
        let (status, outcome) = until("one is refused", || self.send(gate));
        // It depends on whether it is known already that others of its repository wait.
        let told = (status, &*outcome);
        assert!([(502, "upstream-failed"), (503, "overloaded")].contains(&told), "{told:?}");
    }

    /// All that were acknowledged have arrived, in order.
    #[track_caller]
    fn assert_arrived(&self, upstream: &Upstream) {
        let taken = upstream.take().into_iter().filter(|one| one.is_taken);
        let mut ids: Vec<_> = taken.map(|one| one.id().to_owned()).collect();
        ids.dedup();
        ids.retain(|id| self.acknowledged.contains(id));
        assert_eq!(ids, self.acknowledged);
    }
}

/// What cannot be stored is refused, what needs no spool goes on, and everybody is told.
#[track_caller]
fn assert_unusable(gate: &Gate, number: usize) {
    until("the metrics say so", || (gate.metric("hookgate_spool_usable") == 0.0).then_some(()));
    assert_direct(gate, number);
    let ready = gate.probe("/ready");
    assert_eq!(ready.status, 200, "the service is there: {ready:?}");
    assert!(ready.text().contains("the spool cannot be used"), "{ready:?}");
    let line = gate.says("the spool cannot be used: deliveries go directly or not at all");
    assert_eq!(line["level"], "ERROR");
    assert_eq!(gate.probe("/live").status, 200);
}

#[track_caller]
fn assert_usable(gate: &Gate) {
    until("it recovers", || (gate.metric("hookgate_spool_usable") == 1.0).then_some(()));
    gate.says("the spool takes deliveries again");
    assert_eq!(gate.probe("/ready").text(), "ready\n");
}

#[track_caller]
fn assert_direct(gate: &Gate, number: usize) {
    let other = large_change(KEY, 2, number - 1, number, 10_000);
    assert_eq!(gate.ask(&other).told(), (200, "forwarded"));
}

// --- A file that cannot be written

/// Says how large a file the gate may write.
fn limit_files(gate: &Gate, limit: &str) {
    let id = gate.id().to_string();
    let limit = format!("--fsize={limit}:");
    let status = Command::new("prlimit").args(["--pid", &id, &limit]).status();
    assert!(status.expect("util-linux").success());
}

#[test]
fn a_file_that_cannot_be_written_costs_nothing_that_was_acknowledged() {
    let upstream = Upstream::with(Reply::By(without_the_first));
    // So that a write that is too long is an error and not the end.
    let heedless = ["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""];
    let gate = setup("", "").upstream(&upstream).under(&heedless).start();
    let mut pushes = Pushes::default();
    pushes.keep(&gate, 5);
    limit_files(&gate, "1");
    pushes.until_refused(&gate);
    assert_unusable(&gate, 2);
    pushes.until_refused(&gate);
    limit_files(&gate, "unlimited");
    assert_usable(&gate);
    pushes.keep(&gate, 3);
    let gate = arrives_after_a_kill(gate, &upstream, &pushes);
    assert_eq!(rows(&gate, "state = 3").len(), pushes.acknowledged.len());
}

/// All that was acknowledged is there after the next start, and arrives when the service is good again.
fn arrives_after_a_kill(gate: Gate, upstream: &Upstream, pushes: &Pushes) -> Gate {
    let folder = gate.kill();
    let gate = again(&folder).upstream(upstream).start();
    upstream.take();
    upstream.reply(Reply::Answer(200, &[], ""));
    gate.drains();
    pushes.assert_arrived(upstream);
    gate
}

// --- A sync that fails

#[test]
#[ignore = "needs strace"]
fn a_sync_that_fails_costs_nothing_that_was_acknowledged() {
    let upstream = Upstream::with(Reply::By(without_the_first));
    let gate = setup("", "").upstream(&upstream).start();
    let mut pushes = Pushes::default();
    pushes.keep(&gate, 2);
    let folder = std::sync::Arc::clone(gate.folder());
    gate.stop();
    // The tracer is nobody's parent. What is counted are the syncs of each thread.
    let strace = ["strace", "-D", "-f", "-qq", "-o", "trace", "-e", "trace=fsync,fdatasync"];
    let inject = ["-e", "inject=fsync,fdatasync:error=EIO:when=10..14"];
    let gate = again(&folder).upstream(&upstream).under(&[&strace[..], &inject].concat()).start();
    pushes.until_refused(&gate);
    assert!(pushes.acknowledged.len() > 2, "some were stored before");
    assert_unusable(&gate, 2);
    assert_usable(&gate);
    pushes.keep(&gate, 3);
    let trace = fs::read_to_string(gate.path("trace")).expect("a trace");
    assert!(trace.contains("EIO (Input/output error) (INJECTED)"), "{trace}");
    arrives_after_a_kill(gate, &upstream, &pushes);
}

// --- A disk that is full

/// A gate with its state on a disk of its own of this size, which goes with it. Nobody else sees it.
fn on_small_disk(setup: Setup, size: &str) -> Gate {
    fs::create_dir(setup.path("state")).expect("a folder");
    let script = format!("mount -t tmpfs -o size={size} none state && exec \"$0\" \"$@\"");
    setup.under(&["unshare", "--mount", "sh", "-c", &script]).start()
}

fn enlarge_disk(gate: &Gate, size: &str) {
    let namespace = format!("--mount=/proc/{}/ns/mnt", gate.id());
    let mut command = Command::new("nsenter");
    command.args([&namespace, "mount", "-o", &format!("remount,size={size}")]);
    assert!(command.arg(gate.path("state")).status().expect("util-linux").success());
}

/// A file on the disk of the gate.
fn on_disk(gate: &Gate, name: &str) -> PathBuf {
    let state = gate.path("state");
    let state = state.strip_prefix("/").expect("a whole path");
    PathBuf::from(format!("/proc/{}/root", gate.id())).join(state).join(name)
}

/// Takes all the space that is left.
fn fill(gate: &Gate) {
    use std::io::Write;
    let mut file = fs::File::create(on_disk(gate, "filler")).expect("a file");
    for piece in [64 << 10, 4 << 10, 1] {
        let piece = vec![0; piece];
        while file.write(&piece).map_err(|error| error.kind()) != Err(io::ErrorKind::StorageFull) {}
    }
}

#[test]
#[ignore = "needs root and a tmpfs"]
fn a_disk_without_space_costs_nothing_that_was_acknowledged() {
    let upstream = Upstream::with(Reply::By(without_the_first));
    let config = "[spool]\nmin_free = \"0B\"\n";
    let gate = on_small_disk(setup(config, "").upstream(&upstream), "8m");
    let mut pushes = Pushes::default();
    for number in 2..4 {
        pushes.keep(&gate, 5);
        fill(&gate);
        pushes.until_refused(&gate);
        assert_unusable(&gate, number);
        fs::remove_file(on_disk(&gate, "filler")).expect("ours");
        assert_usable(&gate);
    }
    // Until the gate itself has filled it. Without a floor it needs a larger disk then.
    pushes.until_refused(&gate);
    assert!(pushes.acknowledged.len() > 100, "{}", pushes.acknowledged.len());
    assert_unusable(&gate, 4);
    enlarge_disk(&gate, "64m");
    assert_usable(&gate);
    upstream.take();
    upstream.reply(Reply::Answer(200, &[], ""));
    let records =
        |state: &str| gate.metric(&format!("hookgate_spool_records{{state=\"{state}\"}}"));
    until("all have arrived", || {
        (upstream.count() > 0 && records("pending") == 0.0 && records("leased") == 0.0)
            .then_some(())
    });
    pushes.assert_arrived(&upstream);
}

#[test]
#[ignore = "needs root and a tmpfs"]
fn below_the_floor_nothing_is_taken_in_and_what_is_there_is_sent() {
    let upstream = Upstream::with(Reply::By(without_the_first));
    let config = "[spool]\nmin_free = \"4MiB\"\n";
    let gate = on_small_disk(setup(config, "").upstream(&upstream), "16m");
    let mut pushes = Pushes::default();
    pushes.keep(&gate, 5);
    fs::write(on_disk(&gate, "filler"), vec![0; 12 << 20]).expect("a file");
    let refused = until("one is refused", || pushes.send(&gate));
    assert_eq!(refused, (503, "overloaded".into()));
    until("the metrics say so", || (gate.metric("hookgate_spool_full") == 1.0).then_some(()));
    assert_direct(&gate, 2);
    let ready = gate.probe("/ready");
    let wanted = "the spool is full: the file system has too little free space";
    assert!(ready.status == 200 && ready.text().contains(wanted), "{ready:?}");
    upstream.take();
    upstream.reply(Reply::Answer(200, &[], ""));
    let pending = "hookgate_spool_records{state=\"pending\"}";
    until("all are sent", || (upstream.count() > 0 && gate.metric(pending) == 0.0).then_some(()));
    assert_eq!(gate.metric("hookgate_spool_full"), 1.0);
    pushes.assert_arrived(&upstream);
    fs::remove_file(on_disk(&gate, "filler")).expect("ours");
    until("there is room", || (gate.metric("hookgate_spool_full") == 0.0).then_some(()));
    upstream.next(Reply::Answer(500, &[], ""));
    pushes.keep(&gate, 1);
}
