//! What can be typed after the commands that operators use beside a running gate.

use std::path::PathBuf;
use std::time::Duration;

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

#[derive(Debug, clap::Args)]
pub(crate) struct SignArgs {
    #[command(flatten)]
    pub(crate) choice: HookChoice,
    /// As which host
    #[arg(long, value_name = "PROVIDER")]
    pub(crate) provider: Provider,
    /// The event that the headers name: push, tag, ping, or a name that the host has for it
    #[arg(long, value_name = "EVENT")]
    pub(crate) event: Option<String>,
    /// The key by its name [default: the first that is active and fits]
    #[arg(long, value_name = "NAME")]
    pub(crate) key: Option<String>,
    /// Print it also where the host sends the key itself and the output is no terminal
    #[arg(long)]
    pub(crate) show_key: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a sample is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SampleEvent {
    /// A push to a branch
    Push,
    /// A push of a tag
    Tag,
    /// What the host sends to try the webhook
    Ping,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SendArgs {
    #[command(flatten)]
    pub(crate) choice: HookChoice,
    /// As which host
    #[arg(long, value_name = "PROVIDER")]
    pub(crate) provider: Provider,
    /// What happened
    #[arg(long, value_enum, default_value = "push")]
    pub(crate) event: SampleEvent,
    /// The repository that it is about
    #[arg(long, value_name = "URL", default_value = "https://git.example.com/acme/widgets.git")]
    pub(crate) repository: String,
    /// The branch or tag
    #[arg(long, value_name = "NAME", default_value = "main")]
    pub(crate) name: String,
    /// The webhook URL, without a key; also unix:PATH:/webhook [default: where the configuration listens]
    #[arg(long, value_name = "URL")]
    pub(crate) to: Option<String>,
    /// The key by its name [default: the first that is active and fits]
    #[arg(long, value_name = "NAME")]
    pub(crate) key: Option<String>,
    /// Authorities (PEM) that are trusted in place of the public ones
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct UrlArgs {
    #[command(flatten)]
    pub(crate) choice: HookChoice,
    /// Only for this host
    #[arg(long, value_name = "PROVIDER")]
    pub(crate) provider: Option<Provider>,
    /// How hosts reach the gate [default: where it listens]
    #[arg(long, env = "HOOKGATE_BASE_URL", value_name = "URL")]
    pub(crate) base_url: Option<String>,
    /// Show keys also where the output is no terminal
    #[arg(long)]
    pub(crate) show_key: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReadyArgs {
    /// Configuration file (TOML) that says where it answers
    #[arg(long, env = "HOOKGATE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where it answers, in place of what the configuration says [default: 127.0.0.1:8081]
    #[arg(long, env = "HOOKGATE_HEALTH", value_name = "ADDRESS:PORT")]
    pub(crate) health: Option<String>,
    /// Ask only whether it answers at all
    #[arg(long)]
    pub(crate) live: bool,
    /// How long the answer may take
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = super::length)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// Where to write them
    #[arg(value_name = "FOLDER", default_value = ".")]
    pub(crate) folder: PathBuf,
    /// The service behind the gate
    #[arg(long, value_name = "URL")]
    pub(crate) upstream: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct KeyListArgs {
    #[command(flatten)]
    pub(crate) choice: HookChoice,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct KeyRotateArgs {
    #[command(flatten)]
    pub(crate) choice: HookChoice,
    /// For how long the old key still verifies, such as 24h or 7d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = super::length)]
    pub(crate) overlap: Duration,
    /// The name of the new key [default: today's date]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The key that ends [default: the first that is active]
    #[arg(long, value_name = "NAME")]
    pub(crate) replace: Option<String>,
    /// Print the new key also where the output is no terminal
    #[arg(long)]
    pub(crate) show_key: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct KeyRevokeArgs {
    /// The key by its name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) choice: HookChoice,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// The command that the page is about [default: hookgate itself]
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
    /// Write the pages of all commands into this folder
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    pub(crate) output_dir: Option<PathBuf>,
}
