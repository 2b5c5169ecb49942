//! Databases that rpm itself writes, and one that Berkeley DB's own tool writes: read as rpm reads them.

use std::{fs, path::Path, process::Command};

use super::{find, package, purls};
use crate::support::{Layer, World};

const SPEC: &str = "Name: seatrial-thing\nEpoch: 3\nVersion: 1.2\nRelease: 4.fc40\nSummary: A thing\nLicense: MIT\n\
                    Vendor: Example\nURL: https://example.com/\nBuildArch: noarch\n%description\nA thing.\n%install\n\
                    mkdir -p %{buildroot}/usr/lib/node_modules/thing\n\
                    echo '{\"name\":\"thing\",\"version\":\"1.0.0\"}' > %{buildroot}/usr/lib/node_modules/thing/package.json\n\
                    %files\n/usr/lib/node_modules/thing\n%package -n big\nSummary: More than a page\n%description -n big\nx\n%files -n big\n\
                    %changelog\n";
const FEDORA: &str = "ID=fedora\nVERSION_ID=40\n";

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        testkit::skip(format_args!("there is no {program} (Debian's packages rpm and db5.3-util)"));
    }
    found
}

/// Two small packages, of which one has a changelog of many pages.
fn build(home: &Path) -> Vec<std::path::PathBuf> {
    let changes: String =
        (0..2000).map(|day| format!("* Mon Jan 01 2024 A <a@b.c> - {day}\n- change {day} of this package\n")).collect();
    fs::write(home.join("thing.spec"), format!("{SPEC}{changes}")).unwrap();
    let top = format!("_topdir {}", home.display());
    run(Command::new("rpmbuild")
        .args(["-bb", "--quiet", "--define", &top, "--define", "debug_package %{nil}"])
        .arg(home.join("thing.spec")));
    let packages =
        fs::read_dir(home.join("RPMS/noarch")).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    assert_eq!(packages.len(), 2);
    packages
}

/// SQLite is what rpm writes by itself.
fn database(home: &Path, packages: &[std::path::PathBuf]) -> std::path::PathBuf {
    let path = home.join("db");
    let mut install = Command::new("rpm");
    install.args(["-i", "--justdb", "--nodeps", "--ignoresize", "--define", &format!("_dbpath {}", path.display())]);
    run(install.args(packages));
    path
}

fn check(path: &str, database: &[u8]) {
    let world = World::new();
    let json = r#"{"name":"thing","version":"1.0.0"}"#;
    let image = world.image([Layer::default()
        .file("etc/os-release", FEDORA)
        .file(path, database)
        .file("usr/lib/node_modules/thing/package.json", json)]);
    let found = find(&world, &image);
    assert_eq!(found.warnings, [], "{path}");
    let thing = "pkg:rpm/fedora/seatrial-thing@1.2-4.fc40?arch=noarch&distro=fedora-40&epoch=3&upstream=seatrial-thing-1.2-4.fc40.src.rpm";
    let big =
        "pkg:rpm/fedora/big@1.2-4.fc40?arch=noarch&distro=fedora-40&epoch=3&upstream=seatrial-thing-1.2-4.fc40.src.rpm";
    assert_eq!(purls(&found), ["pkg:npm/thing@1.0.0", big, thing], "{path}");
    let read = package(&found, thing);
    assert_eq!((read.version.as_str(), read.licences.as_slice()), ("3:1.2-4.fc40", ["MIT".to_owned()].as_slice()));
    assert_eq!((read.supplier.as_deref(), read.homepage.as_deref()), (Some("Example"), Some("https://example.com/")));
    assert!(!read.checksums.is_empty());
    assert_eq!(package(&found, "pkg:npm/thing@1.0.0").owner.as_deref(), Some(thing));
    // Cut anywhere, it is a warning at worst.
    for eighth in 0..8 {
        let image = world.image([Layer::default().file(path, &database[..database.len() * eighth / 8])]);
        let found = find(&world, &image);
        assert!(found.packages.len() < 2 || eighth > 3);
        assert!(eighth > 0 || found.warnings.len() == 1);
    }
}

