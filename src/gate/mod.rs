//! The gate: a tower layer that lets only authentic deliveries reach a service.
//!
//! ```
//! use hookgate::gate::GateLayer;
//! use hookgate::key::{Key, Keyring};
//! use hookgate::keystore::KeyStore;
//!
//! let key = Key::plain("2026-11", "sdf34tGdfgGDG345g3y0045TYG23te37").unwrap();
//! let layer = GateLayer::new(KeyStore::fixed(Keyring::single(key)));
//! # let _ = layer;
//! ```
//!
//! # What it does with a request
//!
//! Cheapest first, so that a stranger costs as little as possible:
//!
//! 1. The path, where one was given: else 404. A URL key is taken out of it.
//! 2. The [source](crate::source::Source), where only some may call: else 403.
//! 3. The method, one that the hook's providers use: else 405. A GET, with its payload in the query
//!    and no body, is taken from Gitea and Forgejo alone.
//! 4. The [switch](crate::switch::Switch): else 403.
//! 5. The length that is declared: else 413.
//! 6. The shape of the credentials, tokens among them; then the URL key: else 401. Where none of them is
//!    good yet, and there is a [`RefusalLimit`] that the source has used up: 429.
//! 7. Only now the body, under a deadline, a least rate, a size limit and the [`Budget`], hashed as
//!    it arrives: else 408, 413 or 503.
//! 8. The signature: else 401.
//! 9. The media type and the payload: else 415 or 400.
//!
//! What passes reaches the inner service with a [`Delivery`](crate::delivery::Delivery) in its
//! extensions and a [`GateBody`] that holds what was verified, byte for byte.
//!
//! # Credentials
//!
//! A request passes when it shows at least one good credential and *no bad one*: a signature that is
//! there must hold, also beside a good URL key. All that fail get the same 401 without a reason; the
//! reason is in the [`Rejection`] in the answer's extensions.
//!
//! # As a middleware
//!
//! - Refusals are answers and not errors: `Error` is the inner service's.
//! - The inner service's readiness is claimed only for verified deliveries: strangers take no place
//!   in a concurrency limit behind the gate.
//! - Put it *inside* anything that changes bodies: a layer or proxy that decompresses or re-encodes
//!   a body before the gate breaks its signature.
//! - A [`Source`](crate::source::Source) in the request's extensions, as [`SourceLayer`] puts it there, gives each source its share of
//!   the budget and its own [`RefusalLimit`]; without one all of the budget is for everyone, nobody's refusals
//!   are counted, and a gate with [`allow_from`](GateBuilder::allow_from) lets nobody in.
//! - It needs tokio's timer while a body is read.

mod body;
mod budget;
mod check;
mod future;
mod layer;
mod refusals;
mod rejection;
mod service;
mod source;

pub use body::{BodyError, GateBody, ResponseBody};
pub use budget::{Budget, SMALL_BODY};
pub use future::ResponseFuture;
pub use layer::{GateBuilder, GateError, GateLayer, is_hook_path};
pub use refusals::RefusalLimit;
pub use rejection::Rejection;
pub use service::Gate;
pub use source::{SourceLayer, WithSource};
