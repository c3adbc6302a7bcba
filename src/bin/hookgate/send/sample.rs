//! Deliveries as hosts send them, about a repository of anybody's choice.

use data_encoding::HEXLOWER;
use hookgate::provider::Provider;
use hookgate::time::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde_json::{Value, json};

use crate::args::SampleEvent;

/// A delivery that proves nothing yet.
pub(crate) struct Sample {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// A repository by its address on the web.
pub(crate) struct Address {
    /// Scheme, host and port.
    origin: String,
    host: String,
    /// Without slashes around it and without `.git`.
    path: String,
    full: String,
}

impl Address {
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        const EXPECTED: &str =
            "expected the repository's address on the web, such as https://github.com/acme/widgets";
        let uri: Uri = url.parse().map_err(|_| EXPECTED)?;
        let (Some(scheme @ ("https" | "http")), Some(authority)) =
            (uri.scheme_str(), uri.authority())
        else {
            return Err(EXPECTED.into());
        };
        let path = uri.path().trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path);
        if authority.as_str().contains('@') || uri.query().is_some() || !path.contains('/') {
            return Err(EXPECTED.into());
        }
        Ok(Self {
            origin: format!("{scheme}://{authority}"),
            host: authority.host().into(),
            path: path.into(),
            full: format!("{scheme}://{authority}{}", uri.path()),
        })
    }

    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    fn html(&self) -> String {
        format!("{}/{}", self.origin, self.path)
    }

    fn http(&self) -> String {
        format!("{}.git", self.html())
    }

    fn ssh(&self) -> String {
        format!("git@{}:{}.git", self.host, self.path)
    }
}

/// What the host calls an event; `None` if it has none such, or names none in a header.
pub(crate) fn event_name(provider: Provider, event: SampleEvent) -> Option<&'static str> {
    use SampleEvent::{Ping, Push, Tag};
    Some(match (provider, event) {
        (Provider::Github, Ping) => "ping",
        (Provider::Github | Provider::Gitea | Provider::Forgejo | Provider::Gogs, _) => "push",
        (Provider::Gitlab | Provider::Gitee, Push) => "Push Hook",
        (Provider::Gitlab, Tag) => "Tag Push Hook",
        (Provider::Gitee, Tag) => "Tag Push Hook",
        (Provider::Gitee, Ping) => "Push Hook",
        (Provider::BitbucketCloud, Push | Tag) => "repo:push",
        (Provider::BitbucketServer, Push | Tag) => "repo:refs_changed",
        (Provider::BitbucketServer, Ping) => "diagnostics:ping",
        (Provider::Manual, Push | Tag) => "push",
        _ => return None,
    })
}

/// The headers that name and number a delivery of this event.
pub(crate) fn event_headers(
    provider: Provider,
    event: Option<&str>,
    id: &str,
) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    let value = |text: &str| {
        HeaderValue::from_str(text).map_err(|_| "the event's name does not stand in a header")
    };
    if let (Some(name), Some(event)) = (provider.event_header(), event) {
        headers.insert(name, value(event)?);
        // Each of the three also sends what those before it send.
        let kin: &[&str] = match provider {
            Provider::Forgejo => &["x-gitea-event", "x-gogs-event", "x-github-event"],
            Provider::Gitea => &["x-gogs-event", "x-github-event"],
            Provider::Gogs => &["x-github-event"],
            _ => &[],
        };
        for name in kin {
            headers.insert(HeaderName::from_static(name), value(event)?);
        }
    }
    if let Some(name) = provider.delivery_header() {
        headers.insert(name, value(id)?);
    }
    match provider {
        Provider::BitbucketCloud => {
            headers.insert("x-hook-uuid", value(id)?);
            headers.insert("x-attempt-number", value("1")?);
        }
        Provider::Gitlab => {
            headers.insert("x-gitlab-webhook-uuid", value(id)?);
        }
        _ => {}
    }
    Ok(headers)
}

/// A delivery of this event. What changed is random, so that no two are the same push.
pub(crate) fn sample(
    provider: Provider,
    event: SampleEvent,
    address: &Address,
    name: &str,
    id: &str,
    now: Timestamp,
) -> Result<Sample, String> {
    sample_of(provider, event, address, &Change::new(event, name)?, id, now)
}

