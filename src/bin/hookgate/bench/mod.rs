//! `hookgate bench`: a load of signed deliveries, and how an endpoint takes it.
//!
//! The parts: [`target`] is where it goes, [`maker`] makes deliveries, [`load`] sends them on time, each over a
//! [`connection`], [`tally`] counts, [`report`] tells.
//!
//! Nothing is sent to another machine unless its owner says so: whoever can type this command could else
//! point it at anybody.

mod connection;
mod load;
mod maker;
mod report;
mod tally;
mod target;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hookgate::clock::{Clock, SystemClock};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::{mpsc, watch};

use crate::args::BenchArgs;
use crate::hook::read_keys;
use crate::send::{Place, key_of, place_of_proof, push_key};
use load::{Loop, Part, Times};
use maker::{Maker, Plan};
use report::Report;
use tally::Tally;
use target::Target;

/// How often the line on the terminal changes.
const LOOK: Duration = Duration::from_millis(250);

/// Signing before the start takes no longer than this, nor than half of the run.
const PREPARATION: Duration = Duration::from_secs(2);

/// Why nothing is sent.
enum Refused {
    /// What was typed is wrong.
    Usage(String),
    Failed(String),
}

pub(crate) fn run(args: &BenchArgs) -> ExitCode {
    match bench(args) {
        Ok(report) => report.print(args.json),
        Err(Refused::Usage(message)) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
        Err(Refused::Failed(message)) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn bench(args: &BenchArgs) -> Result<Report, Refused> {
    let hook = args.choice.resolve().map_err(Refused::Failed)?;
    let (ring, _) = read_keys(&hook.key_file).map_err(Refused::Failed)?;
    let now = SystemClock.now();
    let key = key_of(&ring, args.provider, args.key.as_deref(), now).map_err(Refused::Failed)?;
    let mut url = args.to.trim_end_matches('/').to_owned();
    if let Place::Url = place_of_proof(&hook, args.provider, &key).map_err(Refused::Failed)? {
        push_key(&mut url, &key);
    }
    let target = Arc::new(Target::find(args, &url)?);
    let plan = Arc::new(Plan {
        hook,
        provider: args.provider,
        key,
        repository: args.repository.clone(),
        repositories: args.repositories.get(),
        size: args.size,
    });
    let maker = Maker::new(plan, &target).map_err(Refused::Usage)?;
    let (body_bytes, origin) = (maker.size(), target.origin.clone());
    let makers = prepared(args, &maker);
    let times = Times {
        start: Instant::now(),
        warm_up: args.warm_up,
        duration: args.duration,
        timeout: args.timeout,
    };
    let parts = parts(args, times, &target, makers);
    let (tally, stopped) = drive(parts, times).map_err(Refused::Failed)?;
    Ok(Report {
        origin,
        provider: args.provider,
        load: match (args.rate, args.connections) {
            (Some(rate), _) => Loop::Open { rate, connections: args.connections_max.get() },
            (None, connections) => {
                Loop::Closed { connections: connections.map_or(1, |count| count.get()) }
            }
        },
        body_bytes,
        repositories: args.repositories.get(),
        duration: stopped.map_or(args.duration, |at| {
            at.saturating_duration_since(times.measured_from()).min(args.duration)
        }),
        is_interrupted: stopped.is_some(),
        tally,
    })
}

/// How many connections there may be, and among how many threads they are divided.
fn division(args: &BenchArgs) -> (usize, usize) {
    let most = args.connections.unwrap_or(args.connections_max).get();
    (most, args.threads.get().min(most))
}

/// For each part what makes its deliveries, with as many signatures as memory and time allow.
fn prepared(args: &BenchArgs, maker: &Maker) -> Vec<Maker> {
    let (_, parts) = division(args);
    let whole = args.warm_up + args.duration;
    let until = Instant::now() + PREPARATION.min(whole / 2);
    let wanted = args.rate.map(|rate| (rate * whole.as_secs_f64() / parts as f64).ceil() as u64);
    std::thread::scope(|scope| {
        let part = |index| {
            let mut maker = maker.clone();
            scope.spawn(move || {
                maker.prepare(
                    index,
                    parts,
                    wanted.unwrap_or(u64::MAX),
                    args.prepare / parts,
                    until,
                );
                maker
            })
        };
        let threads: Vec<_> = (0..parts).map(part).collect();
        threads.into_iter().map(|thread| thread.join().expect("it only signs")).collect()
    })
}

/// The load, for as many threads as there are to be and as can have a part of it.
fn parts(args: &BenchArgs, times: Times, target: &Arc<Target>, makers: Vec<Maker>) -> Vec<Part> {
    let (most, parts) = division(args);
    let part = |(index, maker): (usize, Maker)| {
        // What does not divide goes to the first ones.
        let connections = most / parts + usize::from(index < most % parts);
        let load = match args.rate {
            Some(rate) => Loop::Open { rate: rate / parts as f64, connections },
            None => Loop::Closed { connections },
        };
        Part {
            target: Arc::clone(target),
            maker,
            load,
            times,
            index,
            parts,
            tally: Arc::new(Mutex::new(Tally::new())),
        }
    };
    makers.into_iter().enumerate().map(part).collect()
}

/// Runs all parts; when it was interrupted, if it was.
fn drive(parts: Vec<Part>, times: Times) -> Result<(Tally, Option<Instant>), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    let tallies: Vec<_> = parts.iter().map(|part| Arc::clone(&part.tally)).collect();
    let (stop, stopping) = watch::channel(false);
    let (running, mut ended) = mpsc::channel::<()>(1);
    let threads: Vec<_> = parts
        .into_iter()
        .map(|part| {
            let (stopping, running) = (stopping.clone(), running.clone());
            std::thread::spawn(move || {
                let result = part.run(stopping);
                drop(running);
                result
            })
        })
        .collect();
    drop(running);
    let progress = Progress::new(times);
    let stopped = runtime.block_on(async {
        let mut look = tokio::time::interval(LOOK);
        let mut stopped = None;
        loop {
            tokio::select! {
                _ = ended.recv() => return stopped,
                Ok(()) = tokio::signal::ctrl_c(), if stopped.is_none() => {
                    stopped = Some(Instant::now());
                    stop.send_replace(true);
                }
                _ = look.tick() => progress.show(&tallies),
            }
        }
    });
    drop(progress);
    for thread in threads {
        let result = thread.join().map_err(|_| "a thread of the load panicked")?;
        result.map_err(|error| format!("cannot start: {error}"))?;
    }
    Ok((sum(&tallies), stopped))
}

fn sum(tallies: &[Arc<Mutex<Tally>>]) -> Tally {
    let mut all = Tally::new();
    for tally in tallies {
        all.add(&tally.lock().expect("no thread panicked"));
    }
    all
}

/// One line on the standard error, if that is a terminal.
struct Progress {
    bar: ProgressBar,
    times: Times,
}

impl Progress {
    fn new(times: Times) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden(), times };
        }
        let bar = ProgressBar::new_spinner();
        // The template is a good one; otherwise it looks as usual.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Self { bar, times }
    }

    fn show(&self, tallies: &[Arc<Mutex<Tally>>]) {
        if self.bar.is_hidden() {
            return;
        }
        let now = Instant::now();
        let measured = now.saturating_duration_since(self.times.measured_from());
        let message = if measured.is_zero() {
            "warm-up".to_owned()
        } else {
            report::line(&sum(tallies), measured, self.times.duration)
        };
        self.bar.set_message(message);
        self.bar.tick();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
