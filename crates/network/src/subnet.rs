//! IPv4 address ranges, and which of them are free.

use std::{fmt, net::Ipv4Addr};

/// A range of addresses: those that share the first `prefix` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subnet {
    base: u32,
    prefix: u8,
}

impl Subnet {
    /// `None` for a prefix that IPv4 does not have.
    pub(crate) fn of(address: Ipv4Addr, prefix: u8) -> Option<Subnet> {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        (prefix <= 32).then(|| Subnet { base: address.to_bits() & mask, prefix })
    }

    pub(crate) fn prefix(self) -> u8 {
        self.prefix
    }

    /// Address by its number in the range; zero is the range's own.
    pub(crate) fn address(self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base + number)
    }

    /// How many addresses it has.
    pub(crate) fn size(self) -> u32 {
        1u32.checked_shl(32 - u32::from(self.prefix)).unwrap_or(u32::MAX)
    }

    pub(crate) fn contains(self, address: Ipv4Addr) -> bool {
        Subnet::of(address, self.prefix) == Some(self)
    }

    fn overlaps(self, other: Subnet) -> bool {
        if self.prefix <= other.prefix { self.contains(other.address(0)) } else { other.contains(self.address(0)) }
    }

    pub(crate) fn is_free(self, known: &[Subnet]) -> bool {
        !known.iter().any(|other| self.overlaps(*other))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(0), self.prefix)
    }
}

/// Ranges for bridges, in order. They exist in a scope's own namespace only, so scopes may use the same ones; what the
/// host has routes to is left out, so that containers can reach it. 172.17–31 and 192.168 are docker's, 10.88 is podman's.
pub(crate) fn for_bridges() -> impl Iterator<Item = Subnet> {
    (0..256).filter_map(|number| Subnet::of(Ipv4Addr::from_bits(BRIDGES.to_bits() + (number << 12)), 20))
}

const BRIDGES: Ipv4Addr = Ipv4Addr::new(10, 231, 0, 0);

/// Ranges of four addresses for the way out, which are unique on the host; beginning at a place that `seed` chooses, so
/// that runs seldom try the same.
pub(crate) fn for_uplinks(seed: u32) -> impl Iterator<Item = Subnet> {
    (0..UPLINKS_TRIED).filter_map(move |number| {
        let place = seed.wrapping_add(number) % UPLINK_COUNT;
        Subnet::of(Ipv4Addr::from_bits(UPLINKS.to_bits() + place * 4), 30)
    })
}

const UPLINKS: Ipv4Addr = Ipv4Addr::new(10, 230, 0, 0);
const UPLINK_COUNT: u32 = 16_384;
/// More runs than a machine has room for.
const UPLINKS_TRIED: u32 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        let (address, prefix) = text.split_once('/').unwrap();
        Subnet::of(address.parse().unwrap(), prefix.parse().unwrap()).unwrap()
    }

    #[test]
    fn ranges_that_the_host_uses_are_left_out() {
        let first = |known: &[&str]| {
            let known: Vec<Subnet> = known.iter().map(|text| subnet(text)).collect();
            for_bridges().find(|subnet| subnet.is_free(&known)).map(|subnet| subnet.to_string())
        };
        assert_eq!(first(&[]).as_deref(), Some("10.231.0.0/20"));
        assert_eq!(first(&["10.231.3.0/24", "10.231.16.7/32"]).as_deref(), Some("10.231.32.0/20"));
        assert_eq!(first(&["10.231.0.0/16"]).as_deref(), Some("10.232.0.0/20"));
        assert_eq!(first(&["10.0.0.0/8"]), None);
        assert_eq!(first(&["0.0.0.0/0"]), None);
    }

    #[test]
    fn uplinks_differ() {
        let all: std::collections::HashSet<String> = for_uplinks(16_000).map(|subnet| subnet.to_string()).collect();
        assert_eq!(all.len(), 4_096);
        assert!(all.iter().all(|text| text.starts_with("10.230.") && text.ends_with("/30")));
    }
}
