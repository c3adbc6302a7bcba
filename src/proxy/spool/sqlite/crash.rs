//! What is left when the process or the disk dies.
//!
//! The tests run this test binary once more, with one test that works with a spool and writes what it
//! was told, a line each:
//!
//! | line | means |
//! |---|---|
//! | `@A id delivery` | the append of this delivery was acknowledged |
//! | `@S repository id` | the worker got it and sends it |
//! | `@D id` | its acknowledgement was acknowledged |
//! | `@E …` | an append failed |

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::tests::push;
use super::*;
use crate::clock::{Clock, SystemClock};
use crate::proxy::spool::Health;

const CHILD: &str = "proxy::spool::sqlite::crash::works_until_its_input_ends";
const FOLDER: &str = "HOOKGATE_TEST_SPOOL";
const ROLE: &str = "HOOKGATE_TEST_SPOOL_ROLE";
const REPOSITORIES: usize = 4;

fn config(folder: &Path) -> SpoolConfig {
    // So that everything can be looked up afterwards.
    SpoolConfig { free_floor: 0, history_bytes: u64::MAX, ..SpoolConfig::new(folder) }
}

fn body(delivery: &str) -> Vec<u8> {
    // Some of a page, some of many.
    let times = delivery.len() * (1 + delivery.bytes().map(usize::from).sum::<usize>() % 40);
    delivery.repeat(times).into_bytes()
}

fn say(line: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    // Whoever reads it may be gone.
    let _ = writeln!(out, "@{line}").and_then(|()| out.flush());
}

#[test]
#[ignore = "the other tests run it in a process of its own"]
fn works_until_its_input_ends() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let only_appends = std::env::var(ROLE).is_ok_and(|role| role == "append");
    // The name of the test stands in the first line.
    println!();
    static STOP: AtomicBool = AtomicBool::new(false);
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        STOP.store(true, Ordering::Relaxed);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let spool = Arc::new(SqliteSpool::open(config(Path::new(&folder))).unwrap());
        let mut tasks = tokio::task::JoinSet::new();
        for sender in 0..16 {
            let spool = spool.clone();
            tasks.spawn(async move {
                for n in 0.. {
                    if STOP.load(Ordering::Relaxed) {
                        break;
                    }
                    let delivery = format!("{}-{sender}-{n}", std::process::id());
                    let mut record = push(&format!("repository-{}", sender % REPOSITORIES), 0);
                    record.content.body = body(&delivery).into();
                    record.about.delivery.clone_from(&delivery);
                    record.not_before = SystemClock.now();
                    match spool.append(record).await {
                        Ok(appended) => say(format_args!("A {} {delivery}", appended.id())),
                        Err(error) => {
                            say(format_args!("E {error}"));
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    }
                }
            });
        }
        if !only_appends {
            let spool = spool.clone();
            tasks.spawn(async move { work(&spool, &STOP).await });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        spool.close().await;
    });
}

async fn work(spool: &SqliteSpool, stop: &AtomicBool) {
    // Whatever an earlier life had.
    let _ = spool.release("worker", SystemClock.now()).await;
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        let now = SystemClock.now();
        let until = now.saturating_add(Duration::from_secs(600));
        let Ok(leases) = spool.lease(LeaseRequest::new("worker", &["hook"], now, until)).await
        else {
            // What was leased by a call that failed comes back at once.
            let _ = spool.release("worker", now).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        for leased in leases.leased {
            let entry = &leased.entry;
            assert_eq!(&*leased.content.body, body(&entry.about.delivery));
            say(format_args!("S {} {}", entry.about.repository.as_deref().unwrap(), entry.id));
            turn += 1;
            if turn % 3 == 0 {
                let _ = spool.nack(&leased.lease, now, "no", now).await;
            } else if spool.ack(&leased.lease, now).await.is_ok() {
                say(format_args!("D {}", entry.id));
            }
        }
    }
}

/// What a process said of a spool.
#[derive(Default)]
struct Told {
    appended: HashMap<RecordId, String>,
    delivered: HashSet<RecordId>,
    last_sent: HashMap<String, RecordId>,
    errors: usize,
    appended_since_error: usize,
}

impl Told {
    fn line(&mut self, line: &str) {
        let Some((kind, rest)) = line.strip_prefix('@').and_then(|line| line.split_once(' '))
        else {
            return;
        };
        match (kind, rest.split_once(' ')) {
            ("A", Some((id, delivery))) => {
                self.appended.insert(id.parse().unwrap(), delivery.to_owned());
                self.appended_since_error += 1;
            }
            ("S", Some((repository, id))) => {
                let id = id.parse().unwrap();
                let last = self.last_sent.insert(repository.to_owned(), id);
                assert!(last <= Some(id), "{repository}: {id} was sent after {last:?}");
            }
            ("D", None) => {
                self.delivered.insert(rest.parse().unwrap());
            }
            ("E", _) => {
                self.errors += 1;
                self.appended_since_error = 0;
            }
            _ => panic!("{line}"),
        }
    }