/// A delivery that tells of this change.
pub(crate) fn sample_of(
    provider: Provider,
    event: SampleEvent,
    address: &Address,
    change: &Change,
    id: &str,
    now: Timestamp,
) -> Result<Sample, String> {
    let word = event_name(provider, event);
    let mut headers = event_headers(provider, word, id)?;
    let media = match provider {
        Provider::BitbucketServer | Provider::AzureDevops | Provider::Gerrit => {
            "application/json; charset=utf-8"
        }
        _ => "application/json",
    };
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(media));
    if provider == Provider::Gerrit {
        let origin = HeaderValue::from_str(&format!("{}/", address.origin))
            .map_err(|_| "this is no host")?;
        headers.insert("x-origin-url", origin);
    }
    if provider == Provider::Gitee {
        let is_ping = if event == SampleEvent::Ping { "true" } else { "false" };
        headers.insert("x-gitee-ping", HeaderValue::from_static(is_ping));
    }
    let body = match (provider, event) {
        (Provider::BitbucketServer, SampleEvent::Ping) => json!({"test": true}),
        (Provider::Github, SampleEvent::Ping) => json!({
            "zen": "Anything added dilutes everything else.",
            "hook_id": 1,
            "hook": {"type": "Repository", "id": 1, "active": true, "events": ["push"]},
            "repository": github_repository(address),
        }),
        (
            Provider::Gitlab
            | Provider::BitbucketCloud
            | Provider::Gerrit
            | Provider::Manual
            | Provider::Generic
            | Provider::StandardWebhooks,
            SampleEvent::Ping,
        ) => return Err(format!("{provider} has no ping: its test is an ordinary push")),
        _ => push(provider, event, address, change, now),
    };
    Ok(Sample { headers, body: body.to_string().into_bytes() })
}

/// What became of a branch or tag.
pub(crate) struct Change {
    full: String,
    short: String,
    is_tag: bool,
    before: String,
    after: String,
}

impl Change {
    fn new(event: SampleEvent, name: &str) -> Result<Self, String> {
        let after = random_hex(20)?;
        let before = match event {
            SampleEvent::Push => random_hex(20)?,
            SampleEvent::Tag => "0".repeat(40),
            // Nothing changed: so Gitea, Forgejo and Gogs try a hook.
            SampleEvent::Ping => after.clone(),
        };
        Ok(Self::between(event, name, before, after))
    }

    /// From one commit to another.
    pub(crate) fn between(event: SampleEvent, name: &str, before: String, after: String) -> Self {
        let is_tag = event == SampleEvent::Tag;
        let short = name.trim_start_matches("refs/heads/").trim_start_matches("refs/tags/");
        let full = format!("refs/{}/{short}", if is_tag { "tags" } else { "heads" });
        Self { full, short: short.into(), is_tag, before, after }
    }
}

fn github_repository(address: &Address) -> Value {
    json!({
        "id": 1,
        "name": address.name(),
        "full_name": address.path,
        "html_url": address.html(),
        "clone_url": address.http(),
        "ssh_url": address.ssh(),
    })
}

