//! Who is in which network under which names.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    os::fd::{AsFd, OwnedFd},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    networks::{AddressRange, Join},
    subnet::Subnet,
};

/// A network: a bridge with a range of addresses.
#[derive(Debug)]
pub(crate) struct Bridge {
    pub(crate) name: String,
    pub(crate) subnet: Subnet,
    pub(crate) internal: bool,
    gateway: Ipv4Addr,
    /// The part that addresses are given from.
    pool: Subnet,
    /// Given to those only who ask for them.
    reserved: Vec<Ipv4Addr>,
}

impl Bridge {
    pub(crate) fn new(name: &str, subnet: Subnet, internal: bool) -> Self {
        let gateway = subnet.address(1);
        Self { name: name.to_owned(), subnet, internal, gateway, pool: subnet, reserved: Vec::new() }
    }

    /// With the addresses that somebody wants it to have.
    ///
    /// # Errors
    /// Why that cannot be.
    pub(crate) fn within(join: &Join, range: &AddressRange) -> Result<Self, String> {
        let of = |(address, prefix): (Ipv4Addr, u8)| {
            Subnet::of(address, prefix).ok_or_else(|| format!("{address}/{prefix} is no range of addresses"))
        };
        let subnet = of(range.subnet)?;
        // Room for the range's own, the gateway's, one for a container, and the last one, which is everybody's; and no more
        // than the largest private range has (RFC 1918).
        if !(8..=30).contains(&subnet.prefix()) {
            return Err(format!("{subnet} is no range for containers: from /8 to /30"));
        }
        let pool = range.pool.map_or(Ok(subnet), of)?;
        if pool.prefix() < subnet.prefix() {
            return Err(format!("{pool} is not a part of {subnet}"));
        }
        let gateway = range.gateway.unwrap_or(subnet.address(1));
        if let Some(outside) = [pool.address(0), gateway].iter().find(|address| !subnet.contains(**address)) {
            return Err(format!("{outside} is not in {subnet}"));
        }
        let bridge = Self::new(&join.network, subnet, join.internal);
        Ok(Self { gateway, pool, reserved: range.reserved.clone(), ..bridge })
    }

    /// Our own address, where containers find the name server and the way out.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// Whether a container may have it.
    fn offers(&self, address: Ipv4Addr) -> bool {
        let (first, last) = (self.subnet.address(0), self.subnet.address(self.subnet.size() - 1));
        self.subnet.contains(address) && ![first, last, self.gateway].contains(&address)
    }
}

/// Where a new member is to be.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    /// Index of the bridge.
    pub(crate) bridge: usize,
    /// `None`: a free one.
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) names: Vec<String>,
}

/// A container, or what is going to be one.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) places: Vec<Place>,
    /// Readable when its process has ended; absent before it starts.
    alive: Option<OwnedFd>,
}

/// A member in one network.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Index of the bridge.
    pub(crate) bridge: usize,
    pub(crate) address: Ipv4Addr,
    /// In lower case.
    names: Vec<String>,
}

impl Member {
    fn is_alive(&self) -> bool {
        let Some(process) = &self.alive else { return false };
        let mut fds = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        !matches!(poll(&mut fds, Some(&now)), Ok(count) if count > 0)
    }
}

/// All bridges and members of a scope.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) bridges: Vec<Bridge>,
    members: HashMap<u64, Member>,
    next: u64,
    turn: usize,
}

/// What a name server says about a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer<T> {
    Known(T),
    /// To be asked of the host's name servers.
    Outside,
    /// There is nobody to ask.
    Unknown,
}

impl Names {
    /// A new member with an address in each of the bridges, under the names that it has there.
    ///
    /// # Errors
    /// A range is used up, or the address that is wanted cannot be had: in words.
    pub(crate) fn add(&mut self, name: &str, seats: Vec<Seat>) -> Result<u64, String> {
        let mut places = Vec::with_capacity(seats.len());
        for Seat { bridge, address, names } in seats {
            let address = match address {
                Some(wanted) => self.fixed_address(bridge, wanted)?,
                None => self.free_address(bridge).ok_or("all addresses of its network are taken")?,
            };
            places.push(Place { bridge, address, names: names.iter().map(|name| canonical(name)).collect() });
        }
        self.next += 1;
        self.members.insert(self.next, Member { name: name.to_owned(), places, alive: None });
        Ok(self.next)
    }

    fn fixed_address(&self, bridge: usize, wanted: Ipv4Addr) -> Result<Ipv4Addr, String> {
        let network = &self.bridges[bridge];
        if !network.offers(wanted) {
            return Err(format!("{wanted} is no address for a container in {}", network.subnet));
        }
        let has_it = |member: &&Member| member.places.iter().any(|p| p.bridge == bridge && p.address == wanted);
        match self.members.values().find(has_it) {
            Some(other) => Err(format!("{wanted} is the address of {}", other.name)),
            None => Ok(wanted),
        }
    }

