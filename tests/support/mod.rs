//! What the test binaries share: keys, a clock, samples of deliveries, a service behind the gate,
//! and a server and a client on the wire.

#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]

mod answer;
mod clock;
mod indexer;
mod sample;
mod wire;

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

pub(crate) use answer::{Answer, ask};
pub(crate) use clock::TestClock;
pub(crate) use indexer::{Indexer, Received};
pub(crate) use sample::{Sample, schemes};
pub(crate) use wire::{Client, CountPolls, Server};

use hookgate::key::Keyring;
use hookgate::keystore::KeyStore;

/// A plain key with all uses.
pub(crate) const PLAIN: &str = "sdf34tGdfgGDG345g3y0045TYG23te37";
/// A signing token of Standard Webhooks.
pub(crate) const SIGNING: &str = "whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=";

/// The ring of a key file's text.
pub(crate) fn ring(text: &str) -> Keyring {
    Keyring::parse(text.as_bytes()).unwrap()
}

/// [`PLAIN`] by the name `plain`, and [`SIGNING`] by the name `signing`.
pub(crate) fn both_keys() -> Keyring {
    ring(&format!("{PLAIN} name=plain\n{SIGNING} name=signing\n"))
}

/// A store of [`both_keys`].
pub(crate) fn keys() -> KeyStore {
    KeyStore::fixed(both_keys())
}

/// Comes back when `condition` holds, and panics when it does not within ten seconds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "not within ten seconds: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A look at what a future gives without waiting.
pub(crate) trait NowOrNever: Future + Sized {
    /// What it gives at its first poll; it is dropped after that.
    fn now_or_never(self) -> Option<Self::Output> {
        match pin!(self).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }
}

impl<F: Future> NowOrNever for F {}
