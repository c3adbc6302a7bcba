//! Gitea, Forgejo and Gogs.
//!
//! All three put HMAC-SHA256 as bare hex into a header of their own and into those of the hosts from
//! which they come; Gitea and Forgejo also into `X-Hub-Signature-256`. It is over *the JSON payload*:
//! the body if that is JSON, but the decoded `payload` of a form, and of the query of a GET
//! (Gitea `services/webhook/deliver.go`, Forgejo `services/webhook/shared/payloader.go`, Gogs
//! `internal/database/webhook.go`). Without a secret the headers are there and empty.
//!
//! Every such header that is there must hold: they are all the same MAC, so a differing one is a
//! forgery, and a good one never rescues a bad one.

use http::HeaderMap;
use http::header::HeaderName;

use super::github::hex_sha256;
use super::{Head, MacCheck, Message, Pending, Proof, Refusal, Scheme, SignError, header};
use crate::key::{Key, Keyring};
use crate::time::Timestamp;

/// HMAC-SHA256 over the JSON payload in `X-Gitea-Signature` and its like.
#[derive(Clone, Copy, Debug)]
pub struct Gitea(pub Family);

/// Which of the three hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Gitea.
    Gitea,
    /// Forgejo.
    Forgejo,
    /// Gogs.
    Gogs,
}

/// From the youngest host to the oldest: each also sends what those after it send.
static SIGNATURES: [HeaderName; 3] = [
    HeaderName::from_static("x-forgejo-signature"),
    HeaderName::from_static("x-gitea-signature"),
    HeaderName::from_static("x-gogs-signature"),
];
static HUB_SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature-256");

impl Family {
    fn headers(self) -> &'static [HeaderName] {
        match self {
            Self::Forgejo => &SIGNATURES,
            Self::Gitea => &SIGNATURES[1..],
            Self::Gogs => &SIGNATURES[2..],
        }
    }

    fn sends_hub_signature(self) -> bool {
        self != Self::Gogs
    }
}

impl Scheme for Gitea {
    fn begin(&self, head: Head<'_>, keys: &Keyring, now: Timestamp) -> Proof {
        let signature = match self.signature(head.headers) {
            Ok(Some(signature)) => signature,
            Ok(None) => return Proof::Absent,
            Err(refusal) => return Proof::Refused(refusal),
        };
        let candidates = keys.signing(now).map(|key| (key.clone(), key.hmac_sha256()));
        match MacCheck::new(candidates, [signature.into()]) {
            Ok(check) => Proof::Pending(Pending::payload(head, check)),
            Err(refusal) => Proof::Refused(refusal),
        }
    }

    fn sign(&self, message: &Message<'_>, key: &Key) -> Result<HeaderMap, SignError> {
        let mac = hex_sha256(message.payload, key)?;
        let mut headers = HeaderMap::new();
        for name in self.0.headers() {
            headers.insert(name, header::value(mac.as_bytes())?);
        }
        if self.0.sends_hub_signature() {
            headers.insert(&HUB_SIGNATURE, header::value(format!("sha256={mac}"))?);
        }
        Ok(headers)
    }
}

