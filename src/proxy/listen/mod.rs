//! Where requests come in: sockets, TLS, and HTTP under limits that a stranger cannot lift.
//!
//! # A connection's way
//!
//! 1. A place under the [limit](super::limit) is taken before `accept`, a share of it for the
//!    peer's [`Source`] after. Who is over the share gets a `503` with `Retry-After` (without TLS,
//!    as far as it can be written at once) and is closed. A peer on a Unix socket is no source and has
//!    no share.
//! 2. Behind [proxies](super::proxied) of connections, only they may come, their header must be whole within
//!    10 s, and the client that it names is the source, whose share counts from then on.
//! 3. On TLS: the handshake, within 5 s. HTTP/2 or HTTP/1 by ALPN. Without TLS: HTTP/1 only.
//! 4. A head must be whole within 10 s of its first byte, the first one within 10 s of the
//!    connection's beginning. Between two requests the connection may be idle for 75 s, in HTTP/2
//!    for 60 s.
//! 5. Each request goes to the service with [`Source`] (if it has one) and [`Transport`](super::tls::Transport) in
//!    its extensions. What heads are refused is for the service to say ([`head`](super::head)), and
//!    so is that an answer before the end of the request's body says `Connection: close`
//!    ([`unread`](super::unread)).
//! 6. When the server closes first, it lingers for up to 1 s, so that the answer arrives even
//!    if the client was still sending.
//!
//! # Shutdown
//!
//! When the shutdown future of [`Listener::serve`] is ready, the socket is closed, idle connections
//! are closed, and those with a request finish it. What is left after the drain deadline of 25 s is
//! cut.
//!
//! # Failures of `accept`
//!
//! A connection that died in the backlog is passed over. Anything else, such as no free file
//! descriptor, would only happen again at once: then accepting pauses for 100 ms.

mod connection;
mod exchange;
mod io;
mod stats;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tower_service::Service;

use self::connection::Shared;
pub use self::stats::ListenStats;
use self::stats::count;
use crate::proxy::limit::{Admission, ConnectionLimit, Place};
use crate::proxy::socket::{ListenAddress, PassedSockets, Socket, SocketError, Stream};
use crate::proxy::tls::ServerTls;
use crate::source::{Networks, Source};

/// How long accepting pauses when it fails for want of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a [`Listener`] is told.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// Where to listen. Port 0 lets the system choose.
    pub address: ListenAddress,
    /// The permissions of a Unix socket that is made. Defaults to `0o660`.
    pub socket_mode: u32,
    /// The only peers that may connect, each connection beginning with a PROXY header; `None`: anybody
    /// may, and none does. A peer on a Unix socket has no address: who may open it may connect. Defaults to `None`.
    pub proxies: Option<Networks>,
    /// TLS, or none. Defaults to `None`.
    pub tls: Option<ServerTls>,
    /// How many connections may be open. Defaults to 10,000.
    ///
    /// One that is idle after a request costs some 22 KiB of memory, one that has sent nothing some
    /// 3 KiB.
    pub connections: usize,
    /// How many of a hundred connections one source may hold. Defaults to 25; 100 is no limit, for
    /// listeners behind a load balancer.
    pub per_source: u8,
    /// How long an HTTP/1 connection may be idle between two requests. Defaults to 75 s.
    pub keep_alive: Duration,
    /// How long a request's head may take from its first byte, and the first of a connection from
    /// the connection's beginning. Defaults to 10 s.
    pub head_timeout: Duration,
    /// How long a TLS handshake may take. Defaults to 5 s.
    pub handshake_timeout: Duration,
    /// How long a client may take nothing of an answer. Defaults to 30 s.
    pub write_timeout: Duration,
    /// How long an HTTP/2 connection may be without a request, or with answers that the client does
    /// not take. Defaults to 60 s.
    pub http2_idle: Duration,
    /// How long a closed connection still takes what the client was sending. Defaults to 1 s.
    pub linger: Duration,
    /// How long open requests may take once the listener shuts down. Defaults to 25 s.
    pub drain: Duration,
}

impl ListenConfig {
    /// Without TLS on `address`, with the defaults.
    pub fn new(address: impl Into<ListenAddress>) -> Self {
        Self {
            address: address.into(),
            socket_mode: 0o660,
            proxies: None,
            tls: None,
            connections: 10_000,
            per_source: 25,
            keep_alive: Duration::from_secs(75),
            head_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(30),
            http2_idle: Duration::from_secs(60),
            linger: Duration::from_secs(1),
            drain: Duration::from_secs(25),
        }
    }
}

/// A bound socket, which [`serve`](Self::serve) turns into requests.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    shared: Arc<Shared>,
}

