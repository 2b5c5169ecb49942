//! Files that are read here and there instead of as a whole, with a bound on each piece.

use std::{cell::Cell, fs::File, io};

use super::layer::Malformed;

/// A file, or bytes in memory.
pub(crate) trait ReadAt {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, at)
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}

/// A source that counts what is read of it.
pub(crate) struct Counted<'a> {
    source: &'a dyn ReadAt,
    read_bytes: Cell<u64>,
}

impl<'a> Counted<'a> {
    pub(crate) fn new(source: &'a dyn ReadAt) -> Self {
        Self { source, read_bytes: Cell::new(0) }
    }

    /// Bytes that were read, each as often as it was.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.read_bytes.get()
    }
}

impl ReadAt for Counted<'_> {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let read = self.source.read_at(buffer, at)?;
        self.read_bytes.set(self.read_bytes.get() + read as u64);
        Ok(read)
    }
}

/// Exactly `length` bytes from `at`; nothing is allocated for a length that is more than `limit`.
pub(crate) fn piece(source: &dyn ReadAt, at: u64, length: u64, limit: u64) -> Result<Vec<u8>, Malformed> {
    /// A length may be a lie: what is there is found out before more is allocated.
    const STEP: usize = 1 << 20;
    if length > limit {
        return Err(Malformed::new(format!("a part of it claims {length} bytes, more than {limit}")));
    }
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < length {
        let step = STEP.min((length - bytes.len() as u64) as usize);
        let have = bytes.len();
        bytes.resize(have + step, 0);
        let place = at.checked_add(have as u64).ok_or_else(|| Malformed::new("a part of it begins nowhere"))?;
        let read = source.read_at(&mut bytes[have..], place)?;
        if read == 0 {
            return Err(Malformed::new("it is cut short"));
        }
        bytes.truncate(have + read);
    }
    Ok(bytes)
}

/// An unsigned number of up to eight bytes at a place in a piece.
pub(crate) fn number(bytes: &[u8], at: usize, length: usize, is_big_endian: bool) -> Result<u64, Malformed> {
    let end = at.checked_add(length).ok_or_else(|| Malformed::new("it is cut short"))?;
    let field = bytes.get(at..end).ok_or_else(|| Malformed::new("it is cut short"))?;
    let push = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    Ok(if is_big_endian { field.iter().fold(0, push) } else { field.iter().rev().fold(0, push) })
}
