//! hookgate: the gate for git webhooks.

pub mod outcome;
pub mod provider;
pub mod source;
pub mod time;
