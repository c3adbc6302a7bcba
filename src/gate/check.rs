//! The steps of the gate, as pure functions in the order in which they are taken.
//!
//! [`admit`] goes through what the head can tell, cheapest first; [`judge`] through what the body
//! tells. Between them the future reads the body.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Uri};

use super::layer::Config;
#[cfg(feature = "event")]
use super::layer::Events;
use super::rejection::Rejection;
use crate::delivery::{Delivery, DeliveryBuilder};
#[cfg(feature = "event")]
use crate::event::{self, Event, EventError, Verdict};
use crate::key::{Key, Keyring};
use crate::outcome::Outcome;
use crate::provider::Provider;
use crate::scheme::{self, Head, Pending, Proof, Refusal, UrlKey, Verified};
use crate::source::Source;
use crate::time::Timestamp;

/// A request whose head is in order.
pub(super) struct Admission {
    pub(super) provider: Option<Provider>,
    url_key: Option<Arc<Key>>,
    token: Option<Arc<Key>>,
    pub(super) pending: Option<Pending>,
    /// The largest body that is read, if that is less than what [`is_too_large`] allows.
    pub(super) limit: u64,
}

impl Admission {
    /// Whether the head has shown something good.
    pub(super) fn is_proven(&self) -> bool {
        self.url_key.is_some() || self.token.is_some()
    }

    /// What a body is that turns out to be larger than the limit: too large, or no ping of one who can
    /// only ping.
    pub(super) fn beyond_limit(&self) -> Rejection {
        if !self.is_proven() && self.pending.is_none() {
            Rejection::from(Refusal::Missing)
        } else {
            too_large()
        }
    }
}

/// The steps that need no body. Nothing is stored or computed by what the head claims.
///
/// `declared` is the length that the body claims to have, or the least that it will have.
pub(super) fn admit(
    config: &Config,
    parts: &mut Parts,
    source: Option<Source>,
    declared: u64,
    keys: &Keyring,
    now: Timestamp,
) -> Result<Admission, Rejection> {
    // 1. The path, and in it the URL key, which goes no further than this.
    let segment = take_url_key(config, &mut parts.uri)?;
    // 2. The source.
    if let Some(allowed) = &config.allow_from
        && !source.is_some_and(|source| allowed.allows(source))
    {
        return Err(Rejection::new(Outcome::Forbidden, "source may not call this hook"));
    }
    // 3. The method.
    if !config.takes(&parts.method) {
        return Err(Rejection::method(config.allow));
    }
    // 4. The switch.
    if !config.switch.is_enabled() {
        return Err(Rejection::disabled(config.disabled_status));
    }
    // 5. The declared length.
    if is_too_large(config, parts, declared) {
        return Err(too_large());
    }
    // 6. The shape of the credentials, and tokens.
    let provider = config.schemes.detect(&parts.headers, config.providers);
    let can_be_get = provider.map_or_else(|| config.reindexes_all(), sends_get);
    if parts.method == Method::GET && !can_be_get {
        return Err(Rejection::method(config.allow).provider(provider));
    }
    let head = Head::from(&*parts);
    let proof = match provider.and_then(|provider| config.schemes.get(provider)) {
        Some(scheme) => scheme.begin(head, keys, now),
        None => Proof::Absent,
    };
    let (token, pending) = match proof {
        Proof::Absent => (None, None),
        Proof::Held(key) => (Some(key), None),
        Proof::Pending(pending) => (None, Some(pending)),
        Proof::Refused(refusal) => return Err(Rejection::from(refusal).provider(provider)),
    };
    // 7. The URL key.
    let url_key = match UrlKey::begin(segment.as_deref(), keys, now) {
        Proof::Held(key) => Some(key),
        Proof::Absent if config.url_key != UrlKey::Require => None,
        Proof::Absent => return Err(Rejection::from(Refusal::Missing).provider(provider)),
        _ => return Err(Rejection::from(Refusal::Mismatch).provider(provider)),
    };
    // 8. Whether all this can be enough.
    let mut limit = u64::MAX;
    if token.is_none() && url_key.is_none() && pending.is_none() {
        // The only delivery that needs no proof, since its host never gives one.
        if !claims_ping(provider, &parts.headers) || declared > scheme::MAX_PING {
            return Err(Rejection::from(Refusal::Missing).provider(provider));
        }
        limit = scheme::MAX_PING;
    } else if config.require_signature
        && pending.is_none()
        && !claims_ping(provider, &parts.headers)
    {
        return Err(Rejection::from(Refusal::Unsigned).provider(provider));
    }
    Ok(Admission { provider, url_key, token, pending, limit })
}

