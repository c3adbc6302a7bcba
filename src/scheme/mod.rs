//! How a delivery proves its origin: one file a scheme, `begin` and `sign` side by side.
//!
//! This is the part to audit. Headers, bytes, keys and the time go in, a verdict comes out: no I/O,
//! no clock, no JSON. Nothing here parses what it verifies, except for the one thing that Gitea's
//! rule asks for: the JSON inside a form.
//!
//! # How a verification goes
//!
//! 1. [`Scheme::begin`] looks at the head. Its [`Proof`] is final where the head alone decides (no
//!    credential, a malformed or repeated one, a token), and costs no byte of the body.
//! 2. Where the body decides, the proof is a [`Pending`]: it is fed the body's bytes as they arrive
//!    and hashes them with every key that could have signed, at most eight.
//! 3. [`Pending::finish`] compares in constant time. Its [`Verified`] names the key that held and
//!    holds the JSON payload.
//!
//! # Rules that all schemes share
//!
//! - An empty credential (`sha256=`, `X-Gitea-Signature:`) is an absent one: Gitea sends such
//!   headers when no secret is set.
//! - A credential header that comes twice is refused, also when both are equal.
//! - SHA-1 counts for nothing: where a host sends it beside SHA-256 it is not looked at, and where
//!   it comes alone there is no credential.
//! - Hex is taken in both cases, base64 only with its padding; a wrong length is malformed.
//! - A token or a signature that does not cover the body never counts as a signature, and one over
//!   the body vouches for no payload in the query.
//!
//! # Schemes of your own
//!
//! Implement [`Scheme`] and give it to the gate. `begin` must not allocate by what the head claims,
//! and must compare with secrets through [`Keyring::find_token`], [`crate::secret::Secret::matches`]
//! or a [`MacCheck`].
//!
//! AWS CodeCommit (SNS) and SourceHut are not here yet. SNS needs a certificate that someone else
//! must fetch: [`Refusal`] and [`Proof`] are `non_exhaustive`, so that such a need gets a variant.

mod azure_devops;
mod bitbucket;
mod generic;
mod gitea;
mod gitee;
mod github;
mod gitlab;
mod header;
mod mac;
mod payload;
mod set;
mod standard_webhooks;
mod url_key;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};

use crate::key::{Key, Keyring};
use crate::time::Timestamp;

pub use azure_devops::AzureDevops;
pub use bitbucket::{BitbucketCloud, BitbucketServer, MAX_PING, is_ping};
pub use generic::{Algorithm, Encoding, Generic};
pub use gitea::{Family, Gitea};
pub use gitee::{Gitee, GiteeMode};
pub use github::Github;
pub use gitlab::Gitlab;
pub use mac::MacCheck;
pub(crate) use payload::is_form;
pub use payload::{PayloadError, payload};
pub use set::Schemes;
pub use standard_webhooks::{StandardWebhooks, TOLERANCE};
pub use url_key::UrlKey;

/// A way to prove the origin of a delivery.
pub trait Scheme: Send + Sync + fmt::Debug {
    /// Looks at the head of a request, and says what is still needed.
    fn begin(&self, head: Head<'_>, keys: &Keyring, now: Timestamp) -> Proof;

    /// The headers with which `key` proves the origin of `message`: what [`begin`](Self::begin) takes.
    ///
    /// # Errors
    ///
    /// [`SignError`] if the scheme has nothing to sign with, or the key does not fit it.
    fn sign(&self, message: &Message<'_>, key: &Key) -> Result<HeaderMap, SignError>;

    /// Verifies a delivery that is there as a whole.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if there is no credential or not a good one.
    fn verify(
        &self,
        head: Head<'_>,
        body: &Bytes,
        keys: &Keyring,
        now: Timestamp,
    ) -> Result<Verified, Refusal> {
        match self.begin(head, keys, now) {
            Proof::Absent => Err(Refusal::Missing),
            Proof::Refused(refusal) => Err(refusal),
            Proof::Held(key) => {
                Ok(Verified { key, payload: payload(head, body), covers_body: false })
            }
            Proof::Pending(mut pending) => {
                pending.update(body);
                pending.finish(head, body)
            }
        }
    }
}

/// The head of a request, as much of it as schemes look at.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target; of it only the query, where Gitea puts the payload of a GET.
    pub uri: &'a Uri,
    /// The headers.
    pub headers: &'a HeaderMap,
}

impl<'a> From<&'a http::request::Parts> for Head<'a> {
    fn from(parts: &'a http::request::Parts) -> Self {
        Self { method: &parts.method, uri: &parts.uri, headers: &parts.headers }
    }
}

/// What the head of a request proves.
#[derive(Debug)]
#[non_exhaustive]
pub enum Proof {
    /// It shows no credential of the scheme.
    Absent,
    /// It shows a bad one.
    Refused(Refusal),
    /// It shows a good one that says nothing of the body: a token.
    Held(Arc<Key>),
    /// The body decides.
    Pending(Pending),
}

/// A verification that waits for the body.
pub struct Pending(Waiting);

enum Waiting {
    /// The MAC is over the raw body.
    Body(Box<dyn BodyProof>),
    /// The MAC is over the payload, which is known only when the body is complete.
    Payload(Box<dyn BodyProof>),
}

