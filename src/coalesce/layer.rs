//! The layer: what is held, and the task that sends it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use tower_layer::Layer;

use super::hold::{Hold, retry_pause};
use super::service::Coalesce;
use crate::pace::{Due, KeyBy, Pace, Sending};

/// Puts a [`Coalesce`] before a service. Clones share what is held. See the [module docs](super).
#[derive(Clone)]
pub struct CoalesceLayer(Arc<Shared>);

/// Builds a [`CoalesceLayer`].
#[derive(Clone, Debug)]
#[must_use]
pub struct CoalesceBuilder {
    pace: Pace,
    by: KeyBy,
    max_held_bytes: usize,
}

impl CoalesceLayer {
    /// With this pace, by refs, and the defaults of [`CoalesceBuilder`].
    pub fn new(pace: Pace) -> Self {
        Self::builder(pace).build()
    }

    /// A layer to be told more.
    pub fn builder(pace: Pace) -> CoalesceBuilder {
        CoalesceBuilder { pace, by: KeyBy::default(), max_held_bytes: 16 * 1024 * 1024 }
    }

    /// How many deliveries are held.
    pub fn held(&self) -> usize {
        self.0.hold.len()
    }

    /// Sends all that is held, in order, and says how many did not get through: for the end of a process, when
    /// nothing more comes in. Each has one attempt.
    ///
    /// # Cancel safety
    ///
    /// What was not sent when it is dropped is lost. It has no time limit of its own.
    pub async fn drain(&self) -> usize {
        let pause = self.0.hold.pause().await;
        let mut lost = 0;
        for due in self.0.hold.drain() {
            let Due { item, sending } = due;
            let underway = Underway::new(self.0.clone(), sending);
            if item.send().await {
                underway.succeeded();
            } else {
                lost += 1;
            }
        }
        drop(pause);
        lost
    }
}

impl CoalesceBuilder {
    /// Whether refs count. Default: [`KeyBy::Ref`], so that no branch goes in another's place.
    pub fn by(mut self, by: KeyBy) -> Self {
        self.by = by;
        self
    }

    /// How many bytes the bodies may have that are held. Default: 16 MiB.
    ///
    /// They stay counted in the gate's [`Budget`](crate::gate::Budget), so this should be a part of it.
    pub fn max_held_bytes(mut self, bytes: usize) -> Self {
        self.max_held_bytes = bytes;
        self
    }

    /// The layer.
    pub fn build(self) -> CoalesceLayer {
        CoalesceLayer(Arc::new(Shared {
            hold: Hold::new(self.pace),
            by: self.by,
            max_held_bytes: self.max_held_bytes,
            held_bytes: Arc::default(),
            is_worked: AtomicBool::new(false),
        }))
    }
}

impl<S> Layer<S> for CoalesceLayer {
    type Service = Coalesce<S>;

    fn layer(&self, inner: S) -> Coalesce<S> {
        Coalesce::new(inner, self.0.clone())
    }
}

impl fmt::Debug for CoalesceLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What all clones and all services of a layer share.
pub(super) struct Shared {
    pub(super) hold: Hold<Held>,
    pub(super) by: KeyBy,
    max_held_bytes: usize,
    held_bytes: Arc<AtomicUsize>,
    /// Whether there is a task that sends what is held.
    is_worked: AtomicBool,
}

impl Shared {
    /// Sees to it that what is held is sent.
    pub(super) fn work(self: &Arc<Self>) {
        if !self.is_worked.swap(true, Ordering::SeqCst) {
            tokio::spawn(self.clone().run());
        }
    }

    /// Room for the body of one that may be held, if there is.
    pub(super) fn room(&self, bytes: usize) -> Option<Room> {
        let taken = self.held_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| {
            held.checked_add(bytes).filter(|held| *held <= self.max_held_bytes)
        });
        taken.is_ok().then(|| Room { held_bytes: self.held_bytes.clone(), bytes })
    }

    async fn run(self: Arc<Self>) {
        loop {
            while let Some((due, permit)) = self.hold.next().await {
                let this = self.clone();
                tokio::spawn(async move {
                    this.send(due).await;
                    drop(permit);
                });
            }
            self.is_worked.store(false, Ordering::SeqCst);
            // Whatever is held from here on has a task of its own.
            if self.hold.len() == 0 || self.is_worked.swap(true, Ordering::SeqCst) {
                return;
            }
        }
    }

    async fn send(self: &Arc<Self>, due: Due<Held>) {
        let Due { mut item, sending } = due;
        let underway = Underway::new(self.clone(), sending);
        if item.send().await {
            underway.succeeded();
        } else {
            let pause = retry_pause(item.attempts);
            item.attempts = item.attempts.saturating_add(1);
            underway.failed(item, pause);
            self.work();
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoalesceLayer")
            .field("by", &self.by)
            .field("held", &self.hold.len())
            .field("held_bytes", &self.held_bytes)
            .finish_non_exhaustive()
    }
}

/// Calls the service that it was made for; whether that has it now.
pub(super) type Call =
    Box<dyn Fn(Parts, Bytes) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send>;

/// A delivery that is or can be held.
pub(super) struct Held {
    pub(super) parts: Parts,
    pub(super) bytes: Bytes,
    pub(super) call: Call,
    /// Given back when this is dropped.
    #[expect(dead_code, reason = "kept for its drop")]
    pub(super) room: Room,
    pub(super) attempts: u32,
}

impl Held {
    fn send(&self) -> impl Future<Output = bool> + Send + use<> {
        (self.call)(self.parts.clone(), self.bytes.clone())
    }
}

/// The bytes of a body that may be held, until it is dropped.
pub(super) struct Room {
    held_bytes: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.held_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// A send that is under way. One that is dropped, since a host hung up or a service panicked, is over and does not
/// eat the interval.
pub(super) struct Underway {
    shared: Arc<Shared>,
    sending: Option<Sending>,
}

impl Underway {
    pub(super) fn new(shared: Arc<Shared>, sending: Sending) -> Self {
        Self { shared, sending: Some(sending) }
    }

    pub(super) fn succeeded(mut self) {
        if let Some(sending) = self.sending.take() {
            self.shared.hold.succeeded(sending);
        }
    }

    fn failed(mut self, item: Held, pause: Duration) {
        if let Some(sending) = self.sending.take() {
            self.shared.hold.failed(sending, Some(item), pause);
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if let Some(sending) = self.sending.take() {
            self.shared.hold.failed(sending, None, Duration::ZERO);
        }
    }
}
