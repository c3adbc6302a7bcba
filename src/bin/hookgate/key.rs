//! `hookgate key`: make and check keys.

pub(crate) mod change;

use std::io::{self, Write};
use std::process::ExitCode;

use hookgate::clock::{Clock, SystemClock};
use hookgate::key::{self, KeyFileErrorKind, Keyring, MAX_FILE_BYTES};
use hookgate::secret::Secret;
use hookgate::watch;

use crate::args::{GenerateArgs, KeyCheckArgs};
use crate::check::{keys, warn};

pub(crate) fn generate(args: &GenerateArgs) -> ExitCode {
    let key = match key::generate() {
        Ok(key) => key,
        Err(error) => return fail(&format!("no random bytes: {error}")),
    };
    let mut line = key.expose().to_vec();
    let options = [
        ("name", &args.name, KeyFileErrorKind::BadName),
        ("use", &args.uses, KeyFileErrorKind::UnknownUse),
    ];
    for (option, value, fault) in options {
        if let Some(value) = value {
            // What follows white space would be an option or a key of its own.
            if value.is_empty() || value.contains(char::is_whitespace) {
                return fail(&fault.to_string());
            }
            line.extend_from_slice(format!(" {option}={value}").as_bytes());
        }
    }
    line.push(b'\n');
    let line = Secret::new(line);
    // So what is printed is what a key file takes.
    if let Err(error) = Keyring::parse(line.expose()) {
        return fail(&error.kind().to_string());
    }
    match io::stdout().write_all(line.expose()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

pub(crate) fn check(args: &KeyCheckArgs) -> ExitCode {
    let path = args.file.display();
    let content = match watch::read(&args.file, MAX_FILE_BYTES as u64) {
        Ok(content) => content,
        Err(error) => return fail(&format!("{path}: {}", crate::chain(&error))),
    };
    let ring = match Keyring::parse(content.bytes()) {
        Ok(ring) => ring,
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            return fail(&format!("{path}:{line}:{column}: {}", error.kind()));
        }
    };
    let now = SystemClock.now();
    print!("{}", keys(&ring, now, ""));
    for warning in ring.warnings(now) {
        warn(&warning);
    }
    if content.mode() & 0o077 != 0 {
        warn("the file is readable or writable by others; chmod 600 makes it yours alone");
    }
    if !content.bytes().ends_with(b"\n") {
        warn("the last line has no end: a running gate waits a moment for the rest of it");
    }
    ExitCode::SUCCESS
}

fn fail(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::FAILURE
}
