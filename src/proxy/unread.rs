//! Says `Connection: close` where a request is answered before its body was read.
//!
//! A refusal is best sent at once, while the client may still be sending a large body. hyper then
//! closes an HTTP/1 connection, since it cannot find the next request without reading all of
//! this one, but it does not say so, and a client that takes the connection for alive loses its next
//! request. [RFC 9112 section 9.6](https://www.rfc-editor.org/rfc/rfc9112#section-9.6) wants it said.
//!
//! [`CloseUnread`] belongs outside everything that reads or drops the body: it is the outermost
//! layer of the sidecar's stack. It watches the body and adds the header to the answer if the end of the
//! body had not been seen by then. HTTP/2 and requests without a body it leaves alone.
//!
//! That the answer arrives although the client is still sending is the listener's part (lingering close).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

/// Wraps a service in [`CloseUnread`].
#[derive(Clone, Copy, Debug, Default)]
pub struct CloseUnreadLayer(());

impl CloseUnreadLayer {
    /// The layer; it has no options.
    pub const fn new() -> Self {
        Self(())
    }
}

impl<S> Layer<S> for CloseUnreadLayer {
    type Service = CloseUnread<S>;

    fn layer(&self, inner: S) -> CloseUnread<S> {
        CloseUnread { inner }
    }
}

/// Adds `Connection: close` to the answer of a request whose body was not read to its end.
///
/// See the [module docs](self).
#[derive(Clone, Copy, Debug)]
pub struct CloseUnread<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for CloseUnread<S>
where
    S: Service<Request<WatchedBody<B>>, Response = Response<R>>,
    B: Body,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let watched = request.version() < Version::HTTP_2 && !request.body().is_end_stream();
        let ended = watched.then(Arc::<AtomicBool>::default);
        let request = request.map(|body| WatchedBody { body, ended: ended.clone() });
        ResponseFuture { future: self.inner.call(request), ended }
    }
}

pin_project! {
    /// The future of [`CloseUnread`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        future: F,
        ended: Option<Arc<AtomicBool>>,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.future.poll(cx))?;
        if this.ended.as_ref().is_some_and(|ended| !ended.load(Ordering::Relaxed)) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response))
    }
}

pin_project! {
    /// A request's body that remembers whether its end was seen.
    #[derive(Debug)]
    pub struct WatchedBody<B> {
        #[pin]
        body: B,
        ended: Option<Arc<AtomicBool>>,
    }
}

impl<B: Body> Body for WatchedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        if let Some(ended) = this.ended
            && (frame.is_none() || this.body.is_end_stream())
        {
            ended.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http_body_util::{BodyExt, Empty, Full};
    use tower::ServiceExt;
    use tower::util::service_fn;

    use super::*;

    async fn connection_header<B: Body>(
        request: Request<B>,
        reads: impl AsyncFn(WatchedBody<B>) + Clone,
    ) -> Option<String> {
        let service = service_fn(move |request: Request<WatchedBody<B>>| {
            let reads = reads.clone();
            async move {
                reads(request.into_body()).await;
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        let response = CloseUnreadLayer::new().layer(service).oneshot(request).await.unwrap();
        let header = response.headers().get(CONNECTION);
        header.map(|value| value.to_str().unwrap().to_owned())
    }

    fn request(version: Version, body: &'static str) -> Request<Full<Bytes>> {
        Request::builder().version(version).body(Full::from(body)).unwrap()
    }

    #[tokio::test]
    async fn an_answer_before_the_end_of_the_body_says_close() {
        let unread = connection_header(request(Version::HTTP_11, "body"), async |_| ()).await;
        assert_eq!(unread.as_deref(), Some("close"));
        let unread = connection_header(request(Version::HTTP_10, "body"), async |_| ()).await;
        assert_eq!(unread.as_deref(), Some("close"));
    }

    #[tokio::test]
    async fn an_answer_after_the_end_of_the_body_does_not() {
        let one_frame = async |mut body: WatchedBody<Full<Bytes>>| {
            body.frame().await.unwrap().unwrap();
        };
        assert_eq!(connection_header(request(Version::HTTP_11, "body"), one_frame).await, None);
        let all = async |body: WatchedBody<Full<Bytes>>| {
            body.collect().await.unwrap();
        };
        assert_eq!(connection_header(request(Version::HTTP_11, "body"), all).await, None);
    }

    #[tokio::test]
    async fn a_request_without_a_body_and_http_2_are_left_alone() {
        assert_eq!(connection_header(request(Version::HTTP_11, ""), async |_| ()).await, None);
        assert_eq!(connection_header(request(Version::HTTP_2, "body"), async |_| ()).await, None);
    }
}
