//! Which body goes to upstream, and what its headers then say: `upstream_body`.
//!
//! | word | body | signature headers |
//! |---|---|---|
//! | `original` | the bytes that came in, form or JSON | may be forwarded |
//! | `json` | the JSON, unwrapped from a form where it came in one | dropped if the bytes changed |
//! | `reindex` | the addresses of the repository and nothing else | dropped |
//!
//! With `original`, two cases have no bytes to keep: a secret that the host repeats in the body is
//! blanked, and Gitea can put the payload into the query of a GET. Both go as JSON.
//!
//! # What Git Integration for Jira reads
//!
//! Its documentation asks for `application/json` and knows three shapes: GitHub's and GitLab's
//! `repository` with the addresses to clone from; `{"origin": "…"}` behind `x-bbb-webhook-type: push`, for
//! any host; and, with `x-gij-microsoft-event: 1`, that of Azure DevOps. An address must be the
//! *origin* that the repository was added with, letter by letter. A request that names no repository
//! that it knows may start a reindex of all of them. So for `reindex`:
//!
//! 1. The body is `{"repository":{"git_http_url":"…","git_ssh_url":"…"}}`, GitLab's names, each address as the
//!    event has it and left out where it has none: one is enough, since either may be the origin.
//! 2. A manual trigger keeps its `{"origin":"…"}` and its `x-bbb-webhook-*` headers: the origin may be a
//!    text that is no address at all.
//! 3. An event without an address, such as Gerrit's without `X-Origin-Url`, is an error and nothing is
//!    sent.
//! 4. The hosts' event and delivery headers stay here, as they tell of a body that is not sent:
//!    `x-gij-microsoft-event` beside this body would make it one without a repository. The `hookgate-*`
//!    headers tell the same.
//!
//! Sources: gitkraken/git-integration-for-jira-self-managed-docs, "Creating reindex triggers for a
//! single repository", "Adding webhooks for Gerrit" and "Integration webhooks".

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use serde_json::{Map, Value, json};

use super::header::{ForwardHeaders, is_allowed, is_signature};
use crate::delivery::Delivery;
use crate::event::{Event, blank_secrets};
use crate::provider::Provider;

/// What upstream gets of a delivery's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpstreamBody {
    /// The bytes that came in.
    #[default]
    Original,
    /// The JSON, unwrapped from a form where it came in one.
    Json,
    /// The addresses of the repository, as Git Integration for Jira documents it for a single one.
    Reindex,
}

impl UpstreamBody {
    /// Makes the body of a delivery that came by `method` with the body `original`.
    ///
    /// Costs no copy where the body stays as it is.
    ///
    /// # Errors
    ///
    /// If a repository has to be named and the delivery does not name one. The same delivery fails
    /// again whenever it is tried.
    pub fn content(
        self,
        delivery: &Delivery,
        method: &Method,
        original: Bytes,
    ) -> Result<Content, ContentError> {
        if self == Self::Reindex {
            return reindex(delivery.provider(), delivery.event());
        }
        let payload = match blank_secrets(delivery.provider(), delivery.payload()) {
            Cow::Borrowed(_) if self == Self::Original && method != Method::GET => {
                return Ok(Content { body: original, shape: Shape::Original });
            }
            Cow::Borrowed(_) => delivery.payload().clone(),
            Cow::Owned(blanked) => blanked.into(),
        };
        let rewritten = payload != original;
        Ok(Content { body: payload, shape: Shape::Json { rewritten } })
    }
}

/// A body for upstream that knows which headers fit it.
///
/// `Debug` shows its length.
#[derive(Clone)]
pub struct Content {
    body: Bytes,
    shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Original,
    Json { rewritten: bool },
    Repository,
    Origin,
}

impl Content {
    /// Whether the bytes are those that came in, so that what the host signed still holds.
    pub fn is_original(&self) -> bool {
        matches!(self.shape, Shape::Original | Shape::Json { rewritten: false })
    }

