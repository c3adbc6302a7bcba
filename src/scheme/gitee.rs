//! Gitee, in either of its two modes.
//!
//! In password mode `X-Gitee-Token` is the password. In sign mode it is
//! `base64(HMAC-SHA256(secret, timestamp LF secret))` with the time in `X-Gitee-Timestamp`, in
//! milliseconds and at most one hour away ([how to verify]); the documentation says to URL-encode it
//! and real deliveries do not, so both are taken. That signature does not cover the body: whoever
//! sees one delivery can forge any body for an hour. It counts as a token.
//!
//! Both modes send a timestamp, so the mode is configured and not guessed.
//!
//! [how to verify]: https://help.gitee.com/webhook/how-to-verify-webhook-keys

use std::borrow::Cow;
use std::time::Duration;

use data_encoding::BASE64;
use hmac::Mac;
use hmac::digest::CtOutput;
use http::HeaderMap;
use http::header::HeaderName;
use percent_encoding::percent_decode;

use super::gitlab::{sign_token, token};
use super::standard_webhooks::parse_integer;
use super::{Head, Message, Proof, Refusal, Scheme, SignError, header};
use crate::key::{Key, KeyKind, Keyring, Use};
use crate::time::Timestamp;

/// A token, plain or as an HMAC of the time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gitee {
    mode: GiteeMode,
}

/// How a Gitee hook uses its secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GiteeMode {
    /// The secret signs the time.
    #[default]
    Sign,
    /// The secret is sent as a password.
    Password,
}

static TOKEN: HeaderName = HeaderName::from_static("x-gitee-token");
static TIMESTAMP: HeaderName = HeaderName::from_static("x-gitee-timestamp");
const TOLERANCE: Duration = Duration::from_secs(3600);

impl Gitee {
    /// The scheme in this mode.
    pub const fn new(mode: GiteeMode) -> Self {
        Self { mode }
    }
}

impl Scheme for Gitee {
    fn begin(&self, head: Head<'_>, keys: &Keyring, now: Timestamp) -> Proof {
        if self.mode == GiteeMode::Password {
            return token(head.headers, &TOKEN, keys, now);
        }
        match signed_time(head.headers, keys, now) {
            Ok(Some(proof)) => proof,
            Ok(None) => Proof::Absent,
            Err(refusal) => Proof::Refused(refusal),
        }
    }

    fn sign(&self, message: &Message<'_>, key: &Key) -> Result<HeaderMap, SignError> {
        if self.mode == GiteeMode::Password {
            return sign_token(&TOKEN, key);
        }
        if key.kind() == KeyKind::SigningToken {
            return Err(SignError::UnfitKey);
        }
        let timestamp = message.now.as_millis().to_string();
        let mac = mac(key, timestamp.as_bytes()).finalize().into_bytes();
        Ok([
            (TOKEN.clone(), header::value(BASE64.encode(&mac))?),
            (TIMESTAMP.clone(), header::value(timestamp)?),
        ]
        .into_iter()
        .collect())
    }
}

fn signed_time(
    headers: &HeaderMap,
    keys: &Keyring,
    now: Timestamp,
) -> Result<Option<Proof>, Refusal> {
    let Some(token) = header::single(headers, &TOKEN)? else { return Ok(None) };
    let timestamp = header::single(headers, &TIMESTAMP)?.ok_or(Refusal::Malformed)?;
    let signed = parse_integer(timestamp).map(Timestamp::from_millis).ok_or(Refusal::Malformed)?;
    // The longest form of 44 characters has all of them percent-encoded.
    if token.len() > 3 * 44 {
        return Err(Refusal::Malformed);
    }
    let token: Cow<'_, [u8]> = percent_decode(token).into();
    let signature = CtOutput::new(header::decode::<32>(&token, &BASE64)?.into());
    if !signed.is_within(TOLERANCE, now) {
        return Err(Refusal::Expired);
    }
    let mut held = Err(Refusal::Mismatch);
    for key in keys.active(Use::Token, now) {
        if mac(key, timestamp).finalize() == signature {
            held = Ok(Some(Proof::Held(key.clone())));
        }
    }
    held
}

