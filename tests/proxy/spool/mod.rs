//! Nothing that a host was told 2xx about is lost, whatever becomes of the service, the disk and the gate.
//!
//! `cargo test` runs a small form of each. The same tests are the acceptance run, against the release binary
//! and with the counts that the environment gives:
//!
//! ```sh
//! HOOKGATE_KILLS=200 HOOKGATE_DELIVERIES=20000 \
//!     cargo test --release --test proxy -- spool --include-ignored --nocapture
//! ```
//!
//! | variable | | unless it is set |
//! |---|---|---|
//! | `HOOKGATE_KILLS` | how often the gate is killed while hosts send | 10 |
//! | `HOOKGATE_DELIVERIES` | how many come while the service is down | 1,000 |
//! | `HOOKGATE_REPOSITORIES` | of how many repositories these are | 100 |
//!
//! Those that are ignored need a Linux on which the user is root, or `strace`.

mod coalesce;
mod disk;
mod kill;
mod limit;
mod order;
mod outage;
mod rate;
mod service;
mod stop;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::client::{Answer, Client};
use crate::support::gate::{Gate, Setup};
use crate::support::host::{KEY, large_change};
use crate::support::spool;
use crate::support::upstream::Received;

/// What of the scaled runs is the number in the environment, or the usual one.
fn count(variable: &str, usual: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")),
        Err(_) => usual,
    }
}

/// A gate with one hook. `parts` is what stands before it in the configuration, `hook` what stands in it.
fn setup(parts: &str, hook: &str) -> Setup {
    let config = format!("{parts}\n[[hook]]\nname = \"default\"\n{hook}\n");
    Setup::new().keys(&format!("{KEY} name=a\n")).config(&config)
}

/// The same gate once more, in the folder of the first.
fn again(folder: &Arc<TempDir>) -> Setup {
    let files = ["--config", "hookgate.toml", "--key-file", "webhook.key"];
    Setup::new().within(folder).args(&files)
}

/// A delivery of the spool.
#[derive(Debug, PartialEq)]
struct Row {
    id: String,
    attempts: u32,
    last_error: Option<String>,
}

/// The deliveries of the spool that `condition` is true for, in their order.
#[track_caller]
fn rows(gate: &Gate, condition: &str) -> Vec<Row> {
    let sql = format!(
        "SELECT delivery, attempts, last_error FROM delivery WHERE {condition} ORDER BY id"
    );
    spool::select(&gate.path("state"), &sql, |row| {
        Ok(Row { id: row.get(0)?, attempts: row.get(1)?, last_error: row.get(2)? })
    })
}

/// The ids of the deliveries that are on their way, in their order.
#[track_caller]
fn waiting(gate: &Gate) -> Vec<String> {
    rows(gate, "state IN (0, 1, 2)").into_iter().map(|row| row.id).collect()
}

/// A push, by its repository and its number, which is its place among those of the repository.
type Push = (usize, usize);

/// The push with this id.
#[track_caller]
fn push_of(id: &str) -> Push {
    let parsed = id
        .split_once('-')
        .and_then(|(repository, number)| Some((repository.parse().ok()?, number.parse().ok()?)));
    parsed.unwrap_or_else(|| panic!("an id of ours: {id}"))
}

/// What the service took, each when it first did.
#[derive(Debug, Default)]
struct Arrivals {
    order: Vec<Push>,
    seen: BTreeSet<Push>,
    /// How many it took again.
    repeated: usize,
    /// How many calls it refused.
    refused: usize,
}

impl Arrivals {
    fn add(&mut self, received: Vec<Received>) {
        for one in received {
            let push = push_of(one.id());
            if !one.is_taken {
                self.refused += 1;
            } else if self.seen.insert(push) {
                self.order.push(push);
            } else {
                self.repeated += 1;
            }
        }
    }

    /// How many of `acknowledged` did not come.
    fn lost(&self, acknowledged: &BTreeSet<Push>) -> usize {
        acknowledged.difference(&self.seen).count()
    }

