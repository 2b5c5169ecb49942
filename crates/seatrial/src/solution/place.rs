//! Where a project's owner is found: a directory of the store with its lock, its socket, its logs.

use std::{
    fs::File,
    os::{
        fd::AsRawFd as _,
        unix::{
            fs::DirBuilderExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;

/// The directory of one project.
#[derive(Clone, Debug)]
pub(crate) struct ProjectPlace {
    directory: PathBuf,
}

/// Held by the owner for as long as it lives.
pub(crate) struct OwnerLock(#[expect(dead_code, reason = "held, not used")] File);

const SOCKET: &str = "socket";
const LOCK: &str = "lock";
/// There while an owner lives, and left by one that was killed.
const MARK: &str = "owner";

impl ProjectPlace {
    /// The directory of a project in a store. Project names are harmless as file names.
    pub(crate) fn of(home: &Path, project: &str) -> Self {
        Self { directory: projects(home).join(project) }
    }

    /// The directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes the directory; only its user may look into it.
    pub(crate) fn make(&self) -> std::io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)
    }

    /// Becomes the owner; `None` when there is one.
    pub(crate) fn lock(&self) -> std::io::Result<Option<OwnerLock>> {
        let file = File::options().create(true).truncate(false).write(true).open(self.directory.join(LOCK))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(OwnerLock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for calls, and says so to those who look.
    pub(crate) fn listen(&self) -> std::io::Result<UnixListener> {
        let _ = std::fs::remove_file(self.directory.join(SOCKET));
        let short = self.short()?;
        let listener = UnixListener::bind(short.path(SOCKET))?;
        fs_err::write(self.directory.join(MARK), std::process::id().to_string())?;
        Ok(listener)
    }

    /// The owner's ear; `None` when there is no owner.
    pub(crate) fn connect(&self) -> std::io::Result<Option<UnixStream>> {
        use std::io::ErrorKind;
        let stream = self.short().and_then(|short| UnixStream::connect(short.path(SOCKET)));
        match stream {
            Ok(stream) => Ok(Some(stream)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether an owner was killed, and nobody has swept since.
    pub(crate) fn was_killed(&self) -> bool {
        self.directory.join(MARK).exists() && matches!(self.lock(), Ok(Some(_)))
    }

    /// Nothing is left to be found.
    pub(crate) fn clear(&self) {
        // Each is of no use without an owner; what stays is overwritten by the next.
        for name in [SOCKET, MARK] {
            let _ = std::fs::remove_file(self.directory.join(name));
        }
        let _ = std::fs::remove_dir_all(self.logs());
    }

    /// Directory of the containers' logs.
    pub(crate) fn logs(&self) -> PathBuf {
        self.directory.join("logs")
    }

    /// What the owner itself has to say.
    pub(crate) fn own_log(&self) -> PathBuf {
        self.directory.join("owner.log")
    }

    /// Names of sockets are bounded to 108 bytes, paths of stores are not.
    fn short(&self) -> std::io::Result<ShortName> {
        File::open(&self.directory).map(ShortName)
    }
}

/// Projects that have an owner, or had one that was killed.
pub(crate) fn all(home: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(projects(home)).into_iter().flatten().flatten();
    let owned = entries.filter(|entry| entry.path().join(MARK).exists());
    let mut names: Vec<String> = owned.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn projects(home: &Path) -> PathBuf {
    home.join("solutions")
}

/// A directory by its descriptor.
struct ShortName(File);

impl ShortName {
    fn path(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()).into()
    }
}
