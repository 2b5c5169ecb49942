//! Modules that programs were linked of: Go's build information and that of `cargo auditable`.

use std::io::Read as _;

use serde::Deserialize;

use super::{
    Ecosystem, Package,
    elf::{Elf, SECTION_BYTES_MAX},
    layer::{Malformed, PACKAGES_MAX},
    source::{ReadAt, number},
};

/// `cargo auditable`'s own readers take no more.
const AUDIT_BYTES_MAX: u64 = 8 << 20;

/// The packages that a program holds; `None` when it is no program or says nothing of them.
pub(crate) fn parse(source: &dyn ReadAt) -> Result<Option<Vec<Package>>, Malformed> {
    // A file that only looks like ELF is nothing to warn of: it does not run either.
    let Ok(Some(elf)) = Elf::open(source) else { return Ok(None) };
    let mut packages = Vec::new();
    if let Some(bytes) = elf.section(".dep-v0") {
        packages.extend(audited(&bytes?)?);
    }
    if let Some(bytes) = elf.section(".go.buildinfo") {
        packages.extend(go(&elf, &bytes?)?);
    } else if let Some(bytes) = go_in_data(&elf)? {
        // What only looks like it may be anything.
        packages.extend(go(&elf, &bytes).unwrap_or_default());
    }
    packages.truncate(PACKAGES_MAX);
    Ok((!packages.is_empty()).then_some(packages))
}

/// Build information lies at addresses that this divides (Go, `debug/buildinfo`, `buildInfoAlign`).
const GO_ALIGNMENT: u64 = 16;
/// Of the data of a program that is searched; build information lies near its beginning.
const GO_SEARCHED_BYTES_MAX: u64 = 64 << 20;
/// Read at once.
const GO_CHUNK_BYTES: u64 = 1 << 20;

/// Build information of a program whose section has no name any more: it is searched for in the first segment of data, as
/// Go's own reader does.
fn go_in_data(elf: &Elf<'_>) -> Result<Option<Vec<u8>>, Malformed> {
    let Some(data) = elf.data() else { return Ok(None) };
    let size = data.size.min(GO_SEARCHED_BYTES_MAX);
    let mut at = data.address.wrapping_neg() % GO_ALIGNMENT;
    while at < size {
        let Ok(chunk) = data.bytes(at, GO_CHUNK_BYTES.min(size - at)) else { return Ok(None) };
        // The mark is shorter than what it is aligned to, so that it never lies in two chunks.
        let mut places = (0..chunk.len()).step_by(GO_ALIGNMENT as usize);
        if let Some(place) = places.find(|place| chunk[*place..].starts_with(GO_MAGIC)) {
            let start = at + place as u64;
            return data.bytes(start, (data.size - start).min(SECTION_BYTES_MAX)).map(Some);
        }
        at += GO_CHUNK_BYTES;
    }
    Ok(None)
}

/// `.dep-v0`: JSON compressed by zlib (cargo-auditable, PARSING.md). What only took part in the build is not in the program.
fn audited(section: &[u8]) -> Result<Vec<Package>, Malformed> {
    #[derive(Deserialize)]
    struct Audit {
        packages: Vec<Crate>,
    }
    #[derive(Deserialize)]
    struct Crate {
        name: String,
        version: String,
        #[serde(default)]
        kind: Option<String>,
    }
    let broken = |why: &dyn std::fmt::Display| Malformed::new(format!("its list of crates cannot be read: {why}"));
    let mut json = Vec::new();
    let mut plain = flate2::read::ZlibDecoder::new(section).take(AUDIT_BYTES_MAX);
    plain.read_to_end(&mut json).map_err(|error| broken(&error))?;
    let audit: Audit = serde_json::from_slice(&json).map_err(|error| broken(&error))?;
    let runs =
        |package: &Crate| !package.name.is_empty() && package.kind.as_deref().is_none_or(|kind| kind == "runtime");
    let package = |package: Crate| Package {
        ecosystem: Ecosystem::Cargo,
        name: package.name,
        version: package.version,
        ..Package::default()
    };
    Ok(audit.packages.into_iter().filter(runs).map(package).collect())
}

/// Marks the build information (Go, `debug/buildinfo`).
const GO_MAGIC: &[u8] = b"\xff Go buildinf:";
/// The information about modules stands between marks of so many bytes.
const GO_MARK_BYTES: usize = 16;

