//! The build context: a directory seen through its `.dockerignore`, scanned where a COPY can reach, and the digests of
//! its files.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{self, Read as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dockerfile::dockerignore::DockerIgnore;
use engine::{BuildContext, BuildError, BuildRequest};
use oci::Digest;
use rustix::fs::{CWD, Mode, OFlags, openat};
use store::Store;

use crate::{
    content::FileMemo,
    tree::{self, Entry, Keep, Kind, Node, Resolved},
    work::{During as _, locked},
};

/// Memo namespace of file digests, one memo for each context directory.
const MEMO: &str = "context-files";
/// A `.dockerignore` has some lines; more than this is another file by mistake.
const IGNORE_BYTES_MAX: u64 = 1024 * 1024;

/// A directory that COPY reads from.
pub(crate) struct Context {
    /// `None`: there is no context.
    root: Option<OwnedFd>,
    /// The directory's path, for bind mounts and messages.
    path: PathBuf,
    /// Where it was fetched from.
    origin: Option<PathBuf>,
    ignore: Option<Ignore>,
    scans: Mutex<BTreeMap<Vec<u8>, Arc<Vec<Entry>>>>,
    memo: Mutex<Option<FileMemo>>,
    memo_key: String,
}

/// The ignore file in force.
struct Ignore {
    /// As it is called in messages.
    name: String,
    rules: DockerIgnore,
}

impl Context {
    /// Opens the build context and its ignore file: `<Dockerfile>.dockerignore` before `.dockerignore`.
    pub(crate) fn open(request: &BuildRequest) -> Result<Self, BuildError> {
        let (path, origin) = match &request.context {
            BuildContext::Directory(path) => (path, None),
            BuildContext::Fetched { directory, origin } => (directory, Some(PathBuf::from(origin))),
            BuildContext::Empty => return Ok(Self::empty()),
            // The engine has made one directory of them.
            BuildContext::Layered { base, .. } => (base, None),
        };
        let beside = request.dockerfile.path.as_ref().map(|path| {
            let mut name = path.as_os_str().to_owned();
            name.push(".dockerignore");
            PathBuf::from(name)
        });
        let mut context = Self::directory(path)?;
        for candidate in beside.into_iter().chain([path.join(".dockerignore")]) {
            let attempt = || format!("cannot read {}", candidate.display());
            let Some(text) = context.ignore_text(&candidate, origin.is_some().then_some(path)).during(attempt)? else {
                continue;
            };
            let name = candidate.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let rules = DockerIgnore::parse(&text).map_err(|diagnostic| {
                let source = engine::DockerfileSource { name: name.clone(), path: Some(candidate.clone()), text };
                BuildError::Invalid { source_file: Box::new(source), diagnostics: vec![diagnostic], kept: None }
            })?;
            context.ignore = Some(Ignore { name, rules });
            break;
        }
        context.origin = origin;
        Ok(context)
    }

