//! The sidecar: the gate as a reverse proxy.

pub mod head;
pub mod limit;
pub mod listen;
pub mod tls;
pub mod unread;
