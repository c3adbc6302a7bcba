//! `hookgate check`: what the configuration means, and what is wrong with it.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use hookgate::allow_list;
use hookgate::clock::{Clock, SystemClock};
use hookgate::event::Kind;
use hookgate::key::{KeyState, Keyring, MAX_FILE_BYTES, Use};
use hookgate::provider::Providers;
use hookgate::proxy::config::{AllowFrom, Config, DeliveryMode, HookConfig};
use hookgate::proxy::socket::ListenAddress;
use hookgate::proxy::switch_file::{SwitchFile, SwitchOrigin};
use hookgate::proxy::tls::ServerTls;
use hookgate::scheme::UrlKey;
use hookgate::source::{ClientHeader, Networks};
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
        has_no_sources: false,
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
    /// Whether nobody who calls has an address.
    has_no_sources: bool,
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
        self.line("deliveries", crate::hook::listening(config).trim_end_matches(':'));
        if config.proxies.is_some() {
            self.line("", "from proxies alone, with the PROXY protocol");
        }
        match &config.health {
            Some(address) => {
                let address = address.origin(false);
                let address = address.trim_end_matches(':');
                self.line("health", format!("{address} (/live /ready /metrics)"));
            }
            None => self.line("health", "off"),
        }
        let proxies = &config.trusted_proxies;
        if !proxies.is_empty() {
            let header = match proxies.header() {
                ClientHeader::Forwarded => "Forwarded",
                ClientHeader::XForwardedFor => "X-Forwarded-For",
            };
            self.line("proxies", format!("{header} of trusted_proxies names the client"));
        }
        let is_unix = matches!(config.listen, ListenAddress::Unix(_));
        self.has_no_sources = is_unix && config.proxies.is_none() && !proxies.has_unix();
        for all in ["0.0.0.0/0", "::/0"] {
            if all.parse().is_ok_and(|all: Networks| proxies.proxies().covers(&all)) {
                self.warnings.push(format!(
                    "trusted_proxies has all of {all}: whoever calls can say who he is"
                ));
            }
        }
        if let Some(rate) = config.limits.unauthenticated_per_source {
            self.line("refusals", format!("{rate} from each source, then 429"));
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
        #[cfg(feature = "otlp")]
        if let Some(export) = &config.tracing.export {
            self.line("spans", export.origin());
        }
        if let Some(tls) = &config.tls {
            self.line("certificate", tls.certificate.display());
            if let Err(error) = ServerTls::from_files(&tls.certificate, &tls.key) {
                self.errors.push(crate::chain(&error));
            }
        } else if config.listen.as_ip().is_some() && !config.listen.is_local() {
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
        if let Some(allowed) = &hook.allow_from {
            self.sources(allowed);
            if self.has_no_sources {
                self.warnings.push(format!(
                    "hook {} lets nobody in: on a Unix socket allow_from needs \"unix\" in trusted_proxies",
                    hook.name
                ));
            }
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
        let of_one = |rate| format!("{rate} for each repository");
        let rates =
            [hook.paces.rate.map(|rate| rate.to_string()), hook.paces.repository_rate.map(of_one)];
        if hook.paces.is_limited() {
            self.line("  rate", rates.into_iter().flatten().collect::<Vec<_>>().join(", "));
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

    /// Who may call, with what is wrong with the files put down.
    fn sources(&mut self, allowed: &AllowFrom) {
        let named = (!allowed.networks.is_empty()).then(|| "allow_from".to_owned());
        let files = allowed.files.iter().map(|path| path.display().to_string());
        self.line("  from", named.into_iter().chain(files).collect::<Vec<_>>().join(", "));
        for path in &allowed.files {
            let error = match watch::read(path, allow_list::MAX_FILE_BYTES) {
                Ok(content) => {
                    Networks::parse_file(content.bytes()).err().map(|error| error.to_string())
                }
                Err(error) => Some(crate::chain(&error)),
            };
            self.errors.extend(error.map(|error| format!("{}: {error}", path.display())));
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
