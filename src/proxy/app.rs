//! The sidecar as a whole: built from a configuration, then run until it is told to stop.
//!
//! [`App::build`] makes what is missing (state folder, key files), reads the keys and binds the
//! sockets; nothing is served yet. [`App::run`] serves, follows every file, and stops in this order:
//! not ready, wait, stop accepting, finish what is open within the grace period.
//!
//! When the configuration changes, a good one is in force for the next request: hooks, keys, upstreams
//! and limits of single requests. What is bound or sized at the start (addresses, the state folder,
//! connection limits) stays until a restart, and the log says so. A bad one changes nothing.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::sync::{Semaphore, watch as signal};
use tower::Layer;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;

use super::admin::Admin;
use super::config::{Config, ConfigError, HookConfig, MAX_FILE_BYTES, Overrides};
use super::dispatch::{Dispatch, Target};
use super::listen::{ListenConfig, ListenError, ListenStats, Listener};
use super::stack::{Hook, Stack, Table};
use super::telemetry::{ConnectionSample, KeyringSample, Metrics, Sample};
use super::tls::{ServerTls, TlsError};
use super::unread::CloseUnreadLayer;
use super::upstream::Upstream;
use crate::clock::{Clock, SystemClock};
use crate::event::{ParseOptions, Rules};
use crate::gate::{Budget, GateError, GateLayer};
use crate::key::{KeyState, Use};
use crate::keystore::{KeyStore, create_key_file, create_private_folder};
use crate::switch::Switch;
use crate::watch::{Take, WatchGuard, Watcher};

/// A sidecar whose sockets are bound.
#[derive(Debug)]
pub struct App {
    shared: Arc<Shared>,
    deliveries: Listener,
    probes: Option<Listener>,
    watcher: Watcher,
    _lock: File,
}

/// How a sidecar stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Everything that was open was finished.
    Drained,
    /// The grace period ended with so many connections open.
    Cut(usize),
}

/// What serving, reloading and probing share.
struct Shared {
    overrides: Overrides,
    live: Mutex<Live>,
    stack: Stack,
    metrics: Arc<Metrics>,
    budget: Budget,
    in_flight: Arc<Semaphore>,
    in_flight_limit: usize,
    tls: Option<ServerTls>,
    listeners: Vec<Arc<ListenStats>>,
    connection_limit: usize,
    stopping: AtomicBool,
    watcher: Watcher,
}

/// What the configuration in force is made of, kept where a new one says the same.
struct Live {
    config: Config,
    stores: HashMap<PathBuf, KeyStore>,
    upstreams: Vec<Upstream>,
    switches: HashMap<String, Switch>,
}

