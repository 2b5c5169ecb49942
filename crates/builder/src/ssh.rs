//! `RUN --mount=type=ssh`: a socket in the container behind which a key agent answers.
//!
//! The container never reaches the agent itself: we stand between, as BuildKit does, and pass on only the questions for
//! keys and signatures, so that a build cannot add, remove or lock keys. Standing between is also what makes it work for
//! containers with users of their own, whom an agent would refuse.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, Read, Write as _},
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::{
            fs::DirBuilderExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use engine::SshSource;
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{CWD, Mode, OFlags, openat},
};

use crate::work::locked;

/// Messages are longer in no agent (OpenSSH, `AGENT_MAX_LEN`).
const MESSAGE_BYTES_MAX: u32 = 256 * 1024;
/// Connections at once; ssh opens one for each of its processes.
const CONNECTIONS_MAX: usize = 64;
/// Private keys are a few kilobytes (BuildKit takes 100 KiB).
const KEY_BYTES_MAX: u64 = 100 * 1024;
// Message numbers of draft-miller-ssh-agent, section 5.1.
const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;
/// Name of each socket that we make; its directory is its own.
const SOCKET: &str = "agent.sock";

/// A key agent cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SshError {
    #[error("cannot read the private key {}", .path.display())]
    Key { path: PathBuf, source: io::Error },
    #[error("cannot start ssh-agent, which serves key files; install openssh-client, or give the socket of an agent")]
    Agent(#[source] io::Error),
    #[error(
        "ssh-add does not take the private key {}: {said}; a key with a passphrase has to be in an agent of yours \
         (`ssh-add`), and the agent given with `--ssh default`", .path.display()
    )]
    Refused { path: PathBuf, said: String },
    #[error("cannot make a socket for the container")]
    Socket(#[from] io::Error),
}

/// Agents that were started for key files, each when it was first needed; ended with the build.
#[derive(Default)]
pub(crate) struct Agents(Mutex<BTreeMap<String, Arc<KeyAgent>>>);

impl Agents {
    /// Serves `source` at `directory/agent.sock`, with these permission bits, until the socket is dropped. `scratch` is for
    /// what lasts as long as the build.
    pub(crate) fn serve(
        &self,
        (id, source): (&str, &SshSource),
        scratch: &Path,
        directory: &Path,
        mode: u32,
        owner: (u32, u32),
    ) -> Result<Socket, SshError> {
        fs_err::create_dir_all(directory)?;
        let agent = match source {
            SshSource::Agent(path) => Upstream::Given(path.clone()),
            SshSource::Keys(keys) => {
                let mut agents = locked(&self.0);
                let agent = match agents.get(id) {
                    Some(agent) => agent.clone(),
                    None => {
                        let name = format!("ssh-agent-{}", agents.len());
                        let agent = Arc::new(KeyAgent::start(keys, scratch.join(name))?);
                        agents.insert(id.to_owned(), agent.clone());
                        agent
                    }
                };
                Upstream::Own(agent)
            }
        };
        Ok(Socket::open(agent, directory, mode, owner)?)
    }
}

/// ssh-agent of the host, with some keys, for the length of a build.
struct KeyAgent {
    /// What ssh-agent was told to run: it ends when its input does, so also when we are killed, and the agent after it.
    watched: Child,
    agent: Option<rustix::process::Pid>,
    directory: PathBuf,
}

impl KeyAgent {
    fn start(keys: &[PathBuf], directory: PathBuf) -> Result<Self, SshError> {
        std::fs::DirBuilder::new().mode(0o700).create(&directory)?;
        let mut watched = Command::new("ssh-agent")
            // Relative: the path of a socket may have 107 bytes only.
            .args(["-a", SOCKET, "sh", "-c", "echo \"$SSH_AGENT_PID\"; exec cat"])
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(SshError::Agent)?;
        let mut line = String::new();
        if let Some(output) = watched.stdout.take() {
            io::BufReader::new(output).read_line(&mut line).map_err(SshError::Agent)?;
        }
        let agent = line.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
        let started = Self { watched, agent, directory };
        if agent.is_none() {
            return Err(SshError::Agent(io::Error::other("it ended at once")));
        }
        keys.iter().try_for_each(|key| started.add(key))?;
        Ok(started)
    }

