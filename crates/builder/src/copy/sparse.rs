//! Files with holes: only their data is copied, so that a disk image of gigabytes with little in it stays small.

use std::{io, os::fd::OwnedFd};

use rustix::{
    fs::{SeekFrom, copy_file_range, fstat, ftruncate, seek},
    io::Errno,
};

/// What the kernel copies at once.
const PIECE_BYTES: u64 = 1 << 30;
/// `st_blocks` counts in these, whatever the file system's own are (stat(2)).
const BLOCK_BYTES: u64 = 512;

/// Copies a file that has holes to an empty one. False, with nothing done: it has none, or the file systems cannot do it.
pub(super) fn copy(from: &OwnedFd, to: &OwnedFd, size: u64) -> io::Result<bool> {
    let blocks = u64::try_from(fstat(from)?.st_blocks).unwrap_or(u64::MAX);
    if blocks.saturating_mul(BLOCK_BYTES) >= size {
        return Ok(false);
    }
    let mut at = 0;
    while at < size {
        let begin = match seek(from, SeekFrom::Data(at)) {
            Ok(begin) => begin,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            Err(_) if at == 0 => return Ok(false),
            Err(errno) => return Err(errno.into()),
        };
        let end = seek(from, SeekFrom::Hole(begin))?.min(size);
        let (mut read, mut written) = (begin, begin);
        while read < end {
            let count = usize::try_from((end - read).min(PIECE_BYTES)).unwrap_or(usize::MAX);
            match copy_file_range(from, Some(&mut read), to, Some(&mut written), count) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM)
                    if written == begin && at == 0 =>
                {
                    seek(from, SeekFrom::Start(0))?;
                    return Ok(false);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        at = end;
    }
    ftruncate(to, size)?;
    Ok(true)
}
