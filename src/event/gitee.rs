//! Gitee.
//!
//! `X-Gitee-Event` names the event as GitLab does, the body's `hook_name` in Gitee's own way; the
//! body has the first word. The repository stands in `project` and, again, in `repository`.
//! `X-Gitee-Ping: true` is a test.
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
            Key::Project => project.read(reader, "project")?,
            Key::Repository => repository.read(reader, "repository")?,
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{A, B, ZERO, headers, key, read, refs};
    use super::*;
    use crate::provider::Provider;

    fn body(fields: Value) -> Value {
        let repository = json!({
            "full_name": "acme/widget", "path_with_namespace": "acme/widget",
            "clone_url": "https://gitee.com/acme/widget.git", "git_http_url": "https://gitee.com/acme/widget.git",
            "ssh_url": "git@gitee.com:acme/widget.git", "url": "https://gitee.com/acme/widget",
        });
        let mut body =
            json!({"repository": repository, "project": repository, "password": "", "sign": ""});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        body
    }

    #[test]
    fn pushes_of_branches_and_tags_are_told() {
        let fields = json!({"hook_name": "push_hooks", "ref": "refs/heads/x", "before": A, "after": B, "created": false});
        let event = read(Provider::Gitee, ("x-gitee-event", "Push Hook"), &body(fields)).unwrap();
        assert_eq!((event.kind, &*event.name), (Kind::Push, "Push Hook"));
        assert_eq!(key(&event), "gitee.com/acme/widget");
        assert_eq!(refs(&event), ["refs/heads/x Branch Updated a b"]);
        let fields = json!({"hook_name": "tag_push_hooks", "ref": "refs/tags/v1", "before": A, "after": ZERO, "deleted": true});
        let event = read(Provider::Gitee, ("x-other", "x"), &body(fields)).unwrap();
        assert_eq!((event.kind, &*event.name), (Kind::Push, "tag_push_hooks"));
        assert_eq!(refs(&event), ["refs/tags/v1 Tag Deleted a -"]);
    }

    #[test]
    fn the_body_has_the_first_word() {
        let fields = json!({"hook_name": "note_hooks"});
        let event = read(Provider::Gitee, ("x-gitee-event", "Push Hook"), &body(fields)).unwrap();
        assert_eq!(event.kind, Kind::Other);
        let fields = json!({"hook_name": "merge_request_hooks", "action": "open"});
        let event =
            read(Provider::Gitee, ("x-gitee-event", "Merge Request Hook"), &body(fields)).unwrap();
        assert_eq!((event.kind, event.action.as_deref()), (Kind::PullRequest, Some("open")));
        let error = read(Provider::Gitee, ("x-other", "x"), &body(json!({}))).unwrap_err();
        assert_eq!(error, EventError::Malformed { field: "x-gitee-event" });
    }

    #[test]
    fn a_test_is_told_by_its_header() {
        let text = body(json!({"hook_name": "push_hooks"})).to_string();
        for (value, kind) in [("true", Kind::Ping), ("false", Kind::Push)] {
            let headers = headers(&[("x-gitee-event", "Push Hook"), ("x-gitee-ping", value)]);
            assert_eq!(parse(&headers, text.as_bytes()).unwrap().kind, kind);
        }
    }
}
