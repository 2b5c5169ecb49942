//! Reads a tar stream entry by entry: ustar, GNU (long names, sparse), PAX (all keys that matter, sparse 0.0, 0.1, 1.0).
//!
//! Own code, because layers come from strangers: every length is bounded before memory is taken for it.

use std::io::{self, Read};

use super::{
    BLOCK_BYTES, EntryKind,
    header::{Block, Fields, number},
};

/// Long names and PAX records of one entry (Go's archive/tar has the same limit).
const EXTENSION_BYTES_MAX: u64 = 1024 * 1024;
/// Pieces of one sparse file; each takes at least one block of the archive.
const SPARSE_PIECES_MAX: usize = 1_000_000;
/// Extensions in a row without an entry: an archive that has more is made to keep us busy.
const EXTENSIONS_IN_A_ROW_MAX: usize = 16;

/// One entry, with everything that extensions said about it.
#[derive(Debug)]
pub(crate) struct Entry {
    /// As in the archive: may be absolute, may have `..`.
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: EntryKind,
    /// Permission bits with set-id and sticky bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime_s: i64,
    pub(crate) mtime_ns: u32,
    /// Size in bytes once unpacked.
    pub(crate) size: u64,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the data belongs: offset and length of each piece; `None` when it is all of the file.
    pub(crate) pieces: Option<Pieces>,
}

/// Offset and length of each part of a sparse file that has data.
pub(crate) type Pieces = Vec<(u64, u64)>;

/// A stream of entries.
pub(crate) struct TarReader<R> {
    source: R,
    /// Data of the present entry that was not read yet, and its padding.
    data: u64,
    padding: u64,
    is_at_end: bool,
}

/// What extensions said about the next entry.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: Sparse,
}

#[derive(Default)]
struct Sparse {
    name: Option<Vec<u8>>,
    real_size: Option<u64>,
    is_version_1: bool,
    /// Numbers of versions 0.0 and 0.1: offset, length, offset, length …
    map: Option<Vec<u64>>,
}

