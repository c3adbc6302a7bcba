//! GitLab: a signing token (19.0 and later) or the classic secret token.
//!
//! The signing token is Standard Webhooks; the classic one comes verbatim in `X-Gitlab-Token`
//! ([webhooks]). Both may be set on one hook while it moves from one to the other. A
//! `webhook-signature` that is there decides, and the plain token beside it is not looked at: else
//! whoever saw a token once could forge what is signed.
//!
//! [webhooks]: https://docs.gitlab.com/user/project/integrations/webhooks/

use http::HeaderMap;
use http::header::HeaderName;

use super::{Head, Message, Proof, Refusal, Scheme, SignError, StandardWebhooks, header};
use crate::key::{Key, KeyKind, Keyring};
use crate::time::Timestamp;

/// `webhook-signature` if it is there, else `X-Gitlab-Token`.
#[derive(Clone, Copy, Debug)]
pub struct Gitlab;

static TOKEN: HeaderName = HeaderName::from_static("x-gitlab-token");

impl Scheme for Gitlab {
    fn begin(&self, head: Head<'_>, keys: &Keyring, now: Timestamp) -> Proof {
        match StandardWebhooks.begin(head, keys, now) {
            Proof::Absent => token(head.headers, &TOKEN, keys, now),
            signature => signature,
        }
    }

    fn sign(&self, message: &Message<'_>, key: &Key) -> Result<HeaderMap, SignError> {
        if key.kind() == KeyKind::SigningToken {
            return StandardWebhooks.sign(message, key);
        }
        sign_token(&TOKEN, key)
    }
}

/// A key that stands in a header as it is.
pub(super) fn token(
    headers: &HeaderMap,
    name: &HeaderName,
    keys: &Keyring,
    now: Timestamp,
) -> Proof {
    match header::single(headers, name) {
        Ok(Some(presented)) => match keys.find_token(presented, now) {
            Some(key) => Proof::Held(key.clone()),
            None => Proof::Refused(Refusal::Mismatch),
        },
        Ok(None) => Proof::Absent,
        Err(refusal) => Proof::Refused(refusal),
    }
}

pub(super) fn sign_token(name: &HeaderName, key: &Key) -> Result<HeaderMap, SignError> {
    if key.kind() == KeyKind::SigningToken {
        return Err(SignError::UnfitKey);
    }
    Ok([(name.clone(), header::value(key.secret().expose())?)].into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{JSON, NOW, name, post, ring_of};
    use super::*;

    const KEYS: &str = "whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q= name=signing\n\
                        sdf34tGdfgGDG345g3y0045TYG23te37 name=token\n";
    const TOKEN: (&str, &str) = ("x-gitlab-token", "sdf34tGdfgGDG345g3y0045TYG23te37");
    const SIGNED: [(&str, &str); 3] = [
        ("webhook-id", "f5e5f430-f57b-4e6e-9fac-d9128cd7232f"),
        ("webhook-timestamp", "1777000000"),
        ("webhook-signature", "v1,j2SLkjzfB4Vz+wCIGJLOeF5O+lu52S420Uzk/xN97fM="),
    ];
    const BODY: &[u8] = br#"{"object_kind":"push"}"#;

    fn verify(pairs: &[(&'static str, &str)]) -> Result<String, Refusal> {
        let pairs: Vec<_> = pairs.iter().copied().chain([JSON]).collect();
        name(post(&Gitlab, &pairs, BODY, &ring_of(KEYS)))
    }

    #[test]
    fn a_token_is_compared_whole() {
        assert_eq!(verify(&[TOKEN]), Ok("token".into()));
        for wrong in [
            "sdf34tGdfgGDG345g3y0045TYG23te3",
            "sdf34tGdfgGDG345g3y0045TYG23te377",
            "SDF34tGdfgGDG345g3y0045TYG23te37",
            "x",
            "whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=",
            "testtesttesttesttesttesttesttest",
        ] {
            assert_eq!(verify(&[("x-gitlab-token", wrong)]), Err(Refusal::Mismatch), "{wrong}");
        }
        assert_eq!(verify(&[("x-gitlab-token", "")]), Err(Refusal::Missing));
        assert_eq!(verify(&[]), Err(Refusal::Missing));
        assert_eq!(verify(&[TOKEN, TOKEN]), Err(Refusal::Repeated));
    }

    #[test]
    fn a_token_says_nothing_of_the_body() {
        let verified = post(&Gitlab, &[TOKEN, JSON], BODY, &ring_of(KEYS)).unwrap();
        assert!(!verified.covers_body);
        let [id, time, signature] = SIGNED;
        let verified = post(&Gitlab, &[id, time, signature, JSON], BODY, &ring_of(KEYS)).unwrap();
        assert!(verified.covers_body);
    }

    #[test]
    fn a_signature_that_is_there_decides() {
        let [id, time, signature] = SIGNED;
        assert_eq!(verify(&SIGNED), Ok("signing".into()));
        assert_eq!(verify(&[id, time, signature, TOKEN]), Ok("signing".into()));
        assert_eq!(verify(&[id, time, signature, ("x-gitlab-token", "x")]), Ok("signing".into()));
        let bad = ("webhook-signature", "v1,J2SLkjzfB4Vz+wCIGJLOeF5O+lu52S420Uzk/xN97fM=");
        assert_eq!(verify(&[id, time, bad, TOKEN]), Err(Refusal::Mismatch));
        assert_eq!(
            verify(&[id, time, ("webhook-signature", "yo"), TOKEN]),
            Err(Refusal::Malformed)
        );
        assert_eq!(
            verify(&[id, ("webhook-timestamp", "1"), signature, TOKEN]),
            Err(Refusal::Expired)
        );
        assert_eq!(verify(&[id, time, ("webhook-signature", ""), TOKEN]), Ok("token".into()));
    }

    #[test]
    fn what_is_signed_holds() {
        let keys = ring_of(KEYS);
        for key in keys.keys() {
            let message = Message { body: BODY, payload: BODY, id: "1", now: NOW };
            let signed = Gitlab.sign(&message, key).unwrap();
            let pairs: Vec<_> = [TOKEN.0, SIGNED[0].0, SIGNED[1].0, SIGNED[2].0]
                .into_iter()
                .filter_map(|name| Some((name, signed.get(name)?.to_str().unwrap())))
                .collect();
            assert_eq!(verify(&pairs).as_deref(), Ok(key.name()));
        }
    }
}
