//! Spans for an OpenTelemetry collector: [OTLP/HTTP](https://opentelemetry.io/docs/specs/otlp/#otlphttp) in its binary
//! form.
//!
//! 1. Spans wait in a queue that takes them without waiting, and are sent together, [`MAX_BATCH`] at most.
//! 2. What the collector may take another time (429, 502, 503, 504, no answer) is tried again after the
//!    pauses of [`PAUSES`], or after what `Retry-After` says up to [`MAX_RETRY_AFTER`]; then it is given up and counted.
//!    Meanwhile the queue fills, and what finds no room in it is counted too.
//! 3. When the gate stops, what waits is sent once more, as far as the grace period goes.
//!
//! Nothing of this is on the way of a delivery. The log hears when it begins to fail and when it works again, and
//! not of each time.
//!
//! The messages are few, so they are written here (`encode`) and no crate is needed for that: the ones that there are
//! for it are some 55, have their own threads, ids and queues, and count nothing.

mod config;
mod encode;

use std::fmt;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout, timeout_at};

use self::encode::WallClock;
use super::telemetry::{Span, Spans};

pub use self::config::{OtlpConfig, OtlpConfigError};

/// The most spans that are sent together: 512.
pub const MAX_BATCH: usize = 512;

/// How long is waited before a batch is tried again, and again.
pub const PAUSES: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// The most that a `Retry-After` of the collector is taken for: 30 s.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// What is read of an answer, so that its connection can be used again.
const MAX_ANSWER: usize = 64 << 10;

/// Sends spans to a collector until it is finished or dropped.
#[derive(Debug)]
pub struct Exporter {
    spans: Spans,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Exporter {
    /// Begins to send.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(config: &OtlpConfig) -> Self {
        let (spans, receiver) = Spans::bounded(config.queue);
        let (stop, stopped) = oneshot::channel();
        let collector = Collector::new(config);
        let task = Task {
            spans: spans.clone(),
            receiver,
            stopped,
            is_stopping: false,
            delay: config.delay,
            resource: encode::resource(&config.resource),
            clock: WallClock::new(),
            is_failing: false,
            collector,
        };
        Self { spans, stop, task: tokio::spawn(task.run()) }
    }

    /// Where the spans go that it sends.
    pub fn spans(&self) -> Spans {
        self.spans.clone()
    }

    /// Sends what waits, and ends. What is not sent within `grace` is lost.
    pub async fn finish(self, grace: Duration) {
        drop(self.stop);
        let mut task = self.task;
        if timeout(grace, &mut task).await.is_err() {
            tracing::warn!("spans are lost: the collector took too long");
            task.abort();
        }
    }
}

struct Task {
    spans: Spans,
    receiver: mpsc::Receiver<Span>,
    /// Ready when there is to be an end.
    stopped: oneshot::Receiver<()>,
    is_stopping: bool,
    delay: Duration,
    resource: Vec<u8>,
    clock: WallClock,
    is_failing: bool,
    collector: Collector,
}

impl Task {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        loop {
            self.gather(&mut batch).await;
            if !batch.is_empty() {
                self.deliver(&batch).await;
                batch.clear();
            } else if self.is_stopping {
                return;
            }
        }
    }

    /// Waits for spans, and a while for more.
    async fn gather(&mut self, batch: &mut Vec<Span>) {
        let mut deadline = None;
        while batch.len() < MAX_BATCH {
            let room = MAX_BATCH - batch.len();
            if self.is_stopping {
                // Those that are there; whoever still has some to record is too late.
                match self.receiver.try_recv() {
                    Ok(span) => batch.push(span),
                    Err(_) => return,
                }
                continue;
            }
            let received = self.receiver.recv_many(batch, room);
            tokio::select! {
                biased;
                _ = &mut self.stopped => self.is_stopping = true,
                () = until(deadline) => return,
                _ = received => {
                    deadline.get_or_insert_with(|| Instant::now() + self.delay);
                }
            }
        }
    }

    async fn deliver(&mut self, batch: &[Span]) {
        let body = Bytes::from(encode::request(&self.resource, batch, &mut self.clock));
        let mut pauses = PAUSES.into_iter();
        let result = loop {
            let failure = match self.collector.send(body.clone()).await {
                Ok(()) => break Ok(()),
                Err(failure) => failure,
            };
            let Some(pause) = pauses.next().filter(|_| failure.may_pass && !self.is_stopping)
            else {
                break Err(failure);
            };
            let pause =
                failure.retry_after.map_or(pause, |asked| asked.clamp(pause, MAX_RETRY_AFTER));
            self.failed(&failure);
            tokio::select! {
                () = sleep(pause) => {}
                // Once more, and no more than that.
                _ = &mut self.stopped => self.is_stopping = true,
            }
        };
        let Some(counts) = self.spans.counts() else { return };
        let spans = batch.len() as u64;
        match result {
            Ok(()) => {
                counts.exported.fetch_add(spans, Ordering::Relaxed);
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("the collector takes spans again");
                }
            }
            Err(failure) => {
                counts.export_failed.fetch_add(spans, Ordering::Relaxed);
                self.failed(&failure);
            }
        }
    }

    fn failed(&mut self, failure: &Failure) {
        if !std::mem::replace(&mut self.is_failing, true) {
            let origin = &*self.collector.origin;
            tracing::warn!(collector = origin, reason = %failure.reason, "the collector does not take spans");
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// The other side, with its connection.
struct Collector {
    config: OtlpConfig,
    origin: String,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// Why spans were not taken.
struct Failure {
    /// Nothing of the answer but its status.
    reason: String,
    may_pass: bool,
    retry_after: Option<Duration>,
}

impl Failure {
    fn passing(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), may_pass: true, retry_after: None }
    }
}

impl Collector {
    fn new(config: &OtlpConfig) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector = HttpsConnector::from((tcp, config.collector.client_tls()));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(1)
            .build(connector);
        Self { origin: config.collector.origin(), client, config: config.clone() }
    }

    async fn send(&self, body: Bytes) -> Result<(), Failure> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.config.uri.clone();
        *request.headers_mut() = self.config.headers.clone();
        let protobuf = HeaderValue::from_static("application/x-protobuf");
        request.headers_mut().insert(CONTENT_TYPE, protobuf);
        let deadline = Instant::now() + self.config.timeout;
        let answer = match timeout_at(deadline.into(), self.client.request(request)).await {
            Ok(Ok(answer)) => answer,
            // The error itself can hold the URL.
            Ok(Err(error)) if error.is_connect() => return Err(Failure::passing("no connection")),
            Ok(Err(_)) => return Err(Failure::passing("no answer")),
            Err(_) => return Err(Failure::passing("no answer in time")),
        };
        let (head, body) = answer.into_parts();
        let body = pin!(Limited::new(body, MAX_ANSWER).collect());
        drop(timeout_at(deadline.into(), body).await);
        if head.status.is_success() {
            return Ok(());
        }
        let may_pass = matches!(
            head.status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        );
        let seconds = head.headers.get(RETRY_AFTER).and_then(|it| it.to_str().ok()?.parse().ok());
        Err(Failure {
            reason: format!("it answers {}", head.status.as_u16()),
            may_pass,
            retry_after: seconds.map(Duration::from_secs),
        })
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").field("origin", &self.origin).finish_non_exhaustive()
    }
}
