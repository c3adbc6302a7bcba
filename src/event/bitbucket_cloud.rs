//! Bitbucket Cloud.
//!
//! `X-Event-Key` names the event. A push lists its changes in `push.changes`, each with an `old`
//! and a `new` that are null where there is none; the list may be empty. Bodies hold no addresses
//! to clone from, so they are made of `repository.full_name`.
//!
//! Source: support.atlassian.com/bitbucket-cloud, "Event payloads".

use std::borrow::Cow;

use http::HeaderMap;
use http::header::HeaderName;

use super::json::{self, Reader, Shape, keys};
use super::shape::{Id, RefFields, RefList, event, event_name, header, is_word};
use super::{Event, EventError, Kind, RefChange, Repository};
use crate::repository::RepositoryUrl;

static HEADER: HeaderName = HeaderName::from_static("x-event-key");

keys! {
    enum Key {
        Push = "push",
        Repository = "repository",
    }
}

keys! {
    enum PushKey {
        Changes = "changes",
    }
}

keys! {
    enum ChangeKey {
        Old = "old",
        New = "new",
        Forced = "forced",
    }
}

keys! {
    enum RefKey {
        Type = "type",
        Name = "name",
        Target = "target",
    }
}

keys! {
    enum TargetKey {
        Hash = "hash",
    }
}

keys! {
    enum RepositoryKey {
        FullName = "full_name",
        Links = "links",
    }
}

keys! {
    enum LinksKey {
        Html = "html",
    }
}

keys! {
    enum LinkKey {
        Href = "href",
    }
}

pub(super) fn parse<'a>(headers: &HeaderMap, payload: &'a [u8]) -> Result<Event<'a>, EventError> {
    let name = header(headers, &HEADER)?.ok_or(EventError::Malformed { field: HEADER.as_str() })?;
    let mut changes = RefList::new();
    let mut repository = None;
    json::read(payload, |key, reader| {
        match key {
            Key::Push => {
                reader.object("push", |PushKey::Changes, reader| {
                    reader.elements(|reader| {
                        changes.push(read_change(reader)?);
                        Ok(())
                    })?;
                    Ok(())
                })?;
            }
            Key::Repository => repository = read_repository(reader)?,
        }
        Ok(())
    })?;
    let (kind, refs) = match name {
        "repo:push" => (Kind::Push, changes.into_refs()),
        _ if name.starts_with("pullrequest:") => (Kind::PullRequest, Vec::new()),
        _ => (Kind::Other, Vec::new()),
    };
    let action = match kind {
        Kind::PullRequest => name.split_once(':').map(|(_, action)| action.to_owned().into()),
        _ => None,
    };
    let name = event_name(name, &["repo:push"]);
    event(kind, name, action, repository, refs, "repository.full_name")
}

/// What one side of a change says of a ref.
struct Side<'a> {
    name: Option<Cow<'a, str>>,
    prefix: Option<&'static str>,
    id: Id<'a>,
}

fn read_change<'a>(reader: &mut Reader<'a>) -> Result<Option<RefChange<'a>>, EventError> {
    let (mut old, mut new, mut forced) = (None, None, false);
    reader.object("push.changes[]", |key, reader| {
        match key {
            ChangeKey::Old => old = Some(read_side(reader, "push.changes[].old")?),
            ChangeKey::New => new = Some(read_side(reader, "push.changes[].new")?),
            ChangeKey::Forced => forced = reader.flag()?,
        }
        Ok(())
    })?;
    let (Some(old), Some(new)) = (old, new) else { return Ok(None) };
    let (name, prefix) = (new.name.or(old.name), new.prefix.or(old.prefix));
    let Some(prefix) = prefix else { return Ok(None) };
    let change = RefFields { name, old: old.id, new: new.id, forced, ..RefFields::default() };
    Ok(change.change(prefix))
}

fn read_side<'a>(reader: &mut Reader<'a>, at: &'static str) -> Result<Side<'a>, EventError> {
    let id = if reader.shape() == Shape::Null { Id::None } else { Id::Unknown };
    let mut side = Side { name: None, prefix: None, id };
    reader.object(at, |key, reader| {
        match key {
            RefKey::Type => {
                side.prefix = match reader.text()?.as_deref() {
                    Some("branch") => Some("refs/heads/"),
                    Some("tag") => Some("refs/tags/"),
                    _ => None,
                };
            }
            RefKey::Name => side.name = reader.text()?,
            RefKey::Target => {
                reader.object("push.changes[].target", |TargetKey::Hash, reader| {
                    side.id = Id::read(reader)?;
                    Ok(())
                })?;
            }
        }
        Ok(())
    })?;
    Ok(side)
}

