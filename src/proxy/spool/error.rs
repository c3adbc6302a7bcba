//! Why a spool did not do what it was asked.

use std::fmt;
use std::sync::Arc;

/// The error of a call to a [`Spool`](super::Spool).
#[derive(Clone, Debug)]
pub struct SpoolError {
    kind: SpoolErrorKind,
    detail: Option<Arc<str>>,
}

/// What kind of [`SpoolError`] it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpoolErrorKind {
    /// No room for another delivery. What is there can still be leased, sent and removed.
    Full(Limit),
    /// The store cannot be used at present; it tries to recover by itself.
    Failed,
    /// The store was closed.
    Closed,
    /// The lease ended, or somebody else holds the delivery by now.
    LeaseLost,
    /// A delivery is stored in a way that this program does not understand.
    Unreadable,
}

/// What there is no more room in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// The bytes that the spool may hold.
    Bytes,
    /// The space of the file system that is to stay free.
    FreeSpace,
}

impl SpoolError {
    /// What kind it is.
    pub fn kind(&self) -> SpoolErrorKind {
        self.kind
    }

    /// With what the store itself says, which holds nothing of a delivery.
    pub fn with_detail(kind: SpoolErrorKind, detail: impl Into<Arc<str>>) -> Self {
        Self { kind, detail: Some(detail.into()) }
    }
}

impl From<SpoolErrorKind> for SpoolError {
    fn from(kind: SpoolErrorKind) -> Self {
        Self { kind, detail: None }
    }
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            SpoolErrorKind::Full(limit) => write!(f, "the spool is full: {limit}"),
            SpoolErrorKind::Failed => f.write_str("the spool cannot be used at present"),
            SpoolErrorKind::Closed => f.write_str("the spool is closed"),
            SpoolErrorKind::LeaseLost => f.write_str("the lease is no longer held"),
            SpoolErrorKind::Unreadable => f.write_str("a stored delivery cannot be read"),
        }?;
        self.detail.as_deref().map_or(Ok(()), |detail| write!(f, ": {detail}"))
    }
}

impl std::error::Error for SpoolError {}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "it holds as much as it may",
            Self::FreeSpace => "the file system has too little free space",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_it_is_and_what_the_store_said() {
        let plain = SpoolError::from(SpoolErrorKind::Full(Limit::FreeSpace));
        assert_eq!(
            plain.to_string(),
            "the spool is full: the file system has too little free space"
        );
        let detailed = SpoolError::with_detail(SpoolErrorKind::Failed, "disk I/O error");
        assert_eq!(detailed.to_string(), "the spool cannot be used at present: disk I/O error");
        assert_eq!(detailed.kind(), SpoolErrorKind::Failed);
    }
}
