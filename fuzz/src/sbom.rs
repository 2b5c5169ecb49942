//! The readers of package databases, programs and archives: any bytes as a file of an image.

use std::{fs::File, io::Write as _, os::fd::OwnedFd};

use evidence::sbom::{Inventory, packages_of_file};

/// Longer inputs only repeat what short ones do.
const INPUT_BYTES_MAX: usize = 256 * 1024;
/// One path for each reader; the input's first byte chooses.
pub const PATHS: [&str; 17] = [
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
    "node_modules/.package-lock.json",
    "opt/a.jar",
    "usr/bin/a",
    "usr/lib/a.so.1",
    "app/package-lock.json",
];

/// Reads the bytes behind the first as the file that the first chooses. Of SQLite's database, the second byte says at which
/// multiple of 256 the log beside it begins (0: there is none).
pub fn run(data: &[u8]) {
    let Some(inventory) = read(data) else { return };
    assert!(inventory.packages.iter().all(|package| !package.name.is_empty()), "every package has a name");
    assert!(inventory.packages.len() <= INPUT_BYTES_MAX, "nothing is made of nothing");
    let written = serde_json::to_vec(&inventory).expect("packages are plain data");
    let read: Inventory = serde_json::from_slice(&written).expect("what was remembered can be read");
    assert_eq!(read, inventory);
}

/// What is found in such a file.
pub fn read(data: &[u8]) -> Option<Inventory> {
    let [reader, split, content @ ..] = data else { return None };
    if content.len() > INPUT_BYTES_MAX {
        return None;
    }
    let path = PATHS[usize::from(*reader) % PATHS.len()];
    let (content, log) = content.split_at((usize::from(*split) * 256).min(content.len()));
    let (content, log) = if *split == 0 { (log, None) } else { (content, Some(file(log))) };
    let (packages, warnings) = packages_of_file(path, 0o755, &file(content), log.as_ref());
    Some(Inventory { os: None, packages, warnings })
}

/// A file that has no name.
fn file(content: &[u8]) -> File {
    let descriptor: OwnedFd =
        rustix::fs::memfd_create("sbom", rustix::fs::MemfdFlags::CLOEXEC).expect("a file in memory");
    let mut file = File::from(descriptor);
    file.write_all(content).expect("it is written");
    file
}
