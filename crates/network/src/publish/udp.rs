//! Datagrams between the host and a container: each who sends has a socket of its own inside, through which answers come.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use crate::stop::Stop;

/// Who has been silent for longer is forgotten, as docker's proxy does.
const IDLE_MAX: Duration = Duration::from_secs(90);
/// Most who are remembered; the longest silent one makes room.
const PEERS_MAX: usize = 512;
/// The largest datagram.
const DATAGRAM_MAX: usize = 65_535;

struct Peer {
    socket: UdpSocket,
    heard: Instant,
}

/// Relays until told to stop. Runs in the scope's namespace; the socket is the host's.
pub(super) fn relay(stop: &Stop, host: &UdpSocket, target: SocketAddr) {
    if host.set_nonblocking(true).is_err() {
        return;
    }
    let mut peers: HashMap<SocketAddr, Peer> = HashMap::new();
    let mut datagram = vec![0; DATAGRAM_MAX];
    loop {
        let order: Vec<SocketAddr> = peers.keys().copied().collect();
        let fds: Vec<_> =
            std::iter::once(host.as_fd()).chain(order.iter().map(|from| peers[from].socket.as_fd())).collect();
        let Some(ready) = stop.wait(&fds, Some(IDLE_MAX)) else { return };
        for (from, _) in order.iter().zip(&ready[1..]).filter(|(_, is_ready)| **is_ready) {
            if let Some(peer) = peers.get_mut(from) {
                while let Ok(length) = peer.socket.recv(&mut datagram) {
                    peer.heard = Instant::now();
                    // Lost, as datagrams may be.
                    drop(host.send_to(&datagram[..length], from));
                }
            }
        }
        while let Ok((length, from)) = host.recv_from(&mut datagram) {
            if !peers.contains_key(&from) {
                make_room(&mut peers);
                if let Ok(peer) = meet(target) {
                    peers.insert(from, peer);
                }
            }
            if let Some(peer) = peers.get_mut(&from) {
                peer.heard = Instant::now();
                drop(peer.socket.send(&datagram[..length]));
            }
        }
        peers.retain(|_, peer| peer.heard.elapsed() < IDLE_MAX);
    }
}

fn meet(target: SocketAddr) -> io::Result<Peer> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(target)?;
    socket.set_nonblocking(true)?;
    Ok(Peer { socket, heard: Instant::now() })
}

fn make_room(peers: &mut HashMap<SocketAddr, Peer>) {
    if peers.len() >= PEERS_MAX
        && let Some(oldest) = peers.iter().min_by_key(|(_, peer)| peer.heard).map(|(from, _)| *from)
    {
        peers.remove(&oldest);
    }
}
