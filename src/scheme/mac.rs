//! The comparison that all HMAC schemes share.

use std::fmt;
use std::sync::Arc;

use hmac::Mac;
use hmac::digest::{CtOutput, Output};

use super::{BodyProof, Refusal};
use crate::key::Key;

/// HMACs of one message under each key that may have signed it, to be compared with the signatures
/// that came along.
///
/// Costs one pass over the message a key; a keyring has at most eight active signing keys.
pub struct MacCheck<M: Mac> {
    candidates: Vec<(Arc<Key>, M)>,
    signatures: Vec<CtOutput<M>>,
}

impl<M: Mac> MacCheck<M> {
    /// A check under each of the `candidates`, keyed MACs that may have taken a prefix already.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoKey`] without a candidate: then the body need not be read.
    pub fn new(
        candidates: impl IntoIterator<Item = (Arc<Key>, M)>,
        signatures: impl IntoIterator<Item = Output<M>>,
    ) -> Result<Self, Refusal> {
        let candidates: Vec<_> = candidates.into_iter().collect();
        if candidates.is_empty() {
            return Err(Refusal::NoKey);
        }
        Ok(Self { candidates, signatures: signatures.into_iter().map(CtOutput::new).collect() })
    }
}

impl<M: Mac + Send + Sync> BodyProof for MacCheck<M>
where
    CtOutput<M>: Send + Sync,
{
    fn update(&mut self, bytes: &[u8]) {
        for (_, mac) in &mut self.candidates {
            mac.update(bytes);
        }
    }

    /// The key under which one of the signatures holds. Every comparison is made and takes constant
    /// time.
    fn finish(self: Box<Self>) -> Result<Arc<Key>, Refusal> {
        let mut held = Err(Refusal::Mismatch);
        for (key, mac) in self.candidates {
            let computed = mac.finalize();
            let fitting = self.signatures.iter().filter(|&signature| computed == *signature);
            if fitting.count() > 0 {
                held = Ok(key);
            }
        }
        held
    }
}

impl<M: Mac> fmt::Debug for MacCheck<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MacCheck").finish_non_exhaustive()
    }
}
