//! Bitbucket Cloud.
//!
//! `X-Event-Key` names the event. A push lists its changes in `push.changes`, each with an `old` and a
//! `new` that are null where there is none; the list may be empty. Bodies hold no addresses to clone
//! from, so they are made of `repository.full_name`.
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
    let named = full_name
        .filter(|name| is_word(name) && name.contains('/'))
        .and_then(|name| Some((RepositoryUrl::parse(&http_url(&name)).ok()?, name)));
    let (key, name) = match named {
        Some((key, name)) => (key, name),
        None => match html.and_then(|html| RepositoryUrl::parse(&html).ok()) {
            Some(key) => {
                let name = key.path().to_owned().into();
                (key, name)
            }
            None => return Ok(None),
        },
    };
    let http_url = http_url(&name).into();
    let ssh_url = format!("git@bitbucket.org:{name}.git").into();
    Ok(Repository::new(Some(name), Some(http_url), Some(ssh_url), Some(key)))
}

fn http_url(name: &str) -> String {
    format!("https://bitbucket.org/{name}.git")
}
