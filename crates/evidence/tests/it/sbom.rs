//! What is found in images, and how it is written down.

mod fuzz;
mod hostile;
mod machine;
mod programs;
mod rpm;
mod schemas;

use evidence::sbom::{About, Inventory, Package, inventory};
use oci::Digest;
use store::{Image, Stop};

use crate::support::{Layer, World};

const DEBIAN: &str =
    "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12\"\nHOME_URL=\"https://www.debian.org/\"\n";

fn debian(packages: &[(&str, &str)]) -> String {
    let paragraph = |(name, version): &(&str, &str)| {
        format!(
            "Package: {name}\nStatus: install ok installed\nMaintainer: A <a@debian.org>\nArchitecture: amd64\nVersion: {version}\n\n"
        )
    };
    packages.iter().map(paragraph).collect()
}

fn python(name: &str, version: &str) -> (String, String) {
    let path = format!("usr/lib/python3/dist-packages/{name}-{version}.dist-info/METADATA");
    (path, format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nLicense: MIT\n\nText\n"))
}

fn find(world: &World, image: &Image) -> Inventory {
    inventory(&world.store, image, Stop::NEVER).unwrap()
}

fn purls(inventory: &Inventory) -> Vec<&str> {
    inventory.packages.iter().map(|package| package.purl.as_str()).collect()
}

fn package<'a>(inventory: &'a Inventory, purl: &str) -> &'a Package {
    inventory
        .packages
        .iter()
        .find(|package| package.purl == purl)
        .unwrap_or_else(|| panic!("{purl} in {:?}", purls(inventory)))
}

fn about(digest: &Digest) -> About<'_> {
    About { reference: None, digest, architecture: "amd64", created_s: 1_700_000_000 }
}

