//! Senders that follow [Standard Webhooks](https://www.standardwebhooks.com).
//!
//! The specification puts the name of the event into `type` and what it is about into `data`.
//! GitLab signs by it too and names its events in `object_kind` and `event_name`. All else is as
//! with [generic](super::generic) senders; the body has the first word, since it is signed, and the
//! header that the configuration names the last.

use http::HeaderMap;

use super::generic::Body;
use super::shape::header_named;
use super::{Event, EventError, ParseOptions};

pub(super) fn parse<'a>(
    headers: &HeaderMap,
    payload: &'a [u8],
    options: &ParseOptions,
) -> Result<Event<'a>, EventError> {
    let body = Body::read(payload)?;
    let name = match &options.event_header {
        Some(name) if !body.has_name() => header_named(headers, name, "event header")?,
        _ => None,
    };
    body.into_event(name, options)
}

#[cfg(test)]
mod tests {
    use http::header::HeaderName;
    use serde_json::json;

    use super::super::Kind;
    use super::super::tests::{A, B, headers, key, read, refs};
    use super::*;
    use crate::provider::Provider;

    #[test]
    fn the_type_names_the_event_and_data_holds_it() {
        let data = json!({"ref": "refs/heads/main", "before": A, "after": B, "repository": {"clone_url": "https://h.example/a/b.git"}});
        for (name, kind) in
            [("push", Kind::Push), ("ping", Kind::Ping), ("issue.created", Kind::Other)]
        {
            let body = json!({"type": name, "timestamp": "2026-01-01T00:00:00Z", "data": data});
            let event = read(Provider::StandardWebhooks, ("webhook-id", "1"), &body).unwrap();
            assert_eq!((event.kind, &*event.name, key(&event)), (kind, name, "h.example/a/b"));
            assert_eq!(event.refs.is_empty(), kind != Kind::Push);
        }
    }

    #[test]
    fn a_body_in_the_shape_of_gitlab_is_read_too() {
        let body = json!({
            "object_kind": "push", "ref": "refs/heads/main", "before": A, "after": B,
            "project": {"git_http_url": "https://h.example/a/b.git"},
        });
        let event = read(Provider::StandardWebhooks, ("webhook-id", "1"), &body).unwrap();
        assert_eq!((event.kind, key(&event)), (Kind::Push, "h.example/a/b"));
        assert_eq!(refs(&event), ["refs/heads/main Branch Updated a b"]);
    }

    #[test]
    fn the_header_has_the_last_word() {
        let options = ParseOptions {
            event_header: Some(HeaderName::from_static("x-event")),
            ..ParseOptions::default()
        };
        let headers = headers(&[("x-event", "push")]);
        let named = br#"{"type": "other", "origin": "https://h.example/a/b"}"#;
        assert_eq!(parse(&headers, named, &options).unwrap().kind, Kind::Other);
        let unnamed = br#"{"origin": "https://h.example/a/b"}"#;
        assert_eq!(parse(&headers, unnamed, &options).unwrap().name, "push");
    }
}
