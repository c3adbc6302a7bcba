//! The sidecar as a whole: built from a configuration, then run until it is told to stop.
//!
//! [`App::build`] makes what is missing (state folder, key files), reads the keys and binds the
//! sockets; nothing is served yet. [`App::run`] serves, follows every file, and stops in this order:
//! not ready, wait, stop accepting, finish what is open within the grace period, take up nothing more of
//! the spool, finish what is being sent, close the spool, send the spans that wait.
//!
//! When the configuration changes, a good one is in force for the next request: hooks, keys, upstreams
//! and limits of single requests. What is bound or sized at the start (addresses, the state folder,
//! connection limits) stays until a restart, and the log says so. A bad one changes nothing.

mod operate;
mod vitals;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use http::uri::PathAndQuery;
use tokio::sync::{Semaphore, oneshot, watch as signal};
use tower::Layer;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;

use self::operate::{Operated, switch_trouble};
use super::admin::{Admin, Readiness};
use super::config::{AllowFrom, Config, HookConfig, MAX_FILE_BYTES, Overrides, TlsFiles};
use super::control::{Control, ControlServer, SOCKET_NAME};
use super::dispatch::{
    Dispatch, Durable, Link, OWNER, Pacer, Running, Sender, Settings, Target, TargetPath,
};
use super::listen::{ListenConfig, ListenError, ListenStats, Listener};
#[cfg(feature = "otlp")]
use super::otlp::Exporter;
use super::socket::{BindError, ListenAddress, PassedSockets};
use super::spool::{Health, OpenError, Spool, SqliteSpool, State, Status};
use super::stack::{Hook, Stack, Table};
use super::state::{StateError, StateLock};
use super::switch_file::{HookSwitch, SwitchFile};
use super::telemetry::{
    ConnectionSample, KeyringSample, LogHandle, Metrics, Sample, Spans, SpoolSample, Tracing,
};
use super::tls::{ServerTls, TlsError};
use super::unread::CloseUnreadLayer;
use super::upstream::{Upstream, UpstreamConfig};
use crate::allow_list::{AllowList, NetworkFile};
use crate::clock::{Clock, SystemClock};
use crate::event::ParseOptions;
use crate::gate::{Budget, GateBuilder, GateError, GateLayer, RefusalLimit};
use crate::key::{KeyState, Use};
use crate::keystore::{KeyStore, create_key_file};
use crate::switch::Switch;
use crate::time::Timestamp;
use crate::watch::{self, Reading, Take, WatchGuard, Watcher};

use self::vitals::Pulse;
pub use self::vitals::{Vital, Vitals};

/// A sidecar whose sockets are bound.
pub struct App {
    shared: Arc<Shared>,
    deliveries: Listener,
    probes: Option<Listener>,
    /// Ends when nothing of the spool is under way any more.
    finished: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    control: Option<ControlServer>,
    #[cfg(feature = "otlp")]
    exporter: Option<Exporter>,
    _lock: StateLock,
}

/// How often the spool is asked how it is.
const SPOOL_LOOK: Duration = Duration::from_secs(1);

/// How a sidecar stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Everything that was open was finished.
    Drained,
    /// The grace period ended with so many connections open.
    Cut(usize),
    /// It ended with calls under way. Their deliveries are in the spool.
    Unfinished,
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
    /// What each listener is for, where it is, and its statistics.
    listening: Vec<(&'static str, String, Arc<ListenStats>)>,
    connection_limit: usize,
    stopping: AtomicBool,
    began: Timestamp,
    /// Whether deliveries are taken.
    started: signal::Sender<bool>,
    /// Of what accepts connections.
    pulse: Pulse,
    spool: Option<SpoolParts>,
    spans: Spans,
    /// What operators said of hooks, and where that is kept; locked while it is changed.
    switch_file: Mutex<SwitchFile>,
    switching: Mutex<PathBuf>,
    /// Why the configuration that is there now is not in force, and since when.
    config_error: Mutex<Option<(Timestamp, String)>>,
    /// The log of the process, if the gate may change it.
    log: OnceLock<LogHandle>,
    watcher: Watcher,
    /// The files beside the key files that are followed.
    following: Mutex<HashMap<PathBuf, WatchGuard>>,
    /// For those who must not keep it alive.
    weak: Weak<Self>,
    /// For what is begun on the watcher's thread.
    runtime: tokio::runtime::Handle,
}

/// The spool and what belongs to it.
struct SpoolParts {
    spool: Arc<SqliteSpool>,
    /// As it was when it was last asked.
    status: ArcSwapOption<Status>,
    /// Held by whatever is under way; none when the gate stops.
    running: Mutex<Option<Running>>,
    /// Whether the leases of an earlier life were given back.
    released: signal::Sender<bool>,
}

