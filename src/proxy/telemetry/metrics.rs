//! Counters, gauges and histograms for Prometheus, all with the prefix `hookgate_`.
//!
//! Three ways lead into them:
//!
//! 1. What a request does is counted by the [`HookMetrics`] of its hook, which are looked up once
//!    and kept with the hook. To count is then one addition: no string is made, no table locked.
//! 2. What parts of the process hold (connections, bytes, keys) is read from a [`Sample`] at each
//!    scrape, so that those parts need not know of metrics.
//! 3. What happens rarely (a configuration is read again) is counted where it happens.
//!
//! | metric | labels | what |
//! |---|---|---|
//! | `requests_total` | `hook`, `provider`, `outcome` | requests answered |
//! | `request_duration_seconds` | `hook` | from head to answer |
//! | `upstream_duration_seconds` | `hook` | calls to upstream, failed ones too |
//! | `upstream_failures_total` | `hook`, `kind` | calls that brought no answer, or not a 2xx |
//! | `upstream_retries_total` | `hook` | second attempts after a lost connection |
//! | `spool_deliveries_total` | `hook`, `result` | deliveries of the spool that were `delivered`, `retried`, given up (`dead`) or for which a later one goes (`superseded`) |
//! | `spool_records` | `state` | `pending`, `leased`, `delivered`, `dead` |
//! | `spool_oldest_age_seconds` | | since when the oldest waits; 0 if none does |
//! | `spool_bytes`, `spool_limit_bytes`, `spool_history_bytes`, `spool_file_bytes`, `spool_free_bytes` | | what it holds and may hold, what of it is history, what it takes on disk, what is free there |
//! | `spool_attempts_total` | | deliveries taken up to be sent from the spool |
//! | `spool_usable`, `spool_full` | | 1 or 0 |
//! | `upstream_up` | `upstream` | 0 while its breaker is open, so that its deliveries wait |
//! | `in_flight`, `in_flight_limit` | | requests behind the gate |
//! | `unverified_bytes`, `unverified_limit_bytes` | | body bytes held before they are verified |
//! | `connections`, `connections_limit` | | open connections |
//! | `connections_accepted_total` | | connections accepted |
//! | `connections_failed_total` | `reason` | refused, or ended by an error |
//! | `keyring_age_seconds` | `file` | since the key file was last read well |
//! | `keys` | `file`, `state` | `active`, `not_yet`, `expired` |
//! | `keys_mixed_use` | `file` | active keys that sign and are shown as token or URL as well |
//! | `key_reloads_total` | `file`, `result` | `success`, `failure` |
//! | `config_reloads_total` | `result` | `success`, `failure` |
//! | `spans_total` | `result` | spans `exported`, or lost: `queue-full`, `rate-limited`, `export-failed` |
//! | `build_info` | `version` | 1 |
//! | `process_start_time_seconds` (no prefix, as is the custom) | | |
//!
//! A series of `requests_total` begins with the first request that it counts.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::outcome::Outcome;
use crate::provider::Provider;
use crate::time::Timestamp;

/// The media type of [`Metrics::encode`]: OpenMetrics 1.0, which Prometheus reads.
pub const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every metric of the process.
pub struct Metrics {
    registry: Registry,
    families: Families,
    config_reloads: Family<ResultLabels, Counter>,
    hooks: Mutex<HashMap<Arc<str>, Arc<HookMetrics>>>,
    sampler: Arc<Sampler>,
}

impl Metrics {
    /// For a process that started at `started`.
    pub fn new(started: Timestamp) -> Self {
        let mut root = Registry::default();
        root.register_with_unit(
            "process_start_time",
            "When the process started, in seconds since 1970",
            Unit::Seconds,
            ConstGauge::new(started.as_millis() as f64 / 1000.0),
        );
        let registry = root.sub_registry_with_prefix("hookgate");
        registry.register(
            "build",
            "The version of hookgate",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let families = Families::default();
        families.register(registry);
        let config_reloads = Family::default();
        registry.register(
            "config_reloads",
            "How often the configuration was read again",
            config_reloads.clone(),
        );
        let sampler = Arc::new(Sampler::default());
        registry.register_collector(Box::new(Arc::clone(&sampler)));
        Self { registry: root, families, config_reloads, hooks: Mutex::default(), sampler }
    }

    /// The metrics of the hook that the configuration names so; the same ones for the same name,
    /// also after the configuration was read again.
    ///
    /// The name becomes a label. It must not come from a request.
    pub fn hook(&self, name: &str) -> Arc<HookMetrics> {
        let mut hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hook) = hooks.get(name) {
            return Arc::clone(hook);
        }
        let name = Arc::<str>::from(name);
        let hook = Arc::new(HookMetrics::new(Arc::clone(&name), self.families.clone()));
        hooks.insert(name, Arc::clone(&hook));
        hook
    }

