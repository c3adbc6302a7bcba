//! Gitee.
//!
//! `X-Gitee-Event` names the event as GitLab does, the body's `hook_name` in Gitee's own way; the body has the
//! first word. The repository stands in `project` and, again, in `repository`. `X-Gitee-Ping: true` is a
//! test.
//!
//! Source: help.gitee.com, "WebHook push data format".

use http::HeaderMap;
use http::header::HeaderName;

use super::json::{self, keys};
use super::shape::{Id, RefFields, RepositoryFields, event, event_name, header};
use super::{Event, EventError, Kind};
use crate::repository::Layout;

static HEADER: HeaderName = HeaderName::from_static("x-gitee-event");
static PING_HEADER: HeaderName = HeaderName::from_static("x-gitee-ping");

keys! {
    enum Key {
        HookName = "hook_name",
        Ref = "ref",
        Before = "before",
        After = "after",
        Created = "created",
        Deleted = "deleted",
        Action = "action",
        Project = "project",
        Repository = "repository",
    }
}

pub(super) fn parse<'a>(headers: &HeaderMap, payload: &'a [u8]) -> Result<Event<'a>, EventError> {
    let header_name = header(headers, &HEADER)?;
    let is_ping = header(headers, &PING_HEADER)?.is_some_and(|v| v.eq_ignore_ascii_case("true"));
    let (mut hook_name, mut action) = (None, None);
    let mut change = RefFields::default();
    let mut project = RepositoryFields::default();
    let mut repository = RepositoryFields::default();
    json::read(payload, |key, reader| {
        match key {
            Key::HookName => hook_name = reader.text()?,
            Key::Ref => change.name = reader.text()?,
            Key::Before => change.old = Id::read(reader)?,
            Key::After => change.new = Id::read(reader)?,
            Key::Created => change.created = reader.flag()?,
            Key::Deleted => change.deleted = reader.flag()?,
            Key::Action => action = reader.text()?,
            Key::Project => project = RepositoryFields::read(reader, "project")?,
            Key::Repository => repository = RepositoryFields::read(reader, "repository")?,
        }
        Ok(())
    })?;
    let word = hook_name.as_deref().or(header_name);
    let kind = match word.ok_or(EventError::Malformed { field: HEADER.as_str() })? {
        _ if is_ping => Kind::Ping,
        "push_hooks" | "tag_push_hooks" | "Push Hook" | "Tag Push Hook" => Kind::Push,
        "merge_request_hooks" | "Merge Request Hook" => Kind::PullRequest,
        _ => Kind::Other,
    };
    let refs = match kind {
        Kind::Push => change.change("refs/heads/").into_iter().collect(),
        _ => Vec::new(),
    };
    let name = match header_name {
        Some(name) => event_name(name, &["Push Hook", "Tag Push Hook", "Merge Request Hook"]),
        None => hook_name.unwrap_or_default(),
    };
    let repository = project.or(repository).into_repository(Layout::Plain);
    event(kind, name, action, repository, refs, "repository")
}
