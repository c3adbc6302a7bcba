//! What happened lately, kept in memory for an operator who asks: refusals, and uses of keys.
//!
//! Both are bounded, whatever is sent, and neither outlives the process. What is the same as before is
//! counted and not kept again, so that a flood of one kind does not push everything else out.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::text::printable;
use crate::outcome::Outcome;
use crate::provider::Provider;
use crate::time::Timestamp;

/// So many different refusals of hooks are kept.
pub const MAX_REFUSALS: usize = 50;

/// So many of requests that reached no hook, in a place of their own: whoever scans for other paths must not
/// push out what concerns hooks.
const MAX_ELSEWHERE: usize = 10;

/// A hook has at most 64 keys at a time; this leaves room for those that were replaced.
const MAX_KEYS: usize = 256;

/// The last refusals.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Rings>);

#[derive(Debug, Default)]
struct Rings {
    hooks: VecDeque<Refusal>,
    elsewhere: VecDeque<Refusal>,
}

/// Requests that were refused in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// When the last of them came.
    pub last: Timestamp,
    /// When the first of them came.
    pub first: Timestamp,
    /// How many there were.
    pub count: u64,
    /// The hook, if they reached one.
    pub hook: Option<Arc<str>>,
    /// Where they came from.
    pub source: Option<IpAddr>,
    /// Whose format they have, or claim.
    pub provider: Option<Provider>,
    /// What they were answered.
    pub outcome: Outcome,
    /// Why, in words; nothing of it was chosen by the sender.
    pub reason: String,
}

impl Refusals {
    /// Whether an answer with this outcome is one that an operator looks for here.
    pub fn wants(outcome: Outcome) -> bool {
        match outcome {
            Outcome::Forwarded
            | Outcome::Printed
            | Outcome::Queued
            | Outcome::SetAside
            | Outcome::Coalesced
            | Outcome::Duplicate
            | Outcome::Ignored
            | Outcome::Pong => false,
            Outcome::Disabled
            | Outcome::Forbidden
            | Outcome::Unauthorized
            | Outcome::NotFound
            | Outcome::Method
            | Outcome::TooLarge
            | Outcome::Timeout
            | Outcome::Unsupported
            | Outcome::Malformed
            | Outcome::RateLimited
            | Outcome::Overloaded
            | Outcome::UpstreamFailed => true,
        }
    }

    /// Takes one down.
    pub fn add(
        &self,
        now: Timestamp,
        hook: Option<&Arc<str>>,
        source: Option<IpAddr>,
        provider: Option<Provider>,
        outcome: Outcome,
        reason: &str,
    ) {
        let source = source.map(|source| source.to_canonical());
        let reason = printable(reason);
        let mut rings = lock(&self.0);
        let (ring, limit) = match hook {
            Some(_) => (&mut rings.hooks, MAX_REFUSALS),
            None => (&mut rings.elsewhere, MAX_ELSEWHERE),
        };
        let known = ring.iter().rposition(|known| {
            known.source == source
                && known.outcome == outcome
                && known.provider == provider
                && known.hook.as_ref() == hook
                && known.reason == reason
        });
        let refusal = match known.and_then(|at| ring.remove(at)) {
            Some(known) => Refusal { last: now, count: known.count.saturating_add(1), ..known },
            None => Refusal {
                last: now,
                first: now,
                count: 1,
                hook: hook.cloned(),
                source,
                provider,
                outcome,
                reason: Cow::into_owned(reason),
            },
        };
        if ring.len() >= limit {
            ring.pop_front();
        }
        ring.push_back(refusal);
    }

    /// All that are kept, the latest first.
    pub fn latest(&self) -> Vec<Refusal> {
        let rings = lock(&self.0);
        let mut all: Vec<_> = rings.hooks.iter().chain(&rings.elsewhere).rev().cloned().collect();
        drop(rings);
        all.sort_by_key(|refusal| std::cmp::Reverse(refusal.last.as_millis()));
        all
    }
}

/// How often keys proved a delivery, by hook and name.
#[derive(Debug, Default)]
pub struct KeyUses(Mutex<HashMap<Arc<str>, HashMap<String, KeyUse>>>);

/// How often a key was used since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// So many deliveries were proved with it.
    pub count: u64,
    /// When the last of them came.
    pub last: Timestamp,
}