/// What the configuration in force is made of, kept where a new one says the same.
struct Live {
    config: Config,
    stores: HashMap<PathBuf, KeyStore>,
    upstreams: Vec<Upstream>,
    network_files: HashMap<PathBuf, NetworkFile>,
    refusals: Option<RefusalLimit>,
    switches: HashMap<String, Switch>,
    pacers: HashMap<String, Arc<Pacer>>,
    durables: HashMap<String, Arc<Durable>>,
    links: Vec<(Option<UpstreamConfig>, Arc<Link>)>,
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
        Self::build_with_sockets(config, overrides, PassedSockets::default())
    }

    /// As [`build`](Self::build), with the sockets that were passed to this process.
    ///
    /// # Errors
    ///
    /// As there, or the configuration names a socket that was not passed.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn build_with_sockets(
        config: Config,
        overrides: Overrides,
        mut passed: PassedSockets,
    ) -> Result<Self, AppError> {
        let lock = StateLock::take(&config.state_dir)?;
        let tls = match &config.tls {
            Some(files) => Some(ServerTls::from_files(&files.certificate, &files.key)?),
            None => None,
        };
        let limits = config.limits.clone();
        let deliveries = ListenConfig {
            socket_mode: config.socket_mode,
            proxies: config.proxies.clone(),
            tls: tls.clone(),
            connections: limits.connections,
            per_source: limits.per_source,
            keep_alive: limits.keep_alive,
            drain: limits.grace_period,
            ..ListenConfig::new(config.listen.clone())
        };
        let deliveries = Listener::bind_with_sockets(deliveries, &mut passed)?;
        let probes = match &config.health {
            Some(address) => {
                // Scrapers are few; they must neither be crowded out nor crowd out the deliveries.
                let probes = ListenConfig {
                    socket_mode: config.socket_mode,
                    connections: 64,
                    per_source: 100,
                    drain: Duration::from_secs(1),
                    ..ListenConfig::new(address.clone())
                };
                Some(Listener::bind_with_sockets(probes, &mut passed)?)
            }
            None => None,
        };
        for name in passed.unused() {
            tracing::warn!(name, "a socket was passed that no listener names: it is closed");
        }
        drop(passed);
        let spool = match &config.spool {
            Some(config) => Some(Arc::new(SqliteSpool::open(config.clone())?)),
            None => None,
        };
        let (running, finished) = Running::new();
        let spool = spool.map(|spool| SpoolParts {
            spool,
            status: ArcSwapOption::empty(),
            running: Mutex::new(Some(running)),
            released: signal::Sender::new(false),
        });
        let watcher = Watcher::spawn().map_err(AppError::Watcher)?;
        let began = SystemClock.now();
        let metrics = Arc::new(Metrics::new(began));
        let switch_file = SwitchFile::read(&config.state_dir);
        if let Some(damage) = switch_file.damage() {
            tracing::error!(damage, "the switch file is damaged: it opens no hook");
        }
        let state_dir = config.state_dir.clone();
        let listening = [("deliveries", Some(&deliveries)), ("health", probes.as_ref())];
        let listening = listening.into_iter().filter_map(|(serves, listener)| {
            let listener = listener?;
            Some((serves, listener.local_addr().to_string(), listener.stats()))
        });
        let listening = listening.collect();
        let elsewhere = metrics.without_hook();
        #[cfg(feature = "otlp")]
        let exporter = config.tracing.export.as_ref().map(Exporter::start);
        #[cfg(feature = "otlp")]
        let spans = exporter.as_ref().map(Exporter::spans).unwrap_or_default();
        #[cfg(not(feature = "otlp"))]
        let spans = Spans::default();
        let live = Live::new(config);
        let shared = Arc::new_cyclic(|weak| Shared {
            following: Mutex::default(),
            weak: weak.clone(),
            runtime: tokio::runtime::Handle::current(),
            overrides,
            live: Mutex::new(live),
            stack: Stack::new(Table::default(), elsewhere),
            budget: Budget::new(limits.unverified_bytes, limits.per_source),
            in_flight: Arc::new(Semaphore::new(limits.in_flight)),
            in_flight_limit: limits.in_flight,
            tls,
            listeners: vec![deliveries.stats()],
            listening,
            connection_limit: limits.connections,
            stopping: AtomicBool::new(false),
            began,
            started: signal::Sender::new(false),
            pulse: Pulse::new(),
            switch_file: Mutex::new(switch_file),
            switching: Mutex::new(state_dir),
            config_error: Mutex::default(),
            log: OnceLock::new(),
            spool,
            spans,
            watcher,
            metrics,
        });
        let config = shared.live().config.clone();
        let table =
            shared.build_hooks(&config).map_err(|(hook, error)| AppError::Hook(hook, error))?;
        shared.stack.replace(table);
        let control = shared.control(&config);
        let weak = Arc::downgrade(&shared);
        shared.metrics.sample_with(move || sample(&weak));
        Ok(Self {
            shared,
            deliveries,
            probes,
            finished: Box::pin(finished),
            control,
            #[cfg(feature = "otlp")]
            exporter,
            _lock: lock,
        })
    }

    /// The same, with a log that an operator may change.
    #[must_use]
    pub fn with_log(self, log: LogHandle) -> Self {
        // The first one stays.
        let _ = self.shared.log.set(log);
        self
    }

    /// The switch of a hook of [`config`](Self::config), and what says so.
    pub fn switch(&self, hook: &HookConfig) -> HookSwitch {
        self.shared.switch_of(hook)
    }

    /// Where deliveries are taken.
    pub fn local_addr(&self) -> &ListenAddress {
        self.deliveries.local_addr()
    }

    /// Where probes are answered.
    pub fn health_addr(&self) -> Option<&ListenAddress> {
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

    /// How it is, and reloads, while it [runs](Self::run).
    pub fn vitals(&self) -> Vitals {
        Vitals::new(&self.shared)
    }

    /// Serves until `shutdown` is ready, then drains.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cuts every connection at once.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Stopped {
        #[cfg(feature = "otlp")]
        let exporter = self.exporter;
        let Self { shared, deliveries, probes, finished, control, _lock, .. } = self;
        shared.follow_files(&shared.live().config.clone());
        let watching = shared.open_spool().await;
        let probing = probes.map(|probes| {
            let weak = Arc::downgrade(&shared);
            let admin = Admin::new(shared.metrics.clone(), move || readiness(&weak));
            tokio::spawn(probes.serve(admin, std::future::pending()))
        });
        let (stop_control, control_stopped) = oneshot::channel::<()>();
        let controlling = control
            .map(|control| tokio::spawn(control.serve(async move { drop(control_stopped.await) })));
        let (stop, stopped) = oneshot::channel::<()>();
        let stack = CloseUnreadLayer::new().layer(shared.stack.clone());
        let pulsing = shared.clone();
        let serving = tokio::spawn(deliveries.serve(stack, async move {
            // Whether it is told so or the sender is gone: that is the end.
            pulsing.pulse.answer_until(async { drop(stopped.await) }).await;
        }));
        shared.started.send_replace(true);
        shutdown.await;
        tracing::info!("stopping: no longer ready");
        shared.stopping.store(true, Ordering::Relaxed);
        let delay = shared.live().config.limits.shutdown_delay;
        tokio::time::sleep(delay).await;
        drop(stop);
        let draining = Instant::now();
        let cut = serving.await.unwrap_or_default();
        shared.flush(draining.elapsed()).await;
        drop(stop_control);
        if let Some(controlling) = controlling {
            // It drains by itself; what it was asked for is in the spool or was not answered.
            drop(controlling.await);
        }
        let is_finished = shared.close_spool(draining, finished).await;
        if !is_finished {
            tracing::warn!(
                "the grace period ended with calls under way: their deliveries are sent again"
            );
        }
        if let Some(watching) = watching {
            watching.abort();
        }
        #[cfg(feature = "otlp")]
        if let Some(exporter) = exporter {
            let grace = shared.live().config.limits.grace_period;
            let rest = grace.saturating_sub(draining.elapsed());
            exporter.finish(rest.max(Duration::from_millis(100))).await;
        }
        // Probes are answered until the last delivery is.
        if let Some(probing) = probing {
            probing.abort();
        }
        match cut {
            0 if is_finished => Stopped::Drained,
            0 => Stopped::Unfinished,
            cut => Stopped::Cut(cut),
        }
    }
}

