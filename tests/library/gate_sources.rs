//! Who may call a gate, and how much one source may have refused.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::Layer;

use hookgate::allow_list::AllowList;
use hookgate::gate::{Gate, GateBuilder, GateLayer, RefusalLimit};
use hookgate::outcome::Outcome;
use hookgate::pace::Rate;
use hookgate::provider::Provider;
use hookgate::source::{Networks, Source};

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
