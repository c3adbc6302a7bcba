//! What each scheme costs beside the HMAC under it: `verify` of a delivery that is there as a whole.
//!
//! Schemes with a token hash no body, so their time does not grow with it.

#![allow(missing_docs, reason = "criterion's macros make a public function")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hmac::{Hmac, KeyInit, Mac};
use http::header::HeaderName;
use http::{HeaderValue, Method, Uri};
use sha2::{Sha256, Sha512};

use hookgate::key::Keyring;
use hookgate::provider::Provider;
use hookgate::scheme::{Algorithm, Generic, Gitee, GiteeMode, Head, Message, Schemes, UrlKey};
use hookgate::time::Timestamp;

const KEY: &str = "sdf34tGdfgGDG345g3y0045TYG23te37";
const SIGNING: &str = "whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=";
const NOW: Timestamp = Timestamp::from_millis(1_777_000_000_000);
const KIB: usize = 1024;

criterion_group!(benches, verify, url_key);
criterion_main!(benches);

fn verify(criterion: &mut Criterion) {
    let ring = |key: &str| Keyring::parse(format!("{key} name=bench\n").as_bytes()).unwrap();
    let (plain, signing) = (ring(KEY), ring(SIGNING));
    let generic = || Generic::new(HeaderName::from_static("x-signature"));
    let schemes = || Schemes::default().generic(generic());
    let sha512 = schemes().generic(generic().algorithm(Algorithm::Sha512));
    let password = schemes().gitee(Gitee::new(GiteeMode::Password));
    let cases = [
        ("github", schemes(), Provider::Github, &plain),
        ("gitlab-token", schemes(), Provider::Gitlab, &plain),
        ("gitlab-signing-token", schemes(), Provider::Gitlab, &signing),
        ("standard-webhooks", schemes(), Provider::StandardWebhooks, &signing),
        ("bitbucket-cloud", schemes(), Provider::BitbucketCloud, &plain),
        ("bitbucket-server", schemes(), Provider::BitbucketServer, &plain),
        ("gitea", schemes(), Provider::Gitea, &plain),
        ("forgejo", schemes(), Provider::Forgejo, &plain),
        ("gogs", schemes(), Provider::Gogs, &plain),
        ("azure-devops", schemes(), Provider::AzureDevops, &plain),
        ("gitee-sign", schemes(), Provider::Gitee, &plain),
        ("gitee-password", password, Provider::Gitee, &plain),
        ("generic-sha256", schemes(), Provider::Generic, &plain),
        ("generic-sha512", sha512, Provider::Generic, &plain),
    ];
    for size in [KIB, 8 * KIB] {
        let body = Bytes::from(vec![b'x'; size]);
        let mut group = criterion.benchmark_group(format!("verify/{}KiB", size / KIB));
        group.throughput(Throughput::Bytes(size as u64));

        let keyed = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
        group.bench_function("bare-hmac-sha256", |bencher| {
            bencher.iter(|| keyed.clone().chain_update(black_box(&body)).finalize());
        });
        let keyed = Hmac::<Sha512>::new_from_slice(KEY.as_bytes()).unwrap();
        group.bench_function("bare-hmac-sha512", |bencher| {
            bencher.iter(|| keyed.clone().chain_update(black_box(&body)).finalize());
        });

        for (name, schemes, provider, keys) in &cases {
            let scheme = schemes.get(*provider).unwrap();
            let message = Message { body: &body, payload: &body, id: "msg_1", now: NOW };
            let mut headers = scheme.sign(&message, keys.keys().next().unwrap()).unwrap();
            headers.insert("content-type", HeaderValue::from_static("application/json"));
            let (method, uri) = (Method::POST, Uri::from_static("/webhook"));
            let head = Head { method: &method, uri: &uri, headers: &headers };
            group.bench_function(*name, |bencher| {
                bencher.iter(|| scheme.verify(black_box(head), &body, keys, NOW).unwrap());
            });
        }
    }
}

/// The lookup of a key in the URL, among as many keys as a file can hold.
fn url_key(criterion: &mut Criterion) {
    let lines = (0..64).map(|n| format!("sdf34tGdfgGDG345g3y0045TYG2300{n:02} use=url\n"));
    let keys = Keyring::parse(lines.collect::<String>().as_bytes()).unwrap();
    let mut group = criterion.benchmark_group("url-key");
    for (name, segment) in [
        ("good", "sdf34tGdfgGDG345g3y0045TYG230063"),
        ("wrong", "sdf34tGdfgGDG345g3y0045TYG2300xx"),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| UrlKey::begin(black_box(Some(segment)), &keys, NOW));
        });
    }
}
