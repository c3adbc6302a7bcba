//! How often the service behind the gate hears of a change: bursts are brought together, what it has heard
//! already is not told again, and what comes too fast waits.
//!
//! All these rules are pure. The time comes in as an [`Instant`], which is monotonic: they measure spans
//! within one run, and a clock that is set back or forth must neither hold a push for an hour nor let
//! a thousand go at once. Calls that arrive a little out of order, because two threads took the time
//! before they took the lock, count as simultaneous.
//!
//! # Coalescing
//!
//! A [`Coalescer`] is what Git Integration for Jira calls *Min. repository reindex interval*.
//!
//! 1. What coalesces is said by a [`CoalesceKey`]: hook, repository, kind of event and, unless the
//!    service reads only the repository, the *set* of refs. A later push replaces a held one if it
//!    covers every ref of it, and a ref is never told an older state after a newer one: two pushes
//!    that share a ref, and do not cover each other, go one after the other, in the order in which
//!    they came.
//! 2. The first goes at once. What comes within the interval is held, and the latest goes when the
//!    interval ends. It is measured from the *start* of the last send, so a steady trickle does not
//!    put it off.
//! 3. No push is held longer than `max_wait` after it came, and what replaces it inherits its time.
//!    So an interval that is longer than `max_wait` is one only between pushes that are that far
//!    apart.
//! 4. While a push is being sent, nothing of its refs is, whatever the time.
//! 5. A failed send does not eat the interval: the next goes at once, or when the sender of the failed
//!    one wants to try again. It takes the place that it had, unless a newer one covers it.
//! 6. `delay` keeps a push back until it is so old, for mirrors that lag behind. In a stream of
//!    pushes without a pause as long as that, one is left as it is when another replacement would make
//!    it late, and the next is held beside it: so both promises hold.
//! 7. Memory is bounded. When room runs short, the oldest held push no longer waits for its interval;
//!    when there is none, a push that would need it is refused, before anything was promised. A push
//!    that was held is never dropped.
//!
//! Where held pushes are kept in a durable queue that has rules of its own, [`Intervals`] says when the
//! next may go.
//!
//! # Duplicates
//!
//! [`Duplicates`] tells a delivery that comes again from one that only looks like it.
//!
//! 1. The [`Identity`] is of the hook, the body and `webhook-id`. Other delivery ids are not signed, so
//!    whoever replays a delivery could change them.
//! 2. A delivery counts once upstream *accepted* it; what failed can be sent again.
//! 3. It counts until the window ends, or another delivery for one of its refs *comes*. A branch can
//!    go A→B→A→B with three pushes of which the first and the last are the same, byte for byte; the
//!    last must arrive. It is not enough that the second was accepted: while that one is held back,
//!    or waits in a queue, the third would count as the first, and A would be the last thing that the
//!    service hears.
//! 4. Two that are the same and under way at the same time both go: at least once.
//!
//! # Rates
//!
//! A [`Rate`] is so many in so much time. [`RateLimit`] and [`RateLimits`] say how long one has to wait to keep
//! to it, and leave it to others what waits. [`Refusals`] counts what each source had refused.
//!
//! [`Instant`]: std::time::Instant

mod coalescer;
mod duplicates;
mod intervals;
mod key;
mod rate;
mod refusals;

pub use coalescer::{Coalescer, Decision, Due, Pace, Sending};
pub use duplicates::{Arrival, Duplicates, Pending};
pub use intervals::Intervals;
pub use key::{ChangedRefs, CoalesceKey, Identity, KeyBy};
pub use rate::{Rate, RateError, RateLimit, RateLimits};
pub use refusals::Refusals;

use std::time::{Duration, Instant};

/// `at` plus `by`, of which no more than a year counts, so that no configuration overflows.
fn after(at: Instant, by: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    at + by.min(YEAR)
}
