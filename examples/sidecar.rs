//! A sidecar of your own, from the library's parts: listener, stack, gate, dispatch, upstream.
//!
//! It runs by itself: a service to stand behind it, one signed push, and what each side saw. Both
//! listen on a port that the system chooses.

use std::convert::Infallible;
use std::error::Error;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

use hookgate::clock::{Clock, SystemClock};
use hookgate::event::Rules;
use hookgate::gate::GateLayer;
use hookgate::key::{Key, Keyring, generate};
use hookgate::keystore::KeyStore;
use hookgate::outcome::{OUTCOME_HEADER, Outcome};
use hookgate::proxy::dispatch::{Dispatch, Target};
use hookgate::proxy::listen::{ListenConfig, Listener};
use hookgate::proxy::stack::{Hook, Stack, Table};
use hookgate::proxy::telemetry::Metrics;
use hookgate::proxy::unread::CloseUnreadLayer;
use hookgate::proxy::upstream::{Upstream, UpstreamConfig};
use hookgate::scheme::{Github, Message, Scheme};
use tower::{Layer, limit::ConcurrencyLimitLayer, load_shed::LoadShedLayer, service_fn};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const PUSH: &[u8] = br#"{"ref":"refs/heads/main","before":"95790bf891e76fee5e1747ab589903a6a1f80f22",
"after":"da1560886d4f094c3e6c9ef40349f7d38b5d27d7","repository":{"clone_url":"https://github.com/acme/widgets.git"}}"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The service behind the gate: it says what it was told to index.
    let service = Listener::bind(ListenConfig::new(ANY_PORT))?;
    let upstream = UpstreamConfig::new(&format!("http://{}", service.local_addr()))?;
    tokio::spawn(service.serve(service_fn(index), pending()));

    // The gate, and what stands behind it: at most 64 calls to the service at a time.
    let key = Key::plain("demo", std::str::from_utf8(generate()?.expose())?).ok_or("no key")?;
    let keys = KeyStore::fixed(Keyring::single(key.clone()));
    let gate = GateLayer::builder(keys).path("/webhook").rules(Rules::default()).build()?;
    let metrics = Metrics::new(SystemClock.now());
    let target = Target::new(Upstream::new(&upstream), "/webhook".parse()?);
    let dispatch = Dispatch::direct(Some(target), metrics.hook("demo"));
    let behind = LoadShedLayer::new().layer(ConcurrencyLimitLayer::new(64).layer(dispatch));
    let (name, path) = (Arc::from("demo"), "/webhook".to_owned());
    let hook = Hook { name, path, gate: gate.layer(behind), metrics: metrics.hook("demo") };
    let sidecar = Listener::bind(ListenConfig::new(ANY_PORT))?;
    let url = format!("http://{}/webhook", sidecar.local_addr());
    let table = Table { hooks: vec![hook], ..Table::default() };
    let stack = Stack::new(table, metrics.without_hook());
    tokio::spawn(sidecar.serve(CloseUnreadLayer::new().layer(stack), pending()));

    // A push, signed as GitHub signs.
    let message = Message { body: PUSH, payload: PUSH, id: "1", now: SystemClock.now() };
    let mut request = http::Request::post(&url).header("content-type", "application/json");
    request = request.header("x-github-event", "push");
    request.headers_mut().ok_or("bad request")?.extend(Github.sign(&message, &key)?);
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let answer = client.request(request.body(Full::from(PUSH))?).await?;
    let outcome = answer.headers().get(OUTCOME_HEADER).cloned().ok_or("no outcome")?;
    println!("the host hears: {} {}", answer.status(), outcome.to_str()?);
    println!("the service answered: {:?}", answer.into_body().collect().await?.to_bytes());
    if outcome == Outcome::Forwarded.as_str() { Ok(()) } else { Err("not forwarded".into()) }
}

async fn index<B>(request: http::Request<B>) -> Result<http::Response<Full<Bytes>>, Infallible> {
    println!("the service is to index {:?}", request.headers().get("hookgate-repository"));
    Ok(http::Response::new(Full::from("indexing")))
}