    /// Sets the content type and removes what no longer fits, and gives the body.
    ///
    /// `headers` come from [`rebuild_headers`](super::rebuild_headers) with the same `forward`.
    /// `signature` is a header that holds a signature although its name does not say so: that of the
    /// generic provider. A signature of our own must be made after this.
    pub fn into_body(
        self,
        headers: &mut HeaderMap,
        forward: &ForwardHeaders,
        signature: Option<&HeaderName>,
    ) -> Bytes {
        if self.shape == Shape::Original {
            return self.body;
        }
        let is_original = self.is_original();
        let is_rewritten = matches!(self.shape, Shape::Repository | Shape::Origin);
        let no_longer_fits = |name: &&HeaderName| {
            if !is_original && (is_signature(name) || signature == Some(*name)) {
                return true;
            }
            let is_of_this_body = *name == USER_AGENT
                || forward.contains(name)
                || self.shape == Shape::Origin && name.as_str().starts_with(MANUAL_PREFIX);
            is_rewritten && is_allowed(name.as_str()) && !is_of_this_body
        };
        let names: Vec<HeaderName> = headers.keys().filter(no_longer_fits).cloned().collect();
        for name in names {
            headers.remove(name);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.body
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("shape", &self.shape)
            .field("body_len", &self.body.len())
            .finish()
    }
}

/// Why there is no body for a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContentError {
    /// It names no repository.
    NoRepository,
    /// It names a repository by no address, only by a name.
    NoAddress,
}

impl fmt::Display for ContentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRepository => "the delivery names no repository",
            Self::NoAddress => "the delivery gives no address of its repository",
        })
    }
}

impl std::error::Error for ContentError {}

/// The headers of a manual trigger.
const MANUAL_PREFIX: &str = "x-bbb-webhook-";

