//! Bitbucket Server and Data Center.
//!
//! `X-Event-Key` names the event, and so does the body's `eventKey`, which has the first word since it is
//! signed. A push lists its `changes`; a mirror's (`mirror:repo_synchronized`) may say `refLimitExceeded`
//! and list none, which is a push all the same. The addresses to clone from stand in
//! `repository.links.clone`; older servers send none, and then a web address is made of the page of
//! the repository, its project's key and its slug, where there is a page.
//!
//! Source: confluence.atlassian.com/bitbucketserver, "Event payload".

use std::borrow::Cow;

use http::HeaderMap;
use http::header::HeaderName;

use super::json::{self, Reader, keys};
use super::shape::{Id, RefFields, RefList, event, event_name, header};
use super::{Event, EventError, Kind, RefChange, Repository};
use crate::repository::{Layout, RepositoryUrl};

static HEADER: HeaderName = HeaderName::from_static("x-event-key");

keys! {
    enum Key {
        EventKey = "eventKey",
        Changes = "changes",
        RefLimitExceeded = "refLimitExceeded",
        Repository = "repository",
        PullRequest = "pullRequest",
    }
}

keys! {
    enum ChangeKey {
        Ref = "ref",
        RefId = "refId",
        FromHash = "fromHash",
        ToHash = "toHash",
        Type = "type",
    }
}

keys! {
    enum RefKey {
        Id = "id",
    }
}

keys! {
    enum PullRequestKey {
        ToRef = "toRef",
    }
}

keys! {
    enum ToRefKey {
        Repository = "repository",
    }
}

keys! {
    enum RepositoryKey {
        Slug = "slug",
        Project = "project",
        Links = "links",
    }
}

keys! {
    enum ProjectKey {
        Key = "key",
    }
}

keys! {
    enum LinksKey {
        Clone = "clone",
        Own = "self",
    }
}

keys! {
    enum LinkKey {
        Name = "name",
        Href = "href",
    }
}

pub(super) fn parse<'a>(headers: &HeaderMap, payload: &'a [u8]) -> Result<Event<'a>, EventError> {
    let header = header(headers, &HEADER)?;
    let mut event_key = None;
    let mut changes = RefList::new();
    let (mut repository, mut target) = (None, None);
    json::read(payload, |key, reader| {
        match key {
            Key::EventKey => event_key = reader.text()?,
            Key::Changes => {
                reader.elements(|reader| {
                    changes.push(read_change(reader)?);
                    Ok(())
                })?;
            }
            Key::RefLimitExceeded => {
                if reader.flag()? {
                    changes.forget();
                }
            }
            Key::Repository => repository = read_repository(reader, "repository")?,
            Key::PullRequest => {
                reader.object("pullRequest", |PullRequestKey::ToRef, reader| {
                    reader.object("pullRequest.toRef", |ToRefKey::Repository, reader| {
                        target = read_repository(reader, "pullRequest.toRef.repository")?;
                        Ok(())
                    })?;
                    Ok(())
                })?;
            }
        }
        Ok(())
    })?;
    let word =
        event_key.as_deref().or(header).ok_or(EventError::Malformed { field: HEADER.as_str() })?;
    let (kind, refs) = match word {
        "repo:refs_changed" | "mirror:repo_synchronized" => (Kind::Push, changes.into_refs()),
        "diagnostics:ping" => (Kind::Ping, Vec::new()),
        _ if word.starts_with("pr:") => (Kind::PullRequest, Vec::new()),
        _ => (Kind::Other, Vec::new()),
    };
    let action = match kind {
        Kind::PullRequest => word.split_once(':').map(|(_, action)| action.to_owned().into()),
        _ => None,
    };
    let name = match event_key {
        Some(name) => name,
        None => event_name(header.unwrap_or_default(), &["diagnostics:ping"]),
    };
    event(kind, name, action, repository.or(target), refs, "repository")
}

fn read_change<'a>(reader: &mut Reader<'a>) -> Result<Option<RefChange<'a>>, EventError> {
    let mut change = RefFields::default();
    let mut ref_id = None;
    reader.object("changes[]", |key, reader| {
        match key {
            ChangeKey::Ref => {
                reader.object("changes[].ref", |RefKey::Id, reader| {
                    change.name = reader.text()?;
                    Ok(())
                })?;
            }
            ChangeKey::RefId => ref_id = reader.text()?,
            ChangeKey::FromHash => change.old = Id::read(reader)?,
            ChangeKey::ToHash => change.new = Id::read(reader)?,
            ChangeKey::Type => match reader.text()?.as_deref() {
                Some("ADD") => change.created = true,
                Some("DELETE") => change.deleted = true,
                _ => {}
            },
        }
        Ok(())
    })?;
    change.name = change.name.or(ref_id);
    Ok(change.change("refs/heads/"))
}

fn read_repository<'a>(
    reader: &mut Reader<'a>,
    at: &'static str,
) -> Result<Option<Repository<'a>>, EventError> {
    let (mut slug, mut project) = (None, None);
    let mut links = Links::default();
    reader.object(at, |key, reader| {
        match key {
            RepositoryKey::Slug => slug = reader.text()?,
            RepositoryKey::Project => {
                reader.object("repository.project", |ProjectKey::Key, reader| {
                    project = reader.text()?;
                    Ok(())
                })?;
            }
            RepositoryKey::Links => links.read(reader)?,
        }
        Ok(())
    })?;
    let Links { mut http, ssh, page } = links;
    let named = project.zip(slug).filter(|(p, s)| !p.is_empty() && !s.is_empty());
    if let (None, None, Some((project, slug)), Some(page)) = (&http, &ssh, &named, &page)
        && let Some((base, _)) =
            page.split_once("/projects/").or_else(|| page.split_once("/users/"))
    {
        http = Some(format!("{base}/scm/{}/{slug}.git", project.to_lowercase()).into());
    }
    let key = [&http, &ssh]
        .into_iter()
        .flatten()
        .find_map(|url| RepositoryUrl::parse_as(url, Layout::BitbucketServer).ok());
    let name = named.map(|(project, slug)| format!("{project}/{slug}").into());
    Ok(Repository::new(name, http, ssh, key))
}

#[derive(Default)]
struct Links<'a> {
    http: Option<Cow<'a, str>>,
    ssh: Option<Cow<'a, str>>,
    /// The repository's page.
    page: Option<Cow<'a, str>>,
}

impl<'a> Links<'a> {
    fn read(&mut self, reader: &mut Reader<'a>) -> Result<(), EventError> {
        reader.object("repository.links", |key, reader| {
            reader.elements(|reader| {
                let (mut name, mut href) = (None, None);
                reader.object("repository.links[]", |key, reader| {
                    match key {
                        LinkKey::Name => name = reader.text()?,
                        LinkKey::Href => href = reader.text()?,
                    }
                    Ok(())
                })?;
                let field = match (key, name.as_deref()) {
                    (LinksKey::Clone, Some("http" | "https")) => &mut self.http,
                    (LinksKey::Clone, Some("ssh")) => &mut self.ssh,
                    (LinksKey::Own, _) => &mut self.page,
                    _ => return Ok(()),
                };
                if field.is_none() {
                    *field = href.filter(|href| !href.is_empty());
                }
                Ok(())
            })?;
            Ok(())
        })?;
        Ok(())
    }
}
