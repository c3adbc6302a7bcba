//! `hookgate init`: a configuration and a key, where there are none.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use hookgate::clock::{Clock, SystemClock};
use hookgate::keystore::create_key_file;
use hookgate::proxy::upstream::UpstreamConfig;

use crate::args::InitArgs;

const TEMPLATE: &str = include_str!("hookgate.toml");

pub(crate) fn run(args: &InitArgs) -> ExitCode {
    match init(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn init(args: &InitArgs) -> Result<(), String> {
    let mut text = TEMPLATE.to_owned();
    if let Some(url) = &args.upstream {
        UpstreamConfig::new(url).map_err(|error| format!("--upstream: {error}"))?;
        // What such a URL can hold stands in a TOML string as it is, but for these.
        let url = url.replace('\\', "\\\\").replace('"', "\\\"");
        text = text.replace("#url = \"http://127.0.0.1:9000\"", &format!("url = \"{url}\""));
    }
    // So that what is printed can be typed as it is.
    let here = args.folder == Path::new(".");
    let folder = if here { Path::new("") } else { &args.folder };
    let (config, keys) = (folder.join("hookgate.toml"), folder.join("hookgate-state/webhook.key"));
    let told = |path: &Path, made: bool| {
        println!("{}: {}", path.display(), if made { "made" } else { "is there, left as it is" });
    };
    // First the key, which makes the folder: a configuration without one would be half of the work.
    let made = create_key_file(&keys, SystemClock.now());
    told(&keys, made.map_err(|error| format!("{}: {error}", keys.display()))?);
    told(
        &config,
        create(&config, &text).map_err(|error| format!("{}: {error}", config.display()))?,
    );
    println!(
        "\nNext:\n  hookgate serve --config {0}\n  hookgate url --config {0} --base-url https://gate.example.com",
        config.display()
    );
    Ok(())
}

/// Writes a file; `false` if there is one.
fn create(path: &Path, text: &str) -> std::io::Result<bool> {
    let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error),
    };
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(true)
}
