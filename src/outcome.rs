//! The one word that says what became of a delivery.
//!
//! It is the `hookgate-outcome` header of every answer that hookgate makes, the label of the
//! metrics and the field of the audit record.

use std::fmt;

use http::StatusCode;
use http::header::HeaderName;

/// The header that carries the [`Outcome`].
pub const OUTCOME_HEADER: HeaderName = HeaderName::from_static("hookgate-outcome");

macro_rules! outcomes {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:ident;)*) => {
        /// What became of a delivery.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Outcome {
            $($(#[$doc])* $name,)*
        }

        impl Outcome {
            /// Every outcome.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word, such as `set-aside`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The status that the answer has unless a hook's configuration says otherwise.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }
        }
    };
}

outcomes! {
    /// Sent upstream, which took it.
    Forwarded = "forwarded", OK;
    /// Printed, since no upstream is named.
    Printed = "printed", ACCEPTED;
    /// In the spool, to be sent.
    Queued = "queued", ACCEPTED;
    /// Refused by upstream and kept among the dead letters.
    SetAside = "set-aside", ACCEPTED;
    /// Held back; a later one with the same key will go.
    Coalesced = "coalesced", ACCEPTED;
    /// The same delivery was accepted before.
    Duplicate = "duplicate", OK;
    /// Authentic, but not wanted.
    Ignored = "ignored", OK;
    /// A ping or test, answered by the gate itself.
    Pong = "pong", OK;
    /// The hook is switched off.
    Disabled = "disabled", FORBIDDEN;
    /// The source may not call the hook.
    Forbidden = "forbidden", FORBIDDEN;
    /// No credential, or not a good one.
    Unauthorized = "unauthorized", UNAUTHORIZED;
    /// No hook has this path.
    NotFound = "not-found", NOT_FOUND;
    /// The hook does not take this method.
    Method = "method", METHOD_NOT_ALLOWED;
    /// The body is larger than the limit.
    TooLarge = "too-large", PAYLOAD_TOO_LARGE;
    /// The body did not come in time.
    Timeout = "timeout", REQUEST_TIMEOUT;
    /// The body has a media type that the hook does not take.
    Unsupported = "unsupported", UNSUPPORTED_MEDIA_TYPE;
    /// The request is not what it claims to be.
    Malformed = "malformed", BAD_REQUEST;
    /// Too much was refused from one source.
    RateLimited = "rate-limited", TOO_MANY_REQUESTS;
    /// A limit of the gate is reached.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE;
    /// Upstream is down, late or refuses, and there is no spool.
    UpstreamFailed = "upstream-failed", BAD_GATEWAY;
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_a_header_value_and_stands_once() {
        let mut words: Vec<_> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
        assert!(words.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Outcome::ALL.len());
    }
}
