//! Keys, the rings they come on, and the text files that hold them.
//!
//! A [`Key`] is one secret with a name, its uses, the time in which it is active and the
//! repositories that it vouches for. A [`Keyring`] is an immutable set of keys: a change of a key
//! file makes a new ring, so a request sees either all of the old file or all of the new one.
//!
//! # The key file
//!
//! Plain text in UTF-8, one key a line, then its options; `#` begins a comment:
//!
//! ```text
//! # key                              options
//! sdf34tGdfgGDG345g3y0045TYG23te37   name=2026-11 use=sign
//! Qm9vdHN0cmFwS2V5Rm9yT2xkSG9va3M    name=2026-05 use=sign until=2026-12-01T00:00:00Z
//! U2VwYXJhdGVLZXlGb3JVUkxz           name=urls use=url
//! whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q= name=gitlab
//! base64:SXQncyBhIFNlY3JldCB0byBFdmVyeWJvZHk=   name=old-github
//! Tm90T3VyUmVhbEtleUJ1dEFuRXhhbXBsZQ name=acme repositories=github.com/acme/*
//! ```
//!
//! | option | meaning | default |
//! |---|---|---|
//! | `name=` | 1 to 64 of `A-Z a-z 0-9 . _ -`; what logs and metrics call the key | `line-N` |
//! | `use=` | `sign`, `token`, `url`, several with commas | all that the kind of key can |
//! | `from=`, `until=` | RFC 3339; active from the first until just before the second | always |
//! | `repositories=` | patterns with commas; the key vouches only for these | all |
//! | `weak=allow` | takes a key of fewer than 16 bytes | refused |
//!
//! Three kinds of key:
//!
//! - plain: 1 to 255 characters that stand in a URL path segment as they are, RFC 3986 *unreserved*
//!   and *sub-delims* ([section 3.3]), but not `.` or `..`;
//! - `whsec_` and base64 of 24 to 64 bytes: a signing token of Standard Webhooks or GitLab, good for
//!   that scheme alone;
//! - `base64:` and base64 of any other secret that a host already holds: signs and is a token, but
//!   is never a URL key.
//!
//! At most 64 KiB, 64 lines, and eight signing keys that are active at the same time. The same key
//! twice or the same name twice is an error, and so is a file without a key. An error tells line
//! and column and never a piece of the line's text.
//!
//! # Changing it
//!
//! [`rotate`] and [`revoke`] change a file's text as a careful person would: every line that is not
//! concerned stays as it is, byte for byte, comments and order included.
//!
//! [section 3.3]: https://www.rfc-editor.org/rfc/rfc3986#section-3.3

mod edit;
mod file;
mod generate;
mod keyring;
mod material;

pub use edit::{EditError, Rotated, revoke, rotate};
pub use file::{KeyFileError, KeyFileErrorKind, MAX_FILE_BYTES};
pub use generate::generate;
pub use keyring::Keyring;
pub use material::{Key, KeyKind, KeyState, Use, Uses};
