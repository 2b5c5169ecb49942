//! What differs between the files of two images, told one by one. Both merged trees are walked at once; a directory that
//! both have from the very same layers is not even opened, so that the cost is that of what differs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use oci::{Digest, Hasher};
use rustix::fs::{FileType, Stat};
use serde::Serialize;

use crate::{
    Image, Stop, Store, StoreError,
    diff::open_file,
    tree::{self, DEPTH_MAX, Slot, join},
};

/// Files are compared piece by piece, so that memory does not follow their size.
const PIECE_BYTES: usize = 128 * 1024;

/// A file that only one of two images has, or that both have in different ways. Times do not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct FileDifference {
    /// From the root, with a leading slash; bytes that are not UTF-8 are replaced.
    pub path: String,
    /// What the first image has.
    pub old: Option<FileFacts>,
    /// What the second image has.
    pub new: Option<FileFacts>,
    /// Extended attributes differ (capabilities, for example).
    pub attributes_differ: bool,
    /// Both have a regular file, with other content.
    pub content_differs: bool,
}

/// What counts of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct FileFacts {
    /// `-`, `d`, `l`, `c`, `b`, `p`, as `ls` shows it.
    pub kind: char,
    /// The twelve permission bits; 0 for links, whose mode means nothing.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size of a regular file in bytes; 0 for everything else.
    pub size_bytes: u64,
    /// Content of a regular file, when both images have one and they differ.
    pub digest: Option<Digest>,
    /// Where a link leads.
    pub link: Option<String>,
    /// Number of a device.
    pub device: Option<u64>,
}

/// Hears of one difference after the other, by path.
type Each<'a> = &'a mut dyn FnMut(FileDifference) -> Result<(), StoreError>;

impl Store {
    /// Tells every file that differs between two images. `with_digests`: contents that differ are hashed, which reads
    /// them whole.
    ///
    /// # Errors
    /// A layer cannot be read, `each` failed, or it was stopped.
    pub fn compare(
        &self,
        old: &Image,
        new: &Image,
        with_digests: bool,
        stop: Stop<'_>,
        each: Each<'_>,
    ) -> Result<(), StoreError> {
        let (old, new) = (self.side(old)?, self.side(new)?);
        let parts = (old.all(), new.all());
        let mut walk = Walk { old, new, with_digests, stop, each };
        walk.directory(b"", &parts.0, &parts.1, 0)
    }

    fn side(&self, image: &Image) -> Result<Side, StoreError> {
        let paths = image.top().map_or_else(|| Ok(Vec::new()), |top| self.lowers(top))?;
        let roots = paths.iter().map(|path| tree::open_dir(path)).collect::<Result<_, _>>()?;
        Ok(Side { paths, roots })
    }
}

/// The layers of one image, topmost first.
struct Side {
    paths: Vec<PathBuf>,
    roots: Vec<OwnedFd>,
}

impl Side {
    fn all(&self) -> Vec<usize> {
        (0..self.roots.len()).collect()
    }

    fn names(&self, path: &[u8], parts: &[usize]) -> Result<BTreeMap<Vec<u8>, Slot>, StoreError> {
        tree::names(&self.roots, path, parts).map_err(fail(path))
    }

    fn paths_of<'a>(&'a self, parts: &'a [usize]) -> impl Iterator<Item = &'a Path> {
        parts.iter().map(|part| self.paths[*part].as_path())
    }
}

struct Walk<'a> {
    old: Side,
    new: Side,
    with_digests: bool,
    stop: Stop<'a>,
    each: Each<'a>,
}

