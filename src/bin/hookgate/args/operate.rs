//! What can be typed after the commands that operators use beside a running gate.

use std::path::PathBuf;

use hookgate::provider::Provider;
use hookgate::time::Timestamp;

/// Which hook is meant, and where its keys are.
#[derive(Debug, clap::Args)]
pub(crate) struct HookChoice {
    /// Configuration file (TOML)
    #[arg(long, env = "HOOKGATE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The hook [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub(crate) hook: Option<String>,
    /// Key file [default: that of the hook]
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// State folder of the gate [default: hookgate-state]
    #[arg(long, env = "HOOKGATE_STATE_DIR", value_name = "FOLDER")]
    pub(crate) state_dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) choice: HookChoice,
    /// Who sent it [default: what its headers tell]
    #[arg(long, value_name = "PROVIDER")]
    pub(crate) provider: Option<Provider>,
    /// File with the headers, or - for the standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) headers: PathBuf,
    /// File with the body, byte for byte, or - for the standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) body: PathBuf,
    /// When it came (RFC 3339), for hosts that sign the time [default: now]
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<Timestamp>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
