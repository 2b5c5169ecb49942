//! The networks of one scope, and who joins them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{
    dns::{self, Book, Server},
    inside, link,
    names::{Bridge, Place, Seat},
    netlink::{self, NetlinkError},
    publish::{self, Bound, Port, PublishError, Published},
    subnet::{self, Subnet},
    uplink::{self, Leftover, NoWayOut, Uplink},
};

/// Networks of one scope. Cheap to clone; they end with the last clone and the last [`Membership`].
#[derive(Clone, Debug)]
pub struct Networks(Arc<Inner>);

/// What networks need to know of their surroundings.
pub struct Options {
    /// Names things on the host: eight characters of `[a-z0-9]` that no other scope of this host has.
    pub id: String,
    /// An own directory, which may not exist yet; who opens the networks removes it.
    pub dir: PathBuf,
    /// We may change the host's own network: real root.
    pub has_host_rights: bool,
    /// Whom to ask for names of outside; `None` is whom the host asks.
    pub resolvers: Option<Vec<SocketAddr>>,
    /// Notes what has to be undone if this process is killed; called before it is made.
    pub note: Note,
    /// Lets a program be killed with the thread that starts it.
    pub prepare_child: fn(&mut Command),
}

/// Notes down a [`Leftover`]; an error keeps it from being made.
pub type Note = Box<dyn Fn(&Leftover) -> io::Result<()> + Send + Sync>;

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("id", &self.id).field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// Who is to join.
#[derive(Clone, Debug, Default)]
pub struct Member {
    /// Its name in all its networks.
    pub name: String,
    /// Further names in all its networks.
    pub aliases: Vec<String>,
    /// Its networks. Empty: the one for all who name none.
    pub joins: Vec<Join>,
}

/// A network that somebody joins; made when the first one does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Join {
    /// Its name in the scope.
    pub network: String,
    /// Further names in this network.
    pub aliases: Vec<String>,
    /// Connections stay inside. What the first one says who joins holds for all.
    pub internal: bool,
    /// Which addresses the network has; without, a range that is free on this host. The first one's holds for all.
    pub range: Option<AddressRange>,
    /// The address that is wanted; without, a free one.
    pub address: Option<Ipv4Addr>,
}

/// Addresses of a network that somebody wants it to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRange {
    /// The range's first address, and the bits that all of them share.
    pub subnet: (Ipv4Addr, u8),
    /// Our own address, of name server and way out; without, the first one.
    pub gateway: Option<Ipv4Addr>,
    /// The part of the range that addresses are given from; without, all of it.
    pub pool: Option<(Ipv4Addr, u8)>,
    /// Addresses that are given to those only who ask for them.
    pub reserved: Vec<Ipv4Addr>,
}

/// A private network could not be made or joined.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt}")]
pub struct Error {
    /// Completes "cannot …".
    pub attempt: String,
    /// The cause.
    #[source]
    pub source: io::Error,
}

impl Error {
    fn at(attempt: &str) -> impl FnOnce(io::Error) -> Error + '_ {
        move |source| Error { attempt: attempt.to_owned(), source }
    }
}

impl From<NetlinkError> for Error {
    fn from(error: NetlinkError) -> Self {
        Error { attempt: error.attempt.to_owned(), source: error.source }
    }
}

#[derive(Debug)]
struct Inner {
    namespace: Arc<OwnedFd>,
    options: Options,
    book: Arc<Book>,
    /// About the scope's namespace.
    route: Mutex<netlink::Socket>,
    /// One for each bridge.
    servers: Mutex<Vec<Server>>,
    /// What the host has routes to.
    known: Vec<Subnet>,
    next_device: AtomicU32,
    uplink: OnceLock<Result<Uplink, NoWayOut>>,
    is_warned: std::sync::atomic::AtomicBool,
}

