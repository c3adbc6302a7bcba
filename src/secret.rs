//! Secrets, and the only ways to look at one.
//!
//! A [`Secret`] shows nothing of itself in `Debug`, is overwritten when it is dropped, and is
//! compared in constant time. [`Secret::expose`] is the only way to its bytes: whoever reviews what
//! happens to secrets reads its callers.
//!
//! Comparisons never run over the bytes themselves, whose length would show in the time they take,
//! but over their digests: HMAC-SHA256 under a key that is random in each process. A
//! lookup by digest may even stop early, since nobody outside can steer a digest's bytes.

use std::fmt;
use std::sync::LazyLock;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Bytes that must not be seen.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes `bytes` into custody.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The bytes themselves, for computing a MAC or for writing a key file.
    ///
    /// What this returns must not reach a log, a metric, an answer or an error.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no byte at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `presented` is this secret. Takes the same time wherever the two differ.
    pub fn matches(&self, presented: &[u8]) -> bool {
        Blinded::of(&self.0) == Blinded::of(presented)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A digest that stands for a secret within this process, and tells nothing outside it.
#[derive(Clone, Copy, Eq)]
pub(crate) struct Blinded([u8; 32]);

impl Blinded {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        static KEYED: LazyLock<Hmac<Sha256>> = LazyLock::new(|| {
            let mut key = Zeroizing::new([0; 32]);
            // Without random bytes no key could be trusted either: better not to run at all.
            getrandom::fill(&mut *key).expect("the operating system gives random bytes");
            Hmac::new_from_slice(&*key).expect("HMAC takes a key of any length")
        });
        let mut mac = KEYED.clone();
        mac.update(bytes);
        Self(mac.finalize().into_bytes().into())
    }
}

impl PartialEq for Blinded {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl std::hash::Hash for Blinded {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for Blinded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Blinded(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_matches_itself_and_nothing_near_it() {
        let secret = Secret::new("sdf34tGdfgGDG345g3y0045TYG23te37");
        assert!(secret.matches(b"sdf34tGdfgGDG345g3y0045TYG23te37"));
        for wrong in [
            &b""[..],
            b"s",
            b"sdf34tGdfgGDG345g3y0045TYG23te3",
            b"sdf34tGdfgGDG345g3y0045TYG23te377",
            b"sdf34tGdfgGDG345g3y0045TYG23te38",
            b"Sdf34tGdfgGDG345g3y0045TYG23te37",
            b"sdf34tGdfgGDG345g3y0045TYG23te37\n",
        ] {
            assert!(!secret.matches(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn debug_shows_neither_bytes_nor_length_nor_digest() {
        let secret = Secret::new("canary");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(format!("{:?}", Blinded::of(secret.expose())), "Blinded(..)");
    }
}
