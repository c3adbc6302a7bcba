//! A steady stream of one request, every one of which must be answered with success.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::client::Client;

/// The stream, until it is stopped.
#[derive(Debug)]
pub(crate) struct Load {
    stopped: Arc<AtomicBool>,
    connections: Vec<JoinHandle<Report>>,
}

/// What became of the requests.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) took: Vec<Duration>,
    pub(crate) failures: Vec<String>,
}

impl Load {
    /// Sends `request` so many times a second, whatever the answers take, over connections that are kept.
    pub(crate) fn start(
        address: SocketAddr,
        per_second: u32,
        connections: u32,
        request: &[u8],
    ) -> Self {
        let stopped = Arc::<AtomicBool>::default();
        let begin = Instant::now();
        let every = Duration::from_secs(1) / per_second * connections;
        let connections = (0..connections).map(|n| {
            let first = begin + Duration::from_secs(1) / per_second * n;
            let (stopped, request) = (Arc::clone(&stopped), request.to_vec());
            std::thread::spawn(move || send(address, &request, first, every, &stopped))
        });
        Self { connections: connections.collect(), stopped }
    }

    /// Stops the stream when all that was sent is answered.
    pub(crate) fn stop(self) -> Report {
        self.stopped.store(true, Ordering::Relaxed);
        let mut all = Report::default();
        for connection in self.connections {
            all.add(connection.join().expect("a thread of the load"));
        }
        all
    }
}

impl Report {
    pub(crate) fn add(&mut self, other: Self) {
        self.took.extend(other.took);
        self.failures.extend(other.failures);
    }
}

/// How many, and the times of the median, of 99 in a hundred, and of the slowest.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut took = self.took.clone();
        took.sort_unstable();
        let at = |percent: usize| {
            let n = (took.len() * percent / 100).min(took.len().saturating_sub(1));
            took.get(n).copied().unwrap_or_default()
        };
        let (median, p99, slowest) = (at(50), at(99), at(100));
        let (count, failed) = (took.len(), self.failures.len());
        write!(f, "{count} requests, {failed} failed, {median:.1?} {p99:.1?} {slowest:.1?}")
    }
}

fn send(
    address: SocketAddr,
    request: &[u8],
    first: Instant,
    every: Duration,
    stopped: &AtomicBool,
) -> Report {
    let mut report = Report::default();
    let mut client = None;
    let mut next = first;
    while !stopped.load(Ordering::Relaxed) {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        next += every;
        let began = Instant::now();
        let answer = client.take().map_or_else(|| Client::try_connect(address), Ok);
        let answer = answer.and_then(|mut one: Client| {
            one.try_send(request)?;
            let answer = one.try_answer()?;
            client = Some(one);
            Ok(answer)
        });
        report.took.push(began.elapsed());
        match answer {
            Ok(answer) if answer.status < 300 => {}
            Ok(answer) => report.failures.push(format!("{answer:?}")),
            Err(error) => report.failures.push(error.to_string()),
        }
    }
    report
}
