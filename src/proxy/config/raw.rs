//! The file as it is written: all keys, none of them checked.
//!
//! Flat tables only: what serde buffers (`flatten`, `untagged`, `tag`) loses its position.

use std::path::PathBuf;

use super::spanned::Spanned;
use schemars::JsonSchema;
use serde::Deserialize;

use super::source::List;

type Text = Option<Spanned<String>>;

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    pub(super) listen: Text,
    pub(super) health: Text,
    pub(super) socket_mode: Text,
    pub(super) proxy_protocol: Text,
    pub(super) proxy_protocol_from: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) state_dir: Option<Spanned<PathBuf>>,
    pub(super) allow_from: List,
    pub(super) allow_from_files: Option<Spanned<Vec<PathBuf>>>,
    pub(super) trusted_proxies: List,
    pub(super) client_header: Text,
    pub(super) tls: Option<RawTls>,
    #[serde(default)]
    pub(super) limits: RawLimits,
    #[serde(default)]
    pub(super) upstream: RawUpstream,
    #[serde(default)]
    pub(super) spool: RawSpool,
    #[serde(default)]
    pub(super) tracing: RawTracing,
    #[serde(default)]
    pub(super) hook: Vec<Spanned<RawHook>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    pub(super) certificate_file: PathBuf,
    pub(super) key_file: PathBuf,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    pub(super) max_body: Text,
    pub(super) body_deadline: Text,
    pub(super) unverified_bytes: Text,
    pub(super) per_source: Text,
    pub(super) unauthenticated_per_source: Text,
    pub(super) in_flight: Option<Spanned<u32>>,
    pub(super) connections: Option<Spanned<u32>>,
    pub(super) keep_alive: Text,
    pub(super) grace_period: Text,
    pub(super) shutdown_delay: Text,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUpstream {
    pub(super) url: Text,
    pub(super) timeout: Text,
    pub(super) answer_within: Text,
    pub(super) concurrency: Option<Spanned<u32>>,
    pub(super) ca_file: Option<Spanned<PathBuf>>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSpool {
    pub(super) enabled: Option<bool>,
    pub(super) max_bytes: Text,
    pub(super) min_free: Text,
    pub(super) max_age: Text,
    pub(super) history: Text,
    pub(super) history_bytes: Text,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTracing {
    pub(super) propagate: Option<bool>,
    pub(super) sample: Option<Spanned<f64>>,
    pub(super) endpoint: Text,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHook {
    pub(super) name: Spanned<String>,
    pub(super) enabled: Option<bool>,
    pub(super) disabled_status: Option<Spanned<u16>>,
    pub(super) path: Text,
    pub(super) providers: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) allow_from: List,
    pub(super) allow_from_files: Option<Spanned<Vec<PathBuf>>>,
    pub(super) url_key: Text,
    pub(super) require: Text,
    pub(super) upstream: Text,
    pub(super) events: Option<Vec<Spanned<String>>>,
    pub(super) repositories: Option<Vec<Spanned<String>>>,
    pub(super) repositories_file: Option<Spanned<PathBuf>>,
    pub(super) refs: Option<Spanned<Vec<String>>>,
    pub(super) min_reindex_interval: Text,
    pub(super) coalesce_by: Text,
    pub(super) max_wait: Text,
    pub(super) delay: Text,
    pub(super) dedupe_window: Text,
    pub(super) rate: Text,
    pub(super) repository_rate: Text,
    pub(super) reindex_all: Option<bool>,
    pub(super) delivery: Text,
    pub(super) upstream_path: Text,
    pub(super) upstream_key_file: Option<Spanned<PathBuf>>,
    pub(super) upstream_body: Text,
    pub(super) upstream_sign_key_file: Option<PathBuf>,
    pub(super) forward_headers: Option<Spanned<Vec<String>>>,
    #[serde(default)]
    pub(super) azure_devops: RawAzureDevops,
    #[serde(default)]
    pub(super) gitee: RawGitee,
    pub(super) generic: Option<RawGeneric>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAzureDevops {
    pub(super) user: Option<String>,
    pub(super) header: Text,
    #[serde(default)]
    pub(super) mark_upstream: bool,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGitee {
    pub(super) mode: Text,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGeneric {
    pub(super) header: Spanned<String>,
    pub(super) algorithm: Text,
    pub(super) encoding: Text,
    pub(super) prefix: Option<String>,
    pub(super) event_header: Text,
    pub(super) push_events: Option<Vec<String>>,
}
