//! Netlink messages: how the kernel is asked for links, addresses, routes and packet filters (netlink(7)).
//!
//! Hand-written, because we need a dozen kinds of messages, and the crates for it are the slowest to compile of all.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::{self, SocketAddrNetlink},
    recv, sendto, socket_with, sockopt,
};

/// The kernel refused a request.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt}")]
pub(crate) struct NetlinkError {
    /// Completes "cannot …".
    pub(crate) attempt: &'static str,
    #[source]
    pub(crate) source: io::Error,
}

impl NetlinkError {
    pub(crate) fn is(&self, errno: rustix::io::Errno) -> bool {
        self.source.raw_os_error() == Some(errno.raw_os_error())
    }
}

/// Header flags (linux/netlink.h).
pub(crate) const REQUEST: u16 = 1;
const ACK: u16 = 4;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const EXCLUSIVE: u16 = 0x200;
pub(crate) const APPEND: u16 = 0x800;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER_BYTES: usize = 16;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// The kernel answers at once; a longer wait is a broken kernel, which must not hang a run.
const ANSWER_MAX: std::time::Duration = std::time::Duration::from_secs(10);
/// What a dump sends at once (netlink(7) advises 32 KiB).
const RECEIVE_BYTES: usize = 32 * 1024;

/// A request in the making: header, fixed part, attributes.
pub(crate) struct Message {
    attempt: &'static str,
    bytes: Vec<u8>,
}

impl Message {
    /// `attempt` completes "cannot …".
    pub(crate) fn new(attempt: &'static str, kind: u16, flags: u16, fixed: &[u8]) -> Message {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        let mut message = Message { attempt, bytes };
        message.append(fixed);
        message
    }

    /// Bytes without a header of their own, as the fixed part of a nested message.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Message {
        self.add(kind, value);
        self
    }

    pub(crate) fn add(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).expect("attributes of ours are short");
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.append(value);
    }

    /// A string as the kernel wants it: with its final zero.
    pub(crate) fn text(self, kind: u16, value: &str) -> Message {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    pub(crate) fn nested(mut self, kind: u16, fill: impl FnOnce(Message) -> Message) -> Message {
        let start = self.bytes.len();
        self.add(kind | NESTED, &[]);
        let mut filled = fill(self);
        let length = u16::try_from(filled.bytes.len() - start).expect("attributes of ours are short");
        filled.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        filled
    }
}