/// The network for all who name none.
const SHARED: &str = "default";
/// Devices of a scope's namespace are numbered by us: the bridges, then the containers' devices. What others make there
/// gets the numbers below.
const FIRST_BRIDGE: u32 = 100;
const FIRST_PORT: u32 = 1000;
/// As many as there are numbers for.
const BRIDGES_MAX: usize = (FIRST_PORT - FIRST_BRIDGE) as usize;
/// Routes of what comes from bridges that lead out.
pub(crate) const TABLE_OUT: u32 = 100;
/// Routes of what comes from internal bridges: none.
const TABLE_INTERNAL: u32 = 101;
const RULE_PRIORITY: u32 = 100;
/// Between containers.
const MTU: u32 = 1500;
/// The container's own loopback is 1.
const FIRST_INSIDE: u32 = 2;

impl Networks {
    /// Prepares a fresh network namespace, which this process's user namespace must own. No network is made yet.
    ///
    /// # Errors
    /// The kernel refuses; then there are no private networks here.
    pub fn open(namespace: OwnedFd, options: Options) -> Result<Networks, Error> {
        const ATTEMPT: &str = "prepare a private network";
        let (known, _) = link::routes(&netlink::Socket::route().map_err(Error::at(ATTEMPT))?)?;
        let route = inside::visit(namespace.as_fd(), || {
            inside::set("ipv4/ip_forward", "1")?;
            // The networks are IPv4; link-local addresses would only cost time. A kernel without IPv6 has no setting.
            drop(inside::set("ipv6/conf/default/disable_ipv6", "1"));
            netlink::Socket::route()
        })
        .map_err(Error::at(ATTEMPT))?;
        const LOOPBACK: u32 = 1;
        route.request(vec![link::up(LOOPBACK), link::dead_end(TABLE_OUT), link::dead_end(TABLE_INTERNAL)])?;
        let book = Arc::new(Book { resolvers: options.resolvers.clone(), ..Book::default() });
        Ok(Networks(Arc::new(Inner {
            namespace: Arc::new(namespace),
            options,
            book,
            route: Mutex::new(route),
            servers: Mutex::default(),
            known,
            next_device: AtomicU32::new(FIRST_PORT),
            uplink: OnceLock::new(),
            is_warned: false.into(),
        })))
    }

    /// Makes room for a member: its addresses are known from now on, its names when it is attached.
    ///
    /// # Errors
    /// A network cannot be made, or has no address left.
    pub fn reserve(&self, member: Member) -> Result<Membership, Error> {
        let mut joins = member.joins;
        if joins.is_empty() {
            joins.push(Join { network: SHARED.to_owned(), ..Join::default() });
        }
        let mut places = Vec::with_capacity(joins.len());
        for join in joins {
            let bridge = self.bridge(&join)?;
            let own = [member.name.clone()];
            let names = own.into_iter().chain(member.aliases.iter().cloned()).chain(join.aliases).collect();
            places.push(Seat { bridge, address: join.address, names });
        }
        let added = self.0.book.names().add(&member.name, places);
        let id = added.map_err(io::Error::other).map_err(Error::at("find an address for a container"))?;
        let places = self.0.book.names().places(id);
        let membership = Membership { networks: self.clone(), id, places, published: Mutex::default() };
        if membership.leads_out() && self.0.uplink.get().is_none() {
            // Made while the container starts. Whoever needs it first waits for it.
            let networks = self.clone();
            drop(inside::thread("way out", move || {
                let _ = networks.uplink();
            }));
        }
        Ok(membership)
    }

    /// How connections leave; waits until that is known.
    ///
    /// # Errors
    /// They do not, with the reason and the remedy.
    pub fn way_out(&self) -> Result<uplink::WayOut, NoWayOut> {
        self.uplink().as_ref().map(|uplink| uplink.way).map_err(Clone::clone)
    }

    /// The address at which containers reach the host's services that listen on all its addresses.
    pub fn host_gateway(&self) -> Option<IpAddr> {
        self.uplink().as_ref().ok()?.host
    }

