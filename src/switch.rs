//! The switch of a gate: enabled or disabled, changed while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a gate lets anything in. Clones are the same switch.
///
/// A change holds for every request that begins after it; requests that are past the switch finish.
#[derive(Clone, Debug)]
pub struct Switch(Arc<AtomicBool>);

impl Switch {
    /// A switch in the given position.
    pub fn new(enabled: bool) -> Self {
        Self(Arc::new(AtomicBool::new(enabled)))
    }

    /// Lets deliveries in.
    pub fn enable(&self) {
        self.set(true);
    }

    /// Keeps every delivery out.
    pub fn disable(&self) {
        self.set(false);
    }

    /// Puts the switch into the given position.
    pub fn set(&self, enabled: bool) {
        self.0.store(enabled, Ordering::Relaxed);
    }

    /// Whether deliveries are let in.
    pub fn is_enabled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// An enabled switch.
impl Default for Switch {
    fn default() -> Self {
        Self::new(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_are_the_same_switch() {
        let switch = Switch::default();
        let other = switch.clone();
        assert!(switch.is_enabled());
        other.disable();
        assert!(!switch.is_enabled());
        switch.enable();
        assert!(other.is_enabled());
    }
}
