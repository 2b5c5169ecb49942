//! Ports of containers on the host: listeners there, and connections made from inside the scope's namespace.
//!
//! Works the same with and without rights on the host.

mod occupant;
mod tcp;
mod udp;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
    thread::JoinHandle,
};

use crate::{inside, stop::Stop};

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// A port to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Address of the host; `None` is 127.0.0.1.
    pub host_address: Option<IpAddr>,
    /// Port of the host; `None` lets the kernel choose.
    pub host_port: Option<u16>,
    /// Port in the container.
    pub container_port: u16,
    /// Protocol.
    pub transport: Transport,
}

/// A published port as it came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Where the host offers it.
    pub host: SocketAddr,
    /// Port in the container.
    pub container_port: u16,
    /// Protocol.
    pub transport: Transport,
}

/// A port of the host cannot be offered.
#[derive(Debug, thiserror::Error)]
#[error("cannot publish port {container_port} at {host}{}", occupant.as_ref().map(|name| format!(": {name} uses it")).unwrap_or_default())]
pub struct PublishError {
    /// Where it should have been.
    pub host: SocketAddr,
    /// The container's port.
    pub container_port: u16,
    /// The process that has the port, when it can be found.
    pub occupant: Option<String>,
    /// The cause.
    #[source]
    pub source: io::Error,
}

/// A port that is offered until this is dropped.
#[derive(Debug)]
pub(crate) struct Published {
    bound: Bound,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Published {
    pub(crate) fn bound(&self) -> Bound {
        self.bound
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.stop.now();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

pub(crate) fn publish(namespace: &OwnedFd, container: Ipv4Addr, port: &Port) -> Result<Published, PublishError> {
    let wanted = SocketAddr::new(port.host_address.unwrap_or(Ipv4Addr::LOCALHOST.into()), port.host_port.unwrap_or(0));
    let fail = |source: io::Error| {
        let is_taken = source.kind() == io::ErrorKind::AddrInUse;
        let occupant = if is_taken { occupant::of(wanted.port(), port.transport) } else { None };
        PublishError { host: wanted, container_port: port.container_port, occupant, source }
    };
    let target = SocketAddr::from((container, port.container_port));
    let stop = Stop::new().map_err(fail)?;
    let stopped = stop.clone();
    let (host, thread) = match port.transport {
        Transport::Tcp => {
            let listener = TcpListener::bind(wanted).map_err(fail)?;
            let relay = move |listener| tcp::relay(&stopped, &listener, target);
            let host = listener.local_addr().map_err(fail)?;
            (host, inside::stay(namespace, "published port", move || relay(listener)))
        }
        Transport::Udp => {
            let socket = UdpSocket::bind(wanted).map_err(fail)?;
            let host = socket.local_addr().map_err(fail)?;
            (host, inside::stay(namespace, "published port", move || udp::relay(&stopped, &socket, target)))
        }
    };
    let bound = Bound { host, container_port: port.container_port, transport: port.transport };
    Ok(Published { bound, stop, thread: Some(thread.map_err(fail)?) })
}
