//! `hookgate ready`: asks a running gate whether deliveries can come in, for supervisors that run a command.
//!
//! An image with nothing but `hookgate` in it has no curl. Of the configuration only `health` counts, so one
//! that is given by flag or environment is taken without a look at the file: a gate that works with its
//! last good configuration must not be taken for broken because the file is.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hookgate::proxy::config::{Config, Overrides};

use crate::args::ReadyArgs;

/// More than the gate ever says.
const MOST_BYTES: usize = 64 * 1024;

pub(crate) fn run(args: &ReadyArgs) -> ExitCode {
    match ask(args) {
        Ok(answer) => {
            print!("{}", answer.text);
            if answer.status == 200 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

struct Answer {
    status: u16,
    text: String,
}

fn ask(args: &ReadyArgs) -> Result<Answer, String> {
    let address = address(args)?;
    let path = if args.live { "/live" } else { "/ready" };
    let deadline = Instant::now() + args.timeout;
    let answer = connect(&address, args.timeout)?
        .exchange(path, deadline)
        .map_err(|error| format!("no answer from {address}: {error}"))?;
    answer_in(&answer).ok_or_else(|| format!("what answers at {address} is no hookgate"))
}

/// As `health` is written.
fn address(args: &ReadyArgs) -> Result<String, String> {
    if let Some(address) = &args.health {
        return Ok(address.clone());
    }
    let overrides = Overrides { config: args.config.clone(), ..Overrides::default() };
    let config = Config::load(&overrides).map_err(|error| {
        let problems: Vec<_> = error.problems().iter().map(ToString::to_string).collect();
        problems.join("; ")
    })?;
    let health = config.health.as_ref().map(ToString::to_string);
    health.ok_or_else(|| "probes are off (health = \"off\")".into())
}

fn connect(address: &str, timeout: Duration) -> Result<Stream, String> {
    let error = |error: io::Error| format!("no answer from {address}: {error}");
    if let Some(path) = address.strip_prefix("unix:") {
        return UnixStream::connect(path).map(Stream::Unix).map_err(error);
    }
    let mut address: SocketAddr = address.parse().map_err(|_| {
        "--health: expected an address and a port such as 127.0.0.1:8081, or a Unix socket such as \
         unix:/run/hookgate/health.sock"
    })?;
    // Where it listens on all addresses, it is here as well.
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    TcpStream::connect_timeout(&address, timeout).map(Stream::Tcp).map_err(error)
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Asks for this path; all that comes until the other side closes.
    fn exchange(mut self, path: &str, deadline: Instant) -> io::Result<Vec<u8>> {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        self.within(deadline)?;
        self.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        while answer.len() < MOST_BYTES {
            self.within(deadline)?;
            match self.read(&mut piece)? {
                0 => break,
                length => answer.extend_from_slice(&piece[..length]),
            }
        }
        Ok(answer)
    }

    /// What comes next may take until then.
    fn within(&self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(left))?;
                stream.set_write_timeout(Some(left))
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(left))?;
                stream.set_write_timeout(Some(left))
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Unix(stream) => stream.flush(),
        }
    }
}

/// Status and body of an answer of HTTP/1; the gate declares its length, and its bodies are short.
fn answer_in(bytes: &[u8]) -> Option<Answer> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let is_ours = ["live\n", "ready\n", "not ready\n"].iter().any(|word| body.starts_with(word));
    is_ours.then(|| Answer { status, text: body.into() })
}
