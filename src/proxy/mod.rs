//! The sidecar: the gate as a reverse proxy.

pub mod limit;
