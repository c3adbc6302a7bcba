//! The layer, and what it can be told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tower_layer::Layer;

use super::budget::Budget;
use super::refusals::RefusalLimit;
use super::service::Gate;
use crate::allow_list::AllowList;
use crate::clock::{Clock, SystemClock};
#[cfg(feature = "event")]
use crate::event::{ParseOptions, Rules};
use crate::keystore::KeyStore;
use crate::provider::{Provider, Providers};
use crate::scheme::{Schemes, UrlKey};
use crate::switch::Switch;

/// Puts a [`Gate`] before a service. See the [module docs](super).
#[derive(Clone)]
pub struct GateLayer(Arc<Config>);

pub(super) struct Config {
    pub(super) keys: KeyStore,
    pub(super) switch: Switch,
    pub(super) disabled_status: StatusCode,
    /// Who may call; none for everybody.
    pub(super) allow_from: Option<AllowList>,
    pub(super) refusals: Option<RefusalLimit>,
    pub(super) providers: Providers,
    /// The methods for the `Allow` header.
    pub(super) allow: &'static str,
    pub(super) schemes: Schemes,
    pub(super) path: Option<String>,
    pub(super) url_key: UrlKey,
    pub(super) require_signature: bool,
    pub(super) max_body: u64,
    pub(super) body_deadline: Duration,
    pub(super) budget: Budget,
    pub(super) stream: bool,
    pub(super) clock: Arc<dyn Clock>,
    #[cfg(feature = "event")]
    pub(super) events: Events,
}

/// What the gate makes of what a delivery says.
#[cfg(feature = "event")]
#[derive(Default)]
pub(super) struct Events {
    pub(super) options: ParseOptions,
    pub(super) read: bool,
    pub(super) rules: Option<Rules>,
    pub(super) reindex_all: bool,
}

impl GateLayer {
    /// A gate with these keys and all defaults: see [`GateBuilder`].
    pub fn new(keys: KeyStore) -> Self {
        Self(Arc::new(GateBuilder::new(keys).0))
    }

    /// A gate to be told more.
    pub fn builder(keys: KeyStore) -> GateBuilder {
        GateBuilder::new(keys)
    }

    /// The switch of this gate.
    pub fn switch(&self) -> &Switch {
        &self.0.switch
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate::new(inner, self.0.clone())
    }
}

impl fmt::Debug for GateLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GateLayer")
            .field("providers", &self.providers)
            .field("path", &self.path)
            .field("url_key", &self.url_key)
            .field("require_signature", &self.require_signature)
            .field("switch", &self.switch)
            .finish_non_exhaustive()
    }
}

/// Builds a [`GateLayer`].
#[must_use]
pub struct GateBuilder(Config);

impl GateBuilder {
    fn new(keys: KeyStore) -> Self {
        Self(Config {
            keys,
            switch: Switch::default(),
            disabled_status: StatusCode::FORBIDDEN,
            allow_from: None,
            refusals: None,
            providers: Providers::ALL,
            allow: allow(Providers::ALL),
            schemes: Schemes::default(),
            path: None,
            url_key: UrlKey::default(),
            require_signature: false,
            max_body: 25 * 1024 * 1024,
            body_deadline: Duration::from_secs(10),
            budget: Budget::default(),
            stream: false,
            clock: Arc::new(SystemClock),
            #[cfg(feature = "event")]
            events: Events::default(),
        })
    }

    /// The providers that are taken. Default: all.
    ///
    /// With exactly one, that one's rules hold whatever headers come.
    pub fn providers(mut self, providers: impl Into<Providers>) -> Self {
        self.0.providers = providers.into();
        self.0.allow = allow(self.0.providers);
        self
    }

    /// What the schemes of the providers need said. Default: [`Schemes::default`].
    pub fn schemes(mut self, schemes: Schemes) -> Self {
        self.0.schemes = schemes;
        self
    }

