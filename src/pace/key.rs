//! What belongs together, as digests: fixed in size, whatever a delivery says.
//!
//! Every digest is SHA-256 over parts with their length before them, the first of which says what
//! it is a digest of. So no two lists of parts run together.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

/// A push that has more refs than this is told by all of them together.
const MAX_REFS: usize = 64;

pub(super) type Digest = [u8; 32];

/// What a push has in common with those that may be sent in its place.
///
/// Clones share their memory: 32 bytes a ref.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CoalesceKey(
    /// In order, each once, at least one.
    Arc<[Digest]>,
);

/// Whether the refs of a push count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KeyBy {
    /// A push coalesces with those of the same refs.
    #[default]
    Ref,
    /// All pushes of a repository coalesce.
    Repository,
}

impl CoalesceKey {
    /// The key of a push.
    ///
    /// `repository` is its identity, one for all its addresses; `kind` the kind of the event, so that
    /// a pull request never swallows a push. `refs` are full names in any order.
    ///
    /// Pushes without a ref, which are of *unknown* refs, coalesce with each other and with nothing
    /// else. So do pushes with more than 64 refs, if they have the same ones.
    ///
    /// Costs one SHA-256 a ref.
    pub fn new(
        by: KeyBy,
        hook: &str,
        repository: &str,
        kind: &str,
        refs: impl IntoIterator<Item: AsRef<str>>,
    ) -> Self {
        let of =
            |what, name: &[u8]| digest(what, &[hook, repository, kind].map(str::as_bytes), name);
        if by == KeyBy::Repository {
            return Self([of("coalesce repository", b"")].into());
        }
        let mut refs: Vec<_> =
            refs.into_iter().map(|name| of("coalesce ref", name.as_ref().as_bytes())).collect();
        refs.sort_unstable();
        refs.dedup();
        match refs.len() {
            0 => Self([of("coalesce unknown refs", b"")].into()),
            1..=MAX_REFS => Self(refs.into()),
            _ => Self([of("coalesce many refs", refs.as_flattened())].into()),
        }
    }

    /// Whether a push with this key tells of all that one with `other` does.
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|scope| self.0.binary_search(scope).is_ok())
    }

    /// One word for it, the same for the same key: 64 hexadecimal digits.
    pub fn to_word(&self) -> String {
        data_encoding::HEXLOWER.encode(&digest("coalesce key", &[], self.0.as_flattened()))
    }

    /// The digests that it is made of.
    pub(super) fn scopes(&self) -> &[Digest] {
        &self.0
    }
}

impl fmt::Debug for CoalesceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoalesceKey").field("refs", &self.0.len()).finish_non_exhaustive()
    }
}

/// What tells whether two deliveries are the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity(Digest);

impl Identity {
    /// The identity of a delivery to `hook`.
    ///
    /// `webhook_id` is the id of Standard Webhooks where there is one: it is signed, and the same when
    /// a sender tries again. `body` is the SHA-256 of the body, or of the payload that is in it, which a
    /// delivery behind the gate knows.
    pub fn new(hook: &str, webhook_id: Option<&str>, body: &[u8; 32]) -> Self {
        Self(match webhook_id {
            Some(id) => digest("delivery with id", &[hook.as_bytes(), body], id.as_bytes()),
            None => digest("delivery", &[hook.as_bytes()], body),
        })
    }

    /// The digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// The refs that a delivery tells of, in the eyes of [`Duplicates`](super::Duplicates).
#[derive(Clone)]
pub struct ChangedRefs {
    /// The repository as a whole.
    pub(super) repository: Digest,
    /// Each once. Empty where the refs are unknown or too many.
    pub(super) refs: Vec<Digest>,
}

impl ChangedRefs {
    /// The refs that a delivery to `hook` tells of, by their full names, in any order.
    ///
    /// None are all of the repository, and so are more than 64.
    pub fn new(hook: &str, repository: &str, refs: impl IntoIterator<Item: AsRef<str>>) -> Self {
        let of = |what, name: &str| {
            digest(what, &[hook, repository].map(str::as_bytes), name.as_bytes())
        };
        let mut refs: Vec<_> =
            refs.into_iter().map(|name| of("changed ref", name.as_ref())).collect();
        refs.sort_unstable();
        refs.dedup();
        if refs.len() > MAX_REFS {
            refs = Vec::new();
        }
        Self { repository: of("changed repository", ""), refs }
    }
}

impl fmt::Debug for ChangedRefs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangedRefs").field("refs", &self.refs.len()).finish_non_exhaustive()
    }
}