impl Live {
    fn new(config: Config) -> Self {
        Self {
            config,
            stores: HashMap::new(),
            upstreams: Vec::new(),
            network_files: HashMap::new(),
            refusals: None,
            switches: HashMap::new(),
            pacers: HashMap::new(),
            durables: HashMap::new(),
            links: Vec::new(),
        }
    }

    /// The store of a key file: the one that there is, or a new one.
    fn store(&mut self, before: &Self, path: &Path, new: impl FnOnce() -> KeyStore) -> KeyStore {
        let known = self.stores.get(path).or_else(|| before.stores.get(path)).cloned();
        let store = known.unwrap_or_else(new);
        self.stores.insert(path.into(), store.clone());
        store
    }

    /// Who may call, with the files that are followed already.
    fn allow_list(&mut self, before: &Self, config: &AllowFrom, watcher: &Watcher) -> AllowList {
        let mut list = AllowList::new(config.networks.clone());
        for path in &config.files {
            let known = self.network_files.get(path).or_else(|| before.network_files.get(path));
            let file = known.cloned().unwrap_or_else(|| NetworkFile::follow(path, watcher));
            self.network_files.insert(path.clone(), file.clone());
            list = list.file(file);
        }
        list
    }

    /// What strangers used up stays used up, unless another limit holds now.
    fn keep_refusals(&mut self, before: &Self) {
        let rate = self.config.limits.unauthenticated_per_source;
        let is_known = before.config.limits.unauthenticated_per_source == rate;
        let known = before.refusals.clone().filter(|_| is_known);
        self.refusals = rate.map(|rate| known.unwrap_or_else(|| RefusalLimit::new(rate)));
    }

