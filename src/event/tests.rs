//! What the tests of the parsers share, and what holds for all of them: a body of any shape is an
//! event or an error.

use std::sync::LazyLock;

use http::HeaderValue;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::repository::Patterns;

pub(super) const A: &str = "a3f1c0de5b0e4d7f9a8b7c6d5e4f3a2b1c0d9e8f";
pub(super) const B: &str = "b3f1c0de5b0e4d7f9a8b7c6d5e4f3a2b1c0d9e8f";
pub(super) const ZERO: &str = "0000000000000000000000000000000000000000";

pub(super) fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
        .collect()
}

/// The event of a delivery with one header.
pub(super) fn read(
    provider: Provider,
    header: (&'static str, &str),
    body: &Value,
) -> Result<Event<'static>, EventError> {
    let body = body.to_string();
    parse(provider, &headers(&[header]), body.as_bytes(), &ParseOptions::default())
        .map(Event::into_owned)
}

pub(super) fn key<'e>(event: &'e Event<'_>) -> &'e str {
    event.repository.as_ref().and_then(|repository| repository.key()).map_or("", |key| key.as_str())
}

/// The refs in one line each: name, change, old and new.
pub(super) fn refs(event: &Event<'_>) -> Vec<String> {
    let id = |id: &Option<Cow<'_, str>>| id.as_ref().map_or('-', |id| char::from(id.as_bytes()[0]));
    event
        .refs
        .iter()
        .map(|c| format!("{} {:?} {:?} {} {}", c.name, c.kind, c.change, id(&c.old), id(&c.new)))
        .collect()
}

