//! The gate in a plain hyper server.
//!
//! Run without arguments it sends itself a good and a bad delivery and says what both got; with
//! `--serve ADDRESS` it stays.

#[path = "support/visitor.rs"]
mod visitor;

use std::convert::Infallible;

use bytes::Bytes;
use hookgate::delivery::Delivery;
use hookgate::gate::{GateBody, GateLayer};
use hookgate::key::{Key, Keyring};
use hookgate::keystore::KeyStore;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tower::{Layer, service_fn};

#[tokio::main]
async fn main() -> Result<(), visitor::BoxError> {
    let key = Key::plain("2026-11", visitor::KEY).ok_or("no key")?;
    let gate = GateLayer::new(KeyStore::fixed(Keyring::single(key)));
    let service = TowerToHyperService::new(gate.layer(service_fn(index)));

    let listener = tokio::net::TcpListener::bind(visitor::address()?).await?;
    let address = listener.local_addr()?;
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await?;
            // hyper has no time limit for heads without a timer.
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service.clone());
            tokio::spawn(connection);
        }
    });
    visitor::visit(address, serving).await
}

/// Only authentic deliveries come here, with what the gate found out about them.
async fn index(request: Request<GateBody<Incoming>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let length = request.body().bytes().map_or(0, Bytes::len);
    let text = match request.extensions().get::<Delivery>() {
        Some(delivery) => format!("{}, {length} bytes", delivery.provider()),
        None => "no delivery".into(),
    };
    Ok(Response::new(Full::from(text)))
}
