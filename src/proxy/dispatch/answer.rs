//! What the host is told.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

use super::breaker::Verdict;
use crate::coalesce::is_passing;
use crate::delivery::Delivery;
use crate::outcome::{OUTCOME_HEADER, Outcome};
use crate::proxy::upstream::{FailureKind, UpstreamAnswer, UpstreamFailure};

/// What became of a delivery; an extension of the answer.
#[derive(Clone, Debug)]
pub struct Dispatched {
    /// The delivery.
    pub delivery: Delivery,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, if it went wrong.
    pub reason: Option<Cow<'static, str>>,
    /// How long upstream took, every attempt together.
    pub upstream_duration: Option<Duration>,
    /// The size of the body that came in.
    pub bytes: u64,
}

pub(super) struct Answer {
    pub(super) outcome: Outcome,
    status: StatusCode,
    pub(super) reason: Option<Cow<'static, str>>,
    pub(super) upstream_duration: Option<Duration>,
    /// When upstream wants to hear of it again, if it said so.
    pub(super) retry_after: Option<Duration>,
    /// Whether it would fail in the same way whenever it is tried.
    pub(super) is_final: bool,
    /// In place of our own body.
    body: Option<(Bytes, Option<HeaderValue>)>,
}

impl Answer {
    pub(super) fn new(outcome: Outcome) -> Self {
        Self {
            outcome,
            status: outcome.status(),
            reason: None,
            upstream_duration: None,
            retry_after: None,
            is_final: false,
            body: None,
        }
    }

    pub(super) fn failed(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: Some(reason.into()), ..Self::new(Outcome::UpstreamFailed) }
    }

    /// It is in the spool, and why it is there.
    pub(super) fn queued(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: Some(reason.into()), ..Self::new(Outcome::Queued) }
    }

    /// There is no room for it.
    pub(super) fn overloaded(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: Some(reason.into()), ..Self::new(Outcome::Overloaded) }
    }

    /// The same news under another outcome.
    pub(super) fn turned(self, outcome: Outcome) -> Self {
        let Self { reason, upstream_duration, .. } = self;
        Self { reason, upstream_duration, ..Self::new(outcome) }
    }

    /// One that no other attempt can change.
    pub(super) fn refused(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { is_final: true, ..Self::failed(reason) }
    }

    pub(super) fn of_answer(answer: UpstreamAnswer) -> Self {
        let upstream_duration = Some(answer.elapsed);
        if answer.status.is_success() {
            let body = Some((answer.body, answer.content_type));
            return Self { upstream_duration, body, ..Self::new(Outcome::Forwarded) };
        }
        let reason = format!("upstream answered {}", answer.status.as_u16());
        Self {
            upstream_duration,
            retry_after: answer.retry_after,
            is_final: !is_passing(answer.status),
            ..Self::failed(reason)
        }
    }

    pub(super) fn of_failure(failure: &UpstreamFailure) -> Self {
        let status =
            if failure.is_late() { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::BAD_GATEWAY };
        let upstream_duration = Some(failure.elapsed());
        // Such a path is none whenever it is tried.
        let is_final = failure.kind() == FailureKind::Path;
        Self { status, upstream_duration, is_final, ..Self::failed(failure.to_string()) }
    }

    /// What it says of the service.
    pub(super) fn verdict(&self) -> Verdict {
        match self.upstream_duration {
            Some(_) if self.is_success() || self.is_final => Verdict::Alive,
            Some(_) => Verdict::Down { retry_after: self.retry_after },
            None => Verdict::Unused,
        }
    }

    /// Whether whoever it was for has it now.
    pub(super) fn is_success(&self) -> bool {
        matches!(self.outcome, Outcome::Forwarded | Outcome::Printed)
    }

    pub(super) fn into_response(self, delivery: Option<(Delivery, u64)>) -> Response<Full<Bytes>> {
        let Self { outcome, status, reason, upstream_duration, body, .. } = self;
        let (body, content_type) = body.unwrap_or_else(|| {
            let (body, media_type) = if status.is_success() {
                // An id needs no escape: the delivery has none that would.
                let id = delivery.as_ref().and_then(|(delivery, _)| delivery.id());
                let id = id.map(|id| format!(",\"delivery\":\"{id}\"")).unwrap_or_default();
                (format!("{{\"outcome\":\"{outcome}\"{id}}}"), "application/json")
            } else {
                let title = status.canonical_reason().unwrap_or_default();
                let status = status.as_u16();
                let problem = format!(
                    "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status},\
                     \"outcome\":\"{outcome}\"}}"
                );
                (problem, "application/problem+json")
            };
            (body.into(), Some(HeaderValue::from_static(media_type)))
        });
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(OUTCOME_HEADER, HeaderValue::from_static(outcome.as_str()));
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, content_type);
        }
        if matches!(outcome, Outcome::UpstreamFailed | Outcome::Overloaded) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        if let Some((delivery, bytes)) = delivery {
            let dispatched = Dispatched { delivery, outcome, reason, upstream_duration, bytes };
            response.extensions_mut().insert(dispatched);
        }
        response
    }
}