/// The part of a scheme that sees the body.
pub trait BodyProof: Send + Sync {
    /// Takes the next bytes.
    fn update(&mut self, bytes: &[u8]);

    /// The key that held, when all bytes were taken.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if no key held.
    fn finish(self: Box<Self>) -> Result<Arc<Key>, Refusal>;
}

impl Pending {
    /// A verification over the raw body.
    pub fn body(proof: impl BodyProof + 'static) -> Self {
        Self(Waiting::Body(Box::new(proof)))
    }

    /// A verification over the JSON payload: of a form, of the query of a GET, or else the raw body.
    ///
    /// Nothing of a form is hashed before it is complete.
    pub fn payload(head: Head<'_>, proof: impl BodyProof + 'static) -> Self {
        if payload::is_raw(head) {
            Self::body(proof)
        } else {
            Self(Waiting::Payload(Box::new(proof)))
        }
    }

    /// Takes the next bytes of the body.
    pub fn update(&mut self, bytes: &[u8]) {
        if let Waiting::Body(proof) = &mut self.0 {
            proof.update(bytes);
        }
    }

    /// The verdict over the whole body, all of which was given to [`update`](Self::update).
    ///
    /// # Errors
    ///
    /// [`Refusal`] if the credential does not hold.
    pub fn finish(self, head: Head<'_>, body: &Bytes) -> Result<Verified, Refusal> {
        let (key, payload) = match self.0 {
            // Never from the query: a signature over the body does not cover it.
            Waiting::Body(proof) => (proof.finish()?, payload::in_body(head, body)),
            Waiting::Payload(mut proof) => {
                let payload = payload(head, body).map_err(|_| Refusal::Malformed)?;
                proof.update(&payload);
                (proof.finish()?, Ok(payload))
            }
        };
        Ok(Verified { key, payload, covers_body: true })
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

/// A delivery whose credential held.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The key that held.
    pub key: Arc<Key>,
    /// The JSON, unwrapped from a form or a query where it came so; an error if there is none.
    pub payload: Result<Bytes, PayloadError>,
    /// Whether the credential is a signature over the payload, and not a mere token.
    pub covers_body: bool,
}

/// Why a credential does not hold. For logs, never for the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no credential.
    Missing,
    /// A credential header comes twice.
    Repeated,
    /// The credential has not the form that it must have.
    Malformed,
    /// No key is active for this use.
    NoKey,
    /// No active key fits.
    Mismatch,
    /// The time that was signed is too far from now.
    Expired,
    /// A signature over the body is required.
    Unsigned,
    /// The key does not vouch for this repository.
    Repository,
}

impl Refusal {
    /// The word in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "no credential",
            Self::Repeated => "credential header repeated",
            Self::Malformed => "malformed credential",
            Self::NoKey => "no active key for this use",
            Self::Mismatch => "no active key fits",
            Self::Expired => "timestamp outside the tolerance",
            Self::Unsigned => "no signature over the body",
            Self::Repository => "key does not vouch for this repository",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::error::Error for Refusal {}

/// What is signed when a delivery is sent.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The body as it will be sent.
    pub body: &'a [u8],
    /// The JSON inside; the same as the body unless that is a form.
    pub payload: &'a [u8],
    /// The delivery's id, for schemes that sign it.
    pub id: &'a str,
    /// The time of sending, for schemes that sign it.
    pub now: Timestamp,
}

/// Why a delivery cannot be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignError {
    /// The host proves nothing: only a URL key can.
    NoScheme,
    /// The key is of a kind that the scheme does not take.
    UnfitKey,
    /// The id, user or key does not stand in a header.
    UnfitValue,
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoScheme => "this provider signs nothing; use a URL key",
            Self::UnfitKey => "this scheme does not take a key of this kind",
            Self::UnfitValue => "the id, user or key does not stand in a header",
        })
    }
}

impl std::error::Error for SignError {}

#[cfg(test)]
mod testing {
    //! What the tests of all schemes need.

    use super::*;

    pub(super) const NOW: Timestamp = Timestamp::from_millis(1_777_000_000_000);

    /// A ring whose first key is GitHub's documented secret, then a plain key.
    pub(super) fn ring() -> Keyring {
        Keyring::parse(
            b"base64:SXQncyBhIFNlY3JldCB0byBFdmVyeWJvZHk= name=everybody\n\
              sdf34tGdfgGDG345g3y0045TYG23te37 name=plain\n",
        )
        .unwrap()
    }

    pub(super) fn ring_of(text: &str) -> Keyring {
        Keyring::parse(text.as_bytes()).unwrap()
    }

    pub(super) fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    pub(super) const JSON: (&str, &str) = ("content-type", "application/json");
    pub(super) const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

    /// A POST with these headers and this body.
    pub(super) fn post(
        scheme: &dyn Scheme,
        pairs: &[(&'static str, &str)],
        body: &'static [u8],
        keys: &Keyring,
    ) -> Result<Verified, Refusal> {
        let (method, uri, headers) = (Method::POST, Uri::from_static("/"), headers(pairs));
        let head = Head { method: &method, uri: &uri, headers: &headers };
        scheme.verify(head, &Bytes::from_static(body), keys, NOW)
    }

    /// The name of the key that held.
    pub(super) fn name(verified: Result<Verified, Refusal>) -> Result<String, Refusal> {
        verified.map(|verified| verified.key.name().to_owned())
    }
}
