//! `hookgate schema`: the JSON Schema of the configuration file.

use std::process::ExitCode;

use hookgate::proxy::config;

pub(crate) fn run() -> ExitCode {
    crate::describe::print(format!("{:#}\n", config::schema()).as_bytes())
}