/// One attribute of an answer: its kind without flags, and its value.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A conversation with the kernel about the network namespace in which the socket was made, for good.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// Links, addresses, routes (rtnetlink(7)).
    pub(crate) fn route() -> io::Result<Socket> {
        Socket::open(None)
    }

    /// Packet filters.
    pub(crate) fn netfilter() -> io::Result<Socket> {
        Socket::open(Some(netlink::NETFILTER))
    }

    fn open(protocol: Option<Protocol>) -> io::Result<Socket> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(ANSWER_MAX))?;
        Ok(Socket(socket))
    }

    /// Sends all in one go and waits for all answers; the first failure is told.
    pub(crate) fn request(&self, mut messages: Vec<Message>) -> Result<(), NetlinkError> {
        for message in &mut messages {
            message.bytes[6] |= ACK as u8;
        }
        self.send(&mut messages)?;
        let mut outcome = Ok(());
        let mut answered = 0;
        while answered < messages.len() {
            let bytes = self.receive(&messages)?;
            for (kind, sequence, body) in parts(&bytes) {
                if kind != NLMSG_ERROR {
                    continue;
                }
                answered += 1;
                let failed = failure(body);
                if let (Some(source), true) = (failed, outcome.is_ok()) {
                    let at = (sequence as usize).saturating_sub(1).min(messages.len() - 1);
                    outcome = Err(NetlinkError { attempt: messages[at].attempt, source });
                }
            }
        }
        outcome
    }

    /// A transaction of netfilter: all or nothing.
    pub(crate) fn transaction(mut messages: Vec<Message>) -> Result<(), NetlinkError> {
        const BATCH_BEGIN: u16 = 0x10;
        const BATCH_END: u16 = 0x11;
        const NFNL_SUBSYS_NFTABLES: u8 = 10;
        let fixed = [0, 0, 0, NFNL_SUBSYS_NFTABLES];
        let attempt = "change the packet filter";
        // The last one answers for all: errors come before it.
        if let Some(last) = messages.last_mut() {
            last.bytes[6] |= ACK as u8;
        }
        messages.insert(0, Message::new(attempt, BATCH_BEGIN, 0, &fixed));
        messages.push(Message::new(attempt, BATCH_END, 0, &fixed));
        // A socket of its own: what else the kernel may have to say goes with it.
        let socket = Socket::netfilter().map_err(|source| NetlinkError { attempt, source })?;
        socket.send(&mut messages)?;
        loop {
            let bytes = socket.receive(&messages)?;
            if let Some((_, sequence, body)) = parts(&bytes).find(|(kind, ..)| *kind == NLMSG_ERROR) {
                let at = (sequence as usize).saturating_sub(1).min(messages.len() - 1);
                return failure(body)
                    .map_or(Ok(()), |source| Err(NetlinkError { attempt: messages[at].attempt, source }));
            }
        }
    }

    /// Everything that the kernel lists: the kind and body of each message.
    pub(crate) fn dump(&self, message: Message, mut each: impl FnMut(u16, &[u8])) -> Result<(), NetlinkError> {
        let mut messages = vec![message];
        messages[0].bytes[6..8].copy_from_slice(&(REQUEST | DUMP).to_ne_bytes());
        self.send(&mut messages)?;
        loop {
            let bytes = self.receive(&messages)?;
            for (kind, _, body) in parts(&bytes) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        return failure(body)
                            .map_or(Ok(()), |source| Err(NetlinkError { attempt: messages[0].attempt, source }));
                    }
                    kind => each(kind, body),
                }
            }
        }
    }

    fn send(&self, messages: &mut [Message]) -> Result<(), NetlinkError> {
        let mut all = Vec::new();
        for (number, message) in (1u32..).zip(messages.iter_mut()) {
            let length = message.bytes.len() as u32;
            message.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
            message.bytes[8..12].copy_from_slice(&number.to_ne_bytes());
            all.extend_from_slice(&message.bytes);
        }
        let attempt = messages.first().map_or("ask the kernel", |message| message.attempt);
        sendto(self.0.as_fd(), &all, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))
            .map_err(|errno| NetlinkError { attempt, source: errno.into() })?;
        Ok(())
    }

    fn receive(&self, messages: &[Message]) -> Result<Vec<u8>, NetlinkError> {
        let mut buffer = vec![0; RECEIVE_BYTES];
        loop {
            match recv(self.0.as_fd(), &mut buffer[..], RecvFlags::empty()) {
                Ok((_, length)) => {
                    buffer.truncate(length);
                    return Ok(buffer);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(NetlinkError { attempt: messages[0].attempt, source: errno.into() }),
            }
        }
    }
}

/// Messages of one packet: kind, sequence number, body.
fn parts(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(bytes.get(0..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
        let body = bytes.get(HEADER_BYTES..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, sequence, body))
    })
}

/// The error of an `NLMSG_ERROR`; `None` is an acknowledgement.
fn failure(body: &[u8]) -> Option<io::Error> {
    let errno = i32::from_ne_bytes(body.get(0..4)?.try_into().ok()?);
    (errno != 0).then(|| io::Error::from_raw_os_error(-errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_as_they_were_put_in() {
        let message = Message::new("test", 16, 0, &[7; 6]).text(3, "abc").nested(18, |inner| inner.attribute(1, &[9]));
        let body = &message.bytes[HEADER_BYTES + 8..];
        let found: Vec<(u16, Vec<u8>)> = attributes(body).map(|(kind, value)| (kind, value.to_vec())).collect();
        assert_eq!(found[0], (3, b"abc\0".to_vec()));
        assert_eq!(found[1].0, 18);
        assert_eq!(attributes(&found[1].1).collect::<Vec<_>>(), [(1, &[9u8][..])]);
    }

    #[test]
    fn cut_answers_end_quietly() {
        assert_eq!(attributes(&[8, 0, 1, 0, 1]).count(), 0);
        assert_eq!(parts(&[16, 0, 0]).count(), 0);
    }
}
