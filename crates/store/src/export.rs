//! An image's files outside the store: as one tar, or in a directory of the user's.
//!
//! The directory may hold anything already, and the image may be hostile: nothing is ever followed on the way, neither a
//! link of the image nor one that lies in the directory. What cannot be shown in a directory without harm is left out and
//! counted.

use std::{
    collections::HashMap,
    io::{self, Write},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use fs_err as fs;
use oci::{Digest, Hasher};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};

use crate::{
    Image, SnapshotId, Stop, Store, StoreError,
    archive::{Member, TarWriter},
    diff::{member_of, open_file, type_flag},
    seal::seconds,
    store::random,
    tree::{self, Node},
};

/// What a directory could not show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportReport {
    /// Files and links that were written.
    pub entries: u64,
    /// Device nodes and sockets that were left out: an image's device node would be a real one.
    pub special: u64,
    /// Programs that lost their set-id bits, which would be effective outside of a container.
    pub set_ids: u64,
}

impl Store {
    /// Writes the image's files as one tar, whose bytes depend on the image alone. `further` files stand behind them, in
    /// place of the image's of these names, for nobody else to read.
    pub fn export_tar(
        &self,
        image: &Image,
        further: &[(String, Vec<u8>)],
        out: &mut dyn Write,
        stop: Stop<'_>,
    ) -> Result<(), StoreError> {
        let out = stop.watch(io::BufWriter::with_capacity(256 * 1024, out));
        let mut tar = TarWriter::new(out);
        let mut links = Links::default();
        let walked = tree::walk(&self.lowers_of(image)?, &mut |node| {
            let Some((name, _)) = further.iter().find(|(name, _)| name.as_bytes() == node.path) else {
                return add_to_tar(&mut tar, &mut links, node);
            };
            match tree::kind(&node.stat) {
                // A file cannot take its place.
                FileType::Directory => {
                    let source = io::ErrorKind::IsADirectory.into();
                    Err(StoreError::At { action: "write", path: PathBuf::from(name), source })
                }
                _ => Ok(()),
            }
        });
        stop.told(walked)?;
        for (name, bytes) in further {
            let (path, size, mtime_s) = (name.as_bytes(), bytes.len() as u64, seconds(image.epoch).max(0));
            let member = Member { path, type_flag: b'0', mode: 0o600, size, mtime_s, ..Member::default() };
            tar.append(&member, &mut &**bytes)?;
        }
        let (out, _) = tar.finish()?;
        Ok(out.into_inner().flush()?)
    }

    /// Path and digest of each regular file of the image, in the order of the walk.
    pub fn file_digests(&self, image: &Image, stop: Stop<'_>) -> Result<Vec<(String, Digest)>, StoreError> {
        let mut files = Vec::new();
        tree::walk(&self.lowers_of(image)?, &mut |node| {
            stop.check()?;
            if tree::kind(&node.stat) != FileType::RegularFile {
                return Ok(());
            }
            let path = String::from_utf8_lossy(node.path).into_owned();
            let mut hasher = Hasher::new();
            let hashed = open_file(node.parent, node.name).and_then(|mut file| io::copy(&mut file, &mut hasher));
            hashed.map_err(|source| StoreError::At { action: "read", path: PathBuf::from(&path), source })?;
            files.push((path, hasher.finish()));
            Ok(())
        })?;
        Ok(files)
    }

    /// Writes the image's files into a directory, which is made where it is missing. Entries of the same name are
    /// replaced, others stay. Files belong to the caller, with `keep_owners` to the image's own ids.
    pub fn export_directory(
        &self,
        image: &Image,
        directory: &Path,
        keep_owners: bool,
        stop: Stop<'_>,
    ) -> Result<ExportReport, StoreError> {
        self.export_lowers(&self.lowers_of(image)?, directory, keep_owners, stop)
    }

    /// As [`Self::export_directory`], of a snapshot with those below it.
    pub fn export_snapshot(
        &self,
        top: &SnapshotId,
        directory: &Path,
        stop: Stop<'_>,
    ) -> Result<ExportReport, StoreError> {
        self.export_lowers(&self.lowers(top)?, directory, false, stop)
    }