fn reindex(provider: Provider, event: Option<&Event<'_>>) -> Result<Content, ContentError> {
    let event = event.ok_or(ContentError::NoRepository)?;
    let repository = event.repository.as_ref().ok_or(ContentError::NoRepository)?;
    let addresses = [&repository.http_url, &repository.ssh_url]
        .map(|address| address.as_deref().filter(|address| !address.is_empty()));
    // Only one that came with the header has a name.
    let is_manual = provider == Provider::Manual && !event.name.is_empty();
    let (shape, json) = match addresses {
        [None, None] => return Err(ContentError::NoAddress),
        [Some(origin), None] | [None, Some(origin)] if is_manual => {
            (Shape::Origin, json!({ "origin": origin }))
        }
        addresses => {
            let named = ["git_http_url", "git_ssh_url"].into_iter().zip(addresses);
            let known =
                named.filter_map(|(name, address)| Some((name.to_owned(), address?.into())));
            let repository: Map<String, Value> = known.collect();
            (Shape::Repository, json!({ "repository": repository }))
        }
    };
    Ok(Content { body: json.to_string().into(), shape })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{ParseOptions, parse};
    use crate::form;
    use crate::proxy::upstream::rebuild_headers;

    const BODY: &str = r#"{"repository":{"clone_url":"https://h.example/a/b.git"}}"#;

    fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    fn delivery(provider: Provider, headers: &[(&'static str, &str)], body: &str) -> Delivery {
        let event = parse(provider, &map(headers), body.as_bytes(), &ParseOptions::default());
        Delivery::builder(provider, None, true)
            .payload(Bytes::copy_from_slice(body.as_bytes()))
            .event(event.unwrap().into_owned())
            .build()
    }

    fn push(body: &str) -> Delivery {
        delivery(Provider::Github, &[("x-github-event", "push")], body)
    }

    /// The headers that are left of these, and the body.
    fn made(
        content: Content,
        headers: &[(&'static str, &str)],
        forward: &[&str],
    ) -> (HeaderMap, Bytes) {
        let forward = ForwardHeaders::new(forward, &[]).unwrap();
        let mut headers = rebuild_headers(&map(headers), &forward);
        let generic = HeaderName::from_static("x-hash");
        let body = content.into_body(&mut headers, &forward, Some(&generic));
        (headers, body)
    }

    const SIGNED: &[(&str, &str)] = &[
        ("user-agent", "host/1"),
        ("x-github-event", "push"),
        ("x-github-delivery", "72d3162e"),
        ("webhook-id", "72d3162e"),
        ("x-hub-signature-256", "sha256=00"),
        ("x-hash", "00"),
        ("x-team", "a"),
    ];
    const FORWARD: &[&str] = &["x-hub-signature-256", "x-hash", "x-team"];

    fn signed(content_type: &'static str) -> Vec<(&'static str, &'static str)> {
        [SIGNED, &[("content-type", content_type)]].concat()
    }

    fn without(names: &[&str], headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut kept = map(headers);
        for name in names {
            kept.remove(*name).unwrap();
        }
        kept
    }

    const JSON: &str = "application/json";
    const FORM: &str = "application/x-www-form-urlencoded";
    const SIGNATURES: &[&str] = &["x-hub-signature-256", "x-hash"];

    #[test]
    fn an_original_body_keeps_its_bytes_its_type_and_its_signatures() {
        let form = Bytes::from(form::encode(BODY));
        for (content_type, original) in
            [(JSON, BODY.into()), (FORM, form), ("application/vnd.x+json", BODY.into())]
        {
            let content =
                UpstreamBody::Original.content(&push(BODY), &Method::POST, original.clone());
            let content = content.unwrap();
            assert!(content.is_original());
            let headers = signed(content_type);
            assert_eq!(made(content, &headers, FORWARD), (map(&headers), original));
        }
    }

    #[test]
    fn a_body_with_a_secret_and_one_out_of_a_query_are_sent_as_json_and_as_signed_by_nobody() {
        let gitee = r#"{"hook_name":"push_hooks","password":"s3cret","project":{"name":"x","url":"https://gitee.com/a/b"}}"#;
        let blanked = gitee.replace("s3cret", "");
        let gitee = delivery(Provider::Gitee, &[], gitee);
        let gitea = delivery(Provider::Gitea, &[("x-gitea-event", "push")], BODY);
        for (delivery, method, original, expected) in [
            (&gitee, Method::POST, gitee.payload().clone(), &*blanked),
            (&gitee, Method::POST, form::encode("x").into(), &*blanked),
            (&gitea, Method::GET, Bytes::new(), BODY),
        ] {
            for body in [UpstreamBody::Original, UpstreamBody::Json] {
                let content = body.content(delivery, &method, original.clone()).unwrap();
                assert!(!content.is_original());
                let (headers, body) = made(content, &signed(JSON), FORWARD);
                assert_eq!(body, expected);
                assert_eq!(headers, without(SIGNATURES, &signed(JSON)));
            }
        }
    }

    #[test]
    fn json_unwraps_a_form_and_leaves_what_is_json_already_with_its_signatures() {
        let content = |original: Bytes| {
            UpstreamBody::Json.content(&push(BODY), &Method::POST, original).unwrap()
        };
        let (headers, body) = made(content(form::encode(BODY).into()), &signed(FORM), FORWARD);
        assert_eq!((headers, body), (without(SIGNATURES, &signed(JSON)), BODY.into()));
        for content_type in [JSON, "application/json; charset=utf-8", "application/vnd.x+json"] {
            let content = content(BODY.into());
            assert!(content.is_original());
            let made = made(content, &signed(content_type), FORWARD);
            assert_eq!(made, (map(&signed(JSON)), BODY.into()));
        }
        let untyped = made(content(BODY.into()), SIGNED, FORWARD);
        assert_eq!(untyped, (map(&signed(JSON)), BODY.into()));
    }

    #[test]
    fn reindex_leaves_the_host_s_headers_behind_and_keeps_what_was_asked_for() {
        let content = UpstreamBody::Reindex
            .content(&push(BODY), &Method::POST, form::encode(BODY).into())
            .unwrap();
        assert!(!content.is_original());
        let headers = [&signed(FORM)[..], &[("x-gij-microsoft-event", "1")]].concat();
        let (made_headers, body) = made(content.clone(), &headers, FORWARD);
        let kept = [("user-agent", "host/1"), ("x-team", "a"), ("content-type", JSON)];
        assert_eq!(made_headers, map(&kept));
        assert_eq!(body, r#"{"repository":{"git_http_url":"https://h.example/a/b.git"}}"#);
        let named = [FORWARD, &["x-github-delivery"]].concat();
        let (made_headers, _) = made(content.clone(), &headers, &named);
        let kept = [&kept[..], &[("x-github-delivery", "72d3162e")]].concat();
        assert_eq!(made_headers, map(&kept));
        let mut ours = map(&[("hookgate-event", "push"), ("forwarded", "for=192.0.2.1")]);
        let before = ours.clone();
        content.into_body(&mut ours, &ForwardHeaders::default(), None);
        assert_eq!(ours.remove(CONTENT_TYPE).unwrap(), JSON);
        assert_eq!(ours, before);
    }

    fn reindexed(delivery: &Delivery) -> Value {
        let content = UpstreamBody::Reindex.content(delivery, &Method::POST, Bytes::new());
        serde_json::from_slice(&content.unwrap().body).unwrap()
    }

    #[test]
    fn each_address_that_is_known_is_named_and_no_other() {
        for (repository, expected) in [
            (
                json!({"clone_url": "https://h.example/a/b.git", "ssh_url": "git@h.example:a/b.git"}),
                json!({"git_http_url": "https://h.example/a/b.git", "git_ssh_url": "git@h.example:a/b.git"}),
            ),
            (
                json!({"clone_url": "https://h.example/a/b"}),
                json!({"git_http_url": "https://h.example/a/b"}),
            ),
            (
                json!({"clone_url": "", "ssh_url": "git@h.example:a/b"}),
                json!({"git_ssh_url": "git@h.example:a/b"}),
            ),
            (
                json!({"full_name": "a/b", "clone_url": "a \"b\" \u{fc}\\"}),
                json!({"git_http_url": "a \"b\" \u{fc}\\"}),
            ),
        ] {
            let body = json!({ "repository": repository }).to_string();
            let manual = delivery(Provider::Manual, &[], &body);
            assert_eq!(reindexed(&manual), json!({"repository": expected}));
        }
    }

    #[test]
    fn a_manual_trigger_keeps_its_shape_and_its_headers_if_it_came_with_them() {
        let headers = [
            ("content-type", JSON),
            ("x-bbb-webhook-type", "PUSH"),
            ("x-bbb-webhook-id", "nightly"),
            ("x-request-id", "1"),
        ];
        let one = r#"{"repository":{"ssh_url":"git@h.example:a/b"}}"#;
        let two =
            r#"{"repository":{"ssh_url":"git@h.example:a/b","clone_url":"https://h.example/a/b"}}"#;
        for (body, expected, keeps) in [
            (r#"{"origin":"the \"origin\""}"#, json!({"origin": "the \"origin\""}), true),
            (one, json!({"origin": "git@h.example:a/b"}), true),
            (
                two,
                json!({"repository": {"git_http_url": "https://h.example/a/b", "git_ssh_url": "git@h.example:a/b"}}),
                false,
            ),
        ] {
            let delivery = delivery(Provider::Manual, &headers, body);
            assert_eq!(reindexed(&delivery), expected);
            let content = UpstreamBody::Reindex.content(&delivery, &Method::POST, body.into());
            let (made, _) = made(content.unwrap(), &headers, &[]);
            let kept = if keeps { &headers[..3] } else { &headers[..1] };
            assert_eq!(made, map(kept));
        }
    }

    #[test]
    fn debug_shows_no_body() {
        let content = UpstreamBody::Reindex.content(&push(BODY), &Method::POST, Bytes::new());
        let shown = format!("{:?}", content.unwrap());
        assert_eq!(shown, "Content { shape: Repository, body_len: 59 }");
    }

    proptest! {
        #[test]
        fn whatever_an_origin_is_the_body_is_json_and_says_it(origin in "[^@\\p{Cc}]{1,60}") {
            let body = json!({ "origin": origin }).to_string();
            let headers = [("x-bbb-webhook-type", "push")];
            let delivery = delivery(Provider::Manual, &headers, &body);
            prop_assert_eq!(reindexed(&delivery), json!({ "origin": origin }));
        }
    }
}