#[test]
fn the_three_forms_of_rpms_database_are_read() {
    if !has("rpmbuild") || !has("rpm") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let packages = build(home.path());
    let sqlite = database(home.path(), &packages);
    check("var/lib/rpm/rpmdb.sqlite", &fs::read(sqlite.join("rpmdb.sqlite")).unwrap());

    check_log(home.path(), &sqlite.join("rpmdb.sqlite"));

    // Debian's rpm writes no other form; the headers in it are the same.
    let exported =
        run(Command::new("rpmdb").args(["--exportdb", "--define", &format!("_dbpath {}", sqlite.display())]));
    let headers = headers(&exported);
    check("usr/lib/sysimage/rpm/Packages.db", &ndb(&headers));
    if Command::new("db5.3_load").arg("-V").output().is_err() {
        return testkit::skip("there is no db5.3_load (Debian's package db5.3-util)");
    }
    let (bdb, dump) = (home.path().join("Packages"), home.path().join("dump"));
    fs::write(&dump, dump_of(&headers)).unwrap();
    run(Command::new("db5.3_load").arg("-f").arg(&dump).arg(&bdb));
    check("var/lib/rpm/Packages", &fs::read(&bdb).unwrap());
}

/// SQLite reads a database with the log beside it: what was committed counts, what was not does not.
fn check_log(home: &Path, database: &Path) {
    let script = "import shutil, sqlite3, sys\nsource, target = sys.argv[1:]\nshutil.copy(source, 'work.db')\n\
                  db = sqlite3.connect('work.db', isolation_level=None)\n\
                  db.execute('pragma journal_mode=wal')\ndb.execute('pragma wal_autocheckpoint=0')\ndb.execute('pragma cache_size=5')\n\
                  db.execute('delete from Packages where hnum = (select min(hnum) from Packages)')\n\
                  db.execute('begin')\ndb.execute('delete from Packages')\n\
                  db.execute('create table filler (x)')\ndb.executemany('insert into filler values (?)', [['x' * 4000]] * 50)\n\
                  shutil.copy('work.db', target)\nshutil.copy('work.db-wal', target + '-wal')\n";
    let copy = home.join("rpmdb.sqlite");
    run(Command::new("python3").args(["-c", script]).args([database, &copy]).current_dir(home));
    let (database, log) = (fs::read(&copy).unwrap(), fs::read(home.join("rpmdb.sqlite-wal")).unwrap());
    let world = World::new();
    let packages = |log: &[u8]| {
        let layer =
            Layer::default().file("var/lib/rpm/rpmdb.sqlite", &database).file("var/lib/rpm/rpmdb.sqlite-wal", log);
        let found = find(&world, &world.image([layer]));
        assert_eq!(found.warnings, []);
        found.packages.len()
    };
    assert_eq!(packages(&log), 1, "the second deletion was not committed");
    assert_eq!(packages(b""), 2);
    // A log that was damaged ends where it is: nothing of it was committed before.
    let mut damaged = log.clone();
    damaged[100] ^= 1;
    assert_eq!(packages(&damaged), 2);
}

/// The headers of `rpmdb --exportdb`, each behind its magic of eight bytes.
fn headers(exported: &[u8]) -> Vec<&[u8]> {
    let (mut rest, mut headers) = (exported, Vec::new());
    while let Some(header) = rest.get(8..) {
        let count = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap()) as usize;
        let (header, after) = header.split_at(8 + 16 * count(0) + count(4));
        headers.push(header);
        rest = after;
    }
    assert_eq!(headers.len(), 2);
    headers
}

/// rpm's own form (`lib/backend/ndb/rpmpkg.c`).
fn ndb(headers: &[&[u8]]) -> Vec<u8> {
    let words = |words: [u32; 4]| words.map(u32::to_le_bytes).concat();
    let word = |text: &[u8; 4]| u32::from_le_bytes(*text);
    let mut slots = [words([word(b"RpmP"), 0, 1, 1]), words([3, 0, 0, 0])].concat();
    let mut blobs = Vec::new();
    for (number, header) in (1..).zip(headers) {
        let place = 4096 + blobs.len();
        let mut blob = [words([word(b"BlbS"), number, 1, header.len() as u32]), header.to_vec()].concat();
        blob.resize(blob.len().next_multiple_of(16) + 16, 0);
        slots.extend(words([word(b"Slot"), number, place as u32 / 16, blob.len() as u32 / 16]));
        blobs.extend(blob);
    }
    while slots.len() < 4096 {
        slots.extend(words([word(b"Slot"), 0, 0, 0]));
    }
    [slots, blobs].concat()
}

/// A dump that Berkeley DB loads.
fn dump_of(headers: &[&[u8]]) -> String {
    let head =
        "VERSION=3\nformat=bytevalue\ntype=hash\nh_nelem=8\ndb_pagesize=4096\nHEADER=END\n 00000000\n 05000000\n";
    let lines = (1_u32..).zip(headers).map(|(key, header)| format!(" {}\n {}\n", hex(&key.to_le_bytes()), hex(header)));
    format!("{head}{}DATA=END\n", lines.collect::<String>())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
