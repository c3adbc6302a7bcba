//! The gate among other middlewares: under axum, hyper and tower, with readiness, errors and
//! cancellation as tower means them.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use axum::extract::Extension;
use axum::routing::post;
use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tower::limit::ConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower::load_shed::error::Overloaded;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_test::mock;

use hookgate::delivery::Delivery;
use hookgate::gate::{
    Budget, Gate, GateBody, GateBuilder, GateError, GateLayer, ResponseBody, ResponseFuture,
};
use hookgate::key::{Key, Keyring};
use hookgate::keystore::KeyStore;
use hookgate::outcome::Outcome;
use hookgate::provider::{Provider, Providers};
use hookgate::scheme::{AzureDevops, Schemes, UrlKey};

use crate::support::{
    Answer, Client, Indexer, NowOrNever, PLAIN, Sample, Server, ask, both_keys, eventually, keys,
    ring,
};

fn layer() -> GateLayer {
    GateLayer::builder(keys()).path("/webhook").build().unwrap()
}

/// A body that sends what it is told to.
fn channel() -> (Sender<Bytes>, Channel<Bytes>) {
    Channel::new(1)
}

mod frameworks {
    use super::*;

    /// What an application sees of a delivery.
    async fn handler(Extension(delivery): Extension<Delivery>, body: Bytes) -> String {
        format!("{} {}", delivery.provider(), body.len())
    }

    #[tokio::test]
    async fn it_is_a_layer_of_an_axum_router() {
        let app = axum::Router::new()
            .route("/webhook", post(handler))
            .route("/webhook/{key}", post(handler))
            .layer(layer());
        let good = Sample::github("{}");
        let answer = ask(&app, good.request_with(axum::body::Body::from("{}"))).await;
        assert_eq!((answer.code(), &answer.body[..]), (200, &b"github 2"[..]));
        let answer = ask(&app, good.request_with(axum::body::Body::from("x"))).await;
        assert_eq!((answer.code(), answer.outcome()), (401, Some(Outcome::Unauthorized)));
        let url_key = Sample::of(Provider::Gerrit).uri(&format!("/webhook/{PLAIN}")).body("{}");
        let answer = ask(&app, url_key.request_with(axum::body::Body::from("{}"))).await;
        assert_eq!((answer.code(), &answer.body[..]), (200, &b"gerrit 2"[..]));
    }

    #[tokio::test]
    async fn it_serves_on_a_socket_under_axum() {
        let app = axum::Router::new().route("/webhook", post(handler)).layer(layer());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(axum::serve(listener, app).into_future());
        for (body, status) in [("{}", 200), ("[]", 401)] {
            let mut client = Client::to(address).await;
            client.send(&Sample::github("{}").head("content-length: 2\r\n")).await;
            client.send(body.as_bytes()).await;
            assert_eq!(client.reply().await.status, status);
        }
        server.abort();
    }

    #[tokio::test]
    async fn it_stands_before_a_whole_router_whose_routes_see_no_url_key() {
        let app = layer().layer(axum::Router::new().route("/webhook", post(handler)));
        let url_key = Sample::of(Provider::Gerrit).uri(&format!("/webhook/{PLAIN}"));
        assert_eq!(ask(&app, url_key.request()).await.code(), 200);
        assert_eq!(ask(&app, url_key.uri("/webhook/x").request()).await.code(), 401);
    }

    #[tokio::test]
    async fn it_serves_under_hyper_with_http_1() {
        let server = Server::start(layer().layer(Indexer::default())).await;
        for (body, status) in [("{}", 200), ("[]", 401)] {
            let mut client = Client::to(server.address).await;
            client.send(&Sample::github("{}").head("content-length: 2\r\n")).await;
            client.send(body.as_bytes()).await;
            let reply = client.reply().await;
            assert_eq!(reply.status, status);
            assert_eq!(reply.headers.contains_key("hookgate-outcome"), status == 401);
        }
    }

