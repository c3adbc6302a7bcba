//! What an operator sees and changes while the gate runs.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{PoisonError, Weak};

use super::{Live, Shared, readiness};
use crate::clock::{Clock, SystemClock};
use crate::key::{KeyState, Use};
use crate::keystore::KeyStore;
use crate::proxy::config::HookConfig;
use crate::proxy::control::{
    GateStatus, HookStatus, KeyFileStatus, KeyStatus, ListenerStatus, LiveGate, LogChange,
    LogStatus, RefusalStatus, SpoolStatus, Stopping, UpstreamStatus,
};
use crate::proxy::switch_file::{
    HookSwitch, SwitchChange, SwitchError, SwitchFile, SwitchOrigin, SwitchTo,
};
use crate::proxy::telemetry::{LogHandle, Refusal};
use crate::proxy::upstream::UpstreamCalls;
use crate::time::Timestamp;

/// A gate that may have gone.
pub(super) struct Operated(pub(super) Weak<Shared>);

impl LiveGate for Operated {
    fn status(&self) -> Result<GateStatus, Stopping> {
        self.0.upgrade().map(|shared| shared.status()).ok_or(Stopping)
    }

    fn switch(&self, change: &SwitchChange) -> Result<Vec<HookSwitch>, SwitchError> {
        self.0.upgrade().ok_or(SwitchError::Stopping)?.change_switches(change)
    }

    fn log(&self, change: &LogChange) -> Result<LogStatus, String> {
        let shared = self.0.upgrade().ok_or("the gate stops")?;
        let handle = shared.log.get().ok_or("the log of this process is not the gate's")?;
        // Both are checked before one is changed.
        let format = change.format.as_deref().map(str::parse).transpose();
        let format =
            format.map_err(|error: crate::proxy::telemetry::LogError| error.to_string())?;
        if let Some(level) = &change.level {
            handle.set_filter(level).map_err(|error| error.to_string())?;
        }
        if let Some(format) = format {
            handle.set_format(format);
        }
        let log = log_status(handle);
        if *change != LogChange::default() {
            tracing::info!(level = log.level, format = log.format, "log is as the operator wishes");
        }
        Ok(log)
    }
}

fn log_status(handle: &LogHandle) -> LogStatus {
    let config = handle.config();
    LogStatus { level: config.filter, format: config.format.as_str().into() }
}

impl Shared {
    /// What a hook's switch is to be.
    pub(super) fn switch_of(&self, hook: &HookConfig) -> HookSwitch {
        self.switch_file().switch(&hook.name, hook.enabled)
    }

    /// Only ever locked within the configuration in force, or for a moment.
    pub(super) fn switch_file(&self) -> std::sync::MutexGuard<'_, SwitchFile> {
        self.switch_file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_switches(&self, change: &SwitchChange) -> Result<Vec<HookSwitch>, SwitchError> {
        // One change after the other: each is made of what the one before has written.
        let folder = self.switching.lock().unwrap_or_else(PoisonError::into_inner);
        let now = SystemClock.now();
        let hooks: Vec<_> = self.live().config.hooks.iter().map(|hook| hook.name.clone()).collect();
        let names: Vec<_> = hooks.iter().map(String::as_str).collect();
        let file = self.switch_file().changed(change, &names, now)?;
        let switches = if change.to == SwitchTo::Disabled {
            // Whatever the disk does, nothing is let in from now on.
            let switches = self.put_in_force(&file);
            file.write(&folder).map_err(SwitchError::NotKept)?;
            switches
        } else {
            file.write(&folder).map_err(SwitchError::Write)?;
            self.put_in_force(&file)
        };
        let hook = change.hook.as_deref().unwrap_or("all");
        match change.to {
            SwitchTo::Enabled => tracing::info!(hook, "enabled, as the operator wishes"),
            SwitchTo::Disabled => tracing::warn!(hook, "disabled, as the operator wishes"),
            SwitchTo::AsConfigured => tracing::info!(hook, "as configured, as the operator wishes"),
        }
        Ok(switches)
    }

    /// For every request that begins after this.
    fn put_in_force(&self, file: &SwitchFile) -> Vec<HookSwitch> {
        let live = self.live();
        self.switch_file().clone_from(file);
        let switches: Vec<_> = live.config.hooks.iter().map(|hook| self.switch_of(hook)).collect();
        for switch in &switches {
            if let Some(known) = live.switches.get(&switch.hook) {
                known.set(switch.enabled);
            }
        }
        switches
    }

