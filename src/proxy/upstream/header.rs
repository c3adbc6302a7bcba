//! Which headers reach upstream: an allow-list, and what hookgate says itself.

use std::fmt;
use std::net::IpAddr;

use http::header::{CONNECTION, FORWARDED, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::provider::Provider;
use crate::proxy::telemetry::{TRACEPARENT, TRACESTATE};

/// What of the headers that came in goes to upstream: content type, user agent, the hosts' event
/// and delivery headers, and what the hook's configuration names in `extra`.
///
/// Tokens, signatures, cookies, what frames a message and what says where a request came from are
/// not on the list, and neither is any header beginning with `hookgate-`, in whatever spelling.
/// Where a name comes twice, the first value goes: it is the one that the gate has read.
pub fn rebuild_headers(original: &HeaderMap, extra: &ForwardHeaders) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(original.len());
    for name in original.keys() {
        let allowed = is_allowed(name.as_str()) || extra.contains(name);
        if allowed
            && !is_never_sent(original, name)
            && let Some(value) = original.get(name)
        {
            headers.insert(name, value.clone());
        }
    }
    headers
}

/// The headers that a hook's configuration lets through beside those that always are
/// (`forward_headers`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardHeaders(Vec<HeaderName>);

impl ForwardHeaders {
    /// `names` as the configuration has them, in any case.
    ///
    /// `tokens` are the headers by which this hook is shown a token or password, whatever their
    /// names (`[hook.azure_devops] header`).
    ///
    /// # Errors
    ///
    /// If a name is none, has an underscore (which servers confuse with the hyphen), or must never
    /// reach upstream as it came: because it shows a credential, frames a message, says where the request
    /// came from or to which trace it belongs, or is hookgate's own.
    pub fn new<N: AsRef<str>>(
        names: impl IntoIterator<Item = N>,
        tokens: &[HeaderName],
    ) -> Result<Self, ForwardHeadersError> {
        let check = |name: N| {
            let name = name.as_ref();
            let refuse = |reason| ForwardHeadersError { name: name.to_owned(), reason };
            let header: HeaderName = name.parse().map_err(|_| refuse(Reason::NoName))?;
            if header.as_str().contains('_') {
                Err(refuse(Reason::Underscore))
            } else if is_credential(header.as_str()) || tokens.contains(&header) {
                Err(refuse(Reason::Credential))
            } else if is_framing(header.as_str()) {
                Err(refuse(Reason::Framing))
            } else if is_origin(header.as_str()) {
                Err(refuse(Reason::Origin))
            } else if header.as_str().starts_with(OWN_PREFIX) {
                Err(refuse(Reason::Own))
            } else if header == TRACEPARENT || header == TRACESTATE {
                Err(refuse(Reason::Trace))
            } else {
                Ok(header)
            }
        };
        names.into_iter().map(check).collect::<Result<_, _>>().map(Self)
    }

    /// Whether `name` is let through.
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.0.contains(name)
    }

    /// The names, as the configuration orders them.
    pub fn iter(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter()
    }
}

/// Whether a header of this name shows a signature over the body, as far as a name can tell.
///
/// Such a header may be forwarded only as long as the body is the original.
pub fn is_signature(name: &HeaderName) -> bool {
    name.as_str().contains("signature")
}

/// The error of naming a header that must not reach upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardHeadersError {
    name: String,
    reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    NoName,
    Underscore,
    Credential,
    Framing,
    Origin,
    Own,
    Trace,
}

impl fmt::Display for ForwardHeadersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.reason {
            Reason::NoName => "is not the name of a header",
            Reason::Underscore => "has an underscore, which servers confuse with a hyphen",
            Reason::Credential => "can show a credential, which upstream must not see",
            Reason::Framing => "frames a message, which hookgate does itself",
            Reason::Origin => "says where a request came from, which hookgate does itself",
            Reason::Own => "begins with hookgate-, which only hookgate itself uses",
            Reason::Trace => "goes on anyway, unless [tracing] says otherwise",
        };
        write!(f, "header {:?} cannot be forwarded: it {reason}", self.name)
    }
}

impl std::error::Error for ForwardHeadersError {}

