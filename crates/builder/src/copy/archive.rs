//! ADD of a local tar archive: unpacked into the image, every name resolved within it.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use liblzma::{read::XzDecoder, stream::Stream};
use rustix::{
    fs::{AtFlags, Mode, OFlags, linkat, mkdirat, mknodat, openat, statat, symlinkat, unlinkat, utimensat},
    io::Errno,
};

use super::target::{Owner, set_mode, set_owner, set_owner_of_link, set_time, timestamps};
use crate::{
    attributes,
    tree::{self, Kind},
};

const BLOCK_BYTES: usize = 512;
/// More entries than any source archive has; an archive that goes on is an attack on disk and time.
const ENTRIES_MAX: u64 = 2_000_000;
/// Bytes that an archive may unpack to, for each byte of it, once it is beyond [`FREE_BYTES`]: a bomb has a thousand.
const RATIO_MAX: u64 = 200;
/// `xz -9` asks for 65 MiB to unpack; more than twice that is an attack on memory.
const XZ_MEMORY_BYTES_MAX: u64 = 160 << 20;
/// Archives that unpack to less are never called bombs.
const FREE_BYTES: u64 = 1 << 30;

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Plain,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

/// What compressed files begin with, as docker tells them apart.
const MAGICS: &[(&[u8], Format)] = &[
    (b"\x1f\x8b\x08", Format::Gzip),
    (b"BZh", Format::Bzip2),
    (b"\xfd7zXZ\0", Format::Xz),
    (b"\x28\xb5\x2f\xfd", Format::Zstd),
];

impl Format {
    /// What these first bytes begin: an archive, or something compressed that may hold one.
    pub(crate) fn of(start: &[u8]) -> Option<Self> {
        let compressed = MAGICS.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, format)| *format);
        compressed.or_else(|| is_header(start.get(..BLOCK_BYTES)?).then_some(Self::Plain))
    }
}

/// What the file is, if it is a tar archive, judged by its content as docker does: a first header has to be there.
pub(crate) fn detect(file: &mut File) -> io::Result<Option<Format>> {
    let mut start = [0; BLOCK_BYTES];
    let length = fill(file, &mut start)?;
    file.seek(SeekFrom::Start(0))?;
    let format = match Format::of(&start[..length]) {
        None | Some(Format::Plain) => return Ok(Format::of(&start[..length])),
        Some(format) => format,
    };
    let mut inner = [0; BLOCK_BYTES];
    // What does not decompress is no archive but a file of its own kind.
    let length = open(file, format).and_then(|mut reader| fill(&mut reader, &mut inner)).unwrap_or(0);
    file.seek(SeekFrom::Start(0))?;
    Ok(is_header(&inner[..length]).then_some(format))
}

fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match reader.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// A block whose checksum is right (POSIX pax, "ustar Interchange Format").
fn is_header(block: &[u8]) -> bool {
    if block.len() < BLOCK_BYTES {
        return false;
    }
    let header = tar::Header::from_byte_slice(block);
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { u32::from(b' ') } else { u32::from(*byte) })
        .sum();
    header.cksum().is_ok_and(|stored| stored == sum)
}

fn open<'a>(file: &'a mut File, format: Format) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match format {
        Format::Gzip => Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))),
        Format::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(BufReader::new(file))),
        Format::Xz => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY_BYTES_MAX, liblzma::stream::CONCATENATED)?;
            Box::new(XzDecoder::new_stream(BufReader::new(file), stream))
        }
        Format::Zstd => Box::new(zstd::Decoder::new(file)?),
        Format::Plain => Box::new(BufReader::new(file)),
    })
}

