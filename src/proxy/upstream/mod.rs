//! The service behind the gate, and how a delivery is sent to it.
//!
//! # The request is made anew
//!
//! Nothing of a request that came in reaches upstream by itself. In this order,
//!
//! 1. [`rebuild_headers`] takes over what an allow-list names,
//! 2. [`UpstreamBody`] decides the body, and its [`Content`] removes the headers that no longer fit,
//! 3. [`Forwarding`] and [`Stamp`] say who came and what the gate found,
//! 4. [`PathTemplate`] makes the path,
//! 5. [`sign`] signs what will be sent, and
//! 6. [`Upstream::send`] joins the path below the URL's own and refuses one that would leave it, drops
//!    whatever frames a message or shows a credential, whoever put it into the map, and sets method
//!    (`POST`), version (HTTP/1.1), `Host` and `Content-Length`.
//!
//! # One call
//!
//! The whole call has one time limit: connecting, the second attempt, and the answer to its last
//! byte. A connection that dies *before the answer's head* is tried once more at once, on a new
//! connection: with keep-alive, upstream may close just when we send, and then nobody has read the
//! request. It may also have been read, so upstream must bear to see a delivery twice, as it must
//! anyway: hosts and the spool repeat as well (`hookgate-delivery` is the same). After the head,
//! and where no connection came about, nothing is tried again here.
//!
//! # The answer
//!
//! Redirects are not followed. Of the headers, only the content type is kept: a `Location` can hold
//! upstream's key, a `Set-Cookie` a session.
//!
//! - An answer that breaks off is a failure, also behind a 2xx: a service that dies while it answers
//!   may not have done the work.
//! - An answer that is larger than [`MAX_ANSWER`] counts by its status, and its body is left out
//!   whole; the rest is not read, and the connection not used again. Half a document would be worse
//!   than none, and a failure would send again what upstream has accepted.

mod body;
mod calls;
mod client;
mod config;
mod connect;
mod failure;
mod header;
mod sign;
mod template;
#[cfg(test)]
mod tests;

pub use self::body::{Content, ContentError, UpstreamBody};
pub use self::calls::UpstreamCalls;
pub use self::client::{MAX_ANSWER, Upstream, UpstreamAnswer, UpstreamRequest};
pub use self::config::{UpstreamConfig, UpstreamConfigError};
pub use self::connect::Connector;
pub use self::failure::{FailureKind, UpstreamFailure};
pub use self::header::{
    FORWARDING, ForwardHeaders, ForwardHeadersError, Forwarding, Stamp, is_signature,
    rebuild_headers,
};
pub use self::sign::{SigningError, sign};
pub use self::template::{
    MAX_PATH, MAX_TEMPLATE, PathTemplate, RenderError, RenderedPath, TemplateError,
    TemplateErrorKind, Values, Variable,
};