impl Listener {
    /// Binds the socket. From then on clients can connect; they wait until [`serve`](Self::serve).
    ///
    /// # Errors
    ///
    /// The address cannot be bound: it is in use, not ours, or not allowed.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn bind(config: ListenConfig) -> Result<Self, ListenError> {
        Self::bind_with_sockets(config, &mut PassedSockets::default())
    }

    /// As [`bind`](Self::bind), or takes the socket from those that were passed to this process.
    ///
    /// # Errors
    ///
    /// As there, or the socket was not passed.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn bind_with_sockets(
        config: ListenConfig,
        passed: &mut PassedSockets,
    ) -> Result<Self, ListenError> {
        match Socket::bind(&config.address, config.socket_mode, passed) {
            Ok(socket) => Ok(Self { socket, shared: Arc::new(Shared::new(config)) }),
            Err(source) => Err(ListenError { address: config.address, source }),
        }
    }

    /// The address, with the port that the system chose.
    pub const fn local_addr(&self) -> &ListenAddress {
        self.socket.local_addr()
    }

    /// The listener's counters, which outlive it.
    pub fn stats(&self) -> Arc<ListenStats> {
        Arc::clone(&self.shared.stats)
    }

    /// Accepts connections and serves their requests until `shutdown` is ready, then drains.
    ///
    /// Returns how many connections were cut because they had not ended by the drain deadline.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cuts all connections.
    pub async fn serve<S, B>(self, service: S, shutdown: impl Future<Output = ()>) -> usize
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data: Send, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + 'static,
    {
        let Self { socket, shared } = self;
        let limit = ConnectionLimit::new(shared.config.connections, shared.config.per_source);
        let (drain, draining) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            // Not a branch of the select: under a flood of connections it would have to come first,
            // and would drop the accept future each time.
            while let Some(ended) = connections.try_join_next() {
                ended_well(ended);
            }
            let (stream, seat) = tokio::select! {
                biased;
                () = &mut shutdown => break,
                accepted = accept(&socket, &limit, &shared) => accepted,
            };
            let open = Open::new(Arc::clone(&shared.stats));
            let served = connection::serve(
                stream,
                seat,
                service.clone(),
                Arc::clone(&shared),
                draining.clone(),
            );
            connections.spawn(async move {
                served.await;
                drop(open);
            });
        }
        drop(socket);
        drain.send_replace(true);
        let drained = timeout(shared.config.drain, async {
            while let Some(ended) = connections.join_next().await {
                ended_well(ended);
            }
        });
        if drained.await.is_ok() {
            return 0;
        }
        let cut = connections.len();
        shared.stats.cut.fetch_add(cut as u64, Ordering::Relaxed);
        connections.shutdown().await;
        cut
    }
}

/// The error of [`Listener::bind`].
#[derive(Debug)]
pub struct ListenError {
    address: ListenAddress,
    source: SocketError,
}

impl ListenError {
    /// The address that could not be bound.
    pub const fn address(&self) -> &ListenAddress {
        &self.address
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}", self.address)
    }
}

impl StdError for ListenError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.source)
    }
}

/// Whose place a connection has.
#[derive(Debug)]
enum Seat {
    /// That of its source.
    Admitted(Option<Source>, Admission),
    /// Its proxy, which is this one, is still to say.
    Proxied(Option<Source>, Place),
}

/// The next connection that is within the limits. Cancel safe.
async fn accept(socket: &Socket, limit: &ConnectionLimit, shared: &Shared) -> (Stream, Seat) {
    let stats = &shared.stats;
    let mut warned = false;
    loop {
        let place = limit.place().await;
        let (stream, peer) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                count(&stats.accept_errors);
                if is_lost_connection(&error) {
                    tracing::debug!(%error, "connection lost before it was accepted");
                } else {
                    if !warned {
                        tracing::warn!(%error, "cannot accept connections, trying again");
                        warned = true;
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        count(&stats.accepted);
        // Fails only on a connection that is gone already.
        let _ = stream.set_nodelay();
        let source = peer.map(Source::new);
        if let Some(proxies) = &shared.config.proxies {
            if source.is_none_or(|source| proxies.contains(source)) {
                return (stream, Seat::Proxied(source, place));
            }
            count(&stats.refused_proxies);
            let source = source.map(tracing::field::display);
            tracing::debug!(source, "connection refused: not from a proxy");
            continue;
        }
        match place.admit(source) {
            Ok(admission) => return (stream, Seat::Admitted(source, admission)),
            Err(error) => shared.refuse(&stream, source, &error),
        }
    }
}

/// Whether `accept` failed for this one connection only.
fn is_lost_connection(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
}

fn ended_well(ended: Result<(), JoinError>) {
    // Without the panic's text: it could hold a part of the request.
    if ended.is_err_and(|error| error.is_panic()) {
        tracing::error!("a connection's task panicked");
    }
}

/// Counts a connection as active until it is dropped.
#[derive(Debug)]
struct Open {
    stats: Arc<ListenStats>,
}

impl Open {
    fn new(stats: Arc<ListenStats>) -> Self {
        count(&stats.active);
        Self { stats }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stats.active.fetch_sub(1, Ordering::Relaxed);
    }
}
