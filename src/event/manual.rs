//! Triggers made by hand, as Git Integration for Jira documents them.
//!
//! `x-bbb-webhook-type: push` (in any case) with `{"origin": "…"}`, the address that the service knows the
//! repository by; or no header at all and `{"repository": {"git_http_url": "…"}}` or another of the fields
//! that the service matches on. Such a trigger says that something changed and not what, so it is a push of
//! unknown refs. The origin may be any text: if it is no address, it is its own name.
//!
//! Sources: gitkraken/git-integration-for-jira-self-managed-docs, "Adding webhooks for Gerrit" and "Creating
//! reindex triggers for a single repository".

use http::HeaderMap;
use http::header::HeaderName;

use super::generic::Body;
use super::shape::{event, event_name, header};
use super::{Event, EventError, Kind};

static HEADER: HeaderName = HeaderName::from_static("x-bbb-webhook-type");

pub(super) fn parse<'a>(headers: &HeaderMap, payload: &'a [u8]) -> Result<Event<'a>, EventError> {
    let name = header(headers, &HEADER)?.unwrap_or_default();
    let is_push = name.is_empty() || name.eq_ignore_ascii_case("push");
    let kind = if is_push { Kind::Push } else { Kind::Other };
    let mut body = Body::read(payload)?;
    let repository = body.origin().or_else(|| body.repository());
    event(kind, event_name(name, &["", "push"]), None, repository, Vec::new(), "origin")
}