    /// The first of `pushes` that came before one that was sent before it.
    fn overtaking(&self, pushes: &BTreeSet<Push>) -> Option<Push> {
        let mut last = BTreeMap::new();
        let order = self.order.iter().filter(|push| pushes.contains(push)).copied();
        let mut order = order.map(|push| (last.insert(push.0, push.1), push)).collect::<Vec<_>>();
        order.retain(|(before, (_, number))| before.is_some_and(|before| before > *number));
        order.first().map(|(before, (repository, _))| (*repository, before.unwrap_or_default()))
    }
}

/// Hosts that send pushes, each one after the other and for repositories of its own.
struct Hosts {
    gate: Arc<Mutex<SocketAddr>>,
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Sent>>,
}

/// How hosts send.
#[derive(Clone, Copy)]
struct Plan {
    key: &'static str,
    hosts: usize,
    repositories: usize,
    /// How many pushes there are of all repositories together.
    pushes: usize,
    /// How many bytes each has that say nothing.
    padding: usize,
}

/// What hosts sent, and what they were told.
#[derive(Debug, Default)]
struct Sent {
    acknowledged: BTreeSet<Push>,
    outcomes: BTreeMap<String, usize>,
    slowest: Duration,
}

impl Hosts {
    fn start(gate: SocketAddr, plan: Plan) -> Self {
        let (gate, stopped) = (Arc::new(Mutex::new(gate)), Arc::<AtomicBool>::default());
        let threads = (0..plan.hosts).map(|host| {
            let (gate, stopped) = (Arc::clone(&gate), Arc::clone(&stopped));
            std::thread::spawn(move || send(host, plan, &gate, &stopped))
        });
        Self { threads: threads.collect(), gate, stopped }
    }

    /// Where the gate is from now on.
    fn turn_to(&self, gate: SocketAddr) {
        *self.gate.lock().expect("no thread panicked") = gate;
    }

    /// Waits until all have sent what they are to send.
    fn finish(self) -> Sent {
        let mut all = Sent::default();
        for thread in self.threads {
            let sent = thread.join().expect("a host's thread");
            all.acknowledged.extend(sent.acknowledged);
            all.slowest = all.slowest.max(sent.slowest);
            for (outcome, count) in sent.outcomes {
                *all.outcomes.entry(outcome).or_default() += count;
            }
        }
        all
    }

    /// Has them send nothing more.
    fn stop(self) -> Sent {
        self.stopped.store(true, Ordering::Relaxed);
        self.finish()
    }
}

fn send(host: usize, plan: Plan, gate: &Mutex<SocketAddr>, stopped: &AtomicBool) -> Sent {
    let mut sent = Sent::default();
    let mut client = None;
    let pushes = (0..plan.pushes).map(|n| (n % plan.repositories, n / plan.repositories + 1));
    for (repository, number) in pushes.filter(|(it, _)| it % plan.hosts == host) {
        let request = large_change(plan.key, repository, number - 1, number, plan.padding).bytes();
        while client.is_none() {
            if stopped.load(Ordering::Relaxed) {
                return sent;
            }
            let address = *gate.lock().expect("no thread panicked");
            client = Client::try_connect(address).ok();
            if client.is_none() {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        let began = Instant::now();
        let answer = client.take().ok_or_else(|| unreachable!("it was made")).and_then(
            |mut one: Client| -> std::io::Result<Answer> {
                one.try_send(&request)?;
                let answer = one.try_answer()?;
                client = Some(one);
                Ok(answer)
            },
        );
        sent.slowest = sent.slowest.max(began.elapsed());
        let outcome = match answer {
            Ok(answer) => {
                if (200..300).contains(&answer.status) {
                    sent.acknowledged.insert((repository, number));
                }
                format!("{} {}", answer.status, answer.header("hookgate-outcome").unwrap_or("?"))
            }
            Err(_) => "no answer".to_owned(),
        };
        *sent.outcomes.entry(outcome).or_default() += 1;
        if stopped.load(Ordering::Relaxed) {
            break;
        }
    }
    sent
}