    /// The metrics of requests that reach no hook. Their label `hook` is empty.
    pub fn without_hook(&self) -> Arc<HookMetrics> {
        self.hook("")
    }

    /// Counts that the configuration was read again, well or not.
    pub fn config_reloaded(&self, success: bool) {
        self.config_reloads.get_or_create(&ResultLabels { result: result(success) }).inc();
    }

    /// Asks `sample` at each scrape, in place of what was set before.
    ///
    /// It is called by the thread that scrapes, and must not block.
    pub fn sample_with(&self, sample: impl Fn() -> Sample + Send + Sync + 'static) {
        let mut current = self.sampler.0.write().unwrap_or_else(PoisonError::into_inner);
        *current = Some(Box::new(sample));
    }

    /// Everything, as text with the media type [`METRICS_CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(8 << 10);
        // A `String` takes every write, so what there is to fail fails nowhere.
        if encode(&mut text, &self.registry).is_err() {
            tracing::error!("Metrics could not be written");
        }
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The metrics of one hook.
pub struct HookMetrics {
    hook: Arc<str>,
    families: Families,
    /// One for each provider, and none, times each outcome; looked up when first used.
    requests: Box<[OnceLock<Counter>]>,
    request_duration: Histogram,
    upstream_duration: Histogram,
    upstream_retries: Counter,
}

impl HookMetrics {
    fn new(hook: Arc<str>, families: Families) -> Self {
        let label = HookLabels { hook: Arc::clone(&hook) };
        let cells = (PROVIDERS + 1) * OUTCOMES;
        Self {
            request_duration: families.request_duration.get_or_create_owned(&label),
            upstream_duration: families.upstream_duration.get_or_create_owned(&label),
            upstream_retries: families.upstream_retries.get_or_create_owned(&label),
            requests: (0..cells).map(|_| OnceLock::new()).collect(),
            hook,
            families,
        }
    }

    /// Counts a request that was answered after `duration`. The provider is `None` where nothing
    /// told it; its label is then empty.
    pub fn request(&self, provider: Option<Provider>, outcome: Outcome, duration: Duration) {
        let row = provider.map_or(PROVIDERS, |provider| provider as usize);
        let counter = self.requests[row * OUTCOMES + outcome as usize].get_or_init(|| {
            self.families.requests.get_or_create_owned(&RequestLabels {
                hook: Arc::clone(&self.hook),
                provider: provider.map_or("", Provider::as_str),
                outcome: outcome.as_str(),
            })
        });
        counter.inc();
        self.request_duration.observe(duration.as_secs_f64());
    }

    /// Counts a call to upstream that took `duration` and so many attempts (1 is the least).
    pub fn upstream_call(&self, duration: Duration, attempts: u32) {
        self.upstream_duration.observe(duration.as_secs_f64());
        self.upstream_retries.inc_by(u64::from(attempts.saturating_sub(1)));
    }

    /// Counts a call to upstream that failed, beside [`upstream_call`](Self::upstream_call).
    ///
    /// `kind` is the word of an enum.
    pub fn upstream_failure(&self, kind: &'static str) {
        let labels = FailureLabels { hook: Arc::clone(&self.hook), kind };
        self.families.upstream_failures.get_or_create(&labels).inc();
    }

    /// Counts what became of a delivery of the spool.
    pub fn spooled(&self, result: SpoolResult) {
        let labels = SpoolLabels { hook: Arc::clone(&self.hook), result: result.as_str() };
        self.families.spool_deliveries.get_or_create(&labels).inc();
    }
}

/// What became of a delivery of the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolResult {
    /// It arrived.
    Delivered,
    /// It waits again.
    Retried,
    /// It was given up.
    Dead,
    /// A later one of its coalescing key goes in its place.
    Superseded,
}

impl SpoolResult {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retried => "retried",
            Self::Dead => "dead",
            Self::Superseded => "superseded",
        }
    }
}

