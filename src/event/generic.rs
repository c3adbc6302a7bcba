//! Senders that no host's rules describe: they are asked for what hosts commonly send.
//!
//! The name of the event stands in the header that the hook's configuration names. Where it names
//! none, the body is asked (`type`, `event`, `event_name`, `object_kind`), and a body that does not
//! say is a push: a hook without a name for events has only one.
//!
//! The repository stands in `repository`, `project` or `repo`, as an object in the shape of GitHub,
//! GitLab or Gitea, or as the address itself; else in `origin`, `clone_url`, `git_http_url`,
//! `ssh_url`, `git_ssh_url` or `git_url` of the body. All of this may also stand in `data`, where
//! Standard Webhooks have it.

use std::borrow::Cow;

use http::HeaderMap;

use super::json::{self, Reader, Shape, keys};
use super::shape::{Id, RefFields, RepositoryFields, event, header_named, is_word};
use super::{Event, EventError, Kind, ParseOptions, Repository};
use crate::repository::{Layout, RepositoryUrl};

keys! {
    enum Key {
        Type = "type",
        Event = "event",
        EventName = "event_name",
        ObjectKind = "object_kind",
        Action = "action",
        Ref = "ref",
        Before = "before",
        After = "after",
        Created = "created",
        Deleted = "deleted",
        Forced = "forced",
        Repository = "repository",
        Project = "project",
        Repo = "repo",
        Origin = "origin",
        CloneUrl = "clone_url",
        GitHttpUrl = "git_http_url",
        SshUrl = "ssh_url",
        GitSshUrl = "git_ssh_url",
        GitUrl = "git_url",
        Data = "data",
    }
}

pub(super) fn parse<'a>(
    headers: &HeaderMap,
    payload: &'a [u8],
    options: &ParseOptions,
) -> Result<Event<'a>, EventError> {
    let name = match &options.event_header {
        Some(name) => Some(header_named(headers, name, "event header")?.unwrap_or_default()),
        None => None,
    };
    let body = Body::read(payload)?;
    body.into_event(name, options)
}

/// What is read of a body.
#[derive(Default)]
pub(super) struct Body<'a> {
    name: Option<Cow<'a, str>>,
    action: Option<Cow<'a, str>>,
    change: RefFields<'a>,
    /// In the order in which they are preferred: repository, project, repo.
    repositories: [Option<Repository<'a>>; 3],
    /// Addresses that stand by themselves; the origin comes first.
    addresses: [Option<Cow<'a, str>>; 6],
}

impl<'a> Body<'a> {
    pub(super) fn read(payload: &'a [u8]) -> Result<Self, EventError> {
        let mut body = Self::default();
        let mut data = None;
        json::read(payload, |key, reader| {
            if let Key::Data = key {
                let mut inner = Self::default();
                reader.object("data", |key, reader| inner.member(key, reader))?;
                data = Some(inner);
                return Ok(());
            }
            body.member(key, reader)
        })?;
        Ok(match data {
            Some(data) => body.or(data),
            None => body,
        })
    }

    /// Whether the body says what the event is called.
    pub(super) fn has_name(&self) -> bool {
        self.name.is_some()
    }

    /// The repository that `origin` names.
    pub(super) fn origin(&mut self) -> Option<Repository<'a>> {
        self.addresses[0].take().and_then(by_address)
    }

    /// The repository, from wherever it stands.
    pub(super) fn repository(&mut self) -> Option<Repository<'a>> {
        self.repositories.iter_mut().find_map(Option::take).or_else(|| {
            let address = self.addresses.iter_mut().find_map(Option::take)?;
            by_address(address)
        })
    }

    /// The event, whose name is the given one or else what the body says.
    pub(super) fn into_event(
        mut self,
        name: Option<&str>,
        options: &ParseOptions,
    ) -> Result<Event<'a>, EventError> {
        let name: Option<Cow<'a, str>> = match name {
            Some(name) => Some(name.to_owned().into()),
            None => self.name.take(),
        };
        let kind = match name.as_deref() {
            None => Kind::Push,
            Some(name) if options.push_events.iter().any(|push| push == name) => Kind::Push,
            Some("ping" | "test") => Kind::Ping,
            Some("pull_request" | "merge_request") => Kind::PullRequest,
            Some(_) => Kind::Other,
        };
        let action = self.action.take();
        let repository = self.repository();
        let refs = match kind {
            Kind::Push => self.change.change("refs/heads/").into_iter().collect(),
            _ => Vec::new(),
        };
        event(kind, name.unwrap_or_default(), action, repository, refs, "repository")
    }

    fn member(&mut self, key: Key, reader: &mut Reader<'a>) -> Result<(), EventError> {
        match key {
            Key::Type | Key::Event | Key::EventName | Key::ObjectKind => {
                let name = reader.text()?.filter(|name| is_word(name));
                self.name = self.name.take().or(name);
            }
            Key::Action => self.action = reader.text()?,
            Key::Ref => self.change.name = reader.text()?,
            Key::Before => self.change.old = Id::read(reader)?,
            Key::After => self.change.new = Id::read(reader)?,
            Key::Created => self.change.created = reader.flag()?,
            Key::Deleted => self.change.deleted = reader.flag()?,
            Key::Forced => self.change.forced = reader.flag()?,
            Key::Repository => self.repositories[0] = read_repository(reader, "repository")?,
            Key::Project => self.repositories[1] = read_repository(reader, "project")?,
            Key::Repo => self.repositories[2] = read_repository(reader, "repo")?,
            Key::Origin => self.addresses[0] = read_address(reader)?,
            Key::CloneUrl => self.addresses[1] = read_address(reader)?,
            Key::GitHttpUrl => self.addresses[2] = read_address(reader)?,
            Key::SshUrl => self.addresses[3] = read_address(reader)?,
            Key::GitSshUrl => self.addresses[4] = read_address(reader)?,
            Key::GitUrl => self.addresses[5] = read_address(reader)?,
            Key::Data => reader.skip()?,
        }
        Ok(())
    }

    /// Takes from `other` what is missing here.
    fn or(mut self, other: Self) -> Self {
        self.name = self.name.or(other.name);
        self.action = self.action.or(other.action);
        if self.change.name.is_none() {
            self.change = other.change;
        }
        for (own, other) in self.repositories.iter_mut().zip(other.repositories) {
            *own = own.take().or(other);
        }
        for (own, other) in self.addresses.iter_mut().zip(other.addresses) {
            *own = own.take().or(other);
        }
        self
    }
}