    fn status(&self) -> GateStatus {
        let now = SystemClock.now();
        let readiness = readiness(&self.weak);
        let live = self.live();
        let upstreams = upstreams(&live);
        let spool = self.spool.as_ref().and_then(|parts| parts.status.load_full());
        let mut problems = readiness.missing.clone();
        problems.extend(readiness.warnings);
        let error = self.config_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        problems.extend(error.map(|(since, problem)| {
            format!("the configuration is not taken since {}: {problem}", second(since))
        }));
        for (path, store) in &live.stores {
            if let Some((since, error)) = store.status(now).error {
                let (path, since) = (path.display(), second(since));
                problems.push(format!("key file {path} is not taken since {since}: {error}"));
            }
        }
        for upstream in &upstreams {
            // Without a breaker, the last call tells.
            let fails = upstream.up.map_or(upstream.last_failure > upstream.last_success, |up| !up);
            if fails {
                let error = upstream.last_error.as_deref().unwrap_or("no reason known");
                problems.push(format!("upstream {} is down: {error}", upstream.name));
            }
        }
        if let Some(dead) = spool.as_ref().map(|status| status.dead).filter(|dead| *dead > 0) {
            problems.push(format!(
                "{dead} given up and kept in the spool: `hookgate spool list --state dead` shows them"
            ));
        }
        problems.sort();
        problems.dedup();
        GateStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started_at: self.began.to_string(),
            config: live.config.file.as_deref().map(absolute),
            ready: readiness.missing.is_empty(),
            problems,
            hooks: live.config.hooks.iter().map(|hook| self.hook_status(hook)).collect(),
            key_files: self.key_files(&live, now),
            spool: spool.map(|status| SpoolStatus((*status).clone())),
            upstreams,
            listeners: self.listener_statuses(),
            log: self.log.get().map(log_status),
            refusals: self.stack.refusals().latest().into_iter().map(refusal_status).collect(),
        }
    }

    fn hook_status(&self, hook: &HookConfig) -> HookStatus {
        HookStatus {
            switch: self.switch_of(hook).into(),
            configured: hook.enabled,
            path: hook.path.clone(),
            key_file: absolute(&hook.key_file),
            upstream: hook.upstream.as_ref().map(|upstream| upstream.origin()),
        }
    }

    /// In the order in which hooks name them.
    fn key_files(&self, live: &Live, now: Timestamp) -> Vec<KeyFileStatus> {
        let hooks = &live.config.hooks;
        let mut paths: Vec<&PathBuf> = Vec::new();
        for hook in hooks {
            if !paths.contains(&&hook.key_file) {
                paths.push(&hook.key_file);
            }
        }
        let status = |path: &PathBuf| {
            let users = hooks.iter().filter(|hook| hook.key_file == *path);
            let users: Vec<_> = users.map(|hook| hook.name.as_str()).collect();
            Some(self.key_file(path, live.stores.get(path)?, &users, now))
        };
        paths.into_iter().filter_map(status).collect()
    }

    fn key_file(
        &self,
        path: &Path,
        store: &KeyStore,
        hooks: &[&str],
        now: Timestamp,
    ) -> KeyFileStatus {
        let status = store.status(now);
        let keys = status.keys.iter().map(|key| {
            let used = self.stack.key_uses().of(hooks, &key.name);
            let state = match key.state {
                KeyState::Pending => "pending",
                KeyState::Active => "active",
                KeyState::Expired => "expired",
            };
            KeyStatus {
                name: key.name.clone(),
                state: state.into(),
                uses: key.uses.iter().map(Use::as_str).map(Into::into).collect(),
                made_at: made_at(&key.name, key.from).map(|at| at.to_string()),
                until: key.until.map(|until| until.to_string()),
                used: used.map_or(0, |used| used.count),
                last_used: used.map(|used| used.last.to_string()),
            }
        });
        KeyFileStatus {
            path: absolute(path),
            loaded_at: status.loaded_at.map(|at| at.to_string()),
            error: status.error.as_ref().map(|(_, error)| error.to_string()),
            keys: keys.collect(),
        }
    }

    fn listener_statuses(&self) -> Vec<ListenerStatus> {
        let listeners = self.listening.iter().map(|(serves, address, stats)| ListenerStatus {
            serves: (*serves).into(),
            address: address.clone(),
            connections: stats.active.load(Ordering::Relaxed),
        });
        listeners.collect()
    }
}

