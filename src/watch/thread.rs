//! The thread: waits for hints and for the time, looks, watches folders, reads, asks readers.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use super::chain::{Chain, DirId, Stamp};
use super::hints::{Hint, Hints};
use super::read::{Seen, read};
use super::report;
use super::state::{Next, Pace, State};
use super::{Reading, Take};

/// How often folders are watched anew because the links moved meanwhile, before that is left to the
/// next look.
const ARM_ROUNDS: usize = 4;

/// What the thread shares with its handles and with `notify`'s thread.
#[derive(Debug, Default)]
pub(super) struct Shared {
    inbox: Mutex<Inbox>,
    arrived: Condvar,
    polling: AtomicBool,
}

#[derive(Debug, Default)]
struct Inbox {
    /// When the last hint came.
    hinted: Option<Instant>,
    rearm: bool,
    check_now: bool,
    /// Dropped when all is read that was to be.
    checks: Vec<oneshot::Sender<()>>,
    wake: bool,
    stop: bool,
    added: Vec<Watched>,
}

impl Shared {
    pub(super) fn hint(&self, Hint { rearm }: Hint) {
        let mut inbox = self.inbox();
        inbox.rearm |= rearm;
        // One wakeup, however many hints: a busy folder must not keep the thread busy.
        if inbox.hinted.replace(Instant::now()).is_none() {
            self.arrived.notify_one();
        }
    }

    pub(super) fn add(&self, watched: Watched) {
        self.inbox().added.push(watched);
        self.arrived.notify_one();
    }

    pub(super) fn check_now(&self) {
        self.inbox().check_now = true;
        self.arrived.notify_one();
    }

    pub(super) fn check_and_tell(&self) -> oneshot::Receiver<()> {
        let (check, checked) = oneshot::channel();
        let mut inbox = self.inbox();
        inbox.check_now = true;
        inbox.checks.push(check);
        drop(inbox);
        self.arrived.notify_one();
        checked
    }

    pub(super) fn wake(&self) {
        self.inbox().wake = true;
        self.arrived.notify_one();
    }

    pub(super) fn stop(&self) {
        self.inbox().stop = true;
        self.arrived.notify_one();
    }

    pub(super) fn is_polling(&self) -> bool {
        self.polling.load(Ordering::Relaxed)
    }

