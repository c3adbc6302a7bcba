//! The client behind proxies, from what these write into a header.
//!
//! 1. The header counts only if the peer of the connection is a trusted proxy. Else the peer is the client,
//!    whatever a header says. A peer without an address, as on a Unix socket, is trusted only if that was said;
//!    who may connect is then for the permissions of the socket.
//! 2. It is read from the right, since each proxy writes whom it saw behind what came in. A hop that is a
//!    trusted proxy is passed over; the first that is none is the client. What stands further left is
//!    whatever that client chose to write, and changes nothing: it is not even parsed.
//! 3. If every hop is a trusted proxy, the first of them is the client.
//! 4. A hop that cannot be read where it matters (garbage, an empty one, `unknown`, an obfuscated name)
//!    leaves the peer as the source. What is left of it is never believed.
//! 5. One header counts, the one that the proxy is known to write. Most proxies hand on what they do not
//!    know, so a second one would be the client's own words.
//! 6. Several lines of the header are one list in their order. At most 32 hops are looked at; of a longer
//!    chain of trusted proxies the peer is the source.
//!
//! Nothing is copied or stored. Sources: [RFC 7239](https://www.rfc-editor.org/rfc/rfc7239) sections 4 to 7,
//! and for `X-Forwarded-For` the documentation of nginx (`real_ip_recursive`), Envoy and HAProxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, HeaderName};

use super::{Networks, Source};

/// The most hops that are looked at.
const MAX_HOPS: usize = 32;

/// The header in which a proxy says whom it saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClientHeader {
    /// `X-Forwarded-For`, which nearly all proxies write.
    #[default]
    XForwardedFor,
    /// `Forwarded` of RFC 7239.
    Forwarded,
}

impl ClientHeader {
    /// The header's name.
    pub const fn name(self) -> HeaderName {
        match self {
            Self::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
            Self::Forwarded => http::header::FORWARDED,
        }
    }
}

/// The proxies whose word counts for who the client is. Nobody is trusted unless he is named.
///
/// ```
/// use hookgate::source::{ClientHeader, Networks, Source, TrustedProxies};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let proxies = TrustedProxies::new(Networks::parse("10.0.0.0/8")?, ClientHeader::XForwardedFor);
/// let mut headers = http::HeaderMap::new();
/// headers.insert("x-forwarded-for", "192.0.2.66, 198.51.100.7".parse()?);
/// let client = |peer: &str| Ok::<_, std::net::AddrParseError>(Some(Source::new(peer.parse()?)));
/// // The proxy wrote the last entry, and its client whatever is before it.
/// assert_eq!(proxies.client(client("10.0.0.1")?, &headers), client("198.51.100.7")?);
/// // Nobody else is believed.
/// assert_eq!(proxies.client(client("203.0.113.5")?, &headers), client("203.0.113.5")?);
/// assert_eq!(proxies.client(None, &headers), None);
/// // Whoever connects to a Unix socket has no address.
/// let proxies = proxies.with_unix(true);
/// assert_eq!(proxies.client(None, &headers), client("198.51.100.7")?);
/// # Ok(())
/// # }
/// ```
///
/// A hop that is a trusted proxy is passed over; if every hop is one, the first of them is the client. A hop
/// that cannot be read where it matters (garbage, an empty one, `unknown`, an obfuscated name), and a chain
/// of more than 32, leave the peer as the source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    proxies: Networks,
    has_unix: bool,
    header: ClientHeader,
}

impl TrustedProxies {
    /// Trusts `proxies`, which say in `header` whom they saw.
    pub fn new(proxies: Networks, header: ClientHeader) -> Self {
        Self { proxies, has_unix: false, header }
    }

    /// Whether peers without an address are trusted as well, such as those on a Unix socket. Default: no.
    ///
    /// Only for an application that knows the address of every other peer.
    #[must_use]
    pub fn with_unix(self, has_unix: bool) -> Self {
        Self { has_unix, ..self }
    }

    /// Whether peers without an address are trusted.
    pub fn has_unix(&self) -> bool {
        self.has_unix
    }

