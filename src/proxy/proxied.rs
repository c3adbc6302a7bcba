//! The [PROXY protocol](https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt): the header with which a
//! proxy of connections says who is at their other end.
//!
//! 1. **Only from proxies that are named**, which is for the listener to see to. Whoever may send the header says
//!    who he is.
//! 2. **Required, never guessed.** If both were taken, a client that reaches the port without the proxy could
//!    write the header itself, and the other way round a proxy that forgets it would make all its clients one.
//! 3. **Nothing behind the header is read**, since what follows may be TLS. A byte that cannot begin one ends it
//!    at once. A line of version 1 has at most 107 bytes; a header of version 2 may have up to [`MAX_HEADER`].
//! 4. `UNKNOWN`, `LOCAL` (a check of the proxy itself), and what is not from an IP address, leave the peer as it
//!    is.
//! 5. TLVs are not used, but must be well formed.
//!
//! The crate `proxy-header` says what a header means. Where one ends is found here, so that it sees whole ones
//! alone.

use std::fmt;
use std::io;
use std::net::IpAddr;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The most bytes of a header: 4 KiB. What proxies send has some 100.
pub const MAX_HEADER: usize = 4 << 10;

/// The longest line of version 1.
const MAX_LINE: usize = 107;

/// The shortest one: `PROXY UNKNOWN\r\n`. So many bytes belong to the header in either version.
const SHORTEST: usize = 15;

/// What version 2 needs to tell its length.
const FIXED: usize = 16;

/// What version 1 begins with, and version 2.
const LINE: &[u8] = b"PROXY ";
const BLOCK: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, and a check of the proxy itself.
const LOCAL: u8 = 0x20;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The client's address.
    Client(IpAddr),
    /// Nothing: the peer is the client.
    Peer,
}

/// Reads the header, and not a byte more.
///
/// # Errors
///
/// See [`HeaderErrorKind`]. There is no time limit here.
///
/// # Cancel safety
///
/// None: what was read is lost.
pub async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> Result<Header, HeaderError> {
    let mut header = Vec::with_capacity(MAX_LINE);
    while header.len() < SHORTEST {
        more(stream, &mut header, SHORTEST).await?;
        if !can_begin(&header) {
            return Err(HeaderErrorKind::Malformed.into());
        }
    }
    if header.starts_with(LINE) {
        // By single bytes, since nobody can say what comes behind the line.
        while !header.ends_with(b"\r\n") {
            if header.len() == MAX_LINE {
                return Err(HeaderErrorKind::TooLarge.into());
            }
            let next = header.len() + 1;
            more(stream, &mut header, next).await?;
        }
        return parse(&header);
    }
    while header.len() < FIXED {
        more(stream, &mut header, FIXED).await?;
    }
    let length = FIXED + usize::from(u16::from_be_bytes([header[FIXED - 2], header[FIXED - 1]]));
    if length > MAX_HEADER {
        return Err(HeaderErrorKind::TooLarge.into());
    }
    while header.len() < length {
        more(stream, &mut header, length).await?;
    }
    parse(&header)
}

/// Reads something, up to `length` bytes in all.
async fn more(
    stream: &mut (impl AsyncRead + Unpin),
    header: &mut Vec<u8>,
    length: usize,
) -> Result<(), HeaderError> {
    let room = (length - header.len()) as u64;
    match stream.take(room).read_buf(header).await {
        Ok(0) if header.is_empty() => Err(HeaderErrorKind::Nothing.into()),
        Ok(0) => Err(HeaderErrorKind::Malformed.into()),
        Ok(_) => Ok(()),
        Err(cause) => Err(HeaderError { kind: HeaderErrorKind::Io, cause: Some(cause) }),
    }
}

/// Whether these first bytes can be those of a header.
fn can_begin(bytes: &[u8]) -> bool {
    [LINE, BLOCK].iter().any(|start| bytes.iter().zip(*start).all(|(a, b)| a == b))
}

/// What a whole header says.
fn parse(header: &[u8]) -> Result<Header, HeaderError> {
    let malformed = HeaderErrorKind::Malformed;
    // Whatever else stands in these two is to be passed over.
    if let Some(rest) = header.strip_prefix(b"PROXY UNKNOWN") {
        let is_word = rest.starts_with(b" ") || rest.starts_with(b"\r");
        return if is_word { Ok(Header::Peer) } else { Err(malformed.into()) };
    }
    if header.starts_with(BLOCK) && header.get(BLOCK.len()) == Some(&LOCAL) {
        return Ok(Header::Peer);
    }
    let parsed = ProxyHeader::parse(header, ParseConfig::default());
    let (parsed, length) = parsed.map_err(|_| malformed)?;
    if length != header.len() || parsed.tlvs().any(|tlv| tlv.is_err()) {
        return Err(malformed.into());
    }
    match parsed.proxied_address() {
        Some(address) if address.protocol == Protocol::Stream => {
            Ok(Header::Client(address.source.ip()))
        }
        Some(_) => Err(malformed.into()),
        None => Ok(Header::Peer),
    }
}

