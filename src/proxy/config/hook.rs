//! One hook of the configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::spanned::Spanned;
use http::StatusCode;
use http::header::HeaderName;

use super::Overrides;
use super::raw::{RawGeneric, RawHook, RawUpstream};
use super::source::{self, AllowFrom};
use super::value::{self, Reader, Span};
use crate::event::{Events, Kind, Rules};
use crate::gate::is_hook_path;
use crate::pace::{KeyBy, Pace, Rate};
use crate::provider::{Provider, Providers};
use crate::proxy::upstream::{
    ForwardHeaders, PathTemplate, UpstreamBody, UpstreamConfig, Variable,
};
use crate::repository::{Pattern, RefPatterns};
use crate::scheme::{Algorithm, AzureDevops, Encoding, Generic, Gitee, GiteeMode, Schemes, UrlKey};

/// One hook: a path, the keys that open it, and the service behind it.
#[derive(Clone, Debug)]
pub struct HookConfig {
    /// The name in logs and metrics.
    pub name: String,
    /// Whether it lets anything in.
    pub enabled: bool,
    /// What is answered while it does not. Default: 403.
    pub disabled_status: StatusCode,
    /// The path without a final slash. Default: `/webhook`.
    pub path: String,
    /// The providers that it takes. Default: all.
    pub providers: Providers,
    /// What their schemes need said.
    pub schemes: Schemes,
    /// The key file. Default: `webhook.key` in the state folder.
    pub key_file: PathBuf,
    /// From where it takes requests. Default: from everywhere.
    pub allow_from: Option<AllowFrom>,
    /// Whether a key may stand in the URL. Default: it may.
    pub url_key: UrlKey,
    /// Whether nothing less than a signature over the body is enough. Default: no.
    pub require_signature: bool,
    /// Which events come through. Default: every push.
    pub rules: Rules,
    /// The service behind it; `None` to print deliveries.
    pub upstream: Option<UpstreamConfig>,
    /// The path below the service's own. Default: that of the hook.
    pub upstream_path: Option<PathTemplate>,
    /// The key file of the key that may stand in that path.
    pub upstream_key_file: Option<PathBuf>,
    /// The body that the service gets. Default: the original one.
    pub upstream_body: UpstreamBody,
    /// The file of signing tokens with which calls to the service are signed. Default: they are not.
    pub upstream_sign_key_file: Option<PathBuf>,
    /// Whether deliveries of Azure DevOps get `x-gij-microsoft-event: 1`. Default: no.
    pub mark_azure_devops: bool,
    /// Whether a request with a URL key and without a repository means all of them. Default: no.
    pub reindex_all: bool,
    /// How often the service hears of a change.
    pub paces: Paces,
    /// Whether deliveries are tried before the host hears of them. Default: they are.
    pub delivery: DeliveryMode,
    /// Further headers that the service gets. Default: none.
    pub forward_headers: ForwardHeaders,
    /// The header in which the generic provider signs.
    pub generic_header: Option<HeaderName>,
    /// The header that names the event of the generic provider.
    pub generic_event_header: Option<HeaderName>,
    /// The events of the generic provider that are pushes.
    pub generic_push_events: Vec<String>,
    pub(super) at: Span,
}

/// When the deliveries of a hook are sent, if there is a spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeliveryMode {
    /// At once; the spool takes what the service does not.
    #[default]
    Direct,
    /// From the spool: the host hears 202 as soon as a delivery is there.
    Spool,
}

/// How often deliveries of a hook are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paces {
    /// How bursts are brought together. Default: they are not.
    pub coalesce: Option<Pace>,
    /// Whether refs count. Default: they do.
    pub coalesce_by: KeyBy,
    /// For how long a delivery is remembered, so that it is not sent again; zero for not at all.
    /// Default: 1 h.
    pub dedupe_window: Duration,
    /// How often anything is sent; what comes faster waits in the spool. Without one, neither rate is looked
    /// at. Default: no limit.
    pub rate: Option<Rate>,
    /// How often anything about one repository is sent. Default: no limit.
    pub repository_rate: Option<Rate>,
}

impl Default for Paces {
    fn default() -> Self {
        Self {
            coalesce: None,
            coalesce_by: KeyBy::Ref,
            dedupe_window: Duration::from_secs(3600),
            rate: None,
            repository_rate: None,
        }
    }
}

