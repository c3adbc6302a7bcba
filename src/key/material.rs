//! One key: its secret, the MAC states keyed with it, and what it may be used for.

use std::fmt;

use hmac::{Hmac, KeyInit};
use sha2::{Sha256, Sha512};

use crate::repository::Patterns;
use crate::secret::{Blinded, Secret};
use crate::time::Timestamp;

/// A secret with a name, uses, a time in which it is active, and repositories it vouches for.
///
/// The HMAC states are keyed once, when the key is made: a request clones a state of some hundred
/// bytes and never hashes the key again.
#[derive(Clone)]
pub struct Key {
    name: String,
    kind: KeyKind,
    secret: Secret,
    uses: Uses,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
    repositories: Option<Patterns>,
    weak: bool,
    blinded: Blinded,
    sha256: Hmac<Sha256>,
    sha512: Hmac<Sha512>,
}

/// How a key is written, which decides what it can be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyKind {
    /// Text that stands in a URL as it is.
    Plain,
    /// `whsec_…`: a signing token of Standard Webhooks.
    SigningToken,
    /// `base64:…`: any other bytes.
    Encoded,
}

/// One use of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Use {
    /// It signs deliveries; whoever receives them never sees it.
    Sign,
    /// It is sent along as a token or password.
    Token,
    /// It stands in the webhook URL.
    Url,
}

/// A set of [`Use`]s.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Uses(u8);

/// Where a key stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyState {
    /// Its `from` lies in the future.
    Pending,
    /// It verifies deliveries.
    Active,
    /// Its `until` is past.
    Expired,
}

impl Key {
    pub(super) fn new(name: String, kind: KeyKind, secret: Secret, uses: Uses) -> Self {
        let state = "HMAC takes a key of any length";
        Self {
            kind,
            uses,
            from: None,
            until: None,
            repositories: None,
            weak: false,
            blinded: Blinded::of(secret.expose()),
            sha256: Hmac::new_from_slice(secret.expose()).expect(state),
            sha512: Hmac::new_from_slice(secret.expose()).expect(state),
            name,
            secret,
        }
    }

    /// A plain key with all uses, active always, as `hookgate key generate` makes one.
    ///
    /// `None` if `text` is not what a plain key may be, or `name` not what a name may be.
    pub fn plain(name: &str, text: &str) -> Option<Self> {
        (super::file::is_name(name) && super::file::plain_fault(text).is_none())
            .then(|| Self::new(name.into(), KeyKind::Plain, Secret::new(text), Uses::ALL))
    }

    pub(super) fn set_period(&mut self, from: Option<Timestamp>, until: Option<Timestamp>) {
        (self.from, self.until) = (from, until);
    }

    pub(super) fn set_repositories(&mut self, repositories: Option<Patterns>) {
        self.repositories = repositories;
    }

    pub(super) fn allow_weak(&mut self) {
        self.weak = true;
    }

    /// The name by which logs, metrics and answers know the key.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the key is written.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// What the key may be used for.
    pub fn uses(&self) -> Uses {
        self.uses
    }

    /// When the key becomes active, if not always.
    pub fn from(&self) -> Option<Timestamp> {
        self.from
    }

    /// When the key stops being active, if ever.
    pub fn until(&self) -> Option<Timestamp> {
        self.until
    }

    /// The repositories that the key vouches for; `None` means any.
    pub fn repositories(&self) -> Option<&Patterns> {
        self.repositories.as_ref()
    }

    /// Whether the key is shorter than 16 bytes and was allowed to be.
    pub fn is_weak(&self) -> bool {
        self.weak
    }

    /// Where the key stands in its life at `now`.
    pub fn state(&self, now: Timestamp) -> KeyState {
        if self.until.is_some_and(|until| until <= now) {
            KeyState::Expired
        } else if self.from.is_some_and(|from| now < from) {
            KeyState::Pending
        } else {
            KeyState::Active
        }
    }

    /// Whether the key is active at `now` and has the use.
    pub fn serves(&self, wanted: Use, now: Timestamp) -> bool {
        self.uses.contains(wanted) && self.state(now) == KeyState::Active
    }

    /// The secret itself.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    pub(crate) fn blinded(&self) -> Blinded {
        self.blinded
    }

    /// A fresh HMAC-SHA256 keyed with the secret.
    pub fn hmac_sha256(&self) -> Hmac<Sha256> {
        self.sha256.clone()
    }

    /// A fresh HMAC-SHA512 keyed with the secret.
    pub fn hmac_sha512(&self) -> Hmac<Sha512> {
        self.sha512.clone()
    }
}

/// Shows everything but the secret, and of that not even the length.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("uses", &self.uses)
            .field("from", &self.from)
            .field("until", &self.until)
            .field("repositories", &self.repositories)
            .finish_non_exhaustive()
    }
}

impl Use {
    /// All uses.
    pub const ALL: [Self; 3] = [Self::Sign, Self::Token, Self::Url];

    /// The word in the key file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sign => "sign",
            Self::Token => "token",
            Self::Url => "url",
        }
    }
}

impl Uses {
    /// All three.
    pub const ALL: Self = Self(0b111);

    /// What keys of this kind can be used for, and are unless `use=` says less.
    pub const fn of(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Plain => Self::ALL,
            KeyKind::SigningToken => Self(1 << Use::Sign as u8),
            KeyKind::Encoded => Self(1 << Use::Sign as u8 | 1 << Use::Token as u8),
        }
    }

    /// Whether the set holds `wanted`.
    pub const fn contains(self, wanted: Use) -> bool {
        self.0 & (1 << wanted as u8) != 0
    }

    /// The uses in the set.
    pub fn iter(self) -> impl Iterator<Item = Use> {
        Use::ALL.into_iter().filter(move |&one| self.contains(one))
    }
}

impl FromIterator<Use> for Uses {
    fn from_iter<I: IntoIterator<Item = Use>>(uses: I) -> Self {
        Self(uses.into_iter().fold(0, |bits, one| bits | 1 << one as u8))
    }
}

/// The words of the key file, joined with commas.
impl fmt::Display for Uses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, one) in self.iter().enumerate() {
            write!(f, "{}{}", if n == 0 { "" } else { "," }, one.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