    #[tokio::test]
    async fn it_serves_under_hyper_with_http_2() {
        let indexer = Indexer::default();
        let service = TowerToHyperService::new(layer().layer(indexer.clone()));
        let (client, server) = tokio::io::duplex(64 * 1024);
        let server = tokio::spawn(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(server), service),
        );
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client))
                .await
                .unwrap();
        let connection = tokio::spawn(connection);
        let uri = |key: &str| format!("http://gate/webhook{key}");
        let large = vec![b'x'; 300_000];
        let url_key = uri(&format!("/{PLAIN}"));
        for (sample, status) in [
            (Sample::github("{}").uri(&uri("")), 200),
            (Sample::github(large.clone()).uri(&uri("")), 200),
            (Sample::github("{}").uri(&uri("")).body("[]"), 401),
            (Sample::of(Provider::Gerrit).uri(&url_key), 200),
        ] {
            let answer = sender.send_request(sample.request()).await.unwrap();
            assert_eq!(answer.status(), status);
        }
        let received = indexer.take();
        assert_eq!(received.len(), 3);
        assert_eq!(received[1].body, large);
        assert_eq!(received[2].uri.to_string(), uri(""));
        drop(sender);
        connection.await.unwrap().unwrap();
        server.await.unwrap().unwrap();
    }
}

mod readiness {
    use super::*;

    type Mock = mock::Mock<Request<GateBody<Channel<Bytes>>>, Response<Full<Bytes>>>;
    type Handle = mock::Handle<Request<GateBody<Channel<Bytes>>>, Response<Full<Bytes>>>;

    fn mocked() -> (mock::Spawn<Gate<Mock>>, Handle) {
        let (gate, mut handle) = mock::spawn_layer(layer());
        handle.allow(0);
        (gate, handle)
    }

    #[tokio::test]
    async fn the_gate_is_ready_when_the_service_is_not() {
        let (mut gate, mut handle) = mocked();
        type R = Request<Channel<Bytes>>;
        assert!(gate.poll_ready::<R>().is_ready());
        // A stranger is answered without asking whether the service is ready: it says an error to
        // whoever asks first.
        handle.send_error("asked");
        let (_sender, body) = channel();
        let stranger = gate.call(Sample::of(Provider::Github).request_with(body));
        assert_eq!(stranger.now_or_never().unwrap().unwrap().status(), 401);
        let (sender, body) = channel();
        let mut forger = Box::pin(gate.call(Sample::github("{}").request_with(body)));
        assert!(poll(&mut forger).is_pending());
        drop(sender);
        assert_eq!(forger.await.unwrap().status(), 401);
        // Only the first good delivery does.
        let (mut sender, body) = channel();
        let mut good = Box::pin(gate.call(Sample::github("{}").request_with(body)));
        assert!(poll(&mut good).is_pending());
        sender.send_data("{}".into()).await.unwrap();
        assert!(poll(&mut good).is_pending(), "the body has not ended");
        drop(sender);
        assert_eq!(good.await.unwrap_err().to_string(), "asked");
    }

    #[tokio::test]
    async fn a_verified_delivery_waits_until_the_service_is_ready() {
        let (mut gate, mut handle) = mocked();
        let (mut sender, body) = channel();
        sender.send_data("{}".into()).await.unwrap();
        drop(sender);
        let answer = tokio::spawn(gate.call(Sample::github("{}").request_with(body)));
        tokio::task::yield_now().await;
        assert!(handle.poll_request().is_pending());
        handle.allow(1);
        let (request, respond) = handle.next_request().await.unwrap();
        assert_eq!(request.extensions().get::<Delivery>().unwrap().payload(), "{}");
        assert_eq!(request.body().bytes().unwrap(), "{}");
        respond.send_response(Response::new(Full::from("done")));
        assert_eq!(Answer::read(answer.await.unwrap().unwrap()).await.body, "done");
    }
}

mod limits {
    use super::*;

    /// A service that answers when there is a permit.
    fn slow(
        permits: Arc<Semaphore>,
    ) -> impl Service<
        Request<GateBody<Channel<Bytes>>>,
        Response = Response<Full<Bytes>>,
        Error = Infallible,
        Future: Send,
    > + Clone {
        service_fn(move |_: Request<GateBody<Channel<Bytes>>>| {
            let permits = permits.clone();
            async move {
                permits.acquire().await.unwrap().forget();
                Ok(Response::new(Full::from("done")))
            }
        })
    }

    fn good() -> Request<Channel<Bytes>> {
        Sample::github("").request_with(ended())
    }

    fn ended() -> Channel<Bytes> {
        channel().1
    }