/// Where a request came from, as [RFC 7239](https://www.rfc-editor.org/rfc/rfc7239) and the older
/// `X-Forwarded-*` headers say it.
///
/// Only the last hop is told, which is the one that hookgate has seen itself: what a sender says of
/// earlier ones can be made up.
#[derive(Clone, Copy, Debug)]
pub struct Forwarding<'a> {
    /// The other end of the connection, or what a trusted proxy before us says that it is.
    pub client: IpAddr,
    /// Whether the request came over TLS.
    pub tls: bool,
    /// The `Host` that the request was for. Left out if it is not one.
    pub host: Option<&'a str>,
}

impl Forwarding<'_> {
    /// Overwrites `Forwarded` and `X-Forwarded-For`, `-Proto` and `-Host`.
    pub fn write(&self, headers: &mut HeaderMap) {
        let client = self.client.to_canonical();
        let proto = if self.tls { "https" } else { "http" };
        let host = self.host.filter(|host| is_host(host));
        let mut forwarded = match client {
            IpAddr::V4(client) => format!("for={client};proto={proto}"),
            IpAddr::V6(client) => format!("for=\"[{client}]\";proto={proto}"),
        };
        if let Some(host) = host {
            forwarded.push_str(&format!(";host=\"{host}\""));
        }
        set(headers, FORWARDED, Some(&forwarded));
        set(headers, X_FORWARDED_FOR, Some(&client.to_string()));
        set(headers, X_FORWARDED_PROTO, Some(proto));
        set(headers, X_FORWARDED_HOST, host);
    }
}

/// What the gate found, as the headers `hookgate-…` tell it to upstream.
///
/// What is not printable ASCII, and the percent sign, is percent-encoded (as UTF-8), so a reader
/// who decodes a value always gets back the original. A value of more than 1 KiB is left out: a cut
/// one would be wrong, and a long head is refused by many servers.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// `hookgate-provider`
    pub provider: Provider,
    /// `hookgate-event`
    pub event: Option<&'a str>,
    /// `hookgate-repository`
    pub repository: Option<&'a str>,
    /// `hookgate-ref`
    pub git_ref: Option<&'a str>,
    /// `hookgate-delivery`
    pub delivery: Option<&'a str>,
    /// `hookgate-key`: the key's *name*.
    pub key: Option<&'a str>,
}

impl Stamp<'_> {
    /// Overwrites the six headers; one without a value is removed.
    pub fn write(&self, headers: &mut HeaderMap) {
        let values = [
            ("hookgate-provider", Some(self.provider.as_str())),
            ("hookgate-event", self.event),
            ("hookgate-repository", self.repository),
            ("hookgate-ref", self.git_ref),
            ("hookgate-delivery", self.delivery),
            ("hookgate-key", self.key),
        ];
        for (name, value) in values {
            set(headers, HeaderName::from_static(name), value.and_then(encoded).as_deref());
        }
    }
}

