//! The sidecar: the gate as a reverse proxy.
//!
//! The parts in floor order: each uses those above it in this list, and none below.
//!
//! | part | what it does |
//! |---|---|
//! | [`telemetry`], [`limit`], [`tls`], [`head`], [`unread`] | metrics and logs; connection limits; TLS; what a head may be; `Connection: close` |
//! | [`state`] | the state folder, which one process has |
//! | [`socket`], [`proxied`] | where listeners are bound; who is behind a proxy of connections |
//! | [`spool`], [`switch_file`] | where deliveries wait until the service has them; what operators said of hooks |
//! | [`upstream`] | the service behind the gate, and how a delivery is sent to it |
//! | `otlp` | spans for a collector, with the feature of that name |
//! | [`config`] | what the sidecar is told |
//! | [`dispatch`] | what happens to a delivery that passed the gate |
//! | [`stack`], [`admin`], [`control`] | a request's way; probes and metrics; what operators ask |
//! | [`listen`] | connections under limits and deadlines |
//! | [`app`] | all of it: built, run, reloaded, drained |
//!
//! A sidecar of your own is put together from the same parts: see `examples/sidecar.rs`.

pub mod head;
pub mod limit;
pub mod proxied;
pub mod socket;
pub mod state;
pub mod telemetry;
pub mod tls;
pub mod unread;

pub mod spool;
#[cfg(unix)]
pub mod switch_file;
pub mod upstream;

#[cfg(feature = "otlp")]
pub mod otlp;

pub mod config;

pub mod dispatch;

pub mod admin;
#[cfg(unix)]
pub mod control;
pub mod stack;

pub mod listen;

pub mod app;
