//! What a gate tells of itself, and what an operator changes while it runs.
//!
//! The types are also the JSON of the socket and of `--json`. Times are RFC 3339. Nothing here holds a
//! secret, a path behind a hook (it may be a key) or anything else that a sender chose.

use serde::{Deserialize, Serialize};

use super::json::StatusJson;
use crate::proxy::spool::Status;
use crate::proxy::switch_file::{HookSwitch, SwitchChange, SwitchError, SwitchOrigin, SwitchTo};

/// A gate that runs, as its operator sees it.
pub trait LiveGate: Send + Sync {
    /// How it is. Must not block.
    ///
    /// # Errors
    ///
    /// [`Stopping`].
    fn status(&self) -> Result<GateStatus, Stopping>;

    /// Changes switches, for every request that begins after this, and so that it holds after a restart.
    /// Answers with all switches. It may block on the disk.
    ///
    /// # Errors
    ///
    /// [`SwitchError`]: there is no such hook, or it cannot be kept.
    fn switch(&self, change: &SwitchChange) -> Result<Vec<HookSwitch>, SwitchError>;

    /// Changes what is logged, and how, until the gate ends. Answers with what holds now.
    ///
    /// # Errors
    ///
    /// What is wrong with the change, in words; nothing is changed then.
    fn log(&self, change: &LogChange) -> Result<LogStatus, String>;
}

/// The gate is about to end and tells nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopping;

/// How a gate is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GateStatus {
    /// Its version.
    pub version: String,
    /// The number of its process.
    pub pid: u32,
    /// When it started.
    pub started_at: String,
    /// Its configuration file, if it has one.
    pub config: Option<String>,
    /// Whether deliveries can come in, as `/ready` says.
    pub ready: bool,
    /// What is wrong, in sentences; nothing means that all is well.
    pub problems: Vec<String>,
    /// The hooks, as configured.
    pub hooks: Vec<HookStatus>,
    /// The key files of the hooks.
    pub key_files: Vec<KeyFileStatus>,
    /// Where deliveries wait, if they do.
    pub spool: Option<SpoolStatus>,
    /// The services.
    pub upstreams: Vec<UpstreamStatus>,
    /// Where it listens.
    pub listeners: Vec<ListenerStatus>,
    /// What it logs.
    pub log: Option<LogStatus>,
    /// What was refused lately, the latest first.
    pub refusals: Vec<RefusalStatus>,
}

/// One hook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HookStatus {
    /// Its switch.
    #[serde(flatten)]
    pub switch: SwitchStatus,
    /// What the configuration says.
    pub configured: bool,
    /// Its path, without a key.
    pub path: String,
    /// Its key file.
    pub key_file: String,
    /// Its service; none if deliveries are printed.
    pub upstream: Option<String>,
}

/// A hook's switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchStatus {
    /// The hook's name.
    pub hook: String,
    /// Whether it lets deliveries in.
    pub enabled: bool,
    /// What says so: `configuration`, `operator` (the switch file) or `damaged` (the switch file cannot be
    /// read).
    pub from: String,
    /// Since when an operator wants it so.
    pub since: Option<String>,
}

impl From<HookSwitch> for SwitchStatus {
    fn from(switch: HookSwitch) -> Self {
        let (from, since) = match switch.origin {
            SwitchOrigin::Configuration => ("configuration", None),
            SwitchOrigin::Operator(since) => ("operator", Some(since.to_string())),
            SwitchOrigin::Damaged => ("damaged", None),
        };
        Self { hook: switch.hook, enabled: switch.enabled, from: from.into(), since }
    }
}

/// One key file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyFileStatus {
    /// Where it is, from the root of the file system.
    pub path: String,
    /// When what is in force was read, if something is.
    pub loaded_at: Option<String>,
    /// Why the file that is there now is not in force, if it is not.
    pub error: Option<String>,
    /// The keys in the order of the file.
    pub keys: Vec<KeyStatus>,
}

/// One key, without its secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyStatus {
    /// Its name.
    pub name: String,
    /// `active`, `pending` or `expired`.
    pub state: String,
    /// What it may be used for.
    pub uses: Vec<String>,
    /// When it was made or began, as far as its name or `from=` tells.
    pub made_at: Option<String>,
    /// When it ends.
    pub until: Option<String>,
    /// How many deliveries it has proved since the gate started.
    pub used: u64,
    /// When the last of them came.
    pub last_used: Option<String>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// Its origin, without path and credentials; `stdout` where deliveries are printed.
    pub name: String,
    /// Whether it is taken to be there; without a spool, nobody keeps account of that.
    pub up: Option<bool>,
    /// When it last answered 2xx.
    pub last_success: Option<String>,
    /// When it last did not.
    pub last_failure: Option<String>,
    /// What it did instead.
    pub last_error: Option<String>,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// `deliveries` or `health`.
    pub serves: String,
    /// Where it listens.
    pub address: String,
    /// Open connections.
    pub connections: u64,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStatus {
    /// The filter.
    pub level: String,
    /// `text` or `json`.
    pub format: String,
}

/// Requests that were refused in the same way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalStatus {
    /// When the last of them came.
    pub last: String,
    /// When the first of them came.
    pub first: String,
    /// How many there were.
    pub count: u64,
    /// The hook, if they reached one.
    pub hook: Option<String>,
    /// The address that they came from.
    pub source: Option<String>,
    /// Whose format they have, or claim.
    pub provider: Option<String>,
    /// What they were answered.
    pub outcome: String,
    /// Why.
    pub reason: String,
}

/// A spool, in the JSON of `hookgate spool status --json`.
#[derive(Clone, Debug, PartialEq)]
pub struct SpoolStatus(pub Status);

impl Serialize for SpoolStatus {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        StatusJson::from(&self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SpoolStatus {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let status = StatusJson::deserialize(deserializer)?.read();
        status.map(Self).ok_or_else(|| serde::de::Error::custom("not the status of a spool"))
    }
}

/// What is to be logged from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogChange {
    /// The filter, if that is to be another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// `text` or `json`, if that is to be another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

/// A change of switches. Without a hook it is about all of them, which has to be said.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SwitchJson {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hook: Option<String>,
    #[serde(default)]
    all: bool,
    to: String,
}

impl SwitchJson {
    pub(super) fn of(change: &SwitchChange) -> Self {
        let to = match change.to {
            SwitchTo::Enabled => "enabled",
            SwitchTo::Disabled => "disabled",
            SwitchTo::AsConfigured => "as-configured",
        };
        Self { hook: change.hook.clone(), all: change.hook.is_none(), to: to.into() }
    }

    /// What is wrong with it, in the words of the answer.
    pub(super) fn read(self) -> Result<SwitchChange, &'static str> {
        if self.hook.is_some() == self.all {
            return Err("say which hook, or \"all\": true");
        }
        let to = match self.to.as_str() {
            "enabled" => SwitchTo::Enabled,
            "disabled" => SwitchTo::Disabled,
            "as-configured" => SwitchTo::AsConfigured,
            _ => return Err("a hook can be \"enabled\", \"disabled\" or \"as-configured\""),
        };
        Ok(SwitchChange { hook: self.hook, to })
    }
}