    #[tokio::test]
    async fn who_is_not_verified_takes_no_place_in_a_limit_behind_the_gate() {
        let permits = Arc::new(Semaphore::new(0));
        let service = ServiceBuilder::new()
            .layer(layer())
            .load_shed()
            .concurrency_limit(1)
            .service(slow(permits.clone()));
        // Ten who dribble, with what may yet be a good signature.
        let mut dribblers = Vec::new();
        for _ in 0..10 {
            let (mut sender, body) = channel();
            sender.send_data("x".into()).await.unwrap();
            let mut future =
                Box::pin(service.clone().call(Sample::github("xyz").request_with(body)));
            assert!(poll(&mut future).is_pending());
            dribblers.push((sender, future));
        }
        let mut first = Box::pin(service.clone().call(good()));
        assert!(poll(&mut first).is_pending(), "it has the only place");
        let shed = ask_error(&service, good()).await;
        assert!(shed.is::<Overloaded>(), "{shed}");
        // Strangers hear of it as little as before.
        let stranger = Sample::of(Provider::Github).request_with(ended());
        assert_eq!(service.clone().call(stranger).await.unwrap().status(), 401);
        permits.add_permits(1);
        assert_eq!(first.await.unwrap().status(), 200);
        permits.add_permits(1);
        assert_eq!(service.clone().call(good()).await.unwrap().status(), 200);
    }

    /// The twin: the other way round a stranger keeps everybody out.
    #[tokio::test]
    async fn before_the_gate_the_same_limit_is_filled_by_one_stranger() {
        let permits = Arc::new(Semaphore::new(10));
        let service = ServiceBuilder::new()
            .layer(LoadShedLayer::new())
            .layer(ConcurrencyLimitLayer::new(1))
            .layer(layer())
            .service(slow(permits));
        let (_sender, body) = channel();
        let mut held = service.clone();
        let held = held.ready().await.unwrap().call(Sample::github("xyz").request_with(body));
        let mut held = Box::pin(held);
        assert!(poll(&mut held).is_pending());
        assert!(ask_error(&service, good()).await.is::<Overloaded>());
        drop(held);
        assert_eq!(service.oneshot(good()).await.unwrap().status(), 200);
    }

    async fn ask_error<S, B, R>(service: &S, request: Request<B>) -> BoxError
    where
        S: Service<Request<B>, Response = Response<R>, Error = BoxError> + Clone,
    {
        service.clone().oneshot(request).await.err().expect("an error")
    }
}

mod errors {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Broken;

    impl fmt::Display for Broken {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("broken")
        }
    }

    impl Error for Broken {}

    #[tokio::test]
    async fn an_error_of_the_service_comes_through_as_it_is() {
        let service = service_fn(|_: Request<GateBody<Full<Bytes>>>| {
            ready(Err::<Response<Full<Bytes>>, _>(Broken))
        });
        let mut gate = layer().layer(service);
        let error: Broken = gate.call(Sample::github("{}").request()).await.unwrap_err();
        assert_eq!(error, Broken);
        // A refusal is an answer and no error.
        let answer = gate.call(Sample::of(Provider::Github).request()).await.unwrap();
        assert_eq!(answer.status(), 401);
    }
}

mod cancellation {
    use super::*;

    /// A service whose calls are counted while they last.
    #[derive(Clone, Default)]
    struct Open(Arc<AtomicUsize>);

    struct Call {
        open: Arc<AtomicUsize>,
        _request: Request<GateBody<Channel<Bytes>>>,
    }

