//! What the gate tells the service behind it about a delivery.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
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
    event_name: Option<String>,
    id: Option<String>,
    key: Option<Arc<Key>>,
    signed: bool,
    payload: Bytes,
    digest: OnceLock<[u8; 32]>,
    #[cfg(feature = "event")]
    event: Option<Event<'static>>,
}

impl Delivery {
    pub(crate) fn builder(
        provider: Provider,
        key: Option<Arc<Key>>,
        signed: bool,
    ) -> DeliveryBuilder {
        DeliveryBuilder(Inner {
            provider,
            event_name: None,
            id: None,
            key,
            signed,
            payload: Bytes::new(),
            digest: OnceLock::new(),
            #[cfg(feature = "event")]
            event: None,
        })
    }

    /// Whose format the delivery has.
    pub fn provider(&self) -> Provider {
        self.0.provider
    }

    /// What the host calls the event, such as `push` or `repo:refs_changed`, where it says.
    ///
    /// At most 128 printable ASCII characters without quotes and backslashes.
    pub fn event_name(&self) -> Option<&str> {
        self.0.event_name.as_deref()
    }

    /// The id that the host gave the delivery, where it gives one, within the same bounds.
    ///
    /// Hosts do not sign it: it finds a delivery in a log and does not tell two apart.
    pub fn id(&self) -> Option<&str> {
        self.0.id.as_deref()
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
            .field("event_name", &self.0.event_name)
            .field("id", &self.0.id)
            .field("key_name", &self.key_name())
            .field("signed", &self.0.signed)
            .field("payload_len", &self.0.payload.len())
            .finish_non_exhaustive()
    }
}

/// A delivery that is not complete yet.
pub(crate) struct DeliveryBuilder(Inner);

impl DeliveryBuilder {
    pub(crate) fn event_name(mut self, name: Option<&[u8]>) -> Self {
        self.0.event_name = name.and_then(word);
        self
    }

    pub(crate) fn id(mut self, id: Option<&[u8]>) -> Self {
        self.0.id = id.and_then(word);
        self
    }

    pub(crate) fn payload(mut self, payload: Bytes) -> Self {
        self.0.payload = payload;
        self
    }

    /// What the body says stands above what the headers say.
    #[cfg(feature = "event")]
    pub(crate) fn event(mut self, event: Event<'static>) -> Self {
        if let Some(name) = word(event.name.as_bytes()) {
            self.0.event_name = Some(name);
        }
        self.0.event = Some(event);
        self
    }

    pub(crate) fn build(self) -> Delivery {
        Delivery(Arc::new(self.0))
    }
}

/// What stands in a log, a header and a JSON string as it is; anything else counts as not sent.
fn word(value: &[u8]) -> Option<String> {
    const MAX: usize = 128;
    let plain = |byte: &u8| (b' '..=b'~').contains(byte) && !b"\"\\".contains(byte);
    (1..=MAX).contains(&value.len()).then_some(())?;
    value.iter().all(plain).then(|| String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids_that_could_break_a_log_count_as_not_sent() {
        let long = "x".repeat(129);
        for plain in ["push", "Push Hook", "72d3162e-cc78-11e3-81ab-4c9367dc0958", &long[1..]] {
            assert_eq!(word(plain.as_bytes()).as_deref(), Some(plain));
        }
        for other in ["", "a\"b", "a\\b", "a\nb", "caf\u{e9}", "\u{7f}", &long] {
            assert_eq!(word(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn debug_tells_the_length_of_the_payload_and_no_more_of_it() {
        let delivery = Delivery::builder(Provider::Gitee, None, false)
            .payload(Bytes::from_static(br#"{"password":"canary"}"#))
            .id(Some(b"7"))
            .event_name(Some(b"Push Hook"))
            .build();
        let debug = format!("{delivery:?}");
        assert!(!debug.contains("canary") && debug.contains("payload_len: 21"), "{debug}");
        assert_eq!(delivery.digest(), delivery.clone().digest());
    }
}