    /// Why nothing leads out, once: for the first who asks after a member that should have had a way out.
    pub fn take_warning(&self) -> Option<String> {
        let no_way_out = self.0.uplink.get()?.as_ref().err()?;
        (!self.0.is_warned.swap(true, Ordering::Relaxed)).then(|| no_way_out.to_string())
    }

    fn uplink(&self) -> &Result<Uplink, NoWayOut> {
        let inner = &self.0;
        inner.uplink.get_or_init(|| {
            let uplink = uplink::make(&inner.namespace, &inner.options)?;
            let route = inner.route();
            let opened = route.request(vec![link::default_route(TABLE_OUT, uplink.gateway, uplink.device)]);
            opened.map_err(|error| NoWayOut::failed(&error))?;
            inner.book.has_way_out.store(true, Ordering::Relaxed);
            Ok(uplink)
        })
    }

    /// Index of the bridge of a network, which is made when it is new.
    fn bridge(&self, join: &Join) -> Result<usize, Error> {
        let inner = &self.0;
        let mut servers = inner.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let made = inner.book.names().bridges.iter().position(|bridge| bridge.name == join.network);
        if let Some(at) = made {
            return Ok(at);
        }
        let attempt = format!("make the network `{}`", join.network);
        let fail = |message: &str| Error { attempt: attempt.clone(), source: io::Error::other(message.to_owned()) };
        let at = servers.len();
        if at >= BRIDGES_MAX {
            return Err(fail("there are too many networks"));
        }
        let taken: Vec<(String, Subnet)> =
            inner.book.names().bridges.iter().map(|bridge| (bridge.name.clone(), bridge.subnet)).collect();
        let is_apart = |subnet: Subnet| taken.iter().find(|(_, other)| !subnet.is_free(&[*other]));
        let bridge = match &join.range {
            Some(range) => {
                let bridge = Bridge::within(join, range).map_err(|reason| fail(&reason))?;
                if let Some((other, subnet)) = is_apart(bridge.subnet) {
                    return Err(fail(&format!("its addresses {} are those of `{other}` ({subnet})", bridge.subnet)));
                }
                bridge
            }
            None => {
                let free = |subnet: &Subnet| subnet.is_free(&inner.known) && is_apart(*subnet).is_none();
                let subnet = subnet::for_bridges()
                    .find(free)
                    .ok_or_else(|| fail("the host has routes to all addresses from 10.231.0.0 to 10.246.255.255"))?;
                Bridge::new(&join.network, subnet, join.internal)
            }
        };
        let subnet = bridge.subnet;
        let (name, index) = (format!("br{at}"), FIRST_BRIDGE + at as u32);
        let table = if join.internal { TABLE_INTERNAL } else { TABLE_OUT };
        inner.route().request(vec![
            link::bridge(&name, index, mac(bridge.gateway())),
            link::address(index, bridge.gateway(), subnet.prefix()),
            link::rule(&name, table, RULE_PRIORITY),
            // Networks are apart, and what is meant for one of them must not leave by mistake.
            link::closed(TABLE_OUT, subnet),
        ])?;
        let server = Server::start(&inner.namespace, bridge.gateway(), inner.book.clone())
            .map_err(|source| Error { attempt: "start a name server".to_owned(), source })?;
        inner.book.names().bridges.push(bridge);
        servers.push(server);
        Ok(at)
    }
}

impl Inner {
    fn route(&self) -> std::sync::MutexGuard<'_, netlink::Socket> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A member's room in its networks. Dropping it frees its addresses and names and closes its published ports; its devices
/// go with its namespace.
#[derive(Debug)]
pub struct Membership {
    networks: Networks,
    id: u64,
    places: Vec<Place>,
    published: Mutex<Vec<Published>>,
}

impl Membership {
    /// Its addresses, in the order of its networks.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.places.iter().map(|place| place.address.into()).collect()
    }