impl KeyUses {
    /// A delivery was proved with this key. Both names must come from the configuration.
    pub fn add(&self, now: Timestamp, hook: &Arc<str>, key: &str) {
        let mut hooks = lock(&self.0);
        if !hooks.contains_key(hook) {
            hooks.insert(hook.clone(), HashMap::new());
        }
        let Some(keys) = hooks.get_mut(hook) else { return };
        if let Some(known) = keys.get_mut(key) {
            known.count = known.count.saturating_add(1);
            known.last = now;
            return;
        }
        if keys.len() >= MAX_KEYS {
            let oldest = keys.iter().min_by_key(|(_, known)| known.last.as_millis());
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                keys.remove(&oldest);
            }
        }
        keys.insert(key.to_owned(), KeyUse { count: 1, last: now });
    }

    /// The uses of a key by any of these hooks; `None` if it was never used.
    pub fn of(&self, hooks: &[&str], key: &str) -> Option<KeyUse> {
        let all = lock(&self.0);
        let uses = hooks.iter().filter_map(|hook| all.get(*hook)?.get(key).copied());
        uses.reduce(|a, b| KeyUse {
            count: a.count.saturating_add(b.count),
            last: if a.last.as_millis() < b.last.as_millis() { b.last } else { a.last },
        })
    }
}

/// Each change is whole before anything can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn hook(name: &str) -> Arc<str> {
        name.into()
    }

    fn address(n: usize) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(n as u32))
    }

    fn add(refusals: &Refusals, now: i64, hook: Option<&Arc<str>>, source: usize, reason: &str) {
        let source = Some(address(source));
        refusals.add(at(now), hook, source, None, Outcome::Unauthorized, reason);
    }

    #[test]
    fn the_same_refusal_again_is_counted_and_comes_first() {
        let (refusals, hook) = (Refusals::default(), hook("default"));
        add(&refusals, 1, Some(&hook), 1, "no credential");
        add(&refusals, 2, Some(&hook), 1, "no active key fits");
        add(&refusals, 3, Some(&hook), 1, "no credential");
        add(&refusals, 3, Some(&hook), 2, "no credential");
        let told: Vec<_> = refusals
            .latest()
            .into_iter()
            .map(|it| (it.first.as_millis(), it.last.as_millis(), it.count, it.reason))
            .collect();
        assert_eq!(told[1], (1, 3, 2, "no credential".into()));
        assert_eq!(told[2], (2, 2, 1, "no active key fits".into()));
        assert_eq!(told.len(), 3);
    }

    #[test]
    fn a_mapped_address_is_the_same_source() {
        let (refusals, hook) = (Refusals::default(), hook("default"));
        let mapped = IpAddr::V6(Ipv4Addr::from_bits(7).to_ipv6_mapped());
        for source in [address(7), mapped] {
            refusals.add(at(1), Some(&hook), Some(source), None, Outcome::Disabled, "");
        }
        assert_eq!((refusals.latest().len(), refusals.latest()[0].count), (1, 2));
    }

    #[test]
    fn the_oldest_go_and_scans_push_out_nothing_of_a_hook() {
        let (refusals, hook) = (Refusals::default(), hook("default"));
        for n in 0..MAX_REFUSALS + 5 {
            add(&refusals, n as i64, Some(&hook), n, "no credential");
        }
        for n in 0..1000 {
            add(&refusals, 1000 + n as i64, None, n, "no such path");
        }
        let latest = refusals.latest();
        let hooks: Vec<_> = latest.iter().filter(|refusal| refusal.hook.is_some()).collect();
        assert_eq!((latest.len(), hooks.len()), (MAX_REFUSALS + MAX_ELSEWHERE, MAX_REFUSALS));
        let ends = (hooks[0].last, hooks[MAX_REFUSALS - 1].last);
        assert_eq!(ends, (at(MAX_REFUSALS as i64 + 4), at(5)));
        assert_eq!(latest[0].last, at(1999));
    }

    #[test]
    fn uses_of_a_key_are_counted_by_hook_and_name() {
        let uses = KeyUses::default();
        let (a, b) = (hook("a"), hook("b"));
        uses.add(at(5), &a, "2026-11");
        uses.add(at(6), &a, "2026-11");
        uses.add(at(4), &b, "2026-11");
        assert_eq!(uses.of(&["a", "b"], "2026-11"), Some(KeyUse { count: 3, last: at(6) }));
        assert_eq!(uses.of(&["b"], "2026-11"), Some(KeyUse { count: 1, last: at(4) }));
        assert_eq!((uses.of(&["a"], "other"), uses.of(&["c"], "2026-11")), (None, None));
    }

    #[test]
    fn of_too_many_keys_the_one_that_is_not_used_goes() {
        let (uses, hook) = (KeyUses::default(), hook("a"));
        for n in 0..=MAX_KEYS {
            uses.add(at(n as i64), &hook, &format!("key-{n}"));
        }
        assert_eq!(uses.of(&["a"], "key-0"), None);
        assert_eq!(uses.of(&["a"], "key-1"), Some(KeyUse { count: 1, last: at(1) }));
    }
}