/// Unpacks into the directory `to` (canonical) of the merged root `root`.
pub(crate) fn unpack(
    root: BorrowedFd<'_>,
    to: &[u8],
    file: &mut File,
    format: Format,
    owner: Option<Owner>,
    is_stopped: &dyn Fn() -> bool,
) -> io::Result<()> {
    let packed_bytes = file.metadata()?.len();
    let allowed = FREE_BYTES.max(packed_bytes.saturating_mul(RATIO_MAX));
    let mut archive = tar::Archive::new(Bounded { reader: open(file, format)?, left: allowed });
    let mut left = allowed;
    // Directories get their times last, because writing into them moves these.
    let mut directories = Vec::new();
    let mut count = 0;
    for entry in archive.entries()? {
        if is_stopped() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        count += 1;
        if count > ENTRIES_MAX {
            return Err(io::Error::other(format!("the archive has more than {ENTRIES_MAX} entries")));
        }
        let mut entry = entry?;
        let path = entry.path_bytes().into_owned();
        // What it says is what is written, holes as well: no byte of a bomb reaches the disk.
        left = left.checked_sub(entry.size()).ok_or_else(|| tree::named(bomb(), "unpack", &path))?;
        let place = Place::find(root, to, &path)?;
        let Some(place) = place else { continue };
        place
            .put(root, to, &mut entry, owner, &mut directories)
            .map_err(|error| tree::named(error, "unpack", &path))?;
    }
    for (path, time) in directories.into_iter().rev() {
        if let Ok(directory) = tree::open_beneath(root, &path, OFlags::RDONLY | OFlags::DIRECTORY) {
            set_time(&directory, time)?;
        }
    }
    Ok(())
}

fn bomb() -> io::Error {
    io::Error::other("the archive unpacks to more than it plausibly can; it is refused as a bomb")
}

/// Says so where an archive goes on beyond what it may have.
struct Bounded<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(bomb)?;
        Ok(count)
    }
}

/// Where an entry goes: an open directory and a name in it.
struct Place {
    directory: OwnedFd,
    path: Vec<u8>,
    name: Vec<u8>,
}

