//! A tower layer behind the gate that brings bursts of pushes together, as Git Integration for Jira does with its
//! *Min. repository reindex interval*.
//!
//! ```
//! use std::time::Duration;
//!
//! use hookgate::coalesce::CoalesceLayer;
//! use hookgate::gate::GateLayer;
//! use hookgate::key::{Key, Keyring};
//! use hookgate::keystore::KeyStore;
//! use hookgate::pace::Pace;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key = Key::plain("2026-11", "sdf34tGdfgGDG345g3y0045TYG23te37").ok_or("no key")?;
//! let keys = KeyStore::fixed(Keyring::single(key));
//! let gate = GateLayer::builder(keys).read_events(true).build()?;
//! let coalesce = CoalesceLayer::new(Pace::new(Duration::from_secs(3)));
//! // For axum: `Router::new().route(…).layer((gate, coalesce))`.
//! let layers = (gate, coalesce.clone());
//! // And when the server has stopped: `coalesce.drain().await`.
//! # let _ = layers;
//! # Ok(())
//! # }
//! ```
//!
//! # What becomes of a delivery
//!
//! The rules are those of [`pace`](crate::pace).
//!
//! 1. What has no [event](crate::delivery::Delivery::event) or no repository passes through as it is: the gate must
//!    be told to [read events](crate::gate::GateBuilder::read_events), or have rules.
//! 2. The first of its repository and refs goes at once, and the host hears what the service answered. If that is an
//!    error, a 5xx, or a 408, 425 or 429, it does not eat the interval. It does not either if the host hangs up.
//! 3. What comes within the interval is answered 202 [`coalesced`](crate::outcome::Outcome::Coalesced), and the latest
//!    of them goes when the interval ends, never later than [`Pace::max_wait`](crate::pace::Pace::max_wait) for the
//!    interval's sake.
//! 4. A held one that fails so is tried again after 1 s, then 2 s, and so on up to a minute, until the service takes it or a
//!    newer one goes in its place: the host was told that it would. Any other answer is the service's last word.
//! 5. Memory is bounded, by [`Pace::max_held`](crate::pace::Pace::max_held) and by the bytes of the bodies. What would
//!    be more is sent at once, so it can overtake an older one that is held.
//!
//! What is held is in memory alone: [`CoalesceLayer::drain`] sends it before the process ends.
//!
//! # As a middleware
//!
//! - It stands directly behind the gate, whose bodies it takes: `(gate, coalesce)` is such a pair. A held delivery
//!   needs a body that can be sent later, and more than once.
//! - Whatever one layer is put before shares one pace, such as the routes of a hook with and without a URL key.
//! - It is always ready. The inner service's readiness is claimed by what is sent, so one that is held takes no
//!   place in a concurrency limit.
//! - Held deliveries are sent by tasks of the Tokio runtime in which they came, with the extensions that they came
//!   with. Such a task ends as soon as nothing is held.

mod hold;
mod layer;
mod service;

#[cfg(feature = "sidecar")]
pub(crate) use hold::{Hold, is_passing, retry_pause};
pub use layer::{CoalesceBuilder, CoalesceLayer};
pub use service::Coalesce;
#[cfg(feature = "sidecar")]
pub(crate) use service::coalesce_key;