/// The steps that need the body, all of which was given to `pending`.
pub(super) fn judge(
    config: &Config,
    parts: &Parts,
    body: &Bytes,
    admission: Admission,
) -> Result<Delivery, Rejection> {
    let Admission { provider, url_key, token, pending, .. } = admission;
    let head = Head::from(parts);
    // 1. The signature.
    let verified = pending.map(|pending| pending.finish(head, body)).transpose();
    let verified = verified.map_err(|refusal| Rejection::from(refusal).provider(provider))?;
    // 2. The ping that is never signed.
    let is_ping = claims_ping(provider, &parts.headers) && scheme::is_ping(body);
    let (signed, payload) = match verified {
        Some(Verified { key, payload, covers_body }) => (Some((key, covers_body)), payload),
        None => (None, scheme::payload(head, body)),
    };
    let covers_body = signed.as_ref().is_some_and(|(_, covers)| *covers);
    let held = [signed.map(|(key, _)| key), token, url_key];
    if !is_ping {
        if held.iter().all(Option::is_none) {
            return Err(Rejection::from(Refusal::Missing).provider(provider));
        }
        if config.require_signature && !covers_body {
            return Err(Rejection::from(Refusal::Unsigned).provider(provider));
        }
    }
    let key = held.iter().flatten().next().cloned();
    let delivery = |provider| Delivery::builder(&parts.headers, provider, key, covers_body);
    if is_ping {
        return Err(Rejection::new(Outcome::Pong, "ping")
            .delivery(delivery(Provider::BitbucketServer).build()));
    }
    // 3. The payload: from here on the sender is known, and may be told what is wrong.
    let names_nothing = provider.is_none()
        && config.reindexes_all()
        && (body.is_empty() || parts.method == Method::GET);
    let payload = if names_nothing { Ok(Bytes::from_static(b"{}")) } else { payload };
    let payload = payload.map_err(|error| Rejection::from(error).provider(provider))?;
    // 4. The provider, where the head did not tell.
    let Some(provider) = provider.or_else(|| detect_in_body(config, &payload)) else {
        let delivery = delivery(Provider::Manual);
        return everything(config, &parts.headers, payload, &held, delivery);
    };
    conclude(config, &parts.headers, provider, payload, &held, delivery(provider))
}

/// Who sends such a body, if it is one that says so; else the generic provider, which is what a hook
/// describes and so is there only where one did.
#[cold]
fn detect_in_body(config: &Config, payload: &[u8]) -> Option<Provider> {
    let taken = |provider: &Provider| config.providers.contains(*provider);
    let generic = config.schemes.get(Provider::Generic).map(|_| Provider::Generic);
    told_by_body(payload).filter(taken).or_else(|| generic.filter(taken))
}

#[cfg(feature = "event")]
fn told_by_body(payload: &[u8]) -> Option<Provider> {
    event::detect_in_body(payload)
}

/// Only a parser can tell.
#[cfg(not(feature = "event"))]
fn told_by_body(_: &[u8]) -> Option<Provider> {
    None
}

/// What no provider sent, but somebody who has the URL: where the hook wants that, and no repository is
/// named, a reindex of everything.
#[cfg(feature = "event")]
#[cold]
fn everything(
    config: &Config,
    headers: &HeaderMap,
    payload: Bytes,
    held: &[Option<Arc<Key>>],
    delivery: DeliveryBuilder<'_>,
) -> Result<Delivery, Rejection> {
    let options = &config.events.options;
    let read = event::parse(Provider::Manual, headers, &payload, options);
    if !config.reindexes_all() || !matches!(read, Err(EventError::Malformed { .. })) {
        return Err(Rejection::new(Outcome::Malformed, "no provider's delivery"));
    }
    // A key that is bound to some repositories does not vouch for all.
    if held.iter().flatten().any(|key| key.repositories().is_some()) {
        return Err(Rejection::from(Refusal::Repository).provider(Some(Provider::Manual)));
    }
    Ok(delivery.event(Event::reindex_all()).payload(payload).build())
}

#[cfg(not(feature = "event"))]
#[cold]
fn everything(
    _: &Config,
    _: &HeaderMap,
    _: Bytes,
    _: &[Option<Arc<Key>>],
    _: DeliveryBuilder<'_>,
) -> Result<Delivery, Rejection> {
    Err(Rejection::new(Outcome::Malformed, "no provider's delivery"))
}

/// 5. The repositories that the keys vouch for; 6. what the delivery says; 7. the rules.
#[cfg(feature = "event")]
fn conclude(
    config: &Config,
    headers: &HeaderMap,
    provider: Provider,
    payload: Bytes,
    held: &[Option<Arc<Key>>],
    delivery: DeliveryBuilder<'_>,
) -> Result<Delivery, Rejection> {
    let bindings: Vec<_> = held.iter().flatten().filter_map(|key| key.repositories()).collect();
    let Events { options, read, rules, .. } = &config.events;
    if !read && rules.is_none() && bindings.is_empty() {
        return Ok(delivery.payload(payload).build());
    }
    let event = event::parse(provider, headers, &payload, options).map_err(|error| {
        Rejection::new(Outcome::Malformed, error.to_string()).provider(Some(provider))
    })?;
    if !bindings
        .iter()
        .all(|binding| event::is_within(binding, &event, provider, headers, &payload))
    {
        return Err(Rejection::from(Refusal::Repository).provider(Some(provider)));
    }
    let verdict = rules.as_ref().map(|rules| rules.judge(&event));
    let delivery = delivery.event(event.into_owned()).payload(payload).build();
    match verdict {
        None | Some(Verdict::Wanted) => Ok(delivery),
        Some(Verdict::Ignored(rule)) => {
            Err(Rejection::new(Outcome::Ignored, rule.as_str()).delivery(delivery))
        }
        Some(_) => Err(Rejection::new(Outcome::Pong, "ping").delivery(delivery)),
    }
}

