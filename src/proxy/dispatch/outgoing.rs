//! A delivery with all that is needed to send it, now or later.
//!
//! What is stored of it is what would be sent to a service that wants it as it came: the headers of the
//! allow-list and the body with its secrets blanked. Where and in which shape it goes is decided anew
//! whenever it is sent, so that a mistake in the configuration can be mended and the delivery sent again.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderName, Method, Request, Uri};

use crate::delivery::Delivery;
use crate::event::{self, Event, Kind, ParseOptions};
use crate::gate::GateBody;
use crate::proxy::spool::{About, Content};
use crate::proxy::telemetry::RequestId;
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
        Some(Self {
            delivery,
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
        Ok(Self {
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
