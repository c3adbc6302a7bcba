//! hookgate: the gate for git webhooks.

pub mod form;
pub mod outcome;
pub mod provider;
pub mod repository;
pub mod secret;
pub mod source;
pub mod time;

pub mod key;

#[cfg(feature = "event")]
pub mod event;
pub mod scheme;

pub mod clock;
#[cfg(feature = "watch")]
pub mod watch;

pub mod delivery;
pub mod keystore;
pub mod switch;

pub mod gate;

#[cfg(feature = "sidecar")]
pub mod proxy;
