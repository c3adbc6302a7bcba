//! What became of the deliveries.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Three significant digits up to an hour, in microseconds.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("good bounds")
}

/// A delivery that began later than this after its time was behind the schedule.
pub(super) const LATE: Duration = Duration::from_millis(10);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ErrorKind {
    /// No connection, or no TLS over it.
    Connect,
    /// The other side closed or reset the connection before the answer was there.
    Reset,
    /// Not all of the answer in time.
    Timeout,
    /// What came is no HTTP/1.1.
    Protocol,
}

impl ErrorKind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
        }
    }
}

/// The head of an answer, as much of it as is counted.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) outcome: Option<&'static str>,
}

pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    pub(super) text: String,
}

impl Failure {
    pub(super) fn timeout() -> Self {
        Self { kind: ErrorKind::Timeout, text: "no answer in time".into() }
    }
}

/// Counts of one thread, or of all.
pub(super) struct Tally {
    /// What of the warm-up is over; it is in nothing else here.
    pub(super) warm_up: u64,
    pub(super) begun: u64,
    /// Those of the begun ones that were signed before the start.
    pub(super) signed_before: u64,
    pub(super) answered: u64,
    /// Answered before the end of the schedule.
    pub(super) answered_in_time: u64,
    pub(super) statuses: BTreeMap<u16, u64>,
    pub(super) outcomes: BTreeMap<&'static str, u64>,
    /// How many, and the text of the first.
    pub(super) errors: BTreeMap<ErrorKind, (u64, String)>,
    /// From when a delivery was due.
    pub(super) latency: Histogram<u64>,
    /// From when it was sent.
    pub(super) service_time: Histogram<u64>,
    pub(super) late: u64,
    pub(super) latest: Duration,
    /// Those for which there was never a connection free.
    pub(super) not_sent: u64,
    pub(super) connections: u64,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            warm_up: 0,
            begun: 0,
            signed_before: 0,
            answered: 0,
            answered_in_time: 0,
            statuses: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            errors: BTreeMap::new(),
            latency: histogram(),
            service_time: histogram(),
            late: 0,
            latest: Duration::ZERO,
            not_sent: 0,
            connections: 0,
        }
    }

    pub(super) fn begin(&mut self, due: Instant, now: Instant, is_signed: bool) {
        self.begun += 1;
        self.signed_before += u64::from(is_signed);
        self.wait(now.saturating_duration_since(due));
    }

    fn wait(&mut self, wait: Duration) {
        if wait > LATE {
            self.late += 1;
            self.latest = self.latest.max(wait);
        }
    }

    /// One that was due and will not be sent: it has waited at least so long.
    pub(super) fn skip(&mut self, due: Instant, now: Instant) {
        let wait = now.saturating_duration_since(due);
        self.not_sent += 1;
        self.wait(wait);
        self.latency.saturating_record(micros(wait));
    }

    pub(super) fn settle(
        &mut self,
        due: Instant,
        sent: Instant,
        end: Instant,
        result: Result<Answer, Failure>,
    ) {
        let now = Instant::now();
        let mut is_timed = true;
        match result {
            Ok(answer) => {
                self.answered += 1;
                self.answered_in_time += u64::from(now <= end);
                *self.statuses.entry(answer.status).or_default() += 1;
                if let Some(outcome) = answer.outcome {
                    *self.outcomes.entry(outcome).or_default() += 1;
                }
            }
            Err(failure) => {
                // Whoever waited in vain waited at least so long; a refused connection took no time.
                is_timed = failure.kind == ErrorKind::Timeout;
                self.errors.entry(failure.kind).or_insert((0, failure.text)).0 += 1;
            }
        }
        if is_timed {
            self.latency.saturating_record(micros(now.saturating_duration_since(due)));
            self.service_time.saturating_record(micros(now.saturating_duration_since(sent)));
        }
    }

    pub(super) fn errors(&self) -> u64 {
        self.errors.values().map(|(count, _)| count).sum()
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.warm_up += other.warm_up;
        self.begun += other.begun;
        self.signed_before += other.signed_before;
        self.answered += other.answered;
        self.answered_in_time += other.answered_in_time;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (outcome, count) in &other.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
        }
        for (kind, (count, text)) in &other.errors {
            self.errors.entry(*kind).or_insert_with(|| (0, text.clone())).0 += count;
        }
        self.latency.add(&other.latency).expect("equal bounds");
        self.service_time.add(&other.service_time).expect("equal bounds");
        self.late += other.late;
        self.latest = self.latest.max(other.latest);
        self.not_sent += other.not_sent;
        self.connections += other.connections;
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What would have been measured if every connection had gone on sending while it waited.
///
/// The median stands for how often a connection sends when nothing stalls.
pub(super) fn corrected(measured: &Histogram<u64>) -> Histogram<u64> {
    // Bounds the work: beyond this, a finer interval changes nothing that three digits show.
    let interval = measured.value_at_quantile(0.5).max(measured.max() / 10_000).max(1);
    measured.clone_correct(interval)
}
