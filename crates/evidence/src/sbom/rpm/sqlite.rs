//! The one table of RPM's database in SQLite's file format (sqlite.org/fileformat2.html). A database library would be the
//! second one in the program, for reading two kinds of pages of a file that may be hostile.

use super::{
    super::{
        layer::Malformed,
        source::{ReadAt, number, piece},
    },
    Each, HEADER_BYTES_MAX, HEADERS_MAX,
    log::Log,
};

const HEAD_BYTES: u64 = 100;
/// A tree of pages with two entries each would be that deep for all pages that there can be.
const DEPTH_MAX: usize = 32;
/// Of the schema and of the packages.
const ROWS_MAX: usize = 2 * HEADERS_MAX;
const INTERIOR_TABLE: u8 = 5;
const LEAF_TABLE: u8 = 13;

/// `log`: the write-ahead log beside the database, with what was not yet written into it.
pub(super) fn each_blob(
    source: &dyn ReadAt,
    length: u64,
    log: Option<&dyn ReadAt>,
    each: Each<'_>,
) -> Result<(), Malformed> {
    let head = piece(source, 0, HEAD_BYTES, HEAD_BYTES)?;
    if !head.starts_with(b"SQLite format 3\0") {
        return Err(Malformed::new("it is no database of SQLite"));
    }
    let page = match number(&head, 16, 2, true)? {
        1 => 65_536,
        bytes => bytes,
    };
    let reserved = number(&head, 20, 1, true)?;
    if !page.is_power_of_two() || page < 512 || reserved > 255 || page - reserved < 480 {
        return Err(Malformed::new("its pages have an odd size"));
    }
    // Only a database that says so has a log ("File format version numbers").
    let log = match log.filter(|_| head[19] == 2) {
        Some(log) => Some(Log::open(log, page)?),
        None => None,
    };
    let pages = length / page + 1 + log.as_ref().map_or(0, |log| log.places.len() as u64);
    let mut database = Database { source, log, page, usable: page - reserved, left: pages, rows_left: ROWS_MAX };
    let mut root = None;
    database.rows(1, 0, &mut |record| {
        // The schema: type, name, table, root page, text.
        if let [Value::Bytes(kind), Value::Bytes(name), _, Value::Integer(page), ..] = record
            && *kind == b"table"
            && name.eq_ignore_ascii_case(b"Packages")
        {
            root = Some(*page);
        }
        Ok(())
    })?;
    let root = root.ok_or_else(|| Malformed::new("it has no table of packages"))?;
    database.left = pages;
    database.rows(root, 0, &mut |record| match record {
        // The number of the header is the row's; then the header.
        [_, Value::Bytes(blob), ..] => each(blob),
        _ => Ok(()),
    })
}

struct Database<'a> {
    source: &'a dyn ReadAt,
    log: Option<Log<'a>>,
    page: u64,
    usable: u64,
    /// Pages that may still be read: a tree has no page twice, so more than there are is a loop.
    left: u64,
    /// Rows that may still be read: cells of a hostile page may lie one over the other.
    rows_left: usize,
}

enum Value<'a> {
    Integer(u64),
    Bytes(&'a [u8]),
    Other,
}

