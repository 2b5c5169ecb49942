//! gzip and zstd whose bytes depend on the input alone, on all processors.
//!
//! gzip: the input is cut into fixed blocks, and each becomes a member of the file on its own (see `members`): every reader
//! of layers takes several, since stargz layers have one for each file.

use std::io::{self, Write};

use libdeflater::{CompressionLvl, Compressor as Deflater};

use super::{
    members::{self, BLOCK_BYTES as GZIP_BLOCK_BYTES, HEADER_BYTES, TRAILER_BYTES},
    ordered::{Ordered, threads},
};
use crate::Compression;

/// What the bytes of gzip follow from, with the level that is asked for. Layers that another one made are made anew, so that
/// the same image has the same digest everywhere.
pub(crate) const GZIP_MAKER: &str = "libdeflate-1.26 level-5 block-1M sized";
/// Its output is a little smaller than that of zlib's 6, which docker and Go have by default, in less than half the time.
const GZIP_LEVEL: u8 = 5;
const ZSTD_LEVEL: u8 = 3;
/// The highest levels ask readers for 128 MiB; 8 MiB is what every reader of the format must take (RFC 8878, 3.1.1.1.2).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
const ZSTD_LARGE_WINDOWS_FROM: u8 = 20;
/// zstd's jobs when it works in parallel; part of the output's identity as well. Small, for memory's sake.
const ZSTD_JOB_BYTES: u32 = 2 * 1024 * 1024;

/// Compresses what is written to it.
pub(crate) enum Compressor<W: Write> {
    Plain(W),
    Gzip(Gzip<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Compressor<W> {
    /// `level` of `None` is the usual one.
    pub(crate) fn new(out: W, compression: Compression, level: Option<u8>) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::Plain(out),
            Compression::Gzip => Self::Gzip(Gzip::new(out, level.unwrap_or(GZIP_LEVEL))),
            Compression::Zstd => {
                let level = level.unwrap_or(ZSTD_LEVEL);
                let mut encoder = zstd::stream::write::Encoder::new(out, level.into())?;
                encoder.include_checksum(true)?;
                // With at least one worker the output is the same for any number of them.
                encoder.multithread(threads() as u32)?;
                encoder.set_parameter(zstd::zstd_safe::CParameter::JobSize(ZSTD_JOB_BYTES))?;
                if level >= ZSTD_LARGE_WINDOWS_FROM {
                    encoder.window_log(ZSTD_WINDOW_LOG_MAX)?;
                }
                Self::Zstd(encoder)
            }
        })
    }

    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(out) => Ok(out),
            Self::Gzip(gzip) => gzip.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(bytes),
            Self::Gzip(gzip) => gzip.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) struct Gzip<W: Write> {
    out: W,
    level: u8,
    block: Vec<u8>,
    /// No member was begun yet.
    is_empty: bool,
    /// Started by the first full block: small layers need no threads.
    workers: Option<Ordered>,
}

impl<W: Write> Gzip<W> {
    fn new(out: W, level: u8) -> Self {
        Self { out, level, block: Vec::new(), is_empty: true, workers: None }
    }

    fn send_block(&mut self) -> io::Result<()> {
        let level = self.level;
        let workers = self.workers.get_or_insert_with(|| {
            Ordered::start(|| {
                let mut deflater = deflater(level);
                move |block: &[u8]| member(&mut deflater, block)
            })
        });
        self.is_empty = false;
        workers.give(std::mem::replace(&mut self.block, Vec::with_capacity(GZIP_BLOCK_BYTES)))?;
        if workers.is_full()
            && let Some(bytes) = workers.take()?
        {
            self.out.write_all(&bytes)?;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<W> {
        if let Some(workers) = &mut self.workers {
            while let Some(bytes) = workers.take()? {
                self.out.write_all(&bytes)?;
            }
        }
        if self.is_empty || !self.block.is_empty() {
            let bytes = member(&mut deflater(self.level), &self.block)?;
            self.out.write_all(&bytes)?;
        }
        Ok(self.out)
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(GZIP_BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == GZIP_BLOCK_BYTES {
            self.send_block()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn deflater(level: u8) -> Deflater {
    Deflater::new(CompressionLvl::new(level.into()).unwrap_or_default())
}

/// One block as a whole member that tells its length.
fn member(deflater: &mut Deflater, block: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = vec![0; HEADER_BYTES + deflater.deflate_compress_bound(block.len()) + TRAILER_BYTES];
    let length = deflater
        .deflate_compress(block, &mut out[HEADER_BYTES..])
        .map_err(|error| io::Error::other(format!("{error:?}")))?;
    out.truncate(HEADER_BYTES + length);
    out.extend_from_slice(&libdeflater::crc32(block).to_le_bytes());
    out.extend_from_slice(&(block.len() as u32).to_le_bytes());
    let header = members::header(out.len() as u32);
    out[..HEADER_BYTES].copy_from_slice(&header);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use oci::Digest;

    use super::*;

    /// Text-like bytes that any machine makes the same.
    fn sample(length: usize) -> Vec<u8> {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        let words: Vec<String> = (0..512).map(|_| format!("{:x} ", next() % 65_536)).collect();
        let mut text = Vec::with_capacity(length + 8);
        while text.len() < length {
            text.extend_from_slice(words[next() % words.len()].as_bytes());
        }
        text.truncate(length);
        text
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = Compressor::new(Vec::new(), Compression::Gzip, None).unwrap();
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn gzip_is_what_its_maker_promises() {
        for length in [0, 1, GZIP_BLOCK_BYTES, 5 * GZIP_BLOCK_BYTES / 2] {
            let bytes = sample(length);
            let mut back = Vec::new();
            flate2::read::MultiGzDecoder::new(&*gzip(&bytes)).read_to_end(&mut back).unwrap();
            assert!(back == bytes, "{length}");
        }
        // Another digest here means that `GZIP_MAKER` has to become another one, too.
        let digest = Digest::of(&gzip(&sample(5 * GZIP_BLOCK_BYTES / 2)));
        assert_eq!((GZIP_MAKER, digest.short()), ("libdeflate-1.26 level-5 block-1M sized", "f3a64471f213"));
    }
}