pub(crate) fn malformed(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(source: R) -> Self {
        Self { source, data: 0, padding: 0, is_at_end: false }
    }

    /// Goes on to the next entry, over what was not read of the present one.
    pub(crate) fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        for _ in 0..EXTENSIONS_IN_A_ROW_MAX {
            self.skip_rest()?;
            let Some(block) = self.header_block()? else { return Ok(None) };
            let fields = Fields::parse(&block).map_err(malformed)?;
            self.expect_data(fields.size)?;
            match fields.type_flag {
                b'x' => extensions.read_pax(&self.extension()?)?,
                // Global records say nothing that a layer needs; docker ignores them too.
                b'g' => {}
                b'L' => extensions.path = Some(until_nul(self.extension()?)),
                b'K' => extensions.link = Some(until_nul(self.extension()?)),
                // A volume label.
                b'V' => {}
                _ => return self.entry(&block, fields, extensions).map(Some),
            }
        }
        Err(malformed("too many extension headers in a row"))
    }

    /// Reads data of the present entry; 0 at its end.
    pub(crate) fn read_data(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.data).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.source.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(cut());
        }
        self.data -= read as u64;
        Ok(read)
    }

    /// Reads on to the end of the stream (padding after the archive), so that whoever hashes it sees all of it.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        io::copy(&mut self.source, &mut io::sink()).map(drop)
    }

    fn entry(&mut self, block: &Block, fields: Fields, mut extensions: Extensions) -> io::Result<Entry> {
        let is_directory_by_name = fields.name.ends_with(b"/");
        let kind = match fields.type_flag {
            // Version 7 archives have directories as files whose name ends in a slash.
            0 if is_directory_by_name => EntryKind::Directory,
            0 | b'0' | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::CharacterDevice,
            b'4' => EntryKind::BlockDevice,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => return Err(malformed(format!("entry type {:?} is not known", char::from(other)))),
        };
        // Only files have data, whatever the header's size says (Go's archive/tar reads it so, hence docker).
        self.data = 0;
        self.padding = 0;
        let mut size = extensions.size.unwrap_or(fields.size);
        let mut pieces = None;
        if kind == EntryKind::File {
            self.expect_data(size)?;
            (size, pieces) = self.sparse_map(block, fields.type_flag, size, &mut extensions.sparse)?;
        }
        let id = |given: Option<u64>, field: u64| {
            u32::try_from(given.unwrap_or(field)).map_err(|_| malformed("an owner's id is larger than 32 bits"))
        };
        let path = extensions.sparse.name.or(extensions.path).unwrap_or(fields.name);
        let (mtime_s, mtime_ns) = extensions.mtime.unwrap_or((fields.mtime, 0));
        let device = |number: u64| u32::try_from(number).map_err(|_| malformed("a device number is too large"));
        Ok(Entry {
            path,
            link: extensions.link.unwrap_or(fields.link),
            kind,
            mode: (fields.mode & 0o7777) as u32,
            uid: id(extensions.uid, fields.uid)?,
            gid: id(extensions.gid, fields.gid)?,
            mtime_s,
            mtime_ns,
            size,
            major: device(fields.major)?,
            minor: device(fields.minor)?,
            attributes: extensions.attributes,
            pieces,
        })
    }

    /// Size once unpacked, and the pieces of a sparse file. Reads what of the map stands in the data.
    fn sparse_map(
        &mut self,
        block: &Block,
        type_flag: u8,
        size: u64,
        sparse: &mut Sparse,
    ) -> io::Result<(u64, Option<Pieces>)> {
        let (real_size, pieces) = if type_flag == b'S' {
            (header_number(&block[483..495])?, self.old_gnu_map(block)?)
        } else if sparse.is_version_1 {
            (sparse.real_size, self.version_1_map()?)
        } else if let Some(map) = sparse.map.take() {
            (sparse.real_size, pairs(&map)?)
        } else {
            return Ok((size, None));
        };
        let real_size = real_size.ok_or_else(|| malformed("a sparse file has no size"))?;
        check_pieces(&pieces, real_size, self.data)?;
        Ok((real_size, Some(pieces)))
    }

    /// Four pieces in the header, 21 in each block that follows.
    fn old_gnu_map(&mut self, block: &Block) -> io::Result<Vec<(u64, u64)>> {
        let mut pieces = Vec::new();
        let mut read = |bytes: &[u8]| -> io::Result<()> {
            for piece in bytes.chunks_exact(24) {
                let (offset, length) = (header_number(&piece[..12])?, header_number(&piece[12..])?);
                if piece[0] != 0
                    && let (Some(offset), Some(length)) = (offset, length)
                {
                    pieces.push((offset, length));
                }
            }
            if pieces.len() > SPARSE_PIECES_MAX {
                return Err(malformed("a sparse file has too many pieces"));
            }
            Ok(())
        };
        read(&block[386..482])?;
        let mut goes_on = block[482] != 0;
        while goes_on {
            let mut more = [0; BLOCK_BYTES];
            self.source.read_exact(&mut more).map_err(|_| cut())?;
            read(&more[..504])?;
            goes_on = more[504] != 0;
        }
        Ok(pieces)
    }

    /// Lines of numbers at the start of the data, padded to a block.
    fn version_1_map(&mut self) -> io::Result<Vec<(u64, u64)>> {
        let mut text = Vec::new();
        let mut numbers: Vec<u64> = Vec::new();
        let mut wanted = None;
        while wanted.is_none_or(|wanted| numbers.len() < wanted) {
            let mut block = [0; BLOCK_BYTES];
            if self.data < BLOCK_BYTES as u64 {
                return Err(malformed("the map of a sparse file is cut"));
            }
            self.source.read_exact(&mut block).map_err(|_| cut())?;
            self.data -= BLOCK_BYTES as u64;
            for byte in block {
                if byte != b'\n' {
                    text.push(byte);
                    continue;
                }
                if wanted.is_some_and(|wanted| numbers.len() == wanted) {
                    break;
                }
                let value = decimal(&text)?;
                text.clear();
                match wanted {
                    Some(_) => numbers.push(value),
                    None if value <= SPARSE_PIECES_MAX as u64 => wanted = Some(value as usize * 2),
                    None => return Err(malformed("a sparse file has too many pieces")),
                }
            }
        }
        pairs(&numbers)
    }

    fn expect_data(&mut self, size: u64) -> io::Result<()> {
        if size > i64::MAX as u64 {
            return Err(malformed("an entry's size is impossible"));
        }
        self.data = size;
        self.padding = size.next_multiple_of(BLOCK_BYTES as u64) - size;
        Ok(())
    }

    /// All data of an extension header.
    fn extension(&mut self) -> io::Result<Vec<u8>> {
        if self.data > EXTENSION_BYTES_MAX {
            return Err(malformed(format!("an extension header has {} bytes; the limit is 1 MiB", self.data)));
        }
        let mut bytes = vec![0; self.data as usize];
        self.source.read_exact(&mut bytes).map_err(|_| cut())?;
        self.data = 0;
        Ok(bytes)
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        let wanted = self.data + self.padding;
        let skipped = io::copy(&mut self.source.by_ref().take(wanted), &mut io::sink())?;
        (self.data, self.padding) = (0, 0);
        // Some writers leave out the padding of the last entry.
        if skipped < wanted && self.header_block()?.is_some() {
            return Err(cut());
        }
        Ok(())
    }

    /// The next header; `None` at the end mark or where the stream ends between entries.
    fn header_block(&mut self) -> io::Result<Option<Block>> {
        if self.is_at_end {
            return Ok(None);
        }
        let mut block = [0; BLOCK_BYTES];
        let mut have = 0;
        while have < BLOCK_BYTES {
            match self.source.read(&mut block[have..])? {
                0 if have == 0 => {
                    self.is_at_end = true;
                    return Ok(None);
                }
                0 => return Err(cut()),
                read => have += read,
            }
        }
        if block.iter().all(|b| *b == 0) {
            self.is_at_end = true;
            return Ok(None);
        }
        Ok(Some(block))
    }
}

