//! What commands and the owner of a project say to each other: a call, then answers, each a JSON line.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::SocketAddr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, SystemTime},
};

use events::Record;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use services::{Change, Recreate, Status};

use super::{logs::Line, source::Source, told::Told};

/// Raised when a message changes its meaning. Program and owner are usually the same file; after an update they may differ.
pub(crate) const VERSION: u32 = 3;
/// The environment is part of a call, and the kernel bounds that to a few megabytes.
const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Descriptors that travel with one message: the three streams of a process.
const DESCRIPTORS_MAX: usize = 3;

/// What a command asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    /// [`VERSION`].
    pub(crate) v: u32,
    /// What.
    pub(crate) request: Request,
}

/// What a command asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Bring services up.
    Up(Box<Up>),
    /// Stop and remove containers; without names, all of them, and the owner ends.
    Down {
        /// Services.
        services: Vec<String>,
        /// Also the volumes of these names.
        volumes: Vec<String>,
        /// Also all volumes of the project.
        all_volumes: bool,
        /// Instead of their own.
        grace: Option<Duration>,
        /// Whoever hangs up meanwhile has lost patience: kill.
        kill_when_left: bool,
    },
    /// Stop containers.
    Stop {
        /// Services.
        services: Vec<String>,
        /// Instead of their own.
        grace: Option<Duration>,
    },
    /// Start stopped containers.
    Start(Vec<String>),
    /// Stop and start containers.
    Restart {
        /// Services.
        services: Vec<String>,
        /// Instead of their own.
        grace: Option<Duration>,
    },
    /// List containers.
    List,
    /// Show what containers say.
    Logs {
        /// Services; empty: all.
        services: Vec<String>,
        /// Go on until they have ended.
        follow: bool,
        /// Only so many lines of each container.
        tail: Option<usize>,
        /// Only what was said since then, in nanoseconds since 1970.
        since: Option<u64>,
        /// Leave out services with `attach: false`.
        attached_only: bool,
        /// Go on also when they have ended, or are not there yet, until the command closes its side.
        forever: bool,
    },
    /// Wait until the containers of these services (of all without names) have ended.
    Ended(Vec<String>),
    /// Change files in all running containers of a service.
    Sync {
        /// The service.
        service: String,
        /// What becomes of what.
        moves: Vec<Move>,
    },
    /// Start a process in a container. Its streams come with the call, unless it gets a terminal.
    Exec(Box<Exec>),
}

/// A path of the host, and its place in a container; what is not here any more goes away there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Move {
    pub(crate) from: Vec<u8>,
    pub(crate) to: Vec<u8>,
}

/// What `up` asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Up {
    pub(crate) source: Source,
    pub(crate) services: Vec<String>,
    pub(crate) with_dependencies: bool,
    pub(crate) recreate: Recreate,
    pub(crate) remove_orphans: bool,
    pub(crate) pull: bool,
    pub(crate) no_cache: bool,
    pub(crate) scale: BTreeMap<String, u32>,
}

/// What `exec` asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Exec {
    pub(crate) service: String,
    pub(crate) number: Option<u32>,
    pub(crate) command: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) user: Option<String>,
    pub(crate) workdir: Option<String>,
    /// Rows and columns of a terminal of its own, whose other side comes back with [`Answer::Terminal`].
    pub(crate) terminal: Option<(u16, u16)>,
    /// Nobody waits for it.
    pub(crate) detached: bool,
}

/// What the owner says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// Something happened to a container.
    Change(Change),
    /// Something happened in a build or download.
    Event(Box<Record>),
    /// A volume was removed.
    VolumeRemoved(String),
    /// The containers.
    Containers(Vec<Container>),
    /// What containers said.
    Lines(Vec<Line>),
    /// The other side of a terminal comes with this.
    Terminal,
    /// How the process ended.
    Exit(u8),
    /// It did not work.
    Failed(Told),
    /// It is done.
    Done,
}

/// A container in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) service: String,
    pub(crate) number: u32,
    pub(crate) image: String,
    pub(crate) command: Vec<String>,
    pub(crate) created: SystemTime,
    pub(crate) status: Status,
    pub(crate) ports: Vec<Port>,
}

/// A port that the host offers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Port {
    pub(crate) host: SocketAddr,
    pub(crate) target: u16,
    pub(crate) protocol: String,
}

/// A message as it goes over the socket.
pub(crate) fn encode(message: &impl Serialize) -> std::io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(message)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Sends a message with descriptors.
pub(crate) fn send(stream: &UnixStream, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> std::io::Result<()> {
    let bytes = encode(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut rest: &[u8] = &bytes;
    let mut fds = fds;
    while !rest.is_empty() {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        match sendmsg(stream, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL) {
            Ok(sent) => {
                rest = &rest[sent..];
                fds = &[];
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => wait_for_room(stream)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn wait_for_room(stream: &UnixStream) -> std::io::Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::OUT)];
    poll(&mut fds, None).map(drop).map_err(Into::into)
}

/// Reads messages and the descriptors that come with them.
pub(crate) struct Receiver {
    stream: UnixStream,
    buffer: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Receiver {
    /// Of a stream that blocks.
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, buffer: Vec::new(), fds: VecDeque::new() }
    }

    /// The stream, for answers.
    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Descriptors that came so far.
    pub(crate) fn take_fds(&mut self) -> Vec<OwnedFd> {
        self.fds.drain(..).collect()
    }

    /// The next message; `None` when the other side has closed.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> std::io::Result<Option<T>> {
        let mut seen = 0;
        loop {
            if let Some(end) = self.buffer[seen..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=seen + end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            seen = self.buffer.len();
            if seen > MESSAGE_BYTES_MAX {
                return Err(std::io::Error::other("a message is too long"));
            }
            if !self.read()? {
                return Ok(None);
            }
        }
    }

    fn read(&mut self) -> std::io::Result<bool> {
        let mut piece = vec![0; 64 * 1024];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let read = loop {
            match recvmsg(&self.stream, &mut [IoSliceMut::new(&mut piece)], &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(message) => break message.bytes,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        self.buffer.extend_from_slice(&piece[..read]);
        Ok(read > 0)
    }
}
