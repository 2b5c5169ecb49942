//! What a snapshot adds to its parent, as a deterministic tar.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
};

use rustix::{
    fs::{FileType, Mode, OFlags, Stat},
    io::Errno,
};

use crate::{
    StoreError,
    archive::{Member, TarWriter},
    tree::{self, Found, View, join},
};

/// As deep as unpacking goes: what is sealed here must be usable here.
const DEPTH_MAX: usize = 400;
/// One descriptor is held for each directory down to this depth; below it they are opened again on the way back.
const DESCRIPTORS_MAX: usize = 64;
/// What one layer may hold, so that a sparse file of terabytes is an error and not a day of zeros.
const BYTES_MAX: u64 = 256 * 1024 * 1024 * 1024;

/// Writes the layer of the directories `fs`, which are merged as an overlay merges them, topmost first. `below` are the
/// directories of the layers under it, topmost first; `is_full` says that `fs` is a whole root file system, to be compared with
/// them, and not an overlay's upper directory. Gives the newest file time in seconds.
pub(crate) fn write_layer<W: Write>(
    fs: &[PathBuf],
    below: &[PathBuf],
    is_full: bool,
    epoch_s: i64,
    tar: &mut TarWriter<W>,
) -> Result<i64, StoreError> {
    let roots = fs.iter().map(|fs| tree::open_dir(fs)).collect::<Result<Vec<_>, _>>()?;
    let mut differ = Differ {
        roots: &roots,
        below_paths: below,
        below: None,
        is_full,
        epoch_s,
        newest_s: 0,
        links: HashMap::new(),
        unchanged: Vec::new(),
        tar,
    };
    differ.root_entry()?;
    let tops = differ.on(b"/", roots.iter().map(|root| tree::open_dir_at(root, b".")).collect())?;
    differ.directory(b"", tops, 0, false)?;
    Ok(differ.newest_s)
}

/// Sorted names, and those of them that are gone.
type Names = (Vec<Vec<u8>>, Vec<Vec<u8>>);

struct Differ<'a, W: Write> {
    roots: &'a [OwnedFd],
    below_paths: &'a [PathBuf],
    /// Opened when it is needed: most layers do not need it.
    below: Option<View>,
    is_full: bool,
    epoch_s: i64,
    newest_s: i64,
    /// Files with several names: device and inode to the first path.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Directories of a full copy on the way to where the walk is, that are as they were: written before the first change
    /// within, because an overlay's upper directory has them too.
    unchanged: Vec<(Vec<u8>, Stat, tree::Attributes)>,
    tar: &'a mut TarWriter<W>,
}

