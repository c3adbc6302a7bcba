//! Triggers made by hand, as Git Integration for Jira documents them.
//!
//! `x-bbb-webhook-type: push` (in any case) with `{"origin": "…"}`, the address that the service
//! knows the repository by; or no header at all and `{"repository": {"git_http_url": "…"}}` or
//! another of the fields that the service matches on. Such a trigger says that something changed
//! and not what, so it is a push of unknown refs. The origin may be any text: if it is no address,
//! it is its own name.
//!
//! Sources: gitkraken/git-integration-for-jira-self-managed-docs, "Adding webhooks for Gerrit" and
//! "Creating reindex triggers for a single repository".

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{key, read};
    use super::*;
    use crate::provider::Provider;

    const PUSH: (&str, &str) = ("x-bbb-webhook-type", "push");

    #[test]
    fn an_origin_is_a_push_of_unknown_refs() {
        for kind in ["push", "PUSH"] {
            let body = json!({"origin": "git@h.example:a/b.git"});
            let event = read(Provider::Manual, ("x-bbb-webhook-type", kind), &body).unwrap();
            assert_eq!(
                (event.kind, &*event.name, key(&event)),
                (Kind::Push, kind, "h.example/a/b")
            );
            assert_eq!(event.refs, []);
            assert_eq!(event.repository.unwrap().ssh_url.as_deref(), Some("git@h.example:a/b.git"));
        }
        let body = json!({"origin": "https://h.example/a/b"});
        assert_eq!(
            read(Provider::Manual, ("x-bbb-webhook-type", "tag"), &body).unwrap().kind,
            Kind::Other
        );
    }

    #[test]
    fn an_origin_that_is_no_address_is_its_own_name() {
        let event =
            read(Provider::Manual, PUSH, &json!({"origin": "/srv/git/widget.git"})).unwrap();
        let repository = event.repository.unwrap();
        assert_eq!((repository.key(), repository.identity()), (None, "/srv/git/widget.git"));
        assert_eq!(repository.http_url.as_deref(), Some("/srv/git/widget.git"));
        for origin in [json!(""), json!(null), json!(7), json!("a\nb")] {
            let error = read(Provider::Manual, PUSH, &json!({"origin": origin})).unwrap_err();
            assert_eq!(error, EventError::Malformed { field: "origin" });
        }
    }

    #[test]
    fn a_bare_repository_needs_no_header() {
        for field in ["git_http_url", "clone_url", "svn_url", "url", "homepage"] {
            let body = json!({"repository": {field: "https://h.example/a/b.git"}});
            let event = read(Provider::Manual, ("x-other", "x"), &body).unwrap();
            assert_eq!((event.kind, &*event.name, key(&event)), (Kind::Push, "", "h.example/a/b"));
            assert!(event.repository.unwrap().http_url.is_some(), "{field}");
        }
        let body = json!({"repository": {"git_ssh_url": "git@h.example:a/b.git", "git_url": "git://h.example/a/b.git"}});
        let event = read(Provider::Manual, ("x-other", "x"), &body).unwrap();
        let repository = event.repository.unwrap();
        assert_eq!(
            (repository.http_url, repository.ssh_url.as_deref()),
            (None, Some("git@h.example:a/b.git"))
        );
        assert!(read(Provider::Manual, ("x-other", "x"), &json!({"repository": {}})).is_err());
    }
}
