//! The private networks of a scope, as engine and runtime want them: made when something needs them.

use std::{
    io,
    net::IpAddr,
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use engine::{Attachment, BoundPort, EngineError, HOST_GATEWAY, Protocol};
use network::{Join, Member, Membership, Networks, Options, Port, PublishError, Transport};
use store::JournalEntry;

use crate::failed;

/// Kind of the journal entries of what networks leave on the host.
pub(crate) const LEFTOVER: &str = "network";

/// Networks of a scope.
pub(crate) struct PrivateNetworks {
    scope: store::Scope,
    /// Real root.
    has_host_rights: bool,
    made: Mutex<Option<Networks>>,
}

impl PrivateNetworks {
    pub(crate) fn new(scope: store::Scope, has_host_rights: bool) -> Self {
        Self { scope, has_host_rights, made: Mutex::default() }
    }

    /// Room for a container, with its ports offered on the host.
    pub(crate) fn join(&self, name: &str, attachment: &Attachment) -> Result<JoinedContainer, EngineError> {
        let networks = self.get()?;
        let joins = attachment.networks.iter().map(|joined| Join {
            network: joined.name.clone(),
            aliases: joined.aliases.clone(),
            internal: joined.internal,
            range: joined.range.as_ref().map(range),
            address: joined.address,
        });
        let member = Member { name: name.to_owned(), aliases: attachment.aliases.clone(), joins: joins.collect() };
        let fail = |error| failed(format!("cannot connect {name} to its network"), error);
        let membership = networks.reserve(member).map_err(fail)?;
        let wanted: Vec<Port> = attachment
            .ports
            .iter()
            .map(|port| Port {
                host_address: port.host_address,
                host_port: port.host_port,
                container_port: port.container_port,
                transport: match port.protocol {
                    Protocol::Tcp => Transport::Tcp,
                    Protocol::Udp => Transport::Udp,
                },
            })
            .collect();
        let bound = membership.publish(&wanted).map_err(|error| not_published(name, error))?;
        let ports = bound
            .iter()
            .map(|bound| BoundPort {
                host: bound.host,
                container_port: bound.container_port,
                protocol: match bound.transport {
                    Transport::Tcp => Protocol::Tcp,
                    Transport::Udp => Protocol::Udp,
                },
            })
            .collect();
        let mut warnings = Vec::new();
        let mut extra_hosts = Vec::new();
        for (host, address) in &attachment.extra_hosts {
            if address != HOST_GATEWAY {
                extra_hosts.push((address.clone(), host.clone()));
            } else if let Some(address) = networks.host_gateway() {
                extra_hosts.push((address.to_string(), host.clone()));
            } else {
                warnings
                    .push(format!("{host} has no address in {name}: this machine cannot be reached from containers"));
            }
        }
        Ok(JoinedContainer { membership: Arc::new(membership), ports, extra_hosts, warnings })
    }

    /// For containers that follow one another and need no names: made with the first one.
    pub(crate) fn later(self: &Arc<Self>, name: &str) -> runtime::Network {
        runtime::Network::Private(Arc::new(Later {
            networks: self.clone(),
            name: name.to_owned(),
            made: OnceLock::new(),
        }))
    }

    /// Why nothing leads out of the networks, once.
    pub(crate) fn take_warning(&self) -> Option<String> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.take_warning()
    }

    /// No container joins any more.
    pub(crate) fn close(&self) {
        drop(self.made.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn get(&self) -> Result<Networks, EngineError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(networks) = &*made {
            return Ok(networks.clone());
        }
        let fail = |error: Box<dyn std::error::Error + Send + Sync>| EngineError {
            hint: Some("`seatrial doctor` checks what this machine offers".to_owned()),
            ..failed("cannot make a private network", error)
        };
        let namespace = runtime::new_network_namespace().map_err(|error| fail(error.into()))?;
        let journal = self.scope.clone();
        let options = Options {
            id: self.scope.id().to_owned(),
            dir: self.scope.dir().join("network"),
            has_host_rights: self.has_host_rights,
            resolvers: None,
            note: Box::new(move |leftover| {
                let entry = JournalEntry::Other { kind: LEFTOVER.to_owned(), value: leftover.to_string() };
                journal.journal(&entry).map_err(io::Error::other)
            }),
            prepare_child: runtime::die_with_parent,
        };
        let networks = Networks::open(namespace, options).map_err(|error| fail(error.into()))?;
        *made = Some(networks.clone());
        Ok(networks)
    }
}

fn range(range: &engine::AddressRange) -> network::AddressRange {
    let engine::AddressRange { subnet, gateway, pool, reserved } = range.clone();
    network::AddressRange { subnet, gateway, pool, reserved }
}

fn not_published(name: &str, error: PublishError) -> EngineError {
    let hint = match error.source.kind() {
        io::ErrorKind::AddrInUse => Some("end what uses the port, or publish at another one".to_owned()),
        io::ErrorKind::PermissionDenied => Some(
            "ordinary users may use ports from 1024 up; `sysctl -w net.ipv4.ip_unprivileged_port_start=0` as root allows \
             all"
                .to_owned(),
        ),
        _ => None,
    };
    EngineError { hint, ..failed(format!("cannot offer a port of {name}"), error) }
}

/// A container's room in the networks.
pub(crate) struct JoinedContainer {
    pub(crate) membership: Arc<Membership>,
    pub(crate) ports: Vec<BoundPort>,
    /// Lines of `/etc/hosts`: address, name.
    pub(crate) extra_hosts: Vec<(String, String)>,
    pub(crate) warnings: Vec<String>,
}

impl JoinedContainer {
    pub(crate) fn network(&self) -> runtime::Network {
        runtime::Network::Private(Arc::new(Now(self.membership.clone())))
    }
}

#[derive(Debug)]
struct Now(Arc<Membership>);

impl runtime::PrivateNetwork for Now {
    fn addresses(&self) -> Vec<IpAddr> {
        self.0.addresses()
    }

    fn resolv_conf(&self) -> String {
        self.0.resolv_conf()
    }

    fn attach(&self, namespace: BorrowedFd<'_>, process: BorrowedFd<'_>) -> io::Result<()> {
        self.0.attach(namespace, process).map_err(io::Error::other)
    }
}

/// Joins when the first container starts; what fails is told by [`attach`](runtime::PrivateNetwork::attach).
struct Later {
    networks: Arc<PrivateNetworks>,
    name: String,
    made: OnceLock<Result<JoinedContainer, String>>,
}

impl std::fmt::Debug for Later {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Later").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Later {
    fn membership(&self) -> Result<&Membership, &String> {
        let join = || self.networks.join(&self.name, &Attachment::default()).map_err(|error| error.with_causes());
        self.made.get_or_init(join).as_ref().map(|joined| &*joined.membership)
    }
}

impl runtime::PrivateNetwork for Later {
    fn addresses(&self) -> Vec<IpAddr> {
        self.membership().map(Membership::addresses).unwrap_or_default()
    }

    fn resolv_conf(&self) -> String {
        self.membership().map(Membership::resolv_conf).unwrap_or_default()
    }

    fn attach(&self, namespace: BorrowedFd<'_>, process: BorrowedFd<'_>) -> io::Result<()> {
        let membership = self.membership().map_err(|error| io::Error::other(error.clone()))?;
        membership.attach(namespace, process).map_err(io::Error::other)
    }
}
