//! Why a delivery does not hold: hypotheses, each tried with the delivery's own bytes.
//!
//! Pure. In this order:
//!
//! 1. what the head alone tells: a header that comes twice, none, an empty one, SHA-1 alone;
//! 2. the time that was signed;
//! 3. the credential, read as tolerantly as it can be, against every [candidate](super::secrets) for the key and
//!    every [variant](super::rewrite) of the body: first each alone, then both together;
//! 4. the same delivery as one of another host;
//! 5. what can be seen although nothing fits.
//!
//! Whatever fits is proved: a MAC was computed, and it is the one that came. Only 5 is a guess, and says so.

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, KeyInit, Mac};
use hookgate::form;
use hookgate::key::Keyring;
use hookgate::provider::Provider;
use hookgate::scheme::{Gitee, GiteeMode, Head, Refusal, Scheme, Schemes};
use hookgate::time::Timestamp;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use sha2::{Sha256, Sha512};

use super::capture::Capture;
use super::rewrite::{self, Variant};
use super::secrets::{self, Candidate, Need};

/// A delivery that does not hold.
pub(super) struct Case<'a> {
    pub(super) provider: Provider,
    pub(super) schemes: &'a Schemes,
    pub(super) generic_header: Option<&'a HeaderName>,
    pub(super) ring: &'a Keyring,
    pub(super) key_file: &'a [u8],
    pub(super) capture: &'a Capture,
    pub(super) now: Timestamp,
}

/// A part of the reason.
#[derive(Debug, PartialEq)]
pub(super) struct Cause {
    /// For programs.
    pub(super) code: &'static str,
    /// The key by whose name it is explained.
    pub(super) key: Option<String>,
    /// For people.
    pub(super) text: String,
}

impl Cause {
    fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, key: None, text: text.into() }
    }
}

/// Above this, a key and a body that are both wrong are not looked for: 16 MiB for one spelling of the body, of which
/// there are more than a hundred.
const BOTH: usize = 16 << 20;
/// Above this, an end that was added is not looked for: it costs a MAC for each byte.
const APPENDED: usize = 256 << 10;

/// Why the delivery was refused. Empty if nothing explains it.
pub(super) fn diagnose(case: &Case<'_>, refusal: Refusal) -> Vec<Cause> {
    match refusal {
        Refusal::Repeated => return vec![case.repeated()],
        Refusal::Missing => return case.missing(),
        _ => {}
    }
    let mut causes = Vec::new();
    if let Some((cause, signed_at)) = case.clock() {
        causes.push(cause);
        if case.holds_as(case.provider, signed_at) {
            return causes;
        }
    }
    if let Some((shape, proof)) = case.proof() {
        causes.extend(shape);
        match case.explain(&proof) {
            Some(found) if found.is_empty() && causes.is_empty() => {
                causes.push(case.other_mode().unwrap_or_else(|| case.beside(refusal)));
            }
            Some(found) => causes.extend(found),
            None => causes.extend(case.another_provider().or_else(|| case.evidence(&proof))),
        }
    } else {
        causes.push(case.without_a_proof());
    }
    if causes.is_empty() && refusal == Refusal::NoKey {
        let text = "the key file has no active key that could have signed or been sent here: put the host's secret into it";
        causes.push(Cause::new("no-key", text));
    }
    causes
}

/// A credential, read tolerantly.
enum Proof {
    /// MACs over the body, behind what else is signed.
    Body {
        macs: Vec<Vec<u8>>,
        before: Vec<u8>,
    },
    /// A MAC over a time and the secret.
    Time {
        mac: Vec<u8>,
        time: Vec<u8>,
    },
    Token(Vec<u8>),
}

