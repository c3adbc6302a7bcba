//! What the gate tells the service behind it about a delivery.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

#[cfg(feature = "event")]
use crate::event::Event;
use crate::key::Key;
use crate::provider::Provider;

/// A delivery that passed the gate; an extension of the request that the inner service gets.
///
/// Clones are cheap and share everything.
#[derive(Clone)]
pub struct Delivery(Arc<Inner>);

struct Inner {
    provider: Provider,
    // As they came, to be looked at when somebody asks for them.
    event_name: Option<HeaderValue>,
    id: Option<HeaderValue>,
    key: Option<Arc<Key>>,
    signed: bool,
    payload: Bytes,
    digest: OnceLock<[u8; 32]>,
    #[cfg(feature = "event")]
    event: Option<Event<'static>>,
}

impl Delivery {
    /// A delivery with these headers, of which the provider's name the event and number it.
    pub(crate) fn builder(
        headers: &HeaderMap,
        provider: Provider,
        key: Option<Arc<Key>>,
        signed: bool,
    ) -> DeliveryBuilder<'_> {
        DeliveryBuilder {
            headers,
            provider,
            key,
            signed,
            payload: Bytes::new(),
            #[cfg(feature = "event")]
            event: None,
        }
    }

    /// Whose format the delivery has.
    pub fn provider(&self) -> Provider {
        self.0.provider
    }

    /// What the host calls the event, such as `push` or `repo:refs_changed`, where it says.
    ///
    /// At most 128 printable ASCII characters without quotes and backslashes.
    pub fn event_name(&self) -> Option<&str> {
        self.0.event_name.as_ref().and_then(word)
    }

    /// The id that the host gave the delivery, where it gives one, within the same bounds.
    ///
    /// Hosts do not sign it: it finds a delivery in a log and does not tell two apart.
    pub fn id(&self) -> Option<&str> {
        self.0.id.as_ref().and_then(word)
    }

    /// The name of the key that held. `None` only for the unsigned ping of Bitbucket Server.
    pub fn key_name(&self) -> Option<&str> {
        self.0.key.as_deref().map(Key::name)
    }

    /// Whether a signature covers the payload, and not a mere token or URL key.
    pub fn is_signed(&self) -> bool {
        self.0.signed
    }

    /// The JSON, unwrapped from a form or a query where it came so. Empty in `stream` mode.
    pub fn payload(&self) -> &Bytes {
        &self.0.payload
    }

    /// What the delivery says, if the gate was told to
    /// [read events](crate::gate::GateBuilder::read_events).
    #[cfg(feature = "event")]
    pub fn event(&self) -> Option<&Event<'static>> {
        self.0.event.as_ref()
    }

    /// The SHA-256 of the payload. Computed when first asked for, at one pass over the payload.
    pub fn digest(&self) -> &[u8; 32] {
        self.0.digest.get_or_init(|| Sha256::digest(&self.0.payload).into())
    }
}

/// Shows no byte of the payload: some hosts repeat their secret in it.
impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("provider", &self.0.provider)
            .field("event_name", &self.event_name())
            .field("id", &self.id())
            .field("key_name", &self.key_name())
            .field("signed", &self.0.signed)
            .field("payload_len", &self.0.payload.len())
            .finish_non_exhaustive()
    }
}

/// A delivery that is not complete yet.
pub(crate) struct DeliveryBuilder<'a> {
    headers: &'a HeaderMap,
    provider: Provider,
    key: Option<Arc<Key>>,
    signed: bool,
    payload: Bytes,
    #[cfg(feature = "event")]
    event: Option<Event<'static>>,
}

impl DeliveryBuilder<'_> {
    pub(crate) fn payload(self, payload: Bytes) -> Self {
        Self { payload, ..self }
    }

    /// What the body says stands above what the headers say.
    #[cfg(feature = "event")]
    pub(crate) fn event(self, event: Event<'static>) -> Self {
        Self { event: Some(event), ..self }
    }

    pub(crate) fn build(self) -> Delivery {
        let header = |name: Option<&HeaderName>| self.headers.get(name?).cloned();
        let event_name = header(self.provider.event_header());
        #[cfg(feature = "event")]
        let event_name = self
            .event
            .as_ref()
            .and_then(|event| event.name.parse().ok())
            .filter(|name| word(name).is_some())
            .or(event_name);
        Delivery(Arc::new(Inner {
            provider: self.provider,
            event_name,
            id: header(self.provider.delivery_header()),
            key: self.key,
            signed: self.signed,
            payload: self.payload,
            digest: OnceLock::new(),
            #[cfg(feature = "event")]
            event: self.event,
        }))
    }
}

/// What stands in a log, a header and a JSON string as it is; anything else counts as not sent.
fn word(value: &HeaderValue) -> Option<&str> {
    const MAX: usize = 128;
    let word = value.to_str().ok()?;
    let fits = (1..=MAX).contains(&word.len()) && !word.contains(['"', '\\', '\t']);
    fits.then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids_that_could_break_a_log_count_as_not_sent() {
        let long = "x".repeat(129);
        let word = |text: &str| {
            let value = HeaderValue::from_bytes(text.as_bytes()).unwrap();
            word(&value).map(str::to_owned)
        };
        for plain in ["push", "Push Hook", "72d3162e-cc78-11e3-81ab-4c9367dc0958", &long[1..]] {
            assert_eq!(word(plain).as_deref(), Some(plain));
        }
        for other in ["", "a\"b", "a\\b", "a\tb", "caf\u{e9}", &long] {
            assert_eq!(word(other), None, "{other}");
        }
    }

    #[test]
    fn debug_tells_the_length_of_the_payload_and_no_more_of_it() {
        let headers = HeaderMap::from_iter([(
            Provider::Gitee.event_header().unwrap().clone(),
            "Push Hook".parse().unwrap(),
        )]);
        let delivery = Delivery::builder(&headers, Provider::Gitee, None, false)
            .payload(Bytes::from_static(br#"{"password":"canary"}"#))
            .build();
        assert_eq!(delivery.event_name(), Some("Push Hook"));
        let debug = format!("{delivery:?}");
        assert!(!debug.contains("canary") && debug.contains("payload_len: 21"), "{debug}");
        assert_eq!(delivery.digest(), delivery.clone().digest());
    }
}
