//! Sets of networks, as an operator lists them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Source;

/// The most networks that one set is read from. No published list of a git host or a cloud is near that.
const MAX_NETWORKS: usize = 65_536;
/// How long the prefix of an IPv6 network is that holds every IPv4-mapped address and nothing else.
const MAPPED_PREFIX: u8 = 96;

/// A set of networks: single addresses and CIDR blocks, of IPv4 and IPv6.
///
/// An IPv4 address that comes in IPv6's clothes is that IPv4 address, in the set (`::ffff:192.0.2.0/120` is
/// `192.0.2.0/24`) and in what is looked up. Beyond that the families are apart: `::/0` is every IPv6
/// address and no IPv4 address. Addresses of a translator (NAT64's `64:ff9b::/96`) are the IPv6 addresses
/// that they are.
///
/// A lookup costs a binary search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// First and last address of each range, in order, apart from each other.
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Networks {
    /// One network: an address, or a CIDR block such as `192.0.2.0/24` or `2001:db8::/32`.
    ///
    /// # Errors
    ///
    /// [`NetworkError`] for anything else, and for a block with bits beyond its prefix (`192.0.2.1/24`), of
    /// which nobody can tell whether the address or the block was meant.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        Ok(Self::of([parse(text)?]))
    }

    /// This machine alone: `127.0.0.0/8` and `::1`.
    pub fn loopback() -> Self {
        let v4 = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
        Self::of([IpNet::V4(v4), IpNet::V6(Ipv6Net::from(Ipv6Addr::LOCALHOST))])
    }

    /// The networks of a file: one a line, `#` begins a comment.
    ///
    /// # Errors
    ///
    /// [`NetworksFileError`] for the first line that is wrong, and for a file without any network: one that
    /// was emptied by mistake must not be taken for a list.
    pub fn parse_file(content: &[u8]) -> Result<Self, NetworksFileError> {
        let error = |line, kind| NetworksFileError { line, kind };
        let mut networks = Vec::new();
        for (number, line) in content.split(|&byte| byte == b'\n').enumerate() {
            let line = line.split(|&byte| byte == b'#').next().unwrap_or_default().trim_ascii();
            if line.is_empty() {
                continue;
            }
            let parsed = std::str::from_utf8(line).map_err(|_| NetworkError::Neither);
            let parsed = parsed.and_then(parse);
            networks.push(parsed.map_err(|kind| error(number + 1, Some(kind)))?);
            if networks.len() > MAX_NETWORKS {
                return Err(error(number + 1, None));
            }
        }
        if networks.is_empty() {
            return Err(error(1, None));
        }
        Ok(Self::of(networks))
    }

    /// Whether `source` is within one of the networks.
    pub fn contains(&self, source: Source) -> bool {
        match source.0.to_canonical() {
            IpAddr::V4(address) => holds(&self.v4, address.to_bits()),
            IpAddr::V6(address) => holds(&self.v6, address.to_bits()),
        }
    }

    /// Whether there is no network.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether every address of `other` is within this set too.
    pub fn covers(&self, other: &Self) -> bool {
        covers(&self.v4, &other.v4) && covers(&self.v6, &other.v6)
    }

    fn of(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match canonical(network) {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Self { v4: merged(v4), v6: merged(v6) }
    }
}

/// Every address that one of the sets has.
impl FromIterator<Self> for Networks {
    fn from_iter<I: IntoIterator<Item = Self>>(sets: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for set in sets {
            v4.extend(set.v4);
            v6.extend(set.v6);
        }
        Self { v4: merged(v4), v6: merged(v6) }
    }
}

impl FromStr for Networks {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        Self::parse(text)
    }
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetworkError {
    /// It is neither an address nor a CIDR block.
    Neither,
    /// A CIDR block with bits set beyond its prefix.
    BitsBeyondPrefix,
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Neither => {
                "expected an address or a block such as \"192.0.2.7\", \"192.0.2.0/24\" or \"2001:db8::/32\""
            }
            Self::BitsBeyondPrefix => {
                "the address has bits beyond the prefix: write the first address of the block, or the address alone"
            }
        })
    }
}

impl std::error::Error for NetworkError {}

/// Why a file is no list of networks. It repeats nothing of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworksFileError {
    line: usize,
    /// None for too many, or none.
    kind: Option<NetworkError>,
}