impl Case<'_> {
    fn value(&self, name: &str) -> Option<&[u8]> {
        self.capture.headers.get(name).map(|value| value.as_bytes().trim_ascii())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.value(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    fn holds_as(&self, provider: Provider, now: Timestamp) -> bool {
        self.schemes.get(provider).is_some_and(|scheme| self.holds(scheme, now))
    }

    fn holds(&self, scheme: &dyn Scheme, now: Timestamp) -> bool {
        let Capture { method, uri, headers, body } = self.capture;
        scheme.verify(Head { method, uri, headers }, body, self.ring, now).is_ok()
    }

    /// The headers in which the host proves its deliveries.
    fn credentials(&self) -> Vec<&str> {
        match self.provider {
            Provider::Github => vec!["x-hub-signature-256"],
            Provider::Gitlab => vec!["webhook-signature", "x-gitlab-token"],
            Provider::BitbucketCloud => vec!["x-hub-signature"],
            Provider::BitbucketServer => vec!["x-hub-signature", "authorization"],
            Provider::Gitea => vec!["x-gitea-signature", "x-gogs-signature", "x-hub-signature-256"],
            Provider::Forgejo => {
                vec![
                    "x-forgejo-signature",
                    "x-gitea-signature",
                    "x-gogs-signature",
                    "x-hub-signature-256",
                ]
            }
            Provider::Gogs => vec!["x-gogs-signature"],
            Provider::AzureDevops => vec!["authorization"],
            Provider::Gitee => vec!["x-gitee-token"],
            Provider::StandardWebhooks => vec!["webhook-signature"],
            Provider::Generic => self.generic_header.map(HeaderName::as_str).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn repeated(&self) -> Cause {
        let others = ["webhook-id", "webhook-timestamp", "x-gitee-timestamp"];
        let names = self.credentials().into_iter().chain(others);
        let repeated: Vec<_> =
            names.filter(|name| self.capture.headers.get_all(*name).iter().count() > 1).collect();
        Cause::new(
            "signature-repeated",
            format!(
                "{} comes more than once, and which one counts could be told apart by nobody; a proxy on the way \
                 doubled it, or the delivery went through it twice",
                repeated.join(" and ")
            ),
        )
    }

    fn missing(&self) -> Vec<Cause> {
        let names = self.credentials();
        let is_empty = |name: &&&str| matches!(self.text(name), Some("" | "sha256=" | "sha1="));
        if let Some(name) = names.iter().find(is_empty) {
            let text = format!("{name} is there and empty: no secret is set at the host");
            return vec![Cause::new("signature-empty", text)];
        }
        if let Some(cause) = self.another_provider() {
            return vec![cause];
        }
        if self.provider != Provider::BitbucketCloud
            && self.text("x-hub-signature").is_some_and(|value| value.starts_with("sha1="))
        {
            let text = "it is signed with SHA-1 alone (X-Hub-Signature), which counts for nothing; what is needed is \
                 SHA-256. An old version of the host, or a proxy that drops X-Hub-Signature-256";
            return vec![Cause::new("sha1-only", text)];
        }
        vec![self.without_a_proof()]
    }

    fn without_a_proof(&self) -> Cause {
        if matches!(self.provider, Provider::Gerrit | Provider::Manual) {
            let text =
                "this host signs nothing: only a key in the webhook URL can prove its deliveries";
            return Cause::new("nothing-to-verify", text);
        }
        if self.provider == Provider::Generic && self.generic_header.is_none() {
            let text = "a generic sender is described by [hook.generic] of a configuration: name it with --config";
            return Cause::new("nothing-to-verify", text);
        }
        let wanted = self.credentials().join(" or ");
        let others = self.capture.headers.keys().map(HeaderName::as_str);
        let others: Vec<_> = others
            .filter(|name| {
                name.contains("signature") || name.ends_with("-token") || *name == "authorization"
            })
            .collect();
        let also = if others.is_empty() {
            String::new()
        } else {
            format!("; there is {}, which proves nothing for this host", others.join(" and "))
        };
        Cause::new(
            "signature-missing",
            format!(
                "there is no {wanted}{also}. No secret is set at the host, or something on the way drops it"
            ),
        )
    }

    /// The time that was signed, if that is what was refused.
    fn clock(&self) -> Option<(Cause, Timestamp)> {
        let (name, tolerance) = match self.provider {
            Provider::Gitlab | Provider::StandardWebhooks => ("webhook-timestamp", 300),
            Provider::Gitee => ("x-gitee-timestamp", 3600),
            _ => return None,
        };
        let number: i64 = self.text(name)?.parse().ok()?;
        let as_unit = |seconds: bool| {
            if seconds {
                Timestamp::from_seconds(number)
            } else {
                Some(Timestamp::from_millis(number))
            }
        };
        let in_seconds = self.provider != Provider::Gitee;
        let signed = as_unit(in_seconds)?;
        let off =
            |at: Timestamp| (i128::from(self.now.as_millis()) - i128::from(at.as_millis())) / 1000;
        let by = off(signed);
        if by.abs() <= tolerance {
            return None;
        }
        if as_unit(!in_seconds).is_some_and(|other| off(other).abs() <= 24 * 3600) {
            let (is, wanted) =
                if in_seconds { ("milliseconds", "seconds") } else { ("seconds", "milliseconds") };
            return Some((
                Cause::new("clock-unit", format!("{name} is in {is} and must be in {wanted}")),
                signed,
            ));
        }
        let side = if by > 0 { "before" } else { "after" };
        Some((
            Cause::new(
                "clock",
                format!(
                    "it was signed at {signed}, {} s {side} {}, and {tolerance} s are tolerated: a clock is wrong, or the \
                     delivery is an old one (--at {signed} verifies it as of then)",
                    by.abs(),
                    self.now
                ),
            ),
            signed,
        ))
    }

    /// The credential that is there, and what is wrong with its form.
    fn proof(&self) -> Option<(Option<Cause>, Proof)> {
        if let Some(value) = self.text("webhook-signature").filter(|value| !value.is_empty())
            && matches!(self.provider, Provider::Gitlab | Provider::StandardWebhooks)
        {
            return Some(self.standard_webhooks(value));
        }
        if self.provider == Provider::Gitee {
            let token = self.text("x-gitee-token")?;
            let time = self.value("x-gitee-timestamp").unwrap_or_default().to_vec();
            let decoded: Vec<u8> = percent_encoding::percent_decode_str(token).collect();
            return Some(match BASE64.decode(&decoded) {
                Ok(mac) if mac.len() == 32 => (None, Proof::Time { mac, time }),
                _ => (None, Proof::Token(token.into())),
            });
        }
        if let Some(basic) = self.value(AUTHORIZATION.as_str())
            && matches!(self.provider, Provider::AzureDevops | Provider::BitbucketServer)
        {
            let encoded = basic.split_at_checked(6).map_or(basic, |(_, rest)| rest);
            let pair = BASE64.decode(encoded.trim_ascii()).unwrap_or_default();
            let Some(colon) = pair.iter().position(|&byte| byte == b':') else {
                let text = "Authorization is not Basic base64(user:password)";
                return Some((
                    Some(Cause::new("basic-malformed", text)),
                    Proof::Token(encoded.into()),
                ));
            };
            return Some((None, Proof::Token(pair[colon + 1..].into())));
        }
        let name = self
            .credentials()
            .into_iter()
            .find(|name| self.value(name).is_some_and(|it| !it.is_empty()))?;
        let value = self.value(name)?;
        if name == "x-gitlab-token" {
            return Some((None, Proof::Token(value.into())));
        }
        let Some((mac, shape)) =
            read_mac(name, std::str::from_utf8(value).ok()?, self.prefix(name))
        else {
            return Some((None, Proof::Token(value.into())));
        };
        Some((shape, Proof::Body { macs: vec![mac], before: Vec::new() }))
    }

    fn prefix(&self, name: &str) -> Option<&'static str> {
        match (self.provider, name.starts_with("x-hub-signature")) {
            (Provider::Generic, _) => None,
            (_, true) => Some("sha256="),
            _ => Some(""),
        }
    }

    fn standard_webhooks(&self, value: &str) -> (Option<Cause>, Proof) {
        let entries =
            value.split([' ', ',']).filter_map(|entry| BASE64.decode(entry.as_bytes()).ok());
        let macs: Vec<_> = entries.filter(|mac| mac.len() == 32).collect();
        let part = |name| self.value(name).filter(|value| !value.is_empty());
        let (id, time) = (part("webhook-id"), part("webhook-timestamp"));
        let shape = if id.is_none() || time.is_none() {
            let text = "webhook-id or webhook-timestamp is missing: both are signed";
            Some(Cause::new("id-missing", text))
        } else if id.is_some_and(|id| id.contains(&b'.')) {
            Some(Cause::new(
                "id-malformed",
                "webhook-id has a full stop, which the specification forbids",
            ))
        } else if macs.is_empty() {
            Some(Cause::new(
                "signature-malformed",
                "webhook-signature is not v1, and base64 of 32 bytes",
            ))
        } else if !value.split(' ').any(|entry| entry.starts_with("v1,")) {
            let text = "webhook-signature has no entry that begins with v1,";
            Some(Cause::new("prefix-missing", text))
        } else {
            None
        };
        let before = [id.unwrap_or_default(), b".", time.unwrap_or_default(), b"."].concat();
        (shape, Proof::Body { macs, before })
    }

    /// What the host signs of the body: Gitea and its kin sign the JSON in a form.
    fn signed_body(&self) -> Vec<u8> {
        let signs_payload =
            matches!(self.provider, Provider::Gitea | Provider::Forgejo | Provider::Gogs);
        let body = &self.capture.body;
        match form::payload(body) {
            Ok(json) if signs_payload && self.is_form() => json,
            _ => body.to_vec(),
        }
    }

    fn is_form(&self) -> bool {
        self.text(CONTENT_TYPE.as_str()).is_some_and(|media| media.contains("form-urlencoded"))
    }

    /// The key, the body or both that explain the proof.
    fn explain(&self, proof: &Proof) -> Option<Vec<Cause>> {
        let candidates = |need| secrets::candidates(self.ring, self.key_file, need, self.now);
        match proof {
            Proof::Token(_) if self.is_signature_header() => None,
            Proof::Token(token) => {
                let all = candidates(Need::Token);
                let fits = all.iter().find(|candidate| candidate.secret.matches(token));
                fits.map(|candidate| key_cause(candidate).into_iter().collect())
            }
            Proof::Time { mac, time } => {
                let all = candidates(Need::Token);
                let fits = all.iter().find(|candidate| {
                    let secret = candidate.secret.expose();
                    is_mac(candidate, &[time, b"\n", secret], mac)
                });
                fits.map(|candidate| key_cause(candidate).into_iter().collect())
            }
            Proof::Body { macs, before } => {
                let is_standard = !before.is_empty();
                let need = if is_standard { Need::SigningToken } else { Need::Sign };
                self.explain_body(macs, before, &candidates(need))
            }
        }
    }

    fn explain_body(
        &self,
        macs: &[Vec<u8>],
        before: &[u8],
        all: &[Candidate],
    ) -> Option<Vec<Cause>> {
        let body = self.signed_body();
        let fits = |candidate: &Candidate, before: &[u8], body: &[u8]| {
            macs.iter().any(|mac| is_mac(candidate, &[before, body], mac))
        };
        let (good, faulty): (Vec<_>, Vec<_>) =
            all.iter().partition(|candidate| candidate.fault.is_none());
        if let Some(candidate) = all.iter().find(|candidate| fits(candidate, before, &body)) {
            return Some(key_cause(candidate).into_iter().collect());
        }
        let raw = Variant {
            bytes: self.capture.body.to_vec(),
            code: "form-signed",
            text:
                "the signature is over the form as it was sent, and this host signs the JSON in it"
                    .into(),
        };
        let raw = (raw.bytes != body).then_some(raw);
        let variants = || {
            let rewritten = rewrite::variants(&body, self.is_form());
            raw.iter()
                .map(|raw| Variant {
                    bytes: raw.bytes.clone(),
                    code: raw.code,
                    text: raw.text.clone(),
                })
                .chain(rewritten)
        };
        for variant in variants() {
            if let Some(candidate) = good.iter().find(|it| fits(it, before, &variant.bytes)) {
                return Some(vec![body_cause(variant, candidate)]);
            }
        }
        if !before.is_empty()
            && let Some(candidate) = all.iter().find(|it| fits(it, b"", &body))
        {
            let text =
                "the body alone was signed, without webhook-id and webhook-timestamp before it";
            let cause =
                Cause { key: Some(candidate.key.clone()), ..Cause::new("id-unsigned", text) };
            return Some(key_cause(candidate).into_iter().chain([cause]).collect());
        }
        if let Some(cause) = appended(macs, before, &body, &good) {
            return Some(vec![cause]);
        }
        if body.len().saturating_mul(faulty.len()) > BOTH {
            return None;
        }
        variants().find_map(|variant| {
            let candidate = faulty.iter().find(|it| fits(it, before, &variant.bytes))?;
            Some(key_cause(candidate).into_iter().chain([body_cause(variant, candidate)]).collect())
        })
    }

    /// The proof that was looked at fits, so it is another one that does not.
    fn beside(&self, refusal: Refusal) -> Cause {
        if self.provider == Provider::Generic {
            let text = "the signature fits, but it is not written as [hook.generic] says: prefix, encoding or algorithm";
            return Cause::new("signature-form", text);
        }
        let names = self.credentials();
        let there: Vec<_> = names.into_iter().filter(|name| self.value(name).is_some()).collect();
        let text = format!(
            "{} do not all hold ({refusal}), and every one that is there must",
            there.join(" and ")
        );
        Cause::new("signatures-differ", text)
    }

    /// Gitee's other mode, if it holds there.
    fn other_mode(&self) -> Option<Cause> {
        let modes = [(GiteeMode::Sign, "sign"), (GiteeMode::Password, "password")];
        let holds =
            |mode| self.provider == Provider::Gitee && self.holds(&Gitee::new(mode), self.now);
        let (_, word) = modes.into_iter().find(|(mode, _)| holds(*mode))?;
        let text = format!("it holds with mode = \"{word}\" in [hook.gitee]");
        Some(Cause::new("gitee-mode", text))
    }

    /// Another host as whose the delivery holds.
    fn another_provider(&self) -> Option<Cause> {
        let holds =
            |provider: &Provider| *provider != self.provider && self.holds_as(*provider, self.now);
        let other = Provider::ALL.into_iter().find(holds)?;
        let text = format!(
            "it holds as one of {other}: that is who sent it, or whose rules the sender follows"
        );
        Some(Cause::new("provider", text))
    }

    /// Whether what came stands where the host has a signature, and not a token.
    fn is_signature_header(&self) -> bool {
        match self.provider {
            Provider::Gitlab | Provider::AzureDevops | Provider::Gitee => false,
            Provider::BitbucketServer => self.value(AUTHORIZATION.as_str()).is_none(),
            _ => true,
        }
    }

    /// What can be seen although nothing fits.
    fn evidence(&self, proof: &Proof) -> Option<Cause> {
        if let Proof::Body { .. } = proof {
            let declared =
                self.text(CONTENT_LENGTH.as_str()).and_then(|text| text.parse::<usize>().ok());
            let came = self.capture.body.len();
            if let Some(declared) = declared.filter(|declared| *declared != came) {
                let text = format!(
                    "the body has {came} bytes and its Content-Length says {declared}: a part is missing or was added"
                );
                return Some(Cause::new("body-length", text));
            }
            if self.capture.body.windows(3).any(|three| three == "\u{fffd}".as_bytes()) {
                let text = "the body has replacement characters (U+FFFD): bytes of it were lost when it was read as text";
                return Some(Cause::new("body-charset", text));
            }
            return None;
        }
        let Proof::Token(token) = proof else { return None };
        let all = secrets::candidates(self.ring, self.key_file, Need::Sign, self.now);
        let text = std::str::from_utf8(token).ok()?;
        let bare = text
            .rsplit_once('=')
            .filter(|(_, rest)| !rest.is_empty())
            .map_or(text, |(_, rest)| rest);
        let shown =
            |it: &&Candidate| it.secret.matches(token) || it.secret.matches(bare.as_bytes());
        if self.is_signature_header()
            && let Some(candidate) = all.iter().find(shown)
        {
            let text = "the header holds the key itself and not a signature made with it: the key was shown to everyone on \
                 the way, so replace it, and sign";
            return Some(Cause {
                key: Some(candidate.key.clone()),
                ..Cause::new("token-as-signature", text)
            });
        }
        if !self.is_signature_header() {
            let mac = read_mac("", bare, None)?.0;
            let candidate = all.iter().find(|it| is_mac(it, &[&self.capture.body], &mac))?;
            let text = "the token is a signature over the body, and this host sends the key itself";
            return Some(Cause {
                key: Some(candidate.key.clone()),
                ..Cause::new("signature-as-token", text)
            });
        }
        let text = "the header holds no signature: expected 64 hexadecimal digits";
        Some(Cause::new("signature-malformed", text))
    }
}

/// A MAC in any form in which one is written, and what is wrong with the form. `prefix` is what must stand before it;
/// `None` if that is not known.
fn read_mac(name: &str, value: &str, prefix: Option<&str>) -> Option<(Vec<u8>, Option<Cause>)> {
    let trimmed = value.trim_matches(|c: char| c.is_whitespace() || "\"'".contains(c));
    let (word, rest) = match trimmed.split_once('=') {
        Some((word, rest)) if word.len() <= 8 && !rest.is_empty() => {
            (&trimmed[..=word.len()], rest.trim())
        }
        _ => ("", trimmed),
    };
    let hex = HEXLOWER_PERMISSIVE
        .decode(rest.as_bytes())
        .ok()
        .filter(|mac| matches!(mac.len(), 20 | 32 | 64));
    let is_hex = hex.is_some();
    let base64 =
        || BASE64.decode(rest.as_bytes()).ok().filter(|mac| matches!(mac.len(), 20 | 32 | 64));
    let mac = hex.or_else(base64)?;
    let Some(prefix) = prefix else { return Some((mac, None)) };
    let is = |algorithm: &str, length| word.eq_ignore_ascii_case(algorithm) && mac.len() == length;
    let shape = if mac.len() == 20 || is("sha1=", 20) {
        let text =
            format!("{name} holds a SHA-1, which counts for nothing: what is needed is SHA-256");
        Some(Cause::new("sha1-only", text))
    } else if mac.len() == 64 {
        Some(Cause::new("sha512", format!("{name} holds a SHA-512 and must hold a SHA-256")))
    } else if !is_hex {
        Some(Cause::new(
            "signature-base64",
            format!("{name} is written as base64 and must be in hexadecimal digits"),
        ))
    } else if trimmed != value || rest.len() + word.len() != trimmed.len() {
        Some(Cause::new(
            "signature-quoted",
            format!("{name} has quotation marks or white space in it"),
        ))
    } else if word == prefix {
        None
    } else if word.is_empty() {
        Some(Cause::new("prefix-missing", format!("{name} lacks {prefix} before its digits")))
    } else if word.eq_ignore_ascii_case(prefix) {
        Some(Cause::new("prefix-case", format!("{name} must begin with {prefix} in small letters")))
    } else {
        Some(Cause::new(
            "prefix-unexpected",
            format!(
                "{name} begins with another word than it must: {}",
                if prefix.is_empty() { "expected the digits alone" } else { "expected sha256=" }
            ),
        ))
    };
    Some((mac, shape))
}

/// Whether the end of the body was added.
fn appended(macs: &[Vec<u8>], before: &[u8], body: &[u8], good: &[&Candidate]) -> Option<Cause> {
    if body.len() > APPENDED {
        return None;
    }
    for candidate in good {
        let mut mac = Hmac::<Sha256>::new_from_slice(candidate.secret.expose()).ok()?;
        mac.update(before);
        for (length, byte) in body.iter().enumerate() {
            if length > 0 && macs.iter().any(|it| mac.clone().verify_slice(it).is_ok()) {
                let text = format!(
                    "the signature is over the first {length} bytes of the body; the other {} were added",
                    body.len() - length
                );
                return Some(Cause {
                    key: Some(candidate.key.clone()),
                    ..Cause::new("body-appended", text)
                });
            }
            mac.update(&[*byte]);
        }
    }
    None
}

fn is_mac(candidate: &Candidate, parts: &[&[u8]], presented: &[u8]) -> bool {
    fn check<M: Mac + KeyInit>(secret: &[u8], parts: &[&[u8]], presented: &[u8]) -> bool {
        let Ok(mut mac) = <M as KeyInit>::new_from_slice(secret) else { return false };
        parts.iter().for_each(|part| mac.update(part));
        mac.verify_slice(presented).is_ok()
    }
    let secret = candidate.secret.expose();
    match presented.len() {
        32 => check::<Hmac<Sha256>>(secret, parts, presented),
        64 => check::<Hmac<Sha512>>(secret, parts, presented),
        _ => false,
    }
}

fn key_cause(candidate: &Candidate) -> Option<Cause> {
    let (code, text) = candidate.fault.as_ref()?;
    Some(Cause { code, key: Some(candidate.key.clone()), text: text.clone() })
}

fn body_cause(variant: Variant, candidate: &Candidate) -> Cause {
    Cause { code: variant.code, key: Some(candidate.key.clone()), text: variant.text }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    const KEYS: &[u8] = b"sdf34tGdfgGDG345g3y0045TYG23te37 name=plain\n\
        whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q= name=token\n";

    proptest! {
        // Each is sixty-five diagnoses.
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn no_delivery_makes_it_panic(
            values in prop::collection::vec("[ -~]{0,80}|(sha(1|256)=|v1,|Basic |)[0-9a-fA-F=]{0,90}|[0-9]{0,20}", 16),
            body in prop_oneof![any::<Vec<u8>>(), "[{}\\[\\]\",:a0 \n]{0,40}".prop_map(String::into_bytes)],
            time in any::<i64>(),
        ) {
            const NAMES: [&str; 16] = [
                "x-hub-signature-256", "x-hub-signature", "x-gitlab-token", "webhook-signature", "webhook-id",
                "webhook-timestamp", "x-gitea-signature", "x-gogs-signature", "x-forgejo-signature", "authorization",
                "x-gitee-token", "x-gitee-timestamp", "content-type", "content-length", "x-signature", "x-hub-signature",
            ];
            let head: String = NAMES.iter().zip(&values).map(|(name, value)| format!("{name}: {value}\n")).collect();
            let capture = Capture::read(head.as_bytes(), Bytes::from(body)).unwrap();
            let (schemes, ring) = (Schemes::default(), Keyring::parse(KEYS).unwrap());
            let header = HeaderName::from_static("x-signature");
            for provider in Provider::ALL {
                for refusal in [Refusal::Missing, Refusal::Repeated, Refusal::Malformed, Refusal::NoKey, Refusal::Expired] {
                    let case = Case {
                        provider,
                        schemes: &schemes,
                        generic_header: Some(&header),
                        ring: &ring,
                        key_file: KEYS,
                        capture: &capture,
                        now: Timestamp::from_millis(time),
                    };
                    for cause in diagnose(&case, refusal) {
                        prop_assert!(!cause.text.contains("sdf34t") && !cause.text.contains("dGVzdH"));
                    }
                }
            }
        }
    }
}
