//! What can be typed.

mod bench;
mod live;
mod operate;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Parser, Subcommand};
use hookgate::clock::{Clock, SystemClock};
use hookgate::proxy::config::Overrides;
use hookgate::proxy::spool::{RecordId, State};
use hookgate::time::Timestamp;

pub(crate) use bench::BenchArgs;
pub(crate) use live::*;
pub(crate) use operate::*;

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
  hookgate serve --listen unix:/run/hookgate/gate.sock --upstream unix:/run/service.sock:/base
  hookgate serve --config hookgate.toml

Exit status: 0 stopped after everything was finished, 1 could not start, 2 wrong usage,
3 the grace period ended with connections open, 4 stopped at once by a second signal.")]
    Serve(ServeArgs),
    /// Ask a running gate whether deliveries can come in, as a probe of containers and scripts.
    ///
    /// Asks its health listener for /ready, and prints what is missing.
    #[command(after_help = "\
Examples:
  hookgate ready
  hookgate ready --health 127.0.0.1:8081 --timeout 1s
  hookgate ready --live --config hookgate.toml

Exit status: 0 ready, 1 not ready or not answered, 2 wrong usage.")]
    Ready(ReadyArgs),
    /// Read, check and explain the configuration and the key files, and change nothing.
    #[command(after_help = "\
Examples:
  hookgate check --config hookgate.toml

Exit status: 0 all is good, 1 something is wrong, 2 wrong usage.")]
    Check(Location),
    /// Make and check keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Look at the deliveries that wait, were given up or have arrived, and decide about them.
    ///
    /// Asks the running gate through control.sock in its state folder; with --offline, reads and writes the
    /// file of a gate that does not run.
    #[command(after_help = "\
Examples:
  hookgate spool status
  hookgate spool list --state dead
  hookgate spool show 17
  hookgate spool redeliver --dead --repository github.com/acme/widgets
  hookgate spool purge --dead --before 7d --yes
  hookgate spool export --output deliveries.jsonl

Exit status: 0 done, 1 not done or not all of it, 2 wrong usage.")]
    Spool(SpoolArgs),
    /// Let deliveries in, now and after a restart, whatever `enabled` in the configuration says.
    ///
    /// Works on the running gate through control.sock in its state folder; with --offline, on the file `switch`
    /// of a gate that does not run. Without --hook, it is about all hooks that the gate has now.
    #[command(after_help = "\
Examples:
  hookgate enable
  hookgate enable --hook default
  hookgate enable --hook default --as-configured
      forgets what was said of the hook, so that the configuration decides again

Exit status: 0 done, 1 not done, 2 wrong usage, 3 no gate runs.")]
    Enable(EnableArgs),
    /// Keep every delivery out, now and after a restart, whatever `enabled` in the configuration says.
    ///
    /// When it has said so, every delivery that comes is answered `disabled` (403, or the hook's
    /// disabled_status). What was taken before is still sent. Without --hook, it is about all hooks that the
    /// gate has now.
    #[command(after_help = "\
Examples:
  hookgate disable --hook default
  hookgate disable --config hookgate.toml --offline
      before the gate starts, so that it never opens

Exit status: 0 done, 1 not done, 2 wrong usage, 3 no gate runs.")]
    Disable(DisableArgs),
    /// Show how the running gate is: hooks and switches, keys, spool, services, listeners, last refusals.
    #[command(after_help = "\
Examples:
  hookgate status
  hookgate status --json | jq -r '.refusals[] | .reason'
  hookgate status > /dev/null || hookgate status --json | jq -r '.problems[]'

Wrong is what is told as a problem: the gate is not ready, a key file or the configuration is not taken, the switch
file is damaged, the spool is full or cannot be used or was set aside, a service is down, or deliveries were given
up. A hook that is disabled and deliveries that were refused are not.

Exit status: 0 all is well, 1 something is wrong, 2 wrong usage, 3 no gate runs.")]
    Status(StatusArgs),
    /// Show what the running gate logs, and change it until the gate ends.
    #[command(after_help = "\
Examples:
  hookgate log
  hookgate log --level debug
  hookgate log --level info,hookgate::audit=off --format json

Exit status: 0 done, 1 not changed, 2 wrong usage, 3 no gate runs.")]
    Log(LogArgs),
    /// Tell whether a delivery that was caught holds, and if not, why.
    ///
    /// Headers are taken as lines (Name: value), as curl -v shows them, as copied from GitHub's page
    /// "Recent deliveries", or as JSON of GitHub's API. The body must be there byte for byte.
    #[command(after_help = "\
