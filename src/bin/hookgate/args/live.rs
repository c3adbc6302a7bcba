//! What can be typed after the commands that speak with a running gate.

use std::path::PathBuf;

/// Where the gate's state is, and so its socket.
#[derive(Debug, clap::Args)]
pub(crate) struct GateLocation {
    /// Configuration file (TOML) that names the state folder
    #[arg(long, env = "HOOKGATE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// State folder of the gate [default: hookgate-state]
    #[arg(long, env = "HOOKGATE_STATE_DIR", value_name = "FOLDER")]
    pub(crate) state_dir: Option<PathBuf>,
}

/// Which switches, and of which gate.
#[derive(Debug, clap::Args)]
pub(crate) struct SwitchArgs {
    #[command(flatten)]
    pub(crate) location: GateLocation,
    /// The hook [default: all that there are]
    #[arg(long, value_name = "NAME")]
    pub(crate) hook: Option<String>,
    /// Work on the file, while no gate runs
    #[arg(long)]
    pub(crate) offline: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct EnableArgs {
    #[command(flatten)]
    pub(crate) switch: SwitchArgs,
    /// Let the configuration decide again, whatever that says
    #[arg(long)]
    pub(crate) as_configured: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DisableArgs {
    #[command(flatten)]
    pub(crate) switch: SwitchArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) location: GateLocation,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LogArgs {
    #[command(flatten)]
    pub(crate) location: GateLocation,
    /// What is logged: a level, or levels by target such as info,hookgate::audit=off
    #[arg(long, value_name = "FILTER")]
    pub(crate) level: Option<String>,
    /// How a line of the log looks: text or json
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
