//! Azure DevOps Services and Server.
//!
//! The body names the event, in `eventType`. *Test* on the page of a subscription sends a sample about a
//! repository that does not exist, with a `subscriptionId` of zeros. The address stands in
//! `resource.repository.remoteUrl`, if the subscription sends all resource details.
//!
//! Source: MicrosoftDocs/azure-devops-docs, `docs/service-hooks/events.md`.

use super::json::{self, Reader, keys};
use super::shape::{Id, RefFields, RefList, event};
use super::{Event, EventError, Kind, RefChange, Repository};
use crate::repository::RepositoryUrl;

keys! {
    enum Key {
        EventType = "eventType",
        SubscriptionId = "subscriptionId",
        Resource = "resource",
    }
}

keys! {
    enum ResourceKey {
        RefUpdates = "refUpdates",
        Repository = "repository",
    }
}

keys! {
    enum RefUpdateKey {
        Name = "name",
        OldObjectId = "oldObjectId",
        NewObjectId = "newObjectId",
    }
}

keys! {
    enum RepositoryKey {
        Name = "name",
        RemoteUrl = "remoteUrl",
        SshUrl = "sshUrl",
        Project = "project",
    }
}

keys! {
    enum ProjectKey {
        Name = "name",
    }
}

pub(super) fn parse(payload: &[u8]) -> Result<Event<'_>, EventError> {
    let (mut event_type, mut is_test) = (None, false);
    let mut updates = RefList::new();
    let mut repository = None;
    json::read(payload, |key, reader| {
        match key {
            Key::EventType => event_type = reader.text()?,
            Key::SubscriptionId => {
                is_test = reader.text()?.is_some_and(|id| {
                    id.len() == 36 && id.bytes().all(|b| matches!(b, b'0' | b'-'))
                });
            }
            Key::Resource => {
                reader.object("resource", |key, reader| {
                    match key {
                        ResourceKey::RefUpdates => {
                            reader.elements(|reader| {
                                updates.push(read_update(reader)?);
                                Ok(())
                            })?;
                        }
                        ResourceKey::Repository => repository = read_repository(reader)?,
                    }
                    Ok(())
                })?;
            }
        }
        Ok(())
    })?;
    let name = event_type
        .filter(|name| !name.is_empty())
        .ok_or(EventError::Malformed { field: "eventType" })?;
    let action = name.strip_prefix("git.pullrequest.").map(|action| action.to_owned().into());
    let (kind, refs) = match &*name {
        _ if is_test => (Kind::Ping, Vec::new()),
        "git.push" => (Kind::Push, updates.into_refs()),
        _ if action.is_some() => (Kind::PullRequest, Vec::new()),
        _ => (Kind::Other, Vec::new()),
    };
    event(kind, name, action, repository, refs, "resource.repository")
}

fn read_update<'a>(reader: &mut Reader<'a>) -> Result<Option<RefChange<'a>>, EventError> {
    let mut change = RefFields::default();
    reader.object("resource.refUpdates[]", |key, reader| {
        match key {
            RefUpdateKey::Name => change.name = reader.text()?,
            RefUpdateKey::OldObjectId => change.old = Id::read(reader)?,
            RefUpdateKey::NewObjectId => change.new = Id::read(reader)?,
        }
        Ok(())
    })?;
    Ok(change.change("refs/heads/"))
}

fn read_repository<'a>(reader: &mut Reader<'a>) -> Result<Option<Repository<'a>>, EventError> {
    let (mut name, mut project, mut http, mut ssh) = (None, None, None, None);
    reader.object("resource.repository", |key, reader| {
        match key {
            RepositoryKey::Name => name = reader.text()?,
            RepositoryKey::RemoteUrl => http = reader.text()?,
            RepositoryKey::SshUrl => ssh = reader.text()?,
            RepositoryKey::Project => {
                reader.object("resource.repository.project", |ProjectKey::Name, reader| {
                    project = reader.text()?;
                    Ok(())
                })?;
            }
        }
        Ok(())
    })?;
    let key =
        [&http, &ssh].into_iter().flatten().find_map(|address| RepositoryUrl::parse(address).ok());
    let name = project
        .zip(name)
        .filter(|(project, name)| !project.is_empty() && !name.is_empty())
        .map(|(project, name)| format!("{project}/{name}").into());
    Ok(Repository::new(name, http, ssh, key))
}
