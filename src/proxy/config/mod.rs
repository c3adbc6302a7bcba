//! What the sidecar is told: flags and environment over a file over defaults.
//!
//! Four steps, four types. What was typed is [`Overrides`], what the file says is private to this
//! module, what both mean is [`Config`], checked, with every value in the form in which it is used.
//! Nothing here binds a socket, makes a file or changes anything: [`Config::load`] can be called to
//! look, and is called again whenever the file changes.
//!
//! All problems of a file are told together, each with line and column and with what would be
//! right. An unknown key is a problem: a misspelt limit must not be a missing one. Of the file's text
//! nothing is repeated, since an upstream URL can hold a secret.
//!
//! Relative paths in the file belong to the folder of the file, those of flags to the working
//! directory, and the default key file to the state folder.

mod error;
mod hook;
mod listen;
mod raw;
mod schema;
mod source;
mod spanned;
mod tracing;
mod value;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::{ConfigError, Problem};
pub use hook::{DeliveryMode, HookConfig, Paces};
use raw::RawConfig;
pub use schema::schema;
pub use source::AllowFrom;
pub use tracing::TracingConfig;
use value::{Print, Reader};

use super::socket::ListenAddress;
use super::spool::SpoolConfig;
use crate::pace::Rate;
use crate::source::{Networks, TrustedProxies};

/// The largest configuration file that is read: 1 MiB.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// What flags and the environment say.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// Where to listen for deliveries.
    pub listen: Option<String>,
    /// Where to listen for probes, or `off`.
    pub health: Option<String>,
    /// The upstream of hooks that name none.
    pub upstream: Option<String>,
    /// The key file of hooks that name none.
    pub key_file: Option<PathBuf>,
    /// The state folder.
    pub state_dir: Option<PathBuf>,
}

/// What the sidecar is to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that this was read from, if there was one.
    pub file: Option<PathBuf>,
    /// Where to listen for deliveries. Default: `127.0.0.1:8080`.
    pub listen: ListenAddress,
    /// Where to listen for probes; `None` for nowhere. Default: `127.0.0.1:8081`.
    pub health: Option<ListenAddress>,
    /// The permissions of Unix sockets that are made for both. Default: `0o660`.
    pub socket_mode: u32,
    /// The only peers that may connect for deliveries, and that say in the PROXY protocol who is behind
    /// them; `None` if anybody may, and none does. Default: `None`.
    pub proxies: Option<Networks>,
    /// The state folder. Default: `hookgate-state` in the working directory.
    pub state_dir: PathBuf,
    /// Certificate and key, for TLS on the first listener.
    pub tls: Option<TlsFiles>,
    /// Whose word counts for who the client is. Default: nobody's.
    pub trusted_proxies: TrustedProxies,
    /// The limits.
    pub limits: Limits,
    /// Where deliveries wait until the service has them; `None` to keep none. Default: in the state
    /// folder.
    pub spool: Option<SpoolConfig>,
    /// After this time a delivery is given up that does not arrive. Default: 7 days.
    pub max_age: Duration,
    /// By then a host hears of its delivery, whatever the service does, if there is a spool. Default:
    /// 3.5 s, since Gitea waits for 5 s.
    pub answer_within: Duration,
    /// Calls to one service at the same time, if there is a spool. Default: 256.
    pub concurrency: usize,
    /// How requests are traced.
    pub tracing: TracingConfig,
    /// The hooks; at least one.
    pub hooks: Vec<HookConfig>,
    /// Other files that were read for this, such as certificate authorities.
    pub also_read: Vec<PathBuf>,
    /// What was in the files.
    prints: HashMap<PathBuf, Print>,
}

/// The files of the listener's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// How much is taken in, and how long it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest JSON body in bytes; a form may have three times that. Default: 25 MiB.
    pub max_body: u64,
    /// The time in which a body must be there. Default: 10 s.
    pub body_deadline: Duration,
    /// The room for bodies in memory, in bytes. Default: 64 MiB.
    pub unverified_bytes: usize,
    /// One source's share of connections and of that room, in percent. Default: 25.
    pub per_source: u8,
    /// What each source may have refused until it has to wait. Default: no limit.
    pub unauthenticated_per_source: Option<Rate>,
    /// Verified requests that are handled at the same time. Default: 1024.
    pub in_flight: usize,
    /// Open connections. Default: 10,000.
    pub connections: usize,
    /// How long a connection may be idle. Default: 75 s.
    pub keep_alive: Duration,
    /// How long open requests may take when the gate stops. Default: 25 s.
    pub grace_period: Duration,
    /// How long the gate says that it is not ready before it stops listening. Default: none.
    pub shutdown_delay: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body: 25 << 20,
            body_deadline: Duration::from_secs(10),
            unverified_bytes: 64 << 20,
            per_source: 25,
            unauthenticated_per_source: None,
            in_flight: 1024,
            connections: 10_000,
            keep_alive: Duration::from_secs(75),
            grace_period: Duration::from_secs(25),
            shutdown_delay: Duration::ZERO,
        }
    }
}

