//! Where a request came from: the address, what counts as one source, and who may come.
//!
//! 1. [`Source`] is the address, and [`Source::network`] what counts as one source for a limit.
//! 2. [`Networks`] is a set of networks, such as those that may call a hook.
//! 3. [`TrustedProxies`] tells the client behind proxies, as far as they can be believed.
//!
//! # What counts as one source
//!
//! A limit with a share per source needs a key that a stranger cannot multiply at no cost. One
//! IPv4 address is such a key. One IPv6 address is not: whoever has one commonly has the 2^64 of
//! its /64 ([RFC 6177](https://www.rfc-editor.org/rfc/rfc6177#section-2)), so the key is the /64.
//! An IPv4 address that comes in IPv6's clothes (`::ffff:192.0.2.1`, as a dual-stack socket has
//! it) is that IPv4 address.

mod networks;
mod proxies;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

pub use networks::{NetworkError, Networks, NetworksFileError};
pub use proxies::{ClientHeader, TrustedProxies};

/// The address that a request came from; an extension of the request.
///
/// Whoever accepts connections puts the peer of the connection there. Behind a load balancer that is the
/// balancer, unless [`TrustedProxies`] told who came to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(pub IpAddr);

impl Source {
    /// The source with this address, an IPv4-mapped one as the IPv4 address that it is.
    pub const fn new(address: IpAddr) -> Self {
        Self(address.to_canonical())
    }

    /// What counts as one source: the IPv4 address, or the /64 of the IPv6 address.
    pub const fn network(self) -> Network {
        match self.0.to_canonical() {
            IpAddr::V6(address) => {
                let prefix = address.to_bits() & (u128::MAX << 64);
                Network(IpAddr::V6(Ipv6Addr::from_bits(prefix)))
            }
            address => Network(address),
        }
    }
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self::new(address)
    }
}

/// The address alone, such as `192.0.2.1`.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.to_canonical().fmt(f)
    }
}

/// One source in the eyes of a limit: an IPv4 address or an IPv6 /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

/// `192.0.2.1`, or `2001:db8::/64`.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(address) => write!(f, "{address}/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str) -> Network {
        Source(address.parse().unwrap()).network()
    }

    #[test]
    fn each_ipv4_address_is_a_source_of_its_own() {
        assert_eq!(network("192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("192.0.2.1").to_string(), "192.0.2.1");
    }

    #[test]
    fn the_addresses_of_an_ipv6_64_are_one_source_and_their_neighbours_another() {
        assert_eq!(network("2001:db8:0:1::1"), network("2001:db8:0:1:ffff:ffff:ffff:ffff"));
        assert_ne!(network("2001:db8:0:1::1"), network("2001:db8:0:2::1"));
        assert_eq!(network("2001:db8:0:1::1").to_string(), "2001:db8:0:1::/64");
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_that_ipv4_address() {
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(Source(mapped).network(), network("192.0.2.1"));
        assert_ne!(Source(mapped).network(), network("::ffff:192.0.2.2"));
        assert_eq!(Source::from(mapped), Source("192.0.2.1".parse().unwrap()));
        assert_eq!(Source(mapped).to_string(), "192.0.2.1");
    }
}
