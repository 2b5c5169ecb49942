//! A project: services with the networks, volumes, configs and secrets that they share.

use std::{collections::BTreeMap, net::Ipv4Addr, path::PathBuf};

use events::Place;
use serde::Serialize;

use crate::{Service, is_default};

/// What Compose files describe, resolved.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Project {
    /// Its name: lowercase letters, digits, `-` and `_`.
    pub name: String,
    /// The project directory, absolute.
    pub directory: PathBuf,
    /// The files it was read from, in order, absolute; without those that were included or extended.
    pub files: Vec<PathBuf>,
    /// Services of the active profiles, in the order of the files.
    pub services: Vec<Service>,
    /// Services of profiles that are not active.
    #[serde(skip_serializing_if = "is_default")]
    pub inactive: Vec<Service>,
    /// Networks by key; `default` is there when a service uses it.
    #[serde(skip_serializing_if = "is_default")]
    pub networks: BTreeMap<String, Network>,
    /// Volumes by key.
    #[serde(skip_serializing_if = "is_default")]
    pub volumes: BTreeMap<String, Volume>,
    /// Configs by key.
    #[serde(skip_serializing_if = "is_default")]
    pub configs: BTreeMap<String, FileSource>,
    /// Secrets by key.
    #[serde(skip_serializing_if = "is_default")]
    pub secrets: BTreeMap<String, FileSource>,
}

impl Project {
    /// The active service of this name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }
}

/// An entry of the top-level `networks`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Network {
    /// Its name outside of the project: `<project>_<key>` unless given.
    pub name: String,
    /// Where it stands; `None` for a `default` that no file mentions.
    pub place: Option<Place>,
    /// `driver`; `None`: the engine's default.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: Option<String>,
    /// `driver_opts`.
    #[serde(skip_serializing_if = "is_default")]
    pub driver_opts: BTreeMap<String, String>,
    /// `internal`: no way out.
    #[serde(skip_serializing_if = "is_default")]
    pub internal: bool,
    /// `external`: it exists already and is neither made nor removed.
    #[serde(skip_serializing_if = "is_default")]
    pub external: bool,
    /// `enable_ipv6`.
    #[serde(skip_serializing_if = "is_default")]
    pub ipv6: bool,
    /// `ipam.config`: address ranges; empty: the engine's choice.
    #[serde(skip_serializing_if = "is_default")]
    pub subnets: Vec<Subnet>,
    /// `labels`.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
}

/// An entry of `ipam.config`, checked to be addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Subnet {
    /// `subnet`, as `address/prefix`.
    pub subnet: Option<String>,
    /// `gateway`.
    pub gateway: Option<std::net::IpAddr>,
    /// `ip_range`, as `address/prefix`.
    pub ip_range: Option<String>,
}

impl Subnet {
    /// First address and prefix, where it is a range of IPv4.
    pub fn ipv4(&self) -> Option<(Ipv4Addr, u8)> {
        ipv4_range(self.subnet.as_deref()?)
    }

    /// The part that addresses are given from, where one is named.
    pub fn ipv4_pool(&self) -> Option<(Ipv4Addr, u8)> {
        ipv4_range(self.ip_range.as_deref()?)
    }

    /// Whether an address is in the range.
    pub(crate) fn contains(&self, address: Ipv4Addr) -> bool {
        self.ipv4().is_some_and(|(first, prefix)| {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            first.to_bits() & mask == address.to_bits() & mask
        })
    }
}

fn ipv4_range(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    Some((address.parse().ok()?, prefix.parse().ok()?))
}

/// An entry of the top-level `volumes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Volume {
    /// Its name outside of the project: `<project>_<key>` unless given.
    pub name: String,
    /// Where it stands.
    pub place: Option<Place>,
    /// `driver`; `None`: the engine's default.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: Option<String>,
    /// `driver_opts`.
    #[serde(skip_serializing_if = "is_default")]
    pub driver_opts: BTreeMap<String, String>,
    /// `external`: it exists already and is neither made nor removed.
    #[serde(skip_serializing_if = "is_default")]
    pub external: bool,
    /// `labels`.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
}

/// An entry of the top-level `configs` or `secrets`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileSource {
    /// Its name outside of the project: `<project>_<key>` unless given.
    pub name: String,
    /// Where it stands.
    pub place: Option<Place>,
    /// Where the content comes from.
    pub content: FileContent,
}

/// Where the content of a config or secret comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileContent {
    /// A file or directory of the host, absolute.
    File(PathBuf),
    /// The environment variable of this name; whoever starts services looks it up, so that it is in no plan.
    Environment(String),
    /// Written in the Compose file.
    Inline(String),
    /// It exists already under [`FileSource::name`].
    External,
}