impl Extensions {
    /// Records of the form `length key=value\n`.
    fn read_pax(&mut self, mut records: &[u8]) -> io::Result<()> {
        let wrong = || malformed("a PAX record is malformed");
        while !records.is_empty() && records.iter().any(|b| *b != 0) {
            let space = records.iter().take(20).position(|b| *b == b' ').ok_or_else(wrong)?;
            let length = usize::try_from(decimal(&records[..space])?).map_err(|_| wrong())?;
            if length <= space + 2 || length > records.len() || records[length - 1] != b'\n' {
                return Err(wrong());
            }
            let record = &records[space + 1..length - 1];
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(wrong)?;
            self.set(&record[..equals], &record[equals + 1..])?;
            records = &records[length..];
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let given = !value.is_empty();
        match key {
            b"path" => self.path = given.then(|| value.to_vec()),
            b"linkpath" => self.link = given.then(|| value.to_vec()),
            b"size" => self.size = given.then(|| decimal(value)).transpose()?,
            b"uid" => self.uid = given.then(|| decimal(value)).transpose()?,
            b"gid" => self.gid = given.then(|| decimal(value)).transpose()?,
            b"mtime" => self.mtime = given.then(|| time(value)).transpose()?,
            b"GNU.sparse.name" => self.sparse.name = given.then(|| value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = Some(decimal(value)?),
            b"GNU.sparse.major" => self.sparse.is_version_1 = value == b"1",
            b"GNU.sparse.map" => {
                self.sparse.map =
                    Some(value.split(|b| *b == b',').filter(|n| !n.is_empty()).map(decimal).collect::<Result<_, _>>()?);
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                self.sparse.map.get_or_insert_default().push(decimal(value)?);
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.attributes.retain(|(known, _)| known != name);
                    self.attributes.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// Pieces must be in order, inside the file, and make up the data exactly.
fn check_pieces(pieces: &[(u64, u64)], real_size: u64, data: u64) -> io::Result<()> {
    let (mut end, mut sum) = (0_u64, 0_u64);
    for (offset, length) in pieces {
        let next = offset.checked_add(*length);
        if *offset < end || next.is_none_or(|next| next > real_size) {
            return Err(malformed("the pieces of a sparse file overlap or lie outside of it"));
        }
        end = next.unwrap_or_default();
        sum += length;
    }
    if sum != data {
        return Err(malformed("the pieces of a sparse file are not as long as its data"));
    }
    Ok(())
}

fn pairs(numbers: &[u64]) -> io::Result<Vec<(u64, u64)>> {
    if !numbers.len().is_multiple_of(2) {
        return Err(malformed("the map of a sparse file is cut"));
    }
    Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

fn header_number(field: &[u8]) -> io::Result<Option<u64>> {
    let value = number(field).ok_or_else(|| malformed("a sparse file's map is not of numbers"))?;
    Ok(u64::try_from(value).ok())
}

fn decimal(text: &[u8]) -> io::Result<u64> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    text.and_then(|text| text.parse().ok()).ok_or_else(|| malformed("a PAX number is malformed"))
}

/// Seconds with a fraction, also negative: the nanoseconds count upwards from the second before.
fn time(text: &[u8]) -> io::Result<(i64, u32)> {
    let wrong = || malformed("a PAX time is malformed");
    let text = std::str::from_utf8(text).map_err(|_| wrong())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| wrong())?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let nanoseconds: u32 = format!("{fraction:0<9.9}").parse().map_err(|_| wrong())?;
    Ok(match (whole.starts_with('-'), nanoseconds) {
        (true, 1..) => (seconds.checked_sub(1).ok_or_else(wrong)?, 1_000_000_000 - nanoseconds),
        _ => (seconds, nanoseconds),
    })
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut")
}
