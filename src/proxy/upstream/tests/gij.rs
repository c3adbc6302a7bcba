//! Git Integration for Jira as its documentation describes it, and strict where that is silent.
//!
//! It stands by itself (`http` and `serde_json` are all that it uses), so that any test can put a
//! socket in front of it.
//!
//! Source: gitkraken/git-integration-for-jira-self-managed-docs, "Integration webhooks", "Creating
//! reindex triggers for a single repository", "Adding webhooks for Gerrit", "Adding webhooks for Azure
//! DevOps".

use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Method, Uri};
use serde_json::Value;

/// What it answers to a request that it takes.
pub(crate) const ANSWER: &str =
    r#"{"success": true, "finished": false, "threadId": "0b2ab6a8-4d3f-4c36-9d0f-6a1f5f1f7c11"}"#;

/// An installation with its secret key and its repositories.
pub(crate) struct Gij<'a> {
    /// The path of Jira, empty or such as `/jira`.
    pub(crate) base: &'a str,
    /// The secret key, as it stands in the settings.
    pub(crate) key: &'a str,
    /// The origins of the repositories.
    pub(crate) origins: &'a [&'a str],
}

/// Why a request starts no reindex of one repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Complaint {
    /// Not a `POST`. (It takes `GET` and `PUT` as well, which the gate must never send.)
    Method,
    /// Another path, another key, or a query.
    Url,
    /// Not exactly one content type that says JSON.
    ContentType,
    /// Not a JSON object.
    Body,
    /// No address where it looks for one: every repository would be indexed anew.
    NoRepository,
    /// Addresses, and none of them the origin of a repository.
    Unmatched,
}

impl<'a> Gij<'a> {
    /// The origin of the repository that a request has indexed anew.
    pub(crate) fn receive(
        &self,
        method: &Method,
        target: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<&'a str, Complaint> {
        if method != Method::POST {
            return Err(Complaint::Method);
        }
        let uri: Uri = target.parse().map_err(|_| Complaint::Url)?;
        let url = format!("{}/rest/gitplugin/webhook/1.0/reindex/{}", self.base, self.key);
        if uri.path() != url || uri.query().is_some() {
            return Err(Complaint::Url);
        }
        let mut types = headers.get_all(CONTENT_TYPE).iter();
        let (Some(media_type), None) = (types.next(), types.next()) else {
            return Err(Complaint::ContentType);
        };
        let media_type = media_type.to_str().map_err(|_| Complaint::ContentType)?;
        if media_type.split(';').next().map(str::trim) != Some("application/json") {
            return Err(Complaint::ContentType);
        }
        let body: Value = serde_json::from_slice(body).map_err(|_| Complaint::Body)?;
        if !body.is_object() {
            return Err(Complaint::Body);
        }
        let addresses = addresses(headers, &body);
        if addresses.is_empty() {
            return Err(Complaint::NoRepository);
        }
        let known = self.origins.iter().find(|origin| addresses.contains(origin));
        known.copied().ok_or(Complaint::Unmatched)
    }
}

/// What it reads of a body, by the headers that say which kind it is.
fn addresses<'b>(headers: &HeaderMap, body: &'b Value) -> Vec<&'b str> {
    let at = |pointers: &[&str]| -> Vec<&'b str> {
        pointers.iter().filter_map(|pointer| body.pointer(pointer)?.as_str()).collect()
    };
    if headers.get("x-gij-microsoft-event").is_some_and(|value| value == "1") {
        return at(&["/resource/repository/remoteUrl"]);
    }
    if let Some(kind) = headers.get("x-bbb-webhook-type") {
        let is_push = kind.as_bytes().eq_ignore_ascii_case(b"push");
        return if is_push { at(&["/origin"]) } else { Vec::new() };
    }
    at(&[
        // GitLab
        "/repository/git_http_url",
        "/repository/git_ssh_url",
        // GitHub
        "/repository/clone_url",
        "/repository/git_url",
        "/repository/ssh_url",
        "/repository/svn_url",
    ])
}
