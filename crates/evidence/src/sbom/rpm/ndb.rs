//! RPM's own package database `Packages.db` (rpm, `lib/backend/ndb/rpmpkg.c`): slots that say where blobs are. Little-endian.

use super::{
    super::{
        layer::Malformed,
        source::{ReadAt, number, piece},
    },
    Each, HEADER_BYTES_MAX,
};

const PAGE_BYTES: u64 = 4096;
/// Of a slot, and what places of blobs count in.
const BLOCK_BYTES: u64 = 16;
/// The head takes the place of the first two slots.
const HEAD_BYTES: u64 = 32;
/// A page has 256 slots; this is more than any distribution's packages.
const SLOT_PAGES_MAX: u64 = 4096;

pub(super) fn each_blob(source: &dyn ReadAt, length: u64, each: Each<'_>) -> Result<(), Malformed> {
    let head = piece(source, 0, HEAD_BYTES, HEAD_BYTES)?;
    if &head[..4] != b"RpmP" {
        return Err(Malformed::new("it is no database of packages"));
    }
    let pages = number(&head, 12, 4, false)?;
    let slots = piece(source, 0, pages.saturating_mul(PAGE_BYTES), SLOT_PAGES_MAX * PAGE_BYTES)?;
    let slots = slots.get(HEAD_BYTES as usize..).unwrap_or_default();
    // Blobs share no bytes.
    let mut left = length;
    for slot in slots.chunks_exact(BLOCK_BYTES as usize) {
        let (package, place) = (number(slot, 4, 4, false)?, number(slot, 8, 4, false)?);
        if &slot[..4] != b"Slot" {
            return Err(Malformed::new("a slot of it is none"));
        }
        // An empty slot.
        if package == 0 || place == 0 {
            continue;
        }
        let place = place * BLOCK_BYTES;
        let blob = piece(source, place, BLOCK_BYTES, BLOCK_BYTES)?;
        if &blob[..4] != b"BlbS" || number(&blob, 4, 4, false)? != package {
            return Err(Malformed::new("a slot of it leads to no package"));
        }
        let length = number(&blob, 12, 4, false)?;
        left = left.checked_sub(length).ok_or_else(|| Malformed::new("its packages are longer than it is"))?;
        each(&piece(source, place + BLOCK_BYTES, length, HEADER_BYTES_MAX)?)?;
    }
    Ok(())
}
