//! The listener over real sockets.
//!
//! Time limits are short ones of the test's own; what must *not* happen is given several times
//! the limit that would make it happen. Everything else is waited for, under [`PATIENCE`].

mod close;
mod deadlines;
mod http1;
mod http2;
mod limits;
mod proxied;
mod tls;
mod unix;

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderName;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tower::util::service_fn;
use tower_layer::Layer;

use super::{ListenConfig, ListenStats, Listener};
use crate::proxy::head;
use crate::proxy::tls::Transport;
use crate::proxy::unread::{CloseUnreadLayer, WatchedBody};
use crate::source::Source;

/// How long anything that must happen may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A limit that a test does not wait for.
const LONG: Duration = Duration::from_secs(600);

const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The limits of a test that waits for none.
fn config() -> ListenConfig {
    let mut config = ListenConfig::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    config.per_source = 100;
    config.keep_alive = LONG;
    config.head_timeout = LONG;
    config.handshake_timeout = LONG;
    config.write_timeout = LONG;
    config.http2_idle = LONG;
    config.drain = PATIENCE;
    config
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("did not happen in time")
}

async fn until(condition: impl Fn() -> bool) {
    within(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// What the service and its test tell each other.
#[derive(Debug, Default)]
struct Signals {
    /// Requests that have come to the service.
    requests: AtomicU64,
    /// Requests to `/hold` that are held now.
    held: AtomicU64,
    /// Lets one request to `/hold` go on.
    release: Notify,
}

/// Counts a held request, also if it is given up.
struct Held(Arc<Signals>);

impl Held {
    fn new(signals: &Arc<Signals>) -> Self {
        signals.held.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(signals))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Server {
    address: SocketAddr,
    stats: Arc<ListenStats>,
    signals: Arc<Signals>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<usize>,
}

impl Server {
    fn start(config: ListenConfig) -> Self {
        let listener = Listener::bind(config).unwrap();
        let signals = Arc::<Signals>::default();
        let (stop, stopped) = oneshot::channel();
        let service = CloseUnreadLayer::new().layer(service_fn({
            let signals = Arc::clone(&signals);
            move |request| answer(request, Arc::clone(&signals))
        }));
        Self {
            // That of a Unix socket is known to the test.
            address: listener.local_addr().as_ip().unwrap_or(NOWHERE),
            stats: listener.stats(),
            signals,
            stop,
            task: tokio::spawn(listener.serve(service, async {
                // An error is a test that ends without stopping the server.
                let _ = stopped.await;
            })),
        }
    }

    async fn connect(&self) -> Client<TcpStream> {
        self.connect_from(Ipv4Addr::LOCALHOST).await
    }

    /// Connects from one of the addresses of 127.0.0.0/8.
    async fn connect_from(&self, source: Ipv4Addr) -> Client<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((source, 0))).unwrap();
        Client::new(within(socket.connect(self.address)).await.unwrap())
    }

    /// Waits until no connection is open any more.
    async fn idle(&self) {
        until(|| load(&self.stats.active) == 0).await;
    }

    /// Waits until so many connections have come and none is open any more.
    async fn idle_after(&self, connections: u64) {
        until(|| load(&self.stats.accepted) == connections && load(&self.stats.active) == 0).await;
    }

    /// Begins to shut down; gives the number of connections that were cut.
    fn stop(self) -> impl Future<Output = usize> {
        self.stop.send(()).unwrap();
        async { within(self.task).await.unwrap() }
    }
}

/// The service of the tests.
///
/// - `/refuse` answers 401 and does not look at the body.
/// - `/hold` answers when it is released.
/// - `/large` answers with 64 MiB.
/// - `/names` answers with the names of the headers.
/// - Any other path: the source, the transport, the path and the length of the body.
async fn answer(
    request: Request<WatchedBody<Incoming>>,
    signals: Arc<Signals>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (mut parts, body) = request.into_parts();
    signals.requests.fetch_add(1, Ordering::Relaxed);
    if let Err(error) = head::check(&parts) {
        return Ok(respond(error.status(), error.as_str()));
    }
    head::strip(&mut parts.headers);
    match parts.uri.path() {
        "/refuse" => return Ok(respond(StatusCode::UNAUTHORIZED, "refused")),
        "/large" => return Ok(respond(StatusCode::OK, vec![b'x'; 64 * 1024 * 1024])),
        "/hold" => {
            let _held = Held::new(&signals);
            signals.release.notified().await;
        }
        "/names" => {
            let mut names: Vec<_> = parts.headers.keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            return Ok(respond(StatusCode::OK, names.join(" ")));
        }
        _ => (),
    }
    Ok(match body.collect().await {
        Ok(body) => {
            let source = parts.extensions.get::<Source>();
            let source = source.map_or_else(|| "nobody".into(), ToString::to_string);
            let transport = parts.extensions.get::<Transport>().unwrap();
            let length = body.to_bytes().len();
            let text = format!("{source} {} {} {length}", transport.scheme(), parts.uri.path());
            respond(StatusCode::OK, text)
        }
        Err(_) => respond(StatusCode::BAD_REQUEST, "body"),
    })
}

fn respond(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

/// A client that writes what it is told, right or wrong.
struct Client<T> {
    stream: T,
    /// What was read and does not belong to an answer that was given out.
    buffer: Vec<u8>,
}

/// An HTTP/1 answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// In small letters.
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&prefix))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Client<T> {
    fn new(stream: T) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.stream.write_all(bytes.as_ref())).await.unwrap();
        within(self.stream.flush()).await.unwrap();
    }

    /// The next answer, whose length must be declared.
    async fn answer(&mut self) -> Answer {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            let read = within(self.stream.read_buf(&mut self.buffer)).await.unwrap();
            assert_ne!(read, 0, "closed without an answer: {:?}", self.buffer);
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
        let mut answer = Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_lowercase(),
            body: String::new(),
        };
        let length = match answer.header("content-length") {
            Some(length) => length.parse().unwrap(),
            None => 0,
        };
        while self.buffer.len() < length {
            let read = within(self.stream.read_buf(&mut self.buffer)).await.unwrap();
            assert_ne!(read, 0, "closed within an answer");
        }
        answer.body = String::from_utf8(self.buffer.drain(..length).collect()).unwrap();
        answer
    }

    async fn ask(&mut self, bytes: impl AsRef<[u8]>) -> Answer {
        self.send(bytes).await;
        self.answer().await
    }

    /// What comes until the connection is closed in order.
    async fn rest(&mut self) -> Vec<u8> {
        within(self.stream.read_to_end(&mut self.buffer)).await.unwrap();
        std::mem::take(&mut self.buffer)
    }

    /// Waits until the connection is closed, in order or not.
    async fn closed(&mut self) {
        let _ = within(self.stream.read_to_end(&mut self.buffer)).await;
    }

    /// Whether nothing comes, not even the end, for so long.
    async fn is_silent_for(&mut self, duration: Duration) -> bool {
        let read = self.stream.read_buf(&mut self.buffer);
        tokio::time::timeout(duration, read).await.is_err()
    }
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
