//! A delivery with all that is needed to send it, now or later.
//!
//! What is stored of it is what would be sent to a service that wants it as it came: the headers of the
//! allow-list and the body with its secrets blanked. Where and in which shape it goes is decided anew
//! whenever it is sent, so that a mistake in the configuration can be mended and the delivery sent again. The
//! headers say to which trace it belongs too.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use crate::delivery::Delivery;
use crate::event::{self, Event, Kind, ParseOptions};
use crate::gate::GateBody;
use crate::proxy::spool::{About, Content};
use crate::proxy::telemetry::{RequestId, Sampling, Trace, TraceParent, trace_state};
use crate::proxy::tls::Transport;
use crate::proxy::upstream::{
    FORWARDING, ForwardHeaders, Forwarding, Stamp, UpstreamBody, rebuild_headers,
};
use crate::scheme;
use crate::source::Source;
use crate::time::Timestamp;

/// A delivery on its way. Its headers and body are those that came in, or what was stored of them.
pub(super) struct Outgoing {
    pub(super) delivery: Delivery,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The request that brought it, whose children the calls are.
    pub(super) trace: Trace,
    /// What goes with a trace that others began.
    pub(super) trace_state: Option<HeaderValue>,
    /// In place of an id of the host, where it gives none.
    own_id: Option<String>,
    /// In place of the key that held, where only its name is known.
    key_name: Option<String>,
    origin: Origin,
}

/// Where it came from.
enum Origin {
    Seen {
        source: Option<Source>,
        tls: bool,
        host: Option<String>,
    },
    /// Told by the headers.
    Stored,
}

impl Outgoing {
    /// `None` for a request that did not come through the gate.
    pub(super) fn new<B>(request: Request<GateBody<B>>) -> Option<Self> {
        let (mut parts, body) = request.into_parts();
        let delivery = parts.extensions.remove::<Delivery>()?;
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.or_else(|| parts.uri.authority().map(|authority| authority.as_str()));
        let own_id = match delivery.id() {
            Some(_) => None,
            None => parts.extensions.get::<RequestId>().map(ToString::to_string),
        };
        let trace = parts.extensions.get::<Trace>().copied();
        let trace = trace.unwrap_or_else(|| Trace::of_request(&parts.headers, Sampling::ALL));
        Some(Self {
            delivery,
            trace,
            trace_state: trace.parent().and_then(|_| trace_state(&parts.headers)),
            own_id,
            key_name: None,
            origin: Origin::Seen {
                source: parts.extensions.get().copied(),
                tls: parts.extensions.get() == Some(&Transport::Tls),
                host: host.map(Into::into),
            },
            method: parts.method,
            headers: parts.headers,
            body: body.bytes().cloned().unwrap_or_default(),
        })
    }

