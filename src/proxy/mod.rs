//! The sidecar: the gate as a reverse proxy.

pub mod head;
pub mod limit;
pub mod spool;
pub mod telemetry;
pub mod tls;
pub mod unread;

pub mod upstream;

pub mod config;

pub mod dispatch;

pub mod admin;
pub mod stack;

pub mod listen;

pub mod app;
