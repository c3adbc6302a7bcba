//! GitHub, GitHub Enterprise Server and GitBucket.
//!
//! `X-Hub-Signature-256: sha256=<hex>` is HMAC-SHA256 over the raw HTTP body, also where that is a
//! form: [validating webhook deliveries]. The SHA-1 in `X-Hub-Signature` is not looked at.
//!
//! [validating webhook deliveries]: https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries

use data_encoding::HEXLOWER;
use hmac::Mac;
use http::HeaderMap;
use http::header::HeaderName;

use super::{Head, MacCheck, Message, Pending, Proof, Scheme, SignError, header};
use crate::key::{Key, KeyKind, Keyring};
use crate::time::Timestamp;

/// HMAC-SHA256 over the raw body in `X-Hub-Signature-256`.
#[derive(Clone, Copy, Debug)]
pub struct Github;

static SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature-256");
const PREFIX: &str = "sha256=";

impl Scheme for Github {
    fn begin(&self, head: Head<'_>, keys: &Keyring, now: Timestamp) -> Proof {
        body_signature(head, &SIGNATURE, keys, now)
    }

    fn sign(&self, message: &Message<'_>, key: &Key) -> Result<HeaderMap, SignError> {
        sign_body(&SIGNATURE, message.body, key)
    }
}

/// `sha256=<hex>` over the raw body, in a header of any name: Bitbucket's rule as well.
pub(super) fn body_signature(
    head: Head<'_>,
    name: &HeaderName,
    keys: &Keyring,
    now: Timestamp,
) -> Proof {
    let signature = match header::hex_mac::<32>(head.headers, name, PREFIX) {
        Ok(Some(signature)) => signature,
        Ok(None) => return Proof::Absent,
        Err(refusal) => return Proof::Refused(refusal),
    };
    let candidates = keys.signing(now).map(|key| (key.clone(), key.hmac_sha256()));
    match MacCheck::new(candidates, [signature.into()]) {
        Ok(check) => Proof::Pending(Pending::body(check)),
        Err(refusal) => Proof::Refused(refusal),
    }
}

pub(super) fn sign_body(name: &HeaderName, body: &[u8], key: &Key) -> Result<HeaderMap, SignError> {
    let mac = hex_sha256(body, key)?;
    Ok([(name.clone(), header::value(format!("{PREFIX}{mac}"))?)].into_iter().collect())
}

