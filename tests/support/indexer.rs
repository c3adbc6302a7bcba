use std::convert::Infallible;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use tower::Service;

use hookgate::delivery::Delivery;

/// A service behind the gate that remembers what it got and answers `indexed`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Indexer(Arc<Mutex<Vec<Received>>>);

/// One request as the service behind the gate got it.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) delivery: Delivery,
    /// What the body said of its length before it was read.
    pub(crate) hint: Option<u64>,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Indexer {
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// All that came since the last look.
    pub(crate) fn take(&self) -> Vec<Received> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// The only request since the last look.
    pub(crate) fn only(&self) -> Received {
        let mut received = self.take();
        assert_eq!(received.len(), 1, "exactly one request passes");
        received.remove(0)
    }
}

impl<B> Service<Request<B>> for Indexer
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Debug,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let received = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let hint = body.size_hint().exact();
            let body = body.collect().await.unwrap();
            let trailers = body.trailers().cloned();
            received.lock().unwrap().push(Received {
                delivery: parts.extensions.get::<Delivery>().expect("a delivery").clone(),
                method: parts.method,
                uri: parts.uri,
                headers: parts.headers,
                hint,
                body: body.to_bytes(),
                trailers,
            });
            Ok(Response::new(Full::from("indexed")))
        })
    }
}