    /// Whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.proxies.is_empty() && !self.has_unix
    }

    /// Who is trusted, of those with an address.
    pub fn proxies(&self) -> &Networks {
        &self.proxies
    }

    /// The header that counts.
    pub fn header(&self) -> ClientHeader {
        self.header
    }

    /// The client of a request that came from `peer`; of `None`, if the peer has no address.
    ///
    /// Costs a look at the header's right end, whatever its length, if the peer is trusted, and one search
    /// if not.
    pub fn client(&self, peer: Option<Source>, headers: &HeaderMap) -> Option<Source> {
        if !peer.map_or(self.has_unix, |peer| self.proxies.contains(peer)) {
            return peer;
        }
        let mut first = peer;
        let mut hops = 0;
        for line in headers.get_all(self.header.name()).iter().rev() {
            let mut rest = Some(line.as_bytes());
            while let Some(list) = rest {
                hops += 1;
                let (before, hop) = match self.header {
                    ClientHeader::XForwardedFor => last_of(list),
                    ClientHeader::Forwarded => match last_element(list) {
                        Some(split) => split,
                        None => return peer,
                    },
                };
                let address = match self.header {
                    ClientHeader::XForwardedFor => node(hop.trim_ascii()),
                    ClientHeader::Forwarded => forwarded_for(hop).and_then(node),
                };
                let Some(address) = address.filter(|_| hops <= MAX_HOPS) else { return peer };
                let hop = Source::new(address);
                first = Some(hop);
                if !self.proxies.contains(hop) {
                    return first;
                }
                rest = before;
            }
        }
        first
    }
}

/// What is before the last comma, and what is behind it.
fn last_of(list: &[u8]) -> (Option<&[u8]>, &[u8]) {
    match list.iter().rposition(|&byte| byte == b',') {
        Some(at) => (Some(&list[..at]), &list[at + 1..]),
        None => (None, list),
    }
}

/// The same for a list whose elements can hold quoted strings; `None` if one has no beginning.
///
/// Read from the right as well: a client that opens a quotation and never closes it would else swallow what
/// the proxy wrote behind it.
fn last_element(list: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let mut is_quoted = false;
    for (at, &byte) in list.iter().enumerate().rev() {
        match byte {
            b'"' if !is_quoted => is_quoted = true,
            // One behind an odd number of backslashes is part of the string.
            b'"' => {
                let slashes = list[..at].iter().rev().take_while(|&&byte| byte == b'\\').count();
                is_quoted = slashes % 2 == 1;
            }
            b',' if !is_quoted => return Some((Some(&list[..at]), &list[at + 1..])),
            _ => {}
        }
    }
    (!is_quoted).then_some((None, list))
}

/// The value of `for` in one element of `Forwarded`, without its quotation marks.
fn forwarded_for(element: &[u8]) -> Option<&[u8]> {
    let mut found = None;
    let mut rest = element;
    loop {
        rest = rest.trim_ascii_start();
        let equals = rest.iter().position(|&byte| matches!(byte, b'=' | b';'))?;
        let (name, value) = (&rest[..equals], rest[equals..].strip_prefix(b"=")?);
        let is_token =
            |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        if name.is_empty() || !name.iter().all(is_token) {
            return None;
        }
        let (value, after) = match value.strip_prefix(b"\"") {
            Some(quoted) => {
                let end = end_of_quotation(quoted)?;
                (&quoted[..end], quoted[end + 1..].trim_ascii_start())
            }
            None => {
                let end = value.iter().position(|&byte| byte == b';').unwrap_or(value.len());
                (value[..end].trim_ascii_end(), &value[end..])
            }
        };
        if name.eq_ignore_ascii_case(b"for") && found.replace(value).is_some() {
            return None;
        }
        match after.strip_prefix(b";") {
            Some(more) => rest = more,
            None if after.is_empty() => return found,
            None => return None,
        }
    }
}

/// Where the quotation mark stands that ends a quoted string.
fn end_of_quotation(text: &[u8]) -> Option<usize> {
    let mut bytes = text.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some(at),
            b'\\' => _ = bytes.next()?,
            _ => {}
        }
    }
    None
}

