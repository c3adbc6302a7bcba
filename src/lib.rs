//! The gate for git webhooks: lets authentic deliveries through to the service behind it, and nothing else.
//!
//! It stands in front of whatever indexes your repositories. Each delivery of a git host must prove that it
//! comes from that host, by a signature, a token or a key in its URL. One that does not costs as
//! little as possible and never reaches the service.
//!
//! # Three uses
//!
//! 1. **A layer.** [`gate::GateLayer`] is a [`tower_layer::Layer`] for a hyper or axum application. Its
//!    keys are in a [`keystore::KeyStore`], which can be changed or follow a file while requests run.
//!    [`gate::SourceLayer`] before it says who calls, and the module `coalesce` has a layer to put behind it.
//! 2. **A sidecar.** The program `hookgate` is a reverse proxy in front of a service that cannot be
//!    changed: `hookgate serve --upstream http://127.0.0.1:9000`. It is made of the module `proxy`,
//!    whose parts are public as well.
//! 3. **A set of rules.** [`scheme`] verifies and signs as each host does, without I/O and without a clock: for
//!    tests, for senders, and for services that do the rest themselves. The module `event` tells which
//!    repository and which refs a delivery is about.
//!
//! ```
//! use hookgate::gate::GateLayer;
//! use hookgate::key::Keyring;
//! use hookgate::keystore::KeyStore;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keys = Keyring::parse(b"sdf34tGdfgGDG345g3y0045TYG23te37 name=2026-11\n")?;
//! let gate = GateLayer::builder(KeyStore::fixed(keys)).path("/webhook").build()?;
//! # let _ = gate;
//! # Ok(())
//! # }
//! ```
//!
//! Whoever gets a request from the gate finds a [`delivery::Delivery`] in its extensions; whoever sees
//! a refusal, outside of the gate, a [`gate::Rejection`].
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | none | | the layer, keys, schemes and pace; of tokio only its timer and sync |
//! | `event` | | parsers that tell what a delivery says, rules over it, keys that are bound to repositories; the module `coalesce` and with it the tasks of tokio |
//! | `watch` | | key files that are followed, on Unix |
//! | `tracing` | | what the gate refuses and what becomes of files, as events of `tracing` |
//! | `sidecar` | yes | the three above, the module `proxy` and the program |
//!
//! A feature adds, and changes nothing that is there without it. One thing follows: a key that is bound to
//! repositories (`repositories=`) vouches for nothing without `event`, since nobody could tell which
//! repository a delivery is about.
//!
//! # Floors
//!
//! A module uses lower floors and itself.
//!
//! | floor | modules | |
//! |---|---|---|
//! | 0 | [`form`], [`outcome`], [`provider`], [`repository`], [`secret`], [`source`], [`time`] | words: plain types |
//! | 1 | [`key`] | keys and the file that holds them |
//! | 2 | `event`, [`pace`], [`scheme`] | rules: bytes, headers, keys and the time go in, a verdict comes out |
//! | 3 | [`clock`], `watch` | what time it is, and what files say |
//! | 4 | [`allow_list`], [`delivery`], [`keystore`], [`switch`] | what is in force now |
//! | 5 | [`gate`] | the layer, which puts the steps in order |
//! | 6 | `coalesce` | the layer behind it, which brings bursts together |
//! | 7 | `proxy` | the sidecar, with floors of its own |
//!
//! To audit how a delivery is proved, read [`scheme`] and, for the order of the checks, [`gate`].
//!
//! # Names
//!
//! *Downstream* is the git host, *upstream* the service behind the gate. A *delivery* is one request of a host,
//! an *event* what it says. A *credential* is a signature, a token or a URL key.

pub mod form;
pub mod outcome;
pub mod provider;
pub mod repository;
pub mod secret;
pub mod source;
pub mod time;

pub mod key;

#[cfg(feature = "event")]
pub mod event;
pub mod pace;
pub mod scheme;

pub mod clock;
#[cfg(feature = "watch")]
pub mod watch;

pub mod allow_list;
pub mod delivery;
pub mod keystore;
pub mod switch;

pub mod gate;

#[cfg(feature = "event")]
pub mod coalesce;

#[cfg(feature = "sidecar")]
pub mod proxy;

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