    /// The path of the hook, such as `/webhook`: then `/webhook/<key>` is the same hook with a URL
    /// key, which the inner service does not see, and any other path is answered 404.
    ///
    /// Default: none. Then every path is taken and no URL key is looked for.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        let mut path = path.into();
        path.truncate(path.trim_end_matches('/').len());
        self.0.path = Some(path);
        self
    }

    /// Whether a URL key is taken. Default: [`UrlKey::Accept`], where there is a
    /// [`path`](Self::path).
    pub fn url_key(mut self, url_key: UrlKey) -> Self {
        self.0.url_key = url_key;
        self
    }

    /// Takes nothing less than a signature over the body. Default: a token or URL key is enough.
    pub fn require_signature(mut self, required: bool) -> Self {
        self.0.require_signature = required;
        self
    }

    /// The largest body, in bytes; a form may have three times that. Default: 25 MiB, as GitHub's.
    pub fn max_body(mut self, bytes: u64) -> Self {
        self.0.max_body = bytes;
        self
    }

    /// The time in which the body must be there. Default: 10 s.
    ///
    /// A body that has come at less than 1 KiB/s after half of that time is given up earlier.
    pub fn body_deadline(mut self, deadline: Duration) -> Self {
        self.0.body_deadline = deadline;
        self
    }

    /// The room for bodies, which several gates may share. Default: [`Budget::default`], a new one.
    pub fn budget(mut self, budget: Budget) -> Self {
        self.0.budget = budget;
        self
    }

    /// The switch, if another place turns it. Default: an enabled one.
    pub fn switch(mut self, switch: Switch) -> Self {
        self.0.switch = switch;
        self
    }

    /// The status while the switch is off. Default: 403. 200 drops deliveries silently.
    pub fn disabled_status(mut self, status: StatusCode) -> Self {
        self.0.disabled_status = status;
        self
    }

    /// Takes requests from these sources alone, which is looked at before the credentials. Default: from
    /// everywhere.
    ///
    /// A request without a [`Source`](crate::source::Source) in its extensions is refused then.
    pub fn allow_from(mut self, sources: AllowList) -> Self {
        self.0.allow_from = Some(sources);
        self
    }

    /// What each source may have refused until it has to wait. Default: no limit.
    pub fn refusal_limit(mut self, limit: RefusalLimit) -> Self {
        self.0.refusals = Some(limit);
        self
    }

    /// Passes bodies on unread. Only a token or a URL key can prove such a delivery.
    ///
    /// [`build`](Self::build) refuses this together with anything that reads the body.
    pub fn stream(mut self) -> Self {
        self.0.stream = true;
        self
    }

    /// Reads what each delivery says, for [`Delivery::event`](crate::delivery::Delivery::event); a
    /// body that is not the event that it claims to be is then answered 400. Default: no.
    #[cfg(feature = "event")]
    pub fn read_events(mut self, read: bool) -> Self {
        self.0.events.read = read;
        self
    }

    /// Lets only those events through that are wanted: pings are answered `pong` and all else
    /// `ignored`, both with 200. Default: everything authentic comes through.
    #[cfg(feature = "event")]
    pub fn rules(mut self, rules: Rules) -> Self {
        self.0.events.rules = Some(rules);
        self
    }

    /// Takes a POST, PUT or GET with a good URL key that names no repository as a
    /// [reindex of everything](crate::event::Kind::ReindexAll), as Git Integration for Jira does.
    /// Default: no, since whoever follows the link would start one, a preview of it too.
    #[cfg(feature = "event")]
    pub fn reindex_all(mut self, reindex_all: bool) -> Self {
        self.0.events.reindex_all = reindex_all;
        self
    }

    /// What events are called that no host defines. Default: [`ParseOptions::default`].
    #[cfg(feature = "event")]
    pub fn parse_options(mut self, options: ParseOptions) -> Self {
        self.0.events.options = options;
        self
    }

    /// The clock. Default: the operating system's.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.0.clock = Arc::new(clock);
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// [`GateError`] if what was said does not fit together.
    pub fn build(self) -> Result<GateLayer, GateError> {
        #[cfg_attr(not(feature = "event"), expect(unused_mut, reason = "only events change it"))]
        let mut config = self.0;
        #[cfg(feature = "event")]
        if config.events.reindex_all {
            if config.path.is_none() || !config.providers.contains(Provider::Manual) {
                return Err(GateError::ReindexAllWithoutUrlKey);
            }
            config.allow = "GET, POST, PUT";
        }
        if config.providers.is_empty() {
            return Err(GateError::NoProvider);
        }
        if let Some(path) = &config.path
            && !(path.is_empty() || is_hook_path(path))
        {
            return Err(GateError::BadPath);
        }
        if config.url_key == UrlKey::Require && config.path.is_none() {
            return Err(GateError::UrlKeyWithoutPath);
        }
        // 410 makes Azure DevOps and Standard Webhooks senders end the subscription for good.
        if config.disabled_status == StatusCode::GONE || config.disabled_status.as_u16() < 200 {
            return Err(GateError::BadDisabledStatus);
        }
        if config.stream {
            // These hosts can only show a token or a URL key.
            const UNREAD: [Provider; 4] =
                [Provider::AzureDevops, Provider::Gitee, Provider::Gerrit, Provider::Manual];
            let reading = config.providers.iter().find(|provider| !UNREAD.contains(provider));
            #[cfg(feature = "event")]
            if config.events.read || config.events.rules.is_some() {
                return Err(GateError::StreamReadsEvents);
            }
            if config.require_signature {
                return Err(GateError::StreamUnsigned);
            } else if let Some(provider) = reading {
                return Err(GateError::StreamReads(provider));
            }
        }
        Ok(GateLayer(Arc::new(config)))
    }
}

