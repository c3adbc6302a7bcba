//! The way to one service: how many calls are under way, whether it is worth calling, and the worker that
//! sends it what waits in the spool.
//!
//! Hooks with the same service share it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep_until;

use super::answer::Answer;
use super::breaker::{Breaker, Change, Pass, Verdict};
use super::durable::{Durable, LEASE, OWNER};
use super::lock;
use crate::clock::{Clock, SystemClock};
use crate::proxy::spool::{LeaseRequest, Leased, Spool};

/// Deliveries of the spool that are sent at the same time.
const MAX_SENDING: usize = 32;
/// No further delivery of the spool is taken up while so many bytes of them are in memory.
const MAX_SENDING_BYTES: u64 = 32 << 20;
/// The spool is looked at after this time in any case.
const LOOK: Duration = Duration::from_secs(30);
/// The pause after the spool could not be asked.
const SPOOL_PAUSE: Duration = Duration::from_secs(1);

/// The way to one service.
pub struct Link {
    /// What a log calls the service.
    name: String,
    breaker: Mutex<Breaker>,
    calls: Arc<Semaphore>,
    hooks: Mutex<Vec<Weak<Durable>>>,
    /// Something may be due, or there may be room for it.
    wake: Notify,
    /// The worker waits for the end of a call.
    is_starved: AtomicBool,
    sending: AtomicU64,
    sending_bytes: AtomicU64,
    is_stopped: AtomicBool,
    /// How often the worker has looked at what is due.
    turns: watch::Sender<u64>,
}