impl<W: Write> Differ<'_, W> {
    /// The root directory is in the tar only when it does not look like the parent's.
    fn root_entry(&mut self) -> Result<(), StoreError> {
        let root = &self.roots[0];
        let stat = self.on(b"/", rustix::fs::fstat(root).map_err(io::Error::from))?;
        let attributes = self.on(b"/", tree::read_attributes(root, b"."))?;
        let is_same = match self.below_paths.first() {
            Some(top) => {
                let top = tree::open_dir(top)?;
                let old = self.on(b"/", rustix::fs::fstat(&top).map_err(io::Error::from))?;
                same_owner_and_mode(&stat, &old) && attributes == self.on(b"/", tree::read_attributes(&top, b"."))?
            }
            None => (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) == (0o755, 0, 0) && attributes.is_empty(),
        };
        if is_same || self.is_owned_by_us(&stat, &attributes) {
            return Ok(());
        }
        let member = self.member(b"./", &stat, b'5', &attributes);
        self.append(b"/", &member, &mut io::empty())
    }

    /// A plain root directory of an ordinary user without ids is nobody's change.
    fn is_owned_by_us(&self, stat: &Stat, attributes: &tree::Attributes) -> bool {
        self.below_paths.is_empty()
            && stat.st_mode & 0o7777 == 0o755
            && attributes.is_empty()
            && stat.st_uid == rustix::process::geteuid().as_raw()
    }

    /// `parts` are the directories that are merged at this path, topmost first. `is_replaced` says that nothing of the layers
    /// below is seen in it.
    fn directory(
        &mut self,
        path: &[u8],
        parts: Vec<OwnedFd>,
        depth: usize,
        is_replaced: bool,
    ) -> Result<(), StoreError> {
        if depth > DEPTH_MAX {
            return Err(unsealable(path, "it lies too deep"));
        }
        let (names, removed) = self.names_and_removed(path, &parts, is_replaced)?;
        let mut held = Some(parts);
        for name in names {
            let here = match held.take() {
                Some(here) => here,
                None => self.open_again(path)?,
            };
            let child_path = join(path, &name);
            if removed.binary_search(&name).is_ok() {
                self.removed_entry(path, &name)?;
                held = Some(here);
                continue;
            }
            let Some((at, stat)) = self.topmost(&child_path, &here, &name)? else {
                held = Some(here);
                continue;
            };
            if name.starts_with(b".wh.") {
                return Err(unsealable(&child_path, "names that begin with `.wh.` are reserved for whiteouts"));
            }
            if !tree::kind(&stat).is_dir() {
                // A whiteout may hide nothing but an entry of another part of this layer.
                let is_gone = here.len() > 1 && tree::is_whiteout(&stat) && self.find_below(&child_path)?.is_none();
                if !is_gone {
                    self.entry(&child_path, &here[at], &name, &stat)?;
                }
                held = Some(here);
                continue;
            }
            let child = self.on(&child_path, open_parts(&here[at..], &name))?;
            let waiting = self.unchanged.len();
            let is_replaced = self.directory_entry(&child_path, &child[0], &stat)?;
            held = (depth < DESCRIPTORS_MAX).then_some(here);
            self.directory(&child_path, child, depth + 1, is_replaced)?;
            self.unchanged.truncate(waiting);
        }
        Ok(())
    }

    /// What a directory shows and what of the layers below is gone from it, sorted together, and the latter alone. (The walk
    /// goes deep, so its own frame is kept small.)
    fn names_and_removed(&mut self, path: &[u8], parts: &[OwnedFd], is_replaced: bool) -> Result<Names, StoreError> {
        let mut names = self.names(path, parts)?;
        let mut removed = Vec::new();
        if self.is_full || is_replaced {
            // Each at its place among the names, where an overlay has its whiteouts.
            removed = self.removed(path, &names)?;
            names.extend(removed.iter().cloned());
            names.sort_unstable();
        }
        Ok((names, removed))
    }

    fn removed_entry(&mut self, path: &[u8], name: &[u8]) -> Result<(), StoreError> {
        self.whiteout(&join(path, &[b".wh.", name].concat()))
    }

    fn names(&self, path: &[u8], parts: &[OwnedFd]) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut names = self.on(path, tree::sorted_names(&parts[0]))?;
        for part in &parts[1..] {
            names.extend(self.on(path, tree::sorted_names(part))?);
        }
        if parts.len() > 1 {
            names.sort_unstable();
            names.dedup();
        }
        Ok(names)
    }

    /// The part that shows a name, and what it is there.
    fn topmost(&self, path: &[u8], parts: &[OwnedFd], name: &[u8]) -> Result<Option<(usize, Stat)>, StoreError> {
        for (at, part) in parts.iter().enumerate() {
            if let Some(stat) = self.on(path, tree::stat_at(part, name))? {
                return Ok(Some((at, stat)));
            }
        }
        Ok(None)
    }

    /// The parts of a directory whose descriptors were given back.
    fn open_again(&self, path: &[u8]) -> Result<Vec<OwnedFd>, StoreError> {
        let (above, name) = tree::split(path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut parts = Vec::new();
        for root in self.roots {
            match tree::open_in_root(root, above, flags) {
                Ok(part) => parts.push(part),
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(errno) => return self.on(path, Err(errno.into())),
            }
        }
        self.on(path, open_parts(&parts, name))
    }

    /// Writes a directory. True when it hides a directory of the layers below: then what is gone of it is told name by name,
    /// which is the same in every store, rather than by a mark that only an overlay has (image-spec, "Opaque Whiteout").
    fn directory_entry(&mut self, path: &[u8], directory: &OwnedFd, stat: &Stat) -> Result<bool, StoreError> {
        let attributes = self.on(path, tree::read_attributes_of(directory))?;
        if self.is_full
            && let Some(old) = self.find_below(path)?
            && tree::kind(&old.stat).is_dir()
            && same_owner_and_mode(stat, &old.stat)
            && same_time(stat, &old.stat)
            && attributes == self.on(path, tree::read_attributes(&old.parent, &old.name))?
        {
            self.unchanged.push((path.to_vec(), *stat, attributes));
            return Ok(false);
        }
        let name = [path, b"/"].concat();
        let member = self.member(&name, stat, b'5', &attributes);
        self.append(path, &member, &mut io::empty())?;
        // The kernel marks every new directory as opaque, also one that hides nothing.
        Ok(!self.is_full
            && self.on(path, tree::is_opaque(directory))?
            && self.find_below(path)?.is_some_and(|old| tree::kind(&old.stat).is_dir()))
    }

    fn entry(&mut self, path: &[u8], parent: &OwnedFd, name: &[u8], stat: &Stat) -> Result<(), StoreError> {
        if tree::is_whiteout(stat) {
            let (above, name) = tree::split(path);
            return self.whiteout(&join(above, &[b".wh.", name].concat()));
        }
        let kind = tree::kind(stat);
        let Some(type_flag) = type_flag(kind) else { return Ok(()) };
        let mut file = match kind {
            FileType::RegularFile => Some(self.on(path, open_file(parent, name))?),
            _ => None,
        };
        let attributes = match &file {
            Some(file) => tree::read_attributes_of(file),
            None => tree::read_attributes(parent, name),
        };
        let attributes = self.on(path, attributes)?;
        if self.is_full && self.is_unchanged(path, parent, name, stat, &attributes)? {
            return Ok(());
        }
        if stat.st_nlink > 1
            && let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino))
        {
            let first = first.clone();
            let mut member = self.member(path, stat, b'1', &[]);
            member.link = &first;
            return self.append(path, &member, &mut io::empty());
        }
        if stat.st_nlink > 1 {
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        let target;
        let mut member = self.member(path, stat, type_flag, &attributes);
        if kind == FileType::Symlink {
            target = self.on(path, rustix::fs::readlinkat(parent, name, Vec::new()).map_err(io::Error::from))?;
            member.link = target.to_bytes();
        }
        let Some(file) = &mut file else {
            return self.append(path, &member, &mut io::empty());
        };
        member.size = stat.st_size as u64;
        if self.tar.written().saturating_add(member.size) > BYTES_MAX {
            return Err(unsealable(path, "the layer grows beyond 256 GiB"));
        }
        self.append(path, &member, file)
    }

    /// Names of the layers below that are gone, sorted.
    fn removed(&mut self, path: &[u8], names: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, StoreError> {
        let Some(top) = self.below_paths.first() else { return Ok(Vec::new()) };
        let top = tree::open_dir(top)?;
        // Parents of full copies are full copies, or one merged view of many layers.
        let mut gone = Vec::new();
        if self.below_paths.len() == 1 {
            if let Ok(old) = tree::open_in_root(&top, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW) {
                gone = self.on(path, tree::sorted_names(&old))?;
            }
        } else {
            for layer in self.below_paths {
                let layer = tree::open_dir(layer)?;
                if let Ok(old) = tree::open_in_root(&layer, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)
                {
                    gone.extend(self.on(path, tree::sorted_names(&old))?);
                }
            }
            gone.sort_unstable();
            gone.dedup();
        }
        gone.retain(|name| names.binary_search(name).is_err());
        let mut removed = Vec::new();
        for name in gone {
            if self.find_below(&join(path, &name))?.is_some() {
                removed.push(name);
            }
        }
        Ok(removed)
    }

    /// Whether a full copy still has what the parent has. Times and sizes may agree by intent, so contents are compared.
    fn is_unchanged(
        &mut self,
        path: &[u8],
        parent: &OwnedFd,
        name: &[u8],
        stat: &Stat,
        attributes: &tree::Attributes,
    ) -> Result<bool, StoreError> {
        let Some(old) = self.find_below(path)? else { return Ok(false) };
        let same_stat = same_owner_and_mode(stat, &old.stat)
            && same_time(stat, &old.stat)
            && stat.st_size == old.stat.st_size
            && stat.st_rdev == old.stat.st_rdev
            && stat.st_mode == old.stat.st_mode;
        if !same_stat || *attributes != self.on(path, tree::read_attributes(&old.parent, &old.name))? {
            return Ok(false);
        }
        let same = match tree::kind(stat) {
            FileType::RegularFile => open_file(parent, name)
                .and_then(|new| Ok((new, open_file(&old.parent, &old.name)?)))
                .and_then(|(new, old)| same_content(new, old)),
            FileType::Symlink => rustix::fs::readlinkat(parent, name, Vec::new())
                .and_then(|new| Ok(new == rustix::fs::readlinkat(&old.parent, &*old.name, Vec::new())?))
                .map_err(io::Error::from),
            _ => Ok(true),
        };
        self.on(path, same)
    }

    fn find_below(&mut self, path: &[u8]) -> Result<Option<Found>, StoreError> {
        if self.below_paths.is_empty() {
            return Ok(None);
        }
        if self.below.is_none() {
            self.below = Some(View::open(self.below_paths)?);
        }
        let found = self.below.as_ref().expect("just set").find(path);
        self.on(path, found)
    }

    fn member<'m>(
        &mut self,
        path: &'m [u8],
        stat: &Stat,
        type_flag: u8,
        attributes: &'m [(Vec<u8>, Vec<u8>)],
    ) -> Member<'m> {
        self.newest_s = self.newest_s.max(stat.st_mtime);
        member_of(path, stat, type_flag, attributes, self.epoch_s)
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<(), StoreError> {
        let member = Member { path, type_flag: b'0', ..Member::default() };
        self.append(path, &member, &mut io::empty())
    }

    fn append(&mut self, path: &[u8], member: &Member<'_>, data: &mut dyn Read) -> Result<(), StoreError> {
        for (path, stat, attributes) in std::mem::take(&mut self.unchanged) {
            let name = [&*path, b"/"].concat();
            let member = self.member(&name, &stat, b'5', &attributes);
            let appended = self.tar.append(&member, &mut io::empty());
            self.on(&path, appended)?;
        }
        let appended = self.tar.append(member, data);
        self.on(path, appended)
    }

    fn on<T>(&self, path: &[u8], result: io::Result<T>) -> Result<T, StoreError> {
        let path = || PathBuf::from(String::from_utf8_lossy(path).into_owned());
        result.map_err(|source| StoreError::At { action: "make a layer of", path: path(), source })
    }
}

