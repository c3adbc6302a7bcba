//! Azure DevOps Services and Server.
//!
//! The body names the event, in `eventType`. *Test* on the page of a subscription sends a sample
//! about a repository that does not exist, with a `subscriptionId` of zeros. The address stands in
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{A, B, ZERO, key, read, refs};
    use super::*;
    use crate::provider::Provider;

    fn body(event_type: &str, updates: Value) -> Value {
        json!({
            "id": "1", "eventType": event_type, "publisherId": "tfs", "subscriptionId": "3f1c0de5-b0e4-4d7f-9a8b-7c6d5e4f3a2b",
            "resource": {"refUpdates": updates, "repository": {
                "id": "4bc14d40", "name": "Widget", "project": {"name": "Tools"},
                "remoteUrl": "https://acme@dev.azure.com/acme/Tools/_git/Widget",
            }},
        })
    }

    fn event(body: &Value) -> Result<Event<'static>, EventError> {
        read(Provider::AzureDevops, ("x-other", "x"), body)
    }

    #[test]
    fn a_push_tells_all_its_refs() {
        let event = event(&body(
            "git.push",
            json!([
                {"name": "refs/heads/main", "oldObjectId": A, "newObjectId": B},
                {"name": "refs/heads/x", "oldObjectId": ZERO, "newObjectId": B},
                {"name": "refs/tags/v1", "oldObjectId": A, "newObjectId": ZERO},
            ]),
        ))
        .unwrap();
        assert_eq!((event.kind, &*event.name), (Kind::Push, "git.push"));
        assert_eq!(key(&event), "dev.azure.com/acme/tools/widget");
        assert_eq!(event.repository.as_ref().unwrap().name, "Tools/Widget");
        assert_eq!(
            refs(&event),
            [
                "refs/heads/main Branch Updated a b",
                "refs/heads/x Branch Created - b",
                "refs/tags/v1 Tag Deleted a -"
            ]
        );
    }

    #[test]
    fn a_push_without_updates_is_one_of_unknown_refs() {
        for updates in [json!([]), json!(null), json!({}), json!([null]), json!([{"name": 1}])] {
            let event = event(&body("git.push", updates)).unwrap();
            assert_eq!((event.kind, event.refs.len()), (Kind::Push, 0));
        }
    }

    #[test]
    fn the_sample_of_a_test_is_a_ping() {
        let mut test = body("git.push", json!([]));
        test["subscriptionId"] = json!("00000000-0000-0000-0000-000000000000");
        assert_eq!(event(&test).unwrap().kind, Kind::Ping);
        test["subscriptionId"] = json!("00000000-0000-0000-0000-000000000001");
        assert_eq!(event(&test).unwrap().kind, Kind::Push);
        test["subscriptionId"] = json!("");
        assert_eq!(event(&test).unwrap().kind, Kind::Push);
    }

    #[test]
    fn pull_requests_are_told_by_their_type() {
        let merged = event(&body("git.pullrequest.merged", json!(null))).unwrap();
        assert_eq!((merged.kind, merged.action.as_deref()), (Kind::PullRequest, Some("merged")));
        assert_eq!(event(&body("build.complete", json!(null))).unwrap().kind, Kind::Other);
    }

    #[test]
    fn what_the_subscription_does_not_send_is_named() {
        let error =
            event(&json!({"eventType": "git.push", "resource": {"pushId": 1}})).unwrap_err();
        assert_eq!(error, EventError::Malformed { field: "resource.repository" });
        let error = event(&json!({"resource": {}})).unwrap_err();
        assert_eq!(error, EventError::Malformed { field: "eventType" });
        let mut minimal = body("git.push", json!([]));
        minimal["resource"]["repository"]["remoteUrl"] = json!(null);
        let event = event(&minimal).unwrap();
        assert_eq!(
            (key(&event), event.repository.as_ref().unwrap().identity()),
            ("", "Tools/Widget")
        );
    }
}
