//! The host forwards: a pair of devices between it and the scope's namespace, and a table of nftables.

use std::{
    os::{
        fd::{AsFd, OwnedFd},
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    process::{Command, Stdio},
};

use super::{DEVICE, Holder, INSTALL, Leftover, NoWayOut, TABLE_PREFIX, Uplink, WayOut, find_program, surroundings};
use crate::{
    inside, link, nat,
    netlink::{NetlinkError, Socket},
    networks::Options,
    subnet::{self, Subnet},
};

/// Ends what ends not by itself.
#[derive(Debug)]
pub(super) struct Translated {
    table: Leftover,
    device: String,
    /// Keeps others from the same range.
    _claim: UnixDatagram,
}

impl Drop for Translated {
    fn drop(&mut self) {
        // The devices go with the namespace, which the kernel removes by itself: asked to remove them, it would have us wait
        // until no processor looks at them.
        self.table.remove();
    }
}

/// The number of the device in the scope's namespace: the first after the loopback.
const INDEX: u32 = 2;
/// What Ethernet has, for a host without a way out of its own.
const MTU: u32 = 1500;

pub(super) fn make(namespace: &OwnedFd, options: &Options) -> Result<Uplink, NoWayOut> {
    if let Some(obstacle) = obstacle() {
        return Err(obstacle);
    }
    let told = |error: NetlinkError| NoWayOut::failed(&error);
    let (known, mtu) = surroundings().map_err(told)?;
    let (range, claim) = claim(&options.id, &known)
        .ok_or_else(|| NoWayOut::new("the host uses all addresses from 10.230.0.0 to 10.230.255.255", INSTALL))?;
    let here = range.address(1);
    let table = Leftover::Table(format!("{TABLE_PREFIX}{}", options.id));
    let device = format!("st-{}", options.id);
    (options.note)(&table).map_err(|error| NoWayOut::failed(&error))?;
    // From here on a failure removes what was made.
    let holder = Translated { table, device, _claim: claim };
    connect(namespace, &holder, range, mtu.unwrap_or(MTU)).map_err(told)?;
    let Leftover::Table(table) = &holder.table;
    nat::masquerade_from(table, range, &holder.device).map_err(told)?;
    let host = Some(here.into());
    Ok(Uplink { way: WayOut::Translated, gateway: here, device: INDEX, host, _holder: Holder::Translated(holder) })
}

/// Makes the devices and gives them their addresses.
fn connect(namespace: &OwnedFd, holder: &Translated, range: Subnet, mtu: u32) -> Result<(), NetlinkError> {
    let attempt = "connect a private network with the host";
    let fail = |source| NetlinkError { attempt, source };
    let host = Socket::route().map_err(fail)?;
    let near = link::End { name: &holder.device, index: 0, mac: None };
    let far = link::End { name: DEVICE, index: INDEX, mac: None };
    host.request(vec![link::pair(&near, None, &far, namespace.as_fd(), mtu)])?;
    drop(inside::set(&format!("ipv6/conf/{}/disable_ipv6", holder.device), "1"));
    let index = link::devices(&host)?
        .into_iter()
        .find(|device| device.name == holder.device)
        .ok_or_else(|| fail(std::io::ErrorKind::NotFound.into()))?
        .index;
    host.request(vec![link::address(index, range.address(1), range.prefix())])?;
    let there = inside::visit(namespace.as_fd(), Socket::route).map_err(fail)?;
    there.request(vec![link::address(INDEX, range.address(2), range.prefix()), link::up(INDEX)])
}

/// A range that neither the host nor another run uses. The claim is a name that the kernel frees with its owner, however
/// that one ends.
fn claim(id: &str, known: &[Subnet]) -> Option<(Subnet, UnixDatagram)> {
    let seed = id.bytes().fold(0u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    subnet::for_uplinks(seed).filter(|range| range.is_free(known)).find_map(|range| {
        let name = SocketAddr::from_abstract_name(format!("seatrial-uplink-{range}")).ok()?;
        Some((range, UnixDatagram::bind_addr(&name).ok()?))
    })
}

/// Why the host would not forward.
pub(super) fn obstacle() -> Option<NoWayOut> {
    let forwards = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default();
    if forwards.trim() != "1" {
        let remedy = format!("run `sysctl -w net.ipv4.ip_forward=1`, or {INSTALL}");
        return Some(NoWayOut::new("this host does not forward packets", remedy));
    }
    let chain = nat::dropping_chain().or_else(old_dropping_chain)?;
    let reason = format!("this host's firewall drops forwarded packets (chain `{chain}`)");
    Some(NoWayOut::new(reason, INSTALL))
}

/// The same of the packet filter before nftables, which only its own program can read.
fn old_dropping_chain() -> Option<String> {
    let tables = std::fs::read_to_string("/proc/net/ip_tables_names").ok()?;
    tables.lines().find(|table| *table == "filter")?;
    let output = Command::new(find_program("iptables-legacy")?).args(["-S", "FORWARD"]).stdin(Stdio::null()).output();
    let rules = String::from_utf8_lossy(&output.ok()?.stdout).into_owned();
    rules.contains("-P FORWARD DROP").then(|| "filter FORWARD".to_owned())
}
