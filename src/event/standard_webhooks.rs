//! Senders that follow [Standard Webhooks](https://www.standardwebhooks.com).
//!
//! The specification puts the name of the event into `type` and what it is about into `data`. GitLab signs
//! by it too and names its events in `object_kind` and `event_name`. All else is as with
//! [generic](super::generic) senders; the body has the first word, since it is signed, and the header
//! that the configuration names the last.

use http::HeaderMap;

use super::generic::Body;
use super::shape::header_named;
use super::{Event, EventError, ParseOptions};

pub(super) fn parse<'a>(
    headers: &HeaderMap,
    payload: &'a [u8],
    options: &ParseOptions,
) -> Result<Event<'a>, EventError> {
    let body = Body::read(payload)?;
    let name = match &options.event_header {
        Some(name) if !body.has_name() => header_named(headers, name, "event header")?,
        _ => None,
    };
    body.into_event(name, options)
}
