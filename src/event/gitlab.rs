//! GitLab: project, group and system hooks.
//!
//! The body says what it is, in `object_kind` and, for system hooks (whose `X-Gitlab-Event` is
//! always `System Hook`), in `event_name`; so it has the first word and the header the last, for
//! hooks whose body is made by a template. There are no flags for created and deleted, only zeros.
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
            Key::Project => project.read(reader, "project")?,
            Key::Repository => repository.read(reader, "repository")?,
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{A, B, ZERO, key, read, refs};
    use super::*;
    use crate::provider::Provider;

    const PUSH: (&str, &str) = ("x-gitlab-event", "Push Hook");
    const SYSTEM: (&str, &str) = ("x-gitlab-event", "System Hook");

    fn project() -> Value {
        json!({
            "path_with_namespace": "acme/tools/widget",
            "git_http_url": "https://gitlab.example.com/acme/tools/widget.git",
            "git_ssh_url": "git@gitlab.example.com:acme/tools/widget.git",
            "url": "git@gitlab.example.com:acme/tools/widget.git",
            "homepage": "https://gitlab.example.com/acme/tools/widget",
        })
    }

    #[test]
    fn pushes_of_branches_and_tags_are_told_by_zeros_alone() {
        for (header, kind, name, before, after, expected) in [
            ("Push Hook", "push", "refs/heads/main", A, B, "refs/heads/main Branch Updated a b"),
            ("Push Hook", "push", "refs/heads/x", ZERO, B, "refs/heads/x Branch Created - b"),
            ("Push Hook", "push", "refs/heads/x", A, ZERO, "refs/heads/x Branch Deleted a -"),
            ("Tag Push Hook", "tag_push", "refs/tags/v1", ZERO, B, "refs/tags/v1 Tag Created - b"),
            ("Tag Push Hook", "tag_push", "refs/tags/v1", A, ZERO, "refs/tags/v1 Tag Deleted a -"),
        ] {
            let body = json!({
                "object_kind": kind, "event_name": kind, "ref": name, "before": before, "after": after,
                "project": project(), "checkout_sha": null,
            });
            let event = read(Provider::Gitlab, ("x-gitlab-event", header), &body).unwrap();
            assert_eq!((event.kind, &*event.name), (Kind::Push, header));
            assert_eq!(key(&event), "gitlab.example.com/acme/tools/widget");
            assert_eq!(refs(&event), [expected]);
        }
    }

    #[test]
    fn a_system_hook_says_in_its_body_what_it_is() {
        let body = json!({"event_name": "tag_push", "ref": "refs/tags/v1", "before": ZERO, "after": B, "project": project()});
        let event = read(Provider::Gitlab, SYSTEM, &body).unwrap();
        assert_eq!((event.kind, &*event.name), (Kind::Push, "tag_push"));
        assert_eq!(refs(&event), ["refs/tags/v1 Tag Created - b"]);
        let body = json!({"object_kind": "merge_request", "object_attributes": {"action": "open"}, "project": project()});
        let event = read(Provider::Gitlab, SYSTEM, &body).unwrap();
        assert_eq!((event.kind, event.action.as_deref()), (Kind::PullRequest, Some("open")));
        for name in ["project_create", "user_create", "key_destroy"] {
            let event = read(Provider::Gitlab, SYSTEM, &json!({"event_name": name})).unwrap();
            assert_eq!((event.kind, &*event.name), (Kind::Other, name));
        }
        assert_eq!(read(Provider::Gitlab, SYSTEM, &json!({})).unwrap().kind, Kind::Other);
    }

    #[test]
    fn a_repository_update_tells_all_refs_of_a_push() {
        let body = json!({
            "event_name": "repository_update", "project": project(), "refs": ["refs/heads/main", "refs/tags/v1"],
            "changes": [
                {"ref": "refs/heads/main", "before": A, "after": B},
                {"ref": "refs/tags/v1", "before": ZERO, "after": B},
            ],
        });
        let event = read(Provider::Gitlab, SYSTEM, &body).unwrap();
        assert_eq!(event.kind, Kind::Push);
        assert_eq!(
            refs(&event),
            ["refs/heads/main Branch Updated a b", "refs/tags/v1 Tag Created - b"]
        );
        let mut broken = body;
        broken["changes"][1]["ref"] = json!(1);
        let event = read(Provider::Gitlab, SYSTEM, &broken).unwrap();
        assert_eq!((event.kind, event.refs.len()), (Kind::Push, 0), "all refs are told or none");
    }

    #[test]
    fn the_body_has_the_first_word_and_the_header_the_last() {
        let body = json!({"object_kind": "note", "project": project()});
        assert_eq!(read(Provider::Gitlab, PUSH, &body).unwrap().kind, Kind::Other);
        let template = json!({"project": project()});
        assert_eq!(read(Provider::Gitlab, PUSH, &template).unwrap().kind, Kind::Push);
        assert_eq!(
            read(Provider::Gitlab, ("x-other", "x"), &template),
            Err(EventError::Malformed { field: "x-gitlab-event" })
        );
    }

    #[test]
    fn the_older_repository_fills_what_the_project_does_not_say() {
        let body = json!({
            "object_kind": "push", "ref": "refs/heads/main", "before": A, "after": B,
            "repository": {"git_http_url": "http://gitlab.example.com:8080/acme/widget.git", "homepage": "http://x.example"},
            "project": null,
        });
        let event = read(Provider::Gitlab, PUSH, &body).unwrap();
        assert_eq!(key(&event), "gitlab.example.com:8080/acme/widget");
        let body = json!({"object_kind": "push", "project": {}, "repository": []});
        assert_eq!(
            read(Provider::Gitlab, PUSH, &body),
            Err(EventError::Malformed { field: "project" })
        );
    }

    #[test]
    fn a_group_may_be_called_scm() {
        let body = json!({"object_kind": "push", "project": {"git_http_url": "https://gitlab.example.com/scm/tools/widget.git"}});
        let event = read(Provider::Gitlab, PUSH, &body).unwrap();
        assert_eq!(key(&event), "gitlab.example.com/scm/tools/widget");
    }
}
