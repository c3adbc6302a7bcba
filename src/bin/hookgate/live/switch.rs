//! `hookgate enable` and `hookgate disable`.

use std::process::ExitCode;

use hookgate::clock::{Clock, SystemClock};
use hookgate::proxy::control::SwitchStatus;
use hookgate::proxy::state::StateError;
use hookgate::proxy::switch_file::{SwitchChange, SwitchError, SwitchTo, change_offline};
use serde_json::json;

use super::{ask, end, load, origin};
use crate::args::{DisableArgs, EnableArgs, SwitchArgs};
use crate::output::{Failure, Out, table};

pub(crate) fn enable(args: &EnableArgs) -> ExitCode {
    let to = if args.as_configured { SwitchTo::AsConfigured } else { SwitchTo::Enabled };
    run(&args.switch, to)
}

pub(crate) fn disable(args: &DisableArgs) -> ExitCode {
    run(&args.switch, SwitchTo::Disabled)
}

fn run(args: &SwitchArgs, to: SwitchTo) -> ExitCode {
    let change = SwitchChange { hook: args.hook.clone(), to };
    let changed = if args.offline { offline(args, &change) } else { live(args, &change) };
    let shown = changed.and_then(|switches| show(args, &switches));
    end(shown, "if no gate runs, --offline works on its file; ")
}

fn live(args: &SwitchArgs, change: &SwitchChange) -> Result<Vec<SwitchStatus>, Failure> {
    let client = args.location.client()?;
    ask(client.switch(change))
}

fn offline(args: &SwitchArgs, change: &SwitchChange) -> Result<Vec<SwitchStatus>, Failure> {
    let location = &args.location;
    let config = load(location.config.as_deref(), location.state_dir.as_deref())?;
    let folder = &config.state_dir;
    // Otherwise a misspelt folder would be made.
    if !folder.is_dir() {
        return Err(Failure::Other(format!("there is no state folder {}", folder.display())));
    }
    let hooks: Vec<_> =
        config.hooks.iter().map(|hook| (hook.name.as_str(), hook.enabled)).collect();
    let changed = change_offline(folder, change, &hooks, SystemClock.now());
    let switches = changed.map_err(|error| match error {
        SwitchError::State(StateError::InUse(path)) => Failure::gate_runs(&path),
        SwitchError::UnknownHook(_) if config.file.is_none() => {
            Failure::Other(format!("{error}; --config says which file the gate has"))
        }
        error => Failure::Other(crate::chain(&error)),
    })?;
    Ok(switches.into_iter().map(SwitchStatus::from).collect())
}

/// All that were meant.
fn show(args: &SwitchArgs, switches: &[SwitchStatus]) -> Result<ExitCode, Failure> {
    let meant = |switch: &&SwitchStatus| args.hook.as_ref().is_none_or(|hook| switch.hook == *hook);
    let meant: Vec<_> = switches.iter().filter(meant).collect();
    let mut out = Out::new();
    if args.json {
        out.line(&json!(meant).to_string())?;
    } else {
        let mut table = table();
        for switch in meant {
            let state = if switch.enabled { "enabled" } else { "disabled" };
            table.add_row([&*switch.hook, state, &origin(switch)]);
        }
        out.table(&table)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
