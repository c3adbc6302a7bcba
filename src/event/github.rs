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
            Key::Repository => repository.read(reader, "repository")?,
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{A, B, ZERO, key, read, refs};
    use super::*;
    use crate::provider::Provider;

    fn repository() -> Value {
        json!({
            "full_name": "acme/widget",
            "clone_url": "https://github.com/acme/widget.git",
            "ssh_url": "git@github.com:acme/widget.git",
            "git_url": "git://github.com/acme/widget.git",
            "svn_url": "https://github.com/acme/widget",
            "html_url": "https://github.com/acme/widget",
            "url": "https://api.github.com/repos/acme/widget",
            "homepage": "https://widget.example",
            "owner": {"login": "acme", "html_url": "https://github.com/acme"},
        })
    }

    fn push(fields: Value) -> Event<'static> {
        let mut body =
            json!({"repository": repository(), "commits": [{"id": A}], "base_ref": null});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        read(Provider::Github, ("x-github-event", "push"), &body).unwrap()
    }

    #[test]
    fn a_push_tells_its_repository_and_its_ref() {
        let event =
            push(json!({"ref": "refs/heads/feature/x", "before": A, "after": B, "forced": false}));
        assert_eq!((event.kind, &*event.name), (Kind::Push, "push"));
        assert_eq!(key(&event), "github.com/acme/widget");
        let repository = event.repository.as_ref().unwrap();
        assert_eq!(repository.name, "acme/widget");
        assert_eq!(repository.http_url.as_deref(), Some("https://github.com/acme/widget.git"));
        assert_eq!(repository.ssh_url.as_deref(), Some("git@github.com:acme/widget.git"));
        assert_eq!(refs(&event), ["refs/heads/feature/x Branch Updated a b"]);
    }

    #[test]
    fn created_deleted_and_forced_refs_are_told_apart() {
        let event =
            push(json!({"ref": "refs/tags/v1", "before": ZERO, "after": B, "created": true}));
        assert_eq!(refs(&event), ["refs/tags/v1 Tag Created - b"]);
        let event =
            push(json!({"ref": "refs/heads/x", "before": A, "after": ZERO, "deleted": true}));
        assert_eq!(refs(&event), ["refs/heads/x Branch Deleted a -"]);
        let event = push(json!({"ref": "refs/heads/x", "before": A, "after": B, "forced": true}));
        assert_eq!(refs(&event), ["refs/heads/x Branch Forced a b"]);
        let sha256 = "0".repeat(64);
        let event = push(json!({"ref": "refs/heads/x", "before": sha256, "after": B}));
        assert_eq!(refs(&event), ["refs/heads/x Branch Created - b"], "the flags are not needed");
    }

    #[test]
    fn what_cannot_be_told_of_the_ref_makes_it_unknown_and_not_an_error() {
        for fields in [
            json!({}),
            json!({"ref": null}),
            json!({"ref": 7, "before": A, "after": B}),
            json!({"ref": "", "before": A, "after": B}),
            json!({"ref": "refs/heads/a b", "before": A, "after": B}),
            json!({"ref": "refs/heads/x", "before": ZERO, "after": ZERO}),
        ] {
            let event = push(fields);
            assert_eq!((event.kind, event.refs.len()), (Kind::Push, 0));
        }
        let event = push(json!({"ref": "refs/heads/x", "before": {}, "after": "main"}));
        assert_eq!(refs(&event), ["refs/heads/x Branch Updated - -"]);
    }

    #[test]
    fn create_and_delete_come_beside_a_push_and_are_none() {
        let body = json!({"ref": "v1", "ref_type": "tag", "repository": repository()});
        for name in ["create", "delete", "issues", "workflow_run"] {
            let event = read(Provider::Github, ("x-github-event", name), &body).unwrap();
            assert_eq!((event.kind, &*event.name), (Kind::Other, name));
            assert_eq!(key(&event), "github.com/acme/widget");
        }
    }

    #[test]
    fn a_ping_needs_no_repository() {
        let body = json!({"zen": "x", "hook_id": 1, "organization": {"login": "acme"}});
        let event = read(Provider::Github, ("x-github-event", "ping"), &body).unwrap();
        assert_eq!((event.kind, event.repository), (Kind::Ping, None));
        assert!(read(Provider::Github, ("x-github-event", "push"), &body).is_err());
    }

    #[test]
    fn a_pull_request_tells_what_happened_to_it() {
        let body = json!({"action": "opened", "pull_request": {"head": {"ref": "x"}}, "repository": repository()});
        let event = read(Provider::Github, ("x-github-event", "pull_request"), &body).unwrap();
        assert_eq!((event.kind, event.action.as_deref()), (Kind::PullRequest, Some("opened")));
        assert_eq!(event.refs, []);
    }

    #[test]
    fn without_its_header_it_is_no_event() {
        let error =
            read(Provider::Github, ("x-other", "push"), &json!({"repository": repository()}));
        assert_eq!(error, Err(EventError::Malformed { field: "x-github-event" }));
    }

    #[test]
    fn a_field_that_stands_twice_is_an_error() {
        let headers = super::super::tests::headers(&[("x-github-event", "push")]);
        for (body, at, name) in [
            (r#"{"ref":"refs/heads/a","ref":"refs/heads/b","repository":{}}"#, "", "ref"),
            (
                r#"{"repository":{"clone_url":"https://a/b/c","clone_\u0075rl":"https://a/b/d"}}"#,
                "repository",
                "clone_url",
            ),
        ] {
            assert_eq!(parse(&headers, body.as_bytes()), Err(EventError::Duplicate { at, name }));
        }
    }
}
