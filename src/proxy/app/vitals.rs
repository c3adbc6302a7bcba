//! How a running sidecar is: for whoever supervises it.
//!
//! A process that is there does not have to work. A supervisor that restarts one that hangs needs a sign
//! of life that a hanging one cannot give, so [`Vitals::pulse`] asks all without which no delivery
//! gets through, and is ready only when each has made a turn since:
//!
//! 1. the locks that each request and each reload takes,
//! 2. the task that accepts connections,
//! 3. with a spool, the worker of each service, which asks the spool's thread what is due.
//!
//! What a restart does not heal is left out: a service that is down, a disk that fails (an answer all the
//! same), and the thread that follows files, which may wait for a network file system while the last
//! good keys verify.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Weak};

use tokio::sync::watch;

use super::{Shared, readiness};

/// Looks at a running [`App`](super::App) from outside. Does not keep it alive; clones are the same.
#[derive(Clone)]
pub struct Vitals(Weak<Shared>);

/// How the sidecar is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Vital {
    /// The hooks.
    pub hooks: usize,
    /// Those of them that are enabled.
    pub enabled: usize,
    /// Deliveries that are on their way in the spool.
    pub waiting: u64,
    /// Deliveries that were set aside.
    pub dead: u64,
    /// What keeps it from being ready, in sentences; nothing means ready.
    pub missing: Vec<String>,
}

impl Vitals {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self(Arc::downgrade(shared))
    }

    /// Waits until deliveries are taken: sockets are bound, keys are read, the spool is open. `false` if it
    /// ended before.
    pub async fn started(&self) -> bool {
        let Some(mut started) = self.0.upgrade().map(|shared| shared.started.subscribe()) else {
            return false;
        };
        started.wait_for(|started| *started).await.is_ok()
    }

    /// Waits until everything has made a turn without which no delivery gets through: forever, if one of
    /// them hangs. Ready at once where it has ended.
    pub async fn pulse(&self) {
        let Some(shared) = self.0.upgrade() else { return };
        let links: Vec<_> = shared.live().links.iter().map(|(_, link)| link.clone()).collect();
        shared.pulse.ask().await;
        // What stops must not wait for who asks.
        drop(shared);
        for link in links {
            link.turn().await;
        }
    }

    /// How it is. What is told of the spool is at most a second old.
    pub fn look(&self) -> Vital {
        let missing = readiness(&self.0).missing;
        let Some(shared) = self.0.upgrade() else { return Vital { missing, ..Vital::default() } };
        let live = shared.live();
        let is_enabled = |name: &String| live.switches.get(name).is_some_and(|it| it.is_enabled());
        let enabled = live.config.hooks.iter().filter(|hook| is_enabled(&hook.name)).count();
        let status = shared.spool.as_ref().and_then(|parts| parts.status.load_full());
        Vital {
            hooks: live.config.hooks.len(),
            enabled,
            waiting: status.as_ref().map_or(0, |status| status.pending + status.leased),
            dead: status.map_or(0, |status| status.dead),
            missing,
        }
    }

    /// Looks at every file at once, as for SIGHUP, and waits until what is there is in force or refused.
    ///
    /// While a file is written to again and again, that may be never.
    ///
    /// # Cancel safety
    ///
    /// The files are looked at also if the future is dropped.
    pub fn reload(&self) -> impl Future<Output = ()> + Send + use<> {
        let checked = self.0.upgrade().map(|shared| shared.watcher.check_and_wait());
        async move {
            if let Some(checked) = checked {
                checked.await;
            }
        }
    }
}

impl fmt::Debug for Vitals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vitals").finish_non_exhaustive()
    }
}

/// Whether a task goes on: it polls [`answer_until`](Self::answer_until) beside its work.
#[derive(Debug)]
pub(super) struct Pulse {
    asked: watch::Sender<u64>,
    answered: watch::Sender<u64>,
}

/// The answer to all questions of one that has ended as it should.
const ENDED: u64 = u64::MAX;

impl Pulse {
    pub(super) fn new() -> Self {
        Self { asked: watch::Sender::new(0), answered: watch::Sender::new(0) }
    }

    /// Answers until `end` is ready.
    pub(super) async fn answer_until(&self, end: impl Future<Output = ()>) {
        let mut asked = self.asked.subscribe();
        // Whoever asked before is answered too.
        asked.mark_changed();
        let mut end = pin!(end);
        loop {
            tokio::select! {
                biased;
                () = &mut end => break,
                // The sender is here.
                _ = asked.changed() => {
                    self.answered.send_replace(*asked.borrow_and_update());
                }
            }
        }
        self.answered.send_replace(ENDED);
    }

    /// Waits for an answer to a question that is asked now.
    async fn ask(&self) {
        let mut answered = self.answered.subscribe();
        let mut number = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            number = *asked;
        });
        drop(answered.wait_for(|answered| *answered >= number).await);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    async fn is_alive(pulse: &Pulse) -> bool {
        timeout(LONG, pulse.ask()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_is_polled_has_a_pulse_and_one_that_hangs_has_none() {
        let pulse = Arc::new(Pulse::new());
        assert!(!is_alive(&pulse).await, "nobody answers yet");
        let (hang, hanging) = oneshot::channel::<()>();
        let (stop, stopped) = oneshot::channel::<()>();
        let (resume, resumed) = oneshot::channel::<()>();
        let answering = pulse.clone();
        let task = tokio::spawn(async move {
            let mut answers = pin!(answering.answer_until(async { drop(stopped.await) }));
            tokio::select! {
                () = &mut answers => return,
                _ = hanging => {}
            }
            // It is there, but does not get to its work.
            drop(resumed.await);
            answers.await;
        });
        for _ in 0..3 {
            assert!(is_alive(&pulse).await);
        }
        drop(hang);
        tokio::task::yield_now().await;
        assert!(!is_alive(&pulse).await);
        drop(resume);
        assert!(is_alive(&pulse).await);
        drop(stop);
        task.await.unwrap();
        assert!(is_alive(&pulse).await, "it ended as it should");
    }
}