impl Paces {
    /// Whether there is a limit on how often anything is sent.
    pub fn is_limited(&self) -> bool {
        self.rate.is_some() || self.repository_rate.is_some()
    }
}

/// What a hook gets that names none of its own.
pub(super) struct Defaults {
    upstream: Option<UpstreamConfig>,
    timeout: Duration,
    ca: Option<Vec<u8>>,
    key_file: PathBuf,
    allow_from: Option<AllowFrom>,
}

const NAME: &str = "default";
const PATH: &str = "/webhook";

impl Defaults {
    pub(super) fn new(
        raw: RawUpstream,
        overrides: &Overrides,
        state_dir: &Path,
        reader: &mut Reader<'_>,
    ) -> Self {
        let timeout = reader.value(raw.timeout, value::duration);
        let mut defaults = Self {
            upstream: None,
            timeout: timeout.unwrap_or(UpstreamConfig::DEFAULT_TIMEOUT),
            ca: None,
            key_file: overrides.key_file.clone().unwrap_or_else(|| state_dir.join("webhook.key")),
            allow_from: None,
        };
        if let Some(ca_file) = &raw.ca_file {
            let content = reader.read(ca_file);
            // Checked here once, where the file's name stands, and not at each hook.
            let checked = content.and_then(|pem| {
                let probe = UpstreamConfig::new("https://localhost");
                let checked = probe.and_then(|probe| probe.certificate_authorities(&pem));
                reader.keep(Some(ca_file.span()), checked.map(|_| pem))
            });
            defaults.ca = checked;
        }
        defaults.upstream = match (&overrides.upstream, raw.url) {
            (Some(url), _) => reader.flag("--upstream", url, |url| defaults.service(url)),
            (None, url) => reader.value(url, |url| defaults.service(url)),
        };
        defaults
    }

    pub(super) fn allow_from(self, allow_from: Option<AllowFrom>) -> Self {
        Self { allow_from, ..self }
    }

    /// A service with the timeout and the authorities that hold for all.
    fn service(&self, url: &str) -> Result<UpstreamConfig, String> {
        let upstream = UpstreamConfig::new(url).and_then(|upstream| upstream.timeout(self.timeout));
        let upstream = upstream.and_then(|upstream| match &self.ca {
            Some(pem) => upstream.certificate_authorities(pem),
            None => Ok(upstream),
        });
        upstream.map_err(|error| error.to_string())
    }
}

impl HookConfig {
    /// The hook that there is where none is described.
    pub(super) fn default_with(defaults: &Defaults) -> Self {
        Self {
            name: NAME.into(),
            enabled: true,
            disabled_status: StatusCode::FORBIDDEN,
            path: PATH.into(),
            providers: Providers::ALL,
            schemes: Schemes::default(),
            key_file: defaults.key_file.clone(),
            allow_from: defaults.allow_from.clone(),
            url_key: UrlKey::default(),
            require_signature: false,
            rules: Rules::default(),
            upstream: defaults.upstream.clone(),
            upstream_path: None,
            upstream_key_file: None,
            upstream_body: UpstreamBody::default(),
            upstream_sign_key_file: None,
            mark_azure_devops: false,
            reindex_all: false,
            paces: Paces {
                coalesce: None,
                coalesce_by: KeyBy::default(),
                dedupe_window: Duration::from_secs(3600),
                rate: None,
                repository_rate: None,
            },
            delivery: DeliveryMode::default(),
            forward_headers: ForwardHeaders::default(),
            generic_header: None,
            generic_event_header: None,
            generic_push_events: Vec::new(),
            at: None,
        }
    }

    /// Whether the path of `other` is this hook's path and one more segment: a URL key.
    pub(super) fn shadows(&self, other: &Self) -> bool {
        let rest = other.path.strip_prefix(&self.path).and_then(|rest| rest.strip_prefix('/'));
        rest.is_some_and(|rest| !rest.contains('/'))
    }
}

