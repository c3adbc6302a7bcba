//! One connection, from the TLS handshake to its close.
//!
//! Which HTTP it speaks is known before its first byte: HTTP/1 on plain TCP, what ALPN says on TLS.
//! hyper-util's `auto::Builder` looks at the first bytes instead, has no timeout while it waits for
//! them, and does not pass on the limit on a head's size.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tower_service::Service;

use super::exchange::{Exchanges, Peer, Tracked};
use super::io::{TimedIo, Timeouts};
use super::stats::{ListenStats, count};
use super::{ListenConfig, Seat};
use crate::proxy::limit::{Admission, OverShare, Place};
use crate::proxy::proxied::{Header, HeaderErrorKind, read_header};
use crate::proxy::socket::Stream;
use crate::proxy::tls::{ALPN_H2, Transport};
use crate::source::Source;

/// How long an HTTP/2 client that was told to go may take to do so, at most.
const GOODBYE: Duration = Duration::from_secs(5);

/// What longer times are cut to, so that no deadline is beyond what the clock can tell.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What a connection over its source's share is told.
const OVER_SHARE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    connection: close\r\n\
    content-length: 105\r\n\
    content-type: application/problem+json\r\n\
    hookgate-outcome: overloaded\r\n\
    retry-after: 5\r\n\
    \r\n\
    {\"status\":503,\"title\":\"Service Unavailable\",\
    \"detail\":\"there are too many connections from this source\"}\r\n";

/// What the connections of a listener share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: ListenConfig,
    pub(super) stats: Arc<ListenStats>,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

impl Shared {
    pub(super) fn new(mut config: ListenConfig) -> Self {
        for limit in [
            &mut config.keep_alive,
            &mut config.head_timeout,
            &mut config.handshake_timeout,
            &mut config.write_timeout,
            &mut config.http2_idle,
            &mut config.linger,
            &mut config.drain,
        ] {
            *limit = (*limit).min(FOREVER);
        }
        Self { config, stats: Arc::default(), http1: http1_builder(), http2: http2_builder() }
    }

    /// Turns a connection away that is over its source's share.
    ///
    /// No lingering close here: it would take a place, and that is what the source has too many of.
    pub(super) fn refuse(&self, stream: &Stream, source: Option<Source>, error: &OverShare) {
        count(&self.stats.refused_by_share);
        tracing::debug!(source = source.map(tracing::field::display), %error, "connection refused");
        if self.config.tls.is_none() {
            // The buffers of a fresh socket have room for so little.
            stream.say_and_end(OVER_SHARE);
        }
    }

    fn timeouts(&self, head: Option<Duration>) -> Timeouts {
        Timeouts {
            head,
            idle: self.config.keep_alive,
            write: self.config.write_timeout,
            linger: self.config.linger,
        }
    }
}

/// The settings that the listener gives to HTTP/1.
fn http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // Both the head's and the idle time are `TimedIo`'s.
        .header_read_timeout(None)
        // Above this, and above 100 headers (hyper's default), the answer is 431.
        .max_header_size(16 * 1024)
        .max_buf_size(64 * 1024)
        // A client that shuts its write side after the request still gets its answer.
        .half_close(true)
        .keep_alive(true);
    builder
}

/// The settings that the listener gives to HTTP/2.
fn http2_builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(64)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(64)
        .max_header_list_size(16 * 1024)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

/// Tells a connection that the listener drains.
pub(super) type Drain = watch::Receiver<bool>;

async fn drains(drain: &mut Drain) {
    // An error means that the listener is gone; then its connections are too.
    let _ = drain.wait_for(|drains| *drains).await;
}

/// Serves a connection until it is closed by either side, and then gives its place back.
pub(super) async fn serve<S, B>(
    mut stream: Stream,
    seat: Seat,
    service: S,
    shared: Arc<Shared>,
    mut drain: Drain,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + 'static,
{
    let (source, _admission) = match seat {
        Seat::Admitted(source, admission) => (source, admission),
        Seat::Proxied(peer, place) => {
            let admitted = tokio::select! {
                admitted = admit(&mut stream, peer, place, &shared) => admitted,
                () = drains(&mut drain) => None,
            };
            let Some(admitted) = admitted else { return };
            admitted
        }
    };
    let shown = source.map(tracing::field::display);
    let Some(tls) = &shared.config.tls else {
        let peer = Peer { source, transport: Transport::Plain };
        return serve_http1(stream, peer, service, &shared, drain).await;
    };
    let handshake = timeout(shared.config.handshake_timeout, tls.acceptor().accept(stream));
    let stream = tokio::select! {
        stream = handshake => match stream {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                count(&shared.stats.handshake_failures);
                tracing::debug!(source = shown, %error, "TLS handshake failed");
                return;
            }
            Err(_) => {
                count(&shared.stats.handshake_timeouts);
                tracing::debug!(source = shown, "TLS handshake took too long");
                return;
            }
        },
        () = drains(&mut drain) => return,
    };
    let peer = Peer { source, transport: Transport::Tls };
    if stream.get_ref().1.alpn_protocol() == Some(ALPN_H2) {
        serve_http2(stream, peer, service, &shared, drain).await;
    } else {
        serve_http1(stream, peer, service, &shared, drain).await;
    }
}

