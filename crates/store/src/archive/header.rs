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
        let mut put = |range: Range<usize>, bytes: &[u8]| {
            let length = bytes.len().min(range.len());
            block[range.start..range.start + length].copy_from_slice(&bytes[..length]);
        };
        put(NAME, &self.name);
        put(MODE, &octal(self.mode, 7));
        put(UID, &octal(self.uid, 7));
        put(GID, &octal(self.gid, 7));
        put(SIZE, &octal(self.size, 11));
        put(MTIME, &octal(u64::try_from(self.mtime).unwrap_or(0), 11));
        put(TYPE..TYPE + 1, &[self.type_flag]);
        put(LINK, &self.link);
        put(MAGIC, b"ustar\x0000");
        put(MAJOR, &octal(self.major, 7));
        put(MINOR, &octal(self.minor, 7));
        let sum = checksum(&block);
        block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

/// Sum of all bytes, the checksum field itself taken as spaces.
fn checksum(block: &Block) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|b| u32::from(*b)).sum::<u32>();
    sum(block) - sum(&block[CHECKSUM]) + 8 * u32::from(b' ')
}

/// `digits` octal digits and a final NUL; zero when the number needs more.
fn octal(number: u64, digits: usize) -> Vec<u8> {
    let text = format!("{number:0digits$o}\0");
    if text.len() > digits + 1 { format!("{:0digits$o}\0", 0).into_bytes() } else { text.into_bytes() }
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
