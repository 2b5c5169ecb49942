//! What an ELF file asks of the dynamic loader (System V ABI, "Dynamic Section"), read without running anything.

use std::{io, path::Path};

use fs_err::{File, os::unix::fs::FileExt};

/// The parts of a program or shared library that say what else it needs.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Elf {
    /// `e_machine`: the processor.
    pub machine: u16,
    /// Whether it is of the 64-bit class.
    pub is_64: bool,
    /// `PT_INTERP`: the loader, of a program that has one.
    pub interpreter: Option<String>,
    /// `DT_NEEDED`, in order.
    pub needed: Vec<String>,
    /// `DT_RUNPATH`, or `DT_RPATH` where that is missing, split at colons.
    pub run_path: Vec<String>,
    /// Where a program could be told of another loader.
    moving: Option<Moving>,
}

/// What is written to make a program use another loader and library directory, without moving anything in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Moving {
    /// Offset, bytes and address of the loader's name.
    interpreter: (u64, u64, u64),
    /// Address of the dynamic section's strings.
    strings_address: u64,
    /// Offset of an entry of the dynamic section that is free: linkers leave some (`--spare-dynamic-tags` of ld(1)).
    spare_tag: u64,
    words: Words,
}

/// The file claims to be ELF and cannot be read as such.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// It could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its tables contradict the specification.
    #[error("{path} is not an ELF file that can be read: {what}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// A program header or dynamic table of a sane file is far smaller.
const TABLE_BYTES_MAX: u64 = 1 << 20;
/// String table of the dynamic section; that of the largest C++ libraries is some megabytes.
const STRINGS_BYTES_MAX: u64 = 64 << 20;

const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const PT_INTERP: u64 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_STRSZ: u64 = 10;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

impl Elf {
    /// Reads `path`; `None` when it is no ELF file at all.
    pub fn read(path: &Path) -> Result<Option<Self>, ElfError> {
        let file = File::open(path)?;
        let mut header = [0; 64];
        let filled = read_up_to(&file, &mut header)?;
        if filled < 20 || &header[..4] != b"\x7fELF" {
            return Ok(None);
        }
        let malformed = |what| ElfError::Malformed { path: path.display().to_string(), what };
        let is_64 = match header[4] {
            1 => false,
            2 => true,
            _ => return Err(malformed("unknown class")),
        };
        let is_big = match header[5] {
            1 => false,
            2 => true,
            _ => return Err(malformed("unknown byte order")),
        };
        if filled < if is_64 { 64 } else { 52 } {
            return Err(malformed("cut header"));
        }
        let words = Words { is_64, is_big };
        let bytes_at = |offset: u64, length: u64, limit: u64| -> Result<Vec<u8>, ElfError> {
            if length > limit {
                return Err(malformed("a table is too large"));
            }
            let mut bytes = vec![0; usize::try_from(length).map_err(|_| malformed("a table is too large"))?];
            file.read_exact_at(&mut bytes, offset).map_err(|_| malformed("a table lies behind the end"))?;
            Ok(bytes)
        };

        let (table_offset, entry_bytes, entries) = if is_64 {
            (words.word(&header, 32), words.half(&header, 54), words.half(&header, 56))
        } else {
            (words.word(&header, 28), words.half(&header, 42), words.half(&header, 44))
        };
        let entry_bytes = usize::from(entry_bytes);
        if entries > 0 && entry_bytes < if is_64 { 56 } else { 32 } {
            return Err(malformed("short program headers"));
        }
        let table = bytes_at(table_offset, entry_bytes as u64 * u64::from(entries), TABLE_BYTES_MAX)?;
        let segments: Vec<Segment> = table.chunks_exact(entry_bytes.max(1)).map(|entry| words.segment(entry)).collect();

        let mut elf = Elf { machine: words.half(&header, 18), is_64, ..Elf::default() };
        if let Some(segment) = segments.iter().find(|segment| segment.kind == PT_INTERP) {
            elf.interpreter = Some(c_string(&bytes_at(segment.offset, segment.file_bytes, 4096)?, 0));
        }
        let Some(dynamic) = segments.iter().find(|segment| segment.kind == PT_DYNAMIC) else { return Ok(Some(elf)) };
        let table = bytes_at(dynamic.offset, dynamic.file_bytes, TABLE_BYTES_MAX)?;
        let size = words.word_bytes();
        let tags: Vec<(u64, u64)> = table
            .chunks_exact(2 * size)
            .map(|entry| (words.word(entry, 0), words.word(entry, size)))
            .take_while(|(tag, _)| *tag != 0)
            .collect();
        let value = |wanted| tags.iter().find(|(tag, _)| *tag == wanted).map(|(_, value)| *value);
        let Some(strings_address) = value(DT_STRTAB) else { return Ok(Some(elf)) };
        let strings_offset = segments
            .iter()
            .filter(|segment| segment.kind == PT_LOAD)
            .find(|segment| {
                strings_address.checked_sub(segment.address).is_some_and(|distance| distance < segment.file_bytes)
            })
            .and_then(|segment| (strings_address - segment.address).checked_add(segment.offset))
            .ok_or_else(|| malformed("its strings are not loaded"))?;
        let strings = bytes_at(strings_offset, value(DT_STRSZ).unwrap_or(0), STRINGS_BYTES_MAX)?;
        let spare = (tags.len() as u64 + 2) * 2 * size as u64 <= table.len() as u64;
        let interpreter = segments.iter().find(|segment| segment.kind == PT_INTERP);
        elf.moving = interpreter.filter(|_| spare && value(DT_RPATH).is_none() && value(DT_RUNPATH).is_none()).map(
            |interpreter| Moving {
                interpreter: (interpreter.offset, interpreter.file_bytes, interpreter.address),
                strings_address,
                spare_tag: dynamic.offset + (tags.len() * 2 * size) as u64,
                words,
            },
        );
        let string = |offset: u64| c_string(&strings, usize::try_from(offset).unwrap_or(usize::MAX));
        elf.needed = tags.iter().filter(|(tag, _)| *tag == DT_NEEDED).map(|(_, offset)| string(*offset)).collect();
        if let Some(offset) = value(DT_RUNPATH).or_else(|| value(DT_RPATH)) {
            elf.run_path = string(offset).split(':').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        }
        Ok(Some(elf))
    }
}

