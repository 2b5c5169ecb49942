//! What a build gets from elsewhere: files of the web as blobs of the store, Git repositories as directories.
//!
//! Knows no Dockerfile; [`crate::remote`] says where something was named.

use std::{
    error::Error,
    fs::File,
    io::{self, Read, Seek as _, SeekFrom, Write},
    os::{
        fd::AsFd as _,
        unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use engine::{GitSource, Material, RemoteSource, redacted};
use oci::Digest;
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, openat},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{
    copy::{Format, detect_archive, unpack_archive},
    git::{self, Access},
    tree::{self, Keep, Kind},
    work::Host,
};

/// Memo namespace: what a URL gave, and by what its server knows that version again.
const MEMO: &str = "urls";
/// Name of a file in the image if its URL has none (BuildKit's).
const UNNAMED: &str = "__unnamed__";
/// Mode of fetched files, as docker's.
const FILE_MODE: u32 = 0o600;
/// A context that is larger is a mistake, or never ends.
const CONTEXT_BYTES_MAX: u64 = 32 << 30;
/// Name of the file that a web context is if it is no archive (BuildKit's).
const CONTEXT_FILE: &str = "Dockerfile";

/// Gets files of the web. Called from a thread that may block; several at once.
pub trait Downloads: Send + Sync {
    /// Writes the file to `to`, unless the server says that it is still the known one.
    ///
    /// # Errors
    /// It does not exist, may not be read, cannot be reached, is too large, or the build was stopped.
    fn get(&self, download: &Download<'_>, to: &mut (dyn Write + Send)) -> Result<Downloaded, DownloadError>;
}

/// A file that is wanted.
pub struct Download<'a> {
    /// `http://` or `https://`.
    pub url: &'a str,
    /// The version that is here already.
    pub known: Option<&'a Version>,
    /// Asked while waiting; true ends it.
    pub is_stopped: &'a (dyn Fn() -> bool + Sync),
}

/// By what a server tells versions of a file apart (RFC 9110, "Validator Fields").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// `ETag`, as it came.
    pub etag: Option<String>,
    /// `Last-Modified`, in seconds since 1970.
    pub modified: Option<u64>,
}

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Downloaded {
    /// The known version is the newest; nothing was written.
    Unchanged,
    /// The file was written.
    Whole(Version),
}

/// Why a file could not be got.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The server has no such file (404, 410).
    #[error("the server has no such file")]
    NotFound,
    /// The server asks for credentials, or refuses those in the URL (401, 403).
    #[error("the server refuses access")]
    Refused(#[source] Box<dyn Error + Send + Sync>),
    /// The build was stopped.
    #[error("stopped")]
    Stopped,
    /// It cannot be reached, answered with something else, or went silent.
    #[error("{0}")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

/// Why a source that lies elsewhere cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// What was asked for is not there: whoever wrote it has to change it.
    #[error("{0}")]
    Wrong(String),
    /// It is there, but not what was promised.
    #[error("{what} is not what `--checksum` says")]
    Mismatch {
        /// The source.
        what: String,
        /// The promised digest or commit.
        wanted: String,
        /// The real one.
        got: String,
    },
    /// Credentials are missing or wrong.
    #[error("access is refused")]
    Auth(#[source] Box<dyn Error + Send + Sync>),
    /// The build was stopped.
    #[error("stopped")]
    Stopped,
    /// The network, a server, a program or the disk failed.
    #[error("{0}")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

impl From<io::Error> for FetchError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::Interrupted => Self::Stopped,
            _ => Self::Failed(error.into()),
        }
    }
}