    /// Addresses are given in turn, so that one that was just given back is not what others still remember.
    fn free_address(&self, bridge: usize) -> Option<Ipv4Addr> {
        let network = &self.bridges[bridge];
        let used: std::collections::HashSet<Ipv4Addr> = self
            .members
            .values()
            .flat_map(|member| &member.places)
            .filter(|place| place.bridge == bridge)
            .map(|place| place.address)
            .collect();
        // Behind the range's own address and, usually, the gateway's.
        const FIRST: u32 = 2;
        let count = network.pool.size();
        let start = self.next as u32 % count;
        let in_turn = (0..count).map(|number| network.pool.address((FIRST + start + number) % count));
        let is_free = |address: &Ipv4Addr| {
            network.offers(*address) && !network.reserved.contains(address) && !used.contains(address)
        };
        in_turn.into_iter().find(is_free)
    }

    pub(crate) fn remove(&mut self, member: u64) {
        self.members.remove(&member);
    }

    pub(crate) fn starts(&mut self, member: u64, process: OwnedFd) {
        if let Some(member) = self.members.get_mut(&member) {
            member.alive = Some(process);
        }
    }

    pub(crate) fn places(&self, member: u64) -> Vec<Place> {
        self.members.get(&member).map(|member| member.places.clone()).unwrap_or_default()
    }

    /// Addresses of a name in the networks of whoever asks; several take turns at the first place.
    pub(crate) fn addresses(&mut self, asker: Ipv4Addr, name: &str, has_way_out: bool) -> Answer<Vec<Ipv4Addr>> {
        let name = canonical(name);
        let bridges = self.bridges_of(asker);
        let mut found: Vec<Ipv4Addr> = Vec::new();
        for bridge in &bridges {
            let living = self.members.values().filter(|member| member.is_alive());
            let here = living.flat_map(|member| &member.places).filter(|place| place.bridge == *bridge);
            found.extend(here.filter(|place| place.names.contains(&name)).map(|place| place.address));
        }
        if found.is_empty() {
            return self.elsewhere(&bridges, has_way_out);
        }
        found.sort_unstable();
        self.turn = self.turn.wrapping_add(1);
        let first = self.turn % found.len();
        found.rotate_left(first);
        Answer::Known(found)
    }

    /// The name of an address, if it is one of ours.
    pub(crate) fn name_of(&self, asker: Ipv4Addr, address: Ipv4Addr, has_way_out: bool) -> Answer<String> {
        let bridges = self.bridges_of(asker);
        let member = self.members.values().find(|member| {
            let is_it = |place: &Place| place.address == address && bridges.contains(&place.bridge);
            member.places.iter().any(is_it) && member.is_alive()
        });
        match member {
            Some(member) => Answer::Known(member.name.clone()),
            None if self.bridges.iter().any(|bridge| bridge.subnet.contains(address)) => Answer::Unknown,
            None => self.elsewhere(&bridges, has_way_out),
        }
    }

    fn bridges_of(&self, asker: Ipv4Addr) -> Vec<usize> {
        let mut places = self.members.values().map(|member| &member.places);
        places
            .find(|places| places.iter().any(|place| place.address == asker))
            .map(|places| places.iter().map(|place| place.bridge).collect())
            .unwrap_or_default()
    }

    fn elsewhere<T>(&self, bridges: &[usize], has_way_out: bool) -> Answer<T> {
        let leads_out = bridges.iter().any(|bridge| !self.bridges[*bridge].internal);
        if has_way_out && leads_out { Answer::Outside } else { Answer::Unknown }
    }
}

