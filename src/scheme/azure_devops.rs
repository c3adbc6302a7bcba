//! Azure DevOps Services and Server.
//!
//! Azure signs nothing. A web hook can be given a user name and a password, which come as
//! `Authorization: Basic`, or HTTP headers of the administrator's choice ([web hooks]). So the key is
//! a token: the password, or the value of a header that the hook's configuration names.
//!
//! [web hooks]: https://learn.microsoft.com/en-us/azure/devops/service-hooks/services/webhooks

use data_encoding::BASE64;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};
use zeroize::Zeroizing;

use super::gitlab::{sign_token, token};
use super::{Head, Message, Proof, Refusal, Scheme, SignError, header};
use crate::key::{Key, KeyKind, Keyring};
use crate::secret::Secret;
use crate::time::Timestamp;

/// A key as the password of Basic credentials, or in a header of its own.
#[derive(Clone, Debug, Default)]
pub struct AzureDevops {
    user: Option<Secret>,
    header: Option<HeaderName>,
}

impl AzureDevops {
    /// Takes only this user name. By default any is taken.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(Secret::new(user.into()));
        self
    }

    /// Looks for the key in this header in place of Basic credentials.
    #[must_use]
    pub fn header(mut self, header: HeaderName) -> Self {
        self.header = Some(header);
        self
    }

    /// The header that is looked at in place of Basic credentials.
    pub(super) fn custom_header(&self) -> Option<&HeaderName> {
        self.header.as_ref()
    }
}

impl Scheme for AzureDevops {
    fn begin(&self, head: Head<'_>, keys: &Keyring, now: Timestamp) -> Proof {
        if let Some(name) = &self.header {
            return token(head.headers, name, keys, now);
        }
        match header::basic(head.headers) {
            Ok(Some(header::Basic { user, password })) => {
                // Both are looked at in any case: neither answer tells which one was wrong.
                let user_fits = self.user.as_ref().is_none_or(|wanted| wanted.matches(&user));
                match keys.find_token(password.expose(), now) {
                    Some(key) if user_fits => Proof::Held(key.clone()),
                    _ => Proof::Refused(Refusal::Mismatch),
                }
            }
            Ok(None) => Proof::Absent,
            Err(refusal) => Proof::Refused(refusal),
        }
    }

    fn sign(&self, _: &Message<'_>, key: &Key) -> Result<HeaderMap, SignError> {
        if let Some(name) = &self.header {
            return sign_token(name, key);
        }
        if key.kind() == KeyKind::SigningToken {
            return Err(SignError::UnfitKey);
        }
        let user = self.user.as_ref().map_or(&b"hookgate"[..], Secret::expose);
        let pair = Zeroizing::new([user, b":", key.secret().expose()].concat());
        let value = format!("Basic {}", BASE64.encode(&pair));
        Ok([(AUTHORIZATION, header::value(value)?)].into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{JSON, NOW, name, post, ring};
    use super::*;

    /// `webhook:sdf34tGdfgGDG345g3y0045TYG23te37`
    const GOOD: (&str, &str) =
        ("authorization", "Basic d2ViaG9vazpzZGYzNHRHZGZnR0RHMzQ1ZzN5MDA0NVRZRzIzdGUzNw==");

    fn verify(scheme: &AzureDevops, pairs: &[(&'static str, &str)]) -> Result<String, Refusal> {
        let pairs: Vec<_> = pairs.iter().copied().chain([JSON]).collect();
        name(post(scheme, &pairs, b"{}", &ring()))
    }

    #[test]
    fn the_password_is_the_key() {
        let azure = AzureDevops::default();
        assert_eq!(verify(&azure, &[GOOD]), Ok("plain".into()));
        // The same with a last character changed, with no password, and not base64.
        for (value, refusal) in [
            ("Basic d2ViaG9vazpzZGYzNHRHZGZnR0RHMzQ1ZzN5MDA0NVRZRzIzdGUzOA==", Refusal::Mismatch),
            ("Basic d2ViaG9vazo=", Refusal::Mismatch),
            ("Basic d2ViaG9vaw==", Refusal::Malformed),
            ("Basic ", Refusal::Malformed),
            ("Bearer sdf34tGdfgGDG345g3y0045TYG23te37", Refusal::Missing),
        ] {
            assert_eq!(verify(&azure, &[("authorization", value)]), Err(refusal), "{value}");
        }
        assert_eq!(verify(&azure, &[GOOD, GOOD]), Err(Refusal::Repeated));
        assert!(!post(&azure, &[GOOD, JSON], b"{}", &ring()).unwrap().covers_body);
    }

    #[test]
    fn a_user_that_is_named_must_be_that_user() {
        assert_eq!(verify(&AzureDevops::default().user("webhook"), &[GOOD]), Ok("plain".into()));
        for other in ["webhoo", "Webhook", ""] {
            let azure = AzureDevops::default().user(other);
            assert_eq!(verify(&azure, &[GOOD]), Err(Refusal::Mismatch));
        }
    }

    #[test]
    fn a_header_stands_in_place_of_basic_credentials() {
        let azure = AzureDevops::default().header(HeaderName::from_static("x-gate-token"));
        let token = ("x-gate-token", "sdf34tGdfgGDG345g3y0045TYG23te37");
        assert_eq!(verify(&azure, &[token]), Ok("plain".into()));
        assert_eq!(verify(&azure, &[("x-gate-token", "x")]), Err(Refusal::Mismatch));
        assert_eq!(verify(&azure, &[GOOD]), Err(Refusal::Missing));
    }

    #[test]
    fn what_is_signed_holds() {
        let keys = ring();
        let message = Message { body: b"{}", payload: b"{}", id: "1", now: NOW };
        for azure in [
            AzureDevops::default(),
            AzureDevops::default().user("webhook"),
            AzureDevops::default().header(HeaderName::from_static("x-gate-token")),
        ] {
            for key in keys.keys() {
                let signed = azure.sign(&message, key).unwrap();
                let (name, value) = signed.iter().next().unwrap();
                let name = if name == AUTHORIZATION { "authorization" } else { "x-gate-token" };
                assert_eq!(
                    verify(&azure, &[(name, value.to_str().unwrap())]).as_deref(),
                    Ok(key.name())
                );
            }
        }
    }
}
