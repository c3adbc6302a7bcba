//! What a service manager is told, if there is one: sd_notify(3), as of systemd's `Type=notify-reload` and
//! `WatchdogSec=`.
//!
//! | message | when |
//! |---|---|
//! | `READY=1` | sockets are bound, keys are read, the spool is open, connections are accepted |
//! | `STATUS=` | with each of the others, and every 2 s if it says something new |
//! | `RELOADING=1`, then `READY=1` | around a reload by SIGHUP; the second when every file was looked at |
//! | `WATCHDOG=1` | twice in each `WATCHDOG_USEC`, while [`Vitals::pulse`] answers |
//! | `STOPPING=1`, `EXTEND_TIMEOUT_USEC=` | at the first signal to stop; with the time that draining may take |
//!
//! A thread of its own sends them in order, so that a manager that does not listen holds up nothing else.
//! Whether one is there says `NOTIFY_SOCKET`, and only for it anything runs here.

use std::env;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hookgate::proxy::app::{Vital, Vitals};
use sd_notify::NotifyState;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// How often the status is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long a reload may take before the manager hears that it is over: some file is never quiet.
const RELOAD: Duration = Duration::from_secs(10);
/// Beyond what draining may take.
const MARGIN: Duration = Duration::from_secs(10);
/// Messages that wait for a manager that does not listen. What comes beyond them is dropped.
const WAITING: usize = 64;

/// Tells the service manager how the gate is. Clones are the same.
#[derive(Clone)]
pub(super) struct Supervisor(Arc<Inner>);

struct Inner {
    vitals: Vitals,
    /// None if there is no manager.
    messages: Option<SyncSender<String>>,
    status: Mutex<String>,
    is_stopping: AtomicBool,
}

impl Supervisor {
    /// Within a runtime. Where there is a manager, begins to tell it.
    pub(super) fn new(vitals: Vitals) -> Self {
        let messages = env::var_os("NOTIFY_SOCKET").and_then(|_| start_sender());
        let supervisor = Self(Arc::new(Inner {
            vitals,
            messages,
            status: Mutex::default(),
            is_stopping: AtomicBool::new(false),
        }));
        if supervisor.0.messages.is_some() {
            tokio::spawn(supervisor.clone().follow());
            if let Some(within) = sd_notify::watchdog_enabled() {
                tokio::spawn(supervisor.clone().feed_watchdog(within));
            }
        }
        supervisor
    }

    /// Looks at every file, as for SIGHUP.
    pub(super) async fn reload(&self) {
        let reload = self.0.vitals.reload();
        if !self.0.vitals.started().await || self.is_stopping() {
            return;
        }
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            // A reload without its time would end the service.
            Err(_) => return,
        }
        let _ = timeout(RELOAD, reload).await;
        self.tell_with_status(NotifyState::Ready);
    }

    /// It stops now, which takes no longer than `drain`.
    pub(super) fn stopping(&self, drain: Duration) {
        // Or READY=1 could come after this.
        let _told = self.0.status.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.is_stopping.store(true, Ordering::SeqCst);
        let longest = u32::try_from((drain + MARGIN).as_micros()).unwrap_or(u32::MAX);
        self.tell(&[
            NotifyState::Stopping,
            NotifyState::Status("stopping: finishing what is open"),
            NotifyState::ExtendTimeoutUsec(longest),
        ]);
    }

    async fn follow(self) {
        if !self.0.vitals.started().await {
            return;
        }
        self.tell_with_status(NotifyState::Ready);
        let mut looks = interval(LOOK);
        loop {
            looks.tick().await;
            if self.is_stopping() {
                return;
            }
            let status = status(&self.0.vitals.look());
            let mut told = self.0.status.lock().unwrap_or_else(PoisonError::into_inner);
            if *told != status {
                self.tell(&[NotifyState::Status(&status)]);
                *told = status;
            }
        }
    }

    /// Twice `within` the time, as sd_watchdog_enabled(3) advises, but only for a gate that works.
    async fn feed_watchdog(self, within: Duration) {
        // Until then the manager waits for READY=1 and for nothing else.
        if !self.0.vitals.started().await {
            return;
        }
        let pause = (within / 2).max(Duration::from_millis(1));
        let mut ticks = interval(pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let asked = Instant::now();
            // On a task of its own: the runtime must still begin some.
            let vitals = self.0.vitals.clone();
            let mut pulse = tokio::spawn(async move { vitals.pulse().await });
            if timeout(pause, &mut pulse).await.is_ok_and(|ended| ended.is_ok()) {
                self.tell(&[NotifyState::Watchdog]);
            } else {
                pulse.abort();
                let seconds = asked.elapsed().as_secs_f64();
                tracing::error!(seconds, "no sign of life: the watchdog is not told of any");
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.0.is_stopping.load(Ordering::SeqCst)
    }

    fn tell_with_status(&self, state: NotifyState<'_>) {
        let status = status(&self.0.vitals.look());
        let mut told = self.0.status.lock().unwrap_or_else(PoisonError::into_inner);
        // What was said of stopping stands.
        if !self.is_stopping() {
            self.tell(&[state, NotifyState::Status(&status)]);
            *told = status;
        }
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        let Some(messages) = &self.0.messages else { return };
        let lines: Vec<_> = states.iter().map(ToString::to_string).collect();
        match messages.try_send(lines.join("\n")) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                tracing::warn!("the service manager does not listen: a message to it is dropped");
            }
            // The thread ends only with the last sender.
            Err(TrySendError::Disconnected(_)) => {}
        }
    }
}

/// One line for people.
fn status(vital: &Vital) -> String {
    let Vital { hooks, enabled, waiting, dead, missing, .. } = vital;
    let state = match missing.first() {
        None => "ready".to_owned(),
        Some(missing) => format!("not ready: {missing}"),
    };
    let text = format!(
        "{state}; {enabled} of {hooks} hooks enabled; in the spool {waiting} waiting, {dead} set aside"
    );
    // A message is made of lines.
    text.replace('\n', " ")
}

/// The thread that sends; none if it cannot be had.
fn start_sender() -> Option<SyncSender<String>> {
    let (messages, received) = sync_channel::<String>(WAITING);
    let thread = std::thread::Builder::new().name("hookgate-notify".to_owned()).spawn(move || {
        let mut failed = false;
        for message in received {
            let sent = sd_notify::notify(&[NotifyState::Custom(&message)]);
            if let Err(error) = &sent
                && !failed
            {
                tracing::warn!(%error, "the service manager cannot be told anything (NOTIFY_SOCKET)");
            }
            failed = sent.is_err();
        }
    });
    thread
        .inspect_err(|error| tracing::warn!(%error, "the service manager is told nothing"))
        .is_ok()
        .then_some(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_one_line_that_says_what_is_missing() {
        let mut vital = Vital::default();
        (vital.hooks, vital.enabled, vital.waiting, vital.dead) = (3, 2, 17, 1);
        assert_eq!(
            status(&vital),
            "ready; 2 of 3 hooks enabled; in the spool 17 waiting, 1 set aside"
        );
        vital.missing = vec!["hook a has\nno active key".into(), "stopping".into()];
        assert_eq!(
            status(&vital),
            "not ready: hook a has no active key; 2 of 3 hooks enabled; in the spool 17 waiting, 1 set aside"
        );
    }
}