    impl Service<Request<GateBody<Channel<Bytes>>>> for Open {
        type Response = Response<Full<Bytes>>;
        type Error = Infallible;
        type Future = Call;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<GateBody<Channel<Bytes>>>) -> Call {
            self.0.fetch_add(1, Ordering::Relaxed);
            Call { open: self.0.clone(), _request: request }
        }
    }

    impl Future for Call {
        type Output = Result<Response<Full<Bytes>>, Infallible>;

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
            Poll::Pending
        }
    }

    impl Drop for Call {
        fn drop(&mut self) {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_dropped_future_drops_the_body_the_call_and_the_room_at_every_stage() {
        let budget = Budget::default();
        let open = Open::default();
        let layer = GateLayer::builder(keys()).path("/webhook").budget(budget.clone());
        let gate = layer.build().unwrap().layer(open.clone());
        for stage in ["not polled", "reading", "called"] {
            let (mut sender, body) = channel();
            sender.send_data("{}".into()).await.unwrap();
            let mut future = Box::pin(gate.clone().call(Sample::github("{}").request_with(body)));
            match stage {
                "reading" => {
                    assert!(poll(&mut future).is_pending());
                    assert_eq!((budget.used(), open.0.load(Ordering::Relaxed)), (2, 0));
                }
                "called" => {
                    drop(sender);
                    assert!(poll(&mut future).is_pending());
                    assert_eq!((budget.used(), open.0.load(Ordering::Relaxed)), (2, 1));
                }
                _ => assert_eq!(budget.used(), 0),
            }
            drop(future);
            assert_eq!((budget.used(), open.0.load(Ordering::Relaxed)), (0, 0), "{stage}");
        }
    }

    #[tokio::test]
    async fn one_that_waits_for_room_leaves_the_queue_to_the_next() {
        const SIZE: usize = 3 * 1024 * 1024;
        let budget = Budget::new(4 * 1024 * 1024, 100);
        let layer = GateLayer::builder(keys()).path("/webhook").budget(budget.clone());
        let indexer = Indexer::default();
        let gate = layer.build().unwrap().layer(indexer.clone());
        let large = Sample::github(vec![b'x'; SIZE]);
        assert_eq!(ask(&gate, large.request()).await.code(), 200);
        let mut waiting = Box::pin(gate.clone().call(large.request()));
        assert!(poll(&mut waiting).is_pending());
        let next = tokio::spawn({
            let (gate, large) = (gate.clone(), large.clone());
            async move { ask(&gate, large.request()).await.code() }
        });
        tokio::task::yield_now().await;
        drop(waiting);
        assert_eq!(budget.used(), SIZE);
        indexer.take();
        assert_eq!(next.await.unwrap(), 200);
        indexer.take();
        eventually("all room is given back", || budget.used() == 0).await;
    }
}

mod types {
    use super::*;

    fn is_send<T: Send>(_: &T) {}
    fn is_sync<T: Sync>(_: &T) {}

    #[tokio::test]
    async fn the_future_is_send_and_small() {
        let mut gate = layer().layer(Indexer::default());
        let future = gate.call(Sample::github("{}").request());
        is_send(&future);
        is_send(&gate);
        is_sync(&gate);
        is_sync(&layer());
        assert!(size_of_val(&future) < 1024, "{} bytes", size_of_val(&future));
        let incoming = size_of::<ResponseFuture<Indexer, Incoming>>();
        assert!(incoming < 1024, "{incoming} bytes");
        assert_eq!(future.await.unwrap().status(), 200);
    }

    #[test]
    fn the_inner_service_can_be_reached_and_debug_names_what_is_set() {
        let mut gate = layer().layer(7);
        *gate.get_mut() += 1;
        assert_eq!(*gate.get_ref(), 8);
        let debug = format!("{gate:?}");
        assert!(debug.contains("inner: 8") && debug.contains("/webhook"), "{debug}");
        assert_eq!(gate.into_inner(), 8);
    }
}

mod bodies {
    use super::*;

    #[tokio::test]
    async fn a_verified_body_is_there_as_a_whole_until_it_is_read() {
        let service = service_fn(async |request: Request<GateBody<Full<Bytes>>>| {
            let mut body = request.into_body();
            assert_eq!(body.bytes().unwrap(), "{}");
            assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(2), false));
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "{}");
            assert!(body.bytes().is_none() && body.is_end_stream());
            assert_eq!(body.size_hint().exact(), Some(0));
            assert!(body.frame().await.is_none());
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let gate = layer().layer(service);
        assert_eq!(ask(&gate, Sample::github("{}").request()).await.code(), 200);
    }

    #[tokio::test]
    async fn an_answer_of_the_service_passes_with_its_length_and_trailers() {
        let service = service_fn(async |_: Request<GateBody<Full<Bytes>>>| {
            let trailers =
                HeaderMap::from_iter([(HeaderName::from_static("x-t"), "1".parse().unwrap())]);
            let body = Full::<Bytes>::from("done").with_trailers(async { Some(Ok(trailers)) });
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::ACCEPTED;
            response.headers_mut().insert("x-own", "1".parse().unwrap());
            Ok::<_, Infallible>(response)
        });
        let mut gate = layer().layer(service);
        let response = gate.call(Sample::github("{}").request()).await.unwrap();
        assert_eq!(
            (response.status(), &response.headers()["x-own"]),
            (StatusCode::ACCEPTED, &"1".parse().unwrap())
        );
        assert!(!response.headers().contains_key("hookgate-outcome"));
        let collected = response.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["x-t"], "1");
        assert_eq!(collected.to_bytes(), "done");
        let refused: Response<ResponseBody<_>> =
            gate.call(Sample::of(Provider::Github).request()).await.unwrap();
        let length = refused.body().size_hint().exact().unwrap();
        assert!(!refused.body().is_end_stream());
        assert_eq!(refused.into_body().collect().await.unwrap().to_bytes().len() as u64, length);
    }
}