    /// What was stored, read as it was when it came.
    ///
    /// # Errors
    ///
    /// If it says something else to this program, or under this configuration, than it did then.
    pub(super) fn stored(
        about: &About,
        content: Content,
        options: &ParseOptions,
    ) -> Result<Self, &'static str> {
        let Content { headers, body } = content;
        let (method, uri) = (Method::POST, Uri::from_static("/"));
        let head = scheme::Head { method: &method, uri: &uri, headers: &headers };
        let payload = scheme::payload(head, &body).map_err(|_| "stored body has no payload")?;
        let event = if about.kind == Kind::ReindexAll {
            Event::reindex_all()
        } else {
            event::parse(about.provider, &headers, &payload, options)
                .map_err(|_| "stored body is not the event that it was")?
                .into_owned()
        };
        let delivery = Delivery::builder(&headers, about.provider, None, false);
        let delivery = delivery.payload(payload).event(event).build();
        let kept = TraceParent::of(&headers);
        Ok(Self {
            // What an earlier version stored has none.
            trace: kept.map_or_else(|| Trace::root(Sampling::ALL), Trace::resumed),
            trace_state: kept.and_then(|_| trace_state(&headers)),
            own_id: Some(about.delivery.clone()).filter(|id| !id.is_empty()),
            key_name: about.key_name.clone(),
            origin: Origin::Stored,
            delivery,
            method,
            headers,
            body,
        })
    }

    /// What is to be stored of it.
    pub(super) fn content(
        &self,
        forward: &ForwardHeaders,
        signature: Option<&HeaderName>,
        options: &ParseOptions,
    ) -> Content {
        let mut headers = rebuild_headers(&self.headers, forward);
        let shape = if self.is_everything() { UpstreamBody::Json } else { UpstreamBody::Original };
        let body = match shape.content(&self.delivery, &self.method, self.body.clone()) {
            Ok(content) => content.into_body(&mut headers, forward, signature),
            // Only a body that names a repository can lack one.
            Err(_) => self.body.clone(),
        };
        if let Some(name) = &options.event_header
            && let Some(value) = self.headers.get(name)
        {
            headers.insert(name, value.clone());
        }
        self.write_origin(&mut headers);
        self.trace.write(self.trace_state.as_ref(), &mut headers);
        Content { headers, body }
    }

    /// What it is, without what the rules of the hook's pace say of it.
    pub(super) fn about(&self, hook: &str, received_at: Timestamp) -> About {
        let event = self.delivery.event();
        let kind = event.map_or(Kind::Other, |event| event.kind);
        let mut about = About::new(hook, self.delivery.provider(), kind, received_at);
        about.event = self.delivery.event_name().map(Into::into);
        about.repository = self.repository().map(Into::into);
        about.refs = self.refs().map(Into::into).collect();
        about.delivery = self.id().into_owned();
        about.key_name = self.key_name().map(Into::into);
        about
    }

    /// The host's id, or that of the request where the host gives none.
    pub(super) fn id(&self) -> Cow<'_, str> {
        self.delivery.id().or(self.own_id.as_deref()).unwrap_or_default().into()
    }

    /// Whether it is about every repository.
    pub(super) fn is_everything(&self) -> bool {
        self.delivery.event().is_some_and(|event| event.kind == Kind::ReindexAll)
    }

    /// The name of the key that held.
    pub(super) fn key_name(&self) -> Option<&str> {
        self.delivery.key_name().or(self.key_name.as_deref())
    }

    /// The repository, as far as the delivery names one.
    pub(super) fn repository(&self) -> Option<&str> {
        Some(self.delivery.event()?.repository.as_ref()?.identity())
    }

    /// The full names of the refs that changed.
    pub(super) fn refs(&self) -> impl Iterator<Item = &str> {
        self.delivery.event().into_iter().flat_map(|event| &event.refs).map(|change| &*change.name)
    }

    /// Says who came and what the gate found.
    pub(super) fn describe(&self, git_ref: Option<&str>, headers: &mut HeaderMap) {
        self.write_origin(headers);
        let id = self.id();
        Stamp {
            provider: self.delivery.provider(),
            event: self.delivery.event().map(|event| event.kind.as_str()),
            repository: self.repository(),
            git_ref,
            delivery: Some(&*id).filter(|id| !id.is_empty()),
            key: self.key_name(),
        }
        .write(headers);
    }

    fn write_origin(&self, headers: &mut HeaderMap) {
        match &self.origin {
            Origin::Seen { source: Some(source), tls, host } => {
                let host = host.as_deref();
                Forwarding { client: source.0, tls: *tls, host }.write(headers);
            }
            Origin::Seen { source: None, .. } => {}
            Origin::Stored => {
                for name in FORWARDING {
                    if let Some(value) = self.headers.get(&name) {
                        headers.insert(name, value.clone());
                    }
                }
            }
        }
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("delivery", &self.delivery).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use http::uri::PathAndQuery;

    use super::*;
    use crate::form;
    use crate::provider::Provider;
    use crate::proxy::dispatch::Target;
    use crate::proxy::dispatch::sender::request;
    use crate::proxy::upstream::{Upstream, UpstreamConfig};

    const PUSH: &str = r#"{"ref":"refs/heads/main",
        "before":"1111111111111111111111111111111111111111",
        "after":"2222222222222222222222222222222222222222",
        "password":"canary","sign":"canary","secret":"canary",
        "repository":{"full_name":"acme/widget","clone_url":"https://git.example.com/acme/widget.git",
        "ssh_url":"git@git.example.com:acme/widget.git",
        "git_http_url":"https://git.example.com/acme/widget.git"}}"#;
    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn options() -> ParseOptions {
        ParseOptions {
            event_header: Some(HeaderName::from_static("x-event")),
            ..Default::default()
        }
    }

    fn received(
        provider: Provider,
        method: Method,
        lines: &[(&'static str, &str)],
        body: &str,
    ) -> Outgoing {
        let mut headers: HeaderMap = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        for name in
            ["authorization", "cookie", "x-gitlab-token", "x-hub-signature-256", "x-signature"]
        {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("canary"));
        }
        let payload = match headers.get("content-type") {
            Some(kind) if kind == "application/x-www-form-urlencoded" => {
                form::payload(body.as_bytes()).unwrap().into()
            }
            _ => Bytes::copy_from_slice(body.as_bytes()),
        };
        let event = match (provider, body) {
            (Provider::Manual, "{}") => Event::reindex_all(),
            _ => event::parse(provider, &headers, &payload, &options()).unwrap().into_owned(),
        };
        let delivery = Delivery::builder(&headers, provider, None, true);
        Outgoing {
            delivery: delivery.payload(payload).event(event).build(),
            trace: Trace::root(Sampling::ALL),
            trace_state: Some(HeaderValue::from_static("rojo=1")),
            own_id: Some("9f3c01ab-2a".into()),
            key_name: Some("2026-11".into()),
            origin: Origin::Seen {
                source: Some(Source(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)))),
                tls: true,
                host: Some("hooks.example.com".into()),
            },
            body: if method == Method::GET { Bytes::new() } else { body.to_owned().into() },
            method,
            headers,
        }
    }

    fn cases() -> Vec<Outgoing> {
        const JSON: (&str, &str) = ("content-type", "application/json");
        const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
        let form = form::encode(PUSH);
        let post =
            |provider, lines: &[_], body: &str| received(provider, Method::POST, lines, body);
        vec![
            post(
                Provider::Github,
                &[JSON, ("x-github-event", "push"), ("x-github-delivery", "72d3162e")],
                PUSH,
            ),
            post(Provider::Github, &[FORM, ("x-github-event", "push")], &form),
            post(
                Provider::Gitlab,
                &[JSON, ("x-gitlab-event", "Push Hook")],
                &PUSH.replace("\"repository\"", "\"project\""),
            ),
            post(
                Provider::Gitea,
                &[JSON, ("x-gitea-event", "push"), ("x-gitea-delivery", "f6266f16")],
                PUSH,
            ),
            received(Provider::Gitea, Method::GET, &[("x-gitea-event", "push")], PUSH),
            post(Provider::Gitee, &[JSON, ("x-gitee-event", "Push Hook")], PUSH),
            post(Provider::Generic, &[JSON, ("x-event", "push")], PUSH),
            post(
                Provider::Manual,
                &[JSON, ("x-bbb-webhook-type", "push")],
                r#"{"origin":"git@git.example.com:acme/widget.git"}"#,
            ),
            post(Provider::Manual, &[], "{}"),
        ]
    }

    #[test]
    fn what_was_stored_is_sent_as_it_would_have_been_at_once_in_every_shape() {
        for live in cases() {
            let about = live.about("hook", NOW);
            let signature = HeaderName::from_static("x-signature");
            let forward = ForwardHeaders::new(["x-signature"], &[]).unwrap();
            let content = live.content(&forward, Some(&signature), &options());
            let stored = Outgoing::stored(&about, content, &options()).unwrap();
            assert_eq!(stored.delivery.event(), live.delivery.event());
            assert_eq!(stored.id(), live.id());
            assert_eq!(stored.trace.to_parent(), live.trace.to_parent());
            assert_eq!(stored.trace_state, live.trace_state);
            for body in [UpstreamBody::Original, UpstreamBody::Json, UpstreamBody::Reindex] {
                let upstream = UpstreamConfig::new("http://127.0.0.1:1").unwrap();
                let path = PathAndQuery::from_static("/webhook");
                let mut target = Target::new(Upstream::new(&upstream), path);
                target.body = body;
                target.forward_headers = forward.clone();
                target.generic_header = Some(signature.clone());
                let sent = |outgoing| request(&target, outgoing, "id", Some("refs/heads/main"));
                match (sent(&live), sent(&stored)) {
                    (Ok(live), Ok(stored)) => {
                        assert_eq!(stored.headers, live.headers, "{body:?}");
                        assert_eq!(stored.body, live.body, "{body:?}");
                    }
                    (live, stored) => assert!(live.is_err() && stored.is_err(), "{body:?}"),
                }
            }
        }
    }

    #[test]
    fn what_is_stored_has_no_credential_and_blanked_bodies() {
        for live in cases() {
            let forward = ForwardHeaders::default();
            let content = live.content(&forward, None, &options());
            let headers = format!("{:?}", content.headers);
            assert!(!headers.contains("canary"), "{headers}");
            if live.delivery.provider() == Provider::Gitee {
                let body = String::from_utf8_lossy(&content.body);
                assert_eq!(
                    body.matches("canary").count(),
                    1,
                    "only what means nothing to Gitee: {body}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_longer_what_it_was_is_an_error() {
        let live = &cases()[0];
        let about = live.about("hook", NOW);
        let content = || live.content(&ForwardHeaders::default(), None, &options());
        for body in ["", "{}", "[]", "{\"ref\":1"] {
            let content = Content { body: Bytes::from(body), ..content() };
            assert!(Outgoing::stored(&about, content, &options()).is_err(), "{body}");
        }
        let mut other = content();
        other.headers.insert("content-type", HeaderValue::from_static("text/plain"));
        assert!(Outgoing::stored(&about, other, &options()).is_err());
    }
}
