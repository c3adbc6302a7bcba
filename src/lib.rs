//! hookgate: the gate for git webhooks.

pub mod outcome;
pub mod provider;
pub mod time;
#[cfg(feature = "watch")]
pub mod watch;
