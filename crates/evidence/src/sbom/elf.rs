//! Sections of ELF files by their names, and bytes by their addresses: as much as build information needs.

use super::{
    layer::Malformed,
    source::{ReadAt, number, piece},
};

/// Programs with debug information have some dozens of sections, and a dozen segments.
const SECTIONS_MAX: u64 = 10_000;
/// Names of sections, and build information itself, are small.
pub(crate) const SECTION_BYTES_MAX: u64 = 16 << 20;
/// Of the 64-bit header; the 32-bit one is shorter, and no program is.
const HEAD_BYTES: u64 = 64;

/// A segment that is loaded, and its right to be written and run (elf(5)).
const PT_LOAD: u64 = 1;
const PF_X: u64 = 1;
const PF_W: u64 = 2;
/// A section that has a size and no bytes.
const SHT_NOBITS: u64 = 8;

/// An ELF file with its sections and segments.
pub(crate) struct Elf<'a> {
    source: &'a dyn ReadAt,
    sections: Vec<Section>,
    /// Names of sections, each ended by a zero.
    names: Vec<u8>,
    segments: Vec<Segment>,
}

struct Section {
    /// Where its name begins.
    name: usize,
    address: u64,
    offset: u64,
    size: u64,
}

struct Segment {
    flags: u64,
    address: u64,
    offset: u64,
    /// In the file.
    size: u64,
}

/// The data of a program: what it may write to once it is loaded.
pub(crate) struct Data<'a> {
    source: &'a dyn ReadAt,
    offset: u64,
    /// Where it is loaded.
    pub(crate) address: u64,
    /// Bytes of it in the file.
    pub(crate) size: u64,
}

impl Data<'_> {
    /// Bytes of it, from its beginning on.
    pub(crate) fn bytes(&self, at: u64, length: u64) -> Result<Vec<u8>, Malformed> {
        let place = self.offset.checked_add(at).ok_or_else(|| Malformed::new("an address leads nowhere"))?;
        piece(self.source, place, length, SECTION_BYTES_MAX)
    }
}

impl<'a> Elf<'a> {
    /// Reads the tables of sections and segments; `None` when it is no ELF file, or one with neither.
    pub(crate) fn open(source: &'a dyn ReadAt) -> Result<Option<Self>, Malformed> {
        let Ok(head) = piece(source, 0, HEAD_BYTES, HEAD_BYTES) else { return Ok(None) };
        if !head.starts_with(b"\x7fELF") {
            return Ok(None);
        }
        let form = Form { is_64: head[4] == 2, is_big_endian: head[5] == 2 };
        // Whoever strips a program may leave the one without the other.
        let segments = form.segments(source, &head).unwrap_or_default();
        let (sections, names) = form.sections(source, &head).unwrap_or_default();
        let is_empty = segments.is_empty() && sections.is_empty();
        Ok((!is_empty).then_some(Self { source, sections, names, segments }))
    }

    /// The bytes of a section.
    pub(crate) fn section(&self, name: &str) -> Option<Result<Vec<u8>, Malformed>> {
        let has_name = |section: &&Section| {
            let rest = self.names.get(section.name..).and_then(|rest| rest.strip_prefix(name.as_bytes()));
            rest.is_some_and(|rest| rest.first() == Some(&0))
        };
        let section = self.sections.iter().find(has_name)?;
        Some(piece(self.source, section.offset, section.size, SECTION_BYTES_MAX))
    }

    /// The first segment of data.
    pub(crate) fn data(&self) -> Option<Data<'a>> {
        let segment = self.segments.iter().find(|segment| segment.flags & (PF_X | PF_W) == PF_W)?;
        Some(Data { source: self.source, offset: segment.offset, address: segment.address, size: segment.size })
    }

    /// Bytes that the program has at an address once it is loaded.
    pub(crate) fn at_address(&self, address: u64, length: u64) -> Result<Vec<u8>, Malformed> {
        let sections = self.sections.iter().filter(|section| section.address != 0);
        let sections = sections.map(|section| (section.address, section.offset, section.size));
        let segments = self.segments.iter().map(|segment| (segment.address, segment.offset, segment.size));
        let nowhere = || Malformed::new("an address leads nowhere");
        let mut places = segments.chain(sections);
        let (start, offset, _) =
            places.find(|(start, _, size)| address >= *start && address - start < *size).ok_or_else(nowhere)?;
        piece(self.source, offset.checked_add(address - start).ok_or_else(nowhere)?, length, SECTION_BYTES_MAX)
    }
}

/// How the numbers of a file are written.
#[derive(Clone, Copy)]
struct Form {
    is_64: bool,
    is_big_endian: bool,
}

impl Form {
    /// A field of a header: its place and length in the 64-bit form, and in the 32-bit form.
    fn read(self, bytes: &[u8], wide: (usize, usize), narrow: (usize, usize)) -> Result<u64, Malformed> {
        let (at, length) = if self.is_64 { wide } else { narrow };
        number(bytes, at, length, self.is_big_endian)
    }

    fn segments(self, source: &dyn ReadAt, head: &[u8]) -> Result<Vec<Segment>, Malformed> {
        let table = self.read(head, (32, 8), (28, 4))?;
        let (entry, count) = (self.read(head, (54, 2), (42, 2))?, self.read(head, (56, 2), (44, 2))?);
        let smallest = if self.is_64 { 56 } else { 32 };
        if table == 0 || count == 0 || entry < smallest {
            return Ok(Vec::new());
        }
        let table = piece(source, table, entry * count.min(SECTIONS_MAX), SECTION_BYTES_MAX)?;
        let mut segments = Vec::new();
        for header in table.chunks_exact(entry as usize) {
            if self.read(header, (0, 4), (0, 4))? == PT_LOAD {
                segments.push(Segment {
                    flags: self.read(header, (4, 4), (24, 4))?,
                    address: self.read(header, (16, 8), (8, 4))?,
                    offset: self.read(header, (8, 8), (4, 4))?,
                    size: self.read(header, (32, 8), (16, 4))?,
                });
            }
        }
        Ok(segments)
    }

    /// The sections and their names.
    fn sections(self, source: &dyn ReadAt, head: &[u8]) -> Result<(Vec<Section>, Vec<u8>), Malformed> {
        let table = self.read(head, (40, 8), (32, 4))?;
        let (entry, count) = (self.read(head, (58, 2), (46, 2))?, self.read(head, (60, 2), (48, 2))?);
        let names = self.read(head, (62, 2), (50, 2))?;
        let smallest = if self.is_64 { 64 } else { 40 };
        if table == 0 || count == 0 || entry < smallest {
            return Ok((Vec::new(), Vec::new()));
        }
        let table = piece(source, table, entry * count.min(SECTIONS_MAX), SECTION_BYTES_MAX)?;
        let mut sections = Vec::new();
        for header in table.chunks_exact(entry as usize) {
            let size = self.read(header, (32, 8), (20, 4))?;
            sections.push(Section {
                name: self.read(header, (0, 4), (0, 4))? as usize,
                address: self.read(header, (16, 8), (12, 4))?,
                offset: self.read(header, (24, 8), (16, 4))?,
                size: if self.read(header, (4, 4), (4, 4))? == SHT_NOBITS { 0 } else { size },
            });
        }
        let Some(strings) = sections.get(names as usize) else { return Ok((Vec::new(), Vec::new())) };
        let names = piece(source, strings.offset, strings.size, SECTION_BYTES_MAX)?;
        Ok((sections, names))
    }
}
