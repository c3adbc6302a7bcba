//! GitLab: project, group and system hooks.
//!
//! The body says what it is, in `object_kind` and, for system hooks (whose `X-Gitlab-Event` is always
//! `System Hook`), in `event_name`; so it has the first word and the header the last, for hooks whose
//! body is made by a template. There are no flags for created and deleted, only zeros.
//! `repository_update` of a system hook comes once per push, with all refs in `changes`, and has no
//! `repository`, only `project`.
//!
//! Sources: docs.gitlab.com, "Webhook events" and "System hooks".

use std::borrow::Cow;

use http::HeaderMap;
use http::header::HeaderName;

use super::json::{self, Reader, keys};
use super::shape::{Id, RefFields, RefList, RepositoryFields, event, event_name, header};
use super::{Event, EventError, Kind};
use crate::repository::Layout;

static HEADER: HeaderName = HeaderName::from_static("x-gitlab-event");

keys! {
    enum Key {
        ObjectKind = "object_kind",
        EventName = "event_name",
        Ref = "ref",
        Before = "before",
        After = "after",
        Changes = "changes",
        ObjectAttributes = "object_attributes",
        Project = "project",
        Repository = "repository",
    }
}

keys! {
    enum AttributeKey {
        Action = "action",
    }
}

keys! {
    enum ChangeKey {
        Ref = "ref",
        Before = "before",
        After = "after",
    }
}

pub(super) fn parse<'a>(headers: &HeaderMap, payload: &'a [u8]) -> Result<Event<'a>, EventError> {
    let header = header(headers, &HEADER)?;
    let (mut object_kind, mut event_name_) = (None, None);
    let mut change = RefFields::default();
    let mut changes = RefList::new();
    let mut action = None;
    let mut project = RepositoryFields::default();
    let mut repository = RepositoryFields::default();
    json::read(payload, |key, reader| {
        match key {
            Key::ObjectKind => object_kind = reader.text()?,
            Key::EventName => event_name_ = reader.text()?,
            Key::Ref => change.name = reader.text()?,
            Key::Before => change.old = Id::read(reader)?,
            Key::After => change.new = Id::read(reader)?,
            Key::Changes => read_changes(reader, &mut changes)?,
            Key::ObjectAttributes => {
                reader.object("object_attributes", |AttributeKey::Action, reader| {
                    action = reader.text()?;
                    Ok(())
                })?;
            }
            Key::Project => project = RepositoryFields::read(reader, "project")?,
            Key::Repository => repository = RepositoryFields::read(reader, "repository")?,
        }
        Ok(())
    })?;
    let told = object_kind.or(event_name_);
    let word =
        told.as_deref().or(header).ok_or(EventError::Malformed { field: HEADER.as_str() })?;
    let (kind, refs) = match word {
        "push" | "tag_push" | "Push Hook" | "Tag Push Hook" => {
            (Kind::Push, change.change("refs/heads/").into_iter().collect())
        }
        "repository_update" => (Kind::Push, changes.into_refs()),
        "merge_request" | "Merge Request Hook" => (Kind::PullRequest, Vec::new()),
        _ => (Kind::Other, Vec::new()),
    };
    let name: Cow<'a, str> = match header {
        Some("System Hook") | None => told.unwrap_or(Cow::Borrowed("System Hook")),
        Some(name) => event_name(name, &["Push Hook", "Tag Push Hook", "Merge Request Hook"]),
    };
    let repository = project.or(repository).into_repository(Layout::Plain);
    event(kind, name, action, repository, refs, "project")
}

fn read_changes<'a>(reader: &mut Reader<'a>, changes: &mut RefList<'a>) -> Result<(), EventError> {
    reader.elements(|reader| {
        let mut change = RefFields::default();
        reader.object("changes[]", |key, reader| {
            match key {
                ChangeKey::Ref => change.name = reader.text()?,
                ChangeKey::Before => change.old = Id::read(reader)?,
                ChangeKey::After => change.new = Id::read(reader)?,
            }
            Ok(())
        })?;
        changes.push(change.change("refs/heads/"));
        Ok(())
    })?;
    Ok(())
}