    /// Text of an ignore file, if there is one. What was fetched is somebody else's: links in it do not lead out of it.
    fn ignore_text(&self, path: &Path, fetched: Option<&Path>) -> io::Result<Option<String>> {
        let file = match fetched.and_then(|directory| path.strip_prefix(directory).ok()) {
            Some(below) => tree::open_in_root(
                self.root()?,
                below.as_os_str().as_encoded_bytes(),
                OFlags::RDONLY | OFlags::NONBLOCK,
            )
            .map(std::fs::File::from),
            None => OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path),
        };
        let Ok(mut file) = file else { return Ok(None) };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(None);
        }
        if metadata.len() > IGNORE_BYTES_MAX {
            return Err(io::Error::other("it is larger than 1 MiB"));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// A named context that is a directory: no ignore file of the build's, but its own.
    pub(crate) fn named(request: &BuildRequest, path: &Path) -> Result<Self, BuildError> {
        let request = BuildRequest {
            context: BuildContext::Directory(path.to_owned()),
            dockerfile: engine::DockerfileSource { path: None, ..request.dockerfile.clone() },
            ..request.clone()
        };
        Self::open(&request)
    }

    fn empty() -> Self {
        Self {
            root: None,
            path: PathBuf::new(),
            origin: None,
            ignore: None,
            scans: Mutex::default(),
            memo: Mutex::default(),
            memo_key: String::new(),
        }
    }

    /// A directory without an ignore file.
    pub(crate) fn directory(path: &Path) -> Result<Self, BuildError> {
        let attempt = || format!("cannot open the build context {}", path.display());
        let path = fs_err::canonicalize(path).during(attempt)?;
        let root = openat(CWD, &path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(io::Error::from)
            .during(attempt)?;
        let memo_key = Digest::of(path.as_os_str().as_encoded_bytes()).hex().to_owned();
        Ok(Self { root: Some(root), path, memo_key, ..Self::empty() })
    }

    /// The directory, opened; an error for a build without a context.
    pub(crate) fn root(&self) -> io::Result<BorrowedFd<'_>> {
        match &self.root {
            Some(root) => Ok(root.as_fd()),
            None => Err(io::Error::other("this build has no context")),
        }
    }

    pub(crate) fn exists(&self) -> bool {
        self.root.is_some()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where it was fetched from, if it was.
    pub(crate) fn origin(&self) -> Option<&Path> {
        self.origin.as_deref()
    }

    /// Whether a path belongs to the context.
    pub(crate) fn keep(&self, path: &[u8]) -> Keep {
        match &self.ignore {
            Some(ignore) if ignore.rules.is_excluded(path, false) => {
                if ignore.rules.may_contain_included(path) {
                    Keep::Below
                } else {
                    Keep::No
                }
            }
            _ => Keep::Yes,
        }
    }

    /// Name and line of the pattern that hides a path.
    pub(crate) fn hidden_by(&self, path: &[u8]) -> Option<(&str, usize)> {
        let ignore = self.ignore.as_ref()?;
        Some((ignore.name.as_str(), ignore.rules.matching_line(path)?))
    }

    /// Whether anything at or below a path stays out of the context.
    pub(crate) fn hides_below(&self, path: &[u8]) -> io::Result<bool> {
        if self.ignore.is_none() {
            return Ok(false);
        }
        let all = tree::scan(self.root()?, path, &|_| Keep::Yes)?;
        Ok(all.len() != self.scan(path)?.len())
    }

    /// Follows links within the context.
    pub(crate) fn resolve(&self, path: &[u8]) -> io::Result<Resolved> {
        let root = self.root()?;
        tree::resolve(path, |path| tree::lookup(root, path))
    }

    /// What stands at a canonical path, unless it is hidden.
    pub(crate) fn lookup(&self, path: &[u8]) -> io::Result<Option<Node>> {
        let keep = if path.is_empty() { Keep::Yes } else { self.keep(path) };
        Ok(match (keep, tree::lookup(self.root()?, path)?) {
            (Keep::Yes, node) => node,
            (Keep::Below, Some(node)) if node.kind == Kind::Dir => Some(node),
            _ => None,
        })
    }

    /// Everything of the context at and below a canonical path, without digests. Done once for each path.
    pub(crate) fn scan(&self, from: &[u8]) -> io::Result<Arc<Vec<Entry>>> {
        if let Some(entries) = locked(&self.scans).get(from) {
            return Ok(entries.clone());
        }
        let entries = Arc::new(tree::scan(self.root()?, from, &|path| self.keep(path))?);
        locked(&self.scans).insert(from.to_vec(), entries.clone());
        Ok(entries)
    }

    /// Fills in file digests.
    pub(crate) fn digest(&self, store: &Store, from: &[u8], entries: &mut [Entry]) -> io::Result<()> {
        let root = self.root()?;
        let mut memo = locked(&self.memo);
        let memo =
            memo.get_or_insert_with(|| FileMemo::parse(&store.memo_get(MEMO, &self.memo_key).unwrap_or_default()));
        memo.fill(root, from, entries)
    }

    /// Remembers the digests for the next build. That it cannot be done costs reading the files again.
    pub(crate) fn save(&self, store: &Store) {
        // A directory that goes away is never seen again.
        if self.origin.is_some() {
            return;
        }
        if let Some(memo) = locked(&self.memo).as_ref().filter(|memo| memo.is_changed) {
            let _ = store.memo_put(MEMO, &self.memo_key, &memo.to_bytes());
        }
    }

    /// Time of the newest file at or below these paths, in whole seconds; paths that do not exist say nothing.
    pub(crate) fn newest(&self, paths: &[Vec<u8>]) -> Option<SystemTime> {
        let mut newest = None;
        for path in paths {
            let Ok(resolved) = self.resolve(path) else { continue };
            if resolved.node.is_none() {
                continue;
            }
            let Ok(entries) = self.scan(&resolved.path) else { continue };
            // A directory's time moves when a hidden file comes and goes, so files alone count.
            let files = entries.iter().filter(|entry| entry.kind != Kind::Dir);
            newest = newest.max(files.map(|entry| entry.mtime.0).max());
        }
        Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(newest?).unwrap_or(0)))
    }

    /// Number and size of the files in the context, and how many the ignore file hides, by the line that hides most.
    pub(crate) fn census(&self) -> io::Result<Census> {
        let mut census = Census::default();
        let all = tree::scan(self.root()?, b"", &|_| Keep::Yes)?;
        for entry in all.iter().filter(|entry| entry.kind != Kind::Dir) {
            if let Some((_, line)) = self.hidden_by(&entry.path) {
                *census.hidden.entry(line).or_default() += 1;
            } else {
                census.files += 1;
                census.size_bytes += entry.size;
                census.names.push(entry.path.clone());
            }
        }
        census.ignore_name = self.ignore.as_ref().map(|ignore| ignore.name.clone());
        Ok(census)
    }
}

/// What a context holds, for messages.
#[derive(Default)]
pub(crate) struct Census {
    pub(crate) files: usize,
    pub(crate) size_bytes: u64,
    pub(crate) names: Vec<Vec<u8>>,
    /// Hidden files by the line of the pattern that hides them.
    pub(crate) hidden: BTreeMap<usize, usize>,
    pub(crate) ignore_name: Option<String>,
}
