//! Who may call a gate, and how much one source may have refused.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::Layer;

use hookgate::allow_list::AllowList;
use hookgate::gate::{Gate, GateBuilder, GateLayer, RefusalLimit, SourceLayer};
use hookgate::outcome::Outcome;
use hookgate::pace::Rate;
use hookgate::provider::Provider;
use hookgate::source::{ClientHeader, Networks, Source, TrustedProxies};

use crate::support::{Answer, Indexer, PLAIN, Sample, ask, keys};

fn from(source: &str, sample: &Sample) -> Request<Full<Bytes>> {
    let mut request = sample.request();
    let address: IpAddr = source.parse().unwrap();
    request.extensions_mut().insert(Source::new(address));
    request
}

fn gate(tell: impl FnOnce(GateBuilder) -> GateBuilder) -> Gate<Indexer> {
    let builder = GateLayer::builder(keys()).path("/webhook");
    tell(builder).build().unwrap().layer(Indexer::default())
}

fn told(answer: &Answer) -> (u16, Option<Outcome>) {
    (answer.code(), answer.outcome())
}

fn good() -> Sample {
    Sample::github("{}")
}

/// One whose signature is that of another body.
fn forged() -> Sample {
    Sample::github("{}").body("[]")
}

#[tokio::test]
async fn who_is_not_listed_is_refused_whatever_he_shows_and_so_is_who_comes_from_nowhere() {
    let allowed = AllowList::new(Networks::parse("192.0.2.0/24").unwrap());
    let gate = gate(|builder| builder.allow_from(allowed));
    assert_eq!(ask(&gate, from("192.0.2.7", &good())).await.code(), 200);
    assert_eq!(ask(&gate, from("::ffff:192.0.2.7", &good())).await.code(), 200);
    let forbidden = (403, Some(Outcome::Forbidden));
    for source in ["192.0.3.7", "::1", "::ffff:192.0.3.7"] {
        assert_eq!(told(&ask(&gate, from(source, &good())).await), forbidden, "{source}");
        assert_eq!(told(&ask(&gate, from(source, &forged())).await), forbidden, "{source}");
    }
    assert_eq!(told(&ask(&gate, good().request()).await), forbidden, "without a source");
}

fn limited(rate: Rate) -> Gate<Indexer> {
    gate(|builder| builder.refusal_limit(RefusalLimit::new(rate)))
}

fn two_in_20_s() -> Rate {
    Rate::new(NonZeroU32::new(2).unwrap(), Duration::from_secs(20))
}

#[tokio::test(start_paused = true)]
async fn a_source_that_was_refused_too_often_waits_and_may_come_again_when_it_was_told() {
    let gate = limited(two_in_20_s());
    let refused = (401, Some(Outcome::Unauthorized));
    for _ in 0..2 {
        assert_eq!(told(&ask(&gate, from("192.0.2.7", &forged())).await), refused);
    }
    let answer = ask(&gate, from("192.0.2.7", &forged())).await;
    assert_eq!(told(&answer), (429, Some(Outcome::RateLimited)));
    assert_eq!(answer.headers["retry-after"], "10");
    assert_eq!(answer.rejection.unwrap().bytes(), 0, "its body was not read");
    assert_eq!(told(&ask(&gate, from("192.0.2.8", &forged())).await), refused);
    // Without a source there is nobody to charge.
    for _ in 0..5 {
        assert_eq!(told(&ask(&gate, forged().request()).await), refused);
    }
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(told(&ask(&gate, from("192.0.2.7", &forged())).await), refused);
    assert_eq!(ask(&gate, from("192.0.2.7", &forged())).await.code(), 429);
}

#[tokio::test(start_paused = true)]
async fn a_good_signature_from_a_stranger_s_address_waits_and_a_good_url_key_passes_and_frees_it() {
    let gate = limited(two_in_20_s());
    for _ in 0..3 {
        ask(&gate, from("192.0.2.7", &forged())).await;
    }
    assert_eq!(ask(&gate, from("192.0.2.7", &good())).await.code(), 429);
    let url_key = Sample::of(Provider::Gerrit).uri(&format!("/webhook/{PLAIN}")).body("{}");
    assert_eq!(ask(&gate, from("192.0.2.7", &url_key)).await.code(), 200);
    for _ in 0..10 {
        assert_eq!(ask(&gate, from("192.0.2.7", &forged())).await.code(), 401);
        assert_eq!(ask(&gate, from("192.0.2.7", &good())).await.code(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn deliveries_that_are_authentic_use_nothing_up_and_other_refusals_do_not_either() {
    let gate = limited(Rate::new(NonZeroU32::MIN, Duration::from_secs(3600)));
    for _ in 0..10 {
        assert_eq!(
            ask(&gate, from("192.0.2.7", &Sample::github("{}").uri("/x"))).await.code(),
            404
        );
    }
    assert_eq!(ask(&gate, from("192.0.2.7", &good())).await.code(), 200);
    let gates = limited(Rate::new(NonZeroU32::MIN, Duration::from_secs(3600)));
    assert_eq!(ask(&gates, from("192.0.2.7", &forged())).await.code(), 401);
    assert_eq!(ask(&gates, from("192.0.2.7", &good())).await.code(), 429);
}

/// What a server tells of its peer in its own way.
#[derive(Clone)]
struct Peer(IpAddr);

#[tokio::test]
async fn a_layer_says_who_calls_and_believes_the_proxies_that_are_trusted_and_nobody_else() {
    let gate = gate(|it| it.allow_from(AllowList::new(Networks::parse("192.0.2.0/24").unwrap())));
    let proxies = Networks::parse("10.0.0.0/8").unwrap();
    let untrusting = SourceLayer::new(|of| of.get().map(|peer: &Peer| peer.0));
    let trusting =
        untrusting.clone().trust(TrustedProxies::new(proxies, ClientHeader::XForwardedFor));
    for (layer, peer, header, code) in [
        (&untrusting, Some("192.0.2.7"), None, 200),
        (&untrusting, Some("192.0.3.7"), None, 403),
        (&untrusting, Some("10.0.0.1"), Some("192.0.2.7"), 403),
        (&trusting, Some("10.0.0.1"), Some("192.0.2.7"), 200),
        (&trusting, Some("10.0.0.1"), Some("192.0.2.7, 192.0.3.7"), 403),
        (&trusting, Some("192.0.3.7"), Some("192.0.2.7"), 403),
        (&trusting, None, Some("192.0.2.7"), 403),
    ] {
        let sample = header.map_or_else(good, |it| good().header("x-forwarded-for", it));
        let mut request = sample.request();
        if let Some(peer) = peer {
            request.extensions_mut().insert(Peer(peer.parse().unwrap()));
        }
        let answer = ask(&layer.layer(gate.clone()), request).await;
        assert_eq!(answer.code(), code, "{peer:?} {header:?}");
    }
    // One that is there already is left, if the server tells of none.
    let layered = untrusting.layer(gate);
    assert_eq!(ask(&layered, from("192.0.2.7", &good())).await.code(), 200);
}
