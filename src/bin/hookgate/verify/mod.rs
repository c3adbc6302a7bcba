//! `hookgate verify`: whether a delivery that was caught holds, and if not, why.

mod capture;
mod diagnose;
mod rewrite;
mod secrets;

use std::path::Path;
use std::process::ExitCode;

use hookgate::clock::{Clock, SystemClock};
use hookgate::event::{self, ParseOptions};
use hookgate::key::Keyring;
use hookgate::provider::Provider;
use hookgate::proxy::config::HookConfig;
use hookgate::scheme::{Head, Refusal, UrlKey, Verified, is_ping};
use hookgate::time::Timestamp;
use serde_json::json;

use crate::args::VerifyArgs;
use crate::hook::{read_input, read_keys};
use capture::Capture;
use diagnose::{Case, Cause};

/// As large as a form of the largest delivery: 75 MiB.
const MAX_BODY: u64 = 75 << 20;
const MAX_HEAD: u64 = 1 << 20;

pub(crate) fn run(args: &VerifyArgs) -> ExitCode {
    match verify(args) {
        Ok(report) => report.print(args.json),
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn verify(args: &VerifyArgs) -> Result<Report, String> {
    let stdin = Path::new("-");
    if args.headers == stdin && args.body == stdin {
        return Err("only one of headers and body can come from the standard input".into());
    }
    let hook = args.choice.resolve()?;
    let (ring, file) = read_keys(&hook.key_file)?;
    let head = read_input(&args.headers, MAX_HEAD)?;
    let body = read_input(&args.body, MAX_BODY)?;
    let capture = Capture::read(&head, body.into())
        .map_err(|fault| format!("{}: {fault}", args.headers.display()))?;
    let provider = args.provider.or_else(|| hook.schemes.detect(&capture.headers, hook.providers));
    let provider =
        provider.ok_or("no host can be told from the headers: name it with --provider")?;
    let now = args.at.unwrap_or_else(|| SystemClock.now());
    let verdict = judge(&hook, provider, &capture, &ring, now);
    let causes = match &verdict {
        Ok(_) => Vec::new(),
        Err(Refusal::Repository) => vec![bound(provider)],
        Err(_) if provider == Provider::BitbucketServer && is_ping(&capture.body) => vec![ping()],
        Err(refusal) => {
            let case = Case {
                provider,
                schemes: &hook.schemes,
                generic_header: hook.generic_header.as_ref(),
                ring: &ring,
                key_file: file.bytes(),
                capture: &capture,
                now,
            };
            diagnose::diagnose(&case, *refusal)
        }
    };
    Ok(Report { provider, verdict, causes })
}

/// What the gate would say: the signature or token, else the key in the URL, and the key's binding.
fn judge(
    hook: &HookConfig,
    provider: Provider,
    capture: &Capture,
    ring: &Keyring,
    now: Timestamp,
) -> Result<Verified, Refusal> {
    let Capture { method, uri, headers, body } = capture;
    let head = Head { method, uri, headers };
    let scheme = hook.schemes.get(provider);
    let mut verdict = match scheme {
        Some(scheme) => scheme.verify(head, body, ring, now),
        None => Err(Refusal::Missing),
    };
    if verdict.as_ref().is_err_and(|refusal| *refusal == Refusal::Missing)
        && hook.url_key != UrlKey::Refuse
    {
        let segment = uri.path().rsplit('/').next().unwrap_or_default();
        if let Some(key) = ring.find_url(segment.as_bytes(), now) {
            let payload = hookgate::scheme::payload(head, body);
            verdict = Ok(Verified { key: key.clone(), payload, covers_body: false });
        }
    }
    let verified = verdict?;
    if let (Some(binding), Ok(payload)) = (verified.key.repositories(), &verified.payload) {
        let mut options = ParseOptions::default();
        options.event_header.clone_from(&hook.generic_event_header);
        if !hook.generic_push_events.is_empty() {
            options.push_events.clone_from(&hook.generic_push_events);
        }
        let within = event::parse(provider, headers, payload, &options)
            .is_ok_and(|event| event::is_within(binding, &event, provider, headers, payload));
        if !within {
            return Err(Refusal::Repository);
        }
    }
    Ok(verified)
}

fn bound(provider: Provider) -> Cause {
    Cause {
        code: "key-repository",
        key: None,
        text: format!(
            "the proof holds, but its key is bound to repositories (repositories=), and this delivery of {provider} names \
             another one or none"
        ),
    }
}

fn ping() -> Cause {
    Cause {
        code: "ping",
        key: None,
        text: "this is the test of Bitbucket Server, which is never signed; the gate answers it with pong and sends it \
               nowhere"
            .into(),
    }
}

struct Report {
    provider: Provider,
    verdict: Result<Verified, Refusal>,
    causes: Vec<Cause>,
}

impl Report {
    fn print(&self, as_json: bool) -> ExitCode {
        if as_json {
            println!("{}", self.json());
        } else {
            print!("{}", self.text());
        }
        if self.verdict.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn text(&self) -> String {
        let provider = self.provider;
        match &self.verdict {
            Ok(verified) => {
                let covers = if verified.covers_body {
                    "a signature over the body"
                } else {
                    "a token or URL key, which says nothing of the body"
                };
                let mut text =
                    format!("holds: {provider}, key {}, {covers}\n", verified.key.name());
                if let Err(error) = &verified.payload {
                    text.push_str(&format!("but the gate would not take the body: {error}\n"));
                }
                text
            }
            Err(refusal) => {
                let mut text = format!("does not hold: {provider}, {refusal}\n");
                for cause in &self.causes {
                    let key =
                        cause.key.as_ref().map(|key| format!(" (key {key})")).unwrap_or_default();
                    text.push_str(&format!("{}: {}{key}\n", cause.code, cause.text));
                }
                if self.causes.is_empty() {
                    text.push_str(
                        "unexplained: no key of the file fits, in any spelling, with this body in any encoding. Either the \
                         host has another secret, or the body was changed. A delivery that the host sends again tells which\n",
                    );
                }
                text
            }
        }
    }

    fn json(&self) -> serde_json::Value {
        let causes: Vec<_> = self
            .causes
            .iter()
            .map(|cause| json!({"code": cause.code, "key": cause.key, "text": cause.text}))
            .collect();
        let verified = self.verdict.as_ref().ok();
        json!({
            "holds": verified.is_some(),
            "provider": self.provider.as_str(),
            "key": verified.map(|verified| verified.key.name()),
            "covers_body": verified.map(|verified| verified.covers_body),
            "refusal": self.verdict.as_ref().err().map(|refusal| refusal.as_str()),
            "causes": causes,
        })
    }
}