/// The address of a node: `192.0.2.7`, `192.0.2.7:80`, `[2001:db8::7]`, `[2001:db8::7]:80`, and without
/// brackets where there is no port.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return address.parse::<Ipv6Addr>().ok().filter(|_| is_port).map(IpAddr::V6);
    }
    match text.split_once(':') {
        Some((address, port)) if !port.contains(':') => {
            address.parse::<Ipv4Addr>().ok().filter(|_| is_port(port)).map(IpAddr::V4)
        }
        _ => text.parse().ok(),
    }
}

/// A port, which can be obfuscated.
fn is_port(text: &str) -> bool {
    let is_number = text.parse::<u16>().is_ok() && text.bytes().all(|byte| byte.is_ascii_digit());
    let hidden = text.strip_prefix('_').is_some_and(|rest| !rest.is_empty());
    is_number
        || hidden && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const PEER: &str = "10.0.0.1";

    fn source(address: &str) -> Source {
        Source(address.parse().unwrap())
    }

    fn trusting(header: ClientHeader) -> TrustedProxies {
        let proxies = ["10.0.0.0/8", "2001:db8:aa::/48"];
        TrustedProxies::new(
            proxies.iter().map(|it| it.parse::<Networks>().unwrap()).collect(),
            header,
        )
    }

    fn client_of(header: ClientHeader, peer: &str, lines: &[impl AsRef<[u8]>]) -> Source {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header.name(), HeaderValue::from_bytes(line.as_ref()).unwrap());
        }
        trusting(header).client(Some(source(peer)), &headers).unwrap()
    }

    fn x_forwarded_for(lines: &[&str]) -> String {
        client_of(ClientHeader::XForwardedFor, PEER, lines).to_string()
    }

    fn forwarded(lines: &[&str]) -> String {
        client_of(ClientHeader::Forwarded, PEER, lines).to_string()
    }

    #[test]
    fn nobody_who_is_not_trusted_is_believed() {
        for peer in ["192.0.2.9", "11.0.0.1", "2001:db8:ab::1"] {
            for header in [ClientHeader::XForwardedFor, ClientHeader::Forwarded] {
                let lines = ["for=198.51.100.7", "198.51.100.7"];
                assert_eq!(client_of(header, peer, &lines), source(peer));
            }
        }
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("198.51.100.7"));
        let peer = Some(source(PEER));
        assert_eq!(TrustedProxies::default().client(peer, &headers), peer);
    }

    #[test]
    fn a_peer_without_an_address_is_believed_only_if_that_was_said() {
        for (header, lines, client) in [
            (
                ClientHeader::XForwardedFor,
                "192.0.2.66, 198.51.100.7, 10.2.3.4",
                Some("198.51.100.7"),
            ),
            (ClientHeader::XForwardedFor, "10.9.9.9, 10.2.3.4", Some("10.9.9.9")),
            (ClientHeader::XForwardedFor, "198.51.100.7, unix:", None),
            (ClientHeader::XForwardedFor, "198.51.100.7, garbage", None),
            (ClientHeader::XForwardedFor, "", None),
            (ClientHeader::Forwarded, "for=192.0.2.66, for=198.51.100.7", Some("198.51.100.7")),
            (ClientHeader::Forwarded, "for=198.51.100.7, for=_hidden", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header.name(), HeaderValue::from_static(lines));
            let proxies = trusting(header);
            assert_eq!(proxies.client(None, &headers), None, "{lines}");
            let proxies = proxies.with_unix(true);
            assert_eq!(proxies.client(None, &headers), client.map(source), "{lines}");
            // Nobody else is believed for that.
            let peer = Some(source("192.0.2.9"));
            assert_eq!(proxies.client(peer, &headers), peer, "{lines}");
        }
        let none = HeaderMap::new();
        assert_eq!(trusting(ClientHeader::XForwardedFor).with_unix(true).client(None, &none), None);
        assert!(TrustedProxies::default().is_empty());
        assert!(!TrustedProxies::default().with_unix(true).is_empty());
    }

    #[test]
    fn the_client_is_the_last_hop_that_is_no_trusted_proxy() {
        for (lines, client) in [
            (&["198.51.100.7"][..], "198.51.100.7"),
            (&["192.0.2.66, 198.51.100.7"], "198.51.100.7"),
            (&["192.0.2.66,198.51.100.7 ,10.2.3.4, 2001:db8:aa::5"], "198.51.100.7"),
            (&["192.0.2.66", "198.51.100.7", "10.2.3.4"], "198.51.100.7"),
            (&["198.51.100.7:4711"], "198.51.100.7"),
            (&["2001:db8::7"], "2001:db8::7"),
            (&["[2001:db8::7]"], "2001:db8::7"),
            (&["[2001:db8::7]:4711"], "2001:db8::7"),
            (&["::ffff:198.51.100.7"], "198.51.100.7"),
            (&["192.0.2.66, ::ffff:10.2.3.4, ::ffff:10.2.3.5"], "192.0.2.66"),
            // All of them are trusted: the first.
            (&["10.9.9.9, 10.2.3.4"], "10.9.9.9"),
            (&["garbage, 198.51.100.7"], "198.51.100.7"),
        ] {
            assert_eq!(x_forwarded_for(lines), client, "{lines:?}");
        }
        let mapped = client_of(ClientHeader::XForwardedFor, "::ffff:10.0.0.1", &["198.51.100.7"]);
        assert_eq!(mapped, source("198.51.100.7"));
    }

    #[test]
    fn what_cannot_be_read_where_it_matters_leaves_the_peer() {
        for lines in [
            &[][..],
            &[""],
            &["198.51.100.7,"],
            &["198.51.100.7, "],
            &["198.51.100.7", ""],
            &["198.51.100.7, garbage"],
            &["198.51.100.7, unknown"],
            &["198.51.100.7, unknown, 10.2.3.4"],
            &["198.51.100.7, 10.2.3"],
            &["198.51.100.7:"],
            &["198.51.100.7:99999"],
            &["198.51.100.7:+80"],
            &["198.51.100.7 10.2.3.4"],
            &["2001:db8::7:"],
            &["[2001:db8::7"],
            &["[2001:db8::7]x"],
            &["[198.51.100.7]"],
            &["fe80::1%eth0"],
            &["\"198.51.100.7\""],
            &["unix:"],
        ] {
            assert_eq!(x_forwarded_for(lines), PEER, "{lines:?}");
        }
    }

    #[test]
    fn forwarded_is_read_as_its_rfc_says() {
        for (lines, client) in [
            (&["for=198.51.100.7"][..], "198.51.100.7"),
            (&["For=\"[2001:db8::7]:4711\""], "2001:db8::7"),
            (&["for=\"198.51.100.7:_port\""], "198.51.100.7"),
            (&["for=198.51.100.7;proto=http;by=203.0.113.43"], "198.51.100.7"),
            (&["proto=http; by=\"_a;,b\" ; FOR=\"198.51.100.7\""], "198.51.100.7"),
            (&["for=192.0.2.66, for=198.51.100.7;host=\"a,for=1.2.3.4\""], "198.51.100.7"),
            (&["for=192.0.2.66", "for=198.51.100.7", "for=10.2.3.4;by=10.0.0.1"], "198.51.100.7"),
            (&["for=198.51.100.7;host=\"a\\\"b\", for=10.2.3.4"], "198.51.100.7"),
            (&["for=198.51.100.7;host=\"a\\\\\", for=10.2.3.4"], "198.51.100.7"),
            // As some proxies write it, without the quotation marks.
            (&["for=[2001:db8::7]:4711"], "2001:db8::7"),
            (&["for=_hidden, for=198.51.100.7"], "198.51.100.7"),
            // A quotation that a client opened and did not close.
            (&["for=\"192.0.2.66, for=198.51.100.7"], "198.51.100.7"),
            (&["for=192.0.2.66;host=\"x\\", "for=198.51.100.7"], "198.51.100.7"),
            (&["\"\"\", for=198.51.100.7"], "198.51.100.7"),
        ] {
            assert_eq!(forwarded(lines), client, "{lines:?}");
        }
        for lines in [
            &["for=unknown"][..],
            &["for=_hidden"],
            &["for=198.51.100.7, for=_hidden"],
            &["for=198.51.100.7, for=\"_hidden:80\", for=10.2.3.4"],
            &["for=198.51.100.7, proto=https"],
            &["for=198.51.100.7,"],
            &["for=198.51.100.7;for=192.0.2.66"],
            &["for=198.51.100.7;"],
            &["for=198.51.100.7;;proto=http"],
            &["for=198.51.100.7 x"],
            &["for=\"198.51.100.7\"x"],
            &["for=\"198.51.100.7"],
            &["for=198.51.100.7\""],
            &["for = 198.51.100.7"],
            &["=198.51.100.7"],
            &["198.51.100.7"],
            &["for"],
            &["for="],
            &["for=\"\""],
        ] {
            assert_eq!(forwarded(lines), PEER, "{lines:?}");
        }
    }

    #[test]
    fn only_the_header_that_was_named_counts() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("198.51.100.7"));
        headers.insert("forwarded", HeaderValue::from_static("for=192.0.2.66"));
        let peer = Some(source(PEER));
        let client = |header| trusting(header).client(peer, &headers).unwrap().to_string();
        assert_eq!(client(ClientHeader::XForwardedFor), "198.51.100.7");
        assert_eq!(client(ClientHeader::Forwarded), "192.0.2.66");
    }

    #[test]
    fn of_a_chain_without_end_the_peer_is_the_source() {
        let chain = |hops: usize| format!("198.51.100.7{}", ", 10.2.3.4".repeat(hops - 1));
        assert_eq!(x_forwarded_for(&[&chain(MAX_HOPS)]), "198.51.100.7");
        assert_eq!(x_forwarded_for(&[&chain(MAX_HOPS + 1)]), PEER);
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            Just("for=".to_owned()),
            Just("10.2.3.4".to_owned()),
            Just("198.51.100.9".to_owned()),
            Just("\"".to_owned()),
            Just("\\".to_owned()),
            Just(",".to_owned()),
            Just(";".to_owned()),
            Just("[2001:db8::1]".to_owned()),
            "[ -~]{0,6}",
        ];
        let words =
            proptest::collection::vec(word, 0..12).prop_map(|words| words.concat().into_bytes());
        let bytes = proptest::collection::vec(prop_oneof![32..127_u8, 128..=255_u8], 0..60);
        prop_oneof![words, bytes]
    }

    proptest! {
        /// Whatever a client writes, his proxies write behind it, into the same line or a new one.
        #[test]
        fn what_a_client_writes_to_the_left_changes_nothing(
            written in proptest::collection::vec(value(), 1..4),
            more in 0..3_usize,
            same_line in any::<bool>(),
        ) {
            for (header, own, hop) in [
                (ClientHeader::XForwardedFor, "198.51.100.7", "10.2.3.4"),
                (
                    ClientHeader::Forwarded,
                    "for=198.51.100.7;host=\"a\\\"b,c\"",
                    "for=\"10.2.3.4:80\";by=10.0.0.1",
                ),
            ] {
                let mut lines = written.clone();
                for added in std::iter::once(own).chain(std::iter::repeat_n(hop, more)) {
                    match lines.last_mut() {
                        Some(last) if same_line => last.extend_from_slice(format!(", {added}").as_bytes()),
                        _ => lines.push(added.into()),
                    }
                }
                prop_assert_eq!(client_of(header, PEER, &lines), source("198.51.100.7"));
                prop_assert_eq!(client_of(header, "192.0.2.9", &lines), source("192.0.2.9"));
            }
        }

        #[test]
        fn no_header_makes_it_panic(lines in proptest::collection::vec(value(), 0..5)) {
            for header in [ClientHeader::XForwardedFor, ClientHeader::Forwarded] {
                client_of(header, PEER, &lines);
            }
        }
    }
}
