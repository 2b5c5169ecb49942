//! Links, addresses, routes and rules as netlink messages (rtnetlink(7), linux/if_link.h).

use std::{
    net::Ipv4Addr,
    os::fd::{AsRawFd, BorrowedFd},
};

use crate::{
    netlink::{CREATE, EXCLUSIVE, Message, NetlinkError, Socket, attributes},
    subnet::Subnet,
};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWRULE: u16 = 32;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const VETH_INFO_PEER: u16 = 1;
const IFF_UP: u32 = 1;

const AF_INET: u8 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_TABLE: u16 = 15;
const RTN_UNICAST: u8 = 1;
const RTN_UNREACHABLE: u8 = 7;
const RTPROT_STATIC: u8 = 4;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FR_ACT_TO_TBL: u8 = 1;

/// One end of a pair of virtual Ethernet devices.
pub(crate) struct End<'a> {
    pub(crate) name: &'a str,
    /// Chosen by us where it is needed afterwards; zero lets the kernel choose.
    pub(crate) index: u32,
    /// Hardware address.
    pub(crate) mac: Option<[u8; 6]>,
}

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

/// A bridge that is up. Its hardware address is fixed: by default it changes with its ports, and what the containers
/// have remembered would be wrong.
pub(crate) fn bridge(name: &str, index: u32, mac: [u8; 6]) -> Message {
    Message::new("make a bridge", RTM_NEWLINK, CREATE | EXCLUSIVE, &link_header(index, IFF_UP))
        .text(IFLA_IFNAME, name)
        .attribute(IFLA_ADDRESS, &mac)
        .nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "bridge")
                .nested(IFLA_INFO_DATA, |data| data.attribute(IFLA_BR_MCAST_SNOOPING, &[0]))
        })
}

/// A pair of devices: `near` in the socket's namespace, perhaps on a bridge, is up; `far` in another can come up only when
/// it has its other end.
pub(crate) fn pair(near: &End<'_>, master: Option<u32>, far: &End<'_>, there: BorrowedFd<'_>, mtu: u32) -> Message {
    let mut message =
        Message::new("make a pair of devices", RTM_NEWLINK, CREATE | EXCLUSIVE, &link_header(near.index, IFF_UP))
            .text(IFLA_IFNAME, near.name)
            .attribute(IFLA_MTU, &mtu.to_ne_bytes());
    if let Some(master) = master {
        message = message.attribute(IFLA_MASTER, &master.to_ne_bytes());
    }
    message.nested(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |data| {
            data.nested(VETH_INFO_PEER, |mut peer| {
                peer.append(&link_header(far.index, 0));
                let peer = peer
                    .text(IFLA_IFNAME, far.name)
                    .attribute(IFLA_MTU, &mtu.to_ne_bytes())
                    .attribute(IFLA_NET_NS_FD, &there.as_raw_fd().to_ne_bytes());
                match far.mac {
                    Some(mac) => peer.attribute(IFLA_ADDRESS, &mac),
                    None => peer,
                }
            })
        })
    })
}

pub(crate) fn up(index: u32) -> Message {
    Message::new("bring a device up", RTM_NEWLINK, 0, &link_header(index, IFF_UP))
}

