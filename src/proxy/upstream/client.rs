//! The client: one call to upstream, with its second attempt.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, HOST, HeaderMap, HeaderValue, RETRY_AFTER,
};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use jiff::fmt::rfc2822::DateTimeParser;
use percent_encoding::percent_decode;
use tokio::time::{Instant, timeout};
use tower_service::Service;

use super::calls::{Calls, UpstreamCalls};
use super::config::UpstreamConfig;
use super::connect::Connector;
use super::failure::{FailureKind, UpstreamFailure, kind_of};
use super::header::is_never_sent;
use crate::proxy::telemetry::printable;

/// The most bytes of an answer's body that are taken: 1 MiB. What is larger is left out whole.
pub const MAX_ANSWER: usize = 1 << 20;

/// The most that a `Retry-After` is taken for: one day.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Longer content types are dropped. Those that exist have about a tenth of it.
const MAX_CONTENT_TYPE: usize = 256;

/// For a whole connection: look-up, TCP and TLS. Without it a service that accepts and then says
/// nothing would keep a connection that the client makes in reserve for ever.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Below the 5 seconds after which common servers close.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

const MAX_IDLE: usize = 32;

/// Bounds the head of an answer, and what is read of its body at a time.
const MAX_BUFFER: usize = 64 << 10;

/// A service behind the gate, with its pool of connections.
///
/// Clones share the pool. To make one opens no connection.
#[derive(Clone)]
pub struct Upstream(Arc<Inner>);

struct Inner {
    config: UpstreamConfig,
    pooled: HttpClient,
    /// Pools nothing, so that a second attempt cannot meet a second dead connection.
    fresh: HttpClient,
    calls: Calls,
}

type HttpClient = Client<Patient<HttpsConnector<Connector>>, Full<Bytes>>;

/// What is sent: a `POST` with these parts.
///
/// `Debug` shows the delivery's id and the body's length and nothing else.
#[derive(Clone)]
pub struct UpstreamRequest {
    /// Stands behind the path of the upstream URL. It must begin with `/`.
    pub path_and_query: PathAndQuery,
    /// An allow-list that the caller made, such as that of
    /// [`rebuild_headers`](super::rebuild_headers).
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The delivery's id. For logs alone: it is not sent.
    pub delivery: Arc<str>,
}

/// What upstream answered, whatever its status.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UpstreamAnswer {
    /// The status. 3xx are not followed.
    pub status: StatusCode,
    /// The media type of the body.
    pub content_type: Option<HeaderValue>,
    /// The whole body, or nothing.
    pub body: Bytes,
    /// Whether upstream sent a body that is not here, since it is larger than [`MAX_ANSWER`] or
    /// has a content encoding, which nobody asked for.
    pub body_left_out: bool,
    /// When to try again, if upstream said so: at most a day.
    ///
    /// A date counts from the answer's own `Date`, so no two clocks need to agree.
    pub retry_after: Option<Duration>,
    /// What the call took, every attempt together.
    pub elapsed: Duration,
    /// How often the request was sent: 1 or 2.
    pub attempts: u32,
}

impl Upstream {
    /// For a service that was described and checked.
    pub fn new(config: &UpstreamConfig) -> Self {
        let connector = Patient(config.connector());
        let client = |max_idle| {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(max_idle)
                .http1_max_buf_size(MAX_BUFFER)
                .set_host(false)
                .build(connector.clone())
        };
        let (config, calls) = (config.clone(), Calls::default());
        Self(Arc::new(Inner { config, pooled: client(MAX_IDLE), fresh: client(0), calls }))
    }

    /// How the last calls went.
    pub fn calls(&self) -> UpstreamCalls {
        self.0.calls.get()
    }

    /// The description that this was made from.
    pub fn config(&self) -> &UpstreamConfig {
        &self.0.config
    }

    /// Sends `request` and reads the answer, which is a success whatever its status.
    ///
    /// # Errors
    ///
    /// If there is no whole answer within the time limit; see [`FailureKind`].
    ///
    /// # Cancel safety
    ///
    /// To drop the future closes its connection. Upstream may have read the request by then and may
    /// act on it; nothing of the request is kept here. A call that is to go on although its caller
    /// does not wait must be spawned.
    pub async fn send(&self, request: UpstreamRequest) -> Result<UpstreamAnswer, UpstreamFailure> {
        let started = Instant::now();
        let mut progress = Progress::default();
        let call = self.call(request, &mut progress);
        let result = match timeout(self.0.config.timeout, call).await {
            Ok(result) => result,
            Err(late) => Err((FailureKind::TimedOut, Some(late.into()))),
        };
        let (elapsed, Progress { attempts, status }) = (started.elapsed(), progress);
        let result = match result {
            Ok(answer) => Ok(UpstreamAnswer { elapsed, attempts, ..answer }),
            Err((kind, source)) => Err(UpstreamFailure { kind, status, elapsed, attempts, source }),
        };
        self.0.calls.ended(&result);
        result
    }