/// Two layers of Debian, the second with a newer database, and Python and npm in both.
fn layers() -> Vec<Layer> {
    let (yaml, metadata) = python("PyYAML", "6.0");
    let (gone, old) = python("old_thing", "1.0");
    let base = Layer::default()
        .file("usr/lib/os-release", DEBIAN)
        .link("etc/os-release", "../usr/lib/os-release")
        .file("var/lib/dpkg/status", debian(&[("base-files", "12.4"), ("libc6", "2.36-9"), ("g++", "4:12-1")]))
        .file("usr/share/doc/libc6/copyright", "On Debian systems: /usr/share/common-licenses/LGPL-2.1.\n")
        .link("usr/share/doc/g++", "libc6")
        .file(&yaml, metadata)
        .file(&gone, old);
    let top = Layer::default()
        .file("var/lib/dpkg/status", debian(&[("base-files", "12.4"), ("libc6", "2.36-10"), ("g++", "4:12-1")]))
        .gone("usr/lib/python3/dist-packages/old_thing-1.0.dist-info")
        .file(
            "app/node_modules/@types/node/package.json",
            r#"{"name":"@types/node","version":"20.1.0","license":"MIT"}"#,
        )
        .file("app/node_modules/a/package.json", r#"{"name":"a","version":"1.0.0","license":"SEE LICENSE IN x"}"#)
        .file("app/node_modules/a/test/b/package.json", r#"{"name":"b","version":"1.0.0"}"#);
    vec![base, top]
}

#[test]
fn what_the_image_shows_is_found_with_the_layer_that_brought_it() {
    for world in [World::new(), World::copying()] {
        let image = world.image(layers());
        let found = find(&world, &image);
        assert_eq!(
            purls(&found),
            [
                "pkg:deb/debian/base-files@12.4?arch=amd64&distro=debian-12",
                "pkg:deb/debian/g%2B%2B@4:12-1?arch=amd64&distro=debian-12",
                "pkg:deb/debian/libc6@2.36-10?arch=amd64&distro=debian-12",
                "pkg:npm/%40types/node@20.1.0",
                "pkg:npm/a@1.0.0",
                "pkg:pypi/pyyaml@6.0",
            ]
        );
        assert_eq!(found.warnings, []);
        assert_eq!(found.os.as_ref().unwrap().pretty_name.as_deref(), Some("Debian GNU/Linux 12"));
        let layer = |place: usize| Some(image.config.rootfs.diff_ids[place].clone());
        let of = |place: usize| &found.packages[place];
        assert_eq!([&of(0).layer, &of(2).layer, &of(4).layer], [&layer(0), &layer(1), &layer(1)]);
        // The documentation of g++ is a link to that of libc6.
        assert_eq!([&of(1).licences, &of(2).licences], [&["LGPL-2.1-only"], &["LGPL-2.1-only"]]);
        assert_eq!(of(5).paths, ["/usr/lib/python3/dist-packages/PyYAML-6.0.dist-info/METADATA"]);
        // The second time it comes from memory, and is the same.
        assert_eq!(find(&world, &image), found);
    }
}

#[test]
fn lockfiles_tell_the_checksums_of_what_is_installed() {
    let world = World::new();
    let package = |name: &str| format!(r#"{{"name":"{name}","version":"1.0.0"}}"#);
    let lock = |entries: &[(&str, &str)]| {
        let entry = |(place, version): &(&str, &str)| {
            format!(r#""{place}":{{"version":"{version}","integrity":"sha256-{}="}}"#, "A".repeat(43))
        };
        format!(r#"{{"lockfileVersion":3,"packages":{{{}}}}}"#, entries.iter().map(entry).collect::<Vec<_>>().join(","))
    };
    let image = world.image([Layer::default()
        .file("app/package-lock.json", lock(&[("node_modules/a", "1.0.0"), ("node_modules/b", "2.0.0")]))
        .file(
            "other/node_modules/.package-lock.json",
            lock(&[("node_modules/@x/c", "1.0.0"), ("node_modules/d", "1.0.0")]),
        )
        .file("app/node_modules/a/package.json", package("a"))
        .file("app/node_modules/b/package.json", package("b"))
        .file("other/node_modules/@x/c/package.json", package("@x/c"))]);
    let found = find(&world, &image);
    assert_eq!(found.warnings, []);
    let told: Vec<_> = found.packages.iter().map(|package| (package.name.as_str(), package.checksums.len())).collect();
    // Of another version than the installed one, and of what is not installed, nothing is said.
    assert_eq!(told, [("@x/c", 1), ("a", 1), ("b", 0)]);
    assert_eq!(found.packages[1].checksums[0].hex, "00".repeat(32));
    schemas::spdx(&found.spdx(&about(&image.id)));
    schemas::cyclonedx(&found.cyclonedx(&about(&image.id)));
}

#[test]
fn what_cannot_be_read_is_told() {
    let world = World::new();
    let image = world.image([
        Layer::default()
            .file("app/node_modules/a/package.json", "{")
            .file("app/node_modules/b/package.json", "{")
            .file("var/lib/dpkg/status", [0xff_u8, 0, 1])
            .file("lib/apk/db/installed", vec![b'x'; 100])
            .link("etc/os-release", "/etc/os-release"),
        Layer::default().gone("app/node_modules/b"),
    ]);
    let found = find(&world, &image);
    assert_eq!(purls(&found), <[&str; 0]>::default());
    assert_eq!(found.os, None);
    let told: Vec<&str> = found.warnings.iter().map(|warning| warning.path.as_str()).collect();
    assert_eq!(told, ["/app/node_modules/a/package.json", "/lib/apk/db/installed", "/var/lib/dpkg/status"]);
}

#[test]
fn documents_are_valid_and_the_same_each_time() {
    let world = World::new();
    let image = world.image(layers());
    let found = find(&world, &image);
    let (spdx, cyclonedx) = (found.spdx(&about(&image.id)), found.cyclonedx(&about(&image.id)));
    schemas::spdx(&spdx);
    schemas::cyclonedx(&cyclonedx);
    assert_eq!(found.spdx(&about(&image.id)).to_string(), spdx.to_string());
    assert_eq!(spdx["creationInfo"]["created"], "2023-11-14T22:13:20Z");
    assert_eq!(cyclonedx["metadata"]["timestamp"], "2023-11-14T22:13:20Z");
    let libc = package(&found, "pkg:deb/debian/libc6@2.36-10?arch=amd64&distro=debian-12");
    assert_eq!(libc.supplier.as_deref(), Some("A <a@debian.org>"));
}

#[test]
fn what_a_distributions_package_brought_names_it() {
    let world = World::new();
    let (yaml, metadata) = python("PyYAML", "6.0");
    let (pip, installed) = python("requests", "2.0");
    let apk = "P:py3-yaml\nV:6.0-r1\nA:x86_64\nF:usr/lib/node_modules/npm\nR:package.json\n\n";
    let image = world.image([Layer::default()
        .file("usr/lib/os-release", DEBIAN)
        .file("var/lib/dpkg/status", debian(&[("python3-yaml", "6.0-3")]))
        .file("var/lib/dpkg/info/python3-yaml:amd64.list", format!("/.\n/usr\n/{yaml}\n/usr/share/doc/x\n"))
        .file("lib/apk/db/installed", apk)
        .file("usr/lib/node_modules/npm/package.json", r#"{"name":"npm","version":"9.0.0"}"#)
        .file(&yaml, metadata)
        .file(&pip, installed)]);
    let found = find(&world, &image);
    let owner = |purl: &str| package(&found, purl).owner.as_deref();
    let deb = "pkg:deb/debian/python3-yaml@6.0-3?arch=amd64&distro=debian-12";
    assert_eq!(owner("pkg:pypi/pyyaml@6.0"), Some(deb));
    assert_eq!(owner("pkg:npm/npm@9.0.0"), Some("pkg:apk/debian/py3-yaml@6.0-r1?arch=x86_64&distro=debian-12"));
    assert_eq!(owner("pkg:pypi/requests@2.0"), None);
    let spdx = found.spdx(&about(&image.id));
    schemas::spdx(&spdx);
    let owned = spdx["relationships"].as_array().unwrap().iter().filter(|of| of["relationshipType"] == "OTHER").count();
    assert_eq!(owned, 2);
    let cyclonedx = found.cyclonedx(&about(&image.id));
    schemas::cyclonedx(&cyclonedx);
    assert_eq!(cyclonedx["dependencies"].as_array().unwrap().len(), 2);
}
