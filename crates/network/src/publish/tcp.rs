//! TCP connections between the host and a container, each relayed by two threads.

use std::{
    collections::HashMap,
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::net::sockopt::set_socket_linger;

use crate::{inside, stop::Stop};

/// Connections of one port at once. More wait until one ends.
const CONNECTIONS_MAX: usize = 512;
/// A container on this machine answers at once or not at all.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How often a full house looks whether somebody has left.
const FULL_WAIT: Duration = Duration::from_millis(20);

/// The ends of all connections, so that they can be closed with their port.
type Open = Arc<Mutex<HashMap<u64, (TcpStream, TcpStream)>>>;

/// Relays until told to stop. Runs in the scope's namespace; the listener is the host's.
pub(super) fn relay(stop: &Stop, listener: &TcpListener, target: SocketAddr) {
    if listener.set_nonblocking(true).is_err() {
        return;
    }
    let open = Open::default();
    let mut next = 0;
    let count = || open.lock().unwrap_or_else(PoisonError::into_inner).len();
    loop {
        let waited = if count() < CONNECTIONS_MAX {
            stop.wait(&[listener.as_fd()], None)
        } else {
            stop.wait(&[], Some(FULL_WAIT))
        };
        let Some(ready) = waited else { break };
        if ready.first() != Some(&true) {
            continue;
        }
        let Ok((outer, _)) = listener.accept() else { continue };
        next += 1;
        let (id, registered) = (next, open.clone());
        // A connection for which there is no thread is closed.
        drop(inside::thread("connection", move || connection(&outer, target, id, &registered)));
    }
    for (outer, inner) in open.lock().unwrap_or_else(PoisonError::into_inner).values() {
        let _ = (outer.shutdown(Shutdown::Both), inner.shutdown(Shutdown::Both));
    }
}

fn connection(outer: &TcpStream, target: SocketAddr, id: u64, open: &Open) {
    let Ok(inner) = TcpStream::connect_timeout(&target, CONNECT_MAX) else {
        // Nobody listens in there: a reset, which no one can take for a service that says nothing.
        let _ = set_socket_linger(outer.as_fd(), Some(Duration::ZERO));
        return;
    };
    let register = || -> io::Result<()> {
        outer.set_nonblocking(false)?;
        outer.set_nodelay(true)?;
        inner.set_nodelay(true)?;
        let ends = (outer.try_clone()?, inner.try_clone()?);
        open.lock().unwrap_or_else(PoisonError::into_inner).insert(id, ends);
        Ok(())
    };
    if register().is_err() {
        return;
    }
    std::thread::scope(|scope| {
        let back = std::thread::Builder::new().name("connection".into()).stack_size(STACK_BYTES);
        let started = back.spawn_scoped(scope, || one_way(&inner, outer));
        if started.is_ok() {
            one_way(outer, &inner);
        }
    });
    open.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
}

/// Copying is all that a thread does.
const STACK_BYTES: usize = 128 * 1024;

/// Copies until one side has said all, and tells the other so; the opposite direction goes on.
fn one_way(mut from: &TcpStream, mut to: &TcpStream) {
    // The kernel moves the bytes (splice(2)).
    match io::copy(&mut from, &mut to) {
        Ok(_) => drop(to.shutdown(Shutdown::Write)),
        // A broken connection is broken in both directions.
        Err(_) => {
            let _ = set_socket_linger(from.as_fd(), Some(Duration::ZERO));
            let _ = set_socket_linger(to.as_fd(), Some(Duration::ZERO));
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        }
    }
}