/// A file's header in a tar, its time not later than `epoch_s`.
pub(crate) fn member_of<'m>(
    path: &'m [u8],
    stat: &Stat,
    type_flag: u8,
    attributes: &'m [(Vec<u8>, Vec<u8>)],
    epoch_s: i64,
) -> Member<'m> {
    let is_device = matches!(type_flag, b'3' | b'4');
    // Who has no user namespace owns all files of the store himself; in an image they are root's.
    let euid = rustix::process::geteuid();
    let is_our_own = !euid.is_root() && stat.st_uid == euid.as_raw();
    let (uid, gid) = if is_our_own { (0, 0) } else { (stat.st_uid, stat.st_gid) };
    let device = |part: fn(u64) -> u32| if is_device { part(stat.st_rdev) } else { 0 };
    Member {
        path,
        type_flag,
        mode: stat.st_mode & 0o7777,
        uid,
        gid,
        mtime_s: stat.st_mtime.clamp(0, epoch_s),
        major: device(rustix::fs::major),
        minor: device(rustix::fs::minor),
        attributes,
        ..Member::default()
    }
}

/// The type of an entry in a tar; `None` for a socket, which means nothing without the process that listens, so that
/// docker leaves it out as well.
pub(crate) fn type_flag(kind: FileType) -> Option<u8> {
    Some(match kind {
        FileType::RegularFile => b'0',
        FileType::Symlink => b'2',
        FileType::CharacterDevice => b'3',
        FileType::BlockDevice => b'4',
        FileType::Directory => b'5',
        FileType::Fifo => b'6',
        _ => return None,
    })
}