impl fmt::Debug for HookMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookMetrics").field("hook", &self.hook).finish_non_exhaustive()
    }
}

/// What the process holds at the time of a scrape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Requests behind the gate.
    pub in_flight: u64,
    /// How many requests may be behind the gate.
    pub in_flight_limit: u64,
    /// Bytes of bodies that are held and not yet verified.
    pub unverified_bytes: u64,
    /// How many bytes of unverified bodies may be held.
    pub unverified_limit_bytes: u64,
    /// The listeners together.
    pub connections: ConnectionSample,
    /// One for each key file. Of two with the same `file`, the first counts.
    pub keyrings: Vec<KeyringSample>,
    /// The spool, if there is one.
    pub spool: Option<SpoolSample>,
    /// The services by name, and whether they are taken to be there. Each name once.
    pub upstreams: Vec<(String, bool)>,
    /// What became of spans, by the word of an enum: each word once. Empty if none are exported.
    pub spans: Vec<(&'static str, u64)>,
}

/// The spool as it was a moment ago.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpoolSample {
    /// Deliveries by the word for their state.
    pub records: Vec<(&'static str, u64)>,
    /// How long the oldest waits.
    pub oldest_age: Duration,
    /// What counts against the limit.
    pub bytes: u64,
    /// What it may hold.
    pub limit_bytes: u64,
    /// What the history takes.
    pub history_bytes: u64,
    /// What it takes on disk.
    pub file_bytes: u64,
    /// What is free on disk, where that can be told.
    pub free_bytes: Option<u64>,
    /// How often deliveries were taken up.
    pub attempts: u64,
    /// Whether it can be used.
    pub is_usable: bool,
    /// Whether it takes no more.
    pub is_full: bool,
}

/// The connections of the listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionSample {
    /// Open now.
    pub open: u64,
    /// How many may be open.
    pub limit: u64,
    /// Accepted since the start.
    pub accepted: u64,
    /// Refused or ended by an error since the start, by the word of an enum: each word once.
    pub failed: Vec<(&'static str, u64)>,
}

/// The keyring of one key file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyringSample {
    /// The file's name as the configuration has it.
    pub file: String,
    /// How long ago the keyring was read well; `None` if it never was.
    pub age: Option<Duration>,
    /// Keys that are in force.
    pub active: u64,
    /// Keys whose `from` lies ahead.
    pub not_yet: u64,
    /// Keys whose `until` has passed.
    pub expired: u64,
    /// Active keys that serve to sign and are shown as a token or in a URL as well.
    pub mixed_use: u64,
    /// How often the file was read again and taken.
    pub reloads: u64,
    /// How often it was not taken.
    pub reload_failures: u64,
}

const PROVIDERS: usize = Provider::ALL.len();
const OUTCOMES: usize = Outcome::ALL.len();

/// From one millisecond to half a minute, which is the longest that upstream is given by default.
const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HookLabels {
    hook: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    hook: Arc<str>,
    provider: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    hook: Arc<str>,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SpoolLabels {
    hook: Arc<str>,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

const fn result(success: bool) -> &'static str {
    if success { "success" } else { "failure" }
}

type HistogramFamily = Family<HookLabels, Histogram, fn() -> Histogram>;

#[derive(Clone)]
struct Families {
    requests: Family<RequestLabels, Counter>,
    request_duration: HistogramFamily,
    upstream_duration: HistogramFamily,
    upstream_failures: Family<FailureLabels, Counter>,
    upstream_retries: Family<HookLabels, Counter>,
    spool_deliveries: Family<SpoolLabels, Counter>,
}

impl Families {
    fn register(&self, registry: &mut Registry) {
        registry.register("requests", "Requests answered", self.requests.clone());
        registry.register_with_unit(
            "request_duration",
            "From the head of a request to the answer",
            Unit::Seconds,
            self.request_duration.clone(),
        );
        registry.register_with_unit(
            "upstream_duration",
            "How long calls to upstream took, failed ones too",
            Unit::Seconds,
            self.upstream_duration.clone(),
        );
        registry.register(
            "upstream_failures",
            "Calls to upstream that failed",
            self.upstream_failures.clone(),
        );
        registry.register(
            "upstream_retries",
            "Second attempts after a connection to upstream was lost before the answer",
            self.upstream_retries.clone(),
        );
        registry.register(
            "spool_deliveries",
            "Deliveries of the spool, by what became of them",
            self.spool_deliveries.clone(),
        );
    }
}

impl Default for Families {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        Self {
            requests: Family::default(),
            request_duration: Family::new_with_constructor(histogram),
            upstream_duration: Family::new_with_constructor(histogram),
            upstream_failures: Family::default(),
            upstream_retries: Family::default(),
            spool_deliveries: Family::default(),
        }
    }
}

