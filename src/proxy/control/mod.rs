//! What an operator asks of a gate: a socket beside its state, and the commands' way to it.
//!
//! The gate listens on a Unix socket in its state folder ([`SOCKET_NAME`]). Whoever may open it, which is
//! the owner of the gate alone, may look at deliveries and decide about them; so nothing of this is ever
//! answered on an address. It is HTTP/1.1, so `curl --unix-socket` will do:
//!
//! | request | answer |
//! |---|---|
//! | `GET /spool?state=dead&hook=…&repository=…&before=…&id=…&after=…&limit=…` | what is there, without contents |
//! | `GET /spool/ID` | one delivery with its content |
//! | `GET /spool/export?…` | JSON lines with contents; the header `hookgate-next` says where the next page begins |
//! | `GET /spool/status` | how the spool is |
//! | `POST /spool/redeliver` | which deliveries are sent again: `{"ids":[17],"states":["dead"],…,"all":true}` |
//! | `POST /spool/purge` | which deliveries were removed; told likewise |
//! | `GET /status` | how the gate is: [`GateStatus`] |
//! | `POST /switch` | all switches after a change: `{"hook":"default","to":"disabled"}`; `enabled`, `as-configured`; `"all":true` in place of a hook |
//! | `GET /log`, `POST /log` | what is logged, after a change: `{"level":"debug","format":"json"}` |
//!
//! What is wrong is told as RFC 9457 `application/problem+json`.
//!
//! 1. **The socket** is for its owner alone before anybody can reach it, and takes the place of one that
//!    a dead process left ([`bind_unix`](crate::proxy::socket::bind_unix)).
//! 2. **Pages.** Every answer is bounded: at most 1000 deliveries, and an export ends a page after 8 MiB.
//!    Whoever wants all of it asks again, so that long work can be watched and stopped.
//! 3. **A change of everything** has to be asked for by that word: an empty selection is refused.
//! 4. **What was begun is done**, also if whoever asked has gone, and the gate hears of it.
//!
//! What the gate tells of itself comes from a [`LiveGate`]. [`Operator`] is the same for a gate that runs and for the file of one that does not.

mod client;
mod error;
mod json;
mod live;
mod operator;
mod query;
mod server;
mod service;
#[cfg(test)]
mod tests;

pub use client::ControlClient;
pub use error::{ControlError, ControlErrorKind};
pub use json::{entry_json, status_json, stored_json};
pub use live::{
    GateStatus, HookStatus, KeyFileStatus, KeyStatus, ListenerStatus, LiveGate, LogChange,
    LogStatus, RefusalStatus, SpoolStatus, Stopping, SwitchStatus, UpstreamStatus,
};
pub use operator::Operator;
pub use server::ControlServer;
pub use service::Control;

/// The name of the socket in the state folder.
pub const SOCKET_NAME: &str = "control.sock";

/// The header that says where the next page of an export begins.
const NEXT: &str = "hookgate-next";