pub(crate) fn address(index: u32, address: Ipv4Addr, prefix: u8) -> Message {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    let mut header = [AF_INET, prefix, 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    Message::new("give a device its address", RTM_NEWADDR, CREATE | EXCLUSIVE, &header)
        .attribute(IFA_LOCAL, &address.octets())
        .attribute(IFA_ADDRESS, &address.octets())
}

/// The kernel's own table, and ours.
pub(crate) const TABLE_MAIN: u32 = 254;

/// Where everything goes that no other route of the table names.
pub(crate) fn default_route(table: u32, gateway: Ipv4Addr, device: u32) -> Message {
    let header = [AF_INET, 0, 0, 0, 0, RTPROT_STATIC, 0, RTN_UNICAST, 0, 0, 0, 0];
    Message::new("make a route", RTM_NEWROUTE, CREATE | EXCLUSIVE, &header)
        .attribute(RTA_TABLE, &table.to_ne_bytes())
        .attribute(RTA_GATEWAY, &gateway.octets())
        .attribute(RTA_OIF, &device.to_ne_bytes())
}

/// What no other route of the table names is refused, and does not come to the next table.
pub(crate) fn dead_end(table: u32) -> Message {
    const LAST: u32 = u32::MAX;
    let header = [AF_INET, 0, 0, 0, 0, RTPROT_STATIC, 0, RTN_UNREACHABLE, 0, 0, 0, 0];
    Message::new("make a route", RTM_NEWROUTE, CREATE | EXCLUSIVE, &header)
        .attribute(RTA_TABLE, &table.to_ne_bytes())
        .attribute(RTA_PRIORITY, &LAST.to_ne_bytes())
}

/// What goes to this range is refused.
pub(crate) fn closed(table: u32, range: Subnet) -> Message {
    let header = [AF_INET, range.prefix(), 0, 0, 0, RTPROT_STATIC, 0, RTN_UNREACHABLE, 0, 0, 0, 0];
    Message::new("make a route", RTM_NEWROUTE, CREATE | EXCLUSIVE, &header)
        .attribute(RTA_TABLE, &table.to_ne_bytes())
        .attribute(RTA_DST, &range.address(0).octets())
}

/// What comes in through a device is routed by this table.
pub(crate) fn rule(device: &str, table: u32, priority: u32) -> Message {
    let header = [AF_INET, 0, 0, 0, 0, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0];
    Message::new("make a routing rule", RTM_NEWRULE, CREATE | EXCLUSIVE, &header)
        .text(FRA_IIFNAME, device)
        .attribute(RTA_TABLE, &table.to_ne_bytes())
        .attribute(FRA_PRIORITY, &priority.to_ne_bytes())
}

/// What the routes of all tables lead to, the default ones aside; and the device of the first default one.
pub(crate) fn routes(socket: &Socket) -> Result<(Vec<Subnet>, Option<u32>), NetlinkError> {
    let (mut known, mut way_out) = (Vec::new(), None);
    let header = [AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    socket.dump(Message::new("list the routes", RTM_GETROUTE, 0, &header), |kind, body| {
        if kind != RTM_NEWROUTE || body.len() < 12 {
            return;
        }
        let prefix = body[1];
        let find = |wanted| attributes(&body[12..]).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let number = |value: &[u8]| value.try_into().ok().map(u32::from_ne_bytes);
        match find(RTA_DST).and_then(|value| <[u8; 4]>::try_from(value).ok()) {
            Some(address) if prefix > 0 => known.extend(Subnet::of(address.into(), prefix)),
            _ if body[7] == RTN_UNICAST && way_out.is_none() => way_out = find(RTA_OIF).and_then(number),
            _ => {}
        }
    })?;
    Ok((known, way_out))
}

/// A device as the kernel lists it.
pub(crate) struct Device {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
}

/// All devices of the socket's namespace.
pub(crate) fn devices(socket: &Socket) -> Result<Vec<Device>, NetlinkError> {
    const RTM_GETLINK: u16 = 18;
    let mut found = Vec::new();
    socket.dump(Message::new("list the devices", RTM_GETLINK, 0, &link_header(0, 0)), |_, body| {
        let number = |bytes: Option<&[u8]>| bytes.and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
        let (Some(index), Some(rest)) = (number(body.get(4..8)), body.get(16..)) else { return };
        let find = |wanted| attributes(rest).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let name = String::from_utf8_lossy(find(IFLA_IFNAME).unwrap_or_default());
        let mtu = number(find(IFLA_MTU)).unwrap_or(0);
        found.push(Device { index, name: name.trim_end_matches('\0').to_owned(), mtu });
    })?;
    Ok(found)
}
