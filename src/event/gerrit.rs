//! Gerrit with its `webhooks` plugin.
//!
//! The body names the event, in `type`, and knows a project only by its name; the server's address comes
//! in the header `X-Origin-Url`. `ref-updated` also comes for `refs/changes/…` and `refs/meta/…`, which are
//! no branch or tag.
//!
//! Sources: gerrit `Documentation/cmd-stream-events.txt` and `json.txt`; plugins/webhooks `HttpSession.java`.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::HeaderName;

use super::json::{self, Reader, keys};
use super::shape::{Id, RefFields, RefList, event, header, is_word};
use super::{Event, EventError, Kind, Repository};
use crate::repository::{Layout, RepositoryUrl};

/// The header with the address of the server.
pub(super) static ORIGIN_HEADER: HeaderName = HeaderName::from_static("x-origin-url");

keys! {
    enum Key {
        Type = "type",
        RefUpdate = "refUpdate",
        RefUpdates = "refUpdates",
        Change = "change",
    }
}

keys! {
    enum RefUpdateKey {
        Project = "project",
        RefName = "refName",
        OldRev = "oldRev",
        NewRev = "newRev",
    }
}

keys! {
    enum ChangeKey {
        Project = "project",
    }
}

pub(super) fn parse<'a>(headers: &HeaderMap, payload: &'a [u8]) -> Result<Event<'a>, EventError> {
    let origin = header(headers, &ORIGIN_HEADER)?;
    let mut name = None;
    let mut one = Updates::new();
    let mut batch = Updates::new();
    let mut change_project = None;
    json::read(payload, |key, reader| {
        match key {
            Key::Type => name = reader.text()?,
            Key::RefUpdate => one.read(reader, "refUpdate")?,
            Key::RefUpdates => {
                reader.elements(|reader| batch.read(reader, "refUpdates[]"))?;
            }
            Key::Change => {
                reader.object("change", |ChangeKey::Project, reader| {
                    change_project = reader.text()?;
                    Ok(())
                })?;
            }
        }
        Ok(())
    })?;
    let name =
        name.filter(|name| !name.is_empty()).ok_or(EventError::Malformed { field: "type" })?;
    let (kind, updates, field) = match &*name {
        "ref-updated" => (Kind::Push, one, "refUpdate.project"),
        "batch-ref-updated" => (Kind::Push, batch, "refUpdates[].project"),
        "patchset-created" | "change-merged" => (Kind::PullRequest, one, "change.project"),
        _ => (Kind::Other, one, "change.project"),
    };
    let action = match &*name {
        "patchset-created" => Some("patchset-created".into()),
        "change-merged" => Some("merged".into()),
        _ => None,
    };
    let (project, refs) = match kind {
        Kind::Push => {
            (updates.project.map_err(|()| EventError::Malformed { field })?, updates.refs)
        }
        _ => (change_project, RefList::new()),
    };
    let repository = project.and_then(|project| repository(origin, project));
    event(kind, name, action, repository, refs.into_refs(), field)
}

/// The updates of one project.
struct Updates<'a> {
    /// An error where updates name several projects.
    project: Result<Option<Cow<'a, str>>, ()>,
    refs: RefList<'a>,
}

impl<'a> Updates<'a> {
    fn new() -> Self {
        Self { project: Ok(None), refs: RefList::new() }
    }

    fn read(&mut self, reader: &mut Reader<'a>, at: &'static str) -> Result<(), EventError> {
        let mut change = RefFields::default();
        let mut project = None;
        reader.object(at, |key, reader| {
            match key {
                RefUpdateKey::Project => project = reader.text()?,
                RefUpdateKey::RefName => change.name = reader.text()?,
                RefUpdateKey::OldRev => change.old = Id::read(reader)?,
                RefUpdateKey::NewRev => change.new = Id::read(reader)?,
            }
            Ok(())
        })?;
        self.refs.push(change.change("refs/heads/"));
        match &self.project {
            Ok(None) => self.project = Ok(project),
            Ok(Some(first)) if project.as_ref().is_some_and(|other| other != first) => {
                self.project = Err(());
            }
            _ => {}
        }
        Ok(())
    }
}

fn repository<'a>(origin: Option<&str>, project: Cow<'a, str>) -> Option<Repository<'a>> {
    if !is_word(&project) {
        return None;
    }
    let http_url = origin.map(|origin| address(origin, &project));
    let key = http_url.as_ref().and_then(|url| RepositoryUrl::parse_as(url, Layout::Plain).ok());
    let http_url = http_url.filter(|_| key.is_some()).map(Cow::Owned);
    Repository::new(Some(project), http_url, None, key)
}

/// The address of a project of the server at `origin`.
pub(super) fn address(origin: &str, project: &str) -> String {
    format!("{}/{project}", origin.trim_end_matches('/'))
}