    /// A service, with the connections that there are already.
    fn upstream(&mut self, before: &Self, config: &UpstreamConfig) -> Upstream {
        let mut known = self.upstreams.iter().chain(&before.upstreams);
        let known = known.find(|known| known.config() == config).cloned();
        let upstream = known.unwrap_or_else(|| Upstream::new(config));
        self.upstreams.push(upstream.clone());
        upstream
    }
}

impl Shared {
    fn live(&self) -> std::sync::MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a request finds of a configuration. Stores, upstreams, switches and pacers that are there already are
    /// used again; those that are no longer named are given up when their last request ends.
    ///
    /// What can fail comes first, so that a bad configuration changes nothing.
    fn build_hooks(&self, config: &Config) -> Result<Table, (String, GateError)> {
        let mut live = self.live();
        let mut next = Live::new(config.clone());
        next.keep_refusals(&live);
        let mut layers = Vec::new();
        for hook in &config.hooks {
            let keys = next.store(&live, &hook.key_file, || {
                make_key_file(&hook.key_file);
                KeyStore::follow(&hook.key_file, &self.watcher)
            });
            // Keys of another service: nobody else can make them.
            for path in
                [&hook.upstream_key_file, &hook.upstream_sign_key_file].into_iter().flatten()
            {
                next.store(&live, path, || KeyStore::follow(path, &self.watcher));
            }
            let switch = live.switches.get(&hook.name).cloned();
            let switch = switch.unwrap_or_else(|| Switch::new(self.switch_of(hook).enabled));
            next.switches.insert(hook.name.clone(), switch.clone());
            let allowed = hook.allow_from.as_ref();
            let allowed = allowed.map(|it| next.allow_list(&live, it, &self.watcher));
            let mut layer = self.gate(hook, config, keys, switch);
            if let Some(allowed) = allowed {
                layer = layer.allow_from(allowed);
            }
            if let Some(limit) = &next.refusals {
                layer = layer.refusal_limit(limit.clone());
            }
            let layer = layer.build();
            layers.push(layer.map_err(|error| (hook.name.clone(), error))?);
        }
        let mut hooks = Vec::new();
        for (hook, layer) in config.hooks.iter().zip(layers) {
            next.switches[&hook.name].set(self.switch_of(hook).enabled);
            let dispatch = match &self.spool {
                Some(spool) => Dispatch::durable(self.durable(hook, spool, &live, &mut next)),
                None => Dispatch::new(self.pacer(hook, &live, &mut next)),
            };
            hooks.push(self.hook(hook, layer, dispatch));
        }
        for (upstream, link) in &next.links {
            let hooks = config.hooks.iter().filter(|hook| hook.upstream == *upstream);
            let durables = hooks.filter_map(|hook| next.durables.get(&hook.name));
            link.serve(durables.map(Arc::downgrade).collect());
        }
        for (_, link) in &live.links {
            if !next.links.iter().any(|(_, kept)| Arc::ptr_eq(kept, link)) {
                link.stop();
            }
        }
        for (name, pacer) in live.pacers.drain() {
            let kept = next.pacers.get(&name).is_some_and(|kept| Arc::ptr_eq(kept, &pacer));
            if !kept {
                self.runtime.spawn(pacer.finish());
            }
        }
        self.stack.trace(self.tracing(&next.config));
        *live = next;
        Ok(Table { hooks, proxies: config.trusted_proxies.clone() })
    }

