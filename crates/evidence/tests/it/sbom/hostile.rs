//! Content that is made to do harm: every reader ends, within bounds, with packages or a warning.

use proptest::prelude::*;

use super::{about, find, fuzz::target::PATHS, schemas};
use crate::support::{Layer, World};

/// Beginnings that lead readers further than noise does.
const HEADS: [&[u8]; 8] = [
    b"",
    b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0",
    b"PK\x03\x04",
    b"SQLite format 3\0\x10\0\x01\x01\0\x40\x20\x20",
    b"RpmP\0\0\0\0\0\0\0\0\x01\0\0\0",
    b"\0\0\0\0\0\0\0\0\0\0\0\0\x61\x15\x06\0\x09\0\0\0\0\x10\0\0\0\x08",
    b"Package: a\nVersion: 1\n\n",
    b"{\"name\":\"a\",\"version\":\"",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_packages_or_a_warning(head in 0..HEADS.len(), noise in proptest::collection::vec(any::<u8>(), 0..6000), sparse in any::<bool>()) {
        let world = World::new();
        // Zeroes are small numbers, and so lead deeper than noise.
        let noise: Vec<u8> = noise.iter().map(|byte| if sparse && byte % 4 > 0 { byte % 3 } else { *byte }).collect();
        let content = [HEADS[head], &noise].concat();
        let layer = PATHS.iter().fold(Layer::default(), |layer, path| layer.program(path, &content));
        let image = world.image([layer]);
        let found = find(&world, &image);
        schemas::spdx(&found.spdx(&about(&image.id)));
        schemas::cyclonedx(&found.cyclonedx(&about(&image.id)));
    }
}

#[test]
fn links_lead_nowhere_outside_and_not_in_circles() {
    let world = World::new();
    let image = world.image([
        Layer::default()
            .link("etc/os-release", "../../../../../../etc/os-release")
            .link("var/lib/dpkg/status", "/proc/self/environ")
            .file("usr/share/doc/b/copyright", "License: MIT\n")
            .link("usr/share/doc/a", "a")
            .link("usr/lib/os-release", "../lib/os-release"),
        Layer::default().file("var/lib/dpkg/status.d/a", "Package: a\nVersion: 1\nArchitecture: all\n"),
    ]);
    let found = find(&world, &image);
    assert_eq!(found.os, None);
    assert_eq!(found.packages.len(), 1);
    assert_eq!(found.packages[0].licences, <[String; 0]>::default());
}

fn zip(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in entries {
        zip.start_file(name.as_str(), zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut zip, content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn archives_that_are_bombs_are_bounded() {
    let bomb = zip(&[("a.jar".into(), vec![0; (64 << 20) + 1])]);
    assert!(bomb.len() < 100_000);
    // Archives within archives: what lies deeper than any real one is not looked at.
    let mut nested = zip(&[("META-INF/maven/a/b/pom.properties".into(), b"groupId=a\nartifactId=deep\n".to_vec())]);
    for _ in 0..6 {
        nested = zip(&[("inner.jar".into(), nested)]);
    }
    let many: Vec<_> = (0..2000)
        .map(|n| (format!("META-INF/maven/a/{n}/pom.properties"), b"groupId=a\nartifactId=b\n".to_vec()))
        .collect();
    let world = World::new();
    let image =
        world.image([Layer::default().file("bomb.jar", bomb).file("nested.war", nested).file("many.jar", zip(&many))]);
    let found = find(&world, &image);
    assert_eq!(found.warnings.len(), 1, "{:?}", found.warnings);
    assert_eq!(found.warnings[0].message, "/bomb.jar:a.jar has more than 67108864 bytes");
    let names: Vec<&str> = found.packages.iter().map(|package| package.name.as_str()).collect();
    assert!(!names.contains(&"deep") && names.contains(&"b"), "{names:?}");
}

#[test]
fn databases_that_tell_of_endless_packages_are_bounded() {
    let world = World::new();
    let status: String = (0..=100_000).map(|n| format!("Package: p{n}\nVersion: 1\n\n")).collect();
    let copyright: String = (0..100_000).map(|n| format!("License: l{n}\n")).collect();
    // Slots that all lead to one blob, longer together than the database.
    let words = |words: [u32; 4]| words.map(u32::to_le_bytes).concat();
    let word = |text: &[u8; 4]| u32::from_le_bytes(*text);
    let mut slots = [words([word(b"RpmP"), 0, 1, 1]), words([3, 0, 0, 0])].concat();
    while slots.len() < 4096 {
        slots.extend(words([word(b"Slot"), 7, 256, 64]));
    }
    slots.extend(words([word(b"BlbS"), 7, 1, 1000]));
    slots.extend(gpg_key());
    slots.resize(8192, 0);
    // Sections whose names are all one long text.
    let mut elf = Vec::from(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    elf.resize(64, 0);
    elf[40..48].copy_from_slice(&64_u64.to_le_bytes());
    elf[58..64].copy_from_slice(&[64, 0, 0x10, 0x27, 1, 0]);
    for section in 0..10_000_u64 {
        let mut header = [0; 64];
        header[24..32].copy_from_slice(&0_u64.to_le_bytes());
        header[32..40].copy_from_slice(&(if section == 1 { 600_000_u64 } else { 0 }).to_le_bytes());
        elf.extend(header);
    }
    let image = world.image([Layer::default()
        .file("var/lib/dpkg/status", &status)
        .file("var/lib/dpkg/status.d/a", "Package: a\nVersion: 1\n")
        .file("usr/share/doc/a/copyright", &copyright)
        .file("var/lib/rpm/Packages.db", &slots)
        .program("usr/bin/a", &elf)]);
    let found = find(&world, &image);
    let told: Vec<&str> = found.warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(told, ["it has more than 100000 packages", "its packages are longer than it is"]);
    assert_eq!(found.packages.len(), 1);
    assert_eq!(found.packages[0].licences.len(), 1000);
}

/// The header of a key in RPM's database, of 1000 bytes: it is no package.
fn gpg_key() -> Vec<u8> {
    let words = [1_u32, 976, 1000, 6, 0, 1];
    let mut header: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    header.extend(b"gpg-pubkey\0");
    header.resize(1000, 0);
    header
}

#[test]
fn what_is_huge_is_told_instead_of_read() {
    let world = World::new();
    let huge = vec![b' '; (4 << 20) + 1];
    let image =
        world.image([Layer::default().file("node_modules/a/package.json", &huge).file("usr/bin/a.egg-info", &huge)]);
    let found = find(&world, &image);
    assert_eq!(found.packages, []);
    assert_eq!(found.warnings.len(), 2);
}
