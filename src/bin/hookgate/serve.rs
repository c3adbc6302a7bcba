//! `hookgate serve`: the sidecar, from its start to its end.

mod supervisor;

use std::process::ExitCode;
use std::time::Duration;

use hookgate::clock::{Clock, SystemClock};
use hookgate::proxy::app::{App, Stopped};
use hookgate::proxy::config::{Config, HookConfig};
use hookgate::proxy::socket::PassedSockets;
use hookgate::proxy::switch_file::SwitchOrigin;
use hookgate::proxy::telemetry::{self, LogConfig};
use hookgate::scheme::UrlKey;
use hookgate::source::Networks;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::supervisor::Supervisor;
use crate::args::ServeArgs;

/// The grace period ended with connections open or calls under way.
const CUT: u8 = 3;
/// A second signal came.
const FORCED: u8 = 4;

pub(crate) fn run(args: ServeArgs) -> ExitCode {
    // Before there is a second thread.
    let passed = PassedSockets::from_env();
    let log = args.log_format.parse().map(|format| LogConfig { format, filter: args.log.clone() });
    let log = match log.and_then(|log| telemetry::init(&log)) {
        Ok(log) => log,
        Err(error) => return fail(&crate::chain(&error)),
    };
    let overrides = args.location.overrides();
    let config = match Config::load(&overrides) {
        Ok(config) => config,
        Err(error) => {
            for problem in error.problems() {
                eprintln!("error: {problem}");
            }
            return ExitCode::FAILURE;
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    let code = runtime.block_on(async {
        let (mut stop, mut reload) = match signals() {
            Ok(signals) => signals,
            Err(error) => return fail(&format!("cannot take signals: {error}")),
        };
        let app = match App::build_with_sockets(config, overrides, passed) {
            Ok(app) => app.with_log(log),
            Err(error) => return fail(&crate::chain(&error)),
        };
        announce(&app);
        let supervisor = Supervisor::new(app.vitals());
        let limits = app.config().limits;
        let drain = limits.shutdown_delay + limits.grace_period;
        tokio::spawn({
            let supervisor = supervisor.clone();
            async move {
                while reload.recv().await.is_some() {
                    tracing::info!("looking at every file, as told by SIGHUP");
                    supervisor.reload().await;
                }
            }
        });
        let (first, second) = tokio::sync::oneshot::channel::<()>();
        let serving = app.run(async { drop(second.await) });
        tokio::pin!(serving);
        let mut first = Some(first);
        loop {
            tokio::select! {
                stopped = &mut serving => return ended(stopped),
                () = stop.recv() => match first.take() {
                    Some(first) => {
                        supervisor.stopping(drain);
                        drop(first);
                    }
                    None => {
                        tracing::warn!("stopped at once by a second signal");
                        return ExitCode::from(FORCED);
                    }
                },
            }
        }
    });
    // What is printed to a reader that takes nothing must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

fn ended(stopped: Stopped) -> ExitCode {
    match stopped {
        Stopped::Drained => {
            tracing::info!("stopped, everything was finished");
            ExitCode::SUCCESS
        }
        Stopped::Cut(connections) => {
            tracing::warn!(connections, "stopped, the grace period ended with connections open");
            ExitCode::from(CUT)
        }
        Stopped::Unfinished => {
            tracing::warn!("stopped, the grace period ended with calls under way");
            ExitCode::from(CUT)
        }
    }
}

/// SIGTERM or SIGINT.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn signals() -> std::io::Result<(Stop, Signal)> {
    let stop = Stop {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
    };
    Ok((stop, signal(SignalKind::hangup())?))
}

/// Where it listens, where the keys are, and what is missing; never a key.
fn announce(app: &App) {
    let config = app.config();
    let listen = app.local_addr();
    let base = listen.origin(config.tls.is_some());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        address = %base.trim_end_matches(':'),
        proxy_protocol = config.proxies.as_ref().map(|_| "required"),
        "taking deliveries"
    );
    match app.health_addr() {
        Some(address) => {
            let address = address.origin(false);
            tracing::info!(
                address = %address.trim_end_matches(':'),
                "answering /live, /ready and /metrics"
            );
        }
        None => tracing::info!("probes and metrics are off"),
    }
    if config.tls.is_none() && !listen.is_local() {
        tracing::warn!("deliveries come without TLS: tokens and URL keys can be read on the way");
    }
    if !listen.is_local() && config.proxies == Some(Networks::loopback()) {
        tracing::warn!(
            "only proxies on this machine may connect: proxy_protocol_from names others"
        );
    }
    for hook in &config.hooks {
        announce_hook(app, hook, &base);
    }
}

fn announce_hook(app: &App, hook: &HookConfig, base: &str) {
    let url = format!("{base}{}", hook.path);
    let url = match hook.url_key {
        UrlKey::Accept => format!("{url} (or {url}/<key> for hosts that cannot sign)"),
        UrlKey::Require => format!("{url}/<key>"),
        UrlKey::Refuse => url,
    };
    let keys = app.keys(hook).map(|store| store.status(SystemClock.now()));
    let keys = keys.map_or(0, |status| status.keys.len());
    let upstream = hook.upstream.as_ref().map(|upstream| upstream.origin());
    tracing::info!(
        hook = hook.name,
        url,
        key_file = %hook.key_file.display(),
        keys,
        upstream,
        "hook is ready"
    );
    let switch = app.switch(hook);
    if !switch.enabled {
        let by = match switch.origin {
            SwitchOrigin::Configuration => "the configuration",
            SwitchOrigin::Operator(_) => "an operator",
            _ => "a damaged switch file",
        };
        tracing::warn!(hook = hook.name, by, "hook is disabled: it refuses everything");
    }
    if upstream.is_none() {
        tracing::warn!(
            hook = hook.name,
            "no upstream is named: deliveries are printed; name one with --upstream"
        );
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::FAILURE
}
