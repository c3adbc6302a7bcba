//! The set of keys that is in force.

use std::collections::HashMap;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::file::{self, KeyFileError};
use super::material::{Key, KeyKind, KeyState, Use};
use crate::secret::Blinded;
use crate::time::Timestamp;

/// An immutable set of keys. One that was read from a file has at least one.
#[derive(Clone, Debug)]
pub struct Keyring {
    keys: Vec<Arc<Key>>,
    /// Keys for URLs by digest, so that a lookup tells nothing of how near a guess was.
    urls: HashMap<Blinded, usize>,
}

impl Keyring {
    /// Reads a key file's text; the grammar is in the [module's docs](super).
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its line and column, and never a piece of the text.
    pub fn parse(text: &[u8]) -> Result<Self, KeyFileError> {
        file::parse(text).map(Self::new)
    }

    /// A ring with this one key.
    pub fn single(key: Key) -> Self {
        Self::new(vec![key])
    }

    /// What is in force while there is no key file: nothing holds.
    #[cfg(feature = "watch")]
    pub(crate) fn without_keys() -> Self {
        Self::new(Vec::new())
    }

    pub(super) fn new(keys: Vec<Key>) -> Self {
        let urls = keys
            .iter()
            .enumerate()
            .filter(|(_, key)| key.uses().contains(Use::Url))
            .map(|(index, key)| (key.blinded(), index))
            .collect();
        Self { keys: keys.into_iter().map(Arc::new).collect(), urls }
    }

    /// The text that [`parse`](Self::parse) reads back to an equal ring, without comments.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::new());
        for key in &self.keys {
            file::format(key, &mut text);
        }
        text
    }

    /// All keys in the order of the file, active or not.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Arc<Key>> {
        self.keys.iter()
    }

    /// The first active key of a use: the one to sign with, or to show in a URL.
    ///
    /// Signing tokens of Standard Webhooks are left out: they serve [their own scheme](Self::signing_tokens).
    pub fn primary(&self, wanted: Use, now: Timestamp) -> Option<&Arc<Key>> {
        self.active(wanted, now).find(|key| key.kind() != KeyKind::SigningToken)
    }

    /// The active keys that sign raw bodies.
    pub fn signing(&self, now: Timestamp) -> impl Iterator<Item = &Arc<Key>> {
        self.active(Use::Sign, now).filter(|key| key.kind() != KeyKind::SigningToken)
    }

    /// The active signing tokens of Standard Webhooks.
    pub fn signing_tokens(&self, now: Timestamp) -> impl Iterator<Item = &Arc<Key>> {
        self.active(Use::Sign, now).filter(|key| key.kind() == KeyKind::SigningToken)
    }

    /// The active keys of a use.
    pub fn active(&self, wanted: Use, now: Timestamp) -> impl Iterator<Item = &Arc<Key>> {
        self.keys.iter().filter(move |key| key.serves(wanted, now))
    }

    /// The active key that was presented as a token or password.
    ///
    /// Compares with every key, so the time taken does not tell which one it was.
    pub fn find_token(&self, presented: &[u8], now: Timestamp) -> Option<&Arc<Key>> {
        let presented = Blinded::of(presented);
        let mut found = None;
        for key in self.active(Use::Token, now) {
            if key.blinded() == presented {
                found = Some(key);
            }
        }
        found
    }

    /// The active key that stood in the URL.
    pub fn find_url(&self, presented: &[u8], now: Timestamp) -> Option<&Arc<Key>> {
        let key = &self.keys[*self.urls.get(&Blinded::of(presented))?];
        key.serves(Use::Url, now).then_some(key)
    }

    /// Things that are allowed and that an operator should know.
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        let mut warnings = Vec::new();
        for key in self.keys.iter().filter(|key| key.state(now) != KeyState::Expired) {
            let name = key.name();
            let shown = [Use::Url, Use::Token].into_iter().filter(|&one| key.uses().contains(one));
            let shown: Vec<_> = shown.map(Use::as_str).collect();
            if key.uses().contains(Use::Sign) && !shown.is_empty() {
                warnings.push(format!(
                    "key {name} serves {} and sign: whoever sees it there can sign with it; \
                     separate keys with use= are safer",
                    shown.join(" and ")
                ));
            }
            if key.is_weak() {
                warnings.push(format!("key {name} is shorter than 16 bytes (weak=allow)"));
            }
        }
        if self.keys.iter().all(|key| key.state(now) != KeyState::Active) {
            warnings.push("no key is active: every delivery is refused".into());
        }
        warnings
    }

    /// Whether a key of `self` is missing in `other`.
    #[cfg(feature = "watch")]
    pub(crate) fn has_key_that_lacks_in(&self, other: &Self) -> bool {
        self.keys.iter().any(|key| other.keys.iter().all(|its| its.blinded() != key.blinded()))
    }
}