fn digest(what: &str, parts: &[&[u8]], last: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    for part in [what.as_bytes()].iter().chain(parts).chain([&last]) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BY: KeyBy = KeyBy::Ref;

    #[test]
    fn a_key_differs_in_every_part_and_not_in_the_order_of_refs() {
        let key = |hook, repository, kind, refs: &[&str]| {
            CoalesceKey::new(BY, hook, repository, kind, refs)
        };
        let main = key("h", "r", "push", &["main"]);
        assert_eq!(main, key("h", "r", "push", &["main", "main"]));
        assert_eq!(main.to_word(), key("h", "r", "push", &["main", "main"]).to_word());
        assert_eq!(key("h", "r", "push", &["a", "b"]), key("h", "r", "push", &["b", "a"]));
        for other in [
            key("g", "r", "push", &["main"]),
            key("h", "q", "push", &["main"]),
            key("h", "r", "pull_request", &["main"]),
            key("h", "r", "push", &["dev"]),
            key("h", "r", "push", &[]),
            key("hr", "", "push", &["main"]),
            key("h", "rp", "ush", &["main"]),
        ] {
            assert!(main != other && !main.covers(&other) && !other.covers(&main));
            assert_ne!(main.to_word(), other.to_word());
        }
    }

    #[test]
    fn a_key_covers_those_whose_refs_it_has_all() {
        let key = |refs: &[&str]| CoalesceKey::new(BY, "h", "r", "push", refs);
        for (wide, narrow) in [(&["a", "b"][..], &["b"][..]), (&["a"], &["a"]), (&[], &[])] {
            assert!(key(wide).covers(&key(narrow)), "{wide:?} {narrow:?}");
        }
        for (this, other) in [(&["b"][..], &["a", "b"][..]), (&["a", "b"], &["b", "c"])] {
            assert!(!key(this).covers(&key(other)), "{this:?} {other:?}");
        }
        for (this, other) in [(&["a"][..], &[][..]), (&[], &["a"])] {
            assert!(!key(this).covers(&key(other)), "unknown refs are like no others");
        }
    }

    #[test]
    fn by_repository_the_refs_do_not_count() {
        let key = |by, name| CoalesceKey::new(by, "h", "r", "push", [name]);
        assert_eq!(key(KeyBy::Repository, "a"), key(KeyBy::Repository, "b"));
        assert_ne!(key(KeyBy::Ref, "a"), key(KeyBy::Ref, "b"));
        assert_ne!(key(KeyBy::Repository, ""), key(KeyBy::Ref, ""));
    }

    #[test]
    fn a_key_does_not_grow_without_bound() {
        let names: Vec<_> = (0..10_000).map(|n| format!("refs/tags/{n}")).collect();
        let key =
            |from: usize, to: usize| CoalesceKey::new(BY, "h", "r", "push", names[from..to].iter());
        assert_eq!(key(0, 64).scopes().len(), 64);
        assert_eq!(key(0, 10_000).scopes().len(), 1);
        assert!(key(0, 10_000).covers(&key(0, 10_000)));
        for (from, to) in [(0, 9_999), (0, 64), (0, 1), (0, 0)] {
            assert!(!key(0, 10_000).covers(&key(from, to)), "{from}..{to}");
        }
    }

    #[test]
    fn an_identity_differs_in_every_part() {
        let (body, other) = ([1; 32], [2; 32]);
        let this = Identity::new("h", Some("id"), &body);
        assert_eq!(this, Identity::new("h", Some("id"), &body));
        for another in [
            Identity::new("g", Some("id"), &body),
            Identity::new("h", Some("di"), &body),
            Identity::new("h", Some(""), &body),
            Identity::new("h", None, &body),
            Identity::new("h", Some("id"), &other),
        ] {
            assert_ne!(this, another);
        }
        assert_ne!(Identity::new("h", Some(""), &body), Identity::new("h", None, &body));
    }
}