/// A body of every provider, with its headers.
static SAMPLES: LazyLock<Vec<(Provider, HeaderMap, Value)>> = LazyLock::new(|| {
    let plain = json!({
        "ref": "refs/heads/main", "before": A, "after": B, "created": false, "deleted": false, "forced": true,
        "action": "opened", "ref_type": "branch", "sha": A, "hook_name": "push_hooks", "object_kind": "push",
        "commits": [{"id": B, "message": "x"}],
        "repository": {
            "full_name": "acme/widget", "path_with_namespace": "acme/widget",
            "clone_url": "https://git.example.com/acme/widget.git", "ssh_url": "git@git.example.com:acme/widget.git",
            "html_url": "https://git.example.com/acme/widget", "git_url": "git://git.example.com/acme/widget.git",
            "url": "https://git.example.com/api/v1/repos/acme/widget", "homepage": "https://widget.example",
        },
        "project": {"git_http_url": "https://git.example.com/acme/widget.git", "path_with_namespace": "acme/widget"},
        "changes": [{"ref": "refs/heads/main", "before": A, "after": B}],
        "object_attributes": {"action": "open", "target": {"git_http_url": "https://git.example.com/acme/widget.git"}},
    });
    let cloud = json!({
        "push": {"changes": [{
            "old": {"type": "branch", "name": "main", "target": {"hash": A}},
            "new": {"type": "branch", "name": "main", "target": {"hash": B}},
            "forced": true, "created": false, "closed": false,
        }]},
        "repository": {
            "full_name": "acme/widget",
            "links": {"html": {"href": "https://bitbucket.org/acme/widget"},
                      "self": {"href": "https://api.bitbucket.org/2.0/repositories/acme/widget"}},
        },
    });
    let server_repository = json!({
        "slug": "widget", "project": {"key": "ACME"},
        "links": {
            "clone": [{"name": "http", "href": "https://git.example.com/scm/acme/widget.git"},
                      {"name": "ssh", "href": "ssh://git@git.example.com:7999/acme/widget.git"}],
            "self": [{"href": "https://git.example.com/projects/ACME/repos/widget/browse"}],
        },
    });
    let server = json!({
        "eventKey": "repo:refs_changed", "refLimitExceeded": false,
        "changes": [{"ref": {"id": "refs/heads/main"}, "refId": "refs/heads/main", "fromHash": A, "toHash": B, "type": "UPDATE"}],
        "repository": server_repository,
        "pullRequest": {"toRef": {"repository": server_repository}},
    });
    let azure = json!({
        "eventType": "git.push", "publisherId": "tfs", "subscriptionId": "3f1c0de5-b0e4-4d7f-9a8b-7c6d5e4f3a2b",
        "resource": {
            "refUpdates": [{"name": "refs/heads/main", "oldObjectId": A, "newObjectId": B}],
            "repository": {
                "name": "widget", "project": {"name": "acme"},
                "remoteUrl": "https://dev.azure.com/org/acme/_git/widget", "sshUrl": "git@ssh.dev.azure.com:v3/org/acme/widget",
                "url": "https://dev.azure.com/org/_apis/git/repositories/3f1c0de5",
            },
        },
    });
    let gerrit = json!({
        "type": "ref-updated",
        "refUpdate": {"project": "acme/widget", "refName": "refs/heads/main", "oldRev": A, "newRev": B},
        "refUpdates": [{"project": "acme/widget", "refName": "refs/heads/main", "oldRev": A, "newRev": B}],
        "change": {"project": "acme/widget"},
    });
    let manual = json!({"origin": "https://git.example.com/acme/widget.git"});
    vec![
        (Provider::Github, headers(&[("x-github-event", "push")]), plain.clone()),
        (Provider::Gitlab, headers(&[("x-gitlab-event", "Push Hook")]), plain.clone()),
        (Provider::BitbucketCloud, headers(&[("x-event-key", "repo:push")]), cloud),
        (Provider::BitbucketServer, headers(&[("x-event-key", "repo:refs_changed")]), server),
        (Provider::Gitea, headers(&[("x-gitea-event", "push")]), plain.clone()),
        (Provider::Forgejo, headers(&[("x-forgejo-event", "create")]), plain.clone()),
        (Provider::Gogs, headers(&[("x-gogs-event", "delete")]), plain.clone()),
        (Provider::AzureDevops, HeaderMap::new(), azure),
        (Provider::Gerrit, headers(&[("x-origin-url", "https://git.example.com/")]), gerrit),
        (Provider::Gitee, headers(&[("x-gitee-event", "Push Hook")]), plain.clone()),
        (Provider::Manual, headers(&[("x-bbb-webhook-type", "push")]), manual),
        (Provider::Generic, HeaderMap::new(), json!({"data": plain})),
        (Provider::StandardWebhooks, HeaderMap::new(), plain),
    ]
});

#[test]
fn there_is_a_sample_of_every_provider_and_each_is_a_push_of_its_repository() {
    assert_eq!(SAMPLES.len(), Provider::ALL.len());
    for (provider, headers, body) in SAMPLES.iter().cloned() {
        let body = body.to_string();
        let event = parse(provider, &headers, body.as_bytes(), &ParseOptions::default()).unwrap();
        assert_eq!(event.kind, Kind::Push, "{provider}");
        assert!(key(&event).ends_with("/acme/widget"), "{provider}: {}", key(&event));
        let bound = Patterns::parse_list("*/acme/widget,dev.azure.com/org/acme/widget").unwrap();
        assert_eq!(addresses(provider, &headers, body.as_bytes()).err(), None, "{provider}");
        assert!(is_within(&bound, &event, provider, &headers, body.as_bytes()), "{provider}");
        let other = Patterns::parse_list("*/acme/gadget").unwrap();
        assert!(!is_within(&other, &event, provider, &headers, body.as_bytes()), "{provider}");
        assert_eq!(event.clone().into_owned(), event);
    }
}

#[test]
fn a_push_without_a_repository_names_the_place_where_it_should_be() {
    for (provider, headers, mut body) in SAMPLES.iter().cloned() {
        if provider == Provider::Gerrit {
            body["refUpdate"]["project"] = Value::Null;
        }
        for field in ["repository", "project", "resource", "origin", "data"] {
            body.as_object_mut().unwrap().remove(field);
        }
        let body = body.to_string();
        let error =
            parse(provider, &headers, body.as_bytes(), &ParseOptions::default()).unwrap_err();
        assert!(matches!(error, EventError::Malformed { .. }), "{provider}: {error}");
    }
}