    /// What takes in the deliveries of a hook: what there is, told what holds now, or a new one.
    fn durable(
        &self,
        hook: &HookConfig,
        spool: &SpoolParts,
        live: &Live,
        next: &mut Live,
    ) -> Arc<Durable> {
        let settings = Settings {
            sender: self.sender(hook, live, next),
            paces: hook.paces.clone(),
            mode: hook.delivery,
            answer_within: next.config.answer_within,
            max_age: next.config.max_age,
            link: self.link(hook, spool, live, next),
        };
        let durable = match live.durables.get(&hook.name) {
            Some(durable) => {
                durable.update(settings);
                durable.clone()
            }
            None => {
                let running = spool.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
                // There is none only when the gate stops, and then nobody waits for it either.
                let running = running.unwrap_or_else(|| Running::new().0);
                let spool: Arc<dyn Spool> = spool.spool.clone();
                Arc::new(Durable::new(&hook.name, spool, settings, running))
            }
        };
        next.durables.insert(hook.name.clone(), durable.clone());
        durable
    }

    /// The way to a hook's service, with the worker that there is already.
    fn link(
        &self,
        hook: &HookConfig,
        spool: &SpoolParts,
        live: &Live,
        next: &mut Live,
    ) -> Arc<Link> {
        let mut known = next.links.iter().chain(&live.links);
        let known = known.find(|(upstream, _)| *upstream == hook.upstream).cloned();
        let (upstream, link) = known.unwrap_or_else(|| {
            let name = hook.upstream.as_ref().map_or_else(|| "stdout".into(), |it| it.origin());
            let link = Link::new(name, next.config.concurrency);
            let (weak, sends) = (Arc::downgrade(&link), spool.spool.clone());
            let mut released = spool.released.subscribe();
            self.runtime.spawn(async move {
                // Whether it was done or can no longer be: whatever is still leased is given back later.
                drop(released.wait_for(|released| *released).await);
                Link::run(weak, sends).await;
            });
            (hook.upstream.clone(), link)
        });
        if !next.links.iter().any(|(_, known)| Arc::ptr_eq(known, &link)) {
            next.links.push((upstream, link.clone()));
        }
        link
    }

    /// The pacer of a hook: the one that there is, told where to send now, or a new one.
    fn pacer(&self, hook: &HookConfig, live: &Live, next: &mut Live) -> Arc<Pacer> {
        let sender = self.sender(hook, live, next);
        let known = live.pacers.get(&hook.name).filter(|pacer| *pacer.paces() == hook.paces);
        let pacer = match known {
            Some(pacer) => {
                pacer.redirect(sender);
                pacer.clone()
            }
            None => {
                let pacer = Arc::new(Pacer::new(&hook.name, hook.paces.clone(), sender));
                self.runtime.spawn(Pacer::run(Arc::downgrade(&pacer)));
                pacer
            }
        };
        next.pacers.insert(hook.name.clone(), pacer.clone());
        pacer
    }

    fn sender(&self, hook: &HookConfig, live: &Live, next: &mut Live) -> Sender {
        let store = |path: &Option<PathBuf>| next.stores.get(path.as_ref()?).cloned();
        let (path_keys, signing_keys) =
            (store(&hook.upstream_key_file), store(&hook.upstream_sign_key_file));
        let target = hook.upstream.as_ref().map(|upstream| Target {
            upstream: next.upstream(live, upstream),
            path: match &hook.upstream_path {
                Some(template) => TargetPath::Template(template.clone(), path_keys),
                // The path of a hook was checked when the configuration was read.
                None => TargetPath::Fixed(
                    PathAndQuery::try_from(&hook.path).unwrap_or(PathAndQuery::from_static("/")),
                ),
            },
            body: hook.upstream_body,
            forward_headers: hook.forward_headers.clone(),
            generic_header: hook.generic_header.clone(),
            mark_azure_devops: hook.mark_azure_devops,
            signing_keys,
        });
        Sender {
            target,
            parse_options: parse_options(hook),
            metrics: self.metrics.hook(&hook.name),
            tracing: self.tracing(&next.config),
        }
    }

    fn tracing(&self, config: &Config) -> Tracing {
        let (propagate, sampling) = (config.tracing.propagate, config.tracing.sampling);
        Tracing { propagate, sampling, spans: self.spans.clone() }
    }

    fn gate(
        &self,
        hook: &HookConfig,
        config: &Config,
        keys: KeyStore,
        switch: Switch,
    ) -> GateBuilder {
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
            .parse_options(parse_options(hook))
            .rules(hook.rules.clone())
            .reindex_all(hook.reindex_all)
    }

