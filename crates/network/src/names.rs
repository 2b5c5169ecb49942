//! Who is in which network under which names.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    os::fd::{AsFd, OwnedFd},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::subnet::Subnet;

/// A network: a bridge with a range of addresses.
#[derive(Debug)]
pub(crate) struct Bridge {
    pub(crate) name: String,
    pub(crate) subnet: Subnet,
    pub(crate) internal: bool,
}

impl Bridge {
    /// Our own address, where containers find the name server and the way out.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.subnet.address(1)
    }
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
    /// A new member with an address in each of the bridges, under the names that it has there. `None`: a range is used up.
    pub(crate) fn add(&mut self, name: &str, joins: Vec<(usize, Vec<String>)>) -> Option<u64> {
        let mut places = Vec::with_capacity(joins.len());
        for (bridge, names) in joins {
            let address = self.free_address(bridge)?;
            places.push(Place { bridge, address, names: names.iter().map(|name| canonical(name)).collect() });
        }
        self.next += 1;
        self.members.insert(self.next, Member { name: name.to_owned(), places, alive: None });
        Some(self.next)
    }

    /// Addresses are given in turn, so that one that was just given back is not what others still remember.
    fn free_address(&self, bridge: usize) -> Option<Ipv4Addr> {
        /// The range's own, and the gateway's.
        const FIRST: u32 = 2;
        let subnet = self.bridges[bridge].subnet;
        let used: std::collections::HashSet<Ipv4Addr> = self
            .members
            .values()
            .flat_map(|member| &member.places)
            .filter(|place| place.bridge == bridge)
            .map(|place| place.address)
            .collect();
        let count = subnet.size() - FIRST - 1;
        let start = self.next as u32 % count;
        (0..count).map(|number| subnet.address(FIRST + (start + number) % count)).find(|free| !used.contains(free))
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
        let bridge = |name: &str, at: u8, internal| Bridge {
            name: name.into(),
            subnet: Subnet::of(Ipv4Addr::new(10, 231, at, 0), 24).unwrap(),
            internal,
        };
        Names { bridges: vec![bridge("front", 0, false), bridge("back", 1, true)], ..Names::default() }
    }

    #[test]
    fn names_are_seen_in_shared_networks_while_their_container_lives() {
        let mut names = names();
        let join = |bridge, name: &str| (bridge, vec![name.to_owned()]);
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
            let member = names.add(name, vec![(0, vec![name.into(), "both".into()])]).unwrap();
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
        let gone = names.add("gone", vec![(0, Vec::new())]).unwrap();
        let address = names.places(gone)[0].address;
        names.remove(gone);
        let next = names.add("next", vec![(0, Vec::new())]).unwrap();
        assert_ne!(names.places(next)[0].address, address);
        // All but the range's own, its gateway and its last one.
        for _ in 0..252 {
            names.add("more", vec![(0, Vec::new())]).unwrap();
        }
        assert_eq!(names.add("too many", vec![(0, Vec::new())]), None);
    }
}
