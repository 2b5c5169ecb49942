//! gzip, zstd or plain, told apart by content, with a bound against bombs.

use std::{
    io::{self, BufRead, BufReader, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    members::{self, Members},
    read::malformed,
};

/// Below this many bytes any ratio is fine: it does no harm.
const BOMB_FREE_BYTES: u64 = 1024 * 1024 * 1024;
/// Real layers of more than a gigabyte stay below 30; gzip itself can reach 1,032 and zstd far more, on zeros only.
const RATIO_MAX: u64 = 200;
/// zstd frames may ask for this much memory, as a power of two: 128 MiB is what its own tools accept by default; 8 MiB
/// is what its levels up to 19 use. The peak of the whole process has to stay below 100 MB.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;
const BUFFER_BYTES: usize = 256 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Plain,
    Gzip,
    Zstd,
}

/// Tells the format by the first bytes (RFC 1952 2.3.1, RFC 8878 3.1.1).
pub(crate) fn sniff(start: &[u8]) -> Format {
    match start {
        [0x1f, 0x8b, ..] => Format::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Format::Zstd,
        // A skippable zstd frame first, as seekable layers have.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Format::Zstd,
        _ => Format::Plain,
    }
}

/// Gives the uncompressed bytes of a stream. The format that was found comes along.
pub(crate) fn decompress<'a>(source: impl Read + Send + 'a) -> io::Result<(Format, Box<dyn Read + Send + 'a>)> {
    let taken = Arc::new(AtomicU64::new(0));
    let mut source = BufReader::with_capacity(BUFFER_BYTES, Counting { source, taken: taken.clone() });
    let start = peek(&mut source)?;
    let format = sniff(start);
    let has_members = members::begin(start);
    for (magic, name) in [(b"\xfd7zXZ\0".as_slice(), "xz"), (b"BZh", "bzip2")] {
        if start.starts_with(magic) {
            return Err(malformed(format!("it is compressed with {name}; only gzip, zstd and plain tar are read")));
        }
    }
    let inner: Box<dyn Read + Send + 'a> = match format {
        Format::Plain => return Ok((format, Box::new(source))),
        Format::Gzip if has_members => Box::new(Members::new(source)),
        Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        Format::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    };
    Ok((format, Box::new(Bounded { inner, taken, given: 0 })))
}

/// The first bytes, as many as the first read gives (magic numbers are never split by files or our own writers).
fn peek(source: &mut impl BufRead) -> io::Result<&[u8]> {
    source.fill_buf()
}

struct Counting<R> {
    source: R,
    taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.taken.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

struct Bounded<R> {
    inner: R,
    taken: Arc<AtomicU64>,
    given: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.given += read as u64;
        if self.given > BOMB_FREE_BYTES && self.given / RATIO_MAX > self.taken.load(Ordering::Relaxed) {
            return Err(malformed(format!(
                "the data grows to more than {RATIO_MAX} times its compressed size (a decompression bomb)"
            )));
        }
        Ok(read)
    }
}