impl NetworksFileError {
    /// The line, from 1.
    pub fn line(&self) -> usize {
        self.line
    }
}

impl fmt::Display for NetworksFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Some(kind) => write!(f, "line {}: {kind}", self.line),
            None if self.line > 1 => write!(f, "more than {MAX_NETWORKS} networks"),
            None => f.write_str("no network: a list of nothing is not taken"),
        }
    }
}

impl std::error::Error for NetworksFileError {}

fn parse(text: &str) -> Result<IpNet, NetworkError> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse().map_err(|_| NetworkError::Neither)?,
    };
    if network.addr() != network.network() {
        return Err(NetworkError::BitsBeyondPrefix);
    }
    Ok(network)
}

/// A network of IPv4-mapped addresses as that of the IPv4 addresses.
fn canonical(network: IpNet) -> IpNet {
    match network {
        IpNet::V6(net) if net.prefix_len() >= MAPPED_PREFIX => {
            let mapped = net.network().to_ipv4_mapped();
            let v4 = mapped.and_then(|address: Ipv4Addr| {
                Ipv4Net::new(address, net.prefix_len() - MAPPED_PREFIX).ok()
            });
            v4.map_or(network, IpNet::V4)
        }
        _ => network,
    }
}

/// The ranges in order, those that overlap as one.
fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= *end => *end = (*end).max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn holds<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|&(first, _)| first <= address);
    after.checked_sub(1).is_some_and(|at| address <= ranges[at].1)
}

