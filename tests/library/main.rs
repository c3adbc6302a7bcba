//! The library through its public names alone.

mod canary;
#[cfg(feature = "event")]
mod coalesce;
#[cfg(feature = "event")]
mod corpus_events;
mod floors;
mod gate_body;
mod gate_credentials;
mod gate_service;
mod gate_sources;

#[path = "../support/mod.rs"]
mod support;