/// Whether a header must not be sent to upstream, whoever put it among those of a request.
pub(super) fn is_never_sent(headers: &HeaderMap, name: &HeaderName) -> bool {
    // RFC 9110 section 7.6.1: what `Connection` names ends at the next hop.
    let ends_here = |options: &HeaderValue| {
        options
            .as_bytes()
            .split(|&b| b == b',')
            .any(|option| option.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
    };
    is_framing(name.as_str())
        || is_credential(name.as_str())
        || headers.get_all(CONNECTION).iter().any(ends_here)
}

/// The headers that [`Forwarding`] writes.
pub const FORWARDING: [HeaderName; 4] =
    [FORWARDED, X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST];

const OWN_PREFIX: &str = "hookgate-";

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Longer values of ours are left out: 1 KiB. Tomcat, which Jira runs on, takes 8 KiB of head.
const MAX_VALUE: usize = 1 << 10;

/// What is percent-encoded in our values, beside everything beyond ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// The event and delivery headers of the hosts, with those that some send for the sake of others.
pub(super) fn is_allowed(name: &str) -> bool {
    matches!(
        name,
        "content-type" | "user-agent"
        // GitHub, and GitBucket
        | "x-github-event" | "x-github-event-type" | "x-github-delivery" | "x-github-hook-id"
        | "x-github-hook-installation-target-id" | "x-github-hook-installation-target-type"
        | "x-github-enterprise-host" | "x-github-enterprise-version"
        // GitLab
        | "x-gitlab-event" | "x-gitlab-event-uuid" | "x-gitlab-instance" | "x-gitlab-webhook-uuid"
        | "idempotency-key"
        // Bitbucket Cloud and Server
        | "x-event-key" | "x-hook-uuid" | "x-request-uuid" | "x-request-id" | "x-attempt-number"
        // Gitea, Forgejo, Gogs
        | "x-gitea-event" | "x-gitea-event-type" | "x-gitea-delivery"
        | "x-gitea-hook-installation-target-type"
        | "x-forgejo-event" | "x-forgejo-event-type" | "x-forgejo-delivery"
        | "x-gogs-event" | "x-gogs-event-type" | "x-gogs-delivery"
        // Azure DevOps: some services behind us tell it by these, though not every one sends them
        | "x-vss-activityid" | "x-vss-subscriptionid" | "request-id" | "x-gij-microsoft-event"
        // Gerrit, Gitee
        | "x-origin-url" | "x-gitee-event" | "x-gitee-ping" | "x-git-oschina-event"
        // Standard Webhooks
        | "webhook-id" | "webhook-timestamp"
        // AWS CodeCommit through SNS
        | "x-amz-sns-message-type" | "x-amz-sns-message-id" | "x-amz-sns-topic-arn"
        | "x-amz-sns-subscription-arn"
        // SourceHut
        | "x-webhook-event" | "x-webhook-delivery"
    ) || name.starts_with("x-bbb-webhook-")
}

/// By the words in the name, so that a host's next one is caught as well: GitHub once sent secrets
/// in a new `X-Github-Encoded-Secret`.
fn is_credential(name: &str) -> bool {
    const WORDS: [&str; 9] = [
        "authorization",
        "cookie",
        "token",
        "secret",
        "password",
        "passwd",
        "credential",
        "api-key",
        "apikey",
    ];
    WORDS.iter().any(|word| name.contains(word))
}

/// What belongs to one connection or says where a message ends.
fn is_framing(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "content-length"
            | "expect"
            | "host"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

fn is_origin(name: &str) -> bool {
    name == "forwarded" || name == "x-real-ip" || name.starts_with("x-forwarded")
}

fn is_host(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
    (1..=255).contains(&text.len()) && text.bytes().all(allowed)
}

fn encoded(text: &str) -> Option<String> {
    // A space at either end would not arrive.
    let outer = text.starts_with(' ') || text.ends_with(' ');
    let set = if outer { const { &ENCODED.add(b' ') } } else { ENCODED };
    // No character becomes shorter, so a long text need not be looked at.
    (text.len() <= MAX_VALUE)
        .then(|| utf8_percent_encode(text, set).to_string())
        .filter(|value| (1..=MAX_VALUE).contains(&value.len()))
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<&str>) {
    match value.and_then(|value| HeaderValue::from_str(value).ok()) {
        Some(value) => headers.insert(name, value),
        None => headers.remove(name),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn rebuilt(lines: &[(&str, &str)]) -> HeaderMap {
        rebuild_headers(&map(lines), &ForwardHeaders::default())
    }

    #[test]
    fn the_event_and_delivery_headers_of_every_host_pass() {
        for provider in Provider::ALL {
            for name in [provider.event_header(), provider.delivery_header()].into_iter().flatten()
            {
                let name = name.as_str();
                assert_eq!(rebuilt(&[(name, "x")]), map(&[(name, "x")]), "{provider}");
            }
        }
        for name in [
            "content-type",
            "user-agent",
            "x-forgejo-delivery",
            "x-forgejo-event-type",
            "x-gitea-delivery",
            "x-gitea-event-type",
            "x-gogs-event-type",
            "x-github-event-type",
            "x-github-hook-installation-target-type",
            "x-github-enterprise-host",
            "x-gitlab-instance",
            "x-gitlab-webhook-uuid",
            "x-gitlab-event-uuid",
            "x-hook-uuid",
            "x-attempt-number",
            "x-request-id",
            "x-gitee-ping",
            "x-git-oschina-event",
            "x-origin-url",
            "webhook-timestamp",
            "x-gij-microsoft-event",
            "x-bbb-webhook-type",
            "x-bbb-webhook-anything",
            "x-amz-sns-message-type",
        ] {
            assert_eq!(rebuilt(&[(name, "x")]), map(&[(name, "x")]));
        }
    }

    #[test]
    fn nothing_else_passes_in_any_spelling() {
        for name in [
            // credentials
            "authorization",
            "proxy-authorization",
            "cookie",
            "x-gitlab-token",
            "x-gitee-token",
            "x-gitee-timestamp",
            "x-github-encoded-secret",
            "x-gate-token",
            "x-bbb-webhook-token",
            "x-bbb-webhook-secret",
            "x-hub-signature",
            "x-hub-signature-256",
            "x-gitea-signature",
            "x-forgejo-signature",
            "x-gogs-signature",
            "webhook-signature",
            "x-payload-signature",
            // what frames a message
            "host",
            "connection",
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
            "upgrade",
            "expect",
            "content-length",
            "transfer-encoding",
            "content-encoding",
            "http2-settings",
            // where a request came from
            "forwarded",
            "x-forwarded-for",
            "x_forwarded_for",
            "x-forwarded_for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-forwarded-prefix",
            "x-real-ip",
            // our own
            "hookgate-provider",
            "hookgate_provider",
            "hookgate-key",
            "hookgate-anything",
            "hookgate",
            // twins of what passes
            "x_github_event",
            "content_type",
            "x-github-events",
            "xx-github-event",
            "x-bbb-webhook",
            "x_bbb_webhook_type",
            // anything else
            "accept",
            "accept-encoding",
            "referer",
            "x-original-url",
            "x-http-method-override",
            "origin",
        ] {
            assert!(rebuilt(&[(name, "x")]).is_empty(), "{name}");
        }
    }

    #[test]
    fn of_a_header_that_comes_twice_the_first_goes() {
        let twice = rebuilt(&[("x-github-event", "push"), ("x-github-event", "ping")]);
        assert_eq!(twice, map(&[("x-github-event", "push")]));
    }

    #[test]
    fn what_connection_names_ends_here() {
        let headers = rebuilt(&[
            ("connection", "close, X-Request-Id"),
            ("connection", "x-event-key"),
            ("x-request-id", "1"),
            ("x-event-key", "repo:push"),
            ("x-hook-uuid", "2"),
        ]);
        assert_eq!(headers, map(&[("x-hook-uuid", "2")]));
    }

    #[test]
    fn a_configured_header_passes_and_its_twin_does_not() {
        let extra = ForwardHeaders::new(["X-Hub-Signature-256", "accept"], &[]).unwrap();
        let original = map(&[
            ("x-hub-signature-256", "sha256=00"),
            ("x-hub-signature", "sha1=00"),
            ("accept", "*/*"),
        ]);
        let expected = map(&[("x-hub-signature-256", "sha256=00"), ("accept", "*/*")]);
        assert_eq!(rebuild_headers(&original, &extra), expected);
        let signatures: Vec<_> = extra.iter().filter(|name| is_signature(name)).collect();
        assert_eq!(signatures, ["x-hub-signature-256"]);
    }

    #[test]
    fn what_must_not_reach_upstream_cannot_be_configured() {
        let tokens = [HeaderName::from_static("x-gate")];
        for (name, reason) in [
            ("", Reason::NoName),
            ("x y", Reason::NoName),
            ("x-hub-signature: 1", Reason::NoName),
            ("X_Forwarded_For", Reason::Underscore),
            ("Authorization", Reason::Credential),
            ("Proxy-Authorization", Reason::Credential),
            ("Cookie", Reason::Credential),
            ("Set-Cookie", Reason::Credential),
            ("X-Gitlab-Token", Reason::Credential),
            ("X-Gitee-Token", Reason::Credential),
            ("X-GitHub-Encoded-Secret", Reason::Credential),
            ("X-Api-Key", Reason::Credential),
            ("X-Gate", Reason::Credential),
            ("Host", Reason::Framing),
            ("Connection", Reason::Framing),
            ("Keep-Alive", Reason::Framing),
            ("Proxy-Connection", Reason::Framing),
            ("TE", Reason::Framing),
            ("Trailer", Reason::Framing),
            ("Transfer-Encoding", Reason::Framing),
            ("Upgrade", Reason::Framing),
            ("Expect", Reason::Framing),
            ("Content-Length", Reason::Framing),
            ("Forwarded", Reason::Origin),
            ("X-Forwarded-For", Reason::Origin),
            ("X-Real-IP", Reason::Origin),
            ("Hookgate-Provider", Reason::Own),
            ("Traceparent", Reason::Trace),
            ("Tracestate", Reason::Trace),
        ] {
            let error = ForwardHeaders::new(["accept", name], &tokens).unwrap_err();
            assert_eq!(error, ForwardHeadersError { name: name.to_owned(), reason });
            assert!(error.to_string().contains(name), "{error}");
        }
        assert!(ForwardHeaders::new(["x-gate"], &[]).is_ok());
    }

    #[test]
    fn where_a_request_came_from_is_overwritten() {
        let mut headers = map(&[
            ("forwarded", "for=198.51.100.1"),
            ("x-forwarded-for", "198.51.100.1"),
            ("x-forwarded-for", "198.51.100.2"),
            ("x-forwarded-host", "evil.example"),
        ]);
        let host = Some("hooks.example.com:8443");
        let mapped = "::ffff:192.0.2.7".parse().unwrap();
        Forwarding { client: mapped, tls: true, host }.write(&mut headers);
        assert_eq!(
            headers,
            map(&[
                ("forwarded", r#"for=192.0.2.7;proto=https;host="hooks.example.com:8443""#),
                ("x-forwarded-for", "192.0.2.7"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "hooks.example.com:8443"),
            ])
        );
        let client = "2001:db8::7".parse().unwrap();
        let expected = map(&[
            ("forwarded", r#"for="[2001:db8::7]";proto=http"#),
            ("x-forwarded-for", "2001:db8::7"),
            ("x-forwarded-proto", "http"),
        ]);
        for host in
            [None, Some(""), Some("a\";for=1"), Some("a\r\nb"), Some("münchen"), Some("a b")]
        {
            Forwarding { client, tls: false, host }.write(&mut headers);
            assert_eq!(headers, expected);
        }
    }

    fn stamp(event: &str) -> Stamp<'_> {
        Stamp {
            provider: Provider::Github,
            event: Some(event),
            repository: Some("github.com/acme/widgets"),
            git_ref: Some("refs/heads/main"),
            delivery: Some("72d3162e"),
            key: Some("2026-11"),
        }
    }

    #[test]
    fn what_the_gate_found_is_told_and_a_forged_word_of_it_is_overwritten() {
        let mut headers = map(&[("hookgate-key", "forged"), ("hookgate-key", "twice")]);
        stamp("push").write(&mut headers);
        let expected = map(&[
            ("hookgate-provider", "github"),
            ("hookgate-event", "push"),
            ("hookgate-repository", "github.com/acme/widgets"),
            ("hookgate-ref", "refs/heads/main"),
            ("hookgate-delivery", "72d3162e"),
            ("hookgate-key", "2026-11"),
        ]);
        assert_eq!(headers, expected);
        let nothing = Stamp {
            event: None,
            repository: None,
            git_ref: None,
            delivery: None,
            key: None,
            ..stamp("")
        };
        nothing.write(&mut headers);
        assert_eq!(headers, map(&[("hookgate-provider", "github")]));
    }

    #[test]
    fn a_value_that_fits_no_header_is_encoded_or_left_out() {
        let long = "x".repeat(MAX_VALUE);
        let (longer, wide) = (format!("{long}x"), "é".repeat(MAX_VALUE / 2));
        for (value, expected) in [
            ("Push Hook", Some("Push Hook")),
            ("größe", Some("gr%C3%B6%C3%9Fe")),
            ("a\r\nhookgate-key: b", Some("a%0D%0Ahookgate-key: b")),
            ("a\0b\u{7f}", Some("a%00b%7F")),
            ("50%", Some("50%25")),
            (" a b", Some("%20a%20b")),
            ("", None),
            (&long, Some(&*long)),
            (&longer, None),
            (&wide, None),
        ] {
            let mut headers = HeaderMap::new();
            stamp(value).write(&mut headers);
            let written = headers.get("hookgate-event").map(|value| value.to_str().unwrap());
            assert_eq!(written, expected, "{value:?}");
        }
    }
}
