//! The library through its public names alone.

mod gate_body;

#[path = "../support/mod.rs"]
mod support;
