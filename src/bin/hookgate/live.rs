//! The commands that speak with a running gate through its socket.

pub(crate) mod log;
pub(crate) mod status;
pub(crate) mod switch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use hookgate::proxy::config::{Config, Overrides};
use hookgate::proxy::control::{
    ControlClient, ControlError, ControlErrorKind, SOCKET_NAME, SwitchStatus,
};
use hookgate::time::Timestamp;

use crate::args::GateLocation;
use crate::output::{Failure, time};

/// Nobody listens on the socket.
const NOT_RUNNING: u8 = 3;

/// The state folder that is named, or that of the configuration.
pub(crate) fn state_dir(config: Option<&Path>, named: Option<&Path>) -> Result<PathBuf, Failure> {
    match named {
        Some(named) => Ok(named.to_owned()),
        None => Ok(load(config, None)?.state_dir),
    }
}

/// The configuration; what is wrong with it has been told.
fn load(config: Option<&Path>, state_dir: Option<&Path>) -> Result<Config, Failure> {
    let overrides = Overrides {
        config: config.map(Into::into),
        state_dir: state_dir.map(Into::into),
        ..Overrides::default()
    };
    Config::load(&overrides).map_err(|error| {
        for problem in error.problems() {
            eprintln!("error: {problem}");
        }
        Failure::Told
    })
}

impl GateLocation {
    fn client(&self) -> Result<ControlClient, Failure> {
        let state_dir = state_dir(self.config.as_deref(), self.state_dir.as_deref())?;
        Ok(ControlClient::new(state_dir.join(SOCKET_NAME)))
    }
}

/// What a gate answers. It blocks.
pub(crate) fn ask<T>(
    question: impl Future<Output = Result<T, ControlError>>,
) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Other(format!("cannot start: {error}")))?;
    Ok(runtime.block_on(question)?)
}

/// How a command ends, with what there is to say. `instead` is what else could be done where no gate runs.
fn end(done: Result<ExitCode, Failure>, instead: &str) -> ExitCode {
    let message = match done {
        Ok(code) => return code,
        // Whoever read it has enough.
        Err(Failure::Pipe) => return ExitCode::SUCCESS,
        Err(Failure::Told) => return ExitCode::FAILURE,
        Err(Failure::Control(error)) if error.kind() == ControlErrorKind::NotRunning => {
            eprintln!("error: {error}; {instead}if one runs, --state-dir or --config says where");
            return ExitCode::from(NOT_RUNNING);
        }
        Err(Failure::Control(error)) => crate::chain(&error),
        Err(Failure::Other(message)) => message,
    };
    eprintln!("error: {message}");
    ExitCode::FAILURE
}

/// What says that a hook is as it is.
fn origin(switch: &SwitchStatus) -> String {
    match (&*switch.from, &switch.since) {
        ("operator", Some(since)) => format!("by operator since {}", short(since)),
        ("damaged", _) => "since the switch file is damaged".into(),
        _ => "as configured".into(),
    }
}

/// A time of the JSON, to the second.
pub(crate) fn short(text: &str) -> String {
    text.parse::<Timestamp>().map_or_else(|_| text.to_owned(), time)
}