/// `.go.buildinfo`: the version of Go, and the modules as lines.
fn go(elf: &Elf<'_>, section: &[u8]) -> Result<Vec<Package>, Malformed> {
    let cut = || Malformed::new("its build information is cut short");
    let Some(start) = section.windows(GO_MAGIC.len()).position(|window| window == GO_MAGIC) else {
        return Ok(Vec::new());
    };
    let data = &section[start..];
    let pointer = usize::from(*data.get(14).ok_or_else(cut)?);
    let flags = *data.get(15).ok_or_else(cut)?;
    let (version, modules) = if flags & 2 != 0 {
        let rest = data.get(32..).ok_or_else(cut)?;
        let (version, rest) = counted(rest).ok_or_else(cut)?;
        (version.to_vec(), counted(rest).ok_or_else(cut)?.0.to_vec())
    } else {
        // Before Go 1.18: addresses of strings, each an address and a length.
        if !matches!(pointer, 4 | 8) {
            return Err(Malformed::new("its build information has pointers of an odd size"));
        }
        let is_big_endian = flags & 1 != 0;
        let string = |at: usize| -> Result<Vec<u8>, Malformed> {
            let address = number(data, at, pointer, is_big_endian)?;
            let head = elf.at_address(address, 2 * pointer as u64)?;
            let length = number(&head, pointer, pointer, is_big_endian)?;
            let bytes = number(&head, 0, pointer, is_big_endian)?;
            if length == 0 { Ok(Vec::new()) } else { elf.at_address(bytes, length) }
        };
        (string(16)?, string(16 + pointer)?)
    };
    let marked = modules.len() > 2 * GO_MARK_BYTES && modules[modules.len() - GO_MARK_BYTES - 1] == b'\n';
    let lines = if marked { &modules[GO_MARK_BYTES..modules.len() - GO_MARK_BYTES] } else { &[] };
    let version = String::from_utf8_lossy(&version).into_owned();
    Ok(modules_of(&version, &String::from_utf8_lossy(lines)))
}

/// A string behind its length as a varint.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_usize;
    for (place, byte) in bytes.iter().take(5).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return bytes.get(place + 1..)?.split_at_checked(length);
        }
    }
    None
}

/// The standard library, the main module, and those that it depends on.
fn modules_of(go: &str, lines: &str) -> Vec<Package> {
    let module = |name: &str, version: &str| Package {
        ecosystem: Ecosystem::Go,
        name: name.to_owned(),
        version: if version == "(devel)" { String::new() } else { version.to_owned() },
        ..Package::default()
    };
    let mut modules: Vec<Package> = Vec::new();
    if let Some(version) = go.split_whitespace().next().and_then(|version| version.strip_prefix("go")) {
        modules.push(module("stdlib", version));
    }
    let mut main = None;
    let (mut revision, mut time) = (None, None);
    for line in lines.lines() {
        let mut fields = line.split('\t');
        match (fields.next().unwrap_or_default(), fields.next(), fields.next()) {
            (kind @ ("mod" | "dep"), Some(name), version) if !name.is_empty() => {
                modules.push(module(name, version.unwrap_or_default()));
                if kind == "mod" {
                    main = Some(modules.len() - 1);
                }
            }
            // Another module in place of the last one; a directory has no name of its own.
            ("=>", Some(name), version) if !name.is_empty() && !name.starts_with(['.', '/']) => {
                if let Some(last) = modules.last_mut() {
                    *last = module(name, version.unwrap_or_default());
                }
            }
            ("build", Some(setting), _) => match setting.split_once('=') {
                Some(("vcs.revision", value)) => revision = Some(value),
                Some(("vcs.time", value)) => time = Some(value),
                _ => {}
            },
            _ => {}
        }
    }
    if let (Some(main), Some(revision), Some(time)) = (main, revision, time)
        && modules[main].version.is_empty()
    {
        modules[main].version = pseudo_version(revision, time).unwrap_or_default();
    }
    modules
}

/// The version of a commit without a tag (go.dev/ref/mod, "Pseudo-versions").
fn pseudo_version(revision: &str, time: &str) -> Option<String> {
    let digits: String = time.strip_suffix('Z')?.chars().filter(char::is_ascii_digit).collect();
    (digits.len() == 14 && revision.is_ascii() && revision.len() >= 12)
        .then(|| format!("v0.0.0-{digits}-{}", &revision[..12]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_lines_are_modules() {
        let lines = "path\tcmd/x\nmod\texample.com/x\t(devel)\t\ndep\tgolang.org/x/net\tv0.1.0\th1:a=\ndep\ta.example/b\tv1.0.0\n\
                     =>\tc.example/d\tv2.0.0\th1:b=\ndep\te.example/f\tv1.1.0\n=>\t./local\t(devel)\n\
                     build\tvcs.revision=0123456789abcdef\nbuild\tvcs.time=2024-01-02T03:04:05Z\n";
        let modules = modules_of("go1.22.1 X:nocoverageredesign", lines);
        let told: Vec<_> = modules.iter().map(|module| format!("{} {}", module.name, module.version)).collect();
        assert_eq!(
            told,
            [
                "stdlib 1.22.1",
                "example.com/x v0.0.0-20240102030405-0123456789ab",
                "golang.org/x/net v0.1.0",
                "c.example/d v2.0.0",
                "e.example/f v1.1.0",
            ]
        );
    }
}
