//! The sidecar: a reverse proxy with the gate in front of the service behind it.

pub mod telemetry;
pub mod upstream;
