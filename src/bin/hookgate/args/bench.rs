//! What can be typed after `bench`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::ArgGroup;
use hookgate::provider::Provider;

use super::HookChoice;

#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("load").required(true).args(["rate", "connections"])))]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) choice: HookChoice,
    /// The webhook URL, without a key
    #[arg(long, value_name = "URL")]
    pub(crate) to: String,
    /// As which host
    #[arg(long, value_name = "PROVIDER")]
    pub(crate) provider: Provider,
    /// Open loop: so many deliveries a second, whatever the answers take
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// Closed loop: so many connections, each of which sends as soon as it has its answer
    #[arg(long, value_name = "COUNT")]
    pub(crate) connections: Option<NonZeroUsize>,
    /// The most connections that are opened to keep the rate
    #[arg(long, value_name = "COUNT", default_value = "512", conflicts_with = "connections")]
    pub(crate) connections_max: NonZeroUsize,
    /// For how long
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = some_length)]
    pub(crate) duration: Duration,
    /// Before that, for how long deliveries are sent that do not count
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = super::length)]
    pub(crate) warm_up: Duration,
    /// How long an answer may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = some_length)]
    pub(crate) timeout: Duration,
    /// Each body has exactly so many bytes, such as 8KiB [default: as few as the push takes]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) size: Option<usize>,
    /// Memory for signatures that are made before the start; when they are used up, deliveries are signed while
    /// sending
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = memory)]
    pub(crate) prepare: usize,
    /// About so many repositories in turn
    #[arg(long, value_name = "COUNT", default_value = "100")]
    pub(crate) repositories: NonZeroUsize,
    /// Their address; where they are several, its last segment gets -1, -2 and so on
    #[arg(long, value_name = "URL", default_value = "https://git.example.com/acme/widgets")]
    pub(crate) repository: String,
    /// The key by its name [default: the first that is active and fits]
    #[arg(long, value_name = "NAME")]
    pub(crate) key: Option<String>,
    /// Authorities (PEM) that are trusted in place of the public ones
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Threads that send; each takes its part of the rate or of the connections
    #[arg(long, value_name = "COUNT", default_value = "1")]
    pub(crate) threads: NonZeroUsize,
    /// Send to another machine: it is yours, or its owner agreed
    #[arg(long)]
    pub(crate) i_own_this_endpoint: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn some_length(text: &str) -> Result<Duration, String> {
    match super::length(text)? {
        Duration::ZERO => Err("must be longer than nothing".into()),
        length => Ok(length),
    }
}

fn rate(text: &str) -> Result<f64, &'static str> {
    const EXPECTED: &str =
        "expected a number of deliveries a second, more than 0 and at most 1000000";
    let rate: f64 = text.parse().map_err(|_| EXPECTED)?;
    if rate > 0.0 && rate <= 1e6 { Ok(rate) } else { Err(EXPECTED) }
}

fn size(text: &str) -> Result<usize, &'static str> {
    const EXPECTED: &str = "expected a size such as 8KiB or 1000B, at most 75MiB";
    let size = text.parse::<ByteSize>().map_err(|_| EXPECTED)?.as_u64();
    if size > crate::send::MAX_BODY {
        return Err(EXPECTED);
    }
    usize::try_from(size).map_err(|_| EXPECTED)
}

fn memory(text: &str) -> Result<usize, &'static str> {
    const EXPECTED: &str = "expected a size such as 64MiB, at most 4GiB";
    let size = text.parse::<ByteSize>().map_err(|_| EXPECTED)?.as_u64();
    if size > 4 << 30 {
        return Err(EXPECTED);
    }
    usize::try_from(size).map_err(|_| EXPECTED)
}