/// Equal keys in equal order, with equal options.
impl PartialEq for Keyring {
    fn eq(&self, other: &Self) -> bool {
        self.keys.len() == other.keys.len()
            && self.keys.iter().zip(&other.keys).all(|(a, b)| {
                a.blinded() == b.blinded()
                    && a.name() == b.name()
                    && a.kind() == b.kind()
                    && a.uses() == b.uses()
                    && a.from() == b.from()
                    && a.until() == b.until()
                    && a.repositories() == b.repositories()
                    && a.is_weak() == b.is_weak()
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);

    fn ring(text: &str) -> Keyring {
        Keyring::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_key_is_found_by_the_uses_that_it_has_and_by_no_other() {
        let ring = ring(
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa name=a use=sign\n\
             bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb name=b use=token\n\
             cccccccccccccccccccccccccccccccc name=c use=url\n",
        );
        let [a, b, c] = [[b'a'; 32], [b'b'; 32], [b'c'; 32]];
        let name = |key: Option<&Arc<Key>>| key.map(|key| key.name().to_owned());
        assert_eq!(name(ring.find_token(&b, NOW)), Some("b".into()));
        assert_eq!(name(ring.find_url(&c, NOW)), Some("c".into()));
        assert_eq!(ring.signing(NOW).map(|key| key.name()).collect::<Vec<_>>(), ["a"]);
        for wrong in [&a[..], &c, b"", b"bbbb", &b[..31]] {
            assert!(ring.find_token(wrong, NOW).is_none());
        }
        for wrong in [&a[..], &b, b"", &c[..31]] {
            assert!(ring.find_url(wrong, NOW).is_none());
        }
    }

    #[test]
    fn from_and_until_take_effect_by_themselves() {
        let ring = ring(
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa name=old until=2026-12-01T00:00:00Z\n\
             bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb name=new from=2026-11-30T00:00:00Z\n",
        );
        let signing = |time: &str| {
            let now = time.parse().unwrap();
            let names: Vec<_> = ring.signing(now).map(|key| key.name()).collect();
            let url = ring.find_url(&[b'a'; 32], now).is_some();
            let token = ring.find_token(&[b'b'; 32], now).is_some();
            (names.join(" "), url, token)
        };
        assert_eq!(signing("2026-11-29T23:59:59Z"), ("old".into(), true, false));
        assert_eq!(signing("2026-11-30T00:00:00Z"), ("old new".into(), true, true));
        assert_eq!(signing("2026-11-30T23:59:59.999Z"), ("old new".into(), true, true));
        assert_eq!(signing("2026-12-01T00:00:00Z"), ("new".into(), false, true));
        let primary = |time: &str| {
            ring.primary(Use::Sign, time.parse().unwrap()).map(|key| key.name().to_owned())
        };
        assert_eq!(primary("2026-11-30T00:00:00Z"), Some("old".into()));
        assert_eq!(primary("2026-12-01T00:00:00Z"), Some("new".into()));
    }

    #[test]
    fn a_signing_token_serves_its_own_scheme_alone() {
        let ring = ring("whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q= name=gitlab\n");
        assert_eq!(ring.signing_tokens(NOW).count(), 1);
        assert_eq!(ring.signing(NOW).count(), 0);
        assert!(ring.primary(Use::Sign, NOW).is_none());
        assert!(ring.find_token(b"testtesttesttesttesttesttesttest", NOW).is_none());
    }

    #[test]
    fn a_key_that_is_shown_and_signs_is_warned_of_and_separate_ones_are_not() {
        let shared = ring("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa name=a\n").warnings(NOW);
        assert_eq!(shared.len(), 1);
        assert!(shared[0].starts_with("key a serves url and token and sign"), "{shared:?}");
        let separate = ring(
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa name=a use=sign\n\
             bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb name=b use=url\n",
        );
        assert_eq!(separate.warnings(NOW), Vec::<String>::new());
        let expired = ring("aaaaaaaaaaaaaaaaaaaa use=sign until=2020-01-01T00:00:00Z\n");
        assert_eq!(expired.warnings(NOW), ["no key is active: every delivery is refused"]);
    }

    #[test]
    fn debug_shows_no_secret() {
        let debug = format!("{:?}", ring("sdf34tGdfgGDG345g3y0045TYG23te37 name=a\n"));
        assert!(debug.contains("\"a\"") && !debug.contains("sdf34t"), "{debug}");
    }
}
