//! hookgate: the gate for git webhooks.

pub mod outcome;
pub mod provider;
#[cfg(feature = "sidecar")]
pub mod proxy;
pub mod source;
pub mod time;