    fn hook(&self, hook: &HookConfig, layer: GateLayer, dispatch: Dispatch) -> Hook {
        let metrics = self.metrics.hook(&hook.name);
        let limit = GlobalConcurrencyLimitLayer::with_semaphore(self.in_flight.clone());
        let behind = LoadShedLayer::new().layer(limit.layer(dispatch));
        Hook {
            name: hook.name.as_str().into(),
            path: hook.path.clone(),
            gate: layer.layer(behind),
            metrics,
        }
    }

    /// Where an operator asks. Without it the gate goes on.
    fn control(&self, config: &Config) -> Option<ControlServer> {
        let mut control = Control::new().gate(Arc::new(Operated(self.weak.clone())));
        if let Some(parts) = &self.spool {
            let weak = self.weak.clone();
            control = control.spool(parts.spool.clone(), move || {
                if let Some(shared) = weak.upgrade() {
                    shared.live().links.iter().for_each(|(_, link)| link.wake());
                }
            });
        }
        let server = ControlServer::bind(&config.state_dir.join(SOCKET_NAME), control);
        let warn =
            |error: &BindError| tracing::warn!(%error, "the gate goes on without a control socket");
        server.inspect_err(warn).ok()
    }

    /// Gives back what an earlier life was sending when it ended, and looks after the spool from then on.
    async fn open_spool(&self) -> Option<tokio::task::JoinHandle<()>> {
        let parts = self.spool.as_ref()?;
        match parts.spool.release(OWNER, SystemClock.now()).await {
            Ok(0) => {}
            Ok(deliveries) => {
                tracing::info!(deliveries, "deliveries that were under way are sent again");
            }
            Err(error) => tracing::error!(%error, "deliveries that were under way stay so for now"),
        }
        self.look_at_spool().await;
        if let Some(status) = &*parts.status.load() {
            let (pending, dead) = (status.pending, status.dead);
            tracing::info!(pending, dead, "spool is open");
        }
        parts.released.send_replace(true);
        let weak = self.weak.clone();
        Some(tokio::spawn(async move {
            while let Some(shared) = weak.upgrade() {
                shared.look_at_spool().await;
                drop(shared);
                tokio::time::sleep(SPOOL_LOOK).await;
            }
        }))
    }

    /// Keeps what probes and scrapes are told, and logs what has changed.
    async fn look_at_spool(&self) {
        let Some(parts) = &self.spool else { return };
        let Ok(status) = parts.spool.status().await else { return };
        let before = parts.status.load();
        let health = |status: &Status| status.health.clone();
        if before.as_deref().map(health).unwrap_or(Health::Open) != status.health {
            match &status.health {
                Health::Full(limit) => {
                    tracing::error!(%limit, "the spool is full: what would have to wait is answered 503");
                }
                Health::Failed(reason) => {
                    tracing::error!(
                        reason,
                        "the spool cannot be used: deliveries go directly or not at all"
                    );
                }
                Health::Open => tracing::info!("the spool takes deliveries again"),
                Health::Closed => {}
            }
        }
        parts.status.store(Some(Arc::new(status)));
    }

    /// Finishes what is under way, as far as the grace period goes, and closes the spool. Whether all was
    /// finished.
    async fn close_spool(&self, draining: Instant, finished: impl Future<Output = ()>) -> bool {
        let Some(parts) = &self.spool else { return true };
        let grace = {
            let mut live = self.live();
            for (_, link) in &live.links {
                link.stop();
            }
            // They hold what is waited for.
            live.durables.clear();
            live.config.limits.grace_period
        };
        self.stack.replace(Table::default());
        drop(parts.running.lock().unwrap_or_else(PoisonError::into_inner).take());
        let rest = grace.saturating_sub(draining.elapsed()).max(Duration::from_millis(100));
        let is_finished = tokio::time::timeout(rest, finished).await.is_ok();
        parts.spool.close().await;
        is_finished
    }

    /// Sends what is held, as far as the grace period goes of which so much is over.
    async fn flush(&self, over: Duration) {
        let (pacers, grace): (Vec<_>, _) = {
            let live = self.live();
            (live.pacers.values().cloned().collect(), live.config.limits.grace_period)
        };
        let all = async {
            for pacer in &pacers {
                pacer.flush().await;
            }
        };
        if tokio::time::timeout(grace.saturating_sub(over), all).await.is_err() {
            tracing::error!("held deliveries are lost: the grace period ended");
        }
    }

