//! Writes a tar that is the same bytes for the same entries: POSIX headers, numeric owners, whole seconds, and PAX records
//! only for what does not fit a header.

use std::io::{self, Read, Write};

use super::{
    BLOCK_BYTES,
    header::{Fields, fits_octal},
};

/// Bytes copied at once.
const CHUNK_BYTES: usize = 256 * 1024;
const NAME_BYTES: usize = 100;

/// One entry to write.
#[derive(Debug, Default)]
pub(crate) struct Member<'a> {
    /// Relative; directories end in a slash.
    pub(crate) path: &'a [u8],
    pub(crate) link: &'a [u8],
    /// As in the header: `0`, `1`, `2`, `3`, `4`, `5`, `6`.
    pub(crate) type_flag: u8,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    /// Not negative.
    pub(crate) mtime_s: i64,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    /// Sorted.
    pub(crate) attributes: &'a [(Vec<u8>, Vec<u8>)],
}

pub(crate) struct TarWriter<W> {
    out: W,
    written: u64,
    chunk: Vec<u8>,
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, written: 0, chunk: Vec::new() }
    }

    /// Bytes written so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Writes an entry with its data, which must have exactly `member.size` bytes.
    pub(crate) fn append(&mut self, member: &Member<'_>, data: &mut dyn Read) -> io::Result<()> {
        let mut records = Vec::new();
        let mut too_large = |key: &str, value: u64, digits: u32| {
            if !fits_octal(value, digits) {
                add_record(&mut records, key.as_bytes(), value.to_string().as_bytes());
            }
        };
        too_large("uid", member.uid.into(), 7);
        too_large("gid", member.gid.into(), 7);
        too_large("size", member.size, 11);
        too_large("mtime", member.mtime_s as u64, 11);
        if member.path.len() > NAME_BYTES {
            add_record(&mut records, b"path", member.path);
        }
        if member.link.len() > NAME_BYTES {
            add_record(&mut records, b"linkpath", member.link);
        }
        for (name, value) in member.attributes {
            add_record(&mut records, &[b"SCHILY.xattr.".as_slice(), name].concat(), value);
        }
        let fields = Fields {
            name: member.path.to_vec(),
            link: member.link.to_vec(),
            type_flag: member.type_flag,
            mode: member.mode.into(),
            uid: member.uid.into(),
            gid: member.gid.into(),
            size: member.size,
            mtime: member.mtime_s,
            major: member.major.into(),
            minor: member.minor.into(),
        };
        if !records.is_empty() {
            self.extension(&records, member.mtime_s)?;
        }
        self.put(&fields.to_block())?;
        self.data(data, member.size)
    }

    /// The end mark.
    pub(crate) fn finish(mut self) -> io::Result<(W, u64)> {
        self.put(&[0; 2 * BLOCK_BYTES])?;
        Ok((self.out, self.written))
    }

    fn extension(&mut self, records: &[u8], mtime: i64) -> io::Result<()> {
        let fields = Fields {
            // The name has no meaning; a fixed one keeps the bytes equal.
            name: b"PaxHeaders/entry".to_vec(),
            link: Vec::new(),
            type_flag: b'x',
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: records.len() as u64,
            mtime,
            major: 0,
            minor: 0,
        };
        self.put(&fields.to_block())?;
        self.data(&mut &*records, records.len() as u64)
    }

    fn data(&mut self, data: &mut dyn Read, size: u64) -> io::Result<()> {
        if size == 0 {
            return Ok(());
        }
        self.chunk.resize(CHUNK_BYTES, 0);
        let mut left = size;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            let read = data.read(&mut self.chunk[..wanted])?;
            if read == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file became shorter while it was read"));
            }
            self.out.write_all(&self.chunk[..read])?;
            left -= read as u64;
        }
        self.written += size;
        let padding = size.next_multiple_of(BLOCK_BYTES as u64) - size;
        self.put(&[0; BLOCK_BYTES][..padding as usize])
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// `length key=value\n`, where the length counts itself (POSIX pax, "pax Extended Header").
fn add_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    if length.to_string().len() > rest.to_string().len() {
        length += 1;
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}
