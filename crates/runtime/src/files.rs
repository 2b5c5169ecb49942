//! Files into a running container, and out of it, without a program of its image.
//!
//! A process of ours joins the container and writes there as its root would: links, mounts and rights mean what they mean
//! inside, and no path leads out. What it writes comes as a stream that was made before, so that it waits for nobody.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read, Seek as _, Write},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::{
    fs::{CWD, MemfdFlags, Mode, OFlags, memfd_create, openat},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{
    error::StartError,
    protocol::{Failure, Step},
};

/// What becomes of one path in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// What it becomes: a file, link or directory of the host (a directory without what is in it). What is not there any more
    /// changes nothing. `None`: it goes away, with all that is below it.
    pub from: Option<PathBuf>,
    /// Absolute path in the container. Directories above it are made where they are missing.
    pub to: PathBuf,
}

/// A line of the stream; the content of a file follows it.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    /// Paths are bytes.
    to: Vec<u8>,
    what: What,
}

#[derive(Debug, Serialize, Deserialize)]
enum What {
    Gone,
    Directory,
    Link { target: Vec<u8> },
    File { mode: u32, modified: Duration, size: u64 },
}

/// The longest line: a path and a link's target at their longest (PATH_MAX), each byte written as up to four.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// The changes as a stream, which lies in an unnamed file, since there may be more than fits into memory.
pub(crate) fn stream(changes: &[FileChange]) -> Result<File, StartError> {
    let fail = |source| StartError::setup("keep the changed files for the container", source);
    let mut stream = BufWriter::new(unnamed().map_err(fail)?);
    for FileChange { from, to } in changes {
        match from {
            None => line(&mut stream, to, What::Gone).map_err(fail)?,
            Some(from) => put(&mut stream, from, to)?,
        }
    }
    let mut file = stream.into_inner().map_err(|error| fail(error.into_error()))?;
    file.rewind().map_err(fail)?;
    Ok(file)
}

fn put(stream: &mut impl Write, from: &Path, to: &Path) -> Result<(), StartError> {
    let fail = |source| StartError::setup_at("read the changed file", from, source);
    let metadata = match from.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(fail)?,
    };
    if metadata.is_dir() {
        return line(stream, to, What::Directory).map_err(fail);
    }
    if metadata.is_symlink() {
        let target = std::fs::read_link(from).map_err(fail)?.into_os_string().into_vec();
        return line(stream, to, What::Link { target }).map_err(fail);
    }
    if !metadata.is_file() {
        // Sockets and pipes are nothing without the processes at their ends.
        return Ok(());
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(from);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(fail)?,
    };
    let metadata = file.metadata().map_err(fail)?;
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let (mode, size) = (metadata.mode() & 0o7777, metadata.len());
    line(stream, to, What::File { mode, modified: modified.unwrap_or_default(), size }).map_err(fail)?;
    let copied = io::copy(&mut file.take(size), stream).map_err(fail)?;
    // One that was cut meanwhile has changed again, and comes again.
    io::copy(&mut io::repeat(0).take(size - copied), stream).map_err(fail)?;
    Ok(())
}

fn line(stream: &mut impl Write, to: &Path, what: What) -> io::Result<()> {
    let entry = Entry { to: to.as_os_str().as_bytes().to_vec(), what };
    serde_json::to_writer(&mut *stream, &entry)?;
    stream.write_all(b"\n")
}

fn unnamed() -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match openat(CWD, std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(file.into()),
        // Not every file system has files without names.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::ACCESS | Errno::ROFS) => {
            Ok(memfd_create("changed files", MemfdFlags::CLOEXEC)?.into())
        }
        Err(errno) => Err(errno.into()),
    }
}

/// In the container, as its root: does what the stream says.
pub(crate) fn apply(stream: impl Read) -> Result<(), Failure> {
    const STEP: &str = "understand the changed files";
    let mut stream = BufReader::new(stream);
    loop {
        let mut text = Vec::new();
        (&mut stream).take(LINE_BYTES_MAX).read_until(b'\n', &mut text).step(STEP)?;
        if text.is_empty() {
            return Ok(());
        }
        let entry: Entry = serde_json::from_slice(&text).map_err(io::Error::other).step(STEP)?;
        let to = PathBuf::from(std::ffi::OsString::from_vec(entry.to));
        match &entry.what {
            What::Gone => absent_is_fine(remove(&to)).step_at("remove the file", &to)?,
            What::Directory => std::fs::create_dir_all(&to).step_at("make the directory", &to)?,
            What::Link { target } => {
                let target = Path::new(std::ffi::OsStr::from_bytes(target));
                replace(&to, |new| symlink(target, new)).step_at("write the link", &to)?;
            }
            What::File { mode, modified, size } => {
                let mut content = (&mut stream).take(*size);
                let write = |new: &Path| {
                    let mut file = File::options().write(true).create_new(true).mode(0o600).open(new)?;
                    io::copy(&mut content, &mut file)?;
                    file.set_modified(SystemTime::UNIX_EPOCH + *modified)?;
                    file.set_permissions(std::fs::Permissions::from_mode(*mode))
                };
                replace(&to, write).step_at("write the file", &to)?;
            }
        }
    }
}

/// Whoever reads it meanwhile has the old one or the new one, whole.
fn replace(to: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let directory = to.parent().ok_or_else(|| io::Error::from(Errno::ISDIR))?;
    std::fs::create_dir_all(directory)?;
    // Two at once do not meet: each has a process of its own.
    let new = directory.join(format!(".seatrial-{}", std::process::id()));
    absent_is_fine(remove(&new))?;
    let made = make(&new).and_then(|()| match std::fs::rename(&new, to) {
        // What was a directory is a file now.
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            remove(to)?;
            std::fs::rename(&new, to)
        }
        renamed => renamed,
    });
    if made.is_err() {
        // The first failure is the one to tell.
        let _ = remove(&new);
    }
    made
}

fn remove(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
        result => result,
    }
}
