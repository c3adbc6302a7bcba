//! The gate in an axum application, and a layer behind it that brings bursts together.
//!
//! Run without arguments it sends itself a good and a bad delivery and says what both got; with
//! `--serve ADDRESS` it stays.

#[path = "support/visitor.rs"]
mod visitor;

use axum::routing::post;
use axum::{Extension, Router};
use hookgate::delivery::Delivery;
use hookgate::gate::GateLayer;
use hookgate::key::{Key, Keyring};
use hookgate::keystore::KeyStore;

#[tokio::main]
async fn main() -> Result<(), visitor::BoxError> {
    let key = Key::plain("2026-11", visitor::KEY).ok_or("no key")?;
    let gate = GateLayer::builder(KeyStore::fixed(Keyring::single(key))).path("/webhook");
    let app = Router::new().route("/webhook", post(index)).route("/webhook/{key}", post(index));

    // Bursts need to be read, which is in the feature `event`.
    #[cfg(feature = "event")]
    let app = {
        use hookgate::{coalesce::CoalesceLayer, pace::Pace};
        let coalesce = CoalesceLayer::new(Pace::new(std::time::Duration::from_secs(3)));
        app.layer((gate.read_events(true).build()?, coalesce))
    };
    #[cfg(not(feature = "event"))]
    let app = app.layer(gate.build()?);

    let listener = tokio::net::TcpListener::bind(visitor::address()?).await?;
    let address = listener.local_addr()?;
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });
    // Before an application of your own ends: `coalesce.drain().await`.
    visitor::visit(address, serving).await
}

/// Only authentic deliveries come here, with what the gate found out about them.
async fn index(Extension(delivery): Extension<Delivery>, payload: String) -> String {
    let event = delivery.event_name().unwrap_or("unnamed");
    format!("{} {event}, {} bytes", delivery.provider(), payload.len())
}
