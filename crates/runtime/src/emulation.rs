//! Programs of other processors: what the kernel hands to an emulator (Documentation/admin-guide/binfmt-misc.rst).

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

/// Where the kernel tells its registrations, if the file system is mounted.
const BINFMT_MISC: &str = "/proc/sys/fs/binfmt_misc";
/// Registrations are a few; each is a small text.
const ENTRIES_MAX: usize = 1000;
/// Enough of an ELF file to find its program headers.
const ELF_BYTES_MAX: u64 = 4096;

/// How programs of a processor run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Emulation {
    /// By the processor itself.
    Native,
    /// By an emulator that the kernel holds open (flag `F`): containers need nothing of it.
    Held,
    /// By an emulator that the kernel looks for by this path, in the container too.
    ByPath(PathBuf),
    /// Not at all.
    Missing,
}

/// How programs for `architecture` (in Go's words: `arm64`, `riscv64`, …) run here.
pub fn emulation(architecture: &str) -> Emulation {
    if is_native(architecture) {
        return Emulation::Native;
    }
    let Some(header) = elf_header(architecture) else { return Emulation::Missing };
    let entries = fs::read_dir(BINFMT_MISC).into_iter().flatten().flatten().take(ENTRIES_MAX);
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    // The kernel asks the latest registration first, which nothing tells; one that holds its emulator serves best.
    let mut found = Emulation::Missing;
    for entry in texts.filter_map(|text| Entry::parse(&text)).filter(|entry| entry.takes(&header)) {
        if entry.is_held {
            return Emulation::Held;
        }
        found = Emulation::ByPath(entry.interpreter);
    }
    found
}

/// Processors other than this one whose programs run here, sorted.
pub fn emulated_architectures() -> Vec<&'static str> {
    let runs = |name: &str| !matches!(emulation(name), Emulation::Missing);
    let mut names: Vec<&str> =
        MACHINES.iter().map(|machine| machine.0).filter(|name| *name != own() && runs(name)).collect();
    names.sort_unstable();
    names
}

/// Whether a program needs a loader and libraries, which a container of another processor does not have.
pub fn is_dynamic(program: &Path) -> bool {
    const PT_INTERP: u32 = 3;
    let mut bytes = Vec::new();
    let read = fs::File::open(program).and_then(|file| file.take(ELF_BYTES_MAX).read_to_end(&mut bytes));
    if read.is_err() || !bytes.starts_with(b"\x7fELF\x02\x01") {
        // No 64-bit program of this machine's kind: what it needs cannot be told.
        return false;
    }
    let number = |at: usize, length: usize| {
        let slice = bytes.get(at..at + length)?;
        Some(slice.iter().rev().fold(0usize, |number, byte| number << 8 | usize::from(*byte)))
    };
    // System V ABI, "ELF Header": e_phoff, e_phentsize, e_phnum.
    let (Some(start), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2)) else { return false };
    (0..count).any(|at| number(start.saturating_add(at * size), 4) == Some(PT_INTERP as usize))
}

/// One registration.
struct Entry {
    interpreter: PathBuf,
    is_held: bool,
    offset: usize,
    magic: Vec<u8>,
    mask: Vec<u8>,
}

impl Entry {
    /// `None` for one that is switched off, or goes by file name.
    fn parse(text: &str) -> Option<Entry> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let magic = bytes_of(field("magic ")?)?;
        let mask = match field("mask ") {
            Some(mask) => bytes_of(mask)?,
            None => vec![0xff; magic.len()],
        };
        (text.lines().next() == Some("enabled")).then_some(Entry {
            interpreter: field("interpreter ")?.into(),
            is_held: field("flags:").is_some_and(|flags| flags.contains('F')),
            offset: field("offset ").and_then(|offset| offset.parse().ok()).unwrap_or(0),
            magic,
            mask,
        })
    }

    fn takes(&self, header: &[u8]) -> bool {
        let Some(part) = header.get(self.offset..self.offset + self.magic.len()) else { return false };
        let masks = self.mask.iter().chain(std::iter::repeat(&0xff));
        part.iter().zip(&self.magic).zip(masks).all(|((has, wanted), mask)| has & mask == wanted & mask)
    }
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// Go's name, ELF class (1: 32 bits), byte order (2: big-endian), machine number.
const MACHINES: [(&str, u8, u8, u16); 13] = [
    ("386", 1, 1, 3),
    ("amd64", 2, 1, 62),
    ("arm", 1, 1, 40),
    ("arm64", 2, 1, 183),
    ("loong64", 2, 1, 258),
    ("mips", 1, 2, 8),
    ("mips64", 2, 2, 8),
    ("mips64le", 2, 1, 8),
    ("mipsle", 1, 1, 8),
    ("ppc64", 2, 2, 21),
    ("ppc64le", 2, 1, 21),
    ("riscv64", 2, 1, 243),
    ("s390x", 2, 2, 22),
];

fn own() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

fn is_native(architecture: &str) -> bool {
    // What the processor and kernel of a 64-bit machine run beside their own.
    let beside = [("amd64", "386"), ("arm64", "arm")];
    architecture.is_empty() || architecture == own() || beside.contains(&(own(), architecture))
}

/// The beginning of a program for the processor.
fn elf_header(architecture: &str) -> Option<Vec<u8>> {
    const EXECUTABLE: u16 = 2;
    let (_, class, order, machine) = MACHINES.iter().find(|(name, ..)| *name == architecture)?;
    let half = |value: u16| if *order == 2 { value.to_be_bytes() } else { value.to_le_bytes() };
    let mut header = vec![0x7f, b'E', b'L', b'F', *class, *order, 1];
    header.resize(16, 0);
    header.extend(half(EXECUTABLE));
    header.extend(half(*machine));
    header.extend(if *order == 2 { [0, 0, 0, 1] } else { [1, 0, 0, 0] });
    header.resize(128, 0);
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As qemu-user-static of Debian registers itself.
    const AARCH64: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\noffset 0\n\
                           magic 7f454c460201010000000000000000000200b700\n\
                           mask ffffffffffffff00fffffffffffffffffeffffff\n";

    #[test]
    fn registrations_take_programs_of_their_processor() {
        let entry = Entry::parse(AARCH64).unwrap();
        assert!(entry.is_held);
        assert!(entry.takes(&elf_header("arm64").unwrap()));
        for other in ["arm", "riscv64", "s390x", "amd64"] {
            assert!(!entry.takes(&elf_header(other).unwrap()), "{other}");
        }
        let by_path = Entry::parse(&AARCH64.replace("POCF", "OC").replace("mask", "# mask")).unwrap();
        assert!(!by_path.is_held && by_path.takes(&elf_header("arm64").unwrap()));
        assert!(Entry::parse(&AARCH64.replace("enabled", "disabled")).is_none());
        assert!(Entry::parse("enabled\ninterpreter /usr/bin/python3\nflags: \nextension .py\n").is_none());
    }

    #[test]
    fn this_machines_own_programs_need_no_emulator() {
        assert_eq!(emulation(own()), Emulation::Native);
        assert_eq!(emulation(""), Emulation::Native);
        assert_eq!(emulation("z80"), Emulation::Missing);
        assert!(is_dynamic(Path::new("/bin/sh")) || !Path::new("/lib64").exists());
    }
}
