//! What the listener counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of a listener, each a relaxed atomic; all but [`active`](Self::active) only grow.
///
/// What is answered by hyper itself and not by the gate can be seen only here:
/// [`parse_errors`](Self::parse_errors) and its part [`heads_too_large`](Self::heads_too_large) are
/// HTTP/1 alone, since in HTTP/2 a malformed or oversized head ends its stream and not the
/// connection.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ListenStats {
    /// Connections accepted, refused ones included.
    pub accepted: AtomicU64,
    /// Connections open now; a gauge.
    pub active: AtomicU64,
    /// Connections refused because their source held its share already.
    pub refused_by_share: AtomicU64,
    /// Failures of `accept`, those for want of file descriptors included.
    pub accept_errors: AtomicU64,
    /// Connections refused because they had to come from a proxy and did not.
    pub refused_proxies: AtomicU64,
    /// Connections of proxies that did not begin with a PROXY header.
    pub proxy_header_failures: AtomicU64,
    /// Connections of proxies whose PROXY header took too long.
    pub proxy_header_timeouts: AtomicU64,
    /// TLS handshakes that failed.
    pub handshake_failures: AtomicU64,
    /// TLS handshakes that took too long.
    pub handshake_timeouts: AtomicU64,
    /// Connections closed because a request's head did not come in time.
    pub head_timeouts: AtomicU64,
    /// Connections closed because the client took nothing of what was written to it.
    pub write_timeouts: AtomicU64,
    /// Connections closed because what came was no HTTP/1 request: 400, 414 and 431 of hyper's own.
    pub parse_errors: AtomicU64,
    /// Those of [`parse_errors`](Self::parse_errors) where the head was too large: 431 and 414.
    pub heads_too_large: AtomicU64,
    /// Connections that were cut when the drain deadline had passed.
    pub cut: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