impl Elf {
    /// Makes the program in `bytes`, which this was read from, use another loader and look for libraries in `libraries`
    /// first. Both names have to fit the place of the former loader's; false when they do not, or nothing can be added.
    pub(crate) fn move_to(&self, bytes: &mut [u8], loader: &str, libraries: &str) -> bool {
        let Some(moving) = &self.moving else { return false };
        let (offset, room, address) = moving.interpreter;
        let names = format!("{loader}\0{libraries}\0");
        let (Ok(at), Ok(room)) = (usize::try_from(offset), usize::try_from(room)) else { return false };
        let size = moving.words.word_bytes();
        let Ok(tag) = usize::try_from(moving.spare_tag) else { return false };
        if names.len() > room || bytes.len() < at + room || bytes.len() < tag + 2 * size {
            return false;
        }
        bytes[at..at + room].fill(0);
        bytes[at..at + names.len()].copy_from_slice(names.as_bytes());
        // The loader adds the value to the address of the strings, so that any mapped place can be named. DT_RPATH rather
        // than DT_RUNPATH: it counts for the libraries' own needs too.
        let text = (address + loader.len() as u64 + 1).wrapping_sub(moving.strings_address);
        moving.words.write(&mut bytes[tag..tag + size], DT_RPATH);
        moving.words.write(&mut bytes[tag + size..tag + 2 * size], text);
        true
    }
}

struct Segment {
    kind: u64,
    offset: u64,
    address: u64,
    file_bytes: u64,
}

/// How numbers are written in this file. Offsets given to it lie within what the caller has checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Words {
    is_64: bool,
    is_big: bool,
}

impl Words {
    fn word_bytes(self) -> usize {
        if self.is_64 { 8 } else { 4 }
    }

    fn number(self, bytes: &[u8]) -> u64 {
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        if self.is_big { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
    }

    fn write(self, place: &mut [u8], number: u64) {
        let bytes = number.to_le_bytes();
        place.copy_from_slice(&bytes[..place.len()]);
        if self.is_big {
            place.reverse();
        }
    }

    fn half(self, bytes: &[u8], at: usize) -> u16 {
        u16::try_from(self.number(&bytes[at..at + 2])).expect("two bytes fit")
    }

    fn word(self, bytes: &[u8], at: usize) -> u64 {
        self.number(&bytes[at..at + self.word_bytes()])
    }

    fn segment(self, entry: &[u8]) -> Segment {
        let kind = self.number(&entry[..4]);
        let [offset, address, file_bytes] = if self.is_64 { [8, 16, 32] } else { [4, 8, 16] };
        Segment {
            kind,
            offset: self.word(entry, offset),
            address: self.word(entry, address),
            file_bytes: self.word(entry, file_bytes),
        }
    }
}

fn c_string(bytes: &[u8], start: usize) -> String {
    let rest = bytes.get(start..).unwrap_or_default();
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    String::from_utf8_lossy(&rest[..end]).into_owned()
}

fn read_up_to(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], filled as u64)? {
            0 => break,
            more => filled += more,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_program_needs_the_c_library() {
        let elf = Elf::read(Path::new("/proc/self/exe")).unwrap().unwrap();
        assert!(elf.interpreter.is_some_and(|loader| loader.starts_with('/')));
        assert!(elf.needed.iter().any(|name| name.starts_with("libc.")), "{:?}", elf.needed);
        assert_eq!(elf.is_64, cfg!(target_pointer_width = "64"));
    }

    #[test]
    fn text_is_no_elf_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), "#!/bin/sh\n").unwrap();
        assert_eq!(Elf::read(file.path()).unwrap(), None);
        fs_err::write(file.path(), "").unwrap();
        assert_eq!(Elf::read(file.path()).unwrap(), None);
    }

    #[test]
    fn every_cut_and_every_flipped_byte_of_the_tables_is_an_answer_and_no_panic() {
        let whole = fs_err::read("/proc/self/exe").unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        for length in (0..200).chain([500, 1000, 5000]) {
            fs_err::write(file.path(), &whole[..length]).unwrap();
            let _ = Elf::read(file.path());
        }
        // The first 4 KiB hold the header and the program headers; what lies behind them is the same for all.
        let head = &whole[..whole.len().min(4096)];
        for at in 4..600.min(head.len()) {
            for value in [0, 0x7f, 0xff] {
                let mut broken = head.to_vec();
                broken[at] = value;
                fs_err::write(file.path(), &broken).unwrap();
                let _ = Elf::read(file.path());
            }
        }
    }
}