#[test]
fn an_error_shows_nothing_of_the_body() {
    for (provider, headers, body) in SAMPLES.iter().cloned() {
        for body in [
            body.to_string().replace("acme", "s3cret").replace("https", "\u{1}"),
            format!("{{\"s3cret\":{body}"),
            "{\"ref\": \"s3cret\", \"repository\": \"\"}".to_owned(),
        ] {
            if let Err(error) = parse(provider, &headers, body.as_bytes(), &ParseOptions::default())
            {
                assert!(!format!("{error} {error:?}").contains("s3cret"), "{provider}");
            }
        }
    }
}

#[test]
fn a_header_that_stands_twice_is_an_error() {
    for (provider, mut headers, body) in SAMPLES.iter().cloned() {
        let Some(name) = provider.event_header().map(HeaderName::from_static) else { continue };
        headers.append(name, HeaderValue::from_static("other"));
        let body = body.to_string();
        let error =
            parse(provider, &headers, body.as_bytes(), &ParseOptions::default()).unwrap_err();
        assert!(matches!(error, EventError::Malformed { .. }), "{provider}: {error}");
    }
}

#[test]
fn a_header_that_is_no_text_is_an_error() {
    for (provider, mut headers, body) in SAMPLES.iter().cloned() {
        let Some(name) = provider.event_header().map(HeaderName::from_static) else { continue };
        headers.insert(name, HeaderValue::from_bytes(b"push\xff").unwrap());
        let body = body.to_string();
        let error =
            parse(provider, &headers, body.as_bytes(), &ParseOptions::default()).unwrap_err();
        assert!(matches!(error, EventError::Malformed { .. }), "{provider}: {error}");
    }
}

