//! `hookgate sign` and `hookgate send`: deliveries as hosts make them.

pub(crate) mod client;
pub(crate) mod sample;

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use hookgate::clock::{Clock, SystemClock};
use hookgate::form;
use hookgate::key::{Key, KeyKind, Keyring, Use};
use hookgate::outcome::{OUTCOME_HEADER, Outcome};
use hookgate::provider::Provider;
use hookgate::proxy::config::HookConfig;
use hookgate::scheme::{Head, Message, Scheme};
use hookgate::time::Timestamp;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde_json::{Map, Value, json};

use crate::args::{SampleEvent, SendArgs, SignArgs};
use crate::hook::{listening, read_input, read_keys};
use client::{Answer, Client};
use sample::{Address, event_headers, event_name, random_id, sample};

/// As large as a form of the largest delivery: 75 MiB.
pub(crate) const MAX_BODY: u64 = 75 << 20;

pub(crate) fn sign(args: &SignArgs) -> ExitCode {
    match signed(args) {
        Ok(headers) => print_headers(&headers, args.json),
        Err(message) => fail(&message),
    }
}

fn signed(args: &SignArgs) -> Result<HeaderMap, String> {
    let hook = args.choice.resolve()?;
    let (ring, _) = read_keys(&hook.key_file)?;
    let body = read_input(Path::new("-"), MAX_BODY)?;
    let (id, now) = (random_id()?, SystemClock.now());
    let scheme = scheme_of(&hook, args.provider)?;
    let key = key_of(&ring, args.provider, args.key.as_deref(), now)?;
    let event = args.event.as_deref().map(|event| match known(event) {
        Some(known) => event_name(args.provider, known)
            .ok_or_else(|| format!("{} names no event {event} in a header", args.provider)),
        None => Ok(event),
    });
    let mut headers = event_headers(args.provider, event.transpose()?, &id)?;
    let is_form = form::payload(&body).is_ok();
    let media = if is_form { "application/x-www-form-urlencoded" } else { "application/json" };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.extend(prove(scheme, &body, &key, &id, now)?);
    if shows_key(scheme, &headers, &body, &ring, now)
        && !args.show_key
        && !std::io::stdout().is_terminal()
    {
        return Err("this host sends the key itself, and the output is no terminal: --show-key prints it anyway".into());
    }
    Ok(headers)
}

fn known(event: &str) -> Option<SampleEvent> {
    Some(match event {
        "push" => SampleEvent::Push,
        "tag" => SampleEvent::Tag,
        "ping" => SampleEvent::Ping,
        _ => return None,
    })
}

fn scheme_of(hook: &HookConfig, provider: Provider) -> Result<&dyn Scheme, String> {
    hook.schemes.get(provider).ok_or_else(|| match provider {
        Provider::Generic => {
            "[hook.generic] describes how a generic sender signs: name the file with --config"
                .into()
        }
        _ => format!("{provider} signs nothing: the key stands in the URL"),
    })
}

/// Where a host shows what proves its deliveries.
pub(crate) enum Place<'a> {
    Headers(&'a dyn Scheme),
    Url,
}

pub(crate) fn place_of_proof<'a>(
    hook: &'a HookConfig,
    provider: Provider,
    key: &Key,
) -> Result<Place<'a>, String> {
    match hook.schemes.get(provider) {
        Some(scheme) => Ok(Place::Headers(scheme)),
        None if provider == Provider::Generic => scheme_of(hook, provider).map(Place::Headers),
        None if key.kind() == KeyKind::Plain && key.uses().contains(Use::Url) => Ok(Place::Url),
        None => Err(format!("key {} does not stand in a URL", key.name())),
    }
}

/// The key as the last segment of the URL.
pub(crate) fn push_key(url: &mut String, key: &Key) {
    url.push('/');
    url.push_str(&String::from_utf8_lossy(key.secret().expose()));
}

/// The key of this name, or the first that is active and fits the provider.
pub(crate) fn key_of(
    ring: &Keyring,
    provider: Provider,
    name: Option<&str>,
    now: Timestamp,
) -> Result<Arc<Key>, String> {
    if let Some(name) = name {
        let key = ring.keys().find(|key| key.name() == name);
        return key.cloned().ok_or_else(|| "the key file has no key of this name".into());
    }
    let token = || ring.signing_tokens(now).next();
    let key = match provider {
        Provider::StandardWebhooks => token(),
        Provider::Gitlab => token().or_else(|| ring.primary(Use::Token, now)),
        Provider::AzureDevops | Provider::Gitee => ring.primary(Use::Token, now),
        Provider::Gerrit | Provider::Manual => ring.primary(Use::Url, now),
        _ => ring.primary(Use::Sign, now),
    };
    key.cloned().ok_or_else(|| format!("the key file has no active key that fits {provider}"))
}

pub(crate) fn prove(
    scheme: &dyn Scheme,
    body: &[u8],
    key: &Key,
    id: &str,
    now: Timestamp,
) -> Result<HeaderMap, String> {
    let payload = form::payload(body).unwrap_or_else(|_| body.to_vec());
    let message = Message { body, payload: &payload, id, now };
    scheme.sign(&message, key).map_err(|error| format!("key {}: {error}", key.name()))
}

