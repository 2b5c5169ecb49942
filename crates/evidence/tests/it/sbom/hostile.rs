//! Content that is made to do harm: every reader ends, within bounds, with packages or a warning.

use proptest::prelude::*;

use super::{about, find, schemas};
use crate::support::{Layer, World};

/// One path for each reader.
const PATHS: [&str; 14] = [
    "etc/os-release",
    "var/lib/dpkg/status",
    "var/lib/dpkg/status.d/base",
    "var/lib/dpkg/info/a.list",
    "usr/share/doc/a/copyright",
    "lib/apk/db/installed",
    "var/lib/rpm/rpmdb.sqlite",
    "var/lib/rpm/Packages.db",
    "var/lib/rpm/Packages",
    "usr/lib/python3/a-1.dist-info/METADATA",
    "usr/lib/python3/a.egg-info",
    "node_modules/a/package.json",
    "opt/a.jar",
    "usr/bin/a",
];

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