    /// The key goes through a pipe: ssh-add judges the permission bits of files, by ids that may be mapped.
    fn add(&self, path: &Path) -> Result<(), SshError> {
        let unreadable = |source| SshError::Key { path: path.to_owned(), source };
        let mut key = Vec::new();
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(KEY_BYTES_MAX).read_to_end(&mut key).map_err(unreadable)?;
        if !key.ends_with(b"\n") {
            key.push(b'\n');
        }
        let mut command = Command::new("ssh-add")
            .args(["-q", "-"])
            .current_dir(&self.directory)
            .env("SSH_AUTH_SOCK", SOCKET)
            // Nobody is asked for a passphrase in the middle of a build.
            .env("SSH_ASKPASS", "/bin/false")
            .env("SSH_ASKPASS_REQUIRE", "force")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(SshError::Agent)?;
        if let Some(mut input) = command.stdin.take() {
            // One that refuses early says why by its code.
            let _ = input.write_all(&key);
        }
        let output = command.wait_with_output().map_err(SshError::Agent)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or("it does not say why").trim().to_owned();
        Err(SshError::Refused { path: path.to_owned(), said })
    }
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        // Its parent, which is our child, is still there, so the number cannot have passed to another process.
        if let Some(agent) = self.agent {
            let _ = rustix::process::kill_process(agent, rustix::process::Signal::TERM);
        }
        drop(self.watched.stdin.take());
        let _ = self.watched.wait();
        // The scope removes its directory in the end in any case.
        let _ = fs_err::remove_dir_all(&self.directory);
    }
}

/// Where questions go.
enum Upstream {
    Given(PathBuf),
    Own(Arc<KeyAgent>),
}

impl Upstream {
    fn connect(&self) -> io::Result<UnixStream> {
        let path = match self {
            Self::Given(path) => path.clone(),
            Self::Own(agent) => agent.directory.join(SOCKET),
        };
        let name = path.file_name().unwrap_or_default().to_owned();
        let directory = path.parent().unwrap_or(Path::new("/"));
        UnixStream::connect(Short::open(directory)?.path().join(name))
    }
}

/// A directory by its descriptor, since the path of a socket may have 107 bytes only.
struct Short(OwnedFd);

impl Short {
    fn open(directory: &Path) -> io::Result<Self> {
        Ok(Self(openat(CWD, directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

/// A socket with a thread that answers on it; the thread and its connections end with this.
pub(crate) struct Socket {
    path: PathBuf,
    /// Its end is what the thread waits for.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Socket {
    fn open(upstream: Upstream, directory: &Path, mode: u32, owner: (u32, u32)) -> io::Result<Self> {
        let short = Short::open(directory)?;
        let listener = UnixListener::bind(short.path().join(SOCKET))?;
        listener.set_nonblocking(true)?;
        let path = directory.join(SOCKET);
        if owner != (0, 0) {
            std::os::unix::fs::chown(&path, Some(owner.0), Some(owner.1))?;
        }
        fs_err::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let thread = std::thread::Builder::new().name("ssh agent".into());
        let thread = thread.spawn(move || listen(&listener, &stopped, &upstream))?;
        Ok(Self { path, stop: Some(stop), thread: Some(thread) })
    }

    /// Path of the socket on the host.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(listener: &UnixListener, stopped: &OwnedFd, upstream: &Upstream) {
    let open: Mutex<Vec<Arc<(UnixStream, UnixStream)>>> = Mutex::default();
    std::thread::scope(|scope| {
        loop {
            let mut fds =
                [PollFd::new(listener, PollFlags::IN), PollFd::from_borrowed_fd(stopped.as_fd(), PollFlags::IN)];
            if poll(&mut fds, None).is_err_and(|errno| errno != rustix::io::Errno::INTR) || !fds[1].revents().is_empty()
            {
                break;
            }
            let Ok((client, _)) = listener.accept() else { continue };
            // A client that is turned away sees the end of its connection, as from an agent that has gone.
            let (Ok(()), Ok(agent)) = (client.set_nonblocking(false), upstream.connect()) else { continue };
            let mut connections = locked(&open);
            connections.retain(|connection| Arc::strong_count(connection) > 1);
            if connections.len() >= CONNECTIONS_MAX {
                continue;
            }
            let connection = Arc::new((client, agent));
            connections.push(connection.clone());
            scope.spawn(move || {
                let _ = relay(&connection.0, &connection.1);
                let _ = connection.0.shutdown(std::net::Shutdown::Both);
            });
        }
        // Wakes whoever still reads.
        for connection in locked(&open).drain(..) {
            let _ = connection.0.shutdown(std::net::Shutdown::Both);
            let _ = connection.1.shutdown(std::net::Shutdown::Both);
        }
    });
}

/// Question by question until one side hangs up.
fn relay(mut client: &UnixStream, mut agent: &UnixStream) -> io::Result<()> {
    loop {
        let question = read_message(client)?;
        let answer = match question.first() {
            Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)) => {
                write_message(&mut agent, &question)?;
                read_message(agent)?
            }
            _ => vec![FAILURE],
        };
        write_message(&mut client, &answer)?;
    }
}

fn read_message(mut from: &UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut message = vec![0; length as usize];
    from.read_exact(&mut message)?;
    Ok(message)
}

fn write_message(to: &mut &UnixStream, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(message);
    to.write_all(&bytes)
}
