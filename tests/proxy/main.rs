//! The real program, driven over sockets with what git hosts send, good and bad.
//!
//! Each test starts `hookgate` in a folder of its own, on ports that the system chooses, and leaves nothing
//! running. Deliveries are signed with the library's own `sign` and, where hosts publish some, checked
//! against their vectors. Times are limits, never waits: what must happen is polled for.

mod support;

mod canary;
mod commands;
mod corpus;
mod deliver;
mod deploy;
mod gij;
mod http;
mod indexer;
mod life;
mod listener;
mod live;
mod pace;
mod reload;
mod sources;
mod spool;
mod spool_cli;
mod supervisor;
mod tracing;
mod usage;