type SampleFn = Box<dyn Fn() -> Sample + Send + Sync>;

#[derive(Default)]
struct Sampler(RwLock<Option<SampleFn>>);

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampler").finish_non_exhaustive()
    }
}

impl Collector for Sampler {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let sample = match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            Some(sample) => sample(),
            None => return Ok(()),
        };
        Writer(encoder).sample(&sample)
    }
}

/// Writes samples that are not kept in a family.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn sample(&mut self, sample: &Sample) -> fmt::Result {
        self.gauge("in_flight", "Requests behind the gate.", None, sample.in_flight)?;
        self.gauge(
            "in_flight_limit",
            "How many requests may be behind the gate.",
            None,
            sample.in_flight_limit,
        )?;
        self.gauge(
            "unverified",
            "Room that bodies take in memory, until they are verified and answered.",
            Some(&Unit::Bytes),
            sample.unverified_bytes,
        )?;
        self.gauge(
            "unverified_limit",
            "How much room there is for bodies in memory.",
            Some(&Unit::Bytes),
            sample.unverified_limit_bytes,
        )?;
        self.connections(&sample.connections)?;
        self.gauges(
            "upstream_up",
            "Whether the service is taken to be there; if not, its deliveries wait.",
            None,
            sample.upstreams.iter().map(|(name, up)| ([("upstream", name)], u64::from(*up))),
        )?;
        if let Some(spool) = &sample.spool {
            self.spool(spool)?;
        }
        if !sample.spans.is_empty() {
            self.counters(
                "spans",
                "Spans that were exported, or lost.",
                sample.spans.iter().map(|&(result, count)| ([("result", result)], count)),
            )?;
        }
        self.keyrings(&sample.keyrings)
    }

    fn spool(&mut self, sample: &SpoolSample) -> fmt::Result {
        let bytes = Some(&Unit::Bytes);
        self.gauges(
            "spool_records",
            "Deliveries in the spool by state.",
            None,
            sample.records.iter().map(|&(state, count)| ([("state", state)], count)),
        )?;
        self.gauge(
            "spool_oldest_age",
            "How long the oldest delivery waits; 0 if none does.",
            Some(&Unit::Seconds),
            sample.oldest_age.as_secs(),
        )?;
        self.gauge("spool", "What the spool holds beside the history.", bytes, sample.bytes)?;
        let limit = sample.limit_bytes;
        self.gauge("spool_limit", "What the spool may hold beside the history.", bytes, limit)?;
        let history = sample.history_bytes;
        self.gauge("spool_history", "What the history of the spool takes.", bytes, history)?;
        self.gauge("spool_file", "What the spool takes on disk.", bytes, sample.file_bytes)?;
        if let Some(free) = sample.free_bytes {
            self.gauge("spool_free", "What is free on the spool's disk.", bytes, free)?;
        }
        self.0
            .encode_descriptor(
                "spool_attempts",
                "Deliveries taken up to be sent from the spool.",
                None,
                MetricType::Counter,
            )?
            .encode_counter::<NoLabelSet, _, u64>(&sample.attempts, None)?;
        let usable = u64::from(sample.is_usable);
        self.gauge("spool_usable", "Whether the spool can be used.", None, usable)?;
        let full = u64::from(sample.is_full);
        self.gauge("spool_full", "Whether the spool takes no more.", None, full)
    }

    fn connections(&mut self, sample: &ConnectionSample) -> fmt::Result {
        self.gauge("connections", "Open connections.", None, sample.open)?;
        self.gauge("connections_limit", "How many connections may be open.", None, sample.limit)?;
        self.0
            .encode_descriptor(
                "connections_accepted",
                "Connections accepted.",
                None,
                MetricType::Counter,
            )?
            .encode_counter::<NoLabelSet, _, u64>(&sample.accepted, None)?;
        self.counters(
            "connections_failed",
            "Connections refused, or ended by an error.",
            sample.failed.iter().map(|&(reason, count)| ([("reason", reason)], count)),
        )
    }

    fn keyrings(&mut self, keyrings: &[KeyringSample]) -> fmt::Result {
        // The same series twice would make the whole scrape invalid.
        let keyrings: Vec<_> = keyrings
            .iter()
            .enumerate()
            .filter(|(n, ring)| keyrings[..*n].iter().all(|before| before.file != ring.file))
            .map(|(_, ring)| (ring.file.as_str(), ring))
            .collect();
        self.gauges(
            "keyring_age",
            "How long ago the key file was last read well.",
            Some(&Unit::Seconds),
            keyrings
                .iter()
                .filter_map(|(file, ring)| Some(([("file", *file)], ring.age?.as_secs()))),
        )?;
        self.gauges(
            "keys",
            "Keys by whether they are in force.",
            None,
            keyrings.iter().flat_map(|(file, ring)| {
                [("active", ring.active), ("not_yet", ring.not_yet), ("expired", ring.expired)]
                    .map(|(state, count)| ([("file", *file), ("state", state)], count))
            }),
        )?;
        self.gauges(
            "keys_mixed_use",
            "Active keys that serve to sign and are shown as a token or in a URL as well.",
            None,
            keyrings.iter().map(|(file, ring)| ([("file", *file)], ring.mixed_use)),
        )?;
        self.counters(
            "key_reloads",
            "How often the key file was read again.",
            keyrings.iter().flat_map(|(file, ring)| {
                [(true, ring.reloads), (false, ring.reload_failures)]
                    .map(|(success, count)| ([("file", *file), ("result", result(success))], count))
            }),
        )
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> fmt::Result {
        self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: impl IntoIterator<Item = (impl EncodeLabelSet, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in values {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (impl EncodeLabelSet, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Reads the text, and panics where it is not OpenMetrics: every sample belongs to a family
    /// that was described before, no family and no series comes twice, and the end is marked.
    fn series(text: &str) -> BTreeMap<String, f64> {
        let body = text.strip_suffix("# EOF\n").expect("the end is marked");
        let mut families = BTreeSet::new();
        let (mut family, mut kind) = ("", "");
        let mut series = BTreeMap::new();
        for line in body.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').unwrap();
                assert!(families.insert(name), "{name} is described twice");
                assert!(text.ends_with('.') && !text.ends_with(".."), "{line}");
                family = name;
            } else if let Some(described) = line.strip_prefix("# TYPE ") {
                let (name, what) = described.split_once(' ').unwrap();
                assert_eq!(name, family);
                kind = what;
            } else if let Some(unit) = line.strip_prefix("# UNIT ") {
                let (name, unit) = unit.split_once(' ').unwrap();
                assert!(name == family && name.ends_with(unit), "{line}");
            } else {
                let (id, value) = line.rsplit_once(' ').unwrap();
                let name = id.split('{').next().unwrap();
                let suffix = name.strip_prefix(family).expect(line);
                let suffixes: &[&str] = match kind {
                    "counter" => &["_total"],
                    "histogram" => &["_sum", "_count", "_bucket"],
                    "info" => &["_info"],
                    _ => &[""],
                };
                assert!(suffixes.contains(&suffix), "{line}");
                let value = value.parse().expect(line);
                assert!(series.insert(id.to_owned(), value).is_none(), "{line} comes twice");
            }
        }
        series
    }

    fn metrics() -> Metrics {
        Metrics::new(Timestamp::from_millis(1_777_000_000_500))
    }

    #[test]
    fn requests_are_counted_by_hook_provider_and_outcome() {
        let metrics = metrics();
        let (a, b) = (metrics.hook("a"), metrics.hook("b"));
        let brief = Duration::from_millis(2);
        a.request(Some(Provider::Github), Outcome::Forwarded, brief);
        a.request(Some(Provider::Github), Outcome::Forwarded, brief);
        a.request(Some(Provider::Gitlab), Outcome::SetAside, brief);
        b.request(None, Outcome::Unauthorized, Duration::from_secs(40));
        metrics.without_hook().request(None, Outcome::NotFound, brief);

        let series = series(&metrics.encode());
        let requests: Vec<_> = series
            .iter()
            .filter(|(id, _)| id.starts_with("hookgate_requests_total"))
            .map(|(id, count)| (id.as_str(), *count))
            .collect();
        let total = |labels| format!("hookgate_requests_total{{{labels}}}");
        assert_eq!(
            requests,
            [
                (&*total(r#"hook="",provider="",outcome="not-found""#), 1.0),
                (&*total(r#"hook="a",provider="github",outcome="forwarded""#), 2.0),
                (&*total(r#"hook="a",provider="gitlab",outcome="set-aside""#), 1.0),
                (&*total(r#"hook="b",provider="",outcome="unauthorized""#), 1.0),
            ]
        );
        let bucket = |hook, le| {
            series
                [&format!(r#"hookgate_request_duration_seconds_bucket{{le="{le}",hook="{hook}"}}"#)]
        };
        assert_eq!(
            [bucket("a", "0.001"), bucket("a", "0.0025"), bucket("a", "+Inf")],
            [0., 3., 3.]
        );
        assert_eq!([bucket("b", "30.0"), bucket("b", "+Inf")], [0., 1.]);
    }

    #[test]
    fn every_provider_and_outcome_has_a_series_of_its_own() {
        let metrics = metrics();
        let hook = metrics.hook("a");
        for provider in Provider::ALL.into_iter().map(Some).chain([None]) {
            for &outcome in Outcome::ALL {
                hook.request(provider, outcome, Duration::ZERO);
            }
        }
        let series = series(&metrics.encode());
        let counts: Vec<_> =
            series.iter().filter(|(id, _)| id.starts_with("hookgate_requests_total")).collect();
        assert_eq!(counts.len(), (Provider::ALL.len() + 1) * Outcome::ALL.len());
        assert!(counts.iter().all(|(_, count)| **count == 1.0));
    }

    #[test]
    fn a_hook_of_the_same_name_goes_on_counting() {
        let metrics = metrics();
        for _ in 0..2 {
            metrics.hook("a").request(None, Outcome::Pong, Duration::ZERO);
        }
        assert!(Arc::ptr_eq(&metrics.hook("a"), &metrics.hook("a")));
        let id = r#"hookgate_requests_total{hook="a",provider="",outcome="pong"}"#;
        assert_eq!(series(&metrics.encode())[id], 2.0);
    }

    #[test]
    fn calls_to_upstream_are_counted_with_their_retries_and_failures() {
        let metrics = metrics();
        let hook = metrics.hook("a");
        hook.upstream_call(Duration::from_millis(30), 1);
        hook.upstream_call(Duration::from_millis(30), 2);
        hook.upstream_failure("closed");
        let series = series(&metrics.encode());
        assert_eq!(series[r#"hookgate_upstream_duration_seconds_count{hook="a"}"#], 2.0);
        assert_eq!(series[r#"hookgate_upstream_retries_total{hook="a"}"#], 1.0);
        assert_eq!(series[r#"hookgate_upstream_failures_total{hook="a",kind="closed"}"#], 1.0);
    }

    #[test]
    fn the_sample_is_taken_anew_at_each_scrape() {
        let metrics = metrics();
        assert!(!metrics.encode().contains("hookgate_in_flight"), "nothing was set");
        let open = Arc::new(AtomicU64::new(7));
        let source = Arc::clone(&open);
        metrics.sample_with(move || Sample {
            in_flight: 3,
            in_flight_limit: 1024,
            unverified_bytes: 4096,
            unverified_limit_bytes: 64 << 20,
            connections: ConnectionSample {
                open: source.load(Ordering::Relaxed),
                limit: 10_000,
                accepted: 12,
                failed: vec![("limit", 1), ("parse", 2)],
            },
            ..Sample::default()
        });
        let first = series(&metrics.encode());
        assert_eq!(first["hookgate_in_flight"], 3.0);
        assert_eq!(first["hookgate_in_flight_limit"], 1024.0);
        assert_eq!(first["hookgate_unverified_bytes"], 4096.0);
        assert_eq!(first["hookgate_unverified_limit_bytes"], 67_108_864.0);
        assert_eq!(first["hookgate_connections"], 7.0);
        assert_eq!(first["hookgate_connections_limit"], 10_000.0);
        assert_eq!(first["hookgate_connections_accepted_total"], 12.0);
        assert_eq!(first[r#"hookgate_connections_failed_total{reason="parse"}"#], 2.0);
        open.store(8, Ordering::Relaxed);
        assert_eq!(series(&metrics.encode())["hookgate_connections"], 8.0);
    }

    #[test]
    fn the_spool_and_the_services_are_told_if_there_are_any() {
        let metrics = metrics();
        metrics.sample_with(Sample::default);
        let without = metrics.encode();
        assert!(
            !without.contains("hookgate_spool_bytes") && !without.contains("_up{"),
            "{without}"
        );
        let spool = SpoolSample {
            records: vec![("pending", 3), ("leased", 1), ("delivered", 40), ("dead", 2)],
            oldest_age: Duration::from_millis(61_500),
            bytes: 10,
            limit_bytes: 20,
            history_bytes: 30,
            file_bytes: 40,
            free_bytes: Some(50),
            attempts: 60,
            is_usable: true,
            is_full: false,
        };
        let upstreams = vec![("http://a".to_owned(), true), ("http://b".to_owned(), false)];
        metrics.sample_with(move || Sample {
            spool: Some(spool.clone()),
            upstreams: upstreams.clone(),
            ..Sample::default()
        });
        metrics.hook("a").spooled(SpoolResult::Retried);
        let series = series(&metrics.encode());
        for (name, expected) in [
            (r#"spool_records{state="pending"}"#, 3.0),
            (r#"spool_records{state="dead"}"#, 2.0),
            ("spool_oldest_age_seconds", 61.0),
            ("spool_bytes", 10.0),
            ("spool_limit_bytes", 20.0),
            ("spool_history_bytes", 30.0),
            ("spool_file_bytes", 40.0),
            ("spool_free_bytes", 50.0),
            ("spool_attempts_total", 60.0),
            ("spool_usable", 1.0),
            ("spool_full", 0.0),
            (r#"upstream_up{upstream="http://a"}"#, 1.0),
            (r#"upstream_up{upstream="http://b"}"#, 0.0),
            (r#"spool_deliveries_total{hook="a",result="retried"}"#, 1.0),
        ] {
            assert_eq!(series.get(&format!("hookgate_{name}")), Some(&expected), "{name}");
        }
    }

    #[test]
    fn keyrings_are_told_apart_by_file_and_one_file_comes_once() {
        let metrics = metrics();
        let ring = KeyringSample {
            file: "webhook.key".to_owned(),
            age: Some(Duration::from_millis(61_500)),
            active: 2,
            not_yet: 1,
            expired: 3,
            mixed_use: 1,
            reloads: 5,
            reload_failures: 4,
        };
        let never = KeyringSample { file: "a \"b\".key".to_owned(), ..KeyringSample::default() };
        let twin = KeyringSample { active: 9, ..ring.clone() };
        let keyrings = vec![ring, never, twin];
        metrics.sample_with(move || Sample { keyrings: keyrings.clone(), ..Sample::default() });
        let series = series(&metrics.encode());
        let keys =
            |state| series[&format!(r#"hookgate_keys{{file="webhook.key",state="{state}"}}"#)];
        assert_eq!([keys("active"), keys("not_yet"), keys("expired")], [2.0, 1.0, 3.0]);
        let reloads = |result| {
            series
                [&format!(r#"hookgate_key_reloads_total{{file="webhook.key",result="{result}"}}"#)]
        };
        assert_eq!([reloads("success"), reloads("failure")], [5.0, 4.0]);
        assert_eq!(series[r#"hookgate_keyring_age_seconds{file="webhook.key"}"#], 61.0);
        assert_eq!(series[r#"hookgate_keys_mixed_use{file="webhook.key"}"#], 1.0);
        let escaped = r#"{file="a \"b\".key"}"#;
        assert_eq!(series[&format!("hookgate_keys_mixed_use{escaped}")], 0.0);
        assert!(!series.contains_key(&format!("hookgate_keyring_age_seconds{escaped}")));
    }

    #[test]
    fn the_process_and_its_configuration_are_described() {
        let metrics = metrics();
        metrics.config_reloaded(true);
        metrics.config_reloaded(false);
        metrics.config_reloaded(false);
        let series = series(&metrics.encode());
        assert_eq!(series["process_start_time_seconds"], 1_777_000_000.5);
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(series[&format!(r#"hookgate_build_info{{version="{version}"}}"#)], 1.0);
        assert_eq!(series[r#"hookgate_config_reloads_total{result="success"}"#], 1.0);
        assert_eq!(series[r#"hookgate_config_reloads_total{result="failure"}"#], 2.0);
    }
}
