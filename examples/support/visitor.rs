//! Somebody who sends an example a good and a bad delivery.

use std::net::SocketAddr;

use bytes::Bytes;
use hookgate::clock::{Clock, SystemClock};
use hookgate::key::Key;
use hookgate::scheme::{Github, Message, Scheme};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinHandle;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The key of the examples. Yours comes from `hookgate key generate`.
pub(crate) const KEY: &str = "sdf34tGdfgGDG345g3y0045TYG23te37";

/// Where to listen: as `--serve` says, or on a port that the system chooses.
pub(crate) fn address() -> Result<SocketAddr, BoxError> {
    match served() {
        Some(address) => Ok(address.parse()?),
        None => Ok(SocketAddr::from(([127, 0, 0, 1], 0))),
    }
}

/// Sends both deliveries and ends, or waits for those of others.
pub(crate) async fn visit(
    address: SocketAddr,
    serving: JoinHandle<std::io::Result<()>>,
) -> Result<(), BoxError> {
    if served().is_some() {
        println!("listening on http://{address}/webhook");
        return Ok(serving.await??);
    }
    let body = br#"{"ref":"refs/heads/main","repository":{"full_name":"acme/widget"}}"#;
    let key = Key::plain("visitor", KEY).ok_or("no key")?;
    let message = Message { body, payload: body, id: "1", now: SystemClock.now() };
    let signed = Github.sign(&message, &key)?;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut statuses = Vec::new();
    for (what, body) in [("as it was signed", &body[..]), ("with another body", b"{}")] {
        let mut request = Request::post(format!("http://{address}/webhook"))
            .header("content-type", "application/json")
            .header("x-github-event", "push")
            .body(Full::from(Bytes::copy_from_slice(body)))?;
        request.headers_mut().extend(signed.clone());
        let answer = client.request(request).await?;
        statuses.push(answer.status().as_u16());
        let status = answer.status();
        let text = answer.into_body().collect().await?.to_bytes();
        println!("{what}: {status} {}", String::from_utf8_lossy(&text));
    }
    if statuses == [200, 401] { Ok(()) } else { Err(format!("answered {statuses:?}").into()) }
}

fn served() -> Option<String> {
    std::env::args().skip_while(|arg| arg != "--serve").nth(1)
}
