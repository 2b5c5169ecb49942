//! What a container has around it beyond its root: names and ports in the run's networks, file systems in memory, rights.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use crate::{Secret, Ulimit};

/// How a container is found and reached when its network is [`crate::NetworkMode::Default`]: the private networks of its
/// scope, where containers reach each other by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// Networks of the scope by name, made when the first container joins. Empty: the one that everybody shares who names
    /// none.
    pub networks: Vec<JoinedNetwork>,
    /// Further names in all of them, beside [`crate::ContainerSpec::name`].
    pub aliases: Vec<String>,
    /// Ports to be reached from the host.
    pub ports: Vec<PublishedPort>,
    /// Lines of `/etc/hosts`: name, and an address or [`crate::HOST_GATEWAY`].
    pub extra_hosts: Vec<(String, String)>,
}

/// A network of the scope that a container joins (Compose, `networks`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JoinedNetwork {
    /// Its name, unique in the scope.
    pub name: String,
    /// Names of the container in this network only.
    pub aliases: Vec<String>,
    /// No connections to outside of it (Compose, `internal`).
    pub internal: bool,
    /// Which addresses it has; without, the engine's choice. What the first container says who joins holds for all.
    pub range: Option<AddressRange>,
    /// The container's address in the range; without, a free one.
    pub address: Option<Ipv4Addr>,
}

/// Addresses of a network (Compose, `ipam`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRange {
    /// The range's first address, and the bits that all of them share.
    pub subnet: (Ipv4Addr, u8),
    /// Address of the way out; without, the first one.
    pub gateway: Option<Ipv4Addr>,
    /// The part of the range that addresses are given from; without, all of it.
    pub pool: Option<(Ipv4Addr, u8)>,
    /// Addresses that are given to those only who ask for them.
    pub reserved: Vec<Ipv4Addr>,
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// A port of a container that the host offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedPort {
    /// Address of the host; `None` is 127.0.0.1, so that nothing is open to others by accident.
    pub host_address: Option<IpAddr>,
    /// Port of the host; `None` lets the kernel choose.
    pub host_port: Option<u16>,
    /// Port in the container.
    pub container_port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// A published port as it came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundPort {
    /// Where the host offers it.
    pub host: SocketAddr,
    /// Port in the container.
    pub container_port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// File systems in memory, rights and limits of processes. The default is what docker gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Host name inside; the container's name without.
    pub hostname: Option<String>,
    /// Directories of the scope that containers share.
    pub volumes: Vec<VolumeMount>,
    /// Empty file systems in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// Bytes of `/dev/shm`; 64 MiB without.
    pub shm_size_bytes: Option<u64>,
    /// Files that exist in memory, in this one container only: secrets.
    pub files: Vec<MemoryFile>,
    /// Resource limits of each process.
    pub ulimits: Vec<Ulimit>,
    /// Capabilities beside docker's default ones.
    pub cap_add: Vec<String>,
    /// Capabilities of docker's default ones that it does not get; `ALL` is all.
    pub cap_drop: Vec<String>,
    /// Set-id programs and file capabilities have no effect; so it is anyway in containers of an ordinary user.
    pub no_new_privileges: bool,
    /// The root file system cannot be written to; mounts keep their own mode.
    pub readonly_root: bool,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Kernel parameters of its own namespaces, by sysctl(8)'s names (`net.core.somaxconn`).
    pub sysctls: Vec<(String, String)>,
}

/// A device of the host that a container may use. Whoever asks for one has seen to it that the host's owner agrees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its node on the host.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub target: String,
    /// Some of `rwm`: read, write, make nodes of it (which no container with ids of its own can).
    pub access: String,
}

/// A directory that containers share: made for the first one that mounts it, with what that one's root has at the target (as
/// docker fills named volumes). It belongs to the scope and is gone with it, unless it is lasting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeMount {
    /// Its name, unique in the scope; of a lasting one, unique in the engine.
    pub name: String,
    /// Absolute path in the container.
    pub target: String,
    /// Whether writing is refused.
    pub readonly: bool,
    /// It outlives its scope, until [`crate::Engine::remove_volume`].
    pub is_lasting: bool,
}

/// An empty file system in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tmpfs {
    /// Absolute path in the container.
    pub target: String,
    /// Most bytes that it holds; half of the memory without.
    pub size_bytes: Option<u64>,
    /// Permission bits of its root; 0o1777 is docker's.
    pub mode: u32,
}

/// A file in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryFile {
    /// Absolute path in the container.
    pub target: String,
    /// What it holds.
    pub content: Secret,
    /// Permission bits.
    pub mode: u32,
    /// Owner, as the container sees it.
    pub uid: u32,
    /// Group, as the container sees it.
    pub gid: u32,
}
