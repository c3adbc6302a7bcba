//! The library through its public names alone.

mod gate_body;
mod gate_credentials;
mod gate_service;

#[path = "../support/mod.rs"]
mod support;