pub(super) fn check(
    raw: Spanned<RawHook>,
    defaults: &Defaults,
    reader: &mut Reader<'_>,
) -> HookConfig {
    let mut hook = HookConfig::default_with(defaults);
    let raw = raw.into_inner();
    hook.at = Some(raw.name.span());
    hook.name = reader.value(Some(raw.name), name).unwrap_or_default();
    hook.enabled = raw.enabled.unwrap_or(true);
    if let Some(status) = raw.disabled_status {
        let checked = disabled_status(*status.get_ref());
        hook.disabled_status =
            reader.keep(Some(status.span()), checked).unwrap_or(hook.disabled_status);
    }
    hook.path = reader.value(raw.path, path).unwrap_or(hook.path);
    if let Some(providers) = raw.providers {
        let at = Some(providers.span());
        let named = reader.all(Some(providers.into_inner()), str::parse::<Provider>);
        hook.providers = named.into_iter().flatten().collect();
        if hook.providers.is_empty() {
            reader.problem(at, "a hook takes at least one provider; leave this out for all".into());
        }
    }
    if let Some(path) = raw.key_file {
        hook.key_file = reader.path(path);
    }
    let allow_from = source::check_allow_from(raw.allow_from, raw.allow_from_files, reader);
    hook.allow_from = allow_from.or(hook.allow_from);
    let url_keys =
        [("accept", UrlKey::Accept), ("require", UrlKey::Require), ("refuse", UrlKey::Refuse)];
    hook.url_key = reader.value(raw.url_key, value::word(&url_keys)).unwrap_or_default();
    let required = [("any", false), ("signature", true)];
    hook.require_signature = reader.value(raw.require, value::word(&required)).unwrap_or_default();
    if raw.upstream.is_some() {
        hook.upstream = reader.value(raw.upstream, |url| defaults.service(url));
    }
    let events = reader.all(raw.events, str::parse::<Kind>);
    hook.rules.events = events.map_or_else(Events::default, |kinds| kinds.into_iter().collect());
    let raw_lists_repositories = raw.repositories.is_some();
    if let Some(patterns) = reader.all(raw.repositories, Pattern::parse) {
        hook.rules.repositories = patterns.into_iter().collect();
    }
    if let Some(file) = raw.repositories_file {
        if raw_lists_repositories {
            let text = "repositories and repositories_file exclude each other";
            reader.problem(Some(file.span()), text.into());
        }
        check_repositories_file(&file, &mut hook, reader);
    }
    if let Some(refs) = raw.refs {
        let checked = RefPatterns::new(refs.get_ref());
        hook.rules.refs = reader.keep(Some(refs.span()), checked).unwrap_or_default();
    }
    hook.reindex_all = raw.reindex_all.unwrap_or_default();
    hook.paces.dedupe_window =
        reader.value(raw.dedupe_window, value::any_duration).unwrap_or(hook.paces.dedupe_window);
    let by = [("ref", KeyBy::Ref), ("repository", KeyBy::Repository)];
    hook.paces.coalesce_by = reader.value(raw.coalesce_by, value::word(&by)).unwrap_or_default();
    let interval = reader.value(raw.min_reindex_interval, value::any_duration);
    let delay = reader.value(raw.delay, value::any_duration).unwrap_or_default();
    let max_wait = reader.value(raw.max_wait, value::duration);
    let interval = interval.unwrap_or_default();
    if !interval.is_zero() || !delay.is_zero() {
        let mut pace = Pace::new(interval);
        pace.delay = delay;
        pace.max_wait = max_wait.unwrap_or(pace.max_wait);
        // A call, its second attempt and what belongs to it are within the timeout.
        pace.max_send = defaults.timeout.saturating_mul(2).max(pace.max_send);
        hook.paces.coalesce = Some(pace);
    }
    hook.paces.rate = reader.value(raw.rate, source::optional_rate).flatten();
    hook.paces.repository_rate = reader.value(raw.repository_rate, source::optional_rate).flatten();
    let modes = [("direct", DeliveryMode::Direct), ("spool", DeliveryMode::Spool)];
    hook.delivery = reader.value(raw.delivery, value::word(&modes)).unwrap_or_default();
    let bodies = [
        ("original", UpstreamBody::Original),
        ("json", UpstreamBody::Json),
        ("reindex", UpstreamBody::Reindex),
    ];
    hook.upstream_body = reader.value(raw.upstream_body, value::word(&bodies)).unwrap_or_default();
    hook.upstream_sign_key_file = raw.upstream_sign_key_file.map(|path| reader.path(path));
    let has_key = raw.upstream_key_file.is_some();
    hook.upstream_key_file = raw.upstream_key_file.map(|path| reader.path(path.into_inner()));
    if let Some(path) = raw.upstream_path {
        let at = Some(path.span());
        hook.upstream_path = reader.value(Some(path), PathTemplate::parse);
        let template = hook.upstream_path.as_ref();
        if template.is_some_and(|it| it.needs(Variable::UpstreamKey)) && !has_key {
            reader.problem(at, "{upstream_key} needs upstream_key_file".into());
        }
    }
    hook.mark_azure_devops = raw.azure_devops.mark_upstream;
    let mut azure_devops = AzureDevops::default();
    if let Some(user) = raw.azure_devops.user {
        azure_devops = azure_devops.user(user);
    }
    let token = reader.value(raw.azure_devops.header, header_name);
    if let Some(header) = &token {
        azure_devops = azure_devops.header(header.clone());
    }
    if let Some(headers) = raw.forward_headers {
        let checked = ForwardHeaders::new(headers.get_ref(), token.as_slice());
        hook.forward_headers = reader.keep(Some(headers.span()), checked).unwrap_or_default();
    }
    let modes = [("sign", GiteeMode::Sign), ("password", GiteeMode::Password)];
    let mode = reader.value(raw.gitee.mode, value::word(&modes)).unwrap_or_default();
    hook.schemes = Schemes::default().azure_devops(azure_devops).gitee(Gitee::new(mode));
    if let Some(generic) = raw.generic {
        check_generic(generic, &mut hook, reader);
    }
    hook
}

