//! What a request's head must be before anything else looks at it.
//!
//! hyper's parser takes more than a gate should. Whatever two programs can read in two ways is a
//! way past the one that stands in front, so [`check`] refuses, in this order:
//!
//! 1. `CONNECT`, and a target that is neither a path nor an absolute URI: no gate needs them
//!    ([RFC 9112 section 3.2](https://www.rfc-editor.org/rfc/rfc9112#section-3.2)).
//! 2. `Upgrade`, but for `h2c`: HTTP clients that offer HTTP/2 send that one unasked, and a server
//!    may go on as if it were not there
//!    ([RFC 9110 section 7.8](https://www.rfc-editor.org/rfc/rfc9110#section-7.8)).
//! 3. `Transfer-Encoding` that is not exactly `chunked`, or in a version that has none. hyper
//!    reads `gzip, chunked` as `chunked` and would hand on a body that is not what it seems
//!    ([RFC 9112 section 6.1](https://www.rfc-editor.org/rfc/rfc9112#section-6.1)).
//! 4. `Host` that is missing (HTTP/1.0 may go without), that comes twice, or that is no host with
//!    an optional port ([RFC 9112 section 3.2](https://www.rfc-editor.org/rfc/rfc9112#section-3.2)).
//! 5. `Host` that is not the host of the absolute URI or `:authority`, where there is one. The
//!    RFC lets the URI win; nobody honest sends two
//!    ([RFC 9113 section 8.3.1](https://www.rfc-editor.org/rfc/rfc9113#section-8.3.1)).
//!
//! [`strip`] then takes away the headers that could pass for others.
//!
//! # The path
//!
//! What counts for routing is `uri.path()` and nothing else: never the authority, never the query.
//! A hook's path matches byte for byte, so `//`, `%2f`, `..` and `;` mean nothing: `/x/../webhook`
//! is not `/webhook`, and `//evil/webhook` is a path and no host. (A fragment has no place in a
//! request; hyper drops it, and what goes upstream is made from the configuration anyway.)
//!
//! # What hyper refuses by itself
//!
//! Differing or broken `Content-Length`, `Transfer-Encoding` in HTTP/1.0, folded lines, control
//! characters, white space before the colon: 400. A head beyond the limit: 431. Where both
//! `Content-Length` and `Transfer-Encoding: chunked` come, hyper takes away the first and closes the
//! connection after the answer. A bare LF it takes for the end of a line, as RFC 9112 section 2.2 allows;
//! upstream never sees it, since the request is written anew.

use std::fmt;
use std::net::Ipv6Addr;

use http::header::{HOST, HeaderMap, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{Method, StatusCode, Version};

/// Whether the head of a request is one that can be read in one way only.
///
/// # Errors
///
/// The first rule of the [module](self) that the head breaks. The answer is
/// [`HeadError::status`].
pub fn check(head: &Parts) -> Result<(), HeadError> {
    if head.method == Method::CONNECT {
        return Err(HeadError::Connect);
    }
    // `OPTIONS *` has the path `*`; `host:80` has none.
    if head.uri.path_and_query().is_none() {
        return Err(HeadError::Target);
    }
    if head
        .headers
        .get_all(UPGRADE)
        .iter()
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"h2c"))
    {
        return Err(HeadError::Upgrade);
    }
    check_transfer_encoding(head)?;
    check_host(head)
}

/// Takes away the headers that could pass for others once a program normalises names.
///
/// These are the ones with `_` in their name, which CGI's rules turn into `-`
/// (`X_Forwarded_For`), and every spelling of `hookgate-…`, which only the gate itself may set:
/// `hookgate.key` is one too. The case of a name is no spelling, as header names have none.
pub fn strip(headers: &mut HeaderMap) {
    let misleading: Vec<HeaderName> =
        headers.keys().filter(|name| is_misleading(name.as_str())).cloned().collect();
    for name in misleading {
        headers.remove(name);
    }
}

/// Why the head of a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HeadError {
    /// The method is `CONNECT`.
    Connect,
    /// The target is neither a path nor an absolute URI.
    Target,
    /// The request asks for another protocol.
    Upgrade,
    /// `Transfer-Encoding` is not exactly `chunked`.
    TransferEncoding,
    /// There is no `Host`.
    HostMissing,
    /// There is more than one `Host`.
    HostRepeated,
    /// `Host` is not a host with an optional port.
    HostInvalid,
    /// `Host` names another host than the target does.
    HostMismatch,
}

impl HeadError {
    /// The word for logs and metrics, such as `host-missing`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Target => "target",
            Self::Upgrade => "upgrade",
            Self::TransferEncoding => "transfer-encoding",
            Self::HostMissing => "host-missing",
            Self::HostRepeated => "host-repeated",
            Self::HostInvalid => "host-invalid",
            Self::HostMismatch => "host-mismatch",
        }
    }

    /// The status of the answer.
    pub const fn status(self) -> StatusCode {
        StatusCode::BAD_REQUEST
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "the method CONNECT is not supported",
            Self::Target => "the request target is neither a path nor an absolute URI",
            Self::Upgrade => "no upgrade to another protocol is supported",
            Self::TransferEncoding => "the transfer encoding is not chunked",
            Self::HostMissing => "the Host header is missing",
            Self::HostRepeated => "the Host header is repeated",
            Self::HostInvalid => "the Host header is not a host with an optional port",
            Self::HostMismatch => "the Host header differs from the host of the request target",
        })
    }
}

