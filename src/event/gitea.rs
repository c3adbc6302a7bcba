//! Gitea, Forgejo and Gogs, whose bodies are the same.
//!
//! - `push` with `before == after`, or with both zeros in an empty repository, is the test that the
//!   hook's page sends.
//! - `create` and `delete` have `ref_type` and a short `ref` (Forgejo's own hooks a full one), and
//!   `create` the object's id in `sha`. Gogs tells of tags and of deletions only by them, Gitea and
//!   Forgejo of deleted branches; a new tag or branch of theirs comes as `create` *and* `push`,
//!   which is harmless.
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
            Key::Repository => repository.read(reader, "repository")?,
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{A, B, ZERO, key, read, refs};
    use super::*;
    use crate::provider::Provider;

    fn body(fields: Value) -> Value {
        let mut body = json!({"repository": {
            "full_name": "acme/widget",
            "clone_url": "http://git.example.com:3000/acme/widget.git",
            "ssh_url": "ssh://git@git.example.com:2222/acme/widget.git",
        }});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        body
    }

    fn family(name: &str, fields: Value) -> Event<'static> {
        let gogs = read(Provider::Gogs, ("x-gogs-event", name), &body(fields.clone())).unwrap();
        let gitea = read(Provider::Gitea, ("x-gitea-event", name), &body(fields.clone())).unwrap();
        let forgejo = read(Provider::Forgejo, ("x-forgejo-event", name), &body(fields)).unwrap();
        assert_eq!(gogs, gitea);
        assert_eq!(gogs, forgejo);
        gogs
    }

    #[test]
    fn a_push_is_one() {
        let event = family("push", json!({"ref": "refs/heads/main", "before": A, "after": B}));
        assert_eq!(event.kind, Kind::Push);
        assert_eq!(key(&event), "git.example.com:3000/acme/widget");
        assert_eq!(refs(&event), ["refs/heads/main Branch Updated a b"]);
        let event = family("push", json!({"ref": "refs/tags/v1", "before": A, "after": ZERO}));
        assert_eq!(refs(&event), ["refs/tags/v1 Tag Deleted a -"]);
    }

    #[test]
    fn tags_and_deletions_that_come_only_as_create_and_delete_are_pushes() {
        let event = family("create", json!({"ref": "v1", "ref_type": "tag", "sha": A}));
        assert_eq!(event.kind, Kind::Push);
        assert_eq!(refs(&event), ["refs/tags/v1 Tag Created - a"]);
        let event = family("create", json!({"ref": "feature/x", "ref_type": "branch"}));
        assert_eq!(refs(&event), ["refs/heads/feature/x Branch Created - -"]);
        let event = family("delete", json!({"ref": "v1", "ref_type": "tag"}));
        assert_eq!(refs(&event), ["refs/tags/v1 Tag Deleted - -"]);
        let event = family("delete", json!({"ref": "refs/heads/x", "ref_type": "branch"}));
        assert_eq!(refs(&event), ["refs/heads/x Branch Deleted - -"], "Forgejo's own hooks");
        let event = family("delete", json!({"ref": "x", "ref_type": null}));
        assert_eq!((event.kind, event.refs.len()), (Kind::Push, 0));
    }

    #[test]
    fn a_test_delivery_is_a_push_that_changes_nothing() {
        let event = family("push", json!({"ref": "refs/heads/main", "before": A, "after": A}));
        assert_eq!(event.kind, Kind::Ping);
        let event =
            family("push", json!({"ref": "refs/heads/main", "before": ZERO, "after": ZERO}));
        assert_eq!(event.kind, Kind::Ping, "of an empty repository");
        let event = family("push", json!({"ref": "refs/heads/main", "before": null, "after": 1}));
        assert_eq!(event.kind, Kind::Push, "ids that cannot be read are not equal");
    }

    #[test]
    fn pull_requests_are_told_and_the_rest_is_other() {
        let event = family("pull_request", json!({"action": "synchronized"}));
        assert_eq!(
            (event.kind, event.action.as_deref()),
            (Kind::PullRequest, Some("synchronized"))
        );
        for name in ["issues", "release", "pull_request_approved", "repository"] {
            assert_eq!(family(name, json!({"action": "created"})).kind, Kind::Other);
        }
    }

    #[test]
    fn a_repository_of_null_is_an_error_and_not_a_panic() {
        let body = json!({"ref": "refs/heads/main", "before": A, "after": B, "repository": null, "repo": null});
        let error = read(Provider::Gogs, ("x-gogs-event", "push"), &body).unwrap_err();
        assert_eq!(error, EventError::Malformed { field: "repository" });
        let error = read(Provider::Gitea, ("x-gogs-event", "push"), &body).unwrap_err();
        assert_eq!(error, EventError::Malformed { field: "x-gitea-event" });
    }
}