impl App {
    /// Makes what is missing, reads the keys and binds the sockets.
    ///
    /// `overrides` is what `config` was loaded with, and will be loaded with again.
    ///
    /// # Errors
    ///
    /// [`AppError`] if a folder, a file or a socket cannot be had. A key file that is missing and
    /// cannot be made, or is bad, is none: it is logged, and its hook refuses everything until the
    /// file is good.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn build(config: Config, overrides: Overrides) -> Result<Self, AppError> {
        let lock = lock(&config.state_dir)?;
        let tls = match &config.tls {
            Some(files) => Some(ServerTls::from_files(&files.certificate, &files.key)?),
            None => None,
        };
        let limits = config.limits.clone();
        let deliveries = Listener::bind(ListenConfig {
            tls: tls.clone(),
            connections: limits.connections,
            per_source: limits.per_source,
            keep_alive: limits.keep_alive,
            drain: limits.grace_period,
            ..ListenConfig::new(config.listen)
        })?;
        let probes = match config.health {
            // Scrapers are few; they must neither be crowded out nor crowd out the deliveries.
            Some(address) => Some(Listener::bind(ListenConfig {
                connections: 64,
                per_source: 100,
                drain: Duration::from_secs(1),
                ..ListenConfig::new(address)
            })?),
            None => None,
        };
        let watcher = Watcher::spawn().map_err(AppError::Watcher)?;
        let metrics = Arc::new(Metrics::new(SystemClock.now()));
        let elsewhere = metrics.without_hook();
        let live = Live {
            config,
            stores: HashMap::new(),
            upstreams: Vec::new(),
            switches: HashMap::new(),
        };
        let shared = Arc::new(Shared {
            overrides,
            live: Mutex::new(live),
            stack: Stack::new(Table::new(), elsewhere),
            budget: Budget::new(limits.unverified_bytes, limits.per_source),
            in_flight: Arc::new(Semaphore::new(limits.in_flight)),
            in_flight_limit: limits.in_flight,
            tls,
            listeners: vec![deliveries.stats()],
            connection_limit: limits.connections,
            stopping: AtomicBool::new(false),
            watcher: watcher.clone(),
            metrics,
        });
        let config = shared.live().config.clone();
        let table =
            shared.build_hooks(&config).map_err(|(hook, error)| AppError::Hook(hook, error))?;
        shared.stack.replace(table);
        let weak = Arc::downgrade(&shared);
        shared.metrics.sample_with(move || sample(&weak));
        Ok(Self { shared, deliveries, probes, watcher, _lock: lock })
    }

    /// Where deliveries are taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.deliveries.local_addr()
    }

    /// Where probes are answered.
    pub fn health_addr(&self) -> Option<SocketAddr> {
        self.probes.as_ref().map(Listener::local_addr)
    }

    /// The configuration with which it was built.
    pub fn config(&self) -> Config {
        self.shared.live().config.clone()
    }

    /// The keys of a hook of [`config`](Self::config).
    pub fn keys(&self, hook: &HookConfig) -> Option<KeyStore> {
        self.shared.live().stores.get(&hook.key_file).cloned()
    }

    /// Looks at every file at once, as for SIGHUP.
    pub fn reload_handle(&self) -> impl Fn() + Send + Sync + 'static {
        let watcher = self.watcher.clone();
        move || watcher.check_now()
    }

    /// Serves until `shutdown` is ready, then drains.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cuts every connection at once.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Stopped {
        let Self { shared, deliveries, probes, watcher, _lock } = self;
        let _following = follow(&shared, &watcher);
        let probing = probes.map(|probes| {
            let weak = Arc::downgrade(&shared);
            let admin = Admin::new(shared.metrics.clone(), move || missing(&weak));
            tokio::spawn(probes.serve(admin, std::future::pending()))
        });
        let (stop, mut stopped) = signal::channel(false);
        let stack = CloseUnreadLayer::new().layer(shared.stack.clone());
        let serving = tokio::spawn(deliveries.serve(stack, async move {
            // An error means that the sender is gone, which is the end as well.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        }));
        shutdown.await;
        tracing::info!("stopping: no longer ready");
        shared.stopping.store(true, Ordering::Relaxed);
        let delay = shared.live().config.limits.shutdown_delay;
        tokio::time::sleep(delay).await;
        stop.send_replace(true);
        let cut = serving.await.unwrap_or_default();
        // Probes are answered until the last delivery is.
        if let Some(probing) = probing {
            probing.abort();
        }
        if cut == 0 { Stopped::Drained } else { Stopped::Cut(cut) }
    }
}

impl Shared {
    fn live(&self) -> std::sync::MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hooks of a configuration. Stores, upstreams and switches that are there already are used
    /// again; those that are no longer named are given up when their last request ends.
    fn build_hooks(&self, config: &Config) -> Result<Table, (String, GateError)> {
        let mut live = self.live();
        let mut next = Live {
            config: config.clone(),
            stores: HashMap::new(),
            upstreams: Vec::new(),
            switches: HashMap::new(),
        };
        let mut table = Table::new();
        for hook in &config.hooks {
            let store = next.stores.entry(hook.key_file.clone()).or_insert_with(|| {
                live.stores.remove(&hook.key_file).unwrap_or_else(|| {
                    make_key_file(&hook.key_file);
                    KeyStore::follow(&hook.key_file, &self.watcher)
                })
            });
            let keys = store.clone();
            let switch = match live.switches.get(&hook.name) {
                Some(switch) => switch.clone(),
                None => Switch::new(hook.enabled),
            };
            next.switches.insert(hook.name.clone(), switch.clone());
            let upstream = hook.upstream.as_ref().map(|upstream| {
                let known = next.upstreams.iter().chain(&live.upstreams);
                let known = known.into_iter().find(|known| known.config() == upstream).cloned();
                let upstream = known.unwrap_or_else(|| Upstream::new(upstream));
                next.upstreams.push(upstream.clone());
                upstream
            });
            let layer =
                self.gate(hook, config, keys, switch).map_err(|e| (hook.name.clone(), e))?;
            table.push(self.hook(hook, layer, upstream));
        }
        for (hook, switch) in
            config.hooks.iter().zip(config.hooks.iter().map(|hook| &next.switches[&hook.name]))
        {
            switch.set(hook.enabled);
        }
        *live = next;
        Ok(table)
    }

    fn gate(
        &self,
        hook: &HookConfig,
        config: &Config,
        keys: KeyStore,
        switch: Switch,
    ) -> Result<GateLayer, GateError> {
        let mut options = ParseOptions::default();
        options.event_header.clone_from(&hook.generic_event_header);
        if !hook.generic_push_events.is_empty() {
            options.push_events.clone_from(&hook.generic_push_events);
        }
        GateLayer::builder(keys)
            .providers(hook.providers)
            .schemes(hook.schemes.clone())
            .path(&hook.path)
            .url_key(hook.url_key)
            .require_signature(hook.require_signature)
            .switch(switch)
            .disabled_status(hook.disabled_status)
            .max_body(config.limits.max_body)
            .body_deadline(config.limits.body_deadline)
            .budget(self.budget.clone())
            .parse_options(options)
            .rules(Rules::default())
            .build()
    }

    fn hook(&self, hook: &HookConfig, layer: GateLayer, upstream: Option<Upstream>) -> Hook {
        let metrics = self.metrics.hook(&hook.name);
        let target = upstream.map(|upstream| Target {
            upstream,
            // The path of a hook was checked when the configuration was read.
            path: PathAndQuery::try_from(&hook.path).unwrap_or(PathAndQuery::from_static("/")),
            forward_headers: hook.forward_headers.clone(),
            generic_header: hook.generic_header.clone(),
        });
        let dispatch = Dispatch::new(target, metrics.clone());
        let limit = GlobalConcurrencyLimitLayer::with_semaphore(self.in_flight.clone());
        let behind = LoadShedLayer::new().layer(limit.layer(dispatch));
        Hook {
            name: hook.name.as_str().into(),
            path: hook.path.clone(),
            gate: layer.layer(behind),
            metrics,
        }
    }

    /// Reads the configuration again and puts it in force if it is good.
    fn reload(&self, confirmed: bool) -> Take {
        let next = match Config::load(&self.overrides) {
            Ok(next) => next,
            // It may be half written.
            Err(_) if !confirmed => return Take::Suspicious,
            Err(error) => {
                self.metrics.config_reloaded(false);
                for problem in error.problems() {
                    tracing::error!(%problem, "configuration is not taken, the last good one stays in force");
                }
                return Take::Refused;
            }
        };
        let restart = self.live().config.needs_restart(&next);
        match self.build_hooks(&next) {
            Ok(table) => self.stack.replace(table),
            Err((hook, error)) => {
                self.metrics.config_reloaded(false);
                tracing::error!(hook, %error, "configuration is not taken, the last good one stays in force");
                return Take::Refused;
            }
        }
        self.metrics.config_reloaded(true);
        tracing::info!(hooks = next.hooks.len(), "configuration is in force");
        for key in restart {
            tracing::warn!(key, "this change takes effect only after a restart");
        }
        Take::Taken
    }

    fn reload_tls(&self, files: &super::config::TlsFiles) -> Take {
        let Some(tls) = &self.tls else { return Take::Refused };
        let read = |path: &Path| crate::watch::read(path, MAX_FILE_BYTES);
        let (Ok(certificate), Ok(key)) = (read(&files.certificate), read(&files.key)) else {
            tracing::error!("certificate or key cannot be read, the old pair stays in use");
            return Take::Refused;
        };
        match tls.reload(certificate.bytes(), key.bytes()) {
            Ok(()) => {
                tracing::info!("certificate is in use");
                Take::Taken
            }
            // While only one of the two files has been replaced.
            Err(error) => {
                tracing::warn!(%error, "certificate is not taken, the old pair stays in use");
                Take::Refused
            }
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Follows the configuration, what it names, and the certificate.
fn follow(shared: &Arc<Shared>, watcher: &Watcher) -> Vec<WatchGuard> {
    let config = shared.live().config.clone();
    let mut guards = Vec::new();
    for path in config.file.iter().chain(&config.also_read) {
        let known = crate::watch::read(path, MAX_FILE_BYTES).ok();
        let weak = Arc::downgrade(shared);
        guards.push(watcher.watch(path, MAX_FILE_BYTES, known.as_ref(), move |reading| {
            match weak.upgrade() {
                Some(shared) => shared.reload(reading.is_confirmed()),
                None => Take::Refused,
            }
        }));
    }
    if let Some(files) = &config.tls {
        for path in [&files.certificate, &files.key] {
            let known = crate::watch::read(path, MAX_FILE_BYTES).ok();
            let (weak, files) = (Arc::downgrade(shared), files.clone());
            guards.push(watcher.watch(path, MAX_FILE_BYTES, known.as_ref(), move |_| {
                weak.upgrade().map_or(Take::Refused, |shared| shared.reload_tls(&files))
            }));
        }
    }
    guards
}

/// A missing key file is made once. What then is there is never changed.
fn make_key_file(path: &Path) {
    match create_key_file(path, SystemClock.now()) {
        Ok(true) => tracing::info!(path = %path.display(), "key file made with one fresh key"),
        Ok(false) => {}
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "key file is missing and cannot be made");
        }
    }
}

/// One process at a time may use a state folder.
fn lock(folder: &Path) -> Result<File, AppError> {
    let error = |error| AppError::State(folder.into(), error);
    create_private_folder(folder).map_err(error)?;
    let file =
        fs::OpenOptions::new().create(true).truncate(false).write(true).open(folder.join("lock"));
    let file = file.map_err(error)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(AppError::Locked(folder.into())),
        Err(TryLockError::Error(cause)) => Err(error(cause)),
    }
}

fn missing(shared: &Weak<Shared>) -> Vec<String> {
    let Some(shared) = shared.upgrade() else { return vec!["stopping".into()] };
    if shared.stopping.load(Ordering::Relaxed) {
        return vec!["stopping".into()];
    }
    let live = shared.live();
    let now = SystemClock.now();
    let without_key = live.config.hooks.iter().filter(|hook| {
        let store = live.stores.get(&hook.key_file);
        hook.enabled
            && store.is_none_or(|store| {
                store.load().keys().all(|key| key.state(now) != KeyState::Active)
            })
    });
    without_key.map(|hook| format!("hook {} has no active key", hook.name)).collect()
}

fn sample(shared: &Weak<Shared>) -> Sample {
    let Some(shared) = shared.upgrade() else { return Sample::default() };
    let now = SystemClock.now();
    let live = shared.live();
    let mut keyrings: Vec<_> = live
        .stores
        .iter()
        .map(|(path, store)| {
            let status = store.status(now);
            let count = |state| status.keys.iter().filter(|key| key.state == state).count() as u64;
            let mixed = status.keys.iter().filter(|key| {
                key.state == KeyState::Active
                    && key.uses.contains(Use::Sign)
                    && (key.uses.contains(Use::Url) || key.uses.contains(Use::Token))
            });
            KeyringSample {
                file: path.display().to_string(),
                age: status.loaded_at.map(|loaded_at| now.since(loaded_at)),
                active: count(KeyState::Active),
                not_yet: count(KeyState::Pending),
                expired: count(KeyState::Expired),
                mixed_use: mixed.count() as u64,
                reloads: status.loads.saturating_sub(1),
                reload_failures: status.failures,
            }
        })
        .collect();
    keyrings.sort_by(|a, b| a.file.cmp(&b.file));
    let free = shared.in_flight.available_permits();
    let mut connections =
        ConnectionSample { limit: shared.connection_limit as u64, ..Default::default() };
    for stats in &shared.listeners {
        let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        connections.open += get(&stats.active);
        connections.accepted += get(&stats.accepted);
        connections.failed.extend([
            ("refused-by-share", get(&stats.refused_by_share)),
            ("accept-error", get(&stats.accept_errors)),
            ("handshake-failure", get(&stats.handshake_failures)),
            ("handshake-timeout", get(&stats.handshake_timeouts)),
            ("head-timeout", get(&stats.head_timeouts)),
            ("head-too-large", get(&stats.heads_too_large)),
            ("parse-error", get(&stats.parse_errors)),
            ("write-timeout", get(&stats.write_timeouts)),
            ("cut", get(&stats.cut)),
        ]);
    }
    Sample {
        in_flight: shared.in_flight_limit.saturating_sub(free) as u64,
        in_flight_limit: shared.in_flight_limit as u64,
        unverified_bytes: shared.budget.used() as u64,
        unverified_limit_bytes: shared.budget.limit() as u64,
        connections,
        keyrings,
    }
}

/// Why a sidecar cannot be built.
#[derive(Debug)]
#[non_exhaustive]
pub enum AppError {
    /// The state folder cannot be used.
    State(PathBuf, io::Error),
    /// Another process uses the state folder.
    Locked(PathBuf),
    /// A socket cannot be bound.
    Listen(ListenError),
    /// The certificate cannot be used.
    Tls(TlsError),
    /// The thread that follows files cannot be started.
    Watcher(io::Error),
    /// What a hook is told does not fit together.
    Hook(String, GateError),
    /// The configuration is wrong.
    Config(ConfigError),
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(path, _) => write!(f, "cannot use the state folder {}", path.display()),
            Self::Locked(path) => write!(
                f,
                "another hookgate uses the state folder {} already; give each its own with --state-dir",
                path.display()
            ),
            Self::Listen(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::Watcher(_) => f.write_str("cannot start the thread that follows files"),
            Self::Hook(hook, error) => write!(f, "hook {hook}: {error}"),
            Self::Config(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AppError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::State(_, error) | Self::Watcher(error) => Some(error),
            Self::Listen(error) => error.source(),
            Self::Tls(error) => error.source(),
            Self::Locked(_) | Self::Hook(..) | Self::Config(_) => None,
        }
    }
}

impl From<ListenError> for AppError {
    fn from(error: ListenError) -> Self {
        Self::Listen(error)
    }
}

impl From<TlsError> for AppError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}
