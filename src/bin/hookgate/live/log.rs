//! `hookgate log`: what a running gate logs, and how.

use std::process::ExitCode;

use hookgate::proxy::control::LogChange;
use serde_json::json;

use super::{ask, end};
use crate::args::LogArgs;
use crate::output::{Failure, Out, table};

pub(crate) fn run(args: &LogArgs) -> ExitCode {
    end(log(args), "")
}

fn log(args: &LogArgs) -> Result<ExitCode, Failure> {
    let client = args.location.client()?;
    let change = LogChange { level: args.level.clone(), format: args.format.clone() };
    let log = if change == LogChange::default() {
        ask(client.log())?
    } else {
        ask(client.set_log(&change))?
    };
    let mut out = Out::new();
    if args.json {
        out.line(&json!(log).to_string())?;
    } else {
        let mut table = table();
        table.add_row(["level", &log.level]).add_row(["format", &log.format]);
        out.table(&table)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
