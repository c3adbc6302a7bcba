//! `hookgate status`: how a running gate is.

use std::process::ExitCode;

use bytesize::ByteSize;
use comfy_table::Table;
use hookgate::clock::{Clock, SystemClock};
use hookgate::proxy::control::{
    GateStatus, KeyFileStatus, KeyStatus, RefusalStatus, SpoolStatus, UpstreamStatus,
};
use hookgate::proxy::spool::Health;
use hookgate::proxy::telemetry::printable;
use hookgate::time::Timestamp;
use serde_json::json;

use super::{ask, end, origin, short};
use crate::args::StatusArgs;
use crate::output::{Failure, Out, length, table};

pub(crate) fn run(args: &StatusArgs) -> ExitCode {
    end(status(args), "")
}

fn status(args: &StatusArgs) -> Result<ExitCode, Failure> {
    let client = args.location.client()?;
    let status = ask(client.gate_status())?;
    let mut out = Out::new();
    if args.json {
        out.line(&json!(status).to_string())?;
    } else {
        show(&status, SystemClock.now(), &mut out)?;
    }
    out.flush()?;
    Ok(if status.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(status: &GateStatus, now: Timestamp, out: &mut Out) -> Result<(), Failure> {
    section(out, None, &gate(status, now))?;
    section(out, Some("HOOKS"), &hooks(status))?;
    for file in &status.key_files {
        section(out, Some(&format!("KEYS in {}", shown(&file.path))), &keys(file, now))?;
    }
    if let Some(SpoolStatus(spool)) = &status.spool {
        let mut rows = table();
        let health = match &spool.health {
            Health::Open => "takes deliveries".to_owned(),
            Health::Full(limit) => format!("full: {limit}"),
            Health::Failed(reason) => format!("cannot be used: {}", shown(reason)),
            _ => "closed".to_owned(),
        };
        let waits = match spool.oldest {
            Some(oldest) => {
                format!("{}, the oldest for {}", spool.pending, length(now.since(oldest)))
            }
            None => spool.pending.to_string(),
        };
        rows.add_row(["health", &health]).add_row(["pending", &waits]);
        rows.add_row(["being sent", &spool.leased.to_string()]);
        rows.add_row(["given up", &spool.dead.to_string()]);
        rows.add_row(["holds", &ByteSize::b(spool.bytes).to_string()]);
        section(out, Some("SPOOL"), &rows)?;
    }
    if !status.upstreams.is_empty() {
        section(out, Some("UPSTREAMS"), &upstreams(&status.upstreams, now))?;
    }
    let mut listeners = table();
    listeners.set_header(["SERVES", "ADDRESS", "CONNECTIONS"]);
    for listener in &status.listeners {
        let connections = listener.connections.to_string();
        listeners.add_row([&listener.serves, &listener.address, &connections]);
    }
    section(out, Some("LISTENERS"), &listeners)?;
    if !status.refusals.is_empty() {
        section(out, Some("LAST REFUSALS"), &refusals(&status.refusals, now))?;
    }
    Ok(())
}

fn section(out: &mut Out, title: Option<&str>, table: &Table) -> Result<(), Failure> {
    if let Some(title) = title {
        out.line("")?;
        out.line(title)?;
    }
    out.table(table)
}

fn gate(status: &GateStatus, now: Timestamp) -> Table {
    let mut rows = table();
    let ready = if status.ready { "ready" } else { "not ready" };
    rows.add_row(["gate", ready]);
    for (n, problem) in status.problems.iter().enumerate() {
        rows.add_row([if n == 0 { "problems" } else { "" }, &shown(problem)]);
    }
    let running = format!("{}, process {}", status.version, status.pid);
    rows.add_row(["version", &running]);
    let since = format!("{} ({} ago)", short(&status.started_at), ago(&status.started_at, now));
    rows.add_row(["running since", &since]);
    let config = status.config.as_deref().map_or_else(|| "no file".into(), shown);
    rows.add_row(["configuration", &config]);
    if let Some(log) = &status.log {
        rows.add_row(["log", &format!("{}, {}", shown(&log.level), log.format)]);
    }
    rows
}

fn hooks(status: &GateStatus) -> Table {
    let mut rows = table();
    rows.set_header(["HOOK", "SWITCH", "WHY", "CONFIGURED", "PATH", "UPSTREAM"]);
    let word = |enabled| if enabled { "enabled" } else { "disabled" };
    for hook in &status.hooks {
        rows.add_row([
            &*hook.switch.hook,
            word(hook.switch.enabled),
            &origin(&hook.switch),
            word(hook.configured),
            &hook.path,
            hook.upstream.as_deref().unwrap_or("printed"),
        ]);
    }
    rows
}

fn keys(file: &KeyFileStatus, now: Timestamp) -> Table {
    let mut rows = table();
    if file.keys.is_empty() {
        rows.add_row(["none is in force"]);
        return rows;
    }
    rows.set_header(["KEY", "STATE", "FOR", "AGE", "UNTIL", "USED", "LAST USED"]);
    let time = |text: &Option<String>| text.as_deref().map_or_else(|| "-".into(), short);
    for key in &file.keys {
        let age = key.made_at.as_deref().map_or_else(|| "-".into(), |made| ago(made, now));
        rows.add_row([
            key.name.clone(),
            key.state.clone(),
            key.uses.join(","),
            age,
            time(&key.until),
            key.used.to_string(),
            last_used(key),
        ]);
    }
    rows
}

fn last_used(key: &KeyStatus) -> String {
    key.last_used.as_deref().map_or_else(|| "-".into(), short)
}

fn upstreams(upstreams: &[UpstreamStatus], now: Timestamp) -> Table {
    let mut rows = table();
    rows.set_header(["UPSTREAM", "STATE", "LAST SUCCESS", "LAST FAILURE"]);
    for upstream in upstreams {
        let state = match upstream.up {
            Some(true) => "up",
            Some(false) => "down, deliveries wait",
            None => "-",
        };
        let success = upstream.last_success.as_deref();
        let success = success.map_or_else(|| "-".into(), |at| format!("{} ago", ago(at, now)));
        let failure = upstream.last_failure.as_deref().map(|at| {
            let error = shown(upstream.last_error.as_deref().unwrap_or_default());
            format!("{} ago: {error}", ago(at, now))
        });
        rows.add_row([&shown(&upstream.name), state, &success, failure.as_deref().unwrap_or("-")]);
    }
    rows
}

fn refusals(refusals: &[RefusalStatus], now: Timestamp) -> Table {
    let mut rows = table();
    rows.set_header(["LAST", "AGO", "COUNT", "HOOK", "SOURCE", "PROVIDER", "OUTCOME", "REASON"]);
    let text = |text: &Option<String>| text.as_deref().map_or_else(|| "-".into(), shown);
    for refusal in refusals {
        rows.add_row([
            short(&refusal.last),
            ago(&refusal.last, now),
            refusal.count.to_string(),
            text(&refusal.hook),
            text(&refusal.source),
            text(&refusal.provider),
            shown(&refusal.outcome),
            shown(&refusal.reason),
        ]);
    }
    rows
}

fn ago(text: &str, now: Timestamp) -> String {
    text.parse().map_or_else(|_| "-".into(), |at| length(now.since(at)))
}

fn shown(text: &str) -> String {
    printable(text).into_owned()
}
