//! Who calls: the peer of the connection, or the client behind proxies that are trusted.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Extensions, Request};
use tower_layer::Layer;
use tower_service::Service;

use crate::source::{Source, TrustedProxies};

/// Puts a [`Source`] into the extensions of each request, for the gate behind it.
///
/// The server knows the peer, and each has its own way to say so. For axum:
///
/// ```
/// use std::net::SocketAddr;
///
/// use axum::extract::ConnectInfo;
/// use hookgate::gate::SourceLayer;
/// use hookgate::source::{ClientHeader, Networks, TrustedProxies};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let proxies = TrustedProxies::new(Networks::parse("10.0.0.0/8")?, ClientHeader::XForwardedFor);
/// let layer = SourceLayer::new(|of| of.get().map(|peer: &ConnectInfo<SocketAddr>| peer.0.ip()))
///     .trust(proxies);
/// # let _ = layer;
/// # Ok(())
/// # }
/// ```
///
/// and the application is served `into_make_service_with_connect_info::<SocketAddr>()`. A request of which the server
/// does not tell the peer is left as it is, unless [Unix sockets are trusted](TrustedProxies::with_unix): a gate with [`allow_from`](super::GateBuilder::allow_from) refuses it.
#[derive(Clone)]
pub struct SourceLayer {
    peer: Arc<Peer>,
    proxies: Arc<TrustedProxies>,
}

type Peer = dyn Fn(&Extensions) -> Option<IpAddr> + Send + Sync;

impl SourceLayer {
    /// Takes the peer of the connection from the request's extensions. No proxy is trusted.
    pub fn new(peer: impl Fn(&Extensions) -> Option<IpAddr> + Send + Sync + 'static) -> Self {
        Self { peer: Arc::new(peer), proxies: Arc::default() }
    }

    /// Believes these proxies, and no others.
    #[must_use]
    pub fn trust(self, proxies: TrustedProxies) -> Self {
        Self { proxies: Arc::new(proxies), ..self }
    }
}

impl<S> Layer<S> for SourceLayer {
    type Service = WithSource<S>;

    fn layer(&self, inner: S) -> WithSource<S> {
        WithSource { inner, layer: self.clone() }
    }
}

impl fmt::Debug for SourceLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceLayer").field("proxies", &self.proxies).finish_non_exhaustive()
    }
}

/// A service whose requests say who calls. See [`SourceLayer`].
#[derive(Clone, Debug)]
pub struct WithSource<S> {
    inner: S,
    layer: SourceLayer,
}

impl<S, B> Service<Request<B>> for WithSource<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        let peer = (self.layer.peer)(request.extensions()).map(Source::new);
        if let Some(source) = self.layer.proxies.client(peer, request.headers()) {
            request.extensions_mut().insert(source);
        }
        self.inner.call(request)
    }
}
