//! Any other sender that puts an HMAC over the raw body into a header.

use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use hmac::Mac;
use http::HeaderMap;
use http::header::HeaderName;

use super::{Head, MacCheck, Message, Pending, Proof, Refusal, Scheme, SignError, header};
use crate::key::{Key, KeyKind, Keyring};
use crate::time::Timestamp;

/// An HMAC over the raw body, in a header and a form that are configured.
#[derive(Clone, Debug)]
pub struct Generic {
    header: HeaderName,
    prefix: String,
    algorithm: Algorithm,
    encoding: Encoding,
}

/// The hash under the HMAC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// SHA-256.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

/// How the HMAC is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Encoding {
    /// Hexadecimal; either case is taken, lower case is sent.
    #[default]
    Hex,
    /// Base64 with padding.
    Base64,
}

impl Generic {
    /// HMAC-SHA256 in hex without a prefix in this header.
    pub fn new(header: HeaderName) -> Self {
        Self {
            header,
            prefix: String::new(),
            algorithm: Algorithm::default(),
            encoding: Encoding::default(),
        }
    }

    /// What stands before the HMAC, such as `sha256=`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The hash under the HMAC.
    #[must_use]
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// How the HMAC is written.
    #[must_use]
    pub fn encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    pub(super) fn header(&self) -> &HeaderName {
        &self.header
    }

    fn signature<const N: usize>(&self, headers: &HeaderMap) -> Result<Option<[u8; N]>, Refusal> {
        let encoding = match self.encoding {
            Encoding::Hex => &HEXLOWER_PERMISSIVE,
            Encoding::Base64 => &BASE64,
        };
        header::encoded_mac(headers, &self.header, &self.prefix, encoding)
    }

    fn pending(
        &self,
        headers: &HeaderMap,
        keys: &Keyring,
        now: Timestamp,
    ) -> Result<Option<Pending>, Refusal> {
        let keys = keys.signing(now).cloned();
        Ok(match self.algorithm {
            Algorithm::Sha256 => match self.signature::<32>(headers)? {
                None => None,
                Some(signature) => {
                    let keyed = keys.map(|key| {
                        let mac = key.hmac_sha256();
                        (key, mac)
                    });
                    Some(Pending::body(MacCheck::new(keyed, [signature.into()])?))
                }
            },
            Algorithm::Sha512 => match self.signature::<64>(headers)? {
                None => None,
                Some(signature) => {
                    let keyed = keys.map(|key| {
                        let mac = key.hmac_sha512();
                        (key, mac)
                    });
                    Some(Pending::body(MacCheck::new(keyed, [signature.into()])?))
                }
            },
        })
    }
}

impl Scheme for Generic {
    fn begin(&self, head: Head<'_>, keys: &Keyring, now: Timestamp) -> Proof {
        match self.pending(head.headers, keys, now) {
            Ok(Some(pending)) => Proof::Pending(pending),
            Ok(None) => Proof::Absent,
            Err(refusal) => Proof::Refused(refusal),
        }
    }

    fn sign(&self, message: &Message<'_>, key: &Key) -> Result<HeaderMap, SignError> {
        if key.kind() == KeyKind::SigningToken {
            return Err(SignError::UnfitKey);
        }
        let encoding = match self.encoding {
            Encoding::Hex => &HEXLOWER,
            Encoding::Base64 => &BASE64,
        };
        let mac = match self.algorithm {
            Algorithm::Sha256 => {
                let mut mac = key.hmac_sha256();
                mac.update(message.body);
                encoding.encode(&mac.finalize().into_bytes())
            }
            Algorithm::Sha512 => {
                let mut mac = key.hmac_sha512();
                mac.update(message.body);
                encoding.encode(&mac.finalize().into_bytes())
            }
        };
        let value = header::value(format!("{}{mac}", self.prefix))?;
        Ok([(self.header.clone(), value)].into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{JSON, NOW, name, post, ring_of};
    use super::*;

    const NAME: &str = "x-signature";
    const HEADER: HeaderName = HeaderName::from_static(NAME);
    const KEYS: &str = "0123456789abcdef name=g\n";
    const BODY: &[u8] = br#"{"yo":true}"#;
    /// Vectors of google/go-github, `github/messages_test.go`.
    const SHA256: &str = "b1f8020f5b4cd42042f807dd939015c4a418bc1ff7f604dd55b0a19b5d953d9b";
    const SHA512: &str = "8456767023c1195682e182a23b3f5d19150ecea598fde8cb85918f7281b16079\
                          471b1329f92b912c4d8bd7455cb159777db8f29608b20c7c87323ba65ae62e1f";

    fn verify(scheme: &Generic, signature: &str, body: &'static [u8]) -> Result<String, Refusal> {
        name(post(scheme, &[(NAME, signature), JSON], body, &ring_of(KEYS)))
    }

    #[test]
    fn every_algorithm_and_encoding_holds_for_its_own_and_not_for_others() {
        let base64 = |hex: &str| BASE64.encode(&HEXLOWER.decode(hex.as_bytes()).unwrap());
        let sha256 = Generic::new(HEADER);
        let sha512 = Generic::new(HEADER).algorithm(Algorithm::Sha512);
        let cases = [
            (sha256.clone(), SHA256.to_owned()),
            (sha256.encoding(Encoding::Base64), base64(SHA256)),
            (sha512.clone(), SHA512.to_owned()),
            (sha512.encoding(Encoding::Base64), base64(SHA512)),
        ];
        for (n, (scheme, _)) in cases.iter().enumerate() {
            for (m, (_, signature)) in cases.iter().enumerate() {
                let verified = verify(scheme, signature, BODY);
                if n == m {
                    assert_eq!(verified, Ok("g".into()));
                    assert_eq!(verify(scheme, signature, b"{}"), Err(Refusal::Mismatch));
                } else {
                    assert_eq!(verified, Err(Refusal::Malformed), "{n} {m}");
                }
            }
        }
    }

    #[test]
    fn a_prefix_must_be_there_exactly_when_it_is_configured() {
        let plain = Generic::new(HEADER);
        let prefixed = plain.clone().prefix("sha256=");
        let with_prefix = format!("sha256={SHA256}");
        assert_eq!(verify(&prefixed, &with_prefix, BODY), Ok("g".into()));
        assert_eq!(verify(&prefixed, SHA256, BODY), Err(Refusal::Malformed));
        assert_eq!(verify(&plain, &with_prefix, BODY), Err(Refusal::Malformed));
        assert_eq!(verify(&prefixed, "sha256=", BODY), Err(Refusal::Missing));
        assert_eq!(verify(&plain, "", BODY), Err(Refusal::Missing));
    }

    #[test]
    fn what_is_signed_is_the_vector() {
        let keys = ring_of(KEYS);
        let message = Message { body: BODY, payload: BODY, id: "", now: NOW };
        let sign = |scheme: Generic| scheme.sign(&message, keys.keys().next().unwrap()).unwrap();
        assert_eq!(sign(Generic::new(HEADER).prefix("sha256="))[NAME], format!("sha256={SHA256}"));
        assert_eq!(sign(Generic::new(HEADER).algorithm(Algorithm::Sha512))[NAME], SHA512);
    }
}