impl From<engine::EngineError> for FetchError {
    fn from(error: engine::EngineError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<store::StoreError> for FetchError {
    fn from(error: store::StoreError) -> Self {
        Self::Failed(error.into())
    }
}

/// A file of the web, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WebFile {
    pub(crate) digest: Digest,
    version: Version,
}

impl WebFile {
    /// Time of the last change; `None` when nobody says.
    pub(crate) fn modified(&self) -> Option<u64> {
        self.version.modified
    }
}

/// Asks the server which version it has, and gets it if it is new.
pub(crate) fn web_file(
    host: &Host<'_>,
    url: &str,
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Result<WebFile, FetchError> {
    let key = Digest::of(url.as_bytes());
    let known = host.store.memo_get(MEMO, key.hex());
    let known: Option<WebFile> = known.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    match download(host, url, known.as_ref().map(|known| &known.version), is_stopped)? {
        None => Ok(known.expect("a server says that a version is unchanged only if it was asked about one")),
        Some(file) => {
            // A memo that cannot be written costs fetching it again.
            let _ = host.store.memo_put(MEMO, key.hex(), &serde_json::to_vec(&file).unwrap_or_default());
            Ok(file)
        }
    }
}

/// Makes sure that the file of this digest is in the store; tells its version if it had to be fetched.
pub(crate) fn web_file_content(
    host: &Host<'_>,
    url: &str,
    digest: &Digest,
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Result<Option<Version>, FetchError> {
    // The lease first: from then on prune leaves it alone.
    if host.scope.lease_blob(digest).is_ok() {
        return Ok(None);
    }
    let file = download(host, url, None, is_stopped)?.expect("no version was said to be known");
    if file.digest != *digest {
        return Err(FetchError::Mismatch {
            what: redacted(url),
            wanted: digest.to_string(),
            got: file.digest.to_string(),
        });
    }
    Ok(Some(file.version))
}

fn download(
    host: &Host<'_>,
    url: &str,
    known: Option<&Version>,
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Result<Option<WebFile>, FetchError> {
    let mut writer = host.store.blob_writer()?;
    let asked = host.downloads.get(&Download { url, known, is_stopped }, &mut writer);
    let version = match asked {
        Ok(Downloaded::Unchanged) => return Ok(None),
        Ok(Downloaded::Whole(version)) => version,
        Err(DownloadError::NotFound) => {
            return Err(FetchError::Wrong(format!("`{}` does not exist: its server says so", redacted(url))));
        }
        Err(DownloadError::Refused(source)) => return Err(FetchError::Auth(source)),
        Err(DownloadError::Stopped) => return Err(FetchError::Stopped),
        Err(DownloadError::Failed(source)) => return Err(FetchError::Failed(source)),
    };
    let (digest, _) = writer.commit(None)?;
    host.scope.lease_blob(&digest)?;
    Ok(Some(WebFile { digest, version }))
}

/// The name that a file of the web has in an image: the last part of its path (`path.Base` of Go).
pub(crate) fn web_name(url: &str) -> String {
    let path = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once('/').map_or("", |(_, path)| path);
    let decoded = percent_decoded(path);
    let name = decoded.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    match name {
        "" | "." | ".." => UNNAMED.to_owned(),
        name if name.contains('\0') => UNNAMED.to_owned(),
        name => name.to_owned(),
    }
}

/// `%41` is `A`; what is no UTF-8 then, or no escape, stays as it is written.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let pair = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.filter(|_| *first == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

/// A blob as a file of this name in a directory of its own.
pub(crate) fn place_file(
    host: &Host<'_>,
    digest: &Digest,
    name: &str,
    modified: Option<u64>,
) -> Result<PathBuf, FetchError> {
    let directory = scratch(host)?;
    let path = directory.join(name);
    let mut from = open_blob(host, digest)?;
    let mut to = fs_err::File::create_new(&path)?;
    io::copy(&mut from, &mut to)?;
    to.set_permissions(std::fs::Permissions::from_mode(FILE_MODE))?;
    // As BuildKit: a file whose server tells no time is as old as can be.
    to.set_modified(UNIX_EPOCH + Duration::from_secs(modified.unwrap_or(0)))?;
    Ok(directory)
}

fn open_blob(host: &Host<'_>, digest: &Digest) -> Result<File, FetchError> {
    let missing = || io::Error::other(format!("blob {digest} was just fetched and is gone"));
    Ok(host.store.open_blob(digest)?.ok_or_else(missing)?)
}

/// A repository at a commit, in a directory of its own.
pub(crate) struct Checkout {
    /// The repository's own directory, or the one in it that is meant.
    pub(crate) directory: PathBuf,
    /// Time of the commit.
    pub(crate) time: SystemTime,
}

/// Fetches and checks out what a source means.
pub(crate) fn checkout(
    host: &Host<'_>,
    source: &GitSource,
    commit: &git::Commit,
    keeps_git_dir: bool,
    access: Access,
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Result<Checkout, FetchError> {
    let directory = scratch(host)?;
    let seconds = git::checkout(source, commit, &directory, keeps_git_dir, access, is_stopped)?;
    let directory = match &source.subdir {
        None => directory,
        Some(subdir) => below(&directory, subdir, &source.to_string())?,
    };
    Ok(Checkout { directory, time: UNIX_EPOCH + Duration::from_secs(seconds) })
}

/// A directory of a checkout; links in the way stay within it.
fn below(directory: &Path, subdir: &str, what: &str) -> Result<PathBuf, FetchError> {
    let root = openat(CWD, directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(io::Error::from)?;
    let missing = || FetchError::Wrong(format!("`{what}`: the repository has no directory `{subdir}`"));
    let resolved = tree::resolve(subdir.as_bytes(), |path| tree::lookup(root.as_fd(), path)).map_err(|error| {
        // Links that lead in a circle lead nowhere.
        if Errno::from_io_error(&error) == Some(Errno::LOOP) { missing() } else { error.into() }
    })?;
    if resolved.node.is_none_or(|node| node.kind != Kind::Dir) {
        return Err(missing());
    }
    Ok(directory.join(std::ffi::OsStr::from_bytes(&resolved.path)))
}

/// A context that was fetched.
#[derive(Debug)]
pub struct FetchedContext {
    /// What is in it. It goes away with the scope.
    pub directory: PathBuf,
    /// The commit's time, if it is a repository.
    pub time: Option<SystemTime>,
    /// The context is a single file, of this name: a Dockerfile.
    pub file: Option<String>,
    /// What it is, by what cannot change.
    pub material: Material,
}

/// Fetches a build context that the user named on the command line: a repository, an archive, or a Dockerfile. With the
/// user's own Git configuration, for it is the user who asks.
///
/// # Errors
/// It does not exist, cannot be reached, or may not be read.
pub fn fetch_context(
    host: &Host<'_>,
    source: &RemoteSource,
    keeps_git_dir: bool,
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Result<FetchedContext, FetchError> {
    match source {
        RemoteSource::Git(git) => {
            let commit = git::resolve(git, Access::User, is_stopped)?;
            let keeps = git.keep_git_dir.unwrap_or(keeps_git_dir);
            let Checkout { directory, time } = checkout(host, git, &commit, keeps, Access::User, is_stopped)?;
            let material = Material::Repository { url: git.to_string(), commit: commit.id };
            Ok(FetchedContext { directory, time: Some(time), file: None, material })
        }
        RemoteSource::Http(url) => {
            let file = web_file(host, url, is_stopped)?;
            web_file_content(host, url, &file.digest, is_stopped)?;
            let mut content = open_blob(host, &file.digest)?;
            let material = Material::File { url: redacted(url), digest: file.digest.clone() };
            if let Some(directory) = unpack_file(host, &mut content, is_stopped)? {
                return Ok(FetchedContext { directory, time: None, file: None, material });
            }
            let directory = place_file(host, &file.digest, CONTEXT_FILE, file.modified())?;
            Ok(FetchedContext { directory, time: None, file: Some(CONTEXT_FILE.into()), material })
        }
    }
}

/// Unpacks an archive that is read from somewhere into a directory of its own; `None` when it is no archive.
///
/// # Errors
/// The archive is broken or hostile, or the disk failed.
pub fn unpack_context(
    host: &Host<'_>,
    archive: &mut dyn Read,
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Result<Option<PathBuf>, FetchError> {
    // On disk first: its content is looked at twice.
    let path = scratch(host)?.join("archive");
    let mut spool = File::options().read(true).write(true).create_new(true).open(&path)?;
    fs_err::remove_file(&path)?;
    let length = io::copy(&mut archive.take(CONTEXT_BYTES_MAX), &mut spool)?;
    if length == CONTEXT_BYTES_MAX {
        return Err(FetchError::Wrong(format!("the context is larger than {} GiB", CONTEXT_BYTES_MAX >> 30)));
    }
    spool.seek(SeekFrom::Start(0))?;
    unpack_file(host, &mut spool, is_stopped)
}

fn unpack_file(
    host: &Host<'_>,
    file: &mut File,
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Result<Option<PathBuf>, FetchError> {
    let Some(format) = detect_archive(file)? else { return Ok(None) };
    let directory = scratch(host)?;
    let root = openat(CWD, &directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(io::Error::from)?;
    // Owners of a context mean nothing: all is root's.
    unpack_archive(root.as_fd(), b"", file, format, Some((0, 0)), is_stopped)?;
    Ok(Some(directory))
}

/// Whether these first bytes begin an archive, compressed or not.
pub fn looks_like_archive(start: &[u8]) -> bool {
    Format::of(start).is_some()
}

/// A new directory that goes away with the scope.
pub(crate) fn scratch(host: &Host<'_>) -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let directory = host.scope.dir().join(format!("fetched-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    fs_err::create_dir(&directory)?;
    fs_err::set_permissions(&directory, std::fs::Permissions::from_mode(0o755))?;
    Ok(directory)
}

/// Gives everything in a checkout the modes that Git knows and one time, whatever the umask and clock were, and takes away
/// what Git keeps for itself there unless it is wanted.
pub(crate) fn even_out(directory: &Path, seconds: u64, keeps_git_dir: bool) -> io::Result<()> {
    if !keeps_git_dir {
        fs_err::remove_dir_all(directory.join(".git"))?;
    }
    let root = openat(CWD, directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let time = crate::copy::timestamps((i64::try_from(seconds).unwrap_or(i64::MAX), 0));
    let keep = |path: &[u8]| if path == b".git" { Keep::No } else { Keep::Yes };
    // The deepest first: taking something away moves the time of its directory.
    for entry in tree::scan(root.as_fd(), b"", &keep)?.iter().rev() {
        let above = tree::open_beneath(root.as_fd(), tree::parent(&entry.path), OFlags::RDONLY | OFlags::DIRECTORY)?;
        let name = if entry.path.is_empty() { b".".as_slice() } else { tree::base_name(&entry.path) };
        if name == b".git" && entry.kind == Kind::File && !keeps_git_dir {
            // A submodule's, for a repository holds nothing of this name.
            rustix::fs::unlinkat(&above, name, AtFlags::empty())?;
            continue;
        }
        let mode = match entry.kind {
            Kind::Dir => Some(0o755),
            Kind::File if entry.mode & 0o100 != 0 => Some(0o755),
            Kind::File => Some(0o644),
            _ => None,
        };
        if let Some(mode) = mode {
            rustix::fs::chmodat(&above, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
        }
        rustix::fs::utimensat(&above, name, &time, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_last_part_of_the_path() {
        let check = |url: &str, name: &str| assert_eq!(web_name(url), name, "{url}");
        check("https://h/a/b.tar.gz?x=/y#z/w", "b.tar.gz");
        check("https://h/a/", "a");
        check("https://h/a%20b%2Fc", "c");
        check("https://h/%ff", "%ff");
        check("https://h/a/..", UNNAMED);
        check("https://h/", UNNAMED);
        check("https://h", UNNAMED);
    }
}