impl fmt::Debug for GateBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GateBuilder").field(&self.0).finish()
    }
}

fn allow(providers: Providers) -> &'static str {
    // Gitea and Forgejo can be told to send a GET, and the trigger of GIJ can be a PUT.
    let get = providers.contains(Provider::Gitea) || providers.contains(Provider::Forgejo);
    match (get, providers.contains(Provider::Manual)) {
        (true, true) => "GET, POST, PUT",
        (true, false) => "GET, POST",
        (false, true) => "POST, PUT",
        (false, false) => "POST",
    }
}

/// Whether `path` is one that a hook can have: it begins with `/` and is a URL's path as it is.
pub fn is_hook_path(path: &str) -> bool {
    path.starts_with('/')
        && path.parse::<http::Uri>().is_ok_and(|uri| uri.path() == path && uri.query().is_none())
}

/// Why a gate cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GateError {
    /// The set of providers is empty.
    NoProvider,
    /// The path does not begin with `/`, or is no path.
    BadPath,
    /// A URL key is required and there is no path in which it could stand.
    UrlKeyWithoutPath,
    /// A reindex of everything is let through, but there is no path in which a URL key could stand, or
    /// the manual provider is not taken.
    ReindexAllWithoutUrlKey,
    /// 410, or no final status.
    BadDisabledStatus,
    /// `stream` with a provider whose deliveries are verified over their body.
    StreamReads(Provider),
    /// `stream` with `require_signature`.
    StreamUnsigned,
    /// `stream` with rules or the reading of events.
    StreamReadsEvents,
}

impl fmt::Display for GateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProvider => f.write_str("the gate takes no provider"),
            Self::BadPath => f.write_str("the path must begin with / and be a URL's path"),
            Self::UrlKeyWithoutPath => {
                f.write_str("a URL key is required, but there is no path in which it could stand")
            }
            Self::ReindexAllWithoutUrlKey => f.write_str(
                "a reindex of everything needs a path with a URL key and the manual provider",
            ),
            Self::BadDisabledStatus => f.write_str(
                "the status of a disabled hook must be final and not 410, \
                 for which hosts end a hook for good",
            ),
            Self::StreamReads(provider) => {
                write!(f, "deliveries of {provider} cannot be verified without reading their body")
            }
            Self::StreamReadsEvents => {
                f.write_str("what a delivery says cannot be read where no body is read")
            }
            Self::StreamUnsigned => {
                f.write_str("a signature cannot be required where no body is read")
            }
        }
    }
}

impl std::error::Error for GateError {}