impl Config {
    /// Reads and checks everything that `overrides` and the file that they name say.
    ///
    /// # Errors
    ///
    /// All that is wrong.
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        let (text, raw) = match &overrides.config {
            None => (String::new(), RawConfig::default()),
            Some(path) => {
                let text = read(path).map_err(|error| ConfigError::unreadable(path, &error))?;
                let raw = toml::from_str(&text)
                    .map_err(|error| ConfigError::syntax(path, &text, &error))?;
                (text, raw)
            }
        };
        let mut reader = Reader::new(overrides.config.as_deref(), &text);
        let config = Self::check(raw, overrides, &mut reader);
        reader.finish(config)
    }

    /// The default configuration, which has nothing wrong.
    fn check(raw: RawConfig, overrides: &Overrides, reader: &mut Reader<'_>) -> Self {
        let folder = reader.folder();
        let listen = match &overrides.listen {
            Some(text) => reader.flag("--listen", text, |text| ListenAddress::parse(text, None)),
            None => reader.value(raw.listen, |text| ListenAddress::parse(text, folder)),
        };
        let listen = listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080)).into());
        let health = match &overrides.health {
            Some(text) => {
                reader.flag("--health", text, |text| listen::optional_address(text, None))
            }
            None => reader.value(raw.health, |text| listen::optional_address(text, folder)),
        };
        let socket_mode = reader.value(raw.socket_mode, listen::socket_mode);
        let proxies =
            listen::check_proxies(raw.proxy_protocol, raw.proxy_protocol_from, &listen, reader);
        let state_dir = match (&overrides.state_dir, raw.state_dir) {
            (Some(flag), _) => flag.clone(),
            (None, Some(path)) => reader.path(path.into_inner()),
            (None, None) => PathBuf::from("hookgate-state"),
        };
        let tls = raw.tls.map(|tls| TlsFiles {
            certificate: reader.path(tls.certificate_file),
            key: reader.path(tls.key_file),
        });
        let trusted_proxies = source::check_proxies(raw.trusted_proxies, raw.client_header, reader);
        let allow_from = source::check_allow_from(raw.allow_from, raw.allow_from_files, reader);
        let limits = check_limits(raw.limits, reader);
        let max_age = reader.value(raw.spool.max_age.clone(), value::duration);
        let spool = check_spool(raw.spool, &state_dir, reader);
        let answer_within = reader.value(raw.upstream.answer_within.clone(), value::duration);
        let concurrency = reader.count(raw.upstream.concurrency.clone());
        let tracing = tracing::check(raw.tracing, reader);
        let defaults = hook::Defaults::new(raw.upstream, overrides, &state_dir, reader);
        let defaults = defaults.allow_from(allow_from);
        let mut hooks: Vec<_> =
            raw.hook.into_iter().map(|raw| hook::check(raw, &defaults, reader)).collect();
        if hooks.is_empty() {
            hooks.push(HookConfig::default_with(&defaults));
        }
        check_together(&hooks, spool.is_some(), reader);
        let (also_read, prints) = reader.take_files();
        Self {
            file: overrides.config.clone(),
            listen,
            health: health.unwrap_or_else(|| Some(SocketAddr::from(([127, 0, 0, 1], 8081)).into())),
            socket_mode: socket_mode.unwrap_or(0o660),
            proxies,
            state_dir,
            tls,
            trusted_proxies,
            limits,
            spool,
            max_age: max_age.unwrap_or(Duration::from_secs(7 * 24 * 3600)),
            answer_within: answer_within.unwrap_or(Duration::from_millis(3500)),
            concurrency: concurrency.unwrap_or(256),
            tracing,
            hooks,
            also_read,
            prints,
        }
    }

    /// Every file whose change can change this configuration.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let tls = self.tls.iter().flat_map(|tls| [&tls.certificate, &tls.key]);
        self.file.iter().chain(&self.also_read).chain(tls).map(PathBuf::as_path)
    }

    /// Whether this is what was in the file when it was read for this configuration.
    pub(super) fn has_read(&self, path: &Path, content: &[u8]) -> bool {
        self.prints.get(path).is_some_and(|print| *print == Print::of(content))
    }

    /// The keys of `next` that differ and take effect only when the process starts.
    pub fn needs_restart(&self, next: &Self) -> Vec<&'static str> {
        let differing = [
            ("listen", self.listen != next.listen),
            ("health", self.health != next.health),
            ("socket_mode", self.socket_mode != next.socket_mode),
            ("proxy_protocol", self.proxies.is_some() != next.proxies.is_some()),
            (
                "proxy_protocol_from",
                self.proxies.is_some() && next.proxies.is_some() && self.proxies != next.proxies,
            ),
            ("state_dir", self.state_dir != next.state_dir),
            ("tls", self.tls != next.tls),
            ("spool", self.spool != next.spool),
            ("upstream.concurrency", self.concurrency != next.concurrency),
            #[cfg(feature = "otlp")]
            ("tracing.endpoint", self.tracing.export != next.tracing.export),
            (
                "limits.unverified_bytes",
                self.limits.unverified_bytes != next.limits.unverified_bytes,
            ),
            ("limits.per_source", self.limits.per_source != next.limits.per_source),
            ("limits.in_flight", self.limits.in_flight != next.limits.in_flight),
            ("limits.connections", self.limits.connections != next.limits.connections),
            ("limits.keep_alive", self.limits.keep_alive != next.limits.keep_alive),
            ("limits.grace_period", self.limits.grace_period != next.limits.grace_period),
            ("limits.shutdown_delay", self.limits.shutdown_delay != next.limits.shutdown_delay),
        ];
        differing.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}

