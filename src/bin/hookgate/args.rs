//! What can be typed.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use hookgate::proxy::config::Overrides;

/// The gate for git webhooks: lets authentic pushes through to the service behind it, and nothing else.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take webhooks and forward the authentic pushes among them.
    #[command(after_help = "\
Examples:
  hookgate serve
      makes a key, listens on 127.0.0.1:8080 and prints deliveries
  hookgate serve --upstream http://127.0.0.1:9000
      forwards them to the service there
  hookgate serve --config hookgate.toml

Exit status: 0 stopped after everything was finished, 1 could not start, 2 wrong usage,
3 the grace period ended with connections open, 4 stopped at once by a second signal.")]
    Serve(ServeArgs),
    /// Read, check and explain the configuration and the key files, and change nothing.
    #[command(after_help = "\
Examples:
  hookgate check --config hookgate.toml

Exit status: 0 all is good, 1 something is wrong, 2 wrong usage.")]
    Check(Location),
    /// Make and check keys.
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) location: Location,
    /// What is logged: a level, or levels by target such as info,hookgate::audit=off
    #[arg(long, env = "HOOKGATE_LOG", default_value = "info", value_name = "FILTER")]
    pub(crate) log: String,
    /// How a line of the log looks: text or json
    #[arg(long, env = "HOOKGATE_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub(crate) log_format: String,
}

/// Flags stand above the environment, and that above the file.
#[derive(Debug, clap::Args)]
pub(crate) struct Location {
    /// Configuration file (TOML)
    #[arg(long, env = "HOOKGATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to take deliveries [default: 127.0.0.1:8080]
    #[arg(long, env = "HOOKGATE_LISTEN", value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// The service behind the gate, for hooks that name none; without one, deliveries are printed
    #[arg(long, env = "HOOKGATE_UPSTREAM", value_name = "URL", hide_env_values = true)]
    upstream: Option<String>,
    /// Key file of hooks that name none [default: webhook.key in the state folder]
    #[arg(long, env = "HOOKGATE_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Where to answer /live, /ready and /metrics, or off [default: 127.0.0.1:8081]
    #[arg(long, env = "HOOKGATE_HEALTH", value_name = "ADDRESS:PORT")]
    health: Option<String>,
    /// Folder for the key file and all else that outlives a restart [default: hookgate-state]
    #[arg(long, env = "HOOKGATE_STATE_DIR", value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
}

impl Location {
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            config: self.config.clone(),
            listen: self.listen.clone(),
            upstream: self.upstream.clone(),
            key_file: self.key_file.clone(),
            health: self.health.clone(),
            state_dir: self.state_dir.clone(),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Print a fresh random key as a line of a key file.
    #[command(after_help = "\
Examples:
  hookgate key generate
  hookgate key generate --name 2026-12 --use sign >> webhook.key")]
    Generate(GenerateArgs),
    /// Check a key file and show its keys without their secrets.
    #[command(after_help = "\
Examples:
  hookgate key check hookgate-state/webhook.key

Exit status: 0 the file is good, 1 it is not, 2 wrong usage.")]
    Check(KeyCheckArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct GenerateArgs {
    /// The key's name in logs and metrics [default: none, so the line's number]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// What it may be used for: sign, token, url, several with commas [default: all]
    #[arg(long = "use", value_name = "USES")]
    pub(crate) uses: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct KeyCheckArgs {
    /// The key file
    pub(crate) file: PathBuf,
}
