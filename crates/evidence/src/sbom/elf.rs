//! Sections of ELF files by their names, and bytes by their addresses: as much as build information needs.

use super::{
    layer::Malformed,
    source::{ReadAt, number, piece},
};

/// Programs with debug information have some dozens of sections.
const SECTIONS_MAX: u64 = 10_000;
/// Names of sections, and build information itself, are small.
const SECTION_BYTES_MAX: u64 = 16 << 20;

/// An ELF file with its sections.
pub(crate) struct Elf<'a> {
    source: &'a dyn ReadAt,
    sections: Vec<Section>,
}

struct Section {
    name: String,
    address: u64,
    offset: u64,
    size: u64,
}

impl<'a> Elf<'a> {
    /// Reads the table of sections; `None` when it is no ELF file, or one without sections.
    pub(crate) fn open(source: &'a dyn ReadAt) -> Result<Option<Self>, Malformed> {
        let Ok(head) = piece(source, 0, HEAD_BYTES, HEAD_BYTES) else { return Ok(None) };
        if !head.starts_with(b"\x7fELF") {
            return Ok(None);
        }
        let is_64 = head[4] == 2;
        let is_big_endian = head[5] == 2;
        let read = |at, length| number(&head, at, length, is_big_endian);
        let (table, entry, count, names) = if is_64 {
            (read(40, 8)?, read(58, 2)?, read(60, 2)?, read(62, 2)?)
        } else {
            (read(32, 4)?, read(46, 2)?, read(48, 2)?, read(50, 2)?)
        };
        let smallest = if is_64 { 64 } else { 40 };
        if table == 0 || count == 0 || entry < smallest {
            return Ok(None);
        }
        let count = count.min(SECTIONS_MAX);
        let table = piece(source, table, entry * count, SECTION_BYTES_MAX)?;
        let mut sections = Vec::new();
        let mut name_places = Vec::new();
        for start in (0..count as usize).map(|place| place * entry as usize) {
            let read = |at: usize, length| number(&table, start + at, length, is_big_endian);
            name_places.push(read(0, 4)?);
            let (address, offset, size) = if is_64 {
                (read(16, 8)?, read(24, 8)?, read(32, 8)?)
            } else {
                (read(12, 4)?, read(16, 4)?, read(20, 4)?)
            };
            // SHT_NOBITS has a size and no bytes.
            let size = if read(4, 4)? == 8 { 0 } else { size };
            sections.push(Section { name: String::new(), address, offset, size });
        }
        let Some(strings) = sections.get(names as usize) else { return Ok(None) };
        let strings = piece(source, strings.offset, strings.size, SECTION_BYTES_MAX)?;
        for (section, place) in sections.iter_mut().zip(name_places) {
            let rest = strings.get(place as usize..).unwrap_or_default();
            let name = rest.split(|byte| *byte == 0).next().unwrap_or_default();
            section.name = String::from_utf8_lossy(name).into_owned();
        }
        Ok(Some(Self { source, sections }))
    }

    /// The bytes of a section.
    pub(crate) fn section(&self, name: &str) -> Option<Result<Vec<u8>, Malformed>> {
        let section = self.sections.iter().find(|section| section.name == name)?;
        Some(piece(self.source, section.offset, section.size, SECTION_BYTES_MAX))
    }

    /// Bytes that the program has at an address once it is loaded.
    pub(crate) fn at_address(&self, address: u64, length: u64) -> Result<Vec<u8>, Malformed> {
        let holds = |section: &&Section| {
            section.address != 0 && address >= section.address && address - section.address < section.size
        };
        let section = self.sections.iter().find(holds).ok_or_else(|| Malformed::new("an address leads nowhere"))?;
        let place = section.offset.checked_add(address - section.address);
        piece(self.source, place.ok_or_else(|| Malformed::new("an address leads nowhere"))?, length, SECTION_BYTES_MAX)
    }
}

/// Of the 64-bit header; the 32-bit one is shorter, and no program is.
const HEAD_BYTES: u64 = 64;
