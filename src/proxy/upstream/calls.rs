//! What is known of a service from the calls to it.

use std::error::Error;
use std::sync::{Mutex, PoisonError};

use super::client::UpstreamAnswer;
use super::failure::UpstreamFailure;
use crate::clock::{Clock, SystemClock};
use crate::proxy::telemetry::printable;
use crate::time::Timestamp;

/// How the last calls to a service went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UpstreamCalls {
    /// When it last answered 2xx.
    pub last_success: Option<Timestamp>,
    /// When it last answered something else or nothing, and what that was, in words for an operator.
    pub last_failure: Option<(Timestamp, String)>,
}

/// The same, as calls end.
#[derive(Debug, Default)]
pub(super) struct Calls(Mutex<UpstreamCalls>);

impl Calls {
    pub(super) fn ended(&self, result: &Result<UpstreamAnswer, UpstreamFailure>) {
        let now = SystemClock.now();
        let failure = match result {
            Ok(answer) if answer.status.is_success() => None,
            Ok(answer) => Some(format!("upstream answered {}", answer.status.as_u16())),
            Err(failure) => Some(match failure.source() {
                Some(cause) => format!("{failure}: {}", printable(&cause.to_string())),
                None => failure.to_string(),
            }),
        };
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match failure {
            None => calls.last_success = Some(now),
            Some(failure) => calls.last_failure = Some((now, failure)),
        }
    }

    pub(super) fn get(&self) -> UpstreamCalls {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
