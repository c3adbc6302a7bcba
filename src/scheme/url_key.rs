//! A key that stands in the webhook URL, as in Git Integration for Jira: `<path>/<key>`.
//!
//! It is a bearer token: whoever sees the URL has it, and it says nothing of the body. Hosts that
//! can sign should not be given one.

use super::{Proof, Refusal};
use crate::key::Keyring;
use crate::time::Timestamp;

/// Whether a hook takes a key in its URL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UrlKey {
    /// A good one is a credential, and none is needed.
    #[default]
    Accept,
    /// There must be a good one, also beside a signature.
    Require,
    /// The path with a key does not exist.
    Refuse,
}

impl UrlKey {
    /// What the last segment of the path proves. It is taken as it is: a key needs no decoding.
    pub fn begin(segment: Option<&str>, keys: &Keyring, now: Timestamp) -> Proof {
        match segment {
            None => Proof::Absent,
            Some(presented) => match keys.find_url(presented.as_bytes(), now) {
                Some(key) => Proof::Held(key.clone()),
                None => Proof::Refused(Refusal::Mismatch),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW, ring_of};
    use super::*;

    #[test]
    fn a_key_in_the_path_is_looked_up_as_it_stands() {
        let keys =
            ring_of("abc-._~!$&'()*+,;=xyz name=u use=url\nsdf34tGdfgGDG345g3y name=s use=sign\n");
        let begin = |segment| UrlKey::begin(segment, &keys, NOW);
        assert!(
            matches!(begin(Some("abc-._~!$&'()*+,;=xyz")), Proof::Held(key) if key.name() == "u")
        );
        assert!(matches!(begin(None), Proof::Absent));
        for wrong in ["abc-._~%21$&'()*+,;=xyz", "ABC-._~!$&'()*+,;=xyz", "", "sdf34tGdfgGDG345g3y"]
        {
            assert!(matches!(begin(Some(wrong)), Proof::Refused(Refusal::Mismatch)), "{wrong}");
        }
    }
}
