//! The way out of a scope's namespace: by the host's translation of addresses where we may, else by pasta or slirp4netns.

mod program;
mod translated;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    os::fd::OwnedFd,
    path::PathBuf,
    str::FromStr,
};

use crate::{
    inside, link, nat,
    netlink::{NetlinkError, Socket},
    networks::Options,
    subnet::Subnet,
};

/// How connections leave private networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayOut {
    /// The host forwards packets and translates addresses (nftables).
    Translated,
    /// pasta makes the connections.
    Pasta,
    /// slirp4netns makes the connections.
    Slirp,
}

impl fmt::Display for WayOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WayOut::Translated => "nftables",
            WayOut::Pasta => "pasta",
            WayOut::Slirp => "slirp4netns",
        })
    }
}

/// Why connections do not leave private networks, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("containers reach each other, but nothing outside: {reason}; {remedy}")]
pub struct NoWayOut {
    /// What stands in the way.
    pub reason: String,
    /// What to do, with the command where there is one.
    pub remedy: String,
}

impl NoWayOut {
    fn new(reason: impl Into<String>, remedy: impl Into<String>) -> NoWayOut {
        NoWayOut { reason: reason.into(), remedy: remedy.into() }
    }

    /// Something that should have worked.
    pub(crate) fn failed(error: &dyn std::error::Error) -> NoWayOut {
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            reason = format!("{reason}: {error}");
            cause = error.source();
        }
        NoWayOut::new(reason, INSTALL)
    }
}

/// The remedy for most of what may be missing.
const INSTALL: &str = "install pasta (package `passt` of Debian, Ubuntu and Fedora)";

/// What stays on the host when the process that made it is killed. As text it fits into a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// A table of nftables.
    Table(String),
}

impl Leftover {
    /// Undoes it. What is not there is as good.
    pub fn remove(&self) {
        match self {
            // Whoever may not remove it could not have made it.
            Leftover::Table(name) => drop(nat::remove(name)),
        }
    }
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Leftover::Table(name) => write!(f, "table {name}"),
        }
    }
}

impl FromStr for Leftover {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        // Only names of ours: a journal is a file.
        match text.strip_prefix("table ") {
            Some(name) if name.starts_with(TABLE_PREFIX) => Ok(Leftover::Table(name.to_owned())),
            _ => Err(()),
        }
    }
}

const TABLE_PREFIX: &str = "seatrial-";

/// The device in the scope's namespace.
const DEVICE: &str = "uplink";

/// A way out that stands. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Uplink {
    pub(crate) way: WayOut,
    /// Where packets go, and the number of the device through which.
    pub(crate) gateway: Ipv4Addr,
    pub(crate) device: u32,
    /// The host as containers reach it.
    pub(crate) host: Option<IpAddr>,
    _holder: Holder,
}

/// What has to live for as long as the way out.
#[derive(Debug)]
#[expect(dead_code, reason = "held, not read")]
enum Holder {
    Translated(translated::Translated),
    Program(program::Program),
}

pub(crate) fn make(namespace: &OwnedFd, options: &Options) -> Result<Uplink, NoWayOut> {
    let mut obstacle = None;
    if options.has_host_rights {
        match translated::make(namespace, options) {
            Ok(uplink) => return finish(namespace, uplink),
            Err(error) => obstacle = Some(error),
        }
    }
    match program::make(namespace, options) {
        Ok(uplink) => finish(namespace, uplink),
        // For root, the first one is the one to mend; the programs are only its substitutes.
        Err(error) => Err(obstacle.unwrap_or(error)),
    }
}

/// What goes out bears the device's address, whichever container it came from.
fn finish(namespace: &OwnedFd, uplink: Uplink) -> Result<Uplink, NoWayOut> {
    use std::os::fd::AsFd as _;
    let masquerade = || Ok(nat::masquerade_through("seatrial", DEVICE));
    match inside::visit(namespace.as_fd(), masquerade) {
        Ok(Ok(())) => Ok(uplink),
        Ok(Err(error)) => {
            let told = NoWayOut::failed(&error);
            Err(NoWayOut { remedy: "load the kernel's nftables with `modprobe nft_masq` as root".to_owned(), ..told })
        }
        Err(error) => Err(NoWayOut::failed(&error)),
    }
}

/// What would lead out of a private network here, found out by looking; the first one would be used.
///
/// # Errors
/// Nothing would.
pub fn ways_out(has_host_rights: bool) -> Result<Vec<WayOut>, NoWayOut> {
    let mut ways = Vec::new();
    let mut obstacle = None;
    if has_host_rights {
        match translated::obstacle() {
            None => ways.push(WayOut::Translated),
            found => obstacle = found,
        }
    }
    match program::available() {
        Ok(found) => ways.extend(found),
        Err(error) => obstacle = obstacle.or(Some(error)),
    }
    match (ways.is_empty(), obstacle) {
        (true, Some(obstacle)) => Err(obstacle),
        _ => Ok(ways),
    }
}

/// The host's routes, and its largest packet on the way out.
fn surroundings() -> Result<(Vec<Subnet>, Option<u32>), NetlinkError> {
    let socket = Socket::route().map_err(|source| NetlinkError { attempt: "ask for the host's routes", source })?;
    let (known, device) = link::routes(&socket)?;
    let mtu = match device {
        Some(index) => {
            link::devices(&socket)?.into_iter().find(|device| device.index == index).map(|device| device.mtu)
        }
        None => None,
    };
    Ok((known, mtu))
}

/// The address that the host's own connections come from.
fn host_address() -> Option<IpAddr> {
    // Nothing is sent: connecting a datagram socket chooses its address. This one is for documentation (RFC 5737).
    const SOMEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(203, 0, 113, 1), 9);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(SOMEWHERE).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Where a program is.
fn find_program(name: &str) -> Option<PathBuf> {
    const USUAL: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let path = std::env::var_os("PATH").unwrap_or_else(|| USUAL.into());
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file())
}