fn read(path: &Path) -> io::Result<String> {
    let size = fs::metadata(path)?.len();
    if size > MAX_FILE_BYTES {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    fs::read_to_string(path)
}

fn check_limits(raw: raw::RawLimits, reader: &mut Reader<'_>) -> Limits {
    let default = Limits::default();
    Limits {
        max_body: reader.value(raw.max_body, value::size).unwrap_or(default.max_body),
        body_deadline: reader
            .value(raw.body_deadline, value::duration)
            .unwrap_or(default.body_deadline),
        unverified_bytes: reader
            .value(raw.unverified_bytes, |text| {
                usize::try_from(value::size(text)?)
                    .map_err(|_| "more than this machine can address")
            })
            .unwrap_or(default.unverified_bytes),
        per_source: reader.value(raw.per_source, value::percent).unwrap_or(default.per_source),
        unauthenticated_per_source: reader
            .value(raw.unauthenticated_per_source, source::optional_rate)
            .unwrap_or(default.unauthenticated_per_source),
        in_flight: reader.count(raw.in_flight).unwrap_or(default.in_flight),
        connections: reader.count(raw.connections).unwrap_or(default.connections),
        keep_alive: reader.value(raw.keep_alive, value::duration).unwrap_or(default.keep_alive),
        grace_period: reader
            .value(raw.grace_period, value::duration)
            .unwrap_or(default.grace_period),
        shutdown_delay: reader
            .value(raw.shutdown_delay, value::any_duration)
            .unwrap_or(default.shutdown_delay),
    }
}

/// `None` if there is to be none.
fn check_spool(
    raw: raw::RawSpool,
    state_dir: &Path,
    reader: &mut Reader<'_>,
) -> Option<SpoolConfig> {
    let mut spool = SpoolConfig::new(state_dir.join("spool"));
    spool.max_bytes = reader.value(raw.max_bytes, value::size).unwrap_or(spool.max_bytes);
    spool.free_floor = reader.value(raw.min_free, value::any_size).unwrap_or(spool.free_floor);
    spool.history_age = reader.value(raw.history, value::any_duration).unwrap_or(spool.history_age);
    spool.history_bytes =
        reader.value(raw.history_bytes, value::any_size).unwrap_or(spool.history_bytes);
    raw.enabled.unwrap_or(true).then_some(spool)
}

/// What no hook can see alone.
fn check_together(hooks: &[HookConfig], has_spool: bool, reader: &mut Reader<'_>) {
    let mut names = HashSet::new();
    for hook in hooks {
        if hook.delivery == DeliveryMode::Spool && !has_spool {
            let text = format!("hook {} delivers from the spool, which is off", hook.name);
            reader.problem(hook.at.clone(), text);
        }
        if hook.paces.is_limited() && !has_spool {
            let text =
                format!("hook {} has a rate, which needs the spool, which is off", hook.name);
            reader.problem(hook.at.clone(), text);
        }
        if !names.insert(&hook.name) {
            reader.problem(hook.at.clone(), format!("two hooks have the name {}", hook.name));
        }
    }
    for (at, hook) in hooks.iter().enumerate() {
        for other in &hooks[..at] {
            if hook.path == other.path {
                let text = format!("hooks {} and {} have the same path", other.name, hook.name);
                reader.problem(hook.at.clone(), text);
            } else if hook.shadows(other) || other.shadows(hook) {
                let text = format!(
                    "the path of one of the hooks {} and {} is where the other one's URL key would stand",
                    other.name, hook.name
                );
                reader.problem(hook.at.clone(), text);
            }
        }
    }
}

#[cfg(test)]
mod tests;