fn read_address<'a>(reader: &mut Reader<'a>) -> Result<Option<Cow<'a, str>>, EventError> {
    Ok(reader.text()?.filter(|address| !address.is_empty()))
}

fn read_repository<'a>(
    reader: &mut Reader<'a>,
    at: &'static str,
) -> Result<Option<Repository<'a>>, EventError> {
    if reader.shape() == Shape::String {
        return Ok(read_address(reader)?.and_then(by_address));
    }
    let mut fields = RepositoryFields::default();
    fields.read(reader, at)?;
    Ok(fields.into_repository(Layout::Unknown))
}

/// A repository of which there is only one address, or what stands in its place: an upstream may
/// know it by any text.
fn by_address<'a>(address: Cow<'a, str>) -> Option<Repository<'a>> {
    let key = RepositoryUrl::parse(&address).ok();
    let name = match &key {
        Some(key) => key.path().to_owned(),
        // Whatever stands before an `@` may be a credential.
        None => address.rsplit('@').next().unwrap_or_default().to_owned(),
    };
    let lower = address.get(..6).unwrap_or_default().to_ascii_lowercase();
    let is_ssh = key.is_some() && (lower == "ssh://" || !address.contains("://"));
    let (http_url, ssh_url) = if is_ssh { (None, Some(address)) } else { (Some(address), None) };
    Repository::new(Some(name.into()), http_url, ssh_url, key)
}

#[cfg(test)]
mod tests {
    use http::header::HeaderName;
    use serde_json::{Value, json};

    use super::super::tests::{A, B, headers, key, read, refs};
    use super::*;
    use crate::provider::Provider;

    const NONE: (&str, &str) = ("x-other", "x");

    fn push(repository: Value) -> Result<Event<'static>, EventError> {
        let mut body = json!({"ref": "refs/heads/main", "before": A, "after": B});
        body.as_object_mut().unwrap().extend(repository.as_object().unwrap().clone());
        read(Provider::Generic, NONE, &body)
    }

    #[test]
    fn a_body_without_a_name_is_a_push_of_the_repository_that_it_names() {
        let widget = json!({"full_name": "acme/widget", "clone_url": "https://git.example.com/acme/widget.git"});
        for repository in [
            json!({"repository": widget}),
            json!({"project": {"git_http_url": "https://git.example.com/acme/widget.git"}}),
            json!({"repo": {"ssh_url": "git@git.example.com:acme/widget.git"}}),
            json!({"repository": "https://git.example.com/acme/widget"}),
            json!({"origin": "ssh://git@git.example.com:2222/acme/widget"}),
            json!({"git_http_url": "https://git.example.com/acme/widget.git"}),
            json!({"data": {"repository": widget}}),
            json!({"repository": [], "repo": widget}),
        ] {
            let event = push(repository.clone()).unwrap();
            assert_eq!(
                (event.kind, key(&event)),
                (Kind::Push, "git.example.com/acme/widget"),
                "{repository}"
            );
            assert_eq!(refs(&event), ["refs/heads/main Branch Updated a b"]);
        }
        for repository in
            [json!({}), json!({"repository": {}}), json!({"origin": 7}), json!({"repository": ""})]
        {
            assert_eq!(push(repository), Err(EventError::Malformed { field: "repository" }));
        }
    }

    #[test]
    fn the_configured_header_names_the_event() {
        let mut options = ParseOptions {
            event_header: Some(HeaderName::from_static("x-event")),
            ..ParseOptions::default()
        };
        options.push_events = vec!["code.pushed".to_owned()];
        let body = br#"{"type": "code.pushed", "origin": "https://h.example/a/b"}"#;
        for (name, kind) in [
            ("code.pushed", Kind::Push),
            ("ping", Kind::Ping),
            ("pull_request", Kind::PullRequest),
            ("push", Kind::Other),
        ] {
            let event = parse(&headers(&[("x-event", name)]), body, &options).unwrap();
            assert_eq!((event.kind, &*event.name), (kind, name));
        }
        assert_eq!(
            parse(&headers(&[]), body, &options).unwrap().kind,
            Kind::Other,
            "no header, no name"
        );
        options.event_header = None;
        assert_eq!(
            parse(&headers(&[]), body, &options).unwrap().kind,
            Kind::Push,
            "the body is asked"
        );
    }

    #[test]
    fn credentials_in_an_address_are_never_shown() {
        for origin in [
            "https://jane:s3cret@h.example",
            "jane:s3cret@h.example:a/b",
            "https://jane:s3cret@h.example/a/b",
        ] {
            let event = push(json!({"origin": origin})).unwrap();
            let repository = event.repository.as_ref().unwrap();
            assert!(
                !format!("{event:?} {} {}", repository.identity(), repository.name)
                    .contains("s3cret")
            );
            assert_eq!(
                repository.http_url.as_deref(),
                Some(origin),
                "upstream may know it by this"
            );
        }
    }
}