Examples:
  hookgate verify --headers headers.txt --body body.json
  hookgate verify --provider gitlab --key-file webhook.key --headers h.txt --body b.json --at 2026-12-01T10:00:00Z
  hookgate verify --headers h.txt --body b.json --json | jq -r '.causes[].code'

Exit status: 0 it holds, 1 it does not or could not be read, 2 wrong usage.")]
    Verify(VerifyArgs),
    /// Print the headers with which a host would send the body on the standard input.
    #[command(after_help = "\
Examples:
  hookgate sign --provider github --event push < body.json
  hookgate sign --provider gitea --key-file webhook.key < body.json > headers.txt
  curl -H @headers.txt --data-binary @body.json http://127.0.0.1:8080/webhook

Exit status: 0 printed, 1 not signed, 2 wrong usage.")]
    Sign(SignArgs),
    /// Send a sample delivery, as a host would, and tell what the answer means.
    #[command(after_help = "\
Examples:
  hookgate send --provider github
  hookgate send --provider gitlab --repository https://gitlab.com/acme/widgets --name release/2 \\
      --key-file webhook.key --to https://gate.example.com/webhook
  hookgate send --provider gitea --event ping --json | jq -r .outcome

Exit status: 0 answered 2xx, 1 refused or not answered, 2 wrong usage.")]
    Send(SendArgs),
    /// Put a load of signed deliveries on an endpoint, and tell how it takes them.
    ///
    /// Each delivery is a new one: another body, id and signature, about the next of the repositories. It goes
    /// over HTTP/1.1. Only endpoints on this machine are taken, unless --i-own-this-endpoint is said.
    ///
    /// Signatures are made before the start, for as many deliveries as --prepare, two seconds and half of the time
    /// of the run allow. The others, and those whose proof holds the time (such as standard-webhooks), are signed
    /// while sending, which costs the sender more: the report says how many. None is sent twice.
    ///
    /// With --rate (open loop), when each delivery is due is fixed beforehand, and its latency is measured from
    /// then, as a git host would feel it: one that had to wait because others were not answered is not left out.
    /// With --connections (closed loop), a connection that waits sends nothing, so a stall delays few deliveries
    /// and hides those that should have been sent meanwhile. That shows how much an endpoint can take, and not how
    /// long hosts wait. The line `latency` then adds what each connection would have measured if it had gone
    /// on sending as often as usual (HdrHistogram's correction); `from sending` is what it did measure.
    #[command(after_help = "\
Examples:
  hookgate bench --to http://127.0.0.1:8080/webhook --provider github --rate 500 --duration 30s
  hookgate bench --to http://127.0.0.1:8080/webhook --provider gitea --connections 32 --size 8KiB
  hookgate bench --to http://127.0.0.1:8080/webhook --provider github --connections 64 --prepare 256MiB
  hookgate bench --to https://gate.example.com/webhook --provider gitlab --rate 50 --i-own-this-endpoint
  hookgate bench --to http://127.0.0.1:8080/webhook --provider github --rate 500 --json | jq .latency.p99_ms

Ctrl-C ends it early and still prints the report.

Exit status: 0 all was answered 2xx, 1 not all or nothing was, 2 wrong usage.")]
    Bench(BenchArgs),
    /// Show the webhook URL, and what to fill in at each host.
    ///
    /// Keys are shown on a terminal or with --show-key, and in a URL only for hosts that cannot prove their
    /// deliveries otherwise.
    #[command(after_help = "\
Examples:
  hookgate url --base-url https://gate.example.com
  hookgate url --provider github --show-key
  hookgate url --config hookgate.toml --hook default --json | jq -r '.[].url'

Exit status: 0 shown, 1 the configuration or the key file is wrong, 2 wrong usage.")]
    Url(UrlArgs),
    /// Write a commented hookgate.toml and a key file, where there are none.
    #[command(after_help = "\
Examples:
  hookgate init
  hookgate init /etc/hookgate --upstream http://127.0.0.1:9000

What is there already stays as it is.

Exit status: 0 both are there, 1 one could not be written, 2 wrong usage.")]
    Init(InitArgs),
    /// Print the JSON Schema of the configuration file, for editors and other programs.
    #[command(after_help = "\
Examples:
  hookgate schema > hookgate.schema.json
  hookgate schema | jq '.properties | keys'

Editors that know TOML take it from a first line `#:schema hookgate.schema.json` in the file.

Exit status: 0 printed, 2 wrong usage.")]
    Schema,
    /// Print what a shell needs to complete these commands.
    #[command(after_help = "\
