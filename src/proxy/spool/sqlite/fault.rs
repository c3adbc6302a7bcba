//! Why a file cannot be used, and what is to be done about it.

use std::fmt;
use std::io;

use rusqlite::ErrorCode;

use super::schema::SchemaError;

/// Why a file cannot be used.
#[derive(Debug)]
pub(super) enum Fault {
    Schema(SchemaError),
    Io(io::Error),
    /// Another program reads it, so that the log cannot be emptied.
    LogInUse,
    /// A check says so.
    Damaged,
}

impl From<SchemaError> for Fault {
    fn from(error: SchemaError) -> Self {
        Self::Schema(error)
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Schema(error.into())
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Schema(SchemaError::Foreign) => f.write_str("the file is of another program"),
            Self::Schema(SchemaError::Newer) => f.write_str("the file is of a newer hookgate"),
            Self::Schema(SchemaError::Sqlite(error)) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
            Self::LogInUse => f.write_str("another program reads the file"),
            Self::Damaged => f.write_str("the file is damaged"),
        }
    }
}

impl Fault {
    pub(super) fn is_damage(&self) -> bool {
        use rusqlite::Error as E;
        match self {
            Self::Damaged => true,
            Self::Schema(SchemaError::Sqlite(error)) => match error {
                E::SqliteFailure(error, _) => {
                    matches!(error.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
                }
                E::FromSqlConversionFailure(..)
                | E::IntegralValueOutOfRange(..)
                | E::Utf8Error(..)
                | E::InvalidColumnType(..) => true,
                _ => false,
            },
            _ => false,
        }
    }

    /// Whether it may pass by itself.
    pub(super) fn is_of_the_disk(&self) -> bool {
        match self {
            Self::Schema(SchemaError::Sqlite(rusqlite::Error::SqliteFailure(error, _))) => {
                matches!(error.code, ErrorCode::DiskFull | ErrorCode::SystemIoFailure)
            }
            Self::Io(error) => {
                matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }
}
