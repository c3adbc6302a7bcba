//! A scheme of your own: a sender that signs with HMAC-SHA512 and says when.
//!
//! `x-forge-signature: t=<seconds>,v=<hex>` is HMAC-SHA512 over `<seconds>:<body>`, and the time must
//! be within a minute. Run without arguments it verifies a good and a bad delivery and says what came out.

use std::time::Duration;

use bytes::Bytes;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use hmac::Mac;
use hookgate::clock::{Clock, SystemClock};
use hookgate::gate::GateLayer;
use hookgate::key::{Key, Keyring};
use hookgate::keystore::KeyStore;
use hookgate::provider::Provider;
use hookgate::scheme::{
    Head, MacCheck, Message, Pending, Proof, Refusal, Scheme, Schemes, SignError,
};
use hookgate::time::Timestamp;
use http::{HeaderMap, HeaderName, Request, Response};
use http_body_util::Full;
use tower::{Layer, ServiceExt, service_fn};

const HEADER: HeaderName = HeaderName::from_static("x-forge-signature");
const TOLERANCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Forge;

impl Scheme for Forge {
    fn begin(&self, head: Head<'_>, keys: &Keyring, now: Timestamp) -> Proof {
        let mut values = head.headers.get_all(HEADER).iter();
        match (values.next(), values.next()) {
            (None, _) => Proof::Absent,
            (Some(_), Some(_)) => Proof::Refused(Refusal::Repeated),
            (Some(value), None) => match begin(value.as_bytes(), keys, now) {
                Ok(pending) => Proof::Pending(pending),
                Err(refusal) => Proof::Refused(refusal),
            },
        }
    }

    fn sign(&self, message: &Message<'_>, key: &Key) -> Result<HeaderMap, SignError> {
        let seconds = message.now.as_seconds().to_string();
        let mut mac = key.hmac_sha512();
        mac.update(seconds.as_bytes());
        mac.update(b":");
        mac.update(message.body);
        let value = format!("t={seconds},v={}", HEXLOWER.encode(&mac.finalize().into_bytes()));
        let value = value.parse().map_err(|_| SignError::UnfitValue)?;
        Ok([(HEADER, value)].into_iter().collect())
    }
}

fn begin(value: &[u8], keys: &Keyring, now: Timestamp) -> Result<Pending, Refusal> {
    let text = std::str::from_utf8(value).map_err(|_| Refusal::Malformed)?;
    let (seconds, signature) = text
        .strip_prefix("t=")
        .and_then(|rest| rest.split_once(",v="))
        .ok_or(Refusal::Malformed)?;
    let signed =
        seconds.parse().ok().and_then(Timestamp::from_seconds).ok_or(Refusal::Malformed)?;
    if !signed.is_within(TOLERANCE, now) {
        return Err(Refusal::Expired);
    }
    // Its length is looked at first: nothing is allocated by what a stranger wrote.
    if signature.len() != 128 {
        return Err(Refusal::Malformed);
    }
    let mut mac = [0; 64];
    let decoded = HEXLOWER_PERMISSIVE.decode_mut(signature.as_bytes(), &mut mac);
    decoded.map_err(|_| Refusal::Malformed)?;
    let candidates = keys.signing(now).map(|key| {
        let mut mac = key.hmac_sha512();
        mac.update(seconds.as_bytes());
        mac.update(b":");
        (key.clone(), mac)
    });
    // Hashes the body as it comes, and compares in constant time.
    Ok(Pending::body(MacCheck::new(candidates, [mac.into()])?))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let key = Key::plain("forge", "sdf34tGdfgGDG345g3y0045TYG23te37").ok_or("no key")?;
    let gate = GateLayer::builder(KeyStore::fixed(Keyring::single(key.clone())))
        .providers(Provider::Generic)
        .schemes(Schemes::default().custom(Forge, HEADER))
        .build()?;
    let service = gate.layer(service_fn(async |_| {
        Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("indexing")))
    }));

    let body = br#"{"ref":"refs/heads/main"}"#;
    let message = Message { body, payload: body, id: "1", now: SystemClock.now() };
    let signed = Forge.sign(&message, &key)?;
    let request = |body: &'static [u8]| {
        let mut request = Request::post("/").body(Full::from(body))?;
        request.headers_mut().extend(signed.clone());
        Ok::<_, http::Error>(request)
    };
    let good = service.clone().oneshot(request(body)?).await?;
    let bad = service.oneshot(request(br#"{"ref":"refs/heads/evil"}"#)?).await?;
    println!("as it was signed: {}", good.status());
    println!("with another body: {}", bad.status());
    if (good.status().as_u16(), bad.status().as_u16()) == (200, 401) {
        Ok(())
    } else {
        Err("the scheme does not hold".into())
    }
}
