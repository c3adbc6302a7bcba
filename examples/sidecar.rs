//! A sidecar of your own, from the parts of `serve`: trusted proxies, who may call, the gate, bursts, a limit, upstream.
//!
//! It runs by itself: a service to stand behind it, and what hosts and others hear. Both listen on a port that the
//! system chooses. With `Dispatch::durable` it would have a spool, with `Stack::trace` spans for a collector.

use std::{convert::Infallible, error::Error, future::pending, net, num, sync::Arc, time};

use bytes::Bytes;
use hookgate::proxy::dispatch::{Dispatch, Pacer, Sender, Target};
use hookgate::proxy::listen::{ListenConfig, Listener};
use hookgate::proxy::stack::{Hook, Stack, Table};
use hookgate::proxy::{config::Paces, telemetry::Metrics, unread::CloseUnreadLayer, upstream};
use hookgate::source::{ClientHeader, Networks, TrustedProxies};
use hookgate::{allow_list::AllowList, event::Rules, gate, key::Key, keystore::KeyStore, pace};
use hookgate::{clock::Clock, clock::SystemClock, key::Keyring, outcome::OUTCOME_HEADER};
use hookgate::{scheme::Github, scheme::Message, scheme::Scheme};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{Layer, limit::ConcurrencyLimitLayer, load_shed::LoadShedLayer, service_fn};

const PUSH: &str = r#"{"ref":"refs/heads/main","before":"95790bf891e76fee5e1747ab589903a6a1f80f22","after":
"da1560886d4f094c3e6c9ef40349f7d38b5d27d#","repository":{"clone_url":"https://github.com/acme/widgets.git"}}"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listen = || Listener::bind(ListenConfig::new(net::SocketAddr::from(([127, 0, 0, 1], 0))));
    let key = Key::plain("demo", "sdf34tGdfgGDG345g3y0045TYG23te37").ok_or("no key")?;
    let (service, now) = (listen()?, SystemClock.now());
    let upstream = upstream::UpstreamConfig::new(&format!("http://{}", service.local_addr()))?;
    tokio::spawn(service.serve(service_fn(index), pending()));
    // The gate: who may call it, and that nobody may have more than one request a minute refused.
    let once = pace::Rate::new(num::NonZeroU32::MIN, time::Duration::from_secs(60));
    let keys = KeyStore::fixed(Keyring::single(key.clone()));
    let gate = gate::GateLayer::builder(keys).path("/webhook").rules(Rules::default());
    let gate = gate.allow_from(AllowList::new(Networks::parse("192.0.2.0/24")?));
    let gate = gate.refusal_limit(gate::RefusalLimit::new(once)).build()?;

    // Behind it: one push a minute of each ref, and at most 64 calls to the service at a time.
    let (metrics, tracing) = (Metrics::new(now), Default::default());
    let target = Some(Target::new(upstream::Upstream::new(&upstream), "/webhook".parse()?));
    let (of_hook, parse_options) = (metrics.hook("demo"), Default::default());
    let sender = Sender { target, parse_options, metrics: of_hook.clone(), tracing };
    let coalesce = Some(pace::Pace::new(time::Duration::from_secs(60)));
    let pacer = Arc::new(Pacer::new("demo", Paces { coalesce, ..Paces::default() }, sender));
    tokio::spawn(Pacer::run(Arc::downgrade(&pacer)));
    let behind = ConcurrencyLimitLayer::new(64).layer(Dispatch::new(pacer.clone()));
    let (gate, path) = (gate.layer(LoadShedLayer::new().layer(behind)), "/webhook".into());
    let hook = Hook { name: "demo".into(), path, gate, metrics: of_hook };
    let proxies = TrustedProxies::new(Networks::parse("127.0.0.1")?, ClientHeader::XForwardedFor);
    let stack = Stack::new(Table { hooks: vec![hook], proxies }, metrics.without_hook());
    let sidecar = listen()?;
    let url = format!("http://{}/webhook", sidecar.local_addr());
    tokio::spawn(sidecar.serve(CloseUnreadLayer::new().layer(stack), pending()));

    let calls = [("7", "1"), ("7", "2"), ("8", "bad"), ("8", "bad"), ("7, 203.0.113.7", "3")];
    let heard = ["forwarded", "coalesced", "unauthorized", "rate-limited", "forbidden"];
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    for ((client_of_proxy, commit), outcome) in calls.into_iter().zip(heard) {
        let (body, signed) = (PUSH.replace('#', commit), PUSH.replace('#', &commit[..1]));
        let message = Message { body: signed.as_bytes(), payload: signed.as_bytes(), id: "1", now };
        let request = http::Request::post(&url).header("content-type", "application/json");
        let request = request.header("x-forwarded-for", format!("192.0.2.{client_of_proxy}"));
        let mut request = request.header("x-github-event", "push").body(Full::from(body))?;
        request.headers_mut().extend(Github.sign(&message, &key)?);
        let told = client.request(request).await?.headers()[OUTCOME_HEADER].to_str()?.to_owned();
        println!("192.0.2.{client_of_proxy} hears: {told}");
        (told == outcome).then_some(()).ok_or("that is another outcome")?;
    }
    // As at the end of a process: what is held is sent.
    let (lost, counted) = (pacer.flush().await, metrics.encode());
    let is_sent = counted.contains("hookgate_upstream_duration_seconds_count{hook=\"demo\"} 2\n");
    println!("{counted}");
    if is_sent && lost == 0 { Ok(()) } else { Err("not both pushes were sent".into()) }
}

async fn index<B>(request: http::Request<B>) -> Result<http::Response<Full<Bytes>>, Infallible> {
    println!("the service is to index {:?}", request.headers().get("hookgate-repository"));
    Ok(http::Response::new(Full::from("indexing")))
}