fn push(
    provider: Provider,
    event: SampleEvent,
    address: &Address,
    change: &Change,
    now: Timestamp,
) -> Value {
    let Change { full, short, is_tag, before, after } = change;
    let kind = if *is_tag { "tag" } else { "branch" };
    let word = if *is_tag { "tag_push" } else { "push" };
    match provider {
        Provider::Gitlab => json!({
            "object_kind": word, "event_name": word, "before": before, "after": after, "ref": full,
            "checkout_sha": after,
            "project": {
                "id": 1, "path_with_namespace": address.path, "web_url": address.html(),
                "git_http_url": address.http(), "git_ssh_url": address.ssh(),
            },
            "repository": {
                "name": address.name(), "url": address.ssh(), "homepage": address.html(),
                "git_http_url": address.http(), "git_ssh_url": address.ssh(),
            },
            "commits": [], "total_commits_count": 1,
        }),
        Provider::BitbucketCloud => {
            let side = |hash: &str| json!({"type": kind, "name": short, "target": {"hash": hash}});
            let old = if *is_tag { Value::Null } else { side(before) };
            json!({
                "push": {"changes": [{
                    "old": old, "new": side(after), "created": is_tag, "closed": false, "forced": false,
                    "truncated": false, "commits": [],
                }]},
                "repository": {"full_name": address.path, "links": {"html": {"href": address.html()}}},
                "actor": {"nickname": "hookgate"},
            })
        }
        Provider::BitbucketServer => {
            let path = address.path.strip_prefix("scm/").unwrap_or(&address.path);
            let (project, slug) = path.split_once('/').unwrap_or(("", path));
            json!({
                "eventKey": "repo:refs_changed", "date": now.to_string(), "actor": {"name": "hookgate"},
                "repository": {
                    "slug": slug, "project": {"key": project.to_uppercase()},
                    "links": {"clone": [{"name": "http", "href": address.http()}]},
                },
                "changes": [{
                    "ref": {"id": full, "displayId": short, "type": kind.to_uppercase()}, "refId": full,
                    "fromHash": before, "toHash": after, "type": if *is_tag { "ADD" } else { "UPDATE" },
                }],
            })
        }
        Provider::AzureDevops => {
            let mut parts = address.path.split("/_git/");
            let project = parts.next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
            let zero = "00000000-0000-0000-0000-000000000000";
            let subscription = if event == SampleEvent::Ping {
                zero
            } else {
                "6c1f0a4e-52b4-4a53-9c55-1f3a5cf5b0aa"
            };
            json!({
                "subscriptionId": subscription, "notificationId": 1, "eventType": "git.push", "publisherId": "tfs",
                "resource": {
                    "refUpdates": [{"name": full, "oldObjectId": before, "newObjectId": after}],
                    "repository": {
                        "id": "278d5cd2-584d-4b63-824a-2ba458937249", "name": address.name(),
                        "remoteUrl": address.full, "project": {"name": project},
                    },
                    "pushId": 1,
                },
                "createdDate": now.to_string(),
            })
        }
        Provider::Gerrit => json!({
            "submitter": {"name": "hookgate", "username": "hookgate"},
            "refUpdate": {"oldRev": before, "newRev": after, "refName": full, "project": address.path},
            "type": "ref-updated", "eventCreatedOn": now.as_seconds(),
        }),
        Provider::Gitee => json!({
            "hook_name": format!("{word}_hooks"), "hook_id": 1, "timestamp": now.as_millis().to_string(),
            "ref": full, "before": before, "after": after, "created": is_tag, "deleted": false,
            "repository": {
                "path_with_namespace": address.path, "full_name": address.path, "clone_url": address.http(),
                "git_http_url": address.http(), "ssh_url": address.ssh(), "git_ssh_url": address.ssh(),
            },
        }),
        Provider::Manual => json!({"origin": address.full}),
        Provider::StandardWebhooks => json!({
            "type": "push", "timestamp": now.to_string(),
            "data": {"ref": full, "before": before, "after": after, "clone_url": address.http()},
        }),
        Provider::Generic => json!({
            "ref": full, "before": before, "after": after, "repository": {"clone_url": address.http()},
        }),
        // GitHub's form, which Gitea, Forgejo and Gogs have as well.
        _ => json!({
            "ref": full, "before": before, "after": after, "created": is_tag, "deleted": false, "forced": false,
            "repository": github_repository(address),
            "pusher": {"name": "hookgate", "login": "hookgate"}, "commits": [],
        }),
    }
}

/// A random UUID, as most hosts number their deliveries.
pub(crate) fn random_id() -> Result<String, String> {
    let mut digits = random_hex(16)?;
    digits.replace_range(12..13, "4");
    digits.replace_range(16..17, "a");
    Ok([&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-"))
}

pub(crate) fn random_hex(bytes: usize) -> Result<String, String> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random).map_err(|error| format!("no random bytes: {error}"))?;
    Ok(HEXLOWER.encode(&random))
}
