//! Spans: what was done for a delivery, for whoever takes them.
//!
//! A span is made when what it tells of has ended, and put into a queue that never waits: what finds no room is
//! counted, and gone. Who takes the other end can be slow, fail or be missing, and no delivery is affected. No
//! credential, path or body is ever in a span.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;

use super::trace::{Sampling, Trace};

/// Spans of refused requests that are recorded, each second. A flood of strangers costs no more than that.
pub const MAX_REFUSED: u64 = 10;

/// What was done, from when to when.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Span {
    /// Its place in its trace.
    pub trace: Trace,
    /// Which side of a connection it tells of.
    pub kind: SpanKind,
    /// A name that few have in common with it.
    pub name: Cow<'static, str>,
    /// When it began.
    pub began: Instant,
    /// When it ended.
    pub ended: Instant,
    /// What there is to say of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// Whether it failed.
    pub is_error: bool,
}

/// Which side of a connection a span tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// A request that came in.
    Server,
    /// A call that was made.
    Client,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(Cow<'static, str>),
    /// A number.
    Number(i64),
}

impl Span {
    /// One that began then and ends now.
    pub fn new(
        trace: Trace,
        kind: SpanKind,
        name: impl Into<Cow<'static, str>>,
        began: Instant,
    ) -> Self {
        Self {
            trace,
            kind,
            name: name.into(),
            began,
            ended: Instant::now(),
            attributes: Vec::with_capacity(8),
            is_error: false,
        }
    }

    /// Says one thing more of it.
    pub fn text(&mut self, name: &'static str, value: impl Into<Cow<'static, str>>) {
        self.attributes.push((name, Value::Text(value.into())));
    }

    /// Says one number more of it.
    pub fn number(&mut self, name: &'static str, value: i64) {
        self.attributes.push((name, Value::Number(value)));
    }
}

/// Where spans go. Clones are the same. The default takes none.
#[derive(Clone, Default)]
pub struct Spans(Option<Arc<Queue>>);

struct Queue {
    sender: mpsc::Sender<Span>,
    began: Instant,
    /// The second since then, and how many refused requests it has: `second << 8 | count`.
    refused: AtomicU64,
    counts: Counts,
}

/// What became of the spans so far.
#[derive(Debug, Default)]
pub struct Counts {
    queue_full: AtomicU64,
    rate_limited: AtomicU64,
    /// Taken by whoever wanted them.
    pub exported: AtomicU64,
    /// Given up, since nobody took them.
    pub export_failed: AtomicU64,
}

impl Spans {
    /// Those that find room among so many go to the receiver.
    pub fn bounded(limit: usize) -> (Self, mpsc::Receiver<Span>) {
        let (sender, receiver) = mpsc::channel(limit.max(1));
        let queue = Queue {
            sender,
            began: Instant::now(),
            refused: AtomicU64::new(0),
            counts: Counts::default(),
        };
        (Self(Some(Arc::new(queue))), receiver)
    }

    /// Whether anybody takes them.
    pub fn are_taken(&self) -> bool {
        self.0.is_some()
    }

    /// Whether a span is wanted. `is_authentic`: whether the credential of the request held.
    pub fn wants(&self, trace: &Trace, is_authentic: bool) -> bool {
        let Some(queue) = &self.0 else { return false };
        trace.is_sampled(is_authentic) && (is_authentic || queue.has_room_for_refused())
    }

    /// Takes a span, if there is room.
    pub fn record(&self, span: Span) {
        if let Some(queue) = &self.0
            && queue.sender.try_send(span).is_err()
        {
            queue.counts.queue_full.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Where whoever takes spans counts them.
    pub fn counts(&self) -> Option<&Counts> {
        self.0.as_ref().map(|queue| &queue.counts)
    }

    /// What became of the spans, by the word for it; nothing if none are taken.
    pub fn sample(&self) -> Vec<(&'static str, u64)> {
        let Some(counts) = self.counts() else { return Vec::new() };
        [
            ("exported", &counts.exported),
            ("queue-full", &counts.queue_full),
            ("rate-limited", &counts.rate_limited),
            ("export-failed", &counts.export_failed),
        ]
        .map(|(word, count)| (word, count.load(Ordering::Relaxed)))
        .into()
    }
}

impl Queue {
    fn has_room_for_refused(&self) -> bool {
        let second = self.began.elapsed().as_secs();
        let counted =
            self.refused.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| {
                match (state >> 8, state & 0xff) {
                    (counted, _) if counted < second => Some(second << 8 | 1),
                    (_, MAX_REFUSED..) => None,
                    _ => Some(state + 1),
                }
            });
        if counted.is_err() {
            self.counts.rate_limited.fetch_add(1, Ordering::Relaxed);
        }
        counted.is_ok()
    }
}

impl fmt::Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spans").field("taken", &self.0.is_some()).finish()
    }
}

/// How requests are traced.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Tracing {
    /// Whether the service behind the gate is told. Default: yes.
    pub propagate: bool,
    /// What part of the traces that begin here is recorded. Default: all.
    pub sampling: Sampling,
    /// Where spans go. Default: nowhere.
    pub spans: Spans,
}

impl Default for Tracing {
    fn default() -> Self {
        Self { propagate: true, sampling: Sampling::ALL, spans: Spans::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span() -> Span {
        Span::new(Trace::root(Sampling::ALL), SpanKind::Server, "POST", Instant::now())
    }

    fn counted(spans: &Spans, word: &str) -> u64 {
        spans.sample().into_iter().find(|(name, _)| *name == word).unwrap().1
    }

    #[test]
    fn what_finds_no_room_is_counted_and_gone() {
        let (spans, mut receiver) = Spans::bounded(2);
        for _ in 0..5 {
            spans.record(span());
        }
        assert_eq!(counted(&spans, "queue-full"), 3);
        assert!(receiver.try_recv().is_ok() && receiver.try_recv().is_ok());
        assert!(receiver.try_recv().is_err());
        spans.record(span());
        assert_eq!(counted(&spans, "queue-full"), 3);
        drop(receiver);
        spans.record(span());
        assert_eq!(counted(&spans, "queue-full"), 4, "nobody is there any more");
    }

    #[test]
    fn of_refused_requests_no_more_than_a_few_a_second_are_wanted() {
        let (spans, _receiver) = Spans::bounded(2);
        let trace = Trace::root(Sampling::ALL);
        let began = Instant::now();
        let wanted = (0..1000).filter(|_| spans.wants(&trace, false)).count() as u64;
        let seconds = began.elapsed().as_secs() + 2;
        assert!((MAX_REFUSED..=seconds * MAX_REFUSED).contains(&wanted), "{wanted}");
        assert_eq!(counted(&spans, "rate-limited"), 1000 - wanted);
        assert!(
            (0..1000).all(|_| spans.wants(&trace, true)),
            "deliveries are not counted among them"
        );
    }

    #[test]
    fn nothing_is_wanted_where_nobody_takes_it_or_it_is_not_sampled() {
        let none = Spans::default();
        let trace = Trace::root(Sampling::ALL);
        assert!(!none.wants(&trace, true) && none.sample().is_empty());
        none.record(span());
        let (spans, _receiver) = Spans::bounded(2);
        let unsampled = Trace::root(Sampling::new(0.0).unwrap());
        assert!(!spans.wants(&unsampled, true) && !spans.wants(&unsampled, false));
    }
}