pub(super) fn hex_sha256(bytes: &[u8], key: &Key) -> Result<String, SignError> {
    if key.kind() == KeyKind::SigningToken {
        return Err(SignError::UnfitKey);
    }
    let mut mac = key.hmac_sha256();
    mac.update(bytes);
    Ok(HEXLOWER.encode(&mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{Method, Uri};

    use super::super::testing::{FORM, JSON, NOW, headers, name, post, ring, ring_of};
    use super::super::{PayloadError, Refusal};
    use super::*;

    const SHA256: &str = "x-hub-signature-256";
    /// The example of GitHub's documentation.
    const DOCUMENTED: &str =
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    #[test]
    fn the_documented_example_holds_and_its_neighbours_do_not() {
        let verify =
            |signature: &str, body| post(&Github, &[(SHA256, signature), JSON], body, &ring());
        assert_eq!(name(verify(DOCUMENTED, b"Hello, World!")), Ok("everybody".into()));
        assert_eq!(
            name(verify(&DOCUMENTED.replace("757107ea", "757107EA"), b"Hello, World!")),
            Ok("everybody".into())
        );
        for body in [&b"Hello World!"[..], b"Hello, World!\n", b"hello, World!", b""] {
            assert_eq!(name(verify(DOCUMENTED, body)), Err(Refusal::Mismatch));
        }
        assert_eq!(
            name(verify(&DOCUMENTED.replace("757107ea", "757107eb"), b"Hello, World!")),
            Err(Refusal::Mismatch)
        );
        assert_eq!(name(verify("sha256=", b"Hello, World!")), Err(Refusal::Missing));
        assert_eq!(name(verify("sha256=00", b"Hello, World!")), Err(Refusal::Malformed));
    }

    /// Vectors of google/go-github, `github/messages_test.go`.
    #[test]
    fn a_form_is_verified_as_it_came_and_unwrapped_afterwards() {
        let keys = ring_of("0123456789abcdef name=g\n");
        let json = "sha256=b1f8020f5b4cd42042f807dd939015c4a418bc1ff7f604dd55b0a19b5d953d9b";
        let form = "sha256=30f622d549ca623f1c553f7e395a80c9487b43b9feaf9af4a1811381ddf5a94d";
        let raw = b"payload=%7B%22yo%22%3Atrue%7D";
        let verified = post(&Github, &[(SHA256, json), JSON], br#"{"yo":true}"#, &keys).unwrap();
        assert_eq!(
            (verified.payload.unwrap(), verified.covers_body),
            (r#"{"yo":true}"#.into(), true)
        );
        let verified = post(&Github, &[(SHA256, form), FORM], raw, &keys).unwrap();
        assert_eq!(verified.payload.unwrap(), r#"{"yo":true}"#);
        assert_eq!(
            name(post(&Github, &[(SHA256, json), FORM], raw, &keys)),
            Err(Refusal::Mismatch)
        );
        let text = post(&Github, &[(SHA256, form), ("content-type", "text/plain")], raw, &keys);
        assert_eq!(text.unwrap().payload, Err(PayloadError::MediaType));
    }

    #[test]
    fn sha_1_alone_is_no_credential() {
        let keys = ring_of("0123456789abcdef name=g\n");
        let sha1 = ("x-hub-signature", "sha1=126f2c800419c60137ce748d7672e77b65cf16d6");
        let body = br#"{"yo":true}"#;
        assert_eq!(name(post(&Github, &[sha1, JSON], body, &keys)), Err(Refusal::Missing));
        let sha256 = (SHA256, "sha1=126f2c800419c60137ce748d7672e77b65cf16d6");
        assert_eq!(name(post(&Github, &[sha256, JSON], body, &keys)), Err(Refusal::Malformed));
    }

    #[test]
    fn a_signature_over_the_body_vouches_for_no_query() {
        let headers = headers(&[(SHA256, DOCUMENTED), JSON]);
        let (method, uri) = (Method::GET, Uri::from_static("/?payload=evil"));
        let head = Head { method: &method, uri: &uri, headers: &headers };
        let body = Bytes::from_static(b"Hello, World!");
        let verified = Github.verify(head, &body, &ring(), NOW).unwrap();
        assert_eq!((verified.payload.unwrap(), verified.covers_body), (body, true));
    }

    #[test]
    fn every_active_signing_key_verifies_and_no_other() {
        let signature = |text: &str| {
            let keys = ring_of(text);
            let key = keys.keys().next().unwrap().clone();
            let message = Message { body: b"{}", payload: b"{}", id: "1", now: NOW };
            Github.sign(&message, &key).unwrap()[SHA256].to_str().unwrap().to_owned()
        };
        let keys = ring_of(
            "aaaaaaaaaaaaaaaa name=a\n\
             bbbbbbbbbbbbbbbb name=b use=sign\n\
             cccccccccccccccc name=c use=url,token\n\
             dddddddddddddddd name=d until=2020-01-01T00:00:00Z\n",
        );
        let verify = |text| name(post(&Github, &[(SHA256, &signature(text)), JSON], b"{}", &keys));
        assert_eq!(verify("aaaaaaaaaaaaaaaa"), Ok("a".into()));
        assert_eq!(verify("bbbbbbbbbbbbbbbb"), Ok("b".into()));
        assert_eq!(verify("cccccccccccccccc"), Err(Refusal::Mismatch));
        assert_eq!(verify("dddddddddddddddd"), Err(Refusal::Mismatch));
        let none = ring_of("cccccccccccccccc name=c use=url\n");
        assert_eq!(
            name(post(&Github, &[(SHA256, &signature("cccccccccccccccc")), JSON], b"{}", &none)),
            Err(Refusal::NoKey)
        );
    }

    #[test]
    fn a_repeated_signature_is_refused_even_if_both_are_good() {
        let twice = [(SHA256, DOCUMENTED), (SHA256, DOCUMENTED), JSON];
        assert_eq!(name(post(&Github, &twice, b"Hello, World!", &ring())), Err(Refusal::Repeated));
        let joined = format!("{DOCUMENTED}, {DOCUMENTED}");
        let joined = [(SHA256, &joined[..]), JSON];
        assert_eq!(
            name(post(&Github, &joined, b"Hello, World!", &ring())),
            Err(Refusal::Malformed)
        );
    }
}