/// The error of [`read_header`].
#[derive(Debug)]
pub struct HeaderError {
    kind: HeaderErrorKind,
    cause: Option<io::Error>,
}

/// What kind of [`HeaderError`] it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderErrorKind {
    /// The connection ended before its first byte.
    Nothing,
    /// What came is no header, or not a whole one.
    Malformed,
    /// The header is too long.
    TooLarge,
    /// The connection failed.
    Io,
}

impl HeaderError {
    /// What kind it is.
    pub const fn kind(&self) -> HeaderErrorKind {
        self.kind
    }
}

impl From<HeaderErrorKind> for HeaderError {
    fn from(kind: HeaderErrorKind) -> Self {
        Self { kind, cause: None }
    }
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            HeaderErrorKind::Nothing => "closed before a PROXY header",
            HeaderErrorKind::Malformed => "no PROXY header, or a malformed one",
            HeaderErrorKind::TooLarge => "the PROXY header is too long",
            HeaderErrorKind::Io => "the connection failed within the PROXY header",
        })
    }
}

impl std::error::Error for HeaderError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use proptest::prelude::*;
    use tokio::io::ReadBuf;

    use super::*;

    /// Gives at most `step` bytes at a time.
    struct Pieces<'a> {
        rest: &'a [u8],
        step: usize,
    }

    impl AsyncRead for Pieces<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let (piece, rest) =
                self.rest.split_at(self.step.min(self.rest.len()).min(buf.remaining()));
            buf.put_slice(piece);
            self.rest = rest;
            Poll::Ready(Ok(()))
        }
    }

    /// What is read, and what is left.
    fn read(bytes: &[u8], step: usize) -> (Result<Header, HeaderErrorKind>, &[u8]) {
        let mut stream = Pieces { rest: bytes, step };
        let result = {
            let future = std::pin::pin!(read_header(&mut stream));
            future.poll(&mut Context::from_waker(std::task::Waker::noop()))
        };
        let Poll::Ready(result) = result else { panic!("nothing to wait for") };
        (result.map_err(|error| error.kind()), stream.rest)
    }

    /// The same in pieces of every size; nothing behind the header is read.
    fn header(bytes: &[u8]) -> Result<Header, HeaderErrorKind> {
        let mut with_more = bytes.to_vec();
        with_more.extend_from_slice(b"\x16\x03\x01");
        let (whole, rest) = read(&with_more, usize::MAX);
        if whole.is_ok() {
            assert_eq!(rest, b"\x16\x03\x01");
        }
        for step in 1..=17 {
            let (pieces, left) = read(&with_more, step);
            assert_eq!(pieces, whole, "in pieces of {step}");
            assert!(pieces.is_err() || left == rest, "in pieces of {step}");
        }
        whole
    }

    fn client(address: &str) -> Result<Header, HeaderErrorKind> {
        Ok(Header::Client(address.parse().unwrap()))
    }

    fn block(kind: [u8; 2], addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [BLOCK, &kind, &length, addresses].concat()
    }

    const V4: &[u8] = &[192, 0, 2, 7, 127, 0, 0, 1, 0x30, 0x39, 0x01, 0xbb];

    fn v6() -> Vec<u8> {
        let mut addresses = vec![0; 36];
        addresses[..2].copy_from_slice(&[0x20, 0x01]);
        addresses[15] = 7;
        addresses
    }

    #[test]
    fn a_line_tells_the_client() {
        assert_eq!(header(b"PROXY TCP4 192.0.2.7 127.0.0.1 1 443\r\n"), client("192.0.2.7"));
        assert_eq!(header(b"PROXY TCP6 2001:db8::7 ::1 65535 443\r\n"), client("2001:db8::7"));
        let longest = b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
            ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        assert!(matches!(header(longest), Ok(Header::Client(_))));
    }

    #[test]
    fn a_block_tells_the_client_whatever_stands_behind_it() {
        assert_eq!(header(&block([0x21, 0x11], V4)), client("192.0.2.7"));
        assert_eq!(header(&block([0x21, 0x21], &v6())), client("2001::7"));
        let tlvs: &[u8] = &[0xe0, 0, 2, 1, 2, 0x04, 0, 0];
        assert_eq!(header(&block([0x21, 0x11], &[V4, tlvs].concat())), client("192.0.2.7"));
        let room = [&[0xe0, 0x0f, 0xe1][..], &[0; 0xfe1]].concat();
        let largest = block([0x21, 0x11], &[V4, &room].concat());
        assert_eq!((largest.len(), header(&largest)), (MAX_HEADER, client("192.0.2.7")));
    }

    #[test]
    fn what_has_no_client_leaves_the_peer_as_it_is() {
        for line in [
            &b"PROXY UNKNOWN\r\n"[..],
            b"PROXY UNKNOWN 192.0.2.7 127.0.0.1 1 443\r\n",
            b"PROXY UNKNOWN whatever else there is to be said here by a proxy\r\n",
        ] {
            assert_eq!(header(line), Ok(Header::Peer), "{line:?}");
        }
        for block in [
            block([0x20, 0x00], b""),
            block([0x20, 0x11], V4),
            block([0x20, 0xff], b"whatever"),
            block([0x21, 0x00], b""),
            block([0x21, 0x31], &[0; 216]),
        ] {
            assert_eq!(header(&block), Ok(Header::Peer), "{block:?}");
        }
    }

    #[test]
    fn what_is_no_header_is_malformed() {
        for bytes in [
            &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"\r\n\r\nGET / HTTP/1.1\r\n",
            b"proxy TCP4 192.0.2.7 127.0.0.1 1 443\r\n",
            b"PROXY\tTCP4 192.0.2.7 127.0.0.1 1 443\r\n",
            b"PROXY  TCP4 192.0.2.7 127.0.0.1 1 443\r\n",
            b"PROXY TCP4 192.0.2.7 127.0.0.1 1\r\n",
            b"PROXY TCP4 192.0.2.7 127.0.0.1 1 443 \r\n",
            b"PROXY TCP4 192.0.2.7 127.0.0.1 1 70000\r\n",
            b"PROXY TCP4 192.0.2.256 127.0.0.1 1 443\r\n",
            b"PROXY TCP4 2001:db8::7 ::1 1 443\r\n",
            b"PROXY TCP6 192.0.2.7 127.0.0.1 1 443\r\n",
            b"PROXY TCP5 192.0.2.7 127.0.0.1 1 443\r\n",
            b"PROXY UNKNOWNX 192.0.2.7 127.0.0.1\r\n",
            b"PROXY TCP4 192.0.2.7 127.0.0.1 1 443\rX\r\n",
            b"PROXY TCP4 \xff 127.0.0.1 1 443\r\n",
            &block([0x11, 0x11], V4),
            &block([0x22, 0x11], V4),
            &block([0x21, 0x12], V4),
            &block([0x21, 0x41], V4),
            &block([0x21, 0x11], &V4[..11]),
            &block([0x21, 0x21], V4),
            &block([0x21, 0x31], &[0; 215]),
            &block([0x21, 0x11], &[V4, &[0xe0, 0, 3, 1, 2]].concat()),
            &block([0x21, 0x11], &[V4, &[0xe0, 0]].concat()),
        ] {
            assert_eq!(header(bytes), Err(HeaderErrorKind::Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn what_has_no_end_is_too_large_and_not_read_on() {
        let line = [LINE, &[b'1'; 300]].concat();
        assert_eq!(header(&line), Err(HeaderErrorKind::TooLarge));
        assert_eq!(read(&line, usize::MAX).1.len(), line.len() - MAX_LINE);
        let claim = [BLOCK, &[0x21, 0x11, 0x0f, 0xf1], &[0; 9000]].concat();
        assert_eq!(header(&claim), Err(HeaderErrorKind::TooLarge));
        assert_eq!(read(&claim, usize::MAX).1.len(), 9000);
    }

    #[test]
    fn a_header_that_is_cut_is_malformed_and_an_empty_connection_is_nothing() {
        assert_eq!(read(b"", 1).0, Err(HeaderErrorKind::Nothing));
        let whole = [b"PROXY TCP4 192.0.2.7 127.0.0.1 1 443\r\n".to_vec(), block([0x21, 0x11], V4)];
        for whole in whole {
            assert!(read(&whole, 3).0.is_ok());
            for end in 1..whole.len() {
                assert_eq!(read(&whole[..end], 3).0, Err(HeaderErrorKind::Malformed), "{end}");
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_answered_without_a_panic(
            start in prop_oneof![Just(LINE), Just(BLOCK), Just(&b""[..])],
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            step in 1_usize..40,
        ) {
            let bytes = [start, &bytes].concat();
            let (result, rest) = read(&bytes, step);
            prop_assert!(bytes.len() - rest.len() <= MAX_HEADER);
            prop_assert_eq!(read(&bytes, usize::MAX).0, result);
        }

        #[test]
        fn a_header_that_was_written_is_read(address: IpAddr, port: u16, two: bool) {
            let family = if address.is_ipv4() { "TCP4" } else { "TCP6" };
            let destination = if address.is_ipv4() { "127.0.0.1" } else { "::1" };
            let line = format!("PROXY {family} {address} {destination} {port} 443\r\n");
            let bytes = match address {
                _ if !two => line.into_bytes(),
                IpAddr::V4(address) => {
                    block([0x21, 0x11], &[&address.octets()[..], &[0; 8]].concat())
                }
                IpAddr::V6(address) => {
                    block([0x21, 0x21], &[&address.octets()[..], &[0; 20]].concat())
                }
            };
            prop_assert_eq!(header(&bytes), Ok(Header::Client(address)));
        }
    }
}
