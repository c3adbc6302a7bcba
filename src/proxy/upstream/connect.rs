//! A connection to upstream below TLS: over TCP to where the URL says, or over one Unix socket.

use std::error::Error;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tower_service::Service;

use crate::proxy::socket::Stream;

/// For each address of the host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Connects to a service.
#[derive(Clone, Debug)]
pub struct Connector {
    /// In place of what the URL says.
    socket: Option<Arc<Path>>,
    tcp: HttpConnector,
}

impl Connector {
    pub(super) fn new(socket: Option<Arc<Path>>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_nodelay(true);
        Self { socket, tcp }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        ready!(self.tcp.poll_ready(cx))?;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        if let Some(socket) = self.socket.clone() {
            return Box::pin(async move {
                Ok(TokioIo::new(Stream::Unix(UnixStream::connect(socket).await?)))
            });
        }
        let connecting = self.tcp.call(uri);
        Box::pin(async move { Ok(TokioIo::new(Stream::Tcp(connecting.await?.into_inner()))) })
    }
}