type EachRow<'a> = &'a mut dyn FnMut(&[Value<'_>]) -> Result<(), Malformed>;

impl Database<'_> {
    fn read(&mut self, page: u64) -> Result<Vec<u8>, Malformed> {
        self.left = self.left.checked_sub(1).ok_or_else(|| Malformed::new("its pages lead in a circle"))?;
        if let Some((log, place)) = self.log.as_ref().and_then(|log| Some((log.source, *log.places.get(&page)?))) {
            return piece(log, place, self.page, self.page);
        }
        let place = page.checked_sub(1).and_then(|page| page.checked_mul(self.page));
        let place = place.ok_or_else(|| Malformed::new("a page is nowhere"))?;
        piece(self.source, place, self.page, self.page)
    }

    /// Tells the rows of the table whose tree begins at a page.
    fn rows(&mut self, page: u64, depth: usize, each: EachRow<'_>) -> Result<(), Malformed> {
        if depth > DEPTH_MAX {
            return Err(Malformed::new("its pages lead too deep"));
        }
        let bytes = self.read(page)?;
        let start = if page == 1 { HEAD_BYTES as usize } else { 0 };
        let kind = bytes[start];
        let cells = number(&bytes, start + 3, 2, true)? as usize;
        let pointers = start + if kind == INTERIOR_TABLE { 12 } else { 8 };
        for cell in 0..cells {
            let place = number(&bytes, pointers + 2 * cell, 2, true)? as usize;
            match kind {
                INTERIOR_TABLE => self.rows(number(&bytes, place, 4, true)?, depth + 1, each)?,
                LEAF_TABLE => {
                    let left = self.rows_left.checked_sub(1);
                    self.rows_left = left.ok_or_else(|| Malformed::new("it has more rows than any such database"))?;
                    let payload = self.payload(&bytes, place)?;
                    each(&record(&payload)?)?;
                }
                _ => return Err(Malformed::new("a page is of no table")),
            }
        }
        match kind {
            INTERIOR_TABLE => self.rows(number(&bytes, start + 8, 4, true)?, depth + 1, each),
            LEAF_TABLE => Ok(()),
            _ => Err(Malformed::new("a page is of no table")),
        }
    }

    /// A row's record, which goes on in overflow pages when it is long ("Cell Payload Overflow Pages").
    fn payload(&mut self, page: &[u8], place: usize) -> Result<Vec<u8>, Malformed> {
        let cut = || Malformed::new("a row is cut short");
        let (length, place) = varint(page, place).ok_or_else(cut)?;
        let (_row, place) = varint(page, place).ok_or_else(cut)?;
        if length > HEADER_BYTES_MAX {
            return Err(Malformed::new(format!("a row claims {length} bytes")));
        }
        let (most, least) = (self.usable - 35, (self.usable - 12) * 32 / 255 - 23);
        let local = match least + (length.saturating_sub(least)) % (self.usable - 4) {
            _ if length <= most => length,
            local if local <= most => local,
            _ => least,
        };
        let end = place + local as usize;
        let mut payload = page.get(place..end).ok_or_else(cut)?.to_vec();
        let mut next = if local < length { number(page, end, 4, true)? } else { 0 };
        while (payload.len() as u64) < length {
            if next == 0 {
                return Err(cut());
            }
            let bytes = self.read(next)?;
            next = number(&bytes, 0, 4, true)?;
            let wanted = (length - payload.len() as u64).min(self.usable - 4) as usize;
            payload.extend_from_slice(bytes.get(4..4 + wanted).ok_or_else(cut)?);
        }
        Ok(payload)
    }
}

/// The columns of a record ("Record Format").
fn record(payload: &[u8]) -> Result<Vec<Value<'_>>, Malformed> {
    let cut = || Malformed::new("a row is cut short");
    let (header, mut at) = varint(payload, 0).ok_or_else(cut)?;
    let mut place = usize::try_from(header).map_err(|_| cut())?;
    let header = place;
    let mut values = Vec::new();
    while at < header {
        let (kind, next) = varint(payload, at).ok_or_else(cut)?;
        at = next;
        let length = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return Err(Malformed::new("a row has a value of no kind")),
            _ => usize::try_from((kind - 12) / 2).map_err(|_| cut())?,
        };
        let end = place.checked_add(length).ok_or_else(cut)?;
        let bytes = payload.get(place..end).ok_or_else(cut)?;
        place = end;
        values.push(match kind {
            1..=6 => Value::Integer(number(bytes, 0, length, true)?),
            8 | 9 => Value::Integer(kind - 8),
            12.. => Value::Bytes(bytes),
            _ => Value::Other,
        });
    }
    Ok(values)
}

/// A big-endian number in groups of seven bits, the ninth byte whole.
fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for place in 0..9 {
        let byte = *bytes.get(at.checked_add(place)?)?;
        if place == 8 {
            return Some((value << 8 | u64::from(byte), at + 9));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, at + place + 1));
        }
    }
    None
}
