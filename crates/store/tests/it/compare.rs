//! What differs between the files of two images.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use oci::{ImageConfig, Platform};
use store::{FileDifference, Image, SnapshotId, Stop};

use crate::support::{World, epoch};

fn image(world: &World, layers: &[SnapshotId]) -> Image {
    let mut config = ImageConfig::scratch(&Platform::host());
    config.rootfs.diff_ids = layers.iter().map(|layer| world.store.diff_id(layer, epoch()).unwrap().0).collect();
    world.store.put_image(&config, layers, epoch()).unwrap()
}

fn differences(world: &World, old: &Image, new: &Image) -> Vec<FileDifference> {
    let mut found = Vec::new();
    let mut each = |difference| {
        found.push(difference);
        Ok(())
    };
    world.store.compare(old, new, true, Stop::NEVER, &mut each).unwrap();
    found
}

/// One line for each: what happened to which path.
fn told(differences: &[FileDifference]) -> Vec<String> {
    let tell = |difference: &FileDifference| {
        let word = match (&difference.old, &difference.new) {
            (None, _) => "new",
            (_, None) => "gone",
            (Some(old), Some(new)) if old.kind != new.kind => "kind",
            (Some(old), Some(new)) if old.mode != new.mode => "mode",
            (Some(old), Some(new)) if old.link != new.link => "link",
            _ if difference.content_differs => "content",
            _ => "other",
        };
        format!("{word} {}", difference.path)
    };
    differences.iter().map(tell).collect()
}

fn check(world: &World) {
    let base = world.snapshot(None, |root| {
        for name in ["same/deep", "etc", "goes"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        for name in ["same/deep/file", "etc/content", "etc/size", "etc/mode", "goes/a", "becomes"] {
            fs::write(root.join(name), "one").unwrap();
        }
        symlink("one", root.join("etc/link")).unwrap();
    });
    let old = image(world, std::slice::from_ref(&base));
    let top = world.snapshot(Some(&base), |root| {
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/content"), "two").unwrap();
        fs::write(root.join("etc/size"), "three").unwrap();
        fs::write(root.join("etc/mode"), "one").unwrap();
        fs::set_permissions(root.join("etc/mode"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir_all(root.join("new/dir")).unwrap();
        fs::write(root.join("new/dir/file"), "").unwrap();
    });
    let new = image(world, &[base.clone(), top]);
    let expected = [
        "content /etc/content",
        "mode /etc/mode",
        "content /etc/size",
        "new /new",
        "new /new/dir",
        "new /new/dir/file",
    ];
    let found = differences(world, &old, &new);
    assert_eq!(told(&found), expected);
    assert_eq!(found[0].old.as_ref().unwrap().digest, Some(oci::Digest::of(b"one")));
    assert_eq!(found[0].new.as_ref().unwrap().digest, Some(oci::Digest::of(b"two")));
    let back: Vec<String> = expected.iter().map(|line| line.replace("new /", "gone /")).collect();
    assert_eq!(told(&differences(world, &new, &old)), back);
    assert_eq!(differences(world, &new, &new), []);

    // The same files from other layers are no difference; a directory that became a file is one for all below it.
    let other = world.snapshot(None, |root| {
        for name in ["same/deep", "etc"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        for name in ["same/deep/file", "etc/content", "etc/size", "etc/mode", "goes"] {
            fs::write(root.join(name), "one").unwrap();
        }
        symlink("two", root.join("etc/link")).unwrap();
        fs::create_dir(root.join("becomes")).unwrap();
    });
    let other = image(world, &[other]);
    assert_eq!(
        told(&differences(world, &old, &other)),
        ["kind /becomes", "link /etc/link", "kind /goes", "gone /goes/a"]
    );
}

#[test]
fn differences_of_files_are_told_by_path() {
    check(&World::new());
}

#[test]
fn full_copies_are_compared_alike() {
    let world = World::copying();
    let base = world.snapshot(None, |root| fs::write(root.join("a"), "one").unwrap());
    let top = world.snapshot(Some(&base), |root| {
        fs::remove_file(root.join("a")).unwrap();
        fs::write(root.join("b"), "two").unwrap();
    });
    let (old, new) = (image(&world, std::slice::from_ref(&base)), image(&world, &[base, top]));
    assert_eq!(told(&differences(&world, &old, &new)), ["gone /a", "new /b"]);
}

#[test]
fn a_file_of_a_merged_tree_is_read_through_links() {
    let world = World::new();
    let base = world.snapshot(None, |root| {
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        symlink("usr/bin", root.join("bin")).unwrap();
        fs::write(root.join("usr/bin/dash"), "shell").unwrap();
        symlink("dash", root.join("usr/bin/sh")).unwrap();
        symlink("/loop", root.join("loop")).unwrap();
        symlink("../../../../usr/bin/dash", root.join("up")).unwrap();
    });
    let read = |path: &str| {
        let file = world.store.open_in(&base, path).unwrap();
        file.map(|file| std::io::read_to_string(file).unwrap())
    };
    for path in ["/bin/sh", "usr/bin/sh", "/up", "/bin/../bin/dash"] {
        assert_eq!(read(path).as_deref(), Some("shell"), "{path}");
    }
    for path in ["/loop", "/bin", "/none", "/"] {
        assert_eq!(read(path), None, "{path}");
    }
}