/// Whether the key can be read from the headers: where the proof is a token.
fn shows_key(
    scheme: &dyn Scheme,
    headers: &HeaderMap,
    body: &[u8],
    ring: &Keyring,
    now: Timestamp,
) -> bool {
    let (method, uri) = (Method::POST, Uri::from_static("/"));
    let head = Head { method: &method, uri: &uri, headers };
    let verified = scheme.verify(head, &body.to_vec().into(), ring, now);
    // An inactive key does not verify; then its kind decides.
    verified.map_or(true, |verified| !verified.covers_body)
}

fn print_headers(headers: &HeaderMap, as_json: bool) -> ExitCode {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    if as_json {
        let object: Map<_, _> = headers
            .iter()
            .map(|(name, value)| (name.to_string(), Value::from(text(value))))
            .collect();
        println!("{}", Value::from(object));
    } else {
        for (name, value) in headers {
            println!("{name}: {}", text(value));
        }
    }
    ExitCode::SUCCESS
}

pub(crate) fn send(args: &SendArgs) -> ExitCode {
    match sent(args) {
        Ok(report) => report.print(args.json),
        Err(message) => fail(&message),
    }
}

fn sent(args: &SendArgs) -> Result<Report, String> {
    let hook = args.choice.resolve()?;
    let (ring, _) = read_keys(&hook.key_file)?;
    let (id, now) = (random_id()?, SystemClock.now());
    let address = Address::parse(&args.repository)?;
    let mut sample = sample(args.provider, args.event, &address, &args.name, &id, now)?;
    let key = key_of(&ring, args.provider, args.key.as_deref(), now)?;
    let mut to = match &args.to {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => format!("{}{}", listening(&args.choice.load()?), hook.path),
    };
    match place_of_proof(&hook, args.provider, &key)? {
        // Bitbucket Server never signs its test.
        Place::Headers(_)
            if args.provider == Provider::BitbucketServer && args.event == SampleEvent::Ping => {}
        Place::Headers(scheme) => {
            sample.headers.extend(prove(scheme, &sample.body, &key, &id, now)?);
        }
        Place::Url => push_key(&mut to, &key),
    }
    let client = Client::new(&to, args.ca_file.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    let answer = runtime.block_on(client.post(sample.headers, sample.body))?;
    Ok(Report { provider: args.provider, id, key: key.name().into(), answer })
}

struct Report {
    provider: Provider,
    id: String,
    key: String,
    answer: Answer,
}

impl Report {
    fn outcome(&self) -> Option<Outcome> {
        let word = self.answer.headers.get(OUTCOME_HEADER)?;
        Outcome::ALL.iter().copied().find(|outcome| outcome.as_str() == word)
    }

    fn print(&self, as_json: bool) -> ExitCode {
        let status = self.answer.status;
        let meaning = match self.outcome() {
            Some(outcome) => meaning_of(outcome),
            None => meaning_of_status(status),
        };
        if as_json {
            let report = json!({
                "status": status.as_u16(), "outcome": self.outcome().map(Outcome::as_str), "meaning": meaning,
                "provider": self.provider.as_str(), "key": self.key, "delivery": self.id,
            });
            println!("{report}");
        } else {
            let word = self.outcome().map(|outcome| format!(" {outcome}")).unwrap_or_default();
            println!("{}{word}: {meaning}", status.as_u16());
            println!("sent as {} with key {}, delivery {}", self.provider, self.key, self.id);
        }
        if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn meaning_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Forwarded => "it was sent to the service, which took it",
        Outcome::Printed => {
            "it is authentic and was printed, since no upstream is named (--upstream)"
        }
        Outcome::Queued => {
            "it is in the spool and will be sent; the service is down, slow, or takes all from there"
        }
        Outcome::SetAside => {
            "the service refused it for good; it is among the dead letters (hookgate spool list --state dead)"
        }
        Outcome::Coalesced => {
            "it is held back for a moment; the last of the pushes to this ref will be sent"
        }
        Outcome::Duplicate => "the gate has seen this delivery before and did not send it again",
        Outcome::Ignored => {
            "it is authentic, and the hook's rules (events, repositories, refs) do not want it; the answer and the \
             audit record say which"
        }
        Outcome::Pong => "it is authentic, and a test: answered by the gate and sent nowhere",
        Outcome::Forbidden => "this address may not call the hook",
        Outcome::Disabled => "the hook is disabled",
        Outcome::Unauthorized => {
            "its proof does not hold for this hook: another key file, a key that is not active or not for this use, a \
             host that the hook does not take; the gate's log says which (reason)"
        }
        Outcome::NotFound => "no hook has this path",
        Outcome::Method => "there is a hook, and it does not take a POST",
        Outcome::TooLarge => "the body is larger than limits.max_body",
        Outcome::Timeout => "the body did not come in time",
        Outcome::Unsupported => "the hook does not take this media type",
        Outcome::Malformed => "it is authentic, but not the event that it claims to be",
        Outcome::RateLimited => "too much comes from this address",
        Outcome::Overloaded => {
            "a limit of the gate is reached, or its spool is full; try again later"
        }
        Outcome::UpstreamFailed => "the service is down, late or refuses, and there is no spool",
        _ => "an outcome that this version does not know",
    }
}

fn meaning_of_status(status: StatusCode) -> &'static str {
    if status.is_success() {
        "it was taken, by something that is no gate: there is no hookgate-outcome in the answer"
    } else if status.is_redirection() {
        "it was sent elsewhere, which hosts do not follow; and not by a gate"
    } else {
        "it was refused by something that is no gate: there is no hookgate-outcome in the answer"
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::FAILURE
}
