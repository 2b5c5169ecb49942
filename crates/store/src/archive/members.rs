//! gzip members that tell their length, so that a reader can find the next one without inflating, and inflate them on all
//! processors.
//!
//! The length stands in a subfield of the header's extra field (RFC 1952, 2.3.1.1), which other readers pass over, as
//! bgzip does with its smaller blocks. It is a hint: what does not hold to it is refused here or read by the plain way, and
//! whoever unpacks a layer compares the digest of what came out.

use std::{
    io::{self, BufRead, Read},
    mem,
};

use libdeflater::Decompressor;

use super::{ordered::Ordered, read::malformed};

/// Uncompressed bytes of a member, but for the last.
pub(super) const BLOCK_BYTES: usize = 1024 * 1024;
/// Ten fixed bytes, the extra field's length, and one subfield of four bytes.
pub(super) const HEADER_BYTES: usize = 20;
/// Checksum and length of the content (RFC 1952, 2.3.1).
pub(super) const TRAILER_BYTES: usize = 8;
/// Deflate of what does not compress is a little longer than its content; far above that, and for our blocks.
const MEMBER_BYTES_MAX: usize = 2 * BLOCK_BYTES;

/// Deflate, with an extra field, no name, no time, of no particular system; then the subfield's name and length.
const HEADER: [u8; HEADER_BYTES - 4] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 8, 0, b'S', b'Z', 4, 0];

/// The header of a member of `length_bytes` in all.
pub(super) fn header(length_bytes: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let (fixed, length) = header.split_at_mut(HEADER.len());
    fixed.copy_from_slice(&HEADER);
    length.copy_from_slice(&length_bytes.to_le_bytes());
    header
}

/// Length of the whole member whose header is given, if it tells one that our writers would.
fn told_length(header: &[u8]) -> Option<usize> {
    let length = header.strip_prefix(&HEADER)?.first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    (HEADER_BYTES + TRAILER_BYTES..=MEMBER_BYTES_MAX).contains(&length).then_some(length)
}

/// Whether a gzip stream begins with such a member.
pub(super) fn begin(start: &[u8]) -> bool {
    start.len() >= HEADER_BYTES && told_length(start).is_some()
}

/// The content of a stream that [begins](begin) with such members. From the first other member on it is read as any gzip.
pub(super) struct Members<'a, R> {
    source: Source<'a, R>,
    workers: Ordered,
    piece: Vec<u8>,
    at: usize,
}

enum Source<'a, R> {
    Sized(R),
    Other(Box<dyn Read + Send + 'a>),
    Ended,
}

impl<'a, R: BufRead + Send + 'a> Members<'a, R> {
    pub(super) fn new(source: R) -> Self {
        let workers = Ordered::start(|| {
            let mut inflater = Decompressor::new();
            move |member: &[u8]| inflate(&mut inflater, member)
        });
        Self { source: Source::Sized(source), workers, piece: Vec::new(), at: 0 }
    }

    /// Keeps the workers busy, and gives the next piece; an empty one means that no such member is left.
    fn next_piece(&mut self) -> io::Result<Vec<u8>> {
        while !self.workers.is_full() {
            let Source::Sized(source) = &mut self.source else { break };
            let mut member = Vec::new();
            source.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut member)?;
            if let Some(length) = told_length(&member) {
                member.reserve_exact(length - HEADER_BYTES);
                source.by_ref().take((length - HEADER_BYTES) as u64).read_to_end(&mut member)?;
                if member.len() < length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.workers.give(member)?;
                continue;
            }
            let is_end = member.is_empty();
            let Source::Sized(source) = mem::replace(&mut self.source, Source::Ended) else { break };
            if !is_end {
                let rest = io::Cursor::new(member).chain(source);
                self.source = Source::Other(Box::new(flate2::bufread::MultiGzDecoder::new(rest)));
            }
        }
        // A member may be empty.
        loop {
            match self.workers.take()? {
                Some(piece) if piece.is_empty() => {}
                piece => return Ok(piece.unwrap_or_default()),
            }
        }
    }
}

impl<'a, R: BufRead + Send + 'a> Read for Members<'a, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() {
            self.at = 0;
            self.piece = self.next_piece()?;
        }
        if self.piece.is_empty()
            && let Source::Other(source) = &mut self.source
        {
            return source.read(buffer);
        }
        let read = buffer.len().min(self.piece.len() - self.at);
        buffer[..read].copy_from_slice(&self.piece[self.at..self.at + read]);
        self.at += read;
        Ok(read)
    }
}

/// The content of one member, which has our header.
fn inflate(inflater: &mut Decompressor, member: &[u8]) -> io::Result<Vec<u8>> {
    let (body, trailer) = member[HEADER_BYTES..].split_at(member.len() - HEADER_BYTES - TRAILER_BYTES);
    let number = |at: usize| u32::from_le_bytes([trailer[at], trailer[at + 1], trailer[at + 2], trailer[at + 3]]);
    let length = number(4) as usize;
    if length > BLOCK_BYTES {
        return Err(corrupt("longer than a block"));
    }
    let mut content = vec![0; length];
    let written = inflater.deflate_decompress(body, &mut content).map_err(|_| corrupt("not what its length says"))?;
    if written != length || libdeflater::crc32(&content) != number(0) {
        return Err(corrupt("not what its checksum says"));
    }
    Ok(content)
}

fn corrupt(what: &str) -> io::Error {
    malformed(format!("a gzip member is {what}"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use flate2::{Compression as Level, write::GzEncoder};

    use super::*;
    use crate::{
        Compression,
        archive::{Compressor, decompress},
    };

    const LENGTH: usize = 7 * BLOCK_BYTES / 2;

    fn content() -> Vec<u8> {
        (0..LENGTH).map(|at| (at * at / 7) as u8).collect()
    }

    fn sized() -> Vec<u8> {
        let mut out = Compressor::new(Vec::new(), Compression::Gzip, None).unwrap();
        out.write_all(&content()).unwrap();
        out.finish().unwrap()
    }

    fn plain(bytes: &[u8]) -> Vec<u8> {
        let mut out = GzEncoder::new(Vec::new(), Level::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn read(compressed: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompress(compressed)?.1.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn members_of_any_kind_follow_each_other() {
        let (sized, other) = (sized(), plain(b"other"));
        assert!(begin(&sized) && !begin(&other));
        for kinds in [vec![&sized], vec![&sized, &sized], vec![&sized, &other, &sized], vec![&other, &sized]] {
            let expected: Vec<u8> =
                kinds.iter().flat_map(|kind| if **kind == other { b"other".to_vec() } else { content() }).collect();
            let compressed: Vec<u8> = kinds.into_iter().flatten().copied().collect();
            assert!(read(&compressed).unwrap() == expected);
        }
    }

    #[test]
    fn what_is_damaged_is_an_error() {
        let whole = sized();
        for end in [HEADER_BYTES + 5, whole.len() / 2, whole.len() - 1] {
            assert!(read(&whole[..end]).is_err(), "cut at {end}");
        }
        let first = told_length(&whole[..HEADER_BYTES]).unwrap();
        let ends = [HEADER_BYTES + 40, first - 8, first - 4, first + HEADER_BYTES - 4, first + 1, whole.len() - 1];
        for at in ends {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            assert!(read(&damaged).is_err(), "byte {at}");
        }
        assert!(read(&[&whole[..], b"more"].concat()).is_err());
    }
}
