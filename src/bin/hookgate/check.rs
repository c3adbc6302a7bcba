//! `hookgate check`: what the configuration means, and what is wrong with it.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use hookgate::clock::{Clock, SystemClock};
use hookgate::event::Kind;
use hookgate::key::{KeyState, Keyring, MAX_FILE_BYTES, Use};
use hookgate::provider::Providers;
use hookgate::proxy::config::{Config, DeliveryMode, HookConfig};
use hookgate::proxy::switch_file::{SwitchFile, SwitchOrigin};
use hookgate::proxy::tls::ServerTls;
use hookgate::scheme::UrlKey;
use hookgate::time::Timestamp;
use hookgate::watch;

use crate::args::Location;
use crate::output::time;

pub(crate) fn run(location: &Location) -> ExitCode {
    let config = match Config::load(&location.overrides()) {
        Ok(config) => config,
        Err(error) => {
            for problem in error.problems() {
                eprintln!("error: {problem}");
            }
            return ExitCode::FAILURE;
        }
    };
    let mut report = Report {
        now: SystemClock.now(),
        text: String::new(),
        warnings: Vec::new(),
        errors: Vec::new(),
    };
    report.config(&config);
    print!("{}", report.text);
    report.warnings.iter().for_each(|warning| warn(warning));
    report.errors.iter().for_each(|error| eprintln!("error: {error}"));
    if report.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

pub(crate) fn warn(warning: &str) {
    eprintln!("warning: {warning}");
}

/// One line a key, without secrets.
pub(crate) fn keys(ring: &Keyring, now: Timestamp, indent: &str) -> String {
    let width = ring.keys().map(|key| key.name().len()).max().unwrap_or_default();
    let mut text = String::new();
    for key in ring.keys() {
        let state = match key.state(now) {
            KeyState::Pending => "not yet",
            KeyState::Active => "active",
            KeyState::Expired => "expired",
        };
        let _ = write!(text, "{indent}{:width$}  {state:7}  {}", key.name(), key.uses());
        for (option, time) in [("from", key.from()), ("until", key.until())] {
            if let Some(time) = time {
                let _ = write!(text, "  {option} {time}");
            }
        }
        if let Some(repositories) = key.repositories() {
            let _ = write!(text, "  only {repositories}");
        }
        text.push('\n');
    }
    text
}

struct Report {
    now: Timestamp,
    text: String,
    warnings: Vec<String>,
    errors: Vec<String>,
}

impl Report {
    fn line(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.text, "{name:16}{value}");
    }

    fn config(&mut self, config: &Config) {
        match &config.file {
            Some(file) => self.line("configuration", file.display()),
            None => self.line("configuration", "no file, defaults and flags"),
        }
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        self.line("deliveries", format!("{scheme}://{}", config.listen));
        match config.health {
            Some(address) => {
                self.line("health", format!("http://{address} (/live /ready /metrics)"));
            }
            None => self.line("health", "off"),
        }
        self.line("state folder", config.state_dir.display());
        match &config.spool {
            Some(spool) => self.line(
                "spool",
                format!(
                    "{}, at most {} MiB, {} MiB of the disk stay free",
                    spool.folder.display(),
                    spool.max_bytes >> 20,
                    spool.free_floor >> 20
                ),
            ),
            None => self.line("spool", "off: what the service does not take is refused"),
        }
        if let Some(tls) = &config.tls {
            self.line("certificate", tls.certificate.display());
            if let Err(error) = ServerTls::from_files(&tls.certificate, &tls.key) {
                self.errors.push(crate::chain(&error));
            }
        } else if !config.listen.ip().is_loopback() {
            self.warnings.push(
                "deliveries come without TLS from other machines: tokens and URL keys can be read on \
                 the way"
                    .into(),
            );
        }
        let switches = SwitchFile::read(&config.state_dir);
        if let Some(damage) = switches.damage() {
            self.errors.push(format!("the switch file is damaged, so it opens no hook: {damage}"));
        }
        for hook in &config.hooks {
            self.hook(hook, &switches);
        }
    }

    fn hook(&mut self, hook: &HookConfig, switches: &SwitchFile) {
        self.text.push('\n');
        let switch = switches.switch(&hook.name, hook.enabled);
        let state = if switch.enabled { "enabled" } else { "disabled" };
        let by = match switch.origin {
            SwitchOrigin::Operator(since) => format!(" by operator since {}", time(since)),
            _ => String::new(),
        };
        self.line("hook", format!("{} ({state}{by})", hook.name));
        let path = match hook.url_key {
            UrlKey::Accept => format!("{0}, or {0}/<key> for hosts that cannot sign", hook.path),
            UrlKey::Require => format!("{}/<key>", hook.path),
            UrlKey::Refuse => hook.path.clone(),
        };
        self.line("  path", path);
        if hook.providers == Providers::ALL {
            self.line("  providers", "all");
        } else {
            let names: Vec<_> = hook.providers.iter().map(|provider| provider.as_str()).collect();
            self.line("  providers", names.join(", "));
        }
        let required = if hook.require_signature {
            "a signature over the body"
        } else {
            "any good credential"
        };
        self.line("  requires", required);
        let rules = &hook.rules;
        let wanted =
            [Kind::Push, Kind::PullRequest].into_iter().filter(|&kind| rules.events.contains(kind));
        self.line("  events", wanted.map(Kind::as_str).collect::<Vec<_>>().join(", "));
        if !rules.repositories.is_empty() {
            self.line("  repositories", &rules.repositories);
        }
        if !rules.refs.is_empty() {
            self.line("  refs", &rules.refs);
        }
        match &hook.upstream {
            Some(upstream) => self.line("  upstream", upstream.origin()),
            None => self.line("  upstream", "none: deliveries are printed"),
        }
        if hook.delivery == DeliveryMode::Spool {
            self.line("  delivery", "from the spool");
        }
        self.keys(hook);
        for (name, path, kind) in [
            ("  upstream key", &hook.upstream_key_file, Use::Url),
            ("  signing keys", &hook.upstream_sign_key_file, Use::Sign),
        ] {
            if let Some(path) = path {
                self.keys_of_service(name, path, kind);
            }
        }
    }

    /// Keys that somebody else made: without one, nothing can be sent.
    fn keys_of_service(&mut self, name: &str, path: &Path, kind: Use) {
        self.line(name, path.display());
        let Some(ring) = self.key_file(path) else { return };
        self.text.push_str(&keys(&ring, self.now, "    "));
        let (has_key, wanted) = match kind {
            Use::Sign => {
                (ring.signing_tokens(self.now).next().is_some(), "signing token (whsec_…)")
            }
            _ => (ring.primary(kind, self.now).is_some(), "key for a URL"),
        };
        if !has_key {
            self.errors.push(format!("{}: no active {wanted}", path.display()));
        }
    }

    fn keys(&mut self, hook: &HookConfig) {
        let path = &hook.key_file;
        if matches!(watch::read(path, MAX_FILE_BYTES as u64), Err(error) if error.kind() == watch::ReadErrorKind::Missing)
        {
            self.line("  key file", format!("{}: missing, `serve` makes it", path.display()));
            return;
        }
        self.line("  key file", path.display());
        let Some(ring) = self.key_file(path) else { return };
        self.text.push_str(&keys(&ring, self.now, "    "));
        let warnings = ring.warnings(self.now).into_iter();
        self.warnings.extend(warnings.map(|warning| format!("hook {}: {warning}", hook.name)));
    }

    /// The keys of a file, with what is wrong with it put down.
    fn key_file(&mut self, path: &Path) -> Option<Keyring> {
        let content = match watch::read(path, MAX_FILE_BYTES as u64) {
            Ok(content) => content,
            Err(error) => {
                self.errors.push(format!("{}: {}", path.display(), crate::chain(&error)));
                return None;
            }
        };
        if content.mode() & 0o077 != 0 {
            self.warnings.push(format!(
                "{} is readable or writable by others; chmod 600 makes it yours alone",
                path.display()
            ));
        }
        let ring = Keyring::parse(content.bytes());
        ring.map_err(|error| {
            let (line, column, kind) = (error.line(), error.column(), error.kind());
            self.errors.push(format!("{}:{line}:{column}: {kind}", path.display()));
        })
        .ok()
    }
}
