//! What each scheme costs beside the bare HMAC-SHA256 of the same body.

#![allow(missing_docs, reason = "criterion's macros make a public function")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, Method, Uri};
use sha2::Sha256;

use hookgate::key::Keyring;
use hookgate::provider::Provider;
use hookgate::scheme::{Generic, Head, Message, Schemes, payload};
use hookgate::time::Timestamp;

const KEYS: &str = "sdf34tGdfgGDG345g3y0045TYG23te37 name=plain\n\
                    whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q= name=token\n";
const NOW: Timestamp = Timestamp::from_millis(1_777_000_000_000);

criterion_group!(benches, verify);
criterion_main!(benches);

fn verify(criterion: &mut Criterion) {
    let keys = Keyring::parse(KEYS.as_bytes()).unwrap();
    let schemes = Schemes::default().generic(Generic::new(HeaderName::from_static("x-signature")));
    for size in [1024, 8 * 1024] {
        let mut group = criterion.benchmark_group(format!("verify/{}KiB", size / 1024));
        group.throughput(Throughput::Bytes(size as u64));
        let body = Bytes::from(format!("{{\"padding\":\"{}\"}}", "x".repeat(size - 14)));

        let keyed = Hmac::<Sha256>::new_from_slice(b"sdf34tGdfgGDG345g3y0045TYG23te37").unwrap();
        group.bench_function("bare-hmac", |bencher| {
            bencher.iter(|| {
                let mut mac = keyed.clone();
                mac.update(black_box(&body));
                mac.finalize()
            });
        });
        for provider in Provider::ALL {
            let Some(scheme) = schemes.get(provider) else { continue };
            let key = match provider {
                Provider::StandardWebhooks => keys.keys().nth(1),
                _ => keys.keys().next(),
            };
            let message = Message { body: &body, payload: &body, id: "1", now: NOW };
            let headers: HeaderMap = scheme.sign(&message, key.unwrap()).unwrap();
            let (method, uri) = (Method::POST, Uri::from_static("/"));
            let head = Head { method: &method, uri: &uri, headers: &headers };
            assert!(payload(head, &body).is_ok());
            group.bench_function(BenchmarkId::from_parameter(provider), |bencher| {
                bencher.iter(|| scheme.verify(head, black_box(&body), &keys, NOW).unwrap());
            });
        }
    }
}