    /// Reads the configuration again and puts it in force if it is good.
    fn reload(&self, confirmed: bool) -> Take {
        let next = match Config::load(&self.overrides) {
            Ok(next) => next,
            // It may be half written.
            Err(_) if !confirmed => return Take::Suspicious,
            Err(error) => {
                self.config_refused(error.problems().first().map(ToString::to_string));
                for problem in error.problems() {
                    tracing::error!(%problem, "configuration is not taken, the last good one stays in force");
                }
                return Take::Refused;
            }
        };
        let (restart, before) = {
            let live = self.live();
            (live.config.needs_restart(&next), live.config.hooks.clone())
        };
        self.follow_files(&next);
        match self.build_hooks(&next) {
            Ok(table) => self.stack.replace(table),
            Err((hook, error)) => {
                self.config_refused(Some(format!("hook {hook}: {error}")));
                tracing::error!(hook, %error, "configuration is not taken, the last good one stays in force");
                return Take::Refused;
            }
        }
        self.metrics.config_reloaded(true);
        *self.config_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
        tracing::info!(hooks = next.hooks.len(), "configuration is in force");
        for key in restart {
            tracing::warn!(key, "this change takes effect only after a restart");
        }
        for hook in &next.hooks {
            let was =
                before.iter().find(|known| known.name == hook.name).map(|known| known.enabled);
            if was.is_some_and(|was| was != hook.enabled)
                && self.switch_of(hook).enabled != hook.enabled
            {
                tracing::warn!(
                    hook = hook.name,
                    "this change of `enabled` has no effect: what the operator said stands above it"
                );
            }
        }
        Take::Taken
    }

    fn config_refused(&self, problem: Option<String>) {
        self.metrics.config_reloaded(false);
        let mut error = self.config_error.lock().unwrap_or_else(PoisonError::into_inner);
        let since = error.as_ref().map_or_else(|| SystemClock.now(), |(since, _)| *since);
        *error = Some((since, problem.unwrap_or_default()));
    }

    /// Follows the configuration, what it names and the certificate, and nothing else any more.
    fn follow_files(&self, config: &Config) {
        let mut following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        following.retain(|path, _| config.files().any(|named| named == path));
        for path in config.files() {
            if following.contains_key(path) {
                continue;
            }
            let (weak, tls, own) = (self.weak.clone(), config.tls.clone(), path.to_owned());
            let tls = tls.filter(|tls| path == tls.certificate || path == tls.key);
            // Asked at once about what is there: it may have changed since it was read.
            let mut first = true;
            let guard = self.watcher.watch(path, MAX_FILE_BYTES, None, move |reading| {
                let Some(shared) = weak.upgrade() else { return Take::Refused };
                let first = std::mem::take(&mut first);
                match &tls {
                    Some(files) => shared.reload_tls(files, first),
                    None if first && shared.has_read(&own, &reading) => Take::Taken,
                    None => shared.reload(reading.is_confirmed()),
                }
            });
            following.insert(path.into(), guard);
        }
    }

    /// Whether the file holds what the configuration in force was read from.
    fn has_read(&self, path: &Path, reading: &Reading<'_>) -> bool {
        let content = reading.content();
        content.is_ok_and(|content| self.live().config.has_read(path, content.bytes()))
    }