impl Link {
    /// To a service that a log calls `name`, with at most `calls` calls at the same time.
    pub fn new(name: impl Into<String>, calls: usize) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            breaker: Mutex::default(),
            calls: Arc::new(Semaphore::new(calls.min(Semaphore::MAX_PERMITS))),
            hooks: Mutex::default(),
            wake: Notify::new(),
            is_starved: AtomicBool::new(false),
            sending: AtomicU64::new(0),
            sending_bytes: AtomicU64::new(0),
            is_stopped: AtomicBool::new(false),
            turns: watch::Sender::new(0),
        })
    }

    /// Whose deliveries it sends from now on.
    pub fn serve(&self, hooks: Vec<Weak<Durable>>) {
        *lock(&self.hooks) = hooks;
        self.wake();
    }

    /// Whether the service is taken to be there.
    pub fn is_up(&self) -> bool {
        self.breaker().is_closed()
    }

    /// What a log calls the service.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes up no further delivery of the spool.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.wake();
        // Nobody needs to wait for a turn that may not come.
        self.turned();
    }

    /// Waits until the worker has looked once more at what is due, whatever it found. Ready at once when
    /// it takes up nothing more.
    pub async fn turn(&self) {
        let mut turns = self.turns.subscribe();
        if self.is_stopped.load(Ordering::Relaxed) {
            return;
        }
        self.wake();
        // The sender is here.
        drop(turns.changed().await);
    }

    /// Something may be due.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Sends what is due in the spool, as long as somebody else has the link too.
    pub async fn run(link: Weak<Self>, spool: Arc<dyn Spool>) {
        loop {
            let Some(this) = link.upgrade() else { return };
            let next = this.work(&spool).await;
            this.turned();
            if this.is_stopped.load(Ordering::Relaxed) {
                return;
            }
            let latest = Instant::now() + LOOK;
            tokio::select! {
                () = sleep_until(next.unwrap_or(latest).min(latest).into()) => {}
                () = this.wake.notified() => {}
            }
        }
    }

    /// The right to call the service now; `None` if it is down or busy.
    pub(super) fn permission(self: &Arc<Self>) -> Option<Permission> {
        let permit = self.calls.clone().try_acquire_owned().ok()?;
        let pass = self.breaker().try_pass(Instant::now())?;
        Some(Permission { link: self.clone(), pass: Some(pass), permit: Some(permit) })
    }

    /// The right to call it whatever is known of it, for one that can go nowhere else.
    pub(super) fn insist(self: &Arc<Self>) -> Permission {
        Permission { link: self.clone(), pass: Some(Pass::Call), permit: None }
    }

    /// Takes up whatever is due and finds room; when the next is due, if that is known.
    async fn work(self: &Arc<Self>, spool: &Arc<dyn Spool>) -> Option<Instant> {
        while !self.is_stopped.load(Ordering::Relaxed) {
            let hooks: Vec<_> = lock(&self.hooks).iter().filter_map(Weak::upgrade).collect();
            if hooks.is_empty() {
                return None;
            }
            let mut permissions = self.permissions();
            if permissions.is_empty() {
                return self.breaker().opens_at();
            }
            let now = SystemClock.now();
            let names: Vec<_> = hooks.iter().map(|hook| hook.name()).collect();
            let mut request = LeaseRequest::new(OWNER, &names, now, now.saturating_add(LEASE));
            request.limit = permissions.len();
            let leases = match spool.lease(request).await {
                Ok(leases) => leases,
                Err(error) => {
                    tracing::debug!(%error, "the spool gives nothing");
                    return Some(Instant::now() + SPOOL_PAUSE);
                }
            };
            if leases.leased.is_empty() {
                let pause = leases.next_due.map(|due| due.since(SystemClock.now()));
                // One that is due by the clock and still not given waits for another's end.
                return pause.map(|pause| Instant::now() + pause.max(Duration::from_millis(10)));
            }
            for leased in leases.leased {
                let hook = hooks.iter().find(|hook| hook.name() == leased.entry.about.hook);
                // There are as many as were asked for, of hooks that were named.
                let (Some(hook), Some(permission)) = (hook, permissions.pop()) else { continue };
                self.send(hook.clone(), leased, permission);
            }
        }
        None
    }

    /// As many rights as deliveries of the spool may be taken up now.
    fn permissions(self: &Arc<Self>) -> Vec<Permission> {
        let mut permissions = Vec::new();
        // Set first: what ends from here on is heard.
        self.is_starved.store(true, Ordering::Release);
        let sending = self.sending.load(Ordering::Acquire) as usize;
        if self.sending_bytes.load(Ordering::Acquire) < MAX_SENDING_BYTES {
            while sending + permissions.len() < MAX_SENDING {
                let Some(permission) = self.permission() else { break };
                let is_probe = permission.pass == Some(Pass::Probe);
                permissions.push(permission);
                if is_probe {
                    break;
                }
            }
        }
        if !permissions.is_empty() {
            self.is_starved.store(false, Ordering::Release);
        }
        permissions
    }

    fn send(self: &Arc<Self>, hook: Arc<Durable>, leased: Leased, permission: Permission) {
        let bytes = leased.content.body.len() as u64;
        self.sending.fetch_add(1, Ordering::AcqRel);
        self.sending_bytes.fetch_add(bytes, Ordering::AcqRel);
        let sending = Sending { link: self.clone(), bytes };
        let running = hook.running();
        tokio::spawn(async move {
            hook.send_again(leased, permission).await;
            drop(sending);
            drop(running);
        });
    }

    fn turned(&self) {
        self.turns.send_modify(|turns| *turns = turns.wrapping_add(1));
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        lock(&self.breaker)
    }

    fn report(&self, pass: Pass, verdict: Verdict) {
        match self.breaker().report(pass, verdict, Instant::now()) {
            Change::None => {}
            Change::Opened(pause) => {
                let seconds = pause.as_secs();
                tracing::warn!(upstream = self.name, seconds, "upstream is down: deliveries wait");
            }
            Change::Closed => {
                tracing::info!(upstream = self.name, "upstream is back");
                self.wake();
            }
        }
    }

    /// A call ended.
    fn ended(&self) {
        if self.is_starved.swap(false, Ordering::AcqRel) {
            self.wake();
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The right to make one call.
pub(super) struct Permission {
    link: Arc<Link>,
    pass: Option<Pass>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Permission {
    /// The call was made, with this answer.
    pub(super) fn report(mut self, answer: &Answer) {
        if let Some(pass) = self.pass.take() {
            self.link.report(pass, answer.verdict());
        }
    }
}

/// A call that was not made, or of which nothing is known.
impl Drop for Permission {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.link.report(pass, Verdict::Unused);
        }
        drop(self.permit.take());
        self.link.ended();
    }
}

/// One delivery of the spool that is under way.
struct Sending {
    link: Arc<Link>,
    bytes: u64,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.link.sending.fetch_sub(1, Ordering::AcqRel);
        self.link.sending_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        // Its repository may have more.
        self.link.wake();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::proxy::spool::{SpoolConfig, SqliteSpool};

    #[tokio::test]
    async fn a_turn_is_one_of_the_worker_and_of_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let spool = SqliteSpool::open(SpoolConfig::new(folder.path().join("spool"))).unwrap();
        let spool: Arc<dyn Spool> = Arc::new(spool);
        let link = Link::new("service", 1);
        let turns = |link: Arc<Link>, patience| async move {
            timeout(Duration::from_millis(patience), link.turn()).await.is_ok()
        };
        assert!(!turns(link.clone(), 50).await, "there is no worker");
        let worker = tokio::spawn(Link::run(Arc::downgrade(&link), spool));
        for _ in 0..3 {
            assert!(turns(link.clone(), 20_000).await);
        }
        worker.abort();
        assert!(worker.await.is_err());
        assert!(!turns(link.clone(), 50).await, "the worker is gone");
        link.stop();
        assert!(turns(link, 20_000).await, "none is to be expected");
    }
}
