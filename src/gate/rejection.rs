//! The answers that the gate gives itself.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};

use super::body::ResponseBody;
use super::refusals::seconds;
use crate::delivery::Delivery;
use crate::outcome::{OUTCOME_HEADER, Outcome};
use crate::provider::Provider;
use crate::scheme::{PayloadError, Refusal};

/// Why a request did not reach the inner service.
///
/// It is in the extensions of the answer, for logs and metrics. The sender sees the
/// [outcome](Self::outcome) and never the [reason](Self::reason): all that lack a good credential get
/// the same answer.
#[derive(Clone, Debug)]
pub struct Rejection {
    outcome: Outcome,
    reason: Cow<'static, str>,
    status: StatusCode,
    provider: Option<Provider>,
    delivery: Option<Delivery>,
    allow: Option<&'static str>,
    retry_after: Option<Duration>,
    bytes: u64,
}

impl Rejection {
    pub(crate) fn new(outcome: Outcome, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            outcome,
            reason: reason.into(),
            status: outcome.status(),
            provider: None,
            delivery: None,
            allow: None,
            retry_after: None,
            bytes: 0,
        }
    }

    pub(super) fn method(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::new(Outcome::Method, "method not taken by this hook") }
    }

    pub(super) fn disabled(status: StatusCode) -> Self {
        Self { status, ..Self::new(Outcome::Disabled, "hook is disabled") }
    }

    pub(super) fn provider(self, provider: Option<Provider>) -> Self {
        Self { provider, ..self }
    }

    pub(crate) fn delivery(self, delivery: Delivery) -> Self {
        Self { provider: Some(delivery.provider()), delivery: Some(delivery), ..self }
    }

    pub(super) fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    pub(super) fn read(self, bytes: usize) -> Self {
        Self { bytes: bytes as u64, ..self }
    }

    /// How many bytes of the body were read before this was clear.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What became of the request.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Why, in words for a log. Holds nothing that the sender chose.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Whose format the request has, as far as that was looked at. Not verified unless there is a
    /// [delivery](Self::authentic).
    pub fn provider_claimed(&self) -> Option<Provider> {
        self.provider
    }

    /// The delivery, if it is authentic: one that was ignored, or a ping.
    pub fn authentic(&self) -> Option<&Delivery> {
        self.delivery.as_ref()
    }

    /// The answer, with the rejection in its extensions.
    pub(crate) fn into_response<B>(self) -> Response<ResponseBody<B>> {
        let (media_type, body) = if self.status.is_success() {
            ("application/json", self.json().into())
        } else {
            ("application/problem+json", self.problem())
        };
        let mut response = Response::new(ResponseBody::own(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.reserve(4);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(OUTCOME_HEADER, HeaderValue::from_static(self.outcome.as_str()));
        match self.outcome {
            Outcome::Unauthorized => {
                // RFC 9110 section 11.6.1 asks for a challenge; no registered scheme fits them all.
                let challenge = HeaderValue::from_static("Webhook realm=\"hookgate\"");
                headers.insert(WWW_AUTHENTICATE, challenge);
            }
            Outcome::Overloaded => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        if let Some(wait) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds(wait)));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        response.extensions_mut().insert(self);
        response
    }

    fn json(&self) -> String {
        let mut json = format!("{{\"outcome\":\"{}\"", self.outcome);
        if self.outcome == Outcome::Ignored {
            json.push_str(&format!(",\"rule\":\"{}\"", self.reason));
        }
        // An id needs no escape: one that did would count as not sent.
        if let Some(id) = self.delivery.as_ref().and_then(Delivery::id) {
            json.push_str(&format!(",\"delivery\":\"{id}\""));
        }
        json.push('}');
        json
    }

    /// RFC 9457. The same bytes for all that share an outcome.
    fn problem(&self) -> Bytes {
        macro_rules! problem {
            ($title:literal, $status:literal, $outcome:literal) => {
                Bytes::from_static(
                    concat!(
                        "{\"type\":\"about:blank\",\"title\":\"",
                        $title,
                        "\",\"status\":",
                        $status,
                        ",\"outcome\":\"",
                        $outcome,
                        "\"}"
                    )
                    .as_bytes(),
                )
            };
        }
        match self.outcome {
            Outcome::Unauthorized => problem!("Unauthorized", 401, "unauthorized"),
            Outcome::Forbidden => problem!("Forbidden", 403, "forbidden"),
            Outcome::RateLimited => problem!("Too Many Requests", 429, "rate-limited"),
            Outcome::TooLarge => problem!("Payload Too Large", 413, "too-large"),
            Outcome::Timeout => problem!("Request Timeout", 408, "timeout"),
            Outcome::Overloaded => problem!("Service Unavailable", 503, "overloaded"),
            _ => {
                let title = self.status.canonical_reason().unwrap_or_default();
                let (status, outcome) = (self.status.as_u16(), self.outcome);
                Bytes::from(format!(
                    "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status},\
                     \"outcome\":\"{outcome}\"}}"
                ))
            }
        }
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::new(Outcome::Unauthorized, refusal.as_str())
    }
}

impl From<PayloadError> for Rejection {
    fn from(error: PayloadError) -> Self {
        let outcome = match error {
            PayloadError::MediaType | PayloadError::ContentEncoding => Outcome::Unsupported,
            PayloadError::Form(_) => Outcome::Malformed,
        };
        Self::new(outcome, error.to_string())
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.outcome, self.reason)
    }
}

impl std::error::Error for Rejection {}