fn read_repository<'a>(reader: &mut Reader<'a>) -> Result<Option<Repository<'a>>, EventError> {
    let (mut full_name, mut html) = (None, None);
    reader.object("repository", |key, reader| {
        match key {
            RepositoryKey::FullName => full_name = reader.text()?,
            RepositoryKey::Links => {
                reader.object("repository.links", |LinksKey::Html, reader| {
                    reader.object("repository.links.html", |LinkKey::Href, reader| {
                        html = reader.text()?;
                        Ok(())
                    })?;
                    Ok(())
                })?;
            }
        }
        Ok(())
    })?;
    let named = full_name.filter(|name| is_word(name) && name.contains('/')).and_then(|name| {
        let http_url = http_url(&name);
        Some((RepositoryUrl::parse(&http_url).ok()?, name, http_url))
    });
    let (key, name, http_url) = match named {
        Some(named) => named,
        None => match html.and_then(|html| RepositoryUrl::parse(&html).ok()) {
            Some(key) => {
                let name = Cow::Owned(key.path().to_owned());
                let http_url = http_url(&name);
                (key, name, http_url)
            }
            None => return Ok(None),
        },
    };
    let ssh_url = ["git@bitbucket.org:", &name, ".git"].concat();
    Ok(Repository::new(Some(name), Some(http_url.into()), Some(ssh_url.into()), Some(key)))
}

fn http_url(name: &str) -> String {
    ["https://bitbucket.org/", name, ".git"].concat()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{A, B, key, read, refs};
    use super::*;
    use crate::provider::Provider;

    const PUSH: (&str, &str) = ("x-event-key", "repo:push");

    fn side(kind: &str, name: &str, hash: &str) -> Value {
        json!({"type": kind, "name": name, "target": {"type": "commit", "hash": hash}})
    }

    fn push(changes: Value) -> Event<'static> {
        let body = json!({
            "push": {"changes": changes},
            "repository": {"full_name": "Acme/widget", "links": {"html": {"href": "https://bitbucket.org/acme/widget"}}},
        });
        read(Provider::BitbucketCloud, PUSH, &body).unwrap()
    }

    #[test]
    fn addresses_are_made_of_the_full_name() {
        let event = push(json!([]));
        assert_eq!((event.kind, event.refs.len()), (Kind::Push, 0), "an empty list is a push");
        assert_eq!(key(&event), "bitbucket.org/acme/widget");
        let repository = event.repository.unwrap();
        assert_eq!(repository.http_url.as_deref(), Some("https://bitbucket.org/Acme/widget.git"));
        assert_eq!(repository.ssh_url.as_deref(), Some("git@bitbucket.org:Acme/widget.git"));
    }

    #[test]
    fn all_changes_of_a_push_are_told() {
        let event = push(json!([
            {"old": side("branch", "main", A), "new": side("branch", "main", B), "forced": false},
            {"old": side("branch", "main", A), "new": side("branch", "main", B), "forced": true},
            {"old": null, "new": side("tag", "v1", B), "created": true},
            {"old": side("branch", "feature/x", A), "new": null, "closed": true},
        ]));
        assert_eq!(
            refs(&event),
            [
                "refs/heads/main Branch Updated a b",
                "refs/heads/main Branch Forced a b",
                "refs/tags/v1 Tag Created - b",
                "refs/heads/feature/x Branch Deleted a -",
            ]
        );
    }

    #[test]
    fn one_change_that_cannot_be_told_makes_all_refs_unknown() {
        let good = json!({"old": null, "new": side("branch", "x", B)});
        for broken in [
            json!(null),
            json!({}),
            json!({"old": null, "new": null}),
            json!({"old": null, "new": side("bookmark", "x", B)}),
            json!({"old": null, "new": {"type": "branch", "name": ["x"]}}),
        ] {
            let event = push(json!([good, broken]));
            assert_eq!((event.kind, event.refs.len()), (Kind::Push, 0), "{broken}");
        }
        assert_eq!(push(json!([good])).refs.len(), 1);
    }

    #[test]
    fn the_page_stands_in_for_a_name_that_is_none() {
        for (full_name, href, expected) in [
            (
                json!("../x"),
                json!("https://bitbucket.org/acme/widget"),
                Some("bitbucket.org/acme/widget"),
            ),
            (
                json!(null),
                json!("https://bitbucket.org/acme/widget"),
                Some("bitbucket.org/acme/widget"),
            ),
            (json!("widget"), json!("https://bitbucket.org/"), None),
            (json!(7), json!([]), None),
        ] {
            let body = json!({"push": {}, "repository": {"full_name": full_name, "links": {"html": {"href": href}}}});
            let event = read(Provider::BitbucketCloud, PUSH, &body);
            match expected {
                Some(expected) => assert_eq!(key(&event.unwrap()), expected),
                None => {
                    assert_eq!(event, Err(EventError::Malformed { field: "repository.full_name" }));
                }
            }
        }
    }

    #[test]
    fn pull_requests_are_told_by_their_key() {
        let body = json!({"repository": {"full_name": "acme/widget"}});
        let event = read(Provider::BitbucketCloud, ("x-event-key", "pullrequest:fulfilled"), &body)
            .unwrap();
        assert_eq!((event.kind, event.action.as_deref()), (Kind::PullRequest, Some("fulfilled")));
        let event = read(Provider::BitbucketCloud, ("x-event-key", "repo:fork"), &body).unwrap();
        assert_eq!((event.kind, event.action), (Kind::Other, None));
    }
}