impl Walk<'_> {
    /// Compares a directory that the layers `old` and `new` have; no layers, no directory.
    fn directory(&mut self, path: &[u8], old: &[usize], new: &[usize], depth: usize) -> Result<(), StoreError> {
        self.stop.check()?;
        if depth > DEPTH_MAX {
            return Err(fail(path)(io::Error::other("it lies too deep")));
        }
        if self.old.paths_of(old).eq(self.new.paths_of(new)) {
            return Ok(());
        }
        let mut before = self.old.names(path, old)?;
        let mut now = self.new.names(path, new)?;
        let names: BTreeSet<Vec<u8>> = before.keys().chain(now.keys()).cloned().collect();
        for name in names {
            let before = before.remove(&name).unwrap_or_default();
            let now = now.remove(&name).unwrap_or_default();
            let path = join(path, &name);
            self.entry(&path, &name, &before, &now)?;
            let parts = (before.parts, now.parts);
            // No descriptor is held while the walk goes down.
            drop((before.seen, now.seen));
            if !(parts.0.is_empty() && parts.1.is_empty()) {
                self.directory(&path, &parts.0, &parts.1, depth + 1)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &[u8], name: &[u8], old: &Slot, new: &Slot) -> Result<(), StoreError> {
        let (old, new) = (old.seen.as_ref(), new.seen.as_ref());
        if let (Some((_, _, old)), Some((_, _, new))) = (old, new)
            && (old.st_dev, old.st_ino) == (new.st_dev, new.st_ino)
        {
            return Ok(());
        }
        let at = fail(path);
        let facts = |seen: Option<&(usize, std::sync::Arc<OwnedFd>, Stat)>| {
            seen.map(|(_, parent, stat)| facts(parent, name, stat)).transpose()
        };
        let (mut before, mut now) = (facts(old).map_err(&at)?, facts(new).map_err(&at)?);
        let (mut content_differs, mut attributes_differ) = (false, false);
        if let (Some((_, old_parent, _)), Some((_, new_parent, _))) = (old, new)
            && let (Some(before), Some(now)) = (&mut before, &mut now)
        {
            attributes_differ = before.kind == now.kind
                && tree::read_attributes(old_parent, name).map_err(&at)?
                    != tree::read_attributes(new_parent, name).map_err(&at)?;
            if before.kind == '-' && now.kind == '-' {
                let files = (open_file(old_parent, name).map_err(&at)?, open_file(new_parent, name).map_err(&at)?);
                let is_same_size = before.size_bytes == now.size_bytes;
                content_differs = !is_same_size || !is_same(&files.0, &files.1, self.stop).map_err(&at)?;
                if content_differs && self.with_digests {
                    before.digest = Some(digest(files.0, self.stop).map_err(&at)?);
                    now.digest = Some(digest(files.1, self.stop).map_err(&at)?);
                }
            }
        }
        if before == now && !attributes_differ && !content_differs {
            return self.stop.check();
        }
        let path = format!("/{}", String::from_utf8_lossy(path));
        (self.each)(FileDifference { path, old: before, new: now, attributes_differ, content_differs })
    }
}

fn facts(parent: &OwnedFd, name: &[u8], stat: &Stat) -> io::Result<FileFacts> {
    let file_type = tree::kind(stat);
    let kind = match file_type {
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        _ => '-',
    };
    let link = match file_type {
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
            Some(String::from_utf8_lossy(target.to_bytes()).into_owned())
        }
        _ => None,
    };
    Ok(FileFacts {
        kind,
        mode: if kind == 'l' { 0 } else { stat.st_mode & 0o7777 },
        uid: stat.st_uid,
        gid: stat.st_gid,
        size_bytes: if kind == '-' { stat.st_size.try_into().unwrap_or(0) } else { 0 },
        digest: None,
        link,
        device: matches!(kind, 'c' | 'b').then_some(stat.st_rdev),
    })
}

/// Whether two files of one size have the same bytes.
fn is_same(old: &File, new: &File, stop: Stop<'_>) -> io::Result<bool> {
    use std::os::unix::fs::FileExt as _;
    let (mut a, mut b) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    let mut at = 0;
    loop {
        stop.check().map_err(io::Error::other)?;
        let read = old.read_at(&mut a, at)?;
        if read == 0 {
            return Ok(true);
        }
        new.read_exact_at(&mut b[..read], at)?;
        if a[..read] != b[..read] {
            return Ok(false);
        }
        at += read as u64;
    }
}

fn digest(mut file: File, stop: Stop<'_>) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        stop.check().map_err(io::Error::other)?;
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&piece[..read]),
        }
    }
}

fn fail(path: &[u8]) -> impl Fn(io::Error) -> StoreError {
    let path = Path::new("/").join(String::from_utf8_lossy(path).as_ref());
    move |source| StoreError::At { action: "compare", path: path.clone(), source }
}
