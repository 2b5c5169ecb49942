//! The name server of a scope: names of containers from the book, all others from the host's name servers.
//!
//! Each bridge has one at its own address (RFC 1035, over UDP and TCP). Who asks is known by the address.

mod forward;
mod message;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::{inside, names::Names, stop::Stop};

pub(crate) use forward::host_search;
use message::Reply;

/// What the name servers of a scope share.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) names: Mutex<Names>,
    /// Connections lead out of the scope's namespace.
    pub(crate) has_way_out: AtomicBool,
    /// In place of the host's.
    pub(crate) resolvers: Option<Vec<SocketAddr>>,
    /// Questions that are being asked outside, and connections.
    pub(crate) busy: AtomicUsize,
}

impl Book {
    pub(crate) fn names(&self) -> std::sync::MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn leads_out(&self) -> bool {
        self.has_way_out.load(Ordering::Relaxed)
    }

    /// Room for one more thread; `None` when there are enough.
    fn ticket(self: &Arc<Self>) -> Option<Ticket> {
        let ticket = Ticket(self.clone());
        (self.busy.fetch_add(1, Ordering::Relaxed) < BUSY_MAX).then_some(ticket)
    }
}

/// Most threads that wait for answers of others: a flood of questions must not take all threads of the host.
const BUSY_MAX: usize = 64;

/// One of the threads that [`BUSY_MAX`] counts.
struct Ticket(Arc<Book>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A name server on one address.
#[derive(Debug)]
pub(crate) struct Server {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

/// The port of name servers.
const PORT: u16 = 53;
/// More than any question, and than any answer that comes over UDP (RFC 6891 has 4,096 as the largest useful size).
const PACKET_MAX: usize = 4096;
/// How long a connection may be silent (RFC 7766 asks for a few seconds).
const CONNECTION_IDLE_MAX: Duration = Duration::from_secs(10);

impl Server {
    /// Serves at an address that a bridge in the namespace has.
    pub(crate) fn start(namespace: &OwnedFd, address: Ipv4Addr, book: Arc<Book>) -> io::Result<Server> {
        let (udp, tcp) = inside::visit(namespace.as_fd(), || {
            Ok((UdpSocket::bind((address, PORT))?, TcpListener::bind((address, PORT))?))
        })?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let stop = Stop::new()?;
        let stopped = stop.clone();
        // In the host's namespace, so that questions for others are asked from there.
        let thread = inside::thread("name server", move || serve(&stopped, Arc::new(udp), &tcp, &book))?;
        Ok(Server { stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.now();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn serve(stop: &Stop, udp: Arc<UdpSocket>, tcp: &TcpListener, book: &Arc<Book>) {
    let mut packet = [0; PACKET_MAX];
    while let Some(ready) = stop.wait(&[udp.as_fd(), tcp.as_fd()], None) {
        if ready[0] {
            while let Ok((length, from)) = udp.recv_from(&mut packet) {
                answer_packet(&packet[..length], from, &udp, book);
            }
        }
        if ready[1] {
            while let Ok((connection, from)) = tcp.accept() {
                let Some(ticket) = book.ticket() else { continue };
                let book = book.clone();
                drop(inside::thread("name server", move || {
                    let _ticket = ticket;
                    // Whoever asks sees the connection end.
                    let _ = answer_connection(connection, from, &book);
                }));
            }
        }
    }
}

fn answer_packet(question: &[u8], from: SocketAddr, udp: &Arc<UdpSocket>, book: &Arc<Book>) {
    let IpAddr::V4(asker) = from.ip() else { return };
    // An answer that cannot be sent is asked for again.
    match message::reply(question, asker, book) {
        Some(Reply::Now(answer)) => drop(udp.send_to(&answer, from)),
        Some(Reply::Outside) => {
            let Some(ticket) = book.ticket() else {
                return drop(udp.send_to(&message::failure(question).unwrap_or_default(), from));
            };
            let (question, udp, book) = (question.to_vec(), udp.clone(), book.clone());
            drop(inside::thread("name server", move || {
                let _ticket = ticket;
                let answer = forward::by_packet(&question, &book).or_else(|| message::failure(&question));
                drop(udp.send_to(&answer.unwrap_or_default(), from));
            }));
        }
        None => {}
    }
}

/// Questions, each after its length (RFC 1035, 4.2.2), until the other side has no more.
fn answer_connection(mut connection: TcpStream, from: SocketAddr, book: &Arc<Book>) -> io::Result<()> {
    let IpAddr::V4(asker) = from.ip() else { return Ok(()) };
    connection.set_nonblocking(false)?;
    connection.set_read_timeout(Some(CONNECTION_IDLE_MAX))?;
    connection.set_write_timeout(Some(CONNECTION_IDLE_MAX))?;
    loop {
        let question = forward::receive(&mut connection)?;
        let answer = match message::reply(&question, asker, book) {
            Some(Reply::Now(answer)) => Some(answer),
            Some(Reply::Outside) => forward::by_connection(&question, book).or_else(|| message::failure(&question)),
            None => None,
        };
        let Some(answer) = answer else { return Ok(()) };
        forward::send(&mut connection, &answer)?;
    }
}
