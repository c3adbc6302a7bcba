//! What the tests of the program share: the program itself, its clients, a service behind it, and the
//! hosts in front of it.
//!
//! Everything here is blocking: a test is a thread, and what it waits for it waits for under [`PATIENCE`].

pub(crate) mod client;
pub(crate) mod gate;
pub(crate) mod host;
pub(crate) mod load;
pub(crate) mod spool;
pub(crate) mod tls;
pub(crate) mod upstream;

use std::time::{Duration, Instant};

/// How long anything that must happen may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Waits until `probe` has something.
#[track_caller]
pub(crate) fn until<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, probe).unwrap_or_else(|| panic!("did not happen in time: {what}"))
}

/// Waits for so long until `probe` has something.
pub(crate) fn within<T>(patience: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}

/// The first key of a key file's text.
pub(crate) fn key_of(text: &str) -> String {
    let line = text.lines().find(|line| !line.starts_with('#')).expect("a key");
    line.split(' ').next().expect("a key").to_owned()
}
