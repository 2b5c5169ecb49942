//! `Packages` as a hash of Berkeley DB (db 4.8 to 5.3, `dbinc/db_page.h`): headers are too long for a page and lie in chains of
//! overflow pages.

use super::{
    super::{
        layer::Malformed,
        source::{ReadAt, number, piece},
    },
    Each, HEADER_BYTES_MAX,
};

const META_BYTES: u64 = 512;
const HASH_MAGIC: u64 = 0x0006_1561;
const PAGE_HEAD_BYTES: usize = 26;
const UNSORTED_HASH_PAGE: u64 = 2;
const OVERFLOW_PAGE: u64 = 7;
const HASH_META_PAGE: u64 = 8;
const HASH_PAGE: u64 = 13;
/// An item of a hash page that says where a long one is.
const OFF_PAGE: u8 = 3;

pub(super) fn each_blob(source: &dyn ReadAt, length: u64, each: Each<'_>) -> Result<(), Malformed> {
    let meta = piece(source, 0, META_BYTES, META_BYTES)?;
    let is_big_endian = match (number(&meta, 12, 4, false)?, number(&meta, 12, 4, true)?) {
        (HASH_MAGIC, _) => false,
        (_, HASH_MAGIC) => true,
        _ => return Err(Malformed::new("it is no hash of Berkeley DB")),
    };
    let page = number(&meta, 20, 4, is_big_endian)?;
    if !page.is_power_of_two() || !(512..=65_536).contains(&page) {
        return Err(Malformed::new("its pages have an odd size"));
    }
    if number(&meta, 24, 1, is_big_endian)? != 0 || number(&meta, 25, 1, is_big_endian)? != HASH_META_PAGE {
        return Err(Malformed::new("it is encrypted, or of another kind"));
    }
    let pages = length / page;
    let last = number(&meta, 32, 4, is_big_endian)?.min(pages.saturating_sub(1));
    // Chains share no page.
    let mut database = Database { source, page, is_big_endian, left: pages };
    for place in 1..=last {
        let bytes = database.read(place)?;
        if !matches!(number(&bytes, 25, 1, is_big_endian)?, UNSORTED_HASH_PAGE | HASH_PAGE) {
            continue;
        }
        let entries = number(&bytes, 20, 2, is_big_endian)? as usize;
        // Keys and data take turns.
        for entry in (1..entries).step_by(2) {
            let at = number(&bytes, PAGE_HEAD_BYTES + 2 * entry, 2, is_big_endian)? as usize;
            if bytes.get(at) == Some(&OFF_PAGE) {
                let (first, total) =
                    (number(&bytes, at + 4, 4, is_big_endian)?, number(&bytes, at + 8, 4, is_big_endian)?);
                each(&database.chain(first, total)?)?;
            }
        }
    }
    Ok(())
}

struct Database<'a> {
    source: &'a dyn ReadAt,
    page: u64,
    is_big_endian: bool,
    /// Overflow pages that may still be read.
    left: u64,
}

impl Database<'_> {
    fn read(&self, page: u64) -> Result<Vec<u8>, Malformed> {
        piece(self.source, page * self.page, self.page, self.page)
    }

    /// An item of so many bytes in a chain of overflow pages.
    fn chain(&mut self, first: u64, total: u64) -> Result<Vec<u8>, Malformed> {
        if total > HEADER_BYTES_MAX {
            return Err(Malformed::new(format!("a package claims {total} bytes")));
        }
        let mut item = Vec::new();
        let mut next = first;
        while (item.len() as u64) < total {
            self.left = self.left.checked_sub(1).ok_or_else(|| Malformed::new("its pages lead in a circle"))?;
            let bytes = self.read(next)?;
            if next == 0 || number(&bytes, 25, 1, self.is_big_endian)? != OVERFLOW_PAGE {
                return Err(Malformed::new("the header of a package is cut short"));
            }
            let used = number(&bytes, 22, 2, self.is_big_endian)? as usize;
            let rest = usize::try_from(total).unwrap_or(usize::MAX) - item.len();
            let end = PAGE_HEAD_BYTES + used.min(rest);
            item.extend_from_slice(
                bytes
                    .get(PAGE_HEAD_BYTES..end)
                    .filter(|bytes| !bytes.is_empty())
                    .ok_or_else(|| Malformed::new("a page of it has no bytes"))?,
            );
            next = number(&bytes, 16, 4, self.is_big_endian)?;
        }
        Ok(item)
    }
}