/// Each service once, whichever hooks have it.
fn upstreams(live: &Live) -> Vec<UpstreamStatus> {
    let mut statuses: Vec<UpstreamStatus> = Vec::new();
    for config in live.config.hooks.iter().filter_map(|hook| hook.upstream.as_ref()) {
        let name = config.origin();
        if statuses.iter().any(|status| status.name == name) {
            continue;
        }
        let is_it = |origin: String| origin == name;
        let links = live.links.iter().filter_map(|(config, link)| Some((config.as_ref()?, link)));
        let links = links.filter(|(config, _)| is_it(config.origin()));
        let mut calls = UpstreamCalls::default();
        for other in live.upstreams.iter().filter(|other| is_it(other.config().origin())) {
            let other = other.calls();
            let millis = |at: &Timestamp| at.as_millis();
            calls.last_success =
                calls.last_success.into_iter().chain(other.last_success).max_by_key(millis);
            calls.last_failure = calls
                .last_failure
                .into_iter()
                .chain(other.last_failure)
                .max_by_key(|(at, _)| millis(at));
        }
        statuses.push(UpstreamStatus {
            up: links.map(|(_, link)| link.is_up()).reduce(|a, b| a && b),
            last_success: calls.last_success.map(|at| at.to_string()),
            last_failure: calls.last_failure.as_ref().map(|(at, _)| at.to_string()),
            last_error: calls.last_failure.map(|(_, error)| error),
            name,
        });
    }
    statuses
}

fn refusal_status(refusal: Refusal) -> RefusalStatus {
    RefusalStatus {
        last: refusal.last.to_string(),
        first: refusal.first.to_string(),
        count: refusal.count,
        hook: refusal.hook.map(|hook| hook.to_string()),
        source: refusal.source.map(|source| source.to_string()),
        provider: refusal.provider.map(|provider| provider.to_string()),
        outcome: refusal.outcome.to_string(),
        reason: refusal.reason,
    }
}

/// What of the readiness comes from switches: what is missing, and what is merely wrong.
pub(super) fn switch_trouble(shared: &Shared, live: &Live) -> (Vec<String>, Vec<String>) {
    let file = shared.switch_file();
    let Some(damage) = file.damage() else { return Default::default() };
    let switches = live.config.hooks.iter().map(|hook| file.switch(&hook.name, hook.enabled));
    let lost: Vec<_> = switches
        .filter(|switch| switch.origin == SwitchOrigin::Damaged)
        .map(|switch| switch.hook)
        .collect();
    let what = format!("the switch file is damaged: {damage}");
    if lost.is_empty() {
        return (Vec::new(), vec![what]);
    }
    let lost = lost.join(", ");
    let missing = format!(
        "{what}; disabled until `hookgate enable` or `disable` says what is wanted: {lost}"
    );
    (vec![missing], Vec::new())
}

/// When a key was made or began: its `from=`, or else a date at the beginning of its name, as
/// `key generate` and `key rotate` give it.
fn made_at(name: &str, from: Option<Timestamp>) -> Option<Timestamp> {
    let begins = |length: usize, more: &[char]| {
        let (date, rest) = name.split_at_checked(length)?;
        let goes_on = |c: char| c.is_ascii_alphanumeric() || more.contains(&c);
        (!rest.starts_with(goes_on)).then_some(date)
    };
    let day = || format!("{}T00:00:00Z", begins(10, &[])?).parse().ok();
    let month = || format!("{}-01T00:00:00Z", begins(7, &['-'])?).parse().ok();
    from.or_else(day).or_else(month)
}

/// As an operator finds it from another folder.
fn absolute(path: &Path) -> String {
    std::path::absolute(path).as_deref().unwrap_or(path).display().to_string()
}

fn second(time: Timestamp) -> Timestamp {
    Timestamp::from_seconds(time.as_seconds()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_its_age_by_from_or_by_a_date_in_its_name() {
        let from = Timestamp::from_seconds(1_800_000_000);
        for (name, from, wanted) in [
            ("2026-11-24", None, Some("2026-11-24T00:00:00Z")),
            ("2026-11-24-2", None, Some("2026-11-24T00:00:00Z")),
            ("2026-11", None, Some("2026-11-01T00:00:00Z")),
            ("2026-11_acme", None, Some("2026-11-01T00:00:00Z")),
            ("2026-11-24", from, Some("2027-01-15T08:00:00Z")),
            ("2026-11-245", None, None),
            ("2026-13", None, None),
            ("2026-1", None, None),
            ("line-1", None, None),
            ("old-github-key", None, None),
        ] {
            let made = made_at(name, from).map(|at| at.to_string());
            assert_eq!(made.as_deref(), wanted, "{name}");
        }
    }
}