    fn export_lowers(
        &self,
        lowers: &[PathBuf],
        directory: &Path,
        keep_owners: bool,
        stop: Stop<'_>,
    ) -> Result<ExportReport, StoreError> {
        fs::create_dir_all(directory)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(directory, flags, Mode::empty()).map_err(StoreError::at("open", directory))?;
        let mut export = Export {
            root,
            directory: directory.to_owned(),
            keep_owners,
            links: Links::default(),
            directories: Vec::new(),
            parent: None,
            report: ExportReport::default(),
        };
        tree::walk(lowers, &mut |node| {
            stop.check()?;
            export.add(node).map_err(export.fail(node.path))
        })?;
        export.finish()
    }

    fn lowers_of(&self, image: &Image) -> Result<Vec<PathBuf>, StoreError> {
        image.top().map_or_else(|| Ok(Vec::new()), |top| self.lowers(top))
    }
}

/// Files with several names: layer, device and inode to the first path.
#[derive(Default)]
struct Links(HashMap<(usize, u64, u64), Vec<u8>>);

impl Links {
    /// The path that this file was seen under before.
    fn first(&mut self, node: &Node<'_>) -> Option<Vec<u8>> {
        if node.stat.st_nlink < 2 || tree::kind(&node.stat).is_dir() {
            return None;
        }
        let key = (node.layer, node.stat.st_dev, node.stat.st_ino);
        let known = self.0.get(&key).cloned();
        if known.is_none() {
            self.0.insert(key, node.path.to_vec());
        }
        known
    }
}

fn add_to_tar<W: Write>(tar: &mut TarWriter<W>, links: &mut Links, node: &Node<'_>) -> Result<(), StoreError> {
    let kind = tree::kind(&node.stat);
    let Some(type_flag) = type_flag(kind) else { return Ok(()) };
    let mut write = || -> io::Result<()> {
        if let Some(first) = links.first(node) {
            let member = member_of(node.path, &node.stat, b'1', &[], i64::MAX);
            return tar.append(&Member { link: &first, ..member }, &mut io::empty());
        }
        let attributes = tree::read_attributes(node.parent, node.name)?;
        let (mut path, link) = (node.path.to_vec(), link_target(node)?);
        if kind.is_dir() {
            path.push(b'/');
        }
        let member = Member { link: &link, ..member_of(&path, &node.stat, type_flag, &attributes, i64::MAX) };
        if kind != FileType::RegularFile {
            return tar.append(&member, &mut io::empty());
        }
        let member = Member { size: node.stat.st_size as u64, ..member };
        tar.append(&member, &mut open_file(node.parent, node.name)?)
    };
    let path = PathBuf::from(String::from_utf8_lossy(node.path).into_owned());
    write().map_err(|source| StoreError::At { action: "export", path, source })
}

fn link_target(node: &Node<'_>) -> io::Result<Vec<u8>> {
    if tree::kind(&node.stat) != FileType::Symlink {
        return Ok(Vec::new());
    }
    Ok(rustix::fs::readlinkat(node.parent, node.name, Vec::new())?.into_bytes())
}

struct Export {
    root: OwnedFd,
    directory: PathBuf,
    keep_owners: bool,
    links: Links,
    /// Modes and times are set last: filling a directory changes its time, and its mode may forbid it.
    directories: Vec<(Vec<u8>, Stat)>,
    /// The directory of the last entry, which is most often that of the next.
    parent: Option<(Vec<u8>, OwnedFd)>,
    report: ExportReport,
}