impl std::error::Error for HeadError {}

fn check_transfer_encoding(head: &Parts) -> Result<(), HeadError> {
    let mut values = head.headers.get_all(TRANSFER_ENCODING).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(()),
        (Some(only), None)
            if head.version == Version::HTTP_11
                && only.as_bytes().eq_ignore_ascii_case(b"chunked") =>
        {
            Ok(())
        }
        _ => Err(HeadError::TransferEncoding),
    }
}

fn check_host(head: &Parts) -> Result<(), HeadError> {
    let target = match head.uri.authority() {
        Some(authority) => Some(HostPort::parse(authority.as_str())?),
        None => None,
    };
    let mut values = head.headers.get_all(HOST).iter();
    let host = match (values.next(), values.next()) {
        (Some(_), Some(_)) => return Err(HeadError::HostRepeated),
        (Some(host), None) => HostPort::parse(host.to_str().map_err(|_| HeadError::HostInvalid)?)?,
        // HTTP/2 has the host in `:authority`.
        (None, _) if head.version == Version::HTTP_2 && target.is_some() => return Ok(()),
        (None, _) if head.version < Version::HTTP_11 => return Ok(()),
        (None, _) => return Err(HeadError::HostMissing),
    };
    match target {
        Some(target) if !target.is_same(&host, head.uri.scheme()) => Err(HeadError::HostMismatch),
        _ => Ok(()),
    }
}

/// `uri-host [ ":" port ]`, as RFC 9110 section 7.2 has it.
struct HostPort<'a> {
    host: &'a str,
    port: Option<u16>,
}

impl<'a> HostPort<'a> {
    fn parse(text: &'a str) -> Result<Self, HeadError> {
        let invalid = HeadError::HostInvalid;
        // The type knows which characters and brackets may stand there, but also takes a user name.
        text.parse::<Authority>().map_err(|_| invalid)?;
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port),
            _ => (text, ""),
        };
        let is_literal = || {
            let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
        };
        if host.is_empty() || host.contains('@') || host.contains(['[', ']']) && !is_literal() {
            return Err(invalid);
        }
        let port = match port {
            "" => None,
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().map_err(|_| invalid)?)
            }
            _ => return Err(invalid),
        };
        Ok(Self { host, port })
    }

    fn is_same(&self, other: &Self, scheme: Option<&Scheme>) -> bool {
        let default = if scheme == Some(&Scheme::HTTPS) { 443 } else { 80 };
        self.host.eq_ignore_ascii_case(other.host)
            && self.port.unwrap_or(default) == other.port.unwrap_or(default)
    }
}

