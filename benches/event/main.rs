//! What it costs to tell what a delivery says and whether it is wanted, beside the HMAC of the same
//! body.
//!
//! The aim is that `parse-and-judge` takes at most 60 % of the time of `bare-hmac`:
//! `cargo bench --no-default-features --features event --bench event -- push`.

#![allow(missing_docs, reason = "criterion's macros make a public function")]

mod push;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;

use hookgate::event::{ParseOptions, Rules, Verdict, parse};
use hookgate::provider::Provider;
use hookgate::repository::{Patterns, RepositoryUrl};

const KEY: &str = "sdf34tGdfgGDG345g3y0045TYG23te37";
const REPOSITORIES: &str = "github.com/acme-labs/*,gitlab.com/acme-labs/**,\
                            bitbucket.org/acme-labs/*,git.example.com/**,\
                            !github.com/acme-labs/secret,!**/archive/**";
const REFS: &str = "refs/heads/*,refs/tags/v*,!refs/heads/tmp-*";

criterion_group!(benches, pushes, repository);
criterion_main!(benches);

/// A push of 8 KiB from several hosts, read and held against rules.
fn pushes(criterion: &mut Criterion) {
    let options = ParseOptions::default();
    let mut rules = Rules::default();
    rules.repositories = REPOSITORIES.parse().unwrap();
    rules.refs = REFS.parse().unwrap();
    for (provider, header, name, body) in [
        (Provider::Github, "x-github-event", "push", push::github()),
        (Provider::Gitlab, "x-gitlab-event", "Push Hook", push::gitlab()),
        (Provider::BitbucketCloud, "x-event-key", "repo:push", push::bitbucket_cloud()),
        (Provider::Gitea, "x-gitea-event", "push", push::gitea()),
    ] {
        assert_eq!(body.len(), push::SIZE, "{provider}");
        let (body, mut headers) = (body.as_bytes(), HeaderMap::new());
        headers.insert(HeaderName::from_static(header), HeaderValue::from_static(name));
        let parse = || parse(provider, black_box(&headers), black_box(body), &options).unwrap();
        assert_eq!(parse().refs.len(), 1, "{provider}");
        assert_eq!(rules.judge(&parse()), Verdict::Wanted, "{provider}");

        let mut group = criterion.benchmark_group(format!("push/{provider}"));
        group.throughput(Throughput::Bytes(push::SIZE as u64));
        group.bench_function("bare-hmac", |bencher| {
            bencher.iter(|| {
                let mut mac = Hmac::<Sha256>::new_from_slice(black_box(KEY.as_bytes())).unwrap();
                mac.update(black_box(body));
                mac.finalize()
            });
        });
        group.bench_function("parse", |bencher| bencher.iter(parse));
        group.bench_function("parse-and-judge", |bencher| bencher.iter(|| rules.judge(&parse())));
    }
}

/// What of it is not JSON: the identity of a repository, and a list of patterns over it.
fn repository(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("repository");
    for (name, address) in [
        ("web", "https://github.com/Acme-Labs/Widget-Server.git"),
        ("scp", "git@gitlab.com:acme-labs/tools/widget-server.git"),
        ("azure", "https://dev.azure.com/acme/Widget%20Server/_git/widget"),
    ] {
        group.bench_function(format!("identity/{name}"), |bencher| {
            bencher.iter(|| RepositoryUrl::parse(black_box(address)).unwrap());
        });
    }
    let patterns: Patterns = REPOSITORIES.parse().unwrap();
    let url = RepositoryUrl::parse("https://git.example.com/acme/tools/widget").unwrap();
    assert!(patterns.matches(&url));
    group.bench_function("patterns", |bencher| {
        bencher.iter(|| black_box(&patterns).matches(black_box(&url)));
    });
}