impl Gitea {
    /// The one MAC that all the headers carry.
    fn signature(self, headers: &HeaderMap) -> Result<Option<[u8; 32]>, Refusal> {
        let hub = self.0.sends_hub_signature().then_some((&HUB_SIGNATURE, "sha256="));
        let mut signature = None;
        for (name, prefix) in self.0.headers().iter().map(|name| (name, "")).chain(hub) {
            let Some(one) = header::hex_mac::<32>(headers, name, prefix)? else { continue };
            // Both came with the request, so this comparison has nothing to hide.
            if signature.is_some_and(|other| other != one) {
                return Err(Refusal::Mismatch);
            }
            signature = Some(one);
        }
        Ok(signature)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{Method, Uri};

    use super::super::testing::{FORM, JSON, NOW, headers, name, post, ring_of};
    use super::*;

    const ALL: [(Family, &str); 3] = [
        (Family::Forgejo, "x-forgejo-signature"),
        (Family::Gitea, "x-gitea-signature"),
        (Family::Gogs, "x-gogs-signature"),
    ];
    /// HMAC-SHA256 of `{"yo":true}` under `0123456789abcdef`, from google/go-github.
    const MAC: &str = "b1f8020f5b4cd42042f807dd939015c4a418bc1ff7f604dd55b0a19b5d953d9b";
    const BODY: &[u8] = br#"{"yo":true}"#;
    const RAW_FORM: &[u8] = b"payload=%7B%22yo%22%3Atrue%7D";

    fn keys() -> Keyring {
        ring_of("0123456789abcdef name=g\n")
    }

    #[test]
    fn the_json_is_what_is_signed_also_inside_a_form() {
        for (family, header) in ALL {
            let scheme = Gitea(family);
            let verify = |signature: &str, media, body| {
                post(&scheme, &[(header, signature), media], body, &keys())
            };
            for (media, body) in [(JSON, BODY), (FORM, RAW_FORM)] {
                let verified = verify(MAC, media, body).unwrap();
                assert_eq!(verified.payload.unwrap(), BODY);
                assert!(verified.covers_body);
            }
            assert_eq!(name(verify(MAC, JSON, br#"{"yo": true}"#)), Err(Refusal::Mismatch));
            assert_eq!(
                name(verify(MAC, FORM, b"payload=%7B%22yo%22%3Afalse%7D")),
                Err(Refusal::Mismatch)
            );
            assert_eq!(
                name(verify(MAC, FORM, b"payload=%7B%22yo%22%3Atrue%7D&payload=1")),
                Err(Refusal::Malformed)
            );
            assert_eq!(name(verify(MAC, FORM, b"")), Err(Refusal::Malformed));
            // GitHub's rule: the raw form.
            let raw = "30f622d549ca623f1c553f7e395a80c9487b43b9feaf9af4a1811381ddf5a94d";
            assert_eq!(name(verify(raw, FORM, RAW_FORM)), Err(Refusal::Mismatch));
            assert_eq!(name(verify("", JSON, BODY)), Err(Refusal::Missing));
            assert_eq!(name(verify(&format!("sha256={MAC}"), JSON, BODY)), Err(Refusal::Malformed));
        }
    }

    #[test]
    fn the_payload_of_a_get_is_in_its_query() {
        let verify = |query: &str| {
            let (method, uri): (_, Uri) =
                (Method::GET, format!("/webhook?{query}").parse().unwrap());
            let headers = headers(&[("x-gitea-signature", MAC)]);
            let head = Head { method: &method, uri: &uri, headers: &headers };
            Gitea(Family::Gitea).verify(head, &Bytes::new(), &keys(), NOW)
        };
        assert_eq!(verify("payload=%7B%22yo%22%3Atrue%7D").unwrap().payload.unwrap(), BODY);
        assert_eq!(name(verify("payload=%7B%22yo%22%3Afalse%7D")), Err(Refusal::Mismatch));
        assert_eq!(
            name(verify("payload=%7B%22yo%22%3Atrue%7D&payload=%7B%7D")),
            Err(Refusal::Malformed)
        );
        assert_eq!(name(verify("secret=0123456789abcdef")), Err(Refusal::Malformed));
    }

    #[test]
    fn one_good_header_does_not_rescue_a_bad_one() {
        let bad = MAC.replace("b1f8", "b1f9");
        let hub = format!("sha256={MAC}");
        let verify = |pairs: &[(&'static str, &str)]| {
            let pairs: Vec<_> = pairs.iter().copied().chain([JSON]).collect();
            name(post(&Gitea(Family::Forgejo), &pairs, BODY, &keys()))
        };
        let (forgejo, gitea, gogs) =
            ("x-forgejo-signature", "x-gitea-signature", "x-gogs-signature");
        let all = [(forgejo, MAC), (gitea, MAC), (gogs, MAC), ("x-hub-signature-256", &hub)];
        assert_eq!(verify(&all), Ok("g".into()));
        for at in 0..all.len() {
            let mut one_bad = all;
            let value = all[at].1.replace("b1f8", "b1f9");
            one_bad[at].1 = &value;
            assert_eq!(verify(&one_bad), Err(Refusal::Mismatch), "{at}");
        }
        assert_eq!(verify(&[(gitea, MAC)]), Ok("g".into()));
        assert_eq!(verify(&[(forgejo, &bad), (gitea, &bad)]), Err(Refusal::Mismatch));
        assert_eq!(verify(&[(forgejo, ""), (gitea, "")]), Err(Refusal::Missing));
        assert_eq!(verify(&[(gitea, MAC), (gitea, MAC)]), Err(Refusal::Repeated));
    }

    #[test]
    fn what_is_signed_holds_for_its_family() {
        for (family, header) in ALL {
            let message = Message { body: RAW_FORM, payload: BODY, id: "1", now: NOW };
            let key = keys().keys().next().unwrap().clone();
            let signed = Gitea(family).sign(&message, &key).unwrap();
            assert_eq!(signed[header], MAC);
            assert_eq!(signed.contains_key("x-hub-signature-256"), family != Family::Gogs);
        }
    }
}
