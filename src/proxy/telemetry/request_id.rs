//! The name of one request in logs.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes the ids of one process: a random prefix and a counter.
///
/// The ids tell requests apart, in one process and, by the prefix, across restarts and machines.
/// They are not secret and not unpredictable. An `X-Request-Id` that came in is another thing: it
/// is the host's delivery id, which the sender chooses.
#[derive(Debug)]
pub struct RequestIds {
    prefix: u32,
    next: AtomicU64,
}

impl RequestIds {
    /// With a fresh random prefix.
    pub fn new() -> Self {
        // The standard library's hasher keys are random, and need no error path.
        let prefix = RandomState::new().hash_one(std::process::id()) as u32;
        Self { prefix, next: AtomicU64::new(1) }
    }

    /// The id of the next request.
    pub fn next(&self) -> RequestId {
        RequestId { prefix: self.prefix, number: self.next.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}

/// The id of one request, such as `9f3c01ab-2a`: prefix and number, both hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    prefix: u32,
    number: u64,
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:x}", self.prefix, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_process_differ_and_share_a_prefix() {
        let ids = RequestIds::new();
        let (a, b) = (ids.next().to_string(), ids.next().to_string());
        assert_ne!(a, b);
        assert_eq!(a.split_once('-').unwrap().0, b.split_once('-').unwrap().0);
        assert!(a.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'), "{a}");
    }

    #[test]
    fn two_processes_would_have_different_prefixes() {
        let prefixes: Vec<_> = (0..4).map(|_| RequestIds::new().prefix).collect();
        assert!(prefixes.iter().any(|&prefix| prefix != prefixes[0]), "{prefixes:?}");
    }
}
