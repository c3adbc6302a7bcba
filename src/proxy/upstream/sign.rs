//! The gate's own signature: `upstream_sign_key_file`.
//!
//! A service that trusts the gate alone checks one scheme, [Standard Webhooks], whichever host a
//! delivery came from. What is signed is what is sent: the body after it was rewritten, the time of
//! this call, and an id. The `hookgate-*` headers are not covered.
//!
//! 1. Every active signing token signs, in the order of the key file, so the primary first. While two
//!    are active (`from=`, `until=`) a service may hold either.
//! 2. The id is that of the delivery (`hookgate-delivery`), percent-encoded where it is something else
//!    than `A-Z a-z 0-9 - _`: a dot in it could be taken for the end of the id. It stays the same
//!    when a delivery is sent again.
//! 3. `webhook-id`, `webhook-timestamp` and `webhook-signature` of the host are overwritten.
//!
//! The time must lie near that of the service (most take five minutes), so a call is signed just
//! before it is made and never on its way into a spool.
//!
//! [Standard Webhooks]: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

use std::fmt;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::key::Keyring;
use crate::scheme::{Message, Scheme, StandardWebhooks};
use crate::time::Timestamp;

/// Signs a call with every token that is active `now`, and writes the three headers.
///
/// Costs one pass over the body a token. On an error the headers are as they were.
///
/// # Errors
///
/// If no signing token is active, or the delivery has no id.
pub fn sign(
    headers: &mut HeaderMap,
    keys: &Keyring,
    delivery: &str,
    body: &[u8],
    now: Timestamp,
) -> Result<(), SigningError> {
    let id = utf8_percent_encode(delivery, ENCODED).to_string();
    if id.is_empty() {
        return Err(SigningError::NoId);
    }
    let message = Message { body, payload: body, id: &id, now };
    let mut signed = HeaderMap::new();
    let mut list = Vec::new();
    for key in keys.signing_tokens(now) {
        signed = StandardWebhooks.sign(&message, key).map_err(|_| SigningError::NoId)?;
        if let Some(signature) = signed.get(&SIGNATURE) {
            if !list.is_empty() {
                list.push(b' ');
            }
            list.extend_from_slice(signature.as_bytes());
        }
    }
    if list.is_empty() {
        return Err(SigningError::NoKey);
    }
    let mut list = HeaderValue::from_bytes(&list).map_err(|_| SigningError::NoKey)?;
    list.set_sensitive(true);
    signed.insert(&SIGNATURE, list);
    headers.extend(signed);
    Ok(())
}

/// Why a call cannot be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SigningError {
    /// No signing token is active.
    NoKey,
    /// The delivery has no id that could be signed.
    NoId,
}

impl fmt::Display for SigningError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKey => "no signing token (whsec_...) for upstream is active",
            Self::NoId => "the delivery has no id to sign",
        })
    }
}

impl std::error::Error for SigningError {}

static SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// What is encoded in an id: all but what stands in a UUID, and the underscore.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{Method, Uri};

    use super::*;
    use crate::scheme::{Head, Refusal};

    const NOW: Timestamp = Timestamp::from_millis(1_777_000_000_000);
    const BODY: &[u8] = br#"{"repository":{"git_http_url":"https://h.example/a/b.git"}}"#;
    const OLD: &str = "whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=";
    const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    fn ring(text: &str) -> Keyring {
        Keyring::parse(text.as_bytes()).unwrap()
    }

    /// `old` until one hour from now, `new` from an hour ago.
    fn rotating() -> Keyring {
        let hour = std::time::Duration::from_secs(3600);
        let later = NOW.saturating_add(hour);
        let earlier = Timestamp::from_millis(NOW.as_millis() - 3_600_000);
        ring(&format!(
            "sdf34tGdfgGDG345g3y0045TYG23te37 name=plain\n\
             {OLD} name=old until={later}\n{NEW} name=new from={earlier}\n"
        ))
    }

    fn signed(keys: &Keyring, delivery: &str, now: Timestamp) -> HeaderMap {
        let mut headers = HeaderMap::new();
        sign(&mut headers, keys, delivery, BODY, now).unwrap();
        headers
    }

    fn verify(
        headers: &HeaderMap,
        body: &'static [u8],
        keys: &str,
        now: Timestamp,
    ) -> Result<String, Refusal> {
        let (method, uri) = (Method::POST, Uri::from_static("/"));
        let head = Head { method: &method, uri: &uri, headers };
        let body = Bytes::from_static(body);
        let verified = StandardWebhooks.verify(head, &body, &ring(keys), now)?;
        Ok(verified.key.name().to_owned())
    }

    fn seconds(offset: i64) -> Timestamp {
        Timestamp::from_millis(NOW.as_millis() + offset * 1000)
    }

    #[test]
    fn what_is_signed_holds_for_its_key_its_body_and_its_time_alone() {
        let headers = signed(&ring(&format!("{OLD} name=old\n")), "72d3162e-cc78", NOW);
        assert_eq!(headers["webhook-id"], "72d3162e-cc78");
        assert_eq!(headers["webhook-timestamp"], "1777000000");
        let old = format!("{OLD} name=theirs\n");
        assert_eq!(verify(&headers, BODY, &old, NOW), Ok("theirs".into()));
        assert_eq!(verify(&headers, BODY, &old, seconds(300)), Ok("theirs".into()));
        assert_eq!(verify(&headers, BODY, &old, seconds(301)), Err(Refusal::Expired));
        assert_eq!(verify(&headers, b"{}", &old, NOW), Err(Refusal::Mismatch));
        assert_eq!(verify(&headers, BODY, NEW, NOW), Err(Refusal::Mismatch));
        for (name, value) in [("webhook-id", "72d3162e-cc79"), ("webhook-timestamp", "1777000001")]
        {
            let mut forged = headers.clone();
            forged.insert(name, value.parse().unwrap());
            assert_eq!(verify(&forged, BODY, &old, NOW), Err(Refusal::Mismatch), "{name}");
        }
    }

    #[test]
    fn while_the_key_rotates_either_holds_and_the_primary_comes_first() {
        let list = |headers: &HeaderMap| headers["webhook-signature"].to_str().unwrap().to_owned();
        let both = signed(&rotating(), "1", NOW);
        let one = |key: &str| list(&signed(&ring(key), "1", NOW));
        assert_eq!(list(&both), format!("{} {}", one(OLD), one(NEW)));
        for key in [OLD, NEW] {
            assert!(verify(&both, BODY, key, NOW).is_ok());
        }
        let (before, after) = (seconds(-3601), seconds(3600));
        for (now, holds, refused) in [(before, OLD, NEW), (after, NEW, OLD)] {
            let headers = signed(&rotating(), "1", now);
            assert!(!list(&headers).contains(' '));
            assert!(verify(&headers, BODY, holds, now).is_ok());
            assert_eq!(verify(&headers, BODY, refused, now), Err(Refusal::Mismatch));
        }
    }

    #[test]
    fn an_id_is_made_safe_and_two_ids_stay_two() {
        let keys = ring(OLD);
        let mut seen = Vec::new();
        for (delivery, id) in [
            ("72d3162e-cc78-11e3-81ab-4c9367dc0958", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
            ("msg_1", "msg_1"),
            ("a.1777000000", "a%2E1777000000"),
            ("a%2E1777000000", "a%252E1777000000"),
            ("{9d3a}", "%7B9d3a%7D"),
            ("a b\r\n", "a%20b%0D%0A"),
            ("\u{fc}", "%C3%BC"),
        ] {
            let headers = signed(&keys, delivery, NOW);
            assert_eq!(headers["webhook-id"], id);
            assert!(verify(&headers, BODY, OLD, NOW).is_ok(), "{delivery}");
            seen.push(headers["webhook-id"].clone());
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 7);
    }

    #[test]
    fn what_the_host_signed_is_overwritten_and_the_rest_is_kept() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "application/json"),
            ("webhook-id", "theirs"),
            ("webhook-id", "twice"),
            ("webhook-timestamp", "1"),
            ("webhook-signature", "v1,AAAA"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        sign(&mut headers, &ring(OLD), "ours", BODY, NOW).unwrap();
        assert_eq!((headers.len(), &headers["webhook-id"]), (4, &"ours".parse().unwrap()));
        assert!(verify(&headers, BODY, OLD, NOW).is_ok());
        assert!(headers["webhook-signature"].is_sensitive());
    }

    #[test]
    fn without_a_token_or_an_id_nothing_is_signed_and_nothing_changed() {
        let plain = ring("sdf34tGdfgGDG345g3y0045TYG23te37\n");
        let expired = ring(&format!("{OLD} until={}\n", seconds(0)));
        let active = ring(OLD);
        for (keys, delivery, expected) in [
            (&plain, "1", SigningError::NoKey),
            (&expired, "1", SigningError::NoKey),
            (&active, "", SigningError::NoId),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("webhook-id", "theirs".parse().unwrap());
            let before = headers.clone();
            let error = sign(&mut headers, keys, delivery, BODY, NOW).unwrap_err();
            assert_eq!((error, headers), (expected, before));
        }
    }
}
