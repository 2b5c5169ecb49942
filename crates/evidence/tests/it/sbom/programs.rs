//! Programs and archives that say what they were made of: Go's build information, `cargo auditable`, jars.

use std::{
    fs,
    io::{Cursor, Write as _},
    process::Command,
};

use zip::{ZipWriter, write::SimpleFileOptions};

use super::{find, package, purls};
use crate::support::{Layer, World};

/// An ELF file with nothing but one named section.
fn elf(section: &str, content: &[u8]) -> Vec<u8> {
    let names = [b"\0.shstrtab\0".as_slice(), section.as_bytes(), b"\0"].concat();
    let mut file = Vec::from(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let table = 64 + content.len() + names.len();
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    file.extend([0; 16]);
    file.extend((table as u64).to_le_bytes());
    file.extend([0; 4]);
    for half in [64_u16, 0, 0, 64, 3, 1] {
        file.extend(half.to_le_bytes());
    }
    file.extend(content);
    file.extend(&names);
    let mut entry = |name: u32, kind: u32, offset: usize, size: usize| {
        file.extend(name.to_le_bytes());
        file.extend(kind.to_le_bytes());
        for word in [0, 0, offset as u64, size as u64] {
            file.extend(word.to_le_bytes());
        }
        file.extend([0; 24]);
    };
    entry(0, 0, 0, 0);
    entry(1, 3, 64 + content.len(), names.len());
    entry(11, 1, 64, content.len());
    file
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn jar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn the_modules_of_a_real_go_program_are_those_that_it_names() {
    let Some(path) =
        ["/usr/bin/skopeo", "/usr/bin/podman", "/usr/bin/docker"].iter().find(|path| fs::exists(path).unwrap())
    else {
        return testkit::skip("there is no program of Go here (Debian's package skopeo)");
    };
    let world = World::new();
    let content = fs::read(path).unwrap();
    let image = world.image([Layer::default().program("usr/bin/tool", &content)]);
    let found = find(&world, &image);
    assert_eq!(found.warnings, []);
    // The lines are there in plain text: each module is found, and nothing else. Debian builds without modules.
    let grep = |pattern: &str| {
        let output = Command::new("grep").args(["-aoP", pattern]).arg(path).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let mut named: Vec<String> =
        grep(r"^(dep|mod)\t[^\t\n]+\t").lines().map(|line| line.split('\t').nth(1).unwrap().to_owned()).collect();
    named.push("stdlib".into());
    named.sort();
    named.dedup();
    let mut names: Vec<String> = found.packages.iter().map(|package| package.name.clone()).collect();
    names.sort();
    assert_eq!(names, named);
    // The same without its table of sections: what is left is found in its data, as Go's own reader finds it.
    let mut bare = content.clone();
    bare[40..48].fill(0);
    bare[60..64].fill(0);
    let image = world.image([Layer::default().program("usr/bin/tool", &bare)]);
    assert_eq!(purls(&find(&world, &image)), purls(&found));
    let stdlib = found.packages.iter().find(|package| package.name == "stdlib").unwrap();
    assert!(grep(r"go1\.[0-9.]+").contains(&format!("go{}", stdlib.version)), "{stdlib:?}");
}

#[test]
fn the_modules_of_a_go_program_are_found() {
    let lines = "path\texample.com/app\nmod\texample.com/app\tv1.0.0\t\ndep\tgithub.com/Azure/sdk\tv2.0.0+incompatible\th1:x=\n";
    let marked = ["0123456789abcdef", lines, "0123456789abcdef"].concat();
    let mut section = Vec::from(*b"\xff Go buildinf:\x08\x02");
    section.resize(32, 0);
    let version = "go1.22.3";
    section.push(version.len() as u8);
    section.extend(version.as_bytes());
    section.extend([marked.len() as u8 | 0x80, (marked.len() >> 7) as u8]);
    section.extend(marked.as_bytes());
    let world = World::new();
    let image = world.image([Layer::default()
        .program("app", elf(".go.buildinfo", &section))
        .program("cut", elf(".go.buildinfo", &section[..60]))]);
    let found = find(&world, &image);
    assert_eq!(
        purls(&found),
        [
            "pkg:golang/example.com/app@v1.0.0",
            "pkg:golang/github.com/azure/sdk@v2.0.0%2Bincompatible",
            "pkg:golang/stdlib@1.22.3"
        ]
    );
    assert_eq!(found.warnings.len(), 1);
}

#[test]
fn crates_of_an_auditable_program_are_found() {
    let audit = br#"{"packages":[
        {"name":"app","version":"0.1.0","source":"local","root":true,"dependencies":[1]},
        {"name":"serde","version":"1.0.200","source":"crates.io"},
        {"name":"cc","version":"1.0.0","source":"crates.io","kind":"build"}],"format":1}"#;
    let world = World::new();
    let image = world.image([Layer::default()
        .program("app", elf(".dep-v0", &zlib(audit)))
        .file("lib/python/mod.cpython-311.so", elf(".dep-v0", &zlib(audit)))
        .file("not/executable", elf(".dep-v0", &zlib(audit)))
        .program("broken", elf(".dep-v0", b"no"))
        .program("plain", elf(".text", b"no"))]);
    let found = find(&world, &image);
    assert_eq!(purls(&found), ["pkg:cargo/app@0.1.0", "pkg:cargo/serde@1.0.200"]);
    assert_eq!(found.packages[1].paths, ["/app", "/lib/python/mod.cpython-311.so"]);
    assert_eq!(found.warnings.iter().map(|warning| warning.path.as_str()).collect::<Vec<_>>(), ["/broken"]);
}

#[test]
fn jars_and_those_within_them_are_found() {
    let properties = b"version=3.12.0\ngroupId=org.apache.commons\nartifactId=commons-lang3\n".as_slice();
    let lang = jar(&[
        ("META-INF/MANIFEST.MF", b"Manifest-Version: 1.0\n"),
        ("META-INF/maven/org.apache.commons/commons-lang3/pom.properties", properties),
        (
            "META-INF/maven/org.apache.commons/commons-lang3/pom.xml",
            b"<project><licenses><license><name>Apache-2.0</name></license></licenses></project>",
        ),
    ]);
    let plain = jar(&[(
        "META-INF/MANIFEST.MF",
        b"Manifest-Version: 1.0\nImplementation-Version: 2.1\nBundle-License: MIT\n\n",
    )]);
    let fat = jar(&[
        ("META-INF/MANIFEST.MF", b"Manifest-Version: 1.0\n"),
        ("META-INF/maven/com.example/app/pom.properties", b"groupId=com.example\nartifactId=app\nversion=1.0\n"),
        ("BOOT-INF/lib/commons-lang3-3.12.0.jar", &lang),
        ("BOOT-INF/lib/plain.jar", &plain),
        ("BOOT-INF/lib/broken.jar", b"no"),
    ]);
    let world = World::new();
    let image = world.image([Layer::default()
        .file("app/app.jar", &fat)
        .file("opt/commons-lang3.jar", &lang)
        .file("opt/bad.jar", b"PK")]);
    let found = find(&world, &image);
    assert_eq!(
        purls(&found),
        [
            "pkg:maven/com.example/app@1.0",
            "pkg:maven/org.apache.commons/commons-lang3@3.12.0",
            "pkg:maven/plain/plain@2.1"
        ]
    );
    let lang = package(&found, "pkg:maven/org.apache.commons/commons-lang3@3.12.0");
    assert_eq!(lang.licences, ["Apache-2.0"]);
    assert_eq!(lang.paths, ["/app/app.jar:BOOT-INF/lib/commons-lang3-3.12.0.jar", "/opt/commons-lang3.jar"]);
    let told: Vec<&str> = found.warnings.iter().map(|warning| warning.path.as_str()).collect();
    assert_eq!(told, ["/app/app.jar", "/opt/bad.jar"]);
}
