//! The library through its public names alone.

mod gate_body;
mod gate_credentials;

#[path = "../support/mod.rs"]
mod support;
