//! Who may call: networks that are fixed, and networks in files that are followed.
//!
//! An [`AllowList`] lets in whom one of its parts names. A part that names nobody, such as a file that is not
//! there, lets nobody in: a mistake closes a hook and never opens it.
//!
//! With the feature `watch`, `NetworkFile::follow` keeps a part in step with a file, one address or CIDR block
//! a line:
//!
//! 1. A file that parses is in force within two seconds of its change.
//! 2. One that lacks its final newline, or in which something is missing that was there, may be half written:
//!    it is taken when a second read 250 ms later finds the same.
//! 3. One that does not parse, is empty or is gone leaves the last good list in force. That is logged with the
//!    line, and `NetworkFile::error` tells it.

#[cfg(feature = "watch")]
mod follow;

use std::fmt;
use std::sync::Arc;

#[cfg(feature = "watch")]
pub use follow::{MAX_FILE_BYTES, NetworkFile};

use crate::source::{Networks, Source};

/// The networks from which requests are taken. Clones share the files.
#[derive(Clone)]
pub struct AllowList {
    networks: Arc<Networks>,
    #[cfg(feature = "watch")]
    files: Vec<NetworkFile>,
}

impl AllowList {
    /// Those in `networks`, which do not change.
    pub fn new(networks: Networks) -> Self {
        Self {
            networks: Arc::new(networks),
            #[cfg(feature = "watch")]
            files: Vec::new(),
        }
    }

    /// And those in this file.
    #[cfg(feature = "watch")]
    #[must_use]
    pub fn file(mut self, file: NetworkFile) -> Self {
        self.files.push(file);
        self
    }

    /// Whether `source` may call.
    pub fn allows(&self, source: Source) -> bool {
        #[cfg(feature = "watch")]
        let in_file = self.files.iter().any(|file| file.contains(source));
        #[cfg(not(feature = "watch"))]
        let in_file = false;
        self.networks.contains(source) || in_file
    }
}

impl fmt::Debug for AllowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("AllowList");
        #[cfg(feature = "watch")]
        debug.field("files", &self.files);
        debug.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_named_may_call_and_nobody_else() {
        let source = |address: &str| Source(address.parse().unwrap());
        let list = AllowList::new(Networks::parse("192.0.2.0/24").unwrap());
        assert!(list.allows(source("192.0.2.1")) && list.allows(source("::ffff:192.0.2.1")));
        assert!(!list.allows(source("192.0.3.1")));
        assert!(!AllowList::new(Networks::default()).allows(source("192.0.2.1")));
    }
}
