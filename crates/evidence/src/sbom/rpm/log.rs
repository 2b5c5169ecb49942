//! SQLite's write-ahead log: pages that go before those of the database (sqlite.org/fileformat2.html, "The Write-Ahead Log").

use std::collections::HashMap;

use super::super::{
    layer::Malformed,
    source::{ReadAt, number, piece},
};

const HEAD_BYTES: u64 = 32;
const FRAME_HEAD_BYTES: u64 = 24;
/// The last bit of the magic number says in which order checksums take the bytes.
const MAGIC: u64 = 0x377f_0682;
const FORMAT_VERSION: u64 = 3_007_000;
/// SQLite writes its log into the database after some thousand pages; a killed one may have left a little more.
const FRAMES_MAX: usize = 200_000;

/// A log, as far as it was committed.
pub(super) struct Log<'a> {
    pub(super) source: &'a dyn ReadAt,
    /// Where the newest content of a page begins, by the page's number.
    pub(super) places: HashMap<u64, u64>,
}

impl<'a> Log<'a> {
    /// Reads the log of a database whose pages have this size. What is cut short or of an earlier round ends it; one that is no
    /// log is empty, as it is for SQLite.
    pub(super) fn open(source: &'a dyn ReadAt, page: u64) -> Result<Self, Malformed> {
        let mut log = Self { source, places: HashMap::new() };
        let Ok(head) = piece(source, 0, HEAD_BYTES, HEAD_BYTES) else { return Ok(log) };
        let read = |at| number(&head, at, 4, true);
        let (magic, version, size) = (read(0)?, read(4)?, read(8)?);
        if magic & !1 != MAGIC || version != FORMAT_VERSION || size != page {
            return Ok(log);
        }
        let mut sum = Sum { is_big_endian: magic & 1 == 1, state: [0, 0] };
        sum.add(&head[..24]);
        if !sum.is(&head[24..])? {
            return Ok(log);
        }
        let salts = head[16..24].to_vec();
        let mut pending = Vec::new();
        let mut place = HEAD_BYTES;
        for frame in 0.. {
            if frame == FRAMES_MAX {
                return Err(Malformed::new("the log beside it is longer than any"));
            }
            let Ok(bytes) = piece(source, place, FRAME_HEAD_BYTES + page, FRAME_HEAD_BYTES + page) else { break };
            let (head, content) = bytes.split_at(FRAME_HEAD_BYTES as usize);
            sum.add(&head[..8]);
            sum.add(content);
            if head[8..16] != salts || !sum.is(&head[16..])? {
                break;
            }
            pending.push((number(head, 0, 4, true)?, place + FRAME_HEAD_BYTES));
            // The size of the database stands in the last frame of a transaction.
            if number(head, 4, 4, true)? != 0 {
                log.places.extend(pending.drain(..));
            }
            place += FRAME_HEAD_BYTES + page;
        }
        Ok(log)
    }
}

/// The running checksum ("Checksum Algorithm").
struct Sum {
    is_big_endian: bool,
    state: [u32; 2],
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        let word = |bytes: &[u8]| {
            let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
            if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        let [mut one, mut two] = self.state;
        for pair in bytes.chunks_exact(8) {
            one = one.wrapping_add(word(&pair[..4])).wrapping_add(two);
            two = two.wrapping_add(word(&pair[4..])).wrapping_add(one);
        }
        self.state = [one, two];
    }

    fn is(&self, told: &[u8]) -> Result<bool, Malformed> {
        Ok(number(told, 0, 4, true)? == u64::from(self.state[0])
            && number(told, 4, 4, true)? == u64::from(self.state[1]))
    }
}
