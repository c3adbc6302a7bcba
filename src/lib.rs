//! hookgate: the gate for git webhooks.

pub mod outcome;
pub mod provider;
pub mod repository;
pub mod time;

#[cfg(feature = "event")]
pub mod event;