    async fn call(
        &self,
        request: UpstreamRequest,
        progress: &mut Progress,
    ) -> Result<UpstreamAnswer, Cause> {
        let delivery = Arc::clone(&request.delivery);
        let request = self.rebuild(request).ok_or((FailureKind::Path, None))?;
        progress.attempts = 1;
        let response = match self.0.pooled.request(request.clone()).await {
            Ok(response) => response,
            Err(error) => match kind_of(&error, error.is_connect()) {
                FailureKind::Closed => {
                    tracing::debug!(
                        upstream.origin = %self.0.config.origin(),
                        delivery.id = &*printable(&delivery),
                        "Connection lost before the answer, sending once more"
                    );
                    progress.attempts = 2;
                    self.0.fresh.request(request).await.map_err(|error| {
                        (kind_of(&error, error.is_connect()), Some(error.into()))
                    })?
                }
                kind => return Err((kind, Some(error.into()))),
            },
        };
        progress.status = Some(response.status());
        answer(response).await.map_err(|error| (kind_of(&error, false), Some(error.into())))
    }

    /// The request as it is sent; `None` if the path is not one below the URL's own.
    fn rebuild(&self, request: UpstreamRequest) -> Option<Request<Full<Bytes>>> {
        let config = &self.0.config;
        let path = join(&config.path, &request.path_and_query)?;
        let uri = Uri::builder()
            .scheme(config.scheme.clone())
            .authority(config.authority.clone())
            .path_and_query(path)
            .build()
            .ok()?;
        let mut headers = HeaderMap::with_capacity(request.headers.len() + 2);
        headers.insert(HOST, config.host.clone());
        for (name, value) in &request.headers {
            if !is_never_sent(&request.headers, name) {
                headers.append(name, value.clone());
            }
        }
        // Ours also for an empty body, where the client would write none and some servers then
        // answer 411.
        headers.insert(CONTENT_LENGTH, request.body.len().into());
        let mut rebuilt = Request::new(Full::new(request.body));
        *rebuilt.method_mut() = Method::POST;
        *rebuilt.version_mut() = Version::HTTP_11;
        *rebuilt.uri_mut() = uri;
        *rebuilt.headers_mut() = headers;
        Some(rebuilt)
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Upstream").field(&self.0.config).finish()
    }
}

impl fmt::Debug for UpstreamRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamRequest")
            .field("delivery", &self.delivery)
            .field("body_len", &self.body.len())
            .finish_non_exhaustive()
    }
}

type Cause = (FailureKind, Option<Box<dyn Error + Send + Sync>>);

/// How far a call came, also if its time was up.
#[derive(Default)]
struct Progress {
    attempts: u32,
    status: Option<StatusCode>,
}

/// `path` below `base`; `None` if a server could read it as one that is not below `base`.
fn join(base: &str, path: &PathAndQuery) -> Option<PathAndQuery> {
    let decoded: Vec<u8> = percent_decode(path.path().as_bytes()).collect();
    if leaves(&decoded) || !path.path().starts_with('/') {
        return None;
    }
    if base.is_empty() {
        return Some(path.clone());
    }
    format!("{base}{path}").parse().ok()
}

/// Whether a server could read a path, which is decoded already, as one that goes up.
///
/// It is taken apart at every character that some server takes for a separator; what stands behind
/// `;` is a parameter to others (`/..;/`).
pub(super) fn leaves(decoded: &[u8]) -> bool {
    decoded.split(|&b| matches!(b, b'/' | b'\\')).any(|segment| {
        let name = segment.split(|&b| b == b';').next().unwrap_or_default();
        matches!(name, b"." | b"..")
    })
}

async fn answer(response: Response<Incoming>) -> Result<UpstreamAnswer, hyper::Error> {
    let (parts, body) = response.into_parts();
    let encoded = parts
        .headers
        .get(CONTENT_ENCODING)
        .is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    let body = if encoded { None } else { collect(body).await? };
    let body_left_out = body.is_none();
    let body = body.unwrap_or_default();
    let content_type = parts
        .headers
        .get(CONTENT_TYPE)
        .filter(|value| !body.is_empty() && value.len() <= MAX_CONTENT_TYPE)
        .cloned();
    Ok(UpstreamAnswer {
        status: parts.status,
        content_type,
        body,
        body_left_out,
        retry_after: retry_after(&parts.headers),
        elapsed: Duration::ZERO,
        attempts: 0,
    })
}

/// The whole body, or `None` as soon as it is larger than [`MAX_ANSWER`].
async fn collect(mut body: Incoming) -> Result<Option<Bytes>, hyper::Error> {
    if body.size_hint().lower() > MAX_ANSWER as u64 {
        return Ok(None);
    }
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // Trailers are dropped.
        let Ok(data) = frame?.into_data() else { continue };
        if data.len() > MAX_ANSWER - bytes.len() {
            return Ok(None);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Some(bytes.freeze()))
}

/// [RFC 9110 section 10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3): seconds, or a
/// date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let wait = if value.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are a very long time.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let date = |value| DateTimeParser::new().parse_timestamp(value).ok();
        let then = date(value)?;
        let now = date(headers.get(DATE)?.to_str().ok()?)?;
        Duration::try_from(then.duration_since(now)).unwrap_or_default()
    };
    (!value.is_empty()).then(|| wait.min(MAX_RETRY_AFTER))
}

/// A connector whose patience ends after [`HANDSHAKE_TIMEOUT`].
#[derive(Clone)]
pub(super) struct Patient<C>(pub(super) C);

impl<C> Service<Uri> for Patient<C>
where
    C: Service<Uri, Error: Into<Box<dyn Error + Send + Sync>>, Future: Send + 'static>,
{
    type Response = C::Response;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            match timeout(HANDSHAKE_TIMEOUT, connecting).await {
                Ok(connected) => connected.map_err(Into::into),
                Err(late) => Err(io::Error::new(io::ErrorKind::TimedOut, late).into()),
            }
        })
    }
}
