//! One 512-byte tar header (POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar's "Basic Tar Format").

use std::ops::Range;

/// Everything in a tar is a multiple of this.
pub(crate) const BLOCK_BYTES: usize = 512;

pub(crate) type Block = [u8; BLOCK_BYTES];

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const TYPE: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..265;
const MAJOR: Range<usize> = 329..337;
const MINOR: Range<usize> = 337..345;
const PREFIX: Range<usize> = 345..500;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    HardLink,
    Symlink,
    CharacterDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// Fields of a header, as they stand there.
#[derive(Debug)]
pub(crate) struct Fields {
    pub(crate) name: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) type_flag: u8,
    pub(crate) mode: u64,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) size: u64,
    pub(crate) mtime: i64,
    pub(crate) major: u64,
    pub(crate) minor: u64,
}

impl Fields {
    /// Reads a header block. The error says what is wrong with it.
    pub(crate) fn parse(block: &Block) -> Result<Self, &'static str> {
        let stated = number(&block[CHECKSUM]).ok_or("a header's checksum is not a number")?;
        if stated != i64::from(checksum(block)) {
            return Err("a header's checksum is wrong (not a tar archive, or a damaged one)");
        }
        let positive =
            |range, what| number(&block[range]).and_then(|number: i64| u64::try_from(number).ok()).ok_or(what);
        let mut name = text(&block[NAME]);
        // GNU's headers have times where POSIX has the prefix.
        let is_posix = &block[MAGIC] == b"ustar\x0000";
        if is_posix && block[PREFIX.start] != 0 {
            name = [text(&block[PREFIX]), name].join(&b'/');
        }
        // The device fields of other entries may hold anything.
        let type_flag = block[TYPE];
        let is_device = matches!(type_flag, b'3' | b'4');
        let device =
            |range: Range<usize>| if is_device { positive(range, "a device number is not a number") } else { Ok(0) };
        Ok(Self {
            name,
            link: text(&block[LINK]),
            type_flag,
            mode: positive(MODE, "a mode is not a number")?,
            uid: positive(UID, "a user id is not a number")?,
            gid: positive(GID, "a group id is not a number")?,
            size: positive(SIZE, "a size is not a number")?,
            mtime: number(&block[MTIME]).ok_or("a time is not a number")?,
            major: device(MAJOR)?,
            minor: device(MINOR)?,
        })
    }

    /// A POSIX header. Numbers that do not fit are zero here and stand in a PAX record before it.
    pub(crate) fn to_block(&self) -> Block {
        let mut block = [0; BLOCK_BYTES];
        put(&mut block, NAME, &self.name);
        put_octal(&mut block, MODE, self.mode);
        put_octal(&mut block, UID, self.uid);
        put_octal(&mut block, GID, self.gid);
        put_octal(&mut block, SIZE, self.size);
        put_octal(&mut block, MTIME, u64::try_from(self.mtime).unwrap_or(0));
        block[TYPE] = self.type_flag;
        put(&mut block, LINK, &self.link);
        put(&mut block, MAGIC, b"ustar\x0000");
        put_octal(&mut block, MAJOR, self.major);
        put_octal(&mut block, MINOR, self.minor);
        let sum = checksum(&block);
        // Six digits, NUL and space, other than in all other fields.
        put_octal(&mut block, CHECKSUM.start..CHECKSUM.end - 1, sum.into());
        block[CHECKSUM.end - 1] = b' ';
        block
    }
}

fn put(block: &mut Block, range: Range<usize>, bytes: &[u8]) {
    let length = bytes.len().min(range.len());
    block[range.start..range.start + length].copy_from_slice(&bytes[..length]);
}

/// Octal digits that fill the field but for a final NUL; zero when the number needs more.
fn put_octal(block: &mut Block, range: Range<usize>, number: u64) {
    let digits = range.len() - 1;
    let mut rest = if fits_octal(number, digits as u32) { number } else { 0 };
    for place in (range.start..range.start + digits).rev() {
        block[place] = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
}

/// Sum of all bytes, the checksum field itself taken as spaces.
fn checksum(block: &Block) -> u32 {
    fn sum(bytes: &[u8]) -> u32 {
        bytes.iter().map(|b| u32::from(*b)).sum()
    }
    sum(block) - sum(&block[CHECKSUM]) + 8 * u32::from(b' ')
}

/// Whether a number fits a field of so many octal digits.
pub(crate) fn fits_octal(number: u64, digits: u32) -> bool {
    number >> (3 * digits) == 0
}

/// Octal text, or GNU's base-256 form with the top bit set. Empty is zero, as all tar programs read it.
pub(crate) fn number(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Two's complement over the remaining bits.
        let start = if first & 0x40 == 0 { i128::from(first & 0x3f) } else { i128::from(first & 0x7f) - 0x80 };
        let mut value = start;
        for byte in rest {
            value = value.checked_mul(256)?.checked_add(i128::from(*byte))?;
        }
        return i64::try_from(value).ok();
    }
    let text = std::str::from_utf8(field).ok()?;
    let text = text.split('\0').next().unwrap_or_default().trim_matches(' ');
    if text.is_empty() {
        return Some(0);
    }
    if text.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(text, 8).ok()
}

fn text(field: &[u8]) -> Vec<u8> {
    field.split(|b| *b == 0).next().unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (field, expected) in [
            (b"0000644\0".as_slice(), Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"-1\0\0\0\0\0\0", None),
            (b"8\0\0\0\0\0\0\0", None),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(number(field), expected, "{field:?}");
        }
    }
}