/// 5. A key that is bound to repositories vouches for nothing: without parsers nobody can say which
///    repository this is.
#[cfg(not(feature = "event"))]
fn conclude(
    _: &Config,
    _: &HeaderMap,
    provider: Provider,
    payload: Bytes,
    held: &[Option<Arc<Key>>],
    delivery: DeliveryBuilder<'_>,
) -> Result<Delivery, Rejection> {
    if held.iter().flatten().any(|key| key.repositories().is_some()) {
        return Err(Rejection::from(Refusal::Repository).provider(Some(provider)));
    }
    Ok(delivery.payload(payload).build())
}

/// A delivery whose body goes by unread, in `stream` mode.
pub(super) fn pass(parts: &Parts, admission: Admission) -> Result<Delivery, Rejection> {
    let Admission { provider, url_key, token, pending, .. } = admission;
    // What could be bound or signed is refused when the gate is built, or here.
    let held = [token, url_key];
    let unread = pending.is_some()
        || held.iter().flatten().any(|key| key.repositories().is_some())
        || held.iter().all(Option::is_none);
    match provider {
        Some(provider) if !unread => {
            let key = held.into_iter().flatten().next();
            Ok(Delivery::builder(&parts.headers, provider, key, false).build())
        }
        Some(_) => Err(Rejection::from(Refusal::Unsigned).provider(provider)),
        None => Err(Rejection::new(Outcome::Malformed, "no provider's delivery")),
    }
}

/// Whether a body of `bytes` is more than such a request may have.
pub(super) fn is_too_large(config: &Config, parts: &Parts, bytes: u64) -> bool {
    if parts.method == Method::GET {
        // Its payload is in the query; a body beside it would go on unverified.
        return bytes > 0;
    }
    // Nearly all bodies are within the limit of JSON, so whether it is a form is looked at last.
    bytes > config.max_body
        && !(bytes <= config.max_body.saturating_mul(3) && scheme::is_form(&parts.headers))
}

pub(super) fn too_large() -> Rejection {
    Rejection::new(Outcome::TooLarge, "body larger than the limit")
}

/// The URL key's segment; the URI is left without it.
fn take_url_key(config: &Config, uri: &mut Uri) -> Result<Option<String>, Rejection> {
    let Some(path) = config.path.as_deref() else { return Ok(None) };
    let not_found = || Rejection::new(Outcome::NotFound, "no such path");
    let rest = uri.path().strip_prefix(path).ok_or_else(not_found)?;
    if matches!(rest, "" | "/") {
        return Ok(None);
    }
    let segment = rest.strip_prefix('/').filter(|segment| !segment.contains('/'));
    let segment = segment.ok_or_else(not_found)?.to_owned();
    if config.url_key == UrlKey::Refuse {
        return Err(not_found());
    }
    let path = if path.is_empty() { "/" } else { path };
    let kept = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    // The path and the query were part of a URI before.
    let kept = kept.map_err(|_| not_found())?;
    let mut pieces = std::mem::take(uri).into_parts();
    pieces.path_and_query = Some(kept);
    *uri = Uri::from_parts(pieces).map_err(|_| not_found())?;
    Ok(Some(segment))
}

/// Who can be told to send a GET with the payload in its query. All others sign a body if anything,
/// so a GET in their name is made from what somebody saw.
fn sends_get(provider: Provider) -> bool {
    matches!(provider, Provider::Gitea | Provider::Forgejo)
}

fn claims_ping(provider: Option<Provider>, headers: &HeaderMap) -> bool {
    provider == Some(Provider::BitbucketServer)
        && headers.get("x-event-key").is_some_and(|event| event == "diagnostics:ping")
}

impl Config {
    /// Whether a request with a URL key that names no repository means all of them.
    fn reindexes_all(&self) -> bool {
        #[cfg(feature = "event")]
        return self.events.reindex_all;
        #[cfg(not(feature = "event"))]
        false
    }

    /// The methods that the providers of the hook use.
    fn takes(&self, method: &Method) -> bool {
        *method == Method::POST
            || *method == Method::GET && self.allow.contains("GET")
            || *method == Method::PUT && self.allow.contains("PUT")
    }
}