/// Names are the same in any case and with or without the root's dot (RFC 1034, 3.1).
fn canonical(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A descriptor that is readable once its other end is dropped: a process that ends.
    fn process() -> (OwnedFd, OwnedFd) {
        rustix::pipe::pipe().unwrap()
    }

    fn names() -> Names {
        let bridge = |name: &str, at: u8, internal| {
            Bridge::new(name, Subnet::of(Ipv4Addr::new(10, 231, at, 0), 24).unwrap(), internal)
        };
        Names { bridges: vec![bridge("front", 0, false), bridge("back", 1, true)], ..Names::default() }
    }

    #[test]
    fn names_are_seen_in_shared_networks_while_their_container_lives() {
        let mut names = names();
        let join = |bridge, name: &str| Seat { bridge, names: vec![name.to_owned()], ..Seat::default() };
        let web = names.add("web", vec![join(0, "Web")]).unwrap();
        let api = names.add("api", vec![join(0, "api"), join(1, "api")]).unwrap();
        let db = names.add("db", vec![join(1, "db")]).unwrap();
        let address = |names: &Names, member, at: usize| names.places(member)[at].address;
        let (web_at, api_front) = (address(&names, web, 0), address(&names, api, 0));
        let (api_back, db_at) = (address(&names, api, 1), address(&names, db, 0));

        // Not started yet.
        assert_eq!(names.addresses(web_at, "api", true), Answer::Outside);
        let ends: Vec<OwnedFd> = [web, api, db]
            .into_iter()
            .map(|member| {
                let (read, write) = process();
                names.starts(member, read);
                write
            })
            .collect();
        assert_eq!(names.addresses(web_at, "API.", true), Answer::Known(vec![api_front]));
        assert_eq!(names.addresses(db_at, "api", true), Answer::Known(vec![api_back]));
        assert_eq!(names.addresses(api_front, "db", true), Answer::Known(vec![db_at]));
        // No network in common; out there somebody may be called so, but not for an internal network.
        assert_eq!(names.addresses(web_at, "db", true), Answer::Outside);
        assert_eq!(names.addresses(db_at, "web", true), Answer::Unknown);
        assert_eq!(names.addresses(web_at, "db", false), Answer::Unknown);
        assert_eq!(names.name_of(db_at, api_back, true), Answer::Known("api".into()));
        assert_eq!(names.name_of(db_at, web_at, true), Answer::Unknown);
        assert_eq!(names.name_of(web_at, Ipv4Addr::new(1, 1, 1, 1), true), Answer::Outside);
        drop(ends);
        assert_eq!(names.addresses(web_at, "api", false), Answer::Unknown);
    }

    #[test]
    fn several_of_one_name_take_turns() {
        let mut names = names();
        let mut ends = Vec::new();
        for name in ["one", "two"] {
            let member =
                names.add(name, vec![Seat { names: vec![name.into(), "both".into()], ..Seat::default() }]).unwrap();
            let (read, write) = process();
            names.starts(member, read);
            ends.push(write);
        }
        let asker = names.places(1)[0].address;
        let ask = |names: &mut Names| match names.addresses(asker, "both", false) {
            Answer::Known(found) => found,
            other => panic!("{other:?}"),
        };
        let (first, second) = (ask(&mut names), ask(&mut names));
        assert_eq!(first.len(), 2);
        assert_eq!((first[0], first[1]), (second[1], second[0]));
    }

    #[test]
    fn addresses_of_the_gone_are_given_again_late() {
        let mut names = names();
        let gone = names.add("gone", vec![Seat::default()]).unwrap();
        let address = names.places(gone)[0].address;
        names.remove(gone);
        let next = names.add("next", vec![Seat::default()]).unwrap();
        assert_ne!(names.places(next)[0].address, address);
        // All but the range's own, its gateway and its last one.
        for _ in 0..252 {
            names.add("more", vec![Seat::default()]).unwrap();
        }
        assert!(names.add("too many", vec![Seat::default()]).unwrap_err().contains("are taken"));
    }

    #[test]
    fn addresses_are_those_that_somebody_asked_for() {
        let address = |last| Ipv4Addr::new(172, 16, 238, last);
        let range = AddressRange {
            subnet: (address(0), 24),
            gateway: Some(address(254)),
            pool: Some((address(128), 29)),
            reserved: vec![address(130)],
        };
        let bridge = Bridge::within(&Join::default(), &range).unwrap();
        assert_eq!(bridge.gateway(), address(254));
        let mut names = Names { bridges: vec![bridge], ..Names::default() };
        let seat = |address| vec![Seat { address, ..Seat::default() }];
        let fixed = names.add("fixed", seat(Some(address(130)))).unwrap();
        assert_eq!(names.places(fixed)[0].address, address(130));
        assert_eq!(
            names.add("second", seat(Some(address(130)))).unwrap_err(),
            "172.16.238.130 is the address of fixed"
        );
        for wrong in [address(0), address(254), address(255), Ipv4Addr::new(172, 16, 239, 1)] {
            assert!(names.add("wrong", seat(Some(wrong))).unwrap_err().contains("is no address"), "{wrong}");
        }
        names.remove(fixed);
        // Of the eight in the pool, one is kept for whoever asks for it.
        let mut given: Vec<u8> = (0..7)
            .map(|_| {
                let member = names.add("free", seat(None)).unwrap();
                names.places(member)[0].address.octets()[3]
            })
            .collect();
        given.sort_unstable();
        assert_eq!(given, [128, 129, 131, 132, 133, 134, 135]);
        assert!(names.add("one too many", seat(None)).is_err());
        let outside = AddressRange { gateway: Some(Ipv4Addr::LOCALHOST), ..range };
        assert!(Bridge::within(&Join::default(), &outside).unwrap_err().contains("127.0.0.1 is not in"));
    }
}