/// One pattern a line; `#` begins a comment.
fn check_repositories_file(
    file: &Spanned<PathBuf>,
    hook: &mut HookConfig,
    reader: &mut Reader<'_>,
) {
    let Some(content) = reader.read(file) else { return };
    let text = String::from_utf8_lossy(&content);
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let mut patterns = Vec::new();
    for (number, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
        let told = format!("{}, line {}", file.get_ref().display(), number + 1);
        let checked = Pattern::parse(line).map_err(|error| format!("{told}: {error}"));
        patterns.extend(reader.keep(Some(file.span()), checked));
    }
    if patterns.is_empty() {
        // An empty list is one of everything, which nobody means who names a file.
        let text = format!("{} has no pattern", file.get_ref().display());
        reader.problem(Some(file.span()), text);
    }
    hook.rules.repositories = patterns.into_iter().collect();
}

fn check_generic(raw: RawGeneric, hook: &mut HookConfig, reader: &mut Reader<'_>) {
    let algorithms = [("sha256", Algorithm::Sha256), ("sha512", Algorithm::Sha512)];
    let encodings = [("hex", Encoding::Hex), ("base64", Encoding::Base64)];
    let header = reader.value(Some(raw.header), header_name);
    let algorithm = reader.value(raw.algorithm, value::word(&algorithms)).unwrap_or_default();
    let encoding = reader.value(raw.encoding, value::word(&encodings)).unwrap_or_default();
    hook.generic_event_header = reader.value(raw.event_header, header_name);
    hook.generic_push_events = raw.push_events.unwrap_or_default();
    hook.generic_header.clone_from(&header);
    if let Some(header) = header {
        let generic = Generic::new(header).algorithm(algorithm).encoding(encoding);
        let generic = generic.prefix(raw.prefix.unwrap_or_default());
        hook.schemes = std::mem::take(&mut hook.schemes).generic(generic);
    }
}

fn name(text: &str) -> Result<String, &'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.into())
    } else {
        Err("a hook's name is 1 to 64 of A-Z a-z 0-9 . _ -")
    }
}

fn path(text: &str) -> Result<String, &'static str> {
    let path = text.strip_suffix('/').unwrap_or(text);
    if is_hook_path(path) {
        Ok(path.into())
    } else {
        Err("expected a path such as \"/webhook\": it begins with / and has no query")
    }
}

fn disabled_status(status: u16) -> Result<StatusCode, &'static str> {
    match StatusCode::from_u16(status) {
        Ok(StatusCode::GONE) => Err("410 makes hosts end a hook for good; 403 or 200 do not"),
        Ok(status)
            if status.is_success() || status.is_client_error() || status.is_server_error() =>
        {
            Ok(status)
        }
        _ => Err("expected a final status such as 403 or 200"),
    }
}

fn header_name(text: &str) -> Result<HeaderName, &'static str> {
    text.parse().map_err(|_| "expected the name of a header such as \"x-signature\"")
}
