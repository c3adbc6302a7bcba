//! Gitea, Forgejo and Gogs, whose bodies are the same.
//!
//! - `push` with `before == after`, or with both zeros in an empty repository, is the test that the
//!   hook's page sends.
//! - `create` and `delete` have `ref_type` and a short `ref` (Forgejo's own hooks a full one), and `create`
//!   the object's id in `sha`. Gogs tells of tags and of deletions only by them, Gitea and Forgejo of
//!   deleted branches; a new tag or branch of theirs comes as `create` *and* `push`, which is harmless.
//!
//! Sources: go-gitea/gitea `modules/structs/hook.go` and `services/webhook`; gogs/gogs
//! `internal/database/actions.go`.

use http::HeaderMap;
use http::header::HeaderName;

use super::json::{self, keys};
use super::shape::{Id, RefFields, RepositoryFields, event, event_name, header};
use super::{Event, EventError, Kind};
use crate::repository::Layout;

pub(super) static GITEA: HeaderName = HeaderName::from_static("x-gitea-event");
pub(super) static FORGEJO: HeaderName = HeaderName::from_static("x-forgejo-event");
pub(super) static GOGS: HeaderName = HeaderName::from_static("x-gogs-event");

keys! {
    enum Key {
        Ref = "ref",
        RefType = "ref_type",
        Sha = "sha",
        Before = "before",
        After = "after",
        Action = "action",
        Repository = "repository",
    }
}

/// `name` is the header that names the event.
pub(super) fn parse<'a>(
    name: &'static HeaderName,
    headers: &HeaderMap,
    payload: &'a [u8],
) -> Result<Event<'a>, EventError> {
    let name = header(headers, name)?.ok_or(EventError::Malformed { field: name.as_str() })?;
    let mut change = RefFields::default();
    let (mut ref_type, mut action) = (None, None);
    let mut sha = Id::Unknown;
    let mut repository = RepositoryFields::default();
    json::read(payload, |key, reader| {
        match key {
            Key::Ref => change.name = reader.text()?,
            Key::RefType => ref_type = reader.text()?,
            Key::Sha => sha = Id::read(reader)?,
            Key::Before => change.old = Id::read(reader)?,
            Key::After => change.new = Id::read(reader)?,
            Key::Action => action = reader.text()?,
            Key::Repository => repository = RepositoryFields::read(reader, "repository")?,
        }
        Ok(())
    })?;
    let kind = match name {
        "push" if change.old == change.new && change.old != Id::Unknown => Kind::Ping,
        "push" | "create" | "delete" => Kind::Push,
        "pull_request" | "pull_request_sync" => Kind::PullRequest,
        _ => Kind::Other,
    };
    let prefix = match (name, ref_type.as_deref()) {
        ("push", _) | (_, Some("branch")) => Some("refs/heads/"),
        (_, Some("tag")) => Some("refs/tags/"),
        _ => None,
    };
    match name {
        "create" => {
            change.created = true;
            change.old = Id::None;
            change.new = sha;
        }
        "delete" => {
            change.deleted = true;
            change.new = Id::None;
        }
        _ => {}
    }
    let refs = match (kind, prefix) {
        (Kind::Push, Some(prefix)) => change.change(prefix).into_iter().collect(),
        _ => Vec::new(),
    };
    let name = event_name(name, &["push", "create", "delete", "pull_request"]);
    event(kind, name, action, repository.into_repository(Layout::Plain), refs, "repository")
}
