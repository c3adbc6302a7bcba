//! What the gate costs: a signed delivery beside the bare HMAC of its body and the bare service
//! behind the gate, and what a stranger costs who is refused.
//!
//! The service does nothing, the body is in memory, and nothing ever waits: what is left is the
//! gate. Its aim is at most 1.15 times the bare HMAC for 8 KiB, without the feature `event`:
//! `cargo bench --no-default-features --bench gate -- signed/8KiB`.
//!
//! `bare-hmac` is what anyone writes who has a key, a body and a signature. `bare-hmac-keyed` has
//! hashed the key before, as the gate has, and is the stricter measure by one percent.

#![allow(missing_docs, reason = "criterion's macros make a public function")]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{Empty, Full};
use sha2::Sha256;
use tower::{Layer, Service};

use hookgate::gate::{GateBuilder, GateLayer};
use hookgate::key::{Key, Keyring};
use hookgate::keystore::KeyStore;
use hookgate::provider::Provider;
use hookgate::scheme::{Github, Message, Scheme};
use hookgate::time::Timestamp;

const KEY: &str = "sdf34tGdfgGDG345g3y0045TYG23te37";
const KIB: usize = 1024;
/// So few that requests are still in the cache, as they are when a server has just read them.
const BATCH: u64 = 32;

criterion_group!(benches, signed, refused);
criterion_main!(benches);

/// A good delivery of several sizes, through gates that take all providers and one.
fn signed(criterion: &mut Criterion) {
    for size in [KIB, 8 * KIB, 64 * KIB, KIB * KIB] {
        let mut group = criterion.benchmark_group(format!("signed/{}KiB", size / KIB));
        group.throughput(Throughput::Bytes(size as u64));
        let delivery = Delivery::new(size);

        let keyed = || Hmac::<Sha256>::new_from_slice(black_box(KEY.as_bytes())).unwrap();
        let verify = |mut mac: Hmac<Sha256>| {
            mac.update(black_box(&delivery.body));
            mac.verify_slice(black_box(&delivery.mac)).unwrap();
        };
        group.bench_function("bare-hmac", |bencher| bencher.iter(|| verify(keyed())));
        let before = keyed();
        group.bench_function("bare-hmac-keyed", |bencher| {
            bencher.iter(|| verify(before.clone()));
        });
        let all = builder().build().unwrap();
        let one = builder().providers(Provider::Github).build().unwrap();
        delivery.bench(&mut group, "bare-service", StatusCode::OK, Nothing);
        delivery.bench(&mut group, "gate", StatusCode::OK, all.layer(Nothing));
        delivery.bench(&mut group, "gate-one-provider", StatusCode::OK, one.layer(Nothing));
    }
}

/// Strangers with 8 KiB, by how far they come.
fn refused(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("refused/8KiB");
    let good = Delivery::new(8 * KIB);
    let mut wrong_signature = good.clone();
    let signature = format!("sha256={}", "0".repeat(64));
    wrong_signature.headers.insert("x-hub-signature-256", signature.parse().unwrap());
    let mut no_signature = good;
    no_signature.headers.remove("x-hub-signature-256");
    let mut wrong_url_key = no_signature.clone();
    wrong_url_key.uri = Uri::from_static("/webhook/sdf34tGdfgGDG345g3y0045TYG23te38");
    for (name, delivery) in [
        ("wrong-signature", wrong_signature),
        ("no-signature", no_signature),
        ("wrong-url-key", wrong_url_key),
    ] {
        let gate = builder().build().unwrap().layer(Nothing);
        delivery.bench(&mut group, name, StatusCode::UNAUTHORIZED, gate);
    }
}

fn builder() -> GateBuilder {
    let keys = KeyStore::fixed(Keyring::single(Key::plain("bench", KEY).unwrap()));
    GateLayer::builder(keys).path("/webhook")
}

/// A push as GitHub sends it.
#[derive(Clone)]
struct Delivery {
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
    mac: Vec<u8>,
}

impl Delivery {
    fn new(size: usize) -> Self {
        let body = Bytes::from(vec![b'x'; size]);
        let now = Timestamp::from_millis(0);
        let message = Message { body: &body, payload: &body, id: "1", now };
        let mut headers = Github.sign(&message, &Key::plain("bench", KEY).unwrap()).unwrap();
        for (name, value) in [
            ("host", "hooks.example.org"),
            ("user-agent", "GitHub-Hookshot/8d3ab1f"),
            ("content-type", "application/json"),
            ("accept", "*/*"),
            ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
            ("x-github-event", "push"),
            ("x-github-hook-id", "292430182"),
            ("x-github-hook-installation-target-id", "79929171"),
            ("x-github-hook-installation-target-type", "repository"),
            ("x-hub-signature", "sha1=7d38cdd689735b008b3c702edd92eea23791c5f6"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert("content-length", size.into());
        let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
        mac.update(&body);
        let mac = mac.finalize().into_bytes().to_vec();
        Self { uri: Uri::from_static("/webhook"), headers, body, mac }
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// Times the calls alone.
    fn bench<S, B>(
        &self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        name: &str,
        expected: StatusCode,
        mut service: S,
    ) where
        S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible>,
    {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let (mut left, mut time) = (iterations, Duration::ZERO);
                while left > 0 {
                    let requests: Vec<_> = (0..left.min(BATCH)).map(|_| self.request()).collect();
                    left -= requests.len() as u64;
                    let begun = Instant::now();
                    for request in requests {
                        assert_eq!(status(&mut service, request), expected);
                    }
                    time += begun.elapsed();
                }
                time
            });
        });
    }
}

/// The status of an answer that needs no waiting.
fn status<S, B>(service: &mut S, request: Request<Full<Bytes>>) -> StatusCode
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible>,
{
    let answer = pin!(service.call(request));
    match answer.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(response)) => response.status(),
        Poll::Ready(Err(never)) => match never {},
        Poll::Pending => panic!("nothing here waits"),
    }
}

/// A service that answers and does nothing else.
#[derive(Clone)]
struct Nothing;

impl<B> Service<Request<B>> for Nothing {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        ready(Ok(Response::new(Empty::new())))
    }
}
