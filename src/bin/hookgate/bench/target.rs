//! Where the load goes, and connections to it.
//!
//! A name is looked up once, before anything is sent: what was checked is what is connected to.

use std::io;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::PathBuf;
use std::sync::Arc;

use http::{HeaderValue, Uri};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Refused;
use crate::args::BenchArgs;
use crate::send::client::endpoint;

/// The bytes of a connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(super) struct Target {
    /// Path and query, which can hold a key.
    pub(super) path: Uri,
    pub(super) host: HeaderValue,
    /// Scheme and authority: what may be shown.
    pub(super) origin: String,
    route: Route,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

enum Route {
    /// In the order of the resolver.
    Tcp(Vec<SocketAddr>),
    #[cfg(unix)]
    Unix(PathBuf),
}

impl Target {
    /// Looks up where `url` leads, and refuses another machine than this one unless it may be.
    pub(super) fn find(args: &BenchArgs, url: &str) -> Result<Self, Refused> {
        let (uri, service) = endpoint(url, args.ca_file.as_deref()).map_err(Refused::Usage)?;
        let authority = uri.authority().ok_or_else(|| Refused::Usage("--to: no host".into()))?;
        let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_tls = uri.scheme_str() == Some("https");
        let route =
            route(args, url, &name, authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 }))?;
        let tls = if is_tls {
            let name = ServerName::try_from(name)
                .map_err(|_| Refused::Usage("--to: a host that no certificate can name".into()))?;
            Some((TlsConnector::from(Arc::new(service.client_tls())), name))
        } else {
            None
        };
        let host = HeaderValue::from_str(authority.as_str())
            .map_err(|_| Refused::Usage("--to: a host that is none".into()))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = path.parse().map_err(|_| Refused::Usage("--to: a path that is none".into()))?;
        Ok(Self { path, host, origin: service.origin(), route, tls })
    }

    pub(super) async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let stream: Box<dyn Stream> = match &self.route {
            Route::Tcp(addresses) => {
                let tcp = TcpStream::connect(&addresses[..]).await?;
                tcp.set_nodelay(true)?;
                Box::new(tcp)
            }
            #[cfg(unix)]
            Route::Unix(path) => Box::new(tokio::net::UnixStream::connect(path).await?),
        };
        Ok(match &self.tls {
            Some((tls, name)) => Box::new(tls.connect(name.clone(), stream).await?),
            None => stream,
        })
    }
}

fn route(args: &BenchArgs, url: &str, name: &str, port: u16) -> Result<Route, Refused> {
    #[cfg(unix)]
    if let Some(rest) = url.strip_prefix("unix:") {
        let path = rest.split_once(':').map_or(rest, |(path, _)| path);
        return Ok(Route::Unix(path.into()));
    }
    let found = std::net::ToSocketAddrs::to_socket_addrs(&(name, port));
    let addresses: Vec<_> =
        found.map_err(|error| Refused::Failed(format!("{name}: {error}")))?.collect();
    if addresses.is_empty() {
        return Err(Refused::Failed(format!("{name} has no address")));
    }
    let elsewhere = addresses.iter().find(|address| !address.ip().to_canonical().is_loopback());
    match elsewhere {
        Some(address) if !args.i_own_this_endpoint => Err(Refused::Usage(format!(
            "{} is not on this machine: a load goes only to an endpoint of your own; \
             --i-own-this-endpoint says that it is",
            address.ip()
        ))),
        _ => Ok(Route::Tcp(addresses)),
    }
}
