//! Bases in a real store.

use std::time::SystemTime;

use base::{DebianOptions, HOST_LABEL, HOST_REFERENCE, HostOptions, Variant, debian, host};
use store::{Store, StoreOptions};

fn store() -> (tempfile::TempDir, Store) {
    let home = tempfile::tempdir().unwrap();
    let is_root = rustix::process::geteuid().is_root();
    let options = StoreOptions { user_xattr: !is_root, ignore_chown_errors: !is_root, ..StoreOptions::default() };
    let store = Store::open(home.path(), options).unwrap();
    (home, store)
}

#[test]
fn the_same_machine_gives_the_same_image_in_every_store() {
    let make = || {
        let (home, store) = store();
        let scope = store.open_scope().unwrap();
        let made = host(&store, &scope, &HostOptions::default()).unwrap();
        drop(scope);
        (home, store, made)
    };
    let ((_one, store, made), (_two, _, again)) = (make(), make());
    assert_eq!(made.image.id, again.image.id);
    let named = store.resolve(&HOST_REFERENCE.parse().unwrap()).unwrap().unwrap();
    assert_eq!(named.id, made.image.id);
    assert_eq!(named.config.config.labels[HOST_LABEL], "host");
    assert_eq!(named.config.config.cmd, Some(vec!["/bin/sh".into()]));
    assert_eq!(named.config.rootfs.diff_ids.len(), 1);
    assert!(named.config.created.is_some_and(|time| time.ends_with('Z')));
}

#[test]
fn a_host_base_takes_the_names_that_it_is_given() {
    let (_home, store) = store();
    let scope = store.open_scope().unwrap();
    let names = vec!["tools".parse().unwrap(), "localhost:5000/tools:2".parse().unwrap()];
    let made = host(&store, &scope, &HostOptions { names, ..HostOptions::default() }).unwrap();
    for name in ["tools:latest", "localhost:5000/tools:2"] {
        assert_eq!(store.resolve(&name.parse().unwrap()).unwrap().unwrap().id, made.image.id, "{name}");
    }
    assert!(store.resolve(&HOST_REFERENCE.parse().unwrap()).unwrap().is_none());
}

#[test]
fn a_debian_base_is_made_once_and_is_the_same_again() {
    if !testkit::wants_slow_tests() {
        return testkit::skip("installs Debian packages from the network; set SEATRIAL_SLOW_TESTS=1");
    }
    if !testkit::is_root() {
        return testkit::skip("mmdebstrap needs root, or the user namespace that only the program enters");
    }
    let make = || {
        let (home, store) = store();
        let scope = store.open_scope().unwrap();
        let mut lines = Vec::new();
        // The smaller variant: this is about when it is made and what comes out, not about what is in it.
        let suite = "bookworm-slim".into();
        let options = DebianOptions { suite, variant: Variant::Apt, ..DebianOptions::default() };
        let made = debian(&store, &scope, &options, &mut |line| lines.push(line.to_owned())).unwrap();
        assert!(!made.is_cached && !lines.is_empty());
        let again = debian(&store, &scope, &options, &mut |_| {}).unwrap();
        assert!(again.is_cached);
        assert_eq!(again.image.id, made.image.id);
        drop(scope);
        (home, store, made)
    };
    // Side by side: each mostly waits for dpkg.
    let ((_one, store, first), (_two, _, second)) = std::thread::scope(|threads| {
        let other = threads.spawn(make);
        (make(), other.join().expect("it is made"))
    });
    assert_eq!(store.resolve(&"debian:bookworm-slim".parse().unwrap()).unwrap().unwrap().id, first.image.id);
    assert!(first.date.is_some_and(|date| date < SystemTime::now()));
    assert_eq!(first.image.id, second.image.id, "the same mirror gives the same image");
}