impl Place {
    /// `None`: the entry is the destination itself. Links in the way are followed within the root, `..` cannot leave `to`.
    fn find(root: BorrowedFd<'_>, to: &[u8], path: &[u8]) -> io::Result<Option<Self>> {
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in tree::parts(path) {
            match part {
                b".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let Some(name) = parts.pop() else { return Ok(None) };
        let above = tree::join(to, &parts.join(&b'/'));
        let resolved = tree::resolve(&above, |path| tree::lookup(root, path))?;
        let directory = make_dirs(root, &resolved.path)?;
        let path = tree::join(&resolved.path, name);
        Ok(Some(Self { directory, path, name: name.to_vec() }))
    }

    fn put(
        &self,
        root: BorrowedFd<'_>,
        to: &[u8],
        entry: &mut tar::Entry<'_, impl Read>,
        owner: Option<Owner>,
        directories: &mut Vec<(Vec<u8>, tree::Time)>,
    ) -> io::Result<()> {
        let extended = extended_attributes(entry)?;
        let header = entry.header();
        let kind = header.entry_type();
        // Fields that are left empty are zero, as Go's reader takes them.
        let mode = header.mode().unwrap_or(0) & 0o7777;
        let id = |id: io::Result<u64>| u32::try_from(id.unwrap_or(0)).unwrap_or(0);
        let owner = owner.unwrap_or((id(header.uid()), id(header.gid())));
        let time = (i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0), 0);
        let (directory, name) = (&self.directory, self.name.as_slice());
        match kind {
            tar::EntryType::Directory => {
                match mkdirat(directory, name, Mode::from_raw_mode(0o755)) {
                    Err(Errno::EXIST) => {}
                    other => other?,
                }
                // A link to a directory stays a link; its target's attributes are not the archive's business.
                if let Ok(made) = tree::open_beneath(root, &self.path, OFlags::RDONLY | OFlags::DIRECTORY) {
                    set_owner(&made, owner)?;
                    attributes::set(&made, &extended)?;
                    set_mode(&made, mode)?;
                    directories.push((self.path.clone(), time));
                }
                Ok(())
            }
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                self.clear()?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = openat(directory, name, flags, Mode::from_raw_mode(0o600))?;
                let mut file = File::from(made);
                io::copy(entry, &mut file)?;
                let made = OwnedFd::from(file);
                // The owner first: changing it takes set-id bits and capabilities away.
                set_owner(&made, owner)?;
                attributes::set(&made, &extended)?;
                set_mode(&made, mode)?;
                set_time(&made, time)
            }
            tar::EntryType::Symlink => {
                let link = entry.link_name_bytes().ok_or(io::ErrorKind::InvalidData)?.into_owned();
                self.clear()?;
                symlinkat(link.as_slice(), directory, name)?;
                self.finish(owner, time)
            }
            tar::EntryType::Link => {
                let link = entry.link_name_bytes().ok_or(io::ErrorKind::InvalidData)?.into_owned();
                let Some(target) = Self::find(root, to, &link)? else { return Err(io::ErrorKind::InvalidData.into()) };
                if target.path == self.path {
                    return Ok(());
                }
                self.clear()?;
                Ok(linkat(&target.directory, target.name.as_slice(), directory, name, AtFlags::empty())?)
            }
            tar::EntryType::Char | tar::EntryType::Block | tar::EntryType::Fifo => {
                let raw = match kind {
                    tar::EntryType::Char => 0o020_000,
                    tar::EntryType::Block => 0o060_000,
                    _ => 0o010_000,
                };
                // Only here: elsewhere the fields may hold anything.
                let device = match kind {
                    tar::EntryType::Fifo => 0,
                    _ => rustix::fs::makedev(header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0)),
                };
                self.clear()?;
                let made = rustix::fs::FileType::from_raw_mode(raw);
                match mknodat(directory, name, made, Mode::from_raw_mode(mode), device) {
                    // Only real root may; docker without root leaves them out as well.
                    Err(Errno::PERM) => return Ok(()),
                    other => other?,
                }
                self.finish(owner, time)
            }
            // Headers about headers were read by the tar crate; anything else is not for file systems.
            _ => Ok(()),
        }
    }

    /// Makes room: an older file goes, a directory stays and is an error.
    fn clear(&self) -> io::Result<()> {
        match statat(&self.directory, self.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
            Ok(stat) if Kind::of(stat.st_mode) == Kind::Dir => Err(super::write::conflict(&self.path)),
            Ok(_) => Ok(unlinkat(&self.directory, self.name.as_slice(), AtFlags::empty())?),
        }
    }

    fn finish(&self, owner: Owner, time: tree::Time) -> io::Result<()> {
        set_owner_of_link(self.directory.as_fd(), &self.name, owner)?;
        Ok(utimensat(&self.directory, self.name.as_slice(), &timestamps(time), AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// Extended attributes that a pax header carries, as docker's own archives do.
fn extended_attributes(entry: &mut tar::Entry<'_, impl Read>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    const PREFIX: &[u8] = b"SCHILY.xattr.";
    let Some(extensions) = entry.pax_extensions()? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for extension in extensions {
        let extension = extension?;
        if let Some(name) = extension.key_bytes().strip_prefix(PREFIX)
            && attributes::is_content(name)
        {
            found.push((name.to_vec(), extension.value_bytes().to_vec()));
        }
    }
    Ok(found)
}

fn make_dirs(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    if let Ok(opened) = tree::open_beneath(root, path, OFlags::RDONLY | OFlags::DIRECTORY) {
        return Ok(opened);
    }
    let mut walked = Vec::new();
    let mut current = tree::open_beneath(root, b"", OFlags::RDONLY | OFlags::DIRECTORY)?;
    for part in tree::parts(path) {
        match mkdirat(&current, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        walked = tree::join(&walked, part);
        current = tree::open_beneath(root, &walked, OFlags::RDONLY | OFlags::DIRECTORY)?;
    }
    Ok(current)
}