    /// `first`: only to see whether it is still the one that was read, so that success is no news.
    fn reload_tls(&self, files: &TlsFiles, first: bool) -> Take {
        let Some(tls) = &self.tls else { return Take::Refused };
        let read = |path: &Path| watch::read(path, MAX_FILE_BYTES);
        let (Ok(certificate), Ok(key)) = (read(&files.certificate), read(&files.key)) else {
            tracing::error!("certificate or key cannot be read, the old pair stays in use");
            return Take::Refused;
        };
        match tls.reload(certificate.bytes(), key.bytes()) {
            Ok(()) => {
                if !first {
                    tracing::info!("certificate is in use");
                }
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

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("deliveries", &self.deliveries).finish_non_exhaustive()
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

fn parse_options(hook: &HookConfig) -> ParseOptions {
    let mut options = ParseOptions::default();
    options.event_header.clone_from(&hook.generic_event_header);
    if !hook.generic_push_events.is_empty() {
        options.push_events.clone_from(&hook.generic_push_events);
    }
    options
}

fn readiness(shared: &Weak<Shared>) -> Readiness {
    let stopping = || Readiness { missing: vec!["stopping".into()], warnings: Vec::new() };
    let Some(shared) = shared.upgrade() else { return stopping() };
    if shared.stopping.load(Ordering::Relaxed) {
        return stopping();
    }
    let live = shared.live();
    let now = SystemClock.now();
    let without_key = live.config.hooks.iter().filter(|hook| {
        let store = live.stores.get(&hook.key_file);
        shared.switch_of(hook).enabled
            && store.is_none_or(|store| {
                store.load().keys().all(|key| key.state(now) != KeyState::Active)
            })
    });
    let missing = without_key.map(|hook| format!("hook {} has no active key", hook.name));
    let mut readiness = Readiness { missing: missing.collect(), warnings: Vec::new() };
    let files = live.network_files.values().filter(|file| !file.is_loaded());
    let unread = files.map(|file| format!("{} lists nobody yet", file.path().display()));
    readiness.warnings.extend(unread);
    let (missing, warnings) = switch_trouble(&shared, &live);
    readiness.missing.extend(missing);
    readiness.warnings.extend(warnings);
    let status = shared.spool.as_ref().and_then(|parts| parts.status.load_full());
    let Some(status) = status else { return readiness };
    let trouble = match &status.health {
        Health::Full(limit) => format!("the spool is full: {limit}"),
        Health::Failed(reason) => format!("the spool cannot be used: {reason}"),
        Health::Open | Health::Closed => String::new(),
    };
    let down = live.links.iter().find(|(_, link)| !link.is_up()).map(|(_, link)| link.name());
    let set_aside = status.set_aside.iter();
    let warnings = set_aside.map(|name| format!("a damaged spool was set aside as {name}"));
    readiness.warnings.extend(warnings);
    match down {
        _ if trouble.is_empty() => {}
        None => readiness.warnings.push(trouble),
        Some(upstream) => {
            readiness.missing.push(format!("{trouble}, and upstream {upstream} is down"));
        }
    }
    readiness
}

fn spool_sample(status: &Status, now: Timestamp) -> SpoolSample {
    let count = |state| match state {
        State::Pending => status.pending,
        State::Leased => status.leased,
        State::Delivered => status.delivered,
        State::Dead => status.dead,
    };
    SpoolSample {
        records: State::ALL.map(|state| (state.as_str(), count(state))).into(),
        oldest_age: status.oldest.map(|oldest| now.since(oldest)).unwrap_or_default(),
        bytes: status.bytes,
        limit_bytes: status.max_bytes,
        history_bytes: status.history_bytes,
        file_bytes: status.file_bytes,
        free_bytes: status.free_bytes,
        attempts: status.attempts,
        is_usable: matches!(status.health, Health::Open | Health::Full(_)),
        is_full: matches!(status.health, Health::Full(_)),
    }
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
            ("not-a-proxy", get(&stats.refused_proxies)),
            ("proxy-header", get(&stats.proxy_header_failures)),
            ("proxy-header-timeout", get(&stats.proxy_header_timeouts)),
            ("handshake-failure", get(&stats.handshake_failures)),
            ("handshake-timeout", get(&stats.handshake_timeouts)),
            ("head-timeout", get(&stats.head_timeouts)),
            ("head-too-large", get(&stats.heads_too_large)),
            ("parse-error", get(&stats.parse_errors)),
            ("write-timeout", get(&stats.write_timeouts)),
            ("cut", get(&stats.cut)),
        ]);
    }
    let mut upstreams: Vec<(String, bool)> = Vec::new();
    for (_, link) in &live.links {
        match upstreams.iter_mut().find(|(name, _)| name == link.name()) {
            Some((_, up)) => *up &= link.is_up(),
            None => upstreams.push((link.name().to_owned(), link.is_up())),
        }
    }
    let status = shared.spool.as_ref().and_then(|parts| parts.status.load_full());
    Sample {
        spool: status.map(|status| spool_sample(&status, now)),
        upstreams,
        spans: shared.spans.sample(),
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
    /// The state folder cannot be used, or another process uses it.
    State(StateError),
    /// A socket cannot be bound.
    Listen(ListenError),
    /// The certificate cannot be used.
    Tls(TlsError),
    /// The spool cannot be opened.
    Spool(OpenError),
    /// The thread that follows files cannot be started.
    Watcher(io::Error),
    /// What a hook is told does not fit together.
    Hook(String, GateError),
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(error) => error.fmt(f),
            Self::Listen(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::Spool(error) => error.fmt(f),
            Self::Watcher(_) => f.write_str("cannot start the thread that follows files"),
            Self::Hook(hook, error) => write!(f, "hook {hook}: {error}"),
        }
    }
}

impl std::error::Error for AppError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::State(error) => error.source(),
            Self::Watcher(error) => Some(error),
            Self::Listen(error) => error.source(),
            Self::Tls(error) => error.source(),
            Self::Spool(error) => error.source(),
            Self::Hook(..) => None,
        }
    }
}

impl From<StateError> for AppError {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

impl From<ListenError> for AppError {
    fn from(error: ListenError) -> Self {
        Self::Listen(error)
    }
}

impl From<OpenError> for AppError {
    fn from(error: OpenError) -> Self {
        Self::Spool(error)
    }
}

impl From<TlsError> for AppError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}