/// The directory `name` in each of some merged directories, as far down as they show.
fn open_parts(parts: &[OwnedFd], name: &[u8]) -> io::Result<Vec<OwnedFd>> {
    let mut opened = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        match tree::open_dir_at(part, name) {
            Ok(directory) => {
                let is_last = at + 1 == parts.len() || tree::is_opaque(&directory)?;
                opened.push(directory);
                if is_last {
                    break;
                }
            }
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT) => {}
                // What is no directory is hidden by the directory above it, and hides those below.
                Some(Errno::NOTDIR | Errno::LOOP) if !opened.is_empty() => break,
                _ => return Err(error),
            },
        }
    }
    if opened.is_empty() { Err(Errno::NOENT.into()) } else { Ok(opened) }
}

fn unsealable(path: &[u8], reason: &'static str) -> StoreError {
    StoreError::Unsealable { path: String::from_utf8_lossy(path).into_owned(), reason }
}

fn same_owner_and_mode(a: &Stat, b: &Stat) -> bool {
    (a.st_mode, a.st_uid, a.st_gid) == (b.st_mode, b.st_uid, b.st_gid)
}

fn same_time(a: &Stat, b: &Stat) -> bool {
    (a.st_mtime, a.st_mtime_nsec) == (b.st_mtime, b.st_mtime_nsec)
}

pub(crate) fn open_file(parent: &OwnedFd, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(parent.as_fd(), name, flags, Mode::empty())?))
}

fn same_content(mut a: File, mut b: File) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let read = a.read(&mut left)?;
        if read == 0 {
            return Ok(b.read(&mut right[..1])? == 0);
        }
        match b.read_exact(&mut right[..read]) {
            Ok(()) if left[..read] == right[..read] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}
