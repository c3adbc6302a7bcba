//! One connection, from the TLS handshake to its close.
//!
//! Which HTTP it speaks is known before its first byte: HTTP/1 on plain TCP, what ALPN says on TLS.
//! hyper-util's `auto::Builder` looks at the first bytes instead, has no timeout while it waits for them, and
//! does not pass on the limit on a head's size.

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
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tower_service::Service;

use super::super::tls::{ALPN_H2, Transport};
use super::ListenConfig;
use super::exchange::{Exchanges, Peer, Tracked};
use super::io::{TimedIo, Timeouts};
use super::stats::{ListenStats, count};
use crate::source::Source;

/// How long an HTTP/2 client that was told to go may take to do so, at most.
const GOODBYE: Duration = Duration::from_secs(5);

/// What the connections of a listener share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: ListenConfig,
    pub(super) stats: Arc<ListenStats>,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

impl Shared {
    pub(super) fn new(config: ListenConfig) -> Self {
        Self { config, stats: Arc::default(), http1: http1_builder(), http2: http2_builder() }
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

/// Serves a connection until it is closed by either side.
pub(super) async fn serve<S, B>(
    stream: TcpStream,
    source: Source,
    service: S,
    shared: Arc<Shared>,
    mut drain: Drain,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + 'static,
{
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
                tracing::debug!(%source, %error, "TLS handshake failed");
                return;
            }
            Err(_) => {
                count(&shared.stats.handshake_timeouts);
                tracing::debug!(%source, "TLS handshake took too long");
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
                    tracing::debug!(source = %peer.source, "HTTP/2 client did not go, connection cut");
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
    tracing::debug!(source = %peer.source, error = &error as &dyn StdError, "connection failed");
}
