//! Standard Webhooks, which GitLab's signing tokens follow as well.
//!
//! `webhook-signature` is a list, divided by spaces, of `v1,<base64>`: HMAC-SHA256 over
//! `{webhook-id}.{webhook-timestamp}.{raw body}` under the bytes behind `whsec_`
//! ([specification], section *Signature scheme*). One good entry is enough, so that a sender can
//! rotate its key; entries of other versions are passed over.
//!
//! The timestamp, in seconds, must lie within five minutes of now. The id must hold no `.`, as the
//! specification says: with one, the same bytes could be cut into another id, time and body.
//!
//! [specification]: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

use std::time::Duration;

use data_encoding::BASE64;
use hmac::Mac;
use http::HeaderMap;
use http::header::HeaderName;

use super::{Head, MacCheck, Message, Pending, Proof, Refusal, Scheme, SignError, header};
use crate::key::{Key, KeyKind, Keyring};
use crate::time::Timestamp;

/// How far the signed time may lie from now, in either direction: 5 minutes.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// HMAC-SHA256 over id, time and raw body in `webhook-signature`.
#[derive(Clone, Copy, Debug)]
pub struct StandardWebhooks;

static ID: HeaderName = HeaderName::from_static("webhook-id");
static TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
static SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// More entries than any rotation needs.
const MAX_SIGNATURES: usize = 8;

impl Scheme for StandardWebhooks {
    fn begin(&self, head: Head<'_>, keys: &Keyring, now: Timestamp) -> Proof {
        match begin(head, keys, now) {
            Ok(Some(pending)) => Proof::Pending(pending),
            Ok(None) => Proof::Absent,
            Err(refusal) => Proof::Refused(refusal),
        }
    }

    fn sign(&self, message: &Message<'_>, key: &Key) -> Result<HeaderMap, SignError> {
        if key.kind() != KeyKind::SigningToken {
            return Err(SignError::UnfitKey);
        }
        if !is_id(message.id.as_bytes()) {
            return Err(SignError::UnfitValue);
        }
        let timestamp = message.now.as_seconds().to_string();
        let mut mac = key.hmac_sha256();
        prefix(&mut mac, message.id.as_bytes(), timestamp.as_bytes());
        mac.update(message.body);
        let signature = format!("v1,{}", BASE64.encode(&mac.finalize().into_bytes()));
        Ok([
            (ID.clone(), header::value(message.id.as_bytes())?),
            (TIMESTAMP.clone(), header::value(timestamp)?),
            (SIGNATURE.clone(), header::value(signature)?),
        ]
        .into_iter()
        .collect())
    }
}

fn begin(head: Head<'_>, keys: &Keyring, now: Timestamp) -> Result<Option<Pending>, Refusal> {
    let Some(list) = header::single(head.headers, &SIGNATURE)? else { return Ok(None) };
    let id = header::single(head.headers, &ID)?.filter(|id| is_id(id)).ok_or(Refusal::Malformed)?;
    let timestamp = header::single(head.headers, &TIMESTAMP)?.ok_or(Refusal::Malformed)?;
    if !parse_seconds(timestamp).ok_or(Refusal::Malformed)?.is_within(TOLERANCE, now) {
        return Err(Refusal::Expired);
    }
    let signatures: Vec<_> = list
        .split(|&byte| byte == b' ')
        .filter_map(|entry| header::decode::<32>(entry.strip_prefix(b"v1,")?, &BASE64).ok())
        .map(Into::into)
        .take(MAX_SIGNATURES)
        .collect();
    if signatures.is_empty() {
        return Err(Refusal::Malformed);
    }
    let candidates = keys.signing_tokens(now).map(|key| {
        let mut mac = key.hmac_sha256();
        prefix(&mut mac, id, timestamp);
        (key.clone(), mac)
    });
    MacCheck::new(candidates, signatures).map(|check| Some(Pending::body(check)))
}

fn prefix(mac: &mut impl Mac, id: &[u8], timestamp: &[u8]) {
    for part in [id, b".", timestamp, b"."] {
        mac.update(part);
    }
}

fn is_id(id: &[u8]) -> bool {
    !id.is_empty() && !id.contains(&b'.')
}

/// Digits alone: no sign, no white space, and nothing that overflows.
pub(super) fn parse_seconds(text: &[u8]) -> Option<Timestamp> {
    parse_integer(text).and_then(Timestamp::from_seconds)
}

