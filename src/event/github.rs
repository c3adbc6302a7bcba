//! GitHub, GitHub Enterprise Server and GitBucket.
//!
//! `X-GitHub-Event` names the event. `push` is the only one that tells of a change: `create` and
//! `delete` come beside it. A ping of an organisation's hook has no repository.
//!
//! Source: docs.github.com, "Webhook events and payloads".

use http::HeaderMap;
use http::header::HeaderName;

use super::json::{self, keys};
use super::shape::{Id, RefFields, RepositoryFields, event, event_name, header};
use super::{Event, EventError, Kind};
use crate::repository::Layout;

static HEADER: HeaderName = HeaderName::from_static("x-github-event");

keys! {
    enum Key {
        Ref = "ref",
        Before = "before",
        After = "after",
        Created = "created",
        Deleted = "deleted",
        Forced = "forced",
        Action = "action",
        Repository = "repository",
    }
}

pub(super) fn parse<'a>(headers: &HeaderMap, payload: &'a [u8]) -> Result<Event<'a>, EventError> {
    let name = header(headers, &HEADER)?.ok_or(EventError::Malformed { field: HEADER.as_str() })?;
    let mut change = RefFields::default();
    let mut action = None;
    let mut repository = RepositoryFields::default();
    json::read(payload, |key, reader| {
        match key {
            Key::Ref => change.name = reader.text()?,
            Key::Before => change.old = Id::read(reader)?,
            Key::After => change.new = Id::read(reader)?,
            Key::Created => change.created = reader.flag()?,
            Key::Deleted => change.deleted = reader.flag()?,
            Key::Forced => change.forced = reader.flag()?,
            Key::Action => action = reader.text()?,
            Key::Repository => repository = RepositoryFields::read(reader, "repository")?,
        }
        Ok(())
    })?;
    let kind = match name {
        "push" => Kind::Push,
        "pull_request" => Kind::PullRequest,
        "ping" => Kind::Ping,
        _ => Kind::Other,
    };
    let refs = match kind {
        Kind::Push => change.change("refs/heads/").into_iter().collect(),
        _ => Vec::new(),
    };
    let name = event_name(name, &["push", "pull_request", "ping"]);
    event(kind, name, action, repository.into_repository(Layout::Plain), refs, "repository")
}
