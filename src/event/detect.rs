//! Which provider a body shows that came without any header that would tell.

use super::EventError;
use super::json::{self, Reader, Shape, keys};
use crate::provider::Provider;

keys! {
    enum Key {
        EventType = "eventType",
        PublisherId = "publisherId",
        Resource = "resource",
        Origin = "origin",
        Repository = "repository",
    }
}

keys! {
    enum RepositoryKey {
        GitHttpUrl = "git_http_url",
        GitSshUrl = "git_ssh_url",
        CloneUrl = "clone_url",
        SshUrl = "ssh_url",
        GitUrl = "git_url",
        SvnUrl = "svn_url",
    }
}

/// The provider that a body shows: Azure DevOps by `eventType` and `publisherId` or `resource`, a manual
/// trigger by `origin` or by a `repository` with one of the addresses that Git Integration for Jira reads.
///
/// To be asked only after a credential held. What is no JSON object shows nothing.
pub fn detect_in_body(payload: &[u8]) -> Option<Provider> {
    let (mut event_type, mut resource, mut manual) = (false, false, false);
    json::read(payload, |key, reader| {
        match key {
            Key::EventType => event_type = is_string(reader)?,
            Key::PublisherId => resource |= is_string(reader)?,
            Key::Resource => {
                resource |= reader.shape() == Shape::Object;
                reader.skip()?;
            }
            Key::Origin => manual |= is_string(reader)?,
            Key::Repository => {
                reader.object("repository", |_: RepositoryKey, reader| {
                    manual |= is_string(reader)?;
                    Ok(())
                })?;
            }
        }
        Ok(())
    })
    .ok()?;
    match (event_type && resource, manual) {
        (true, _) => Some(Provider::AzureDevops),
        (false, true) => Some(Provider::Manual),
        (false, false) => None,
    }
}

fn is_string(reader: &mut Reader<'_>) -> Result<bool, EventError> {
    let is_string = reader.shape() == Shape::String;
    reader.skip()?;
    Ok(is_string)
}