pub(super) fn parse_integer(text: &[u8]) -> Option<i64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{Method, Uri};

    use super::super::Verified;
    use super::super::testing::{headers, name, ring_of};
    use super::*;

    /// The secret and the signature that the reference libraries test with.
    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD name=libs\n";
    const LIBS_ID: &str = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
    const LIBS_TIME: &str = "1649367553";
    const LIBS_SIGNATURE: &str = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";
    const LIBS_BODY: &[u8] = br#"{"email":"test@example.com","username":"test_user"}"#;

    fn verify(
        id: &str,
        timestamp: &str,
        signature: &str,
        body: &'static [u8],
        now: i64,
    ) -> Result<Verified, Refusal> {
        let headers = headers(&[
            ("webhook-id", id),
            ("webhook-timestamp", timestamp),
            ("webhook-signature", signature),
        ]);
        verify_headers(&headers, body, now)
    }

    fn verify_headers(
        headers: &HeaderMap,
        body: &'static [u8],
        now: i64,
    ) -> Result<Verified, Refusal> {
        let (method, uri) = (Method::POST, Uri::from_static("/"));
        let head = Head { method: &method, uri: &uri, headers };
        let now = Timestamp::from_seconds(now).unwrap();
        StandardWebhooks.verify(head, &Bytes::from_static(body), &ring_of(SECRET), now)
    }

    fn verify_at(offset: i64) -> Result<String, Refusal> {
        name(verify(LIBS_ID, LIBS_TIME, LIBS_SIGNATURE, LIBS_BODY, 1_649_367_553 + offset))
    }

    #[test]
    fn the_vector_of_the_reference_libraries_holds() {
        let verified =
            verify(LIBS_ID, LIBS_TIME, LIBS_SIGNATURE, LIBS_BODY, 1_649_367_553).unwrap();
        assert_eq!((verified.key.name(), verified.covers_body), ("libs", true));
        assert_eq!(verified.payload.unwrap(), LIBS_BODY);
    }

    #[test]
    fn the_vector_for_gitlab_s_published_token_holds() {
        let keys = ring_of("whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q= name=gitlab\n");
        let (method, uri) = (Method::POST, Uri::from_static("/"));
        let headers = headers(&[
            ("webhook-id", "f5e5f430-f57b-4e6e-9fac-d9128cd7232f"),
            ("webhook-timestamp", "1777000000"),
            ("webhook-signature", "v1,j2SLkjzfB4Vz+wCIGJLOeF5O+lu52S420Uzk/xN97fM="),
        ]);
        let head = Head { method: &method, uri: &uri, headers: &headers };
        let verify = |body| {
            let now = Timestamp::from_seconds(1_777_000_000).unwrap();
            name(StandardWebhooks.verify(head, &Bytes::from_static(body), &keys, now))
        };
        assert_eq!(verify(br#"{"object_kind":"push"}"#), Ok("gitlab".into()));
        assert_eq!(verify(br#"{"object_kind":"pusH"}"#), Err(Refusal::Mismatch));
    }

    #[test]
    fn another_id_time_body_or_signature_does_not_hold() {
        let now = 1_649_367_553;
        let refused =
            |id, time, signature, body| name(verify(id, time, signature, body, now)).unwrap_err();
        assert_eq!(refused("msg_x", LIBS_TIME, LIBS_SIGNATURE, LIBS_BODY), Refusal::Mismatch);
        assert_eq!(refused(LIBS_ID, "1649367554", LIBS_SIGNATURE, LIBS_BODY), Refusal::Mismatch);
        assert_eq!(refused(LIBS_ID, LIBS_TIME, LIBS_SIGNATURE, b"{}"), Refusal::Mismatch);
        let other = LIBS_SIGNATURE.replace("tZ1I4", "tZ1I5");
        assert_eq!(refused(LIBS_ID, LIBS_TIME, &other, LIBS_BODY), Refusal::Mismatch);
    }

    #[test]
    fn the_tolerance_is_five_minutes_each_way() {
        for near in [-300, 0, 300] {
            assert_eq!(verify_at(near), Ok("libs".into()), "{near}");
        }
        for far in [-301, 301, 1_000_000_000] {
            assert_eq!(verify_at(far), Err(Refusal::Expired), "{far}");
        }
    }

    #[test]
    fn times_that_are_none_or_overflow_are_refused() {
        for time in [
            "",
            "-9223372036854775808",
            "9223372036854775808",
            "18446744073709551613",
            "1649367553.0",
            "+1649367553",
            "0x62",
            "99999999999999999999999",
        ] {
            let refused = verify(LIBS_ID, time, LIBS_SIGNATURE, LIBS_BODY, 1_649_367_553);
            assert_eq!(name(refused), Err(Refusal::Malformed), "{time}");
        }
        for time in ["9223372036854775", "0"] {
            let refused = verify(LIBS_ID, time, LIBS_SIGNATURE, LIBS_BODY, 1_649_367_553);
            assert_eq!(name(refused), Err(Refusal::Expired), "{time}");
        }
    }

    #[test]
    fn one_good_signature_of_a_list_is_enough_and_parts_of_one_are_none() {
        let now = 1_649_367_553;
        let wrong = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        for list in [
            format!("{wrong} {LIBS_SIGNATURE}"),
            format!("{LIBS_SIGNATURE} {wrong}"),
            format!(
                "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg== {LIBS_SIGNATURE}"
            ),
            format!("v1,yo v2,{} {LIBS_SIGNATURE}", &LIBS_SIGNATURE[3..]),
        ] {
            assert!(verify(LIBS_ID, LIBS_TIME, &list, LIBS_BODY, now).is_ok(), "{list}");
        }
        for list in [
            "v1,",
            "v1",
            "v1,tZ1I4",
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw",
            &LIBS_SIGNATURE[3..],
            &LIBS_SIGNATURE.replace("v1", "v2"),
            &LIBS_SIGNATURE.replace("v1", "V1"),
            &LIBS_SIGNATURE.replace(',', ", "),
        ] {
            let refused = verify(LIBS_ID, LIBS_TIME, list, LIBS_BODY, now);
            assert_eq!(name(refused), Err(Refusal::Malformed), "{list}");
        }
        assert_eq!(name(verify(LIBS_ID, LIBS_TIME, wrong, LIBS_BODY, now)), Err(Refusal::Mismatch));
    }

    #[test]
    fn an_id_with_a_dot_and_missing_or_repeated_headers_are_refused() {
        let now = 1_649_367_553;
        assert_eq!(
            name(verify("msg.1649367553", LIBS_TIME, LIBS_SIGNATURE, LIBS_BODY, now)),
            Err(Refusal::Malformed)
        );
        let full = [
            ("webhook-id", LIBS_ID),
            ("webhook-timestamp", LIBS_TIME),
            ("webhook-signature", LIBS_SIGNATURE),
        ];
        for at in 0..2 {
            let mut pairs = full.to_vec();
            pairs.remove(at);
            assert_eq!(
                name(verify_headers(&headers(&pairs), LIBS_BODY, now)),
                Err(Refusal::Malformed)
            );
        }
        assert_eq!(
            name(verify_headers(&headers(&full[..2]), LIBS_BODY, now)),
            Err(Refusal::Missing)
        );
        for pair in full {
            let pairs: Vec<_> = full.into_iter().chain([pair]).collect();
            assert_eq!(
                name(verify_headers(&headers(&pairs), LIBS_BODY, now)),
                Err(Refusal::Repeated)
            );
        }
    }

    #[test]
    fn a_plain_key_neither_verifies_nor_signs() {
        let keys = ring_of("sdf34tGdfgGDG345g3y0045TYG23te37\n");
        let key = keys.keys().next().unwrap();
        let now = Timestamp::from_seconds(1_649_367_553).unwrap();
        let message = Message { body: b"{}", payload: b"{}", id: "a", now };
        assert_eq!(StandardWebhooks.sign(&message, key).unwrap_err(), SignError::UnfitKey);
        let (method, uri) = (Method::POST, Uri::from_static("/"));
        let headers = headers(&[
            ("webhook-id", LIBS_ID),
            ("webhook-timestamp", LIBS_TIME),
            ("webhook-signature", LIBS_SIGNATURE),
        ]);
        let head = Head { method: &method, uri: &uri, headers: &headers };
        let verified = StandardWebhooks.verify(head, &Bytes::from_static(LIBS_BODY), &keys, now);
        assert_eq!(name(verified), Err(Refusal::NoKey));
    }

    #[test]
    fn what_is_signed_is_the_libraries_signature() {
        let keys = ring_of(SECRET);
        let now = Timestamp::from_seconds(1_649_367_553).unwrap();
        let message = Message { body: LIBS_BODY, payload: LIBS_BODY, id: LIBS_ID, now };
        let signed = StandardWebhooks.sign(&message, keys.keys().next().unwrap()).unwrap();
        assert_eq!(signed["webhook-signature"], LIBS_SIGNATURE);
        assert!(signed["webhook-signature"].is_sensitive());
        let dotted = Message { id: "a.b", ..message };
        let error = StandardWebhooks.sign(&dotted, keys.keys().next().unwrap()).unwrap_err();
        assert_eq!(error, SignError::UnfitValue);
    }
}