impl Export {
    fn add(&mut self, node: &Node<'_>) -> io::Result<()> {
        let (above, name) = tree::split(node.path);
        if self.parent.as_ref().is_none_or(|(path, _)| path != above) {
            self.parent = Some((above.to_vec(), self.open(above)?));
        }
        let parent = self.parent.as_ref().expect("just set").1.try_clone()?;
        let old = tree::stat_at(&parent, name)?;
        let kind = tree::kind(&node.stat);
        if kind.is_dir() {
            if old.is_some_and(|old| !tree::kind(&old).is_dir()) {
                tree::remove_at(&parent, name)?;
            }
            if !old.is_some_and(|old| tree::kind(&old).is_dir()) {
                rustix::fs::mkdirat(&parent, name, Mode::RWXU)?;
            }
            self.directories.push((node.path.to_vec(), node.stat));
            return Ok(());
        }
        if !matches!(kind, FileType::RegularFile | FileType::Symlink | FileType::Fifo) {
            self.report.special += 1;
            return Ok(());
        }
        // Beside its place and renamed, so that what lies there is replaced and never written through.
        let temporary = format!(".seatrial-{:016x}", random()).into_bytes();
        let made = self.make(node, &parent, &temporary).and_then(|()| {
            if old.is_some_and(|old| tree::kind(&old).is_dir()) {
                tree::remove_at(&parent, name)?;
            }
            Ok(rustix::fs::renameat(&parent, &*temporary, &parent, name)?)
        });
        if let Err(error) = made {
            // The first failure is the story.
            let _ = rustix::fs::unlinkat(&parent, &*temporary, AtFlags::empty());
            return Err(error);
        }
        // Renaming one name of a file onto another of its names does nothing and leaves both (rename(2)).
        let _ = rustix::fs::unlinkat(&parent, &*temporary, AtFlags::empty());
        self.report.entries += 1;
        Ok(())
    }

    /// Makes a file, link or FIFO under a temporary name.
    fn make(&mut self, node: &Node<'_>, parent: &OwnedFd, temporary: &[u8]) -> io::Result<()> {
        if let Some(first) = self.links.first(node) {
            let (above, name) = tree::split(&first);
            return Ok(rustix::fs::linkat(self.open(above)?, name, parent, temporary, AtFlags::empty())?);
        }
        match tree::kind(&node.stat) {
            FileType::Symlink => rustix::fs::symlinkat(link_target(node)?, parent, temporary)?,
            FileType::Fifo => rustix::fs::mknodat(parent, temporary, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?,
            _ => tree::copy_content(node.parent.as_fd(), node.name, parent.as_fd(), temporary)?,
        }
        if tree::kind(&node.stat) == FileType::RegularFile && node.stat.st_mode & 0o6000 != 0 {
            self.report.set_ids += 1;
        }
        self.finish_entry(parent, temporary, &node.stat)
    }

    /// Owner, mode without set-id bits, time.
    fn finish_entry(&self, parent: &OwnedFd, name: &[u8], stat: &Stat) -> io::Result<()> {
        let kind = tree::kind(stat);
        if self.keep_owners {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        let effective = if kind.is_dir() { 0o3777 } else { 0o1777 };
        if kind != FileType::Symlink {
            let handle =
                rustix::fs::openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            // By way of the descriptor: a name could be swapped for a link in the meantime.
            let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
            rustix::fs::chmod(path, Mode::from_raw_mode(stat.st_mode & effective))?;
        }
        tree::set_mtime(parent, name, stat.st_mtime, stat.st_mtime_nsec as u32)
    }

    /// A directory below the root, without following any link.
    fn open(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { b".".as_slice() } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        tree::retried(|| rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve)).map_err(io::Error::from)
    }

    fn finish(mut self) -> Result<ExportReport, StoreError> {
        for (path, stat) in std::mem::take(&mut self.directories).into_iter().rev() {
            let (above, name) = tree::split(&path);
            let done = self.open(above).and_then(|parent| self.finish_entry(&parent, name, &stat));
            done.map_err(self.fail(&path))?;
        }
        Ok(self.report)
    }

    fn fail(&self, path: &[u8]) -> impl FnOnce(io::Error) -> StoreError + use<> {
        let path = self.directory.join(String::from_utf8_lossy(path).as_ref());
        move |source| StoreError::At { action: "write", path, source }
    }
}