/// Any JSON, with what parsers may trip over.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        Just("\"\"".to_owned()),
        Just("1e999".to_owned()),
        Just("-123456789012345678901234567890".to_owned()),
        Just("\"\\ud800\"".to_owned()),
        Just("\"\\u0000\"".to_owned()),
        Just("\"refs/heads/\\n\"".to_owned()),
        Just(format!("\"{ZERO}\"")),
        Just("[".repeat(100) + &"]".repeat(100)),
        Just("{\"a\":".repeat(140) + "1" + &"}".repeat(140)),
        "[a-z:/@.%\\[\\]]{0,20}".prop_map(|text| Value::from(text).to_string()),
        ".{0,12}".prop_map(|text| Value::from(text).to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
    ];
    let name = prop::sample::select(vec![
        "ref",
        "name",
        "href",
        "links",
        "clone",
        "old",
        "new",
        "target",
        "hash",
        "project",
        "key",
        "id",
        "type",
        "full_name",
        "clone_url",
        "repository",
        "changes",
        "CLONE_URL",
    ]);
    leaf.prop_recursive(3, 12, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|list| format!("[{}]", list.join(","))),
            prop::collection::vec((name.clone(), inner), 0..4).prop_map(|members| {
                let members: Vec<_> = members.iter().map(|(n, v)| format!("\"{n}\":{v}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

/// The number of values in a body, itself included.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

/// The text of a body whose value number `at` is another, or stands twice if it is a member.
fn write(value: &Value, at: &mut usize, other: &str, twice: bool) -> String {
    if *at == 0 && !twice {
        *at = usize::MAX;
        return other.to_owned();
    }
    *at = at.saturating_sub(usize::from(*at != usize::MAX));
    match value {
        Value::Array(list) => {
            let list: Vec<_> = list.iter().map(|v| write(v, at, other, twice)).collect();
            format!("[{}]", list.join(","))
        }
        Value::Object(map) => {
            let mut members = Vec::new();
            for (name, value) in map {
                let name = Value::from(name.as_str());
                if *at == 0 && twice {
                    *at = usize::MAX;
                    members.push(format!("{name}:{other}"));
                }
                members.push(format!("{name}:{}", write(value, at, other, twice)));
            }
            format!("{{{}}}", members.join(","))
        }
        leaf => leaf.to_string(),
    }
}

/// What must hold whatever the body is.
fn check(provider: Provider, headers: &HeaderMap, body: &[u8]) -> Result<(), TestCaseError> {
    let parsed = parse(provider, headers, body, &ParseOptions::default());
    if let Ok(event) = &parsed {
        if event.kind == Kind::Push {
            prop_assert!(event.repository.as_ref().is_some_and(|r| !r.identity().is_empty()));
        }
        for change in &event.refs {
            prop_assert!(change.name.starts_with("refs/"));
        }
        let shown = [&*event.name, event.action.as_deref().unwrap_or_default()];
        prop_assert!(!shown.iter().any(|text| text.contains(char::is_control)));
        prop_assert_eq!(&event.clone().into_owned(), event);
        let _ = Rules::default().judge(event);
        let all = Patterns::parse_list("**").unwrap();
        let addresses = addresses(provider, headers, body);
        let may = is_within(&all, event, provider, headers, body);
        prop_assert!(!may || addresses.is_ok());
        prop_assert!(!may || event.kind == Kind::Ping || !addresses.unwrap().is_empty());
    }
    // A syntax error to us is one to serde, and the other way round.
    if !matches!(parsed, Err(EventError::TooDeep { .. } | EventError::Duplicate { .. })) {
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
        if matches!(parsed, Err(EventError::Syntax { .. })) {
            prop_assert!(!is_json, "{}", String::from_utf8_lossy(body));
        } else if parsed.is_ok() {
            prop_assert!(is_json, "{}", String::from_utf8_lossy(body));
        }
    }
    let _ = detect_in_body(body);
    let blank = blank_secrets(provider, body);
    if parsed.is_ok() {
        prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&blank).is_ok());
    }
    Ok(())
}

macro_rules! any_body {
    ($($test:ident: $provider:ident,)+) => {
        proptest! {
            #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
            $(
                #[test]
                fn $test(
                    at in any::<prop::sample::Index>(),
                    other in any_json(),
                    how in 0..4,
                    cut in any::<prop::sample::Index>(),
                    byte in any::<u8>(),
                ) {
                    let (provider, headers, body) =
                        SAMPLES.iter().find(|(p, ..)| *p == Provider::$provider).unwrap();
                    let mut at = at.index(count(body));
                    let mut text = match how {
                        0 | 1 => write(body, &mut at, &other, false).into_bytes(),
                        2 => write(body, &mut at, &other, true).into_bytes(),
                        _ => body.to_string().into_bytes(),
                    };
                    if how == 3 {
                        let cut = cut.index(text.len());
                        match byte {
                            0..128 => text.truncate(cut),
                            byte => text[cut] = byte - 128,
                        }
                    }
                    check(*provider, headers, &text)?;
                }
            )+
        }
    };
}

any_body! {
    any_body_of_github_is_an_event_or_an_error: Github,
    any_body_of_gitlab_is_an_event_or_an_error: Gitlab,
    any_body_of_bitbucket_cloud_is_an_event_or_an_error: BitbucketCloud,
    any_body_of_bitbucket_server_is_an_event_or_an_error: BitbucketServer,
    any_body_of_gitea_is_an_event_or_an_error: Gitea,
    any_body_of_forgejo_is_an_event_or_an_error: Forgejo,
    any_body_of_gogs_is_an_event_or_an_error: Gogs,
    any_body_of_azure_devops_is_an_event_or_an_error: AzureDevops,
    any_body_of_gerrit_is_an_event_or_an_error: Gerrit,
    any_body_of_gitee_is_an_event_or_an_error: Gitee,
    any_manual_body_is_an_event_or_an_error: Manual,
    any_generic_body_is_an_event_or_an_error: Generic,
    any_body_of_standard_webhooks_is_an_event_or_an_error: StandardWebhooks,
}