/// Asks a proxy's header who the client is, and gives the place to that one.
async fn admit(
    stream: &mut Stream,
    peer: Option<Source>,
    place: Place,
    shared: &Shared,
) -> Option<(Option<Source>, Admission)> {
    let stats = &shared.stats;
    let proxy = peer.map(tracing::field::display);
    let source = match timeout(shared.config.head_timeout, read_header(stream)).await {
        Ok(Ok(Header::Client(client))) => Some(Source::new(client)),
        Ok(Ok(Header::Peer)) => peer,
        Ok(Err(error)) => {
            // A check of the port alone is no fault.
            if error.kind() != HeaderErrorKind::Nothing {
                count(&stats.proxy_header_failures);
            }
            tracing::debug!(proxy, %error, "connection closed");
            return None;
        }
        Err(_) => {
            count(&stats.proxy_header_timeouts);
            tracing::debug!(proxy, "the PROXY header took too long");
            return None;
        }
    };
    // A check of the proxy itself, and what it sends for clients without an address, has all places.
    let counted = source.filter(|_| source != peer);
    match place.admit(counted) {
        Ok(admission) => Some((source, admission)),
        Err(error) => {
            shared.refuse(stream, source, &error);
            None
        }
    }
}

async fn serve_http1<T, S, B>(stream: T, peer: Peer, service: S, shared: &Shared, mut drain: Drain)
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone,
    B: Body<Error: Into<Box<dyn StdError + Send + Sync>>> + 'static,
{
    let exchanges = Arc::new(Exchanges::new());
    let timeouts = shared.timeouts(Some(shared.config.head_timeout));
    let io = TimedIo::new(stream, Arc::clone(&exchanges), Arc::clone(&shared.stats), timeouts);
    let service = Tracked::new(service, peer, Arc::clone(&exchanges));
    let mut connection = pin!(shared.http1.serve_connection(TokioIo::new(io), service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = drains(&mut drain) => {
            exchanges.leave();
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    report(result, peer, &shared.stats);
}

async fn serve_http2<T, S, B>(stream: T, peer: Peer, service: S, shared: &Shared, mut drain: Drain)
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + 'static,
{
    let exchanges = Arc::new(Exchanges::new());
    let timeouts = shared.timeouts(None);
    let io = TimedIo::new(stream, Arc::clone(&exchanges), Arc::clone(&shared.stats), timeouts);
    let service = Tracked::new(service, peer, Arc::clone(&exchanges));
    let mut connection = pin!(shared.http2.serve_connection(TokioIo::new(io), service));
    let (head, idle) = (shared.config.head_timeout, shared.config.http2_idle);
    let mut deadline = exchanges.began() + head.min(idle);
    let mut draining = false;
    let mut told_to_go = false;
    let result = loop {
        let go = tokio::select! {
            result = connection.as_mut() => break result,
            () = drains(&mut drain), if !draining => {
                draining = true;
                true
            }
            () = sleep_until(deadline) => {
                if let Some(later) = exchanges.patience(head, idle, told_to_go) {
                    deadline = later;
                    false
                } else if told_to_go {
                    let source = peer.source.map(tracing::field::display);
                    tracing::debug!(source, "HTTP/2 client did not go");
                    return;
                } else {
                    if exchanges.requests() == 0 {
                        count(&shared.stats.head_timeouts);
                    }
                    true
                }
            }
        };
        if go {
            told_to_go = true;
            deadline = Instant::now() + GOODBYE.min(idle);
            exchanges.leave();
            connection.as_mut().graceful_shutdown();
        }
    };
    report(result, peer, &shared.stats);
}

fn report(result: hyper::Result<()>, peer: Peer, stats: &ListenStats) {
    let Err(error) = result else {
        return;
    };
    if error.is_parse() {
        count(&stats.parse_errors);
    }
    if error.is_parse_too_large() {
        count(&stats.heads_too_large);
    }
    // hyper's errors name the kind of the fault and hold nothing of the request.
    let source = peer.source.map(tracing::field::display);
    tracing::debug!(source, error = &error as &dyn StdError, "connection failed");
}
