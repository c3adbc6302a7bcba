//! Why a call to upstream brought no answer.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use http::StatusCode;

/// The error of a call to upstream.
///
/// Display says what happened in one sentence; what lies behind it is the
/// [source](Error::source). Neither shows a path, a header or a body.
#[derive(Debug)]
pub struct UpstreamFailure {
    pub(super) kind: FailureKind,
    pub(super) status: Option<StatusCode>,
    pub(super) elapsed: Duration,
    pub(super) attempts: u32,
    pub(super) source: Option<Box<dyn Error + Send + Sync>>,
}

/// What went wrong in a call to upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// No connection came about: refused, unreachable, not found, or too slow to be made.
    Connect,
    /// The two sides could not agree on TLS, or upstream's certificate does not hold.
    Tls,
    /// The connection ended before the answer did.
    Closed,
    /// The time of the call was up.
    TimedOut,
    /// What came back is not HTTP.
    Malformed,
    /// The path would leave that of the upstream URL, or is too long. Nothing was sent, and to try
    /// again is useless.
    Path,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: &[Self] =
        &[Self::Connect, Self::Tls, Self::Closed, Self::TimedOut, Self::Malformed, Self::Path];

    /// The word in metrics and logs, such as `timed-out`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Closed => "closed",
            Self::TimedOut => "timed-out",
            Self::Malformed => "malformed",
            Self::Path => "path",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl UpstreamFailure {
    /// What went wrong.
    pub const fn kind(&self) -> FailureKind {
        self.kind
    }

    /// Whether upstream was too late, which a host is told as 504 and everything else as 502.
    pub const fn is_late(&self) -> bool {
        matches!(self.kind, FailureKind::TimedOut)
    }

    /// The status of the answer, if its head came and the rest did not.
    pub const fn status(&self) -> Option<StatusCode> {
        self.status
    }

    /// What the call took, every attempt together.
    pub const fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// How often the request was sent or tried to be sent: 1 or 2, or 0 for
    /// [`Path`](FailureKind::Path).
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }
}

impl fmt::Display for UpstreamFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            FailureKind::Connect => "no connection to upstream",
            FailureKind::Tls => "no TLS connection to upstream",
            FailureKind::Closed if self.status.is_some() => {
                "upstream closed the connection within its answer"
            }
            FailureKind::Closed => "upstream closed the connection before its answer",
            FailureKind::TimedOut => "upstream did not answer in time",
            FailureKind::Malformed => "upstream did not answer in HTTP",
            FailureKind::Path => "the path would leave that of the upstream URL, or is too long",
        })
    }
}

impl Error for UpstreamFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// What an error of the HTTP client means, where a connection was asked for or not.
pub(super) fn kind_of(error: &(dyn Error + 'static), connecting: bool) -> FailureKind {
    let mut kind = if connecting { FailureKind::Connect } else { FailureKind::Closed };
    for cause in causes(error) {
        if cause.is::<rustls::Error>() {
            return FailureKind::Tls;
        }
        if let Some(cause) = cause.downcast_ref::<hyper::Error>()
            && cause.is_parse()
        {
            kind = FailureKind::Malformed;
        }
    }
    kind
}

/// The error and all that lies behind it.
///
/// An `io::Error` hides the error that it wraps from `source`, which would lead past it.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref().map(|wrapped| wrapped as &(dyn Error + 'static)),
        None => error.source(),
    })
}
