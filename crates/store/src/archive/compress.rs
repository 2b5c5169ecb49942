//! gzip and zstd whose bytes depend on the input alone, on all processors.
//!
//! gzip: the input is cut into fixed blocks, each deflated on its own and ended by a sync flush, so that the pieces can be
//! put together as ONE deflate stream with one header and one checksum: every reader takes it (pigz does the same).

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
};

use flate2::{Compress, Crc, FlushCompress};

use crate::Compression;

/// Part of the output's identity: never change it without a new format of the layer records.
const GZIP_BLOCK_BYTES: usize = 1024 * 1024;
/// As docker and Go have by default.
const GZIP_LEVEL: u8 = 6;
const ZSTD_LEVEL: u8 = 3;
/// The highest levels ask readers for 128 MiB; 8 MiB is what every reader of the format must take (RFC 8878, 3.1.1.1.2).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
const ZSTD_LARGE_WINDOWS_FROM: u8 = 20;
/// zstd's jobs when it works in parallel; part of the output's identity as well. Small, for memory's sake.
const ZSTD_JOB_BYTES: u32 = 2 * 1024 * 1024;
/// More threads than this wait for the one that reads and hashes.
const THREADS_MAX: usize = 8;

/// RFC 1952 2.3: no name, no time, operating system unknown; extra flags 0.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// An empty final deflate block with fixed codes (RFC 1951 3.2.6).
const DEFLATE_END: [u8; 2] = [0x03, 0x00];

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
            Compression::Gzip => Self::Gzip(Gzip::new(out, level.unwrap_or(GZIP_LEVEL))?),
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

fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
}

struct Job {
    block: Vec<u8>,
    reply: Sender<io::Result<Vec<u8>>>,
}

pub(crate) struct Gzip<W: Write> {
    out: W,
    level: u8,
    block: Vec<u8>,
    crc: Crc,
    /// Blocks at work, in order. Their number bounds the memory.
    pending: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    /// Started by the first full block: small layers need no threads.
    workers: Option<(Sender<Job>, Vec<JoinHandle<()>>)>,
}

impl<W: Write> Gzip<W> {
    fn new(mut out: W, level: u8) -> io::Result<Self> {
        out.write_all(&GZIP_HEADER)?;
        Ok(Self { out, level, block: Vec::new(), crc: Crc::new(), pending: VecDeque::new(), workers: None })
    }

    fn send_block(&mut self) -> io::Result<()> {
        let jobs = &self.workers.get_or_insert_with(|| start_workers(self.level)).0;
        let (reply, answer) = mpsc::channel();
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(GZIP_BLOCK_BYTES));
        jobs.send(Job { block, reply }).map_err(|_| lost())?;
        self.pending.push_back(answer);
        if self.pending.len() > threads() + 1 {
            self.take_block()?;
        }
        Ok(())
    }

    fn take_block(&mut self) -> io::Result<()> {
        if let Some(answer) = self.pending.pop_front() {
            let bytes = answer.recv().map_err(|_| lost())??;
            self.out.write_all(&bytes)?;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<W> {
        while !self.pending.is_empty() {
            self.take_block()?;
        }
        if !self.block.is_empty() {
            let bytes = deflate(&mut compress(self.level), &self.block)?;
            self.out.write_all(&bytes)?;
        }
        self.out.write_all(&DEFLATE_END)?;
        self.out.write_all(&self.crc.sum().to_le_bytes())?;
        self.out.write_all(&self.crc.amount().to_le_bytes())?;
        if let Some((jobs, workers)) = self.workers {
            drop(jobs);
            for worker in workers {
                worker.join().map_err(|_| lost())?;
            }
        }
        Ok(self.out)
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(GZIP_BLOCK_BYTES - self.block.len());
        self.crc.update(&bytes[..taken]);
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

/// The workers end when the sender of jobs is dropped.
fn start_workers(level: u8) -> (Sender<Job>, Vec<JoinHandle<()>>) {
    let (sender, receiver) = mpsc::channel::<Job>();
    let receiver = Arc::new(Mutex::new(receiver));
    let workers = (0..threads())
        .map(|_| {
            let receiver = receiver.clone();
            thread::spawn(move || {
                let mut compress = compress(level);
                loop {
                    let job = receiver.lock().expect("no panic while held").recv();
                    let Ok(job) = job else { return };
                    // A reader that gave up does not want the answer.
                    let _ = job.reply.send(deflate(&mut compress, &job.block));
                }
            })
        })
        .collect();
    (sender, workers)
}

fn compress(level: u8) -> Compress {
    Compress::new(flate2::Compression::new(level.into()), false)
}

/// One block as deflate blocks that end at a byte border and are not final.
fn deflate(compress: &mut Compress, block: &[u8]) -> io::Result<Vec<u8>> {
    compress.reset();
    let mut out = Vec::with_capacity(block.len() / 2 + 64);
    loop {
        let taken = compress.total_in() as usize;
        compress.compress_vec(&block[taken..], &mut out, FlushCompress::Sync).map_err(io::Error::other)?;
        // Everything is out when there was room left for more.
        if compress.total_in() as usize == block.len() && out.len() < out.capacity() {
            return Ok(out);
        }
        out.reserve(block.len() / 4 + 64);
    }
}

fn lost() -> io::Error {
    io::Error::other("a compression thread ended early")
}