Examples:
  source <(hookgate completions bash)
  hookgate completions zsh > ~/.zfunc/_hookgate
  hookgate completions fish > ~/.config/fish/completions/hookgate.fish

Exit status: 0 printed, 2 wrong usage.")]
    Completions(CompletionsArgs),
    /// Print a manual page, or write all of them.
    #[command(after_help = "\
Examples:
  hookgate man > hookgate.1 && man -l hookgate.1
  hookgate man key rotate | man -l -
  hookgate man --output-dir /usr/local/share/man/man1

Exit status: 0 printed or written, 1 not written, 2 wrong usage.")]
    Man(ManArgs),
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
    /// Where to take deliveries, also unix:PATH or systemd:NAME [default: 127.0.0.1:8080]
    #[arg(long, env = "HOOKGATE_LISTEN", value_name = "ADDRESS")]
    listen: Option<String>,
    /// The service behind the gate, also unix:PATH, for hooks that name none; without one, deliveries are printed
    #[arg(long, env = "HOOKGATE_UPSTREAM", value_name = "URL", hide_env_values = true)]
    upstream: Option<String>,
    /// Key file of hooks that name none [default: webhook.key in the state folder]
    #[arg(long, env = "HOOKGATE_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Where to answer /live, /ready and /metrics, likewise, or off [default: 127.0.0.1:8081]
    #[arg(long, env = "HOOKGATE_HEALTH", value_name = "ADDRESS")]
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
  hookgate key generate --name 2026-12 --use sign >> webhook.key

Exit status: 0 printed, 1 no such name or use, 2 wrong usage.")]
    Generate(GenerateArgs),
    /// Check a key file and show its keys without their secrets.
    #[command(after_help = "\
Examples:
  hookgate key check hookgate-state/webhook.key

Exit status: 0 the file is good, 1 it is not, 2 wrong usage.")]
    Check(KeyCheckArgs),
    /// Show the keys, which of them are active and for what, and how often the running gate used them.
    ///
    /// The file does not know of uses: they are asked of the gate that runs with the state folder, and are
    /// those since it started. When none runs, they are not known.
    #[command(after_help = "\
Examples:
  hookgate key list
  hookgate key list --key-file webhook.key --json | jq -r '.[] | select(.state == \"active\").name'

Exit status: 0 shown, 1 the file is wrong, 2 wrong usage.")]
    List(KeyListArgs),
    /// Put a fresh key before an old one, and let that one end after a while.
    ///
    /// Both verify in the meantime: change the secret at the host within it. The new key has the uses and the
    /// repositories of the old one. Everything else in the file stays as it is, and a running gate takes it up.
    #[command(after_help = "\
Examples:
  hookgate key rotate
  hookgate key rotate --overlap 7d --name 2026-12
  hookgate key rotate --replace urls --key-file webhook.key --show-key

Exit status: 0 changed, 1 not changed, 2 wrong usage.")]
    Rotate(KeyRotateArgs),
    /// Take a key out of the file, at once.
    #[command(after_help = "\
Examples:
  hookgate key revoke 2026-05
  hookgate key revoke line-3 --key-file webhook.key

Exit status: 0 it is gone, 1 not changed, 2 wrong usage.")]
    Revoke(KeyRevokeArgs),
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

