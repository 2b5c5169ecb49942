//! The tar reader: any bytes as the layer of an image, unpacked into a scratch store.

use std::{collections::BTreeSet, path::Path};

use oci::{Descriptor, DiffId, Digest, media_type};
use store::{Store, StoreOptions};

/// Longer inputs only repeat what short ones do.
const INPUT_BYTES_MAX: usize = 256 * 1024;

/// Applies the bytes twice: as the lowest layer, and on top of a small one.
pub fn run(data: &[u8]) {
    if data.len() > INPUT_BYTES_MAX {
        return;
    }
    let home = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(home.path().join("outside"), "untouched").expect("a file beside the store");
    let options = StoreOptions { copy_snapshots: true, user_xattr: true, ignore_chown_errors: true };
    let store = Store::open(&home.path().join("store"), options).expect("a store");
    let scope = store.open_scope().expect("a scope");
    let layer = store.put_blob(data).map(|_| Descriptor::of(media_type::LAYER, data)).expect("a blob");
    let diff_id = DiffId(Digest::of(data));

    let lowest = store.apply_layer(&scope, None, None, &layer, &diff_id);
    if let Ok(snapshot) = &lowest {
        let chain = store.snapshot(snapshot).expect("a snapshot can be read").and_then(|known| known.chain_id);
        let again = store.apply_layer(&scope, Some(snapshot), chain.as_ref(), &layer, &diff_id);
        assert!(again.is_ok(), "what unpacks on nothing also unpacks on itself: {again:?}");
        // What was unpacked can be written again, and read once more.
        let sealed = store.seal(snapshot, std::time::SystemTime::UNIX_EPOCH, store::Compression::None);
        let sealed = sealed.expect("a snapshot can be sealed");
        let bytes = store.read_blob(&sealed.digest, u64::MAX).expect("a blob can be read").expect("it is there");
        let resealed = Descriptor::of(media_type::LAYER, &bytes);
        let applied = store.apply_layer(&scope, None, None, &resealed, &DiffId(Digest::of(&bytes)));
        assert!(applied.is_ok(), "our own archive unpacks: {applied:?}");
    }
    let beside: BTreeSet<_> = names(home.path());
    assert_eq!(beside, ["outside", "store"].map(str::to_owned).into(), "nothing is written beside the store");
    assert_eq!(std::fs::read(home.path().join("outside")).expect("it is there"), b"untouched");
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}
