//! Why an operator did not get what he asked for.

use std::fmt;

use crate::proxy::spool::SpoolError;

/// The error of a call of an [`Operator`](super::Operator).
#[derive(Debug)]
pub struct ControlError {
    kind: ControlErrorKind,
    detail: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What kind of [`ControlError`] it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlErrorKind {
    /// Nobody listens on the socket.
    NotRunning,
    /// The socket may not be opened.
    Denied,
    /// The connection broke off, or what came is not what this program understands. What was asked for may
    /// have been done.
    Broken,
    /// The gate or the spool refused, for the reason that the text gives.
    Refused,
}

impl ControlError {
    /// What kind it is.
    pub fn kind(&self) -> ControlErrorKind {
        self.kind
    }

    pub(super) fn new(kind: ControlErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), source: None }
    }

    pub(super) fn because(
        self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// The answer of a gate that this program does not understand.
    pub(super) fn malformed() -> Self {
        Self::new(ControlErrorKind::Broken, "the gate gave an answer that this version cannot read")
    }
}

impl From<SpoolError> for ControlError {
    fn from(error: SpoolError) -> Self {
        Self::new(ControlErrorKind::Refused, error.to_string())
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for ControlError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
