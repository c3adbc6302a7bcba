//! A delivery with all that is needed to send it, now or later.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Method, Request};

use crate::delivery::Delivery;
use crate::gate::GateBody;
use crate::proxy::telemetry::RequestId;
use crate::proxy::tls::Transport;
use crate::proxy::upstream::{Forwarding, Stamp};
use crate::source::Source;

/// A delivery on its way. Its headers and body are those that came in.
pub(super) struct Outgoing {
    pub(super) delivery: Delivery,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    request: Option<RequestId>,
    source: Option<Source>,
    tls: bool,
    host: Option<String>,
}

impl Outgoing {
    /// `None` for a request that did not come through the gate.
    pub(super) fn new<B>(request: Request<GateBody<B>>) -> Option<Self> {
        let (mut parts, body) = request.into_parts();
        let delivery = parts.extensions.remove::<Delivery>()?;
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.or_else(|| parts.uri.authority().map(|authority| authority.as_str()));
        Some(Self {
            delivery,
            host: host.map(Into::into),
            method: parts.method,
            headers: parts.headers,
            body: body.bytes().cloned().unwrap_or_default(),
            request: parts.extensions.get().copied(),
            source: parts.extensions.get().copied(),
            tls: parts.extensions.get() == Some(&Transport::Tls),
        })
    }

    /// The host's id, or that of the request where the host gives none.
    pub(super) fn id(&self) -> Cow<'_, str> {
        match (self.delivery.id(), self.request) {
            (Some(id), _) => id.into(),
            (None, Some(id)) => id.to_string().into(),
            (None, None) => "".into(),
        }
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
        if let Some(source) = self.source {
            let host = self.host.as_deref();
            Forwarding { client: source.0, tls: self.tls, host }.write(headers);
        }
        let id = self.id();
        Stamp {
            provider: self.delivery.provider(),
            event: self.delivery.event().map(|event| event.kind.as_str()),
            repository: self.repository(),
            git_ref,
            delivery: Some(&*id).filter(|id| !id.is_empty()),
            key: self.delivery.key_name(),
        }
        .write(headers);
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("delivery", &self.delivery).finish_non_exhaustive()
    }
}