    /// Whether it is in a network that is not internal.
    pub fn leads_out(&self) -> bool {
        let names = self.networks.0.book.names();
        self.places.iter().any(|place| !names.bridges[place.bridge].internal)
    }

    /// What its `/etc/resolv.conf` has to say.
    pub fn resolv_conf(&self) -> String {
        let leads_out = self.leads_out() && self.networks.0.book.resolvers.is_none();
        let names = self.networks.0.book.names();
        let server = self.places.first().map_or(Ipv4Addr::LOCALHOST, |place| names.bridges[place.bridge].gateway());
        let search = if leads_out { dns::host_search() } else { String::new() };
        // Names of containers have no dots, and are to be asked for as they are.
        format!("nameserver {server}\n{search}options ndots:0\n")
    }

    /// Joins a container's network namespace, which a child of this process's user namespace may own. Its names can be
    /// resolved from now on until `process` (a pidfd, or what is readable at its end) has ended. May be called again for
    /// another namespace when the former is gone.
    ///
    /// Waits for the way out, so that a program can connect from its first moment on.
    ///
    /// # Errors
    /// The kernel refuses. A missing way out is no error.
    pub fn attach(&self, namespace: BorrowedFd<'_>, process: BorrowedFd<'_>) -> Result<(), Error> {
        const ATTEMPT: &str = "join a private network";
        let inner = &self.networks.0;
        let route = inside::visit(namespace, || {
            drop(inside::set("ipv6/conf/default/disable_ipv6", "1"));
            netlink::Socket::route()
        })
        .map_err(Error::at(ATTEMPT))?;
        let mut settings = Vec::new();
        let mut gateway = None;
        for (number, place) in (0u32..).zip(&self.places) {
            let (prefix, leads_out, bridge_gateway) = {
                let names = inner.book.names();
                let bridge = &names.bridges[place.bridge];
                (bridge.subnet.prefix(), !bridge.internal, bridge.gateway())
            };
            let device = inner.next_device.fetch_add(1, Ordering::Relaxed);
            let near = link::End { name: &format!("v{device}"), index: device, mac: None };
            let index = FIRST_INSIDE + number;
            let far = link::End { name: &format!("eth{number}"), index, mac: Some(mac(place.address)) };
            let bridge = FIRST_BRIDGE + place.bridge as u32;
            inner.route().request(vec![link::pair(&near, Some(bridge), &far, namespace, MTU)])?;
            settings.extend([link::address(index, place.address, prefix), link::up(index)]);
            if leads_out && gateway.is_none() {
                gateway = Some(link::default_route(link::TABLE_MAIN, bridge_gateway, index));
            }
        }
        // Without a way out there is no route either, so that connections fail at once: the kernel refuses only one packet a
        // second (`ip_error`). What is wrong is told by `take_warning`.
        settings.extend(gateway.filter(|_| self.networks.uplink().is_ok()));
        route.request(settings)?;
        let process = process.try_clone_to_owned().map_err(Error::at(ATTEMPT))?;
        inner.book.names().starts(self.id, process);
        Ok(())
    }

    /// Offers ports of the container on the host, until the membership is dropped.
    ///
    /// # Errors
    /// A port of the host is in use or may not be used.
    pub fn publish(&self, ports: &[Port]) -> Result<Vec<Bound>, PublishError> {
        let Some(place) = self.places.first() else { return Ok(Vec::new()) };
        let mut bound = Vec::with_capacity(ports.len());
        for port in ports {
            let published = publish::publish(&self.networks.0.namespace, place.address, port)?;
            bound.push(published.bound());
            self.published.lock().unwrap_or_else(PoisonError::into_inner).push(published);
        }
        Ok(bound)
    }

    /// The networks that it belongs to.
    pub fn networks(&self) -> &Networks {
        &self.networks
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.networks.0.book.names().remove(self.id);
    }
}

/// A hardware address that follows from the address, as docker has them, so that what others remember stays true.
fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}
