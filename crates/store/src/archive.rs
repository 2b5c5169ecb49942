//! Tar archives and their compression, as streams. Knows neither the store nor the file system.

mod compress;
mod decompress;
mod hash;
mod header;
mod members;
mod ordered;
mod read;
mod write;

pub(crate) use compress::{Compressor, GZIP_MAKER};
pub(crate) use decompress::{Format, decompress, sniff};
pub(crate) use hash::SideHasher;
pub(crate) use header::{BLOCK_BYTES, EntryKind};
pub(crate) use read::{Entry, TarReader};
pub(crate) use write::{Member, TarWriter};