mod stream {
    use super::*;

    const UNREAD: [Provider; 4] =
        [Provider::AzureDevops, Provider::Gitee, Provider::Gerrit, Provider::Manual];

    fn builder() -> GateBuilder {
        GateLayer::builder(keys())
            .path("/webhook")
            .providers(UNREAD.into_iter().collect::<Providers>())
            .stream()
    }

    /// A service that answers before it has read anything, and keeps what it got.
    #[derive(Clone, Default)]
    struct Keep(Arc<Mutex<Option<Kept>>>);

    type Kept = (Delivery, GateBody<Watched>);

    impl Service<Request<GateBody<Watched>>> for Keep {
        type Response = Response<Empty<Bytes>>;
        type Error = Infallible;
        type Future = Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<GateBody<Watched>>) -> Self::Future {
            let (parts, body) = request.into_parts();
            let delivery = parts.extensions.get::<Delivery>().unwrap().clone();
            *self.0.lock().unwrap() = Some((delivery, body));
            ready(Ok(Response::new(Empty::new())))
        }
    }

    fn gate(builder: GateBuilder) -> (Gate<Keep>, Keep) {
        let kept = Keep::default();
        (builder.build().unwrap().layer(kept.clone()), kept)
    }

    /// A body that counts how often it is asked for a frame.
    struct Watched {
        asked: Arc<AtomicUsize>,
        frames: Vec<Result<Frame<Bytes>, std::io::Error>>,
    }

    impl Watched {
        fn new() -> (Arc<AtomicUsize>, Self) {
            let asked = Arc::default();
            let trailers =
                HeaderMap::from_iter([(HeaderName::from_static("x-t"), "1".parse().unwrap())]);
            let frames = vec![
                Err(std::io::ErrorKind::ConnectionReset.into()),
                Ok(Frame::trailers(trailers)),
                Ok(Frame::data(Bytes::from_static(b"anything"))),
            ];
            (Arc::clone(&asked), Self { asked, frames })
        }
    }

    impl Body for Watched {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            Poll::Ready(self.frames.pop())
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(8)
        }
    }

    #[tokio::test]
    async fn a_proven_body_goes_by_unread_with_all_that_is_in_it() {
        let (gate, kept) = gate(builder());
        for sample in [
            Sample::of(Provider::AzureDevops).sign(&both_keys()),
            Sample::of(Provider::Gitee).sign(&both_keys()),
            Sample::of(Provider::Gerrit).uri(&format!("/webhook/{PLAIN}")),
            Sample::of(Provider::Manual).uri(&format!("/webhook/{PLAIN}")),
        ] {
            let (asked, body) = Watched::new();
            let mut service = gate.clone();
            let response = service.call(sample.request_with(body)).now_or_never();
            assert_eq!(response.unwrap().unwrap().status(), 200);
            assert_eq!(asked.load(Ordering::Relaxed), 0);
            let (delivery, mut body) = kept.0.lock().unwrap().take().unwrap();
            assert_eq!(
                (delivery.provider(), delivery.key_name()),
                (sample.provider, Some("plain"))
            );
            assert!(!delivery.is_signed() && delivery.payload().is_empty());
            assert!(body.bytes().is_none() && !body.is_end_stream());
            assert_eq!(body.size_hint().exact(), Some(8));
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "anything");
            assert!(body.frame().await.unwrap().unwrap().is_trailers());
            let error = body.frame().await.unwrap().unwrap_err();
            assert_eq!(error.to_string(), "cannot read the request's body");
            assert!(error.source().unwrap().is::<std::io::Error>());
            assert!(body.frame().await.is_none());
        }
    }

    #[tokio::test]
    async fn what_is_not_proven_by_its_head_does_not_pass() {
        let (gate, kept) = gate(builder().max_body(100));
        let bad_url_key = "/webhook/sdf34tGdfgGDG345g3y0045TYG23te38";
        for (sample, status) in [
            (Sample::of(Provider::AzureDevops), 401),
            (Sample::of(Provider::Gitee).header("x-gitee-token", "x"), 401),
            (Sample::of(Provider::AzureDevops).sign(&both_keys()).uri(bad_url_key), 401),
            (Sample::github("{}"), 401),
            (Sample::of(Provider::Github).uri(&format!("/webhook/{PLAIN}")), 400),
            (Sample::of(Provider::Gerrit).uri("/x"), 404),
        ] {
            let (asked, body) = Watched::new();
            let answer = ask(&gate, sample.request_with(body)).await;
            assert_eq!(answer.code(), status, "{} {}", sample.provider, sample.uri);
            assert_eq!(asked.load(Ordering::Relaxed), 0);
            assert!(kept.0.lock().unwrap().is_none());
        }
        let (gate, _) = self::gate(builder().max_body(7));
        let sample = Sample::of(Provider::AzureDevops).sign(&both_keys());
        assert_eq!(ask(&gate, sample.request_with(Watched::new().1)).await.code(), 413);
    }

    #[tokio::test]
    async fn a_key_that_is_bound_to_repositories_does_not_pass_unread() {
        let keys = ring(&format!("{PLAIN} repositories=github.com/acme/*\n"));
        let layer = GateLayer::builder(KeyStore::fixed(keys)).path("/webhook");
        let providers = UNREAD.into_iter().collect::<Providers>();
        let (gate, _) = gate(layer.providers(providers).stream());
        let sample = Sample::of(Provider::Gerrit).uri(&format!("/webhook/{PLAIN}"));
        assert_eq!(ask(&gate, sample.request_with(Watched::new().1)).await.code(), 401);
    }

    #[test]
    fn it_is_refused_together_with_all_that_reads_a_body() {
        for provider in Provider::ALL {
            let alone = builder().providers(provider).build().map(drop);
            let beside = [Provider::Gerrit, provider].into_iter().collect::<Providers>();
            let beside = builder().providers(beside).build().map(drop);
            if UNREAD.contains(&provider) {
                assert_eq!((alone, beside), (Ok(()), Ok(())), "{provider}");
            } else {
                let error = Err(GateError::StreamReads(provider));
                assert_eq!((alone, beside), (error, error), "{provider}");
            }
        }
        let all = builder().providers(Providers::ALL).build().map(drop);
        assert!(matches!(all, Err(GateError::StreamReads(_))));
        let unsigned = builder().require_signature(true).build().map(drop);
        assert_eq!(unsigned, Err(GateError::StreamUnsigned));
    }

    #[cfg(feature = "event")]
    #[test]
    fn it_is_refused_together_with_the_reading_of_events() {
        let read = builder().read_events(true).build().map(drop);
        let rules = builder().rules(hookgate::event::Rules::default()).build().map(drop);
        let error = Err(GateError::StreamReadsEvents);
        assert_eq!((read, rules), (error, error));
    }
}