fn is_misleading(name: &str) -> bool {
    name.contains('_')
        || name.strip_prefix("hookgate").is_some_and(|rest| {
            rest.bytes().next().is_none_or(|next| !next.is_ascii_alphanumeric())
        })
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;

    fn head(version: Version, method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().version(version).method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn post(headers: &[(&str, &str)]) -> Result<(), HeadError> {
        check(&head(Version::HTTP_11, "POST", "/webhook", headers))
    }

    fn host(value: &str) -> Result<(), HeadError> {
        post(&[("host", value)])
    }

    #[test]
    fn a_host_with_an_optional_port_is_taken() {
        for good in
            ["example.org", "example.org:8080", "192.0.2.1", "[2001:db8::1]", "[::1]:80", "a:"]
        {
            assert_eq!(host(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn a_host_that_is_none_is_refused() {
        for bad in [
            "", " ", "a b", "a/b", "a?b", "a#b", "user@a", "@a", ":80", "a:b", "a:70000", "a:+80",
            "a:80:80", "::1", "[::1", "[::1]x", "http://a", "a, b", "[a]", "[]", "a\\b",
        ] {
            assert_eq!(host(bad), Err(HeadError::HostInvalid), "{bad}");
        }
        let mut parts = head(Version::HTTP_11, "POST", "/webhook", &[]);
        parts.headers.insert(HOST, HeaderValue::from_bytes(b"a\xff").unwrap());
        assert_eq!(check(&parts), Err(HeadError::HostInvalid));
    }

    #[test]
    fn http_1_1_needs_exactly_one_host_and_http_1_0_at_most_one() {
        assert_eq!(post(&[]), Err(HeadError::HostMissing));
        assert_eq!(post(&[("host", "a"), ("host", "a")]), Err(HeadError::HostRepeated));
        let old = |headers| check(&head(Version::HTTP_10, "POST", "/webhook", headers));
        assert_eq!(old(&[]), Ok(()));
        assert_eq!(old(&[("host", "a"), ("host", "b")]), Err(HeadError::HostRepeated));
    }

    #[test]
    fn http_2_has_its_host_in_the_authority_or_in_the_header() {
        let check = |target, headers| check(&head(Version::HTTP_2, "POST", target, headers));
        assert_eq!(check("https://a/webhook", &[]), Ok(()));
        assert_eq!(check("/webhook", &[("host", "a")]), Ok(()));
        assert_eq!(check("/webhook", &[]), Err(HeadError::HostMissing));
        assert_eq!(check("https://a/webhook", &[("host", "b")]), Err(HeadError::HostMismatch));
    }

    #[test]
    fn the_host_of_an_absolute_target_must_be_that_of_the_header() {
        let check =
            |target, host| check(&head(Version::HTTP_11, "POST", target, &[("host", host)]));
        for (target, host) in [
            ("http://a.example/webhook", "A.example"),
            ("http://a.example:80/webhook", "a.example"),
            ("https://a.example/webhook", "a.example:443"),
            ("http://[::1]:8080/webhook", "[::1]:8080"),
        ] {
            assert_eq!(check(target, host), Ok(()), "{target} {host}");
        }
        for (target, host) in [
            ("http://evil/webhook", "a.example"),
            ("http://a.example:81/webhook", "a.example"),
            ("https://a.example:80/webhook", "a.example"),
        ] {
            assert_eq!(check(target, host), Err(HeadError::HostMismatch), "{target} {host}");
        }
        assert_eq!(
            check("http://user@a.example/webhook", "a.example"),
            Err(HeadError::HostInvalid)
        );
    }

    #[test]
    fn only_chunked_is_a_transfer_encoding() {
        let te = |values: &[&str]| {
            let headers: Vec<_> =
                values.iter().map(|value| ("transfer-encoding", *value)).collect();
            post(&[&[("host", "a")], &headers[..]].concat())
        };
        assert_eq!(te(&["chunked"]), Ok(()));
        assert_eq!(te(&["Chunked"]), Ok(()));
        for bad in [
            &["gzip, chunked"][..],
            &["chunked, chunked"],
            &["chunked", "chunked"],
            &["gzip", "chunked"],
            &["chunked,"],
            &["xchunked"],
            &["identity"],
            &[""],
        ] {
            assert_eq!(te(bad), Err(HeadError::TransferEncoding), "{bad:?}");
        }
        let chunked = [("host", "a"), ("transfer-encoding", "chunked")];
        for version in [Version::HTTP_10, Version::HTTP_2] {
            let refused = check(&head(version, "POST", "/webhook", &chunked));
            assert_eq!(refused, Err(HeadError::TransferEncoding), "{version:?}");
        }
    }

    #[test]
    fn connect_and_authority_targets_are_refused_and_other_methods_are_not_our_matter() {
        let check =
            |method, target| check(&head(Version::HTTP_11, method, target, &[("host", "a")]));
        assert_eq!(check("CONNECT", "a:80"), Err(HeadError::Connect));
        assert_eq!(check("GET", "a:80"), Err(HeadError::Target));
        assert_eq!(check("GET", "/"), Ok(()));
        assert_eq!(check("OPTIONS", "*"), Ok(()));
        assert_eq!(check("BREW", "/pot"), Ok(()));
    }

    #[test]
    fn no_upgrade_is_taken_but_an_offer_of_http_2_is_overlooked() {
        let upgrade = |value| post(&[("host", "a"), ("connection", "upgrade"), ("upgrade", value)]);
        assert_eq!(upgrade("websocket"), Err(HeadError::Upgrade));
        assert_eq!(upgrade("h2c, websocket"), Err(HeadError::Upgrade));
        assert_eq!(upgrade(""), Err(HeadError::Upgrade));
        assert_eq!(upgrade("h2c"), Ok(()));
    }

    #[test]
    fn a_path_is_its_bytes() {
        for (target, path) in [
            ("//evil/webhook", "//evil/webhook"),
            ("/a%2fb/../webhook;x=1?/c", "/a%2fb/../webhook;x=1"),
            ("http://a/webhook", "/webhook"),
            ("/webhook#/x", "/webhook"),
        ] {
            let parts = head(Version::HTTP_11, "POST", target, &[("host", "a")]);
            assert_eq!(check(&parts), Ok(()), "{target}");
            assert_eq!(parts.uri.path(), path);
        }
    }

    #[test]
    fn headers_that_could_pass_for_others_are_taken_away_and_only_those() {
        let mut headers = HeaderMap::new();
        for name in [
            "x_forwarded_for",
            "x-forwarded-for",
            "Hookgate-Key",
            "hookgate_key",
            "hookgate.key",
            "hookgate",
            "hookgateway-id",
            "x-hookgate",
            "_",
        ] {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name.clone(), HeaderValue::from_static("1"));
            headers.append(name, HeaderValue::from_static("2"));
        }
        strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["hookgateway-id", "x-forwarded-for", "x-hookgate"]);
        assert_eq!(headers.len(), 6, "what is left keeps all its values");
    }
}