/// Ranges that only touch are two, so this can miss what they hold together; it never says too much.
fn covers<T: Ord + Copy>(ranges: &[(T, T)], others: &[(T, T)]) -> bool {
    others.iter().all(|&(first, last)| {
        let after = ranges.partition_point(|&(other, _)| other <= first);
        after.checked_sub(1).is_some_and(|at| last <= ranges[at].1)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(networks: &[&str]) -> Networks {
        networks.iter().map(|text| text.parse::<Networks>().unwrap()).collect()
    }

    fn source(address: &str) -> Source {
        Source(address.parse().unwrap())
    }

    #[test]
    fn an_address_is_in_a_set_from_the_first_of_a_network_to_its_last_and_no_further() {
        let set = set(&["192.0.2.7", "198.51.100.0/24", "2001:db8::/32", "2001:db9::1"]);
        for inside in [
            "192.0.2.7",
            "198.51.100.0",
            "198.51.100.255",
            "2001:db8::",
            "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
            "2001:db9::1",
        ] {
            assert!(set.contains(source(inside)), "{inside}");
        }
        for outside in [
            "192.0.2.6",
            "192.0.2.8",
            "198.51.99.255",
            "198.51.101.0",
            "2001:db7::",
            "2001:db9::",
            "2001:db9::2",
        ] {
            assert!(!set.contains(source(outside)), "{outside}");
        }
        assert!(!Networks::default().contains(source("192.0.2.7")));
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_that_ipv4_address_on_both_sides() {
        for network in ["192.0.2.0/24", "::ffff:192.0.2.0/120", "::ffff:c000:200/120"] {
            let set = set(&[network]);
            for inside in ["192.0.2.1", "::ffff:192.0.2.1"] {
                assert!(set.contains(source(inside)), "{network} {inside}");
            }
            for outside in ["192.0.3.1", "::ffff:192.0.3.1", "::192.0.2.1", "64:ff9b::192.0.2.1"] {
                assert!(!set.contains(source(outside)), "{network} {outside}");
            }
        }
    }

    #[test]
    fn each_family_is_apart_also_where_all_of_it_is_meant() {
        let (all_v4, all_v6) = (set(&["0.0.0.0/0"]), set(&["::/0"]));
        for v4 in ["0.0.0.0", "255.255.255.255", "::ffff:192.0.2.1"] {
            assert!(all_v4.contains(source(v4)) && !all_v6.contains(source(v4)), "{v4}");
        }
        for v6 in ["::", "::1", "64:ff9b::192.0.2.1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
            assert!(all_v6.contains(source(v6)) && !all_v4.contains(source(v6)), "{v6}");
        }
        assert_eq!(set(&["::ffff:0:0/96"]), all_v4);
    }

    #[test]
    fn this_machine_is_loopback_and_nothing_else() {
        let loopback = Networks::loopback();
        for inside in ["127.0.0.1", "127.8.9.1", "::ffff:127.0.0.1", "::1"] {
            assert!(loopback.contains(source(inside)), "{inside}");
        }
        for outside in ["126.255.255.255", "128.0.0.0", "10.0.0.1", "::", "::2", "::127.0.0.1"] {
            assert!(!loopback.contains(source(outside)), "{outside}");
        }
    }

    #[test]
    fn what_is_no_network_is_an_error() {
        for wrong in [
            "",
            " ",
            "192.0.2",
            "192.0.2.0/",
            "192.0.2.0/33",
            "192.0.2.0/-1",
            "/24",
            "::/129",
            "example.com",
            "192.0.2.1:80",
            "[::1]",
            "fe80::1%eth0",
            "192.0.2.0/255.255.255.0",
            "0x7f.1",
            "192.0.2.010",
            "192.0.2.0/24 ",
            "*",
        ] {
            assert_eq!(Networks::parse(wrong), Err(NetworkError::Neither), "{wrong}");
        }
        for wrong in ["192.0.2.1/24", "2001:db8::1/32", "10.0.0.1/0"] {
            assert_eq!(Networks::parse(wrong), Err(NetworkError::BitsBeyondPrefix), "{wrong}");
        }
    }

    #[test]
    fn a_file_has_a_network_a_line_and_tells_which_line_is_wrong() {
        let text = b"# of the host\r\n192.0.2.0/24 # hooks\n\n  2001:db8::/32\n::1";
        let set = Networks::parse_file(text).unwrap();
        for inside in ["192.0.2.1", "2001:db8::1", "::1"] {
            assert!(set.contains(source(inside)), "{inside}");
        }
        let error = |text: &[u8]| Networks::parse_file(text).unwrap_err();
        let wrong = error(b"192.0.2.1\n\ncanary\n");
        assert_eq!(wrong.line(), 3);
        assert!(wrong.to_string().starts_with("line 3: ") && !wrong.to_string().contains("canary"));
        for empty in [&b""[..], b"\n\n", b"# nothing\n"] {
            assert!(error(empty).to_string().starts_with("no network"));
        }
        assert_eq!(error(b"192.0.2.1\n\xff\xfe\n").line(), 2);
        let many: String = (0..=MAX_NETWORKS)
            .map(|n| format!("2001:db8::{:x}:{:x}\n", n >> 16, n & 0xffff))
            .collect();
        assert!(error(many.as_bytes()).to_string().starts_with("more than"));
    }

    #[test]
    fn a_set_covers_another_if_it_has_all_of_its_addresses() {
        let wide = set(&["192.0.2.0/24", "2001:db8::/32"]);
        assert!(wide.covers(&set(&["192.0.2.128/25", "2001:db8:1::/48"])) && wide.covers(&wide));
        for other in [&["192.0.2.0/23"][..], &["192.0.2.1", "10.0.0.1"], &["2001:db9::1"]] {
            assert!(!wide.covers(&set(other)), "{other:?}");
        }
    }

    proptest! {
        /// The same as asking each network by itself.
        #[test]
        fn a_set_holds_what_one_of_its_networks_holds(
            networks in proptest::collection::vec((any::<u8>(), 24..=32_u8), 0..12),
            addresses in proptest::collection::vec((0..=1_u8, any::<u8>()), 1..40),
        ) {
            let nets: Vec<_> = networks
                .iter()
                .map(|&(last, prefix)| Ipv4Net::new(Ipv4Addr::new(192, 0, 2, last), prefix).unwrap().trunc())
                .collect();
            let set = Networks::of(nets.iter().copied().map(IpNet::V4));
            for (third, last) in addresses {
                let address = Ipv4Addr::new(192, 0, 2 + third, last);
                let expected = nets.iter().any(|net| net.contains(&address));
                prop_assert_eq!(set.contains(Source(IpAddr::V4(address))), expected);
                prop_assert_eq!(set.contains(Source(IpAddr::V6(address.to_ipv6_mapped()))), expected);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Networks::parse(&text);
            let _ = Networks::parse_file(&bytes);
        }
    }
}
