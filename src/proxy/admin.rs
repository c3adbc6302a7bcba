//! What probes and scrapers ask: read-only, and nothing of a delivery.
//!
//! | path | answer |
//! |---|---|
//! | `/live` | 200 as long as the process answers at all |
//! | `/ready` | 200 if deliveries can come in, else 503; the body says what is missing |
//! | `/metrics` | the metrics, in the text format of OpenMetrics |
//!
//! The gate is ready when it has a key for every hook that is enabled, no damaged switch file keeps a hook
//! disabled, and it is not shutting down. A key file that was spoilt later does not make it unready, since
//! the last good keys stay in force. Nor does a service that is down, as long as the spool takes what comes; when it does not, deliveries can
//! still go directly, so only both together do. What is wrong without being in the way is told after
//! `ready`.

use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use tower_service::Service;

use super::telemetry::{METRICS_CONTENT_TYPE, Metrics};

/// Answers probes and scrapers. Clones are the same.
#[derive(Clone)]
pub struct Admin(Arc<Inner>);

struct Inner {
    metrics: Arc<Metrics>,
    readiness: Box<dyn Fn() -> Readiness + Send + Sync>,
}

/// Whether deliveries can come in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// What keeps the gate from being ready, in sentences; nothing means ready.
    pub missing: Vec<String>,
    /// What is wrong beside that.
    pub warnings: Vec<String>,
}

impl Admin {
    /// `readiness` is asked for each probe, and must not block.
    pub fn new(
        metrics: Arc<Metrics>,
        readiness: impl Fn() -> Readiness + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner { metrics, readiness: Box::new(readiness) }))
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let (status, media_type, body) = match request.uri().path() {
            "/live" => (StatusCode::OK, "text/plain; charset=utf-8", "live\n".into()),
            "/ready" => {
                let Readiness { missing, warnings } = (self.0.readiness)();
                let is_ready = missing.is_empty();
                let (status, word) = if is_ready {
                    (StatusCode::OK, "ready")
                } else {
                    (StatusCode::SERVICE_UNAVAILABLE, "not ready")
                };
                let lines = [word.to_owned()].into_iter().chain(missing).chain(warnings);
                let body = lines.map(|line| line + "\n").collect();
                (status, "text/plain; charset=utf-8", body)
            }
            "/metrics" => (StatusCode::OK, METRICS_CONTENT_TYPE, self.0.metrics.encode()),
            _ => {
                let body = "/live\n/ready\n/metrics\n".into();
                (StatusCode::NOT_FOUND, "text/plain; charset=utf-8", body)
            }
        };
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            *response.body_mut() = Full::default();
        }
        response
    }
}

impl<B> Service<Request<B>> for Admin {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Full<Bytes>>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(self.answer(&request)))
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use http_body_util::BodyExt;

    use super::*;
    use crate::time::Timestamp;

    fn get(admin: &mut Admin, method: Method, path: &str) -> (u16, String) {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let response = admin.call(request).into_inner().unwrap();
        let status = response.status().as_u16();
        let mut body = response.into_body();
        let mut frame = std::pin::pin!(body.frame());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let text = match frame.as_mut().poll(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => {
                String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
            }
            _ => String::new(),
        };
        (status, text)
    }
    use std::future::Future;

    #[test]
    fn probes_get_what_they_ask_for_and_nothing_else_is_there() {
        let ready = Arc::new(AtomicBool::new(false));
        let is_ready = ready.clone();
        let metrics = Arc::new(Metrics::new(Timestamp::from_millis(0)));
        let mut admin = Admin::new(metrics, move || {
            let missing =
                if is_ready.load(Ordering::Relaxed) { Vec::new() } else { vec!["no key".into()] };
            Readiness { missing, warnings: vec!["the spool is full".into()] }
        });
        assert_eq!(get(&mut admin, Method::GET, "/live"), (200, "live\n".into()));
        assert_eq!(
            get(&mut admin, Method::GET, "/ready"),
            (503, "not ready\nno key\nthe spool is full\n".into())
        );
        ready.store(true, Ordering::Relaxed);
        assert_eq!(
            get(&mut admin, Method::GET, "/ready"),
            (200, "ready\nthe spool is full\n".into())
        );
        let (status, metrics) = get(&mut admin, Method::GET, "/metrics");
        assert!(status == 200 && metrics.contains("hookgate_build_info"), "{metrics}");
        for path in ["/", "/metrics/", "/live/x", "/webhook"] {
            assert_eq!(get(&mut admin, Method::GET, path).0, 404, "{path}");
        }
        assert_eq!(get(&mut admin, Method::POST, "/metrics"), (405, String::new()));
    }
}