fn mac(key: &Key, timestamp: &[u8]) -> hmac::Hmac<sha2::Sha256> {
    let mut mac = key.hmac_sha256();
    for part in [timestamp, b"\n", key.secret().expose()] {
        mac.update(part);
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::super::testing::{JSON, headers, name, ring_of};
    use super::*;

    /// A recorded pair, from the tests of drone/go-scm.
    const KEYS: &str = "bBg5lrt03VixkX85CNqYIcecC0SIGASE name=gitee\n";
    const TIME: (&str, &str) = ("x-gitee-timestamp", "1633679083918");
    const TOKEN: (&str, &str) = ("x-gitee-token", "Xvh4YPVe6l31XpDRL9J2yeaEXabsckIoUUschpXiVck=");

    fn verify(
        mode: GiteeMode,
        pairs: &[(&'static str, &str)],
        offset: i64,
    ) -> Result<String, Refusal> {
        let (method, uri) = (http::Method::POST, http::Uri::from_static("/"));
        let headers = headers(&pairs.iter().copied().chain([JSON]).collect::<Vec<_>>());
        let head = Head { method: &method, uri: &uri, headers: &headers };
        let now = Timestamp::from_millis(1_633_679_083_918 + offset);
        name(Gitee::new(mode).verify(head, &bytes::Bytes::from_static(b"{}"), &ring_of(KEYS), now))
    }

    #[test]
    fn the_recorded_signature_holds_plain_and_url_encoded() {
        let encoded = ("x-gitee-token", "Xvh4YPVe6l31XpDRL9J2yeaEXabsckIoUUschpXiVck%3D");
        for token in [TOKEN, encoded] {
            assert_eq!(verify(GiteeMode::Sign, &[token, TIME], 0), Ok("gitee".into()));
        }
    }

    #[test]
    fn another_time_or_token_does_not_hold() {
        let verify = |pairs: &[_]| verify(GiteeMode::Sign, pairs, 0);
        assert_eq!(
            verify(&[TOKEN, ("x-gitee-timestamp", "1633679083919")]),
            Err(Refusal::Mismatch)
        );
        let other = ("x-gitee-token", "Xvh4YPVe6l31XpDRL9J2yeaEXabsckIoUUschpXiVcg=");
        assert_eq!(verify(&[other, TIME]), Err(Refusal::Mismatch));
        assert_eq!(verify(&[TOKEN]), Err(Refusal::Malformed));
        assert_eq!(verify(&[TIME]), Err(Refusal::Missing));
        let long = "%41".repeat(2000);
        for (token, refusal) in [
            ("", Refusal::Missing),
            ("x", Refusal::Malformed),
            ("bBg5lrt03VixkX85CNqYIcecC0SIGASE", Refusal::Malformed),
            (&long, Refusal::Malformed),
        ] {
            assert_eq!(verify(&[("x-gitee-token", token), TIME]), Err(refusal));
        }
        for time in ["", "-1", "1633679083918 ", "99999999999999999999"] {
            assert_eq!(verify(&[TOKEN, ("x-gitee-timestamp", time)]), Err(Refusal::Malformed));
        }
        assert_eq!(verify(&[TOKEN, TOKEN, TIME]), Err(Refusal::Repeated));
    }

    #[test]
    fn the_tolerance_is_one_hour_each_way() {
        for near in [-3_600_000, 3_600_000] {
            assert_eq!(verify(GiteeMode::Sign, &[TOKEN, TIME], near), Ok("gitee".into()));
        }
        for far in [-3_600_001, 3_600_001] {
            assert_eq!(verify(GiteeMode::Sign, &[TOKEN, TIME], far), Err(Refusal::Expired));
        }
    }

    #[test]
    fn the_mode_is_not_guessed() {
        let password = ("x-gitee-token", "bBg5lrt03VixkX85CNqYIcecC0SIGASE");
        assert_eq!(verify(GiteeMode::Password, &[password, TIME], 0), Ok("gitee".into()));
        assert_eq!(verify(GiteeMode::Password, &[TOKEN, TIME], 0), Err(Refusal::Mismatch));
        assert_eq!(verify(GiteeMode::Sign, &[password, TIME], 0), Err(Refusal::Malformed));
    }

    #[test]
    fn what_is_signed_is_the_recorded_signature() {
        let keys = ring_of(KEYS);
        let now = Timestamp::from_millis(1_633_679_083_918);
        let message = Message { body: b"", payload: b"", id: "", now };
        let signed = Gitee::default().sign(&message, keys.keys().next().unwrap()).unwrap();
        assert_eq!(
            (&signed[TOKEN.0], &signed[TIME.0]),
            (&TOKEN.1.parse().unwrap(), &TIME.1.parse().unwrap())
        );
    }
}
