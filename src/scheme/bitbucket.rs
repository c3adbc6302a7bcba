//! Bitbucket Cloud, and Bitbucket Server and Data Center.
//!
//! Both put `sha256=<hex>` over the raw body into `X-Hub-Signature`, the header in which GitHub has
//! SHA-1: [Cloud], [Server]. Only `sha256` is taken. Server can also be given a user and a password,
//! which it sends as `Authorization: Basic`; the password is a token.
//!
//! "Test connection" of Server sends `diagnostics:ping` with the body `{"test": true}` and never
//! signs it. [`is_ping`] tells that body, so that the gate can answer it without forwarding it.
//!
//! [Cloud]: https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks/#Secure-webhooks
//! [Server]: https://confluence.atlassian.com/bitbucketserver/manage-webhooks-938025878.html

use http::HeaderMap;
use http::header::HeaderName;

use super::github::{body_signature, sign_body};
use super::{Head, Message, Proof, Refusal, Scheme, SignError, header};
use crate::key::{Key, Keyring};
use crate::time::Timestamp;

/// HMAC-SHA256 over the raw body in `X-Hub-Signature`.
#[derive(Clone, Copy, Debug)]
pub struct BitbucketCloud;

/// HMAC-SHA256 over the raw body in `X-Hub-Signature`, and a token as Basic password.
#[derive(Clone, Copy, Debug)]
pub struct BitbucketServer;

static SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature");

impl Scheme for BitbucketCloud {
    fn begin(&self, head: Head<'_>, keys: &Keyring, now: Timestamp) -> Proof {
        body_signature(head, &SIGNATURE, keys, now)
    }

    fn sign(&self, message: &Message<'_>, key: &Key) -> Result<HeaderMap, SignError> {
        sign_body(&SIGNATURE, message.body, key)
    }
}

impl Scheme for BitbucketServer {
    fn begin(&self, head: Head<'_>, keys: &Keyring, now: Timestamp) -> Proof {
        let password = match header::basic(head.headers) {
            Ok(Some(basic)) => match keys.find_token(basic.password.expose(), now) {
                Some(key) => Some(key.clone()),
                None => return Proof::Refused(Refusal::Mismatch),
            },
            Ok(None) => None,
            Err(refusal) => return Proof::Refused(refusal),
        };
        match (body_signature(head, &SIGNATURE, keys, now), password) {
            (Proof::Absent, Some(key)) => Proof::Held(key),
            (signature, _) => signature,
        }
    }

    fn sign(&self, message: &Message<'_>, key: &Key) -> Result<HeaderMap, SignError> {
        sign_body(&SIGNATURE, message.body, key)
    }
}

/// The longest body that can be a ping, in bytes.
pub const MAX_PING: u64 = 64;

/// Whether `body` is exactly `{"test": true}`, with any white space that JSON allows.
pub fn is_ping(body: &[u8]) -> bool {
    const TOKENS: [&[u8]; 5] = [b"{", b"\"test\"", b":", b"true", b"}"];
    let mut rest = body;
    for token in TOKENS {
        match skip_space(rest).strip_prefix(token) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    body.len() as u64 <= MAX_PING && skip_space(rest).is_empty()
}

/// RFC 8259 section 2: space, tab, line feed, carriage return.
fn skip_space(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| !b" \t\n\r".contains(byte)).unwrap_or(text.len());
    &text[end..]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{JSON, name, post, ring};
    use super::*;

    const HEADER: &str = "x-hub-signature";
    /// The pair that Atlassian publishes for secure webhooks.
    const PUBLISHED: &str =
        "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9";

    #[test]
    fn the_published_pair_holds_and_its_neighbours_do_not() {
        for scheme in [&BitbucketCloud as &dyn Scheme, &BitbucketServer] {
            let verify = |signature: &str, body| {
                name(post(scheme, &[(HEADER, signature), JSON], body, &ring()))
            };
            assert_eq!(verify(PUBLISHED, b"Hello World!"), Ok("everybody".into()));
            assert_eq!(verify(PUBLISHED, b"Hello, World!"), Err(Refusal::Mismatch));
            assert_eq!(
                verify(&PUBLISHED.replace("a4771c", "a4771d"), b"Hello World!"),
                Err(Refusal::Mismatch)
            );
            for other in ["sha1=", "sha384=", "sha512="] {
                let other = PUBLISHED.replace("sha256=", other);
                assert_eq!(verify(&other, b"Hello World!"), Err(Refusal::Malformed));
            }
        }
    }

    #[test]
    fn the_password_of_a_server_is_a_token() {
        let verify = |pairs: &[(&'static str, &str)]| {
            name(post(&BitbucketServer, pairs, b"Hello World!", &ring()))
        };
        let good = ("authorization", "Basic eDpzZGYzNHRHZGZnR0RHMzQ1ZzN5MDA0NVRZRzIzdGUzNw==");
        let bad = ("authorization", "Basic eDpzZGYzNHRHZGZnR0RHMzQ1ZzN5MDA0NVRZRzIzdGUzOA==");
        assert_eq!(verify(&[good, JSON]), Ok("plain".into()));
        assert_eq!(verify(&[bad, JSON]), Err(Refusal::Mismatch));
        assert_eq!(verify(&[bad, (HEADER, PUBLISHED), JSON]), Err(Refusal::Mismatch));
        assert_eq!(
            verify(&[good, (HEADER, &PUBLISHED.replace("a4", "a5")), JSON]),
            Err(Refusal::Mismatch)
        );
        assert_eq!(verify(&[good, (HEADER, PUBLISHED), JSON]), Ok("everybody".into()));
    }

    #[test]
    fn only_the_exact_body_is_a_ping() {
        for ping in
            [&b"{\"test\": true}"[..], b"{\"test\":true}", b" {\n    \"test\" :\ttrue\r\n}\n"]
        {
            assert!(is_ping(ping), "{ping:?}");
        }
        let padded = format!("{{\"test\":true}}{}", " ".repeat(64));
        for other in [
            &b""[..],
            b"{}",
            b"{\"test\":false}",
            b"{\"test\":true",
            b"{\"test\":true}}",
            b"{\"test\":true,\"push\":1}",
            b"{\"push\":1,\"test\":true}",
            b"{\"te st\":true}",
            b"{\"test\":tr ue}",
            b"[{\"test\":true}]",
            b"{\"test\":true}\x0b",
            padded.as_bytes(),
        ] {
            assert!(!is_ping(other), "{other:?}");
        }
    }
}
