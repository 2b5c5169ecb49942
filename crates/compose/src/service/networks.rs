//! How a service is reached, and what it reaches: ports, networks, links, host names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use events::Place;
use serde::Serialize;

use crate::is_default;

/// `tcp` or `udp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// A port of the container that other services may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ExposedPort {
    /// The port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// A port of the container that is reached from the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublishedPort {
    /// Where it stands.
    pub place: Option<Place>,
    /// Address on the host; `None`: all.
    pub host_ip: Option<IpAddr>,
    /// Port on the host.
    pub host: HostPort,
    /// Port in the container.
    pub target: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// `name`.
    #[serde(skip_serializing_if = "is_default")]
    pub name: Option<String>,
    /// `app_protocol`.
    #[serde(skip_serializing_if = "is_default")]
    pub app_protocol: Option<String>,
}

/// A port of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HostPort {
    /// Any free one.
    Any,
    /// This one.
    Port(u16),
    /// Any free one of these, both included.
    Range(u16, u16),
}

/// `network_mode`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// Loopback only.
    None,
    /// The host's.
    Host,
    /// The engine's default network.
    Bridge,
    /// The network of another service's container.
    Service(String),
    /// The network of a container that is not part of the project.
    Container(String),
}

/// An entry of `networks`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// Key in [`Project::networks`](crate::Project::networks).
    pub network: String,
    /// Further names of the service there.
    #[serde(skip_serializing_if = "is_default")]
    pub aliases: Vec<String>,
    /// Fixed address.
    #[serde(skip_serializing_if = "is_default")]
    pub ipv4: Option<Ipv4Addr>,
    /// Fixed address.
    #[serde(skip_serializing_if = "is_default")]
    pub ipv6: Option<Ipv6Addr>,
    /// The network with the highest one is connected first.
    #[serde(skip_serializing_if = "is_default")]
    pub priority: i64,
    /// The network with the highest one gives the default route.
    #[serde(skip_serializing_if = "is_default")]
    pub gateway_priority: i64,
}

/// An entry of `links`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// The other service.
    pub service: String,
    /// Name under which it is reached; without one, the service's.
    pub alias: String,
}

/// The address of an `extra_hosts` entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HostAddress {
    /// An address.
    Address(IpAddr),
    /// `host-gateway`: the host, as the container reaches it.
    HostGateway,
}