    /// Waits until `at`, or until something is there. Hints do not end it while `settling`.
    fn wait(&self, at: Instant, settling: bool) -> Inbox {
        let timeout = at.saturating_duration_since(Instant::now());
        let (mut inbox, _) = self
            .arrived
            .wait_timeout_while(self.inbox(), timeout, |inbox| {
                let hinted = inbox.hinted.is_some() && !settling;
                !(hinted || inbox.check_now || inbox.wake || inbox.stop || !inbox.added.is_empty())
            })
            .unwrap_or_else(PoisonError::into_inner);
        mem::take(&mut inbox)
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // Each change of it is complete in itself.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One file to follow.
pub(super) struct Watched {
    pub(super) path: PathBuf,
    pub(super) max_bytes: u64,
    pub(super) known: Option<Seen>,
    pub(super) reader: Box<dyn FnMut(Reading<'_>) -> Take + Send>,
    pub(super) ended: Arc<AtomicBool>,
}

impl Watched {
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("path", &self.path).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Entry {
    watched: Watched,
    state: State<Stamp>,
    dirs: BTreeMap<DirId, PathBuf>,
}

#[derive(Debug)]
pub(super) struct Thread {
    shared: Arc<Shared>,
    hints: Hints,
    pace: Pace,
    entries: Vec<Entry>,
    checks: Vec<oneshot::Sender<()>>,
    look_at: Instant,
    rearm: bool,
}

impl Thread {
    pub(super) fn new(shared: Arc<Shared>, hints: Hints, pace: Pace) -> Self {
        shared.polling.store(!hints.are_running(), Ordering::Relaxed);
        Self {
            shared,
            hints,
            pace,
            entries: Vec::new(),
            checks: Vec::new(),
            look_at: Instant::now() + pace.look,
            rearm: false,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let settling = self.entries.iter().any(|entry| entry.state.is_settling());
            let next = self.entries.iter().filter_map(|entry| entry.state.due()).min();
            let inbox =
                self.shared.wait(next.map_or(self.look_at, |at| at.min(self.look_at)), settling);
            if inbox.stop {
                return;
            }
            self.take_in(inbox);
            self.turn();
            if self.entries.iter().all(|entry| entry.state.due().is_none())
                && self.shared.inbox().added.is_empty()
            {
                self.checks.clear();
            }
        }
    }

    fn take_in(&mut self, inbox: Inbox) {
        let now = Instant::now();
        self.entries.retain(|entry| !entry.watched.has_ended());
        self.entries.extend(inbox.added.into_iter().map(|mut watched| Entry {
            state: State::new(self.pace, watched.known.take(), now),
            watched,
            dirs: BTreeMap::new(),
        }));
        self.rearm |= inbox.rearm;
        self.checks.extend(inbox.checks);
        for entry in &mut self.entries {
            if let Some(at) = inbox.hinted {
                entry.state.hint(at);
            }
            if inbox.check_now {
                entry.state.urge(now);
            }
        }
    }

    fn turn(&mut self) {
        let now = Instant::now();
        let looking = now >= self.look_at;
        if looking {
            self.look_at = now + self.pace.look;
        }
        let due: Vec<bool> = (self.entries.iter())
            .map(|entry| looking || entry.state.due().is_some_and(|at| at <= now))
            .collect();
        if !due.contains(&true) {
            return;
        }
        // All folders are watched before anything is read, so no change falls in between.
        let stamps = self.resolve(&due);
        for (entry, stamp) in self.entries.iter_mut().zip(stamps) {
            if let Some(stamp) = stamp {
                let next = entry.state.on_look(now, stamp);
                if next != Next::Nothing {
                    entry.read(next);
                }
            }
        }
    }

    /// Looks at each file that is due, and watches the folders of all.
    fn resolve(&mut self, due: &[bool]) -> Vec<Option<Stamp>> {
        if mem::take(&mut self.rearm) {
            self.hints.disarm();
        }
        let mut stamps = Vec::new();
        for _ in 0..ARM_ROUNDS {
            stamps = (self.entries.iter_mut().zip(due))
                .map(|(entry, due)| {
                    due.then(|| {
                        let chain = Chain::resolve(&entry.watched.path);
                        entry.dirs = chain.dirs;
                        chain.stamp
                    })
                })
                .collect();
            let wanted = self.entries.iter().flat_map(|entry| entry.dirs.clone()).collect();
            // What moved before a folder was watched went unnoticed, so look once more.
            if !self.hints.arm(&wanted) {
                break;
            }
        }
        self.shared.polling.store(!self.hints.are_running(), Ordering::Relaxed);
        stamps
    }
}

impl Entry {
    fn read(&mut self, next: Next) {
        let Watched { path, max_bytes, reader, ended, .. } = &mut self.watched;
        let content = read(&path, *max_bytes);
        let read_at = Instant::now();
        let content = content.as_ref();
        let seen = content.map_or_else(Seen::from, Seen::from);
        let Some(confirmed) = self.state.on_read(read_at, next, &seen) else { return };
        if ended.load(Ordering::Acquire) {
            return;
        }
        if content.is_ok_and(|content| content.is_detached()) {
            report::detached(path);
        }
        let reading = Reading { path, content, confirmed };
        let take = catch_unwind(AssertUnwindSafe(|| reader(reading))).unwrap_or_else(|_| {
            report::panicked(path);
            Take::Refused
        });
        self.state.on_answer(read_at, seen, confirmed, take);
    }
}