    /// Opens the spool and looks for everything that was told to be in it.
    async fn verify(&self, folder: &Path) {
        let spool = SqliteSpool::open(config(folder)).unwrap();
        let status = spool.status().await.unwrap();
        assert_eq!((status.health, status.set_aside), (Health::Open, vec![]));
        let mut found = HashMap::new();
        let mut page = Page { after: None, limit: 1_000 };
        loop {
            let stored = spool.export(Selection::default(), page).await.unwrap();
            for Stored { entry, content } in stored.items {
                assert_eq!(&*content.body, body(&entry.about.delivery));
                found.insert(entry.id, entry);
            }
            page.after = stored.next;
            if stored.next.is_none() {
                break;
            }
        }
        for (id, delivery) in &self.appended {
            let entry = found.get(id).unwrap_or_else(|| panic!("{id} is lost"));
            assert_eq!(&entry.about.delivery, delivery);
        }
        for id in &self.delivered {
            assert_eq!(found[id].state, State::Delivered, "{id}");
        }
        spool.close().await;
    }
}

/// A process that works with a spool; it ends with its owner.
struct Process {
    child: Child,
    lines: io::Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(folder: &Path, role: &str, before: &[&str]) -> Self {
        let exe = std::env::current_exe().unwrap();
        let exe = exe.to_str().unwrap();
        let args = [exe, "--exact", CHILD, "--ignored", "--nocapture", "--test-threads=1"];
        let command = [before, &args].concat();
        let mut child = Command::new(command[0])
            .args(&command[1..])
            .env(FOLDER, folder)
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Listens until it has heard enough.
    fn listen(&mut self, told: &mut Told, enough: impl Fn(&Told) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !enough(told) {
            let Told { errors, appended_since_error, .. } = told;
            assert!(Instant::now() < deadline, "{errors} errors, then {appended_since_error}");
            told.line(&self.lines.next().expect("it still works").unwrap());
        }
    }

    /// Hears what it said before it ended.
    fn listen_to_the_end(mut self, told: &mut Told) {
        drop(self.child.stdin.take());
        for line in self.lines.by_ref().map_while(Result::ok) {
            told.line(&line);
        }
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn nothing_that_was_acknowledged_is_lost_when_the_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("spool");
    let mut told = Told::default();
    for round in 0..6 {
        let mut process = Process::start(&folder, "", &[]);
        let enough = told.appended.len() + 40 + round * 37;
        process.listen(&mut told, |told| told.appended.len() >= enough);
        process.child.kill().unwrap();
        process.listen_to_the_end(&mut told);
        told.verify(&folder).await;
    }
    assert_eq!(told.errors, 0);
    assert!(!told.delivered.is_empty());
}

#[tokio::test]
#[ignore = "needs strace and the right to trace"]
async fn nothing_that_was_acknowledged_is_lost_when_the_disk_does_not_sync() {
    let inject = "--inject=fsync,fdatasync:error=EIO:when=";
    for when in ["30", "25..28", "40+60"] {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("spool");
        let mut told = Told::default();
        let inject = format!("{inject}{when}");
        let strace =
            ["strace", "-f", "-qqq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", &inject];
        let mut process = Process::start(&folder, "", &strace);
        process.listen(&mut told, |told| told.errors > 0 && told.appended_since_error > 200);
        process.listen_to_the_end(&mut told);
        told.verify(&folder).await;
    }
}

/// A file system in memory of its own.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(path: PathBuf, options: &str) -> Self {
        std::fs::create_dir(&path).unwrap();
        let tmpfs = Self(path);
        tmpfs.set(&["-t", "tmpfs", "-o", options, "tmpfs"]);
        tmpfs
    }

    fn set(&self, options: &[&str]) {
        assert!(Command::new("mount").args(options).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[tokio::test]
#[ignore = "needs root and tmpfs"]
async fn nothing_that_was_acknowledged_is_lost_when_the_disk_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let tmpfs = Tmpfs::mount(dir.path().join("disk"), "size=8m");
    let folder = tmpfs.0.join("spool");
    let mut told = Told::default();
    let mut process = Process::start(&folder, "append", &[]);
    process.listen(&mut told, |told| told.errors > 50);
    let before = told.appended.len();
    assert!(before > 0);
    tmpfs.set(&["-o", "remount,size=64m"]);
    process.listen(&mut told, |told| told.appended_since_error > 200);
    process.listen_to_the_end(&mut told);
    told.verify(&folder).await;
}