#[derive(Debug, clap::Args)]
pub(crate) struct SpoolArgs {
    #[command(flatten)]
    pub(crate) location: SpoolLocation,
    #[command(subcommand)]
    pub(crate) command: SpoolCommand,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SpoolLocation {
    /// Configuration file (TOML) that names the state folder
    #[arg(long, env = "HOOKGATE_CONFIG", value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// State folder of the gate [default: hookgate-state]
    #[arg(long, env = "HOOKGATE_STATE_DIR", value_name = "FOLDER", global = true)]
    pub(crate) state_dir: Option<PathBuf>,
    /// Work on the file, while no gate runs
    #[arg(long, global = true)]
    pub(crate) offline: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SpoolCommand {
    /// Show which deliveries are there.
    #[command(after_help = "\
Examples:
  hookgate spool list
  hookgate spool list --state pending,leased --hook default
  hookgate spool list --repository https://github.com/acme/widgets.git --before 2h
  hookgate spool list --json --limit 1000 | jq -r .repository

With --json, each delivery is one line.

Exit status: 0 shown, 1 not shown, 2 wrong usage.")]
    List(SpoolListArgs),
    /// Show one delivery with its headers and body.
    #[command(after_help = "\
Examples:
  hookgate spool show 17
  hookgate spool show 17 --json | jq -r .body

Exit status: 0 shown, 1 there is none or it is not shown, 2 wrong usage.")]
    Show(SpoolShowArgs),
    /// Send deliveries again, now: dead and delivered ones, and pending ones without further delay.
    #[command(after_help = "\
Examples:
  hookgate spool redeliver 17 18
  hookgate spool redeliver --dead
  hookgate spool redeliver --state delivered --hook default --before 1h
  hookgate spool redeliver --all

What is being sent at this moment is left alone.

Exit status: 0 done, 1 not done or not all of it, 2 wrong usage.")]
    Redeliver(SpoolChangeArgs),
    /// Remove deliveries for good, also those that have not arrived.
    #[command(after_help = "\
Examples:
  hookgate spool purge 17 18
  hookgate spool purge --dead --before 7d --yes
  hookgate spool purge --all --hook old

What is being sent at this moment is left alone. Without --yes, it asks.

Exit status: 0 done, 1 not done or not all of it, 2 wrong usage.")]
    Purge(SpoolPurgeArgs),
    /// Write deliveries with their headers and bodies as JSON, one a line.
    #[command(after_help = "\
Examples:
  hookgate spool export > deliveries.jsonl
  hookgate spool export --state dead --output dead.jsonl

A body that is no UTF-8 stands as base64 in the field body_base64.

Exit status: 0 written, 1 not all of it, 2 wrong usage.")]
    Export(SpoolExportArgs),
    /// Show how many deliveries wait, since when, and whether there is room.
    #[command(after_help = "\
Examples:
  hookgate spool status
  hookgate spool status --json | jq .dead

Exit status: 0 shown, 1 not shown, 2 wrong usage.")]
    Status(SpoolStatusArgs),
}

/// All of these must hold.
#[derive(Debug, clap::Args)]
pub(crate) struct SpoolFilter {
    /// Only those in these states: pending, leased, delivered, dead, several with commas
    #[arg(long, value_name = "STATES", value_delimiter = ',')]
    pub(crate) state: Vec<State>,
    /// Only those of this hook
    #[arg(long, value_name = "NAME")]
    pub(crate) hook: Option<String>,
    /// Only those about this repository, such as github.com/acme/widgets, or an address of it
    #[arg(long, value_name = "REPOSITORY")]
    pub(crate) repository: Option<String>,
    /// Only those that came before this time (RFC 3339), or longer ago than this (such as 2h or 7d)
    #[arg(long, value_name = "TIME", value_parser = before)]
    pub(crate) before: Option<Timestamp>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SpoolListArgs {
    #[command(flatten)]
    pub(crate) filter: SpoolFilter,
    /// Only those with higher numbers
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<RecordId>,
    /// At most so many
    #[arg(long, value_name = "COUNT", default_value = "100")]
    pub(crate) limit: NonZeroUsize,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SpoolShowArgs {
    /// Its number
    pub(crate) id: RecordId,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("which").args(["ids", "dead", "all", "state"]).required(true)))]
pub(crate) struct SpoolChangeArgs {
    /// Their numbers
    #[arg(value_name = "ID", conflicts_with_all = ["hook", "repository", "before"])]
    pub(crate) ids: Vec<RecordId>,
    /// Those that were given up; the same as --state dead
    #[arg(long)]
    pub(crate) dead: bool,
    /// All that the filters leave
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) filter: SpoolFilter,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SpoolPurgeArgs {
    #[command(flatten)]
    pub(crate) which: SpoolChangeArgs,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SpoolExportArgs {
    #[command(flatten)]
    pub(crate) filter: SpoolFilter,
    /// Write them to this file, which is made for its owner alone and must not be there
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SpoolStatusArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A time, or how long ago it was.
fn before(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = length(text).ok();
    let ago = ago.and_then(|ago| i64::try_from(ago.as_millis()).ok());
    let ago = ago.ok_or("expected a time such as 2026-12-01T00:00:00Z, or how long ago: 2h, 7d")?;
    Ok(Timestamp::from_millis(SystemClock.now().as_millis().saturating_sub(ago)))
}

/// A length of time.
fn length(text: &str) -> Result<Duration, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
    let length = match days {
        Some(days) => Some(Duration::from_secs(u64::from(days) * 24 * 60 * 60)),
        None => {
            let parsed = text.parse::<jiff::SignedDuration>().ok();
            parsed.and_then(|length| Duration::try_from(length).ok())
        }
    };
    length.ok_or_else(|| "expected a length of time such as 24h or 7d".into())
}