mod building {
    use super::*;

    #[test]
    fn what_does_not_fit_together_is_refused_with_its_reason() {
        let builder = || GateLayer::builder(keys());
        let none = Providers::from_iter([]);
        for (builder, error) in [
            (builder().providers(none), GateError::NoProvider),
            (builder().path("webhook"), GateError::BadPath),
            (builder().path("/web hook"), GateError::BadPath),
            (builder().path("/webhook?x"), GateError::BadPath),
            (builder().path("/webhook#x"), GateError::BadPath),
            (builder().path("http://gate/webhook"), GateError::BadPath),
            (builder().url_key(UrlKey::Require), GateError::UrlKeyWithoutPath),
            (builder().disabled_status(StatusCode::GONE), GateError::BadDisabledStatus),
        ] {
            assert_eq!(builder.build().unwrap_err(), error);
            assert!(!error.to_string().is_empty());
        }
        for builder in [
            builder().path("/"),
            builder().path("/a/b/"),
            builder().path("/webhook").url_key(UrlKey::Require),
            builder().disabled_status(StatusCode::NOT_FOUND),
        ] {
            builder.build().unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_said_of_a_provider_s_scheme_holds() {
        let azure = AzureDevops::default().header(HeaderName::from_static("x-gate-token"));
        let keys = KeyStore::fixed(Keyring::single(Key::plain("k", PLAIN).unwrap()));
        let layer = GateLayer::builder(keys).schemes(Schemes::default().azure_devops(azure));
        let gate = layer.build().unwrap().layer(Indexer::default());
        let sample = Sample::of(Provider::AzureDevops);
        let token = sample.clone().header("x-gate-token", PLAIN);
        assert_eq!(ask(&gate, token.request()).await.code(), 200);
        assert_eq!(ask(&gate, token.header("x-gate-token", "x").request()).await.code(), 401);
        let basic = sample.sign(&both_keys());
        assert_eq!(ask(&gate, basic.request()).await.code(), 401);
    }
}

fn poll<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}
