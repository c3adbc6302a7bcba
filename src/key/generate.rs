//! Making keys that nobody can guess.

use zeroize::Zeroizing;

use crate::secret::Secret;

/// A fresh random key: 32 characters of `A-Z a-z 0-9`, which is 190 bits.
///
/// The random bytes come from the operating system.
///
/// # Errors
///
/// What the operating system says if it has no random bytes to give.
pub fn generate() -> Result<Secret, getrandom::Error> {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    const LENGTH: usize = 32;
    let mut key = Vec::with_capacity(LENGTH);
    let mut random = Zeroizing::new([0_u8; 64]);
    while key.len() < LENGTH {
        getrandom::fill(&mut *random)?;
        // 248 is the largest multiple of 62 in a byte: above it some characters would be likelier.
        let fair = random.iter().filter(|&&byte| byte < 248);
        key.extend(fair.map(|&byte| ALPHABET[usize::from(byte % 62)]).take(LENGTH - key.len()));
    }
    Ok(Secret::new(key))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_are_alphanumeric_of_full_length_and_never_the_same() {
        let keys: HashSet<Vec<u8>> =
            (0..200).map(|_| generate().unwrap().expose().to_vec()).collect();
        assert_eq!(keys.len(), 200);
        assert!(keys.iter().all(|key| key.len() == 32));
        assert!(keys.iter().flatten().all(u8::is_ascii_alphanumeric));
        // 6,400 draws of 62 characters: that one never comes has a chance below 10^-43.
        assert_eq!(keys.iter().flatten().collect::<HashSet<_>>().len(), 62);
    }
}
