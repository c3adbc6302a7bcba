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
use tokio::sync::{Semaphore, oneshot};
use tower::Layer;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;

use super::admin::Admin;
use super::config::{Config, HookConfig, MAX_FILE_BYTES, Overrides, TlsFiles};
use super::dispatch::{Dispatch, Target};
use super::listen::{ListenConfig, ListenError, ListenStats, Listener};
use super::stack::{Hook, Stack, Table};
use super::telemetry::{ConnectionSample, KeyringSample, Metrics, Sample};
use super::tls::{ServerTls, TlsError};
use super::unread::CloseUnreadLayer;
use super::upstream::Upstream;
use crate::clock::{Clock, SystemClock};
use crate::event::ParseOptions;
use crate::gate::{Budget, GateError, GateLayer};
use crate::key::{KeyState, Use};
use crate::keystore::{KeyStore, create_key_file, create_private_folder};
use crate::switch::Switch;
use crate::watch::{self, Take, WatchGuard, Watcher};

/// A sidecar whose sockets are bound.
#[derive(Debug)]
pub struct App {
    shared: Arc<Shared>,
    deliveries: Listener,
    probes: Option<Listener>,
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
    /// The files beside the key files that are followed.
    following: Mutex<HashMap<PathBuf, WatchGuard>>,
    /// For those who must not keep it alive.
    weak: Weak<Self>,
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
        let shared = Arc::new_cyclic(|weak| Shared {
            following: Mutex::default(),
            weak: weak.clone(),
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
            watcher,
            metrics,
        });
        let config = shared.live().config.clone();
        let table =
            shared.build_hooks(&config).map_err(|(hook, error)| AppError::Hook(hook, error))?;
        shared.stack.replace(table);
        let weak = Arc::downgrade(&shared);
        shared.metrics.sample_with(move || sample(&weak));
        Ok(Self { shared, deliveries, probes, _lock: lock })
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
        let watcher = self.shared.watcher.clone();
        move || watcher.check_now()
    }

    /// Serves until `shutdown` is ready, then drains.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cuts every connection at once.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Stopped {
        let Self { shared, deliveries, probes, _lock } = self;
        shared.follow_files(&shared.live().config.clone());
        let probing = probes.map(|probes| {
            let weak = Arc::downgrade(&shared);
            let admin = Admin::new(shared.metrics.clone(), move || missing(&weak));
            tokio::spawn(probes.serve(admin, std::future::pending()))
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let stack = CloseUnreadLayer::new().layer(shared.stack.clone());
        let serving = tokio::spawn(deliveries.serve(stack, async move {
            // Whether it is told so or the sender is gone: that is the end.
            drop(stopped.await);
        }));
        shutdown.await;
        tracing::info!("stopping: no longer ready");
        shared.stopping.store(true, Ordering::Relaxed);
        let delay = shared.live().config.limits.shutdown_delay;
        tokio::time::sleep(delay).await;
        drop(stop);
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
                live.stores.get(&hook.key_file).cloned().unwrap_or_else(|| {
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
        // Only now that nothing can fail any more.
        for hook in &config.hooks {
            next.switches[&hook.name].set(hook.enabled);
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
            .rules(hook.rules.clone())
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
        self.follow_files(&next);
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

    /// Follows the configuration, what it names and the certificate, and nothing else any more.
    fn follow_files(&self, config: &Config) {
        let mut following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        following.retain(|path, _| config.files().any(|named| named == path));
        for path in config.files() {
            if following.contains_key(path) {
                continue;
            }
            let known = watch::read(path, MAX_FILE_BYTES).ok();
            let (weak, tls) = (self.weak.clone(), config.tls.clone());
            let tls = tls.filter(|tls| path == tls.certificate || path == tls.key);
            let guard = self.watcher.watch(path, MAX_FILE_BYTES, known.as_ref(), move |reading| {
                match (weak.upgrade(), &tls) {
                    (Some(shared), Some(files)) => shared.reload_tls(files),
                    (Some(shared), None) => shared.reload(reading.is_confirmed()),
                    (None, _) => Take::Refused,
                }
            });
            following.insert(path.into(), guard);
        }
    }

    fn reload_tls(&self, files: &TlsFiles) -> Take {
        let Some(tls) = &self.tls else { return Take::Refused };
        let read = |path: &Path| watch::read(path, MAX_FILE_BYTES);
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
        }
    }
}

impl std::error::Error for AppError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::State(_, error) | Self::Watcher(error) => Some(error),
            Self::Listen(error) => error.source(),
            Self::Tls(error) => error.source(),
            Self::Locked(_) | Self::Hook(..) => None,
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
