//! Images whose layers are unpacked while they arrive.

use std::{
    io::Write as _,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use oci::{Descriptor, Digest};
use store::{Arrivals, PartialBlob, Store};

use crate::{
    images::pulled,
    support::{Tar, World, message},
};

/// Far above what unpacking a few bytes takes; a store that waits for the rest never gets there.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A manifest of an image that is not here: its layer was put aside.
struct Coming {
    world: World,
    manifest: Vec<u8>,
    layer: Vec<u8>,
    descriptor: Descriptor,
}

impl Coming {
    fn new() -> Self {
        let world = World::new();
        let tar = Tar::new().file("first", "1").file("large", &"2".repeat(1 << 20)).file("last", "3");
        let manifest = pulled(&world, &[tar]);
        let document: oci::Manifest = serde_json::from_slice(&manifest).unwrap();
        let descriptor = document.layers[0].clone();
        let layer = world.store.read_blob(&descriptor.digest, u64::MAX).unwrap().unwrap();
        std::fs::remove_file(world.home.path().join("store/blobs/sha256").join(descriptor.digest.hex())).unwrap();
        Self { world, manifest, layer, descriptor }
    }

    fn arrivals(&self) -> Arrivals {
        Arrivals::of([&self.descriptor.digest])
    }

    fn begin(&self, arrivals: &Arrivals) -> PartialBlob {
        let partial = self.world.store.partial_blob(&self.descriptor.digest, self.descriptor.size).unwrap().unwrap();
        arrivals.begins(&self.descriptor.digest, partial.reader().unwrap(), partial.size_bytes());
        partial
    }

    fn write(&self, arrivals: &Arrivals, partial: &mut PartialBlob, bytes: &[u8]) {
        partial.write_all(bytes).unwrap();
        arrivals.grew(&self.descriptor.digest, bytes.len() as u64);
    }

    /// Directories of snapshots in the making.
    fn in_the_making(&self) -> Vec<PathBuf> {
        let snapshots = std::fs::read_dir(self.world.home.path().join("store/snapshots")).unwrap();
        let paths = snapshots.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("tmp.")).collect()
    }
}

fn import(store: &Store, scope: &store::Scope, manifest: &[u8], arrivals: &Arrivals) -> Result<Digest, String> {
    store.import_arriving(scope, manifest, arrivals).map(|image| image.id).map_err(|error| message(&error))
}

#[test]
fn a_layer_is_unpacked_before_its_end_is_here() {
    let coming = Coming::new();
    let arrivals = coming.arrivals();
    let (store, scope) = (&coming.world.store, &coming.world.scope);
    thread::scope(|threads| {
        let importing = threads.spawn(|| import(store, scope, &coming.manifest, &arrivals));
        let mut partial = coming.begin(&arrivals);
        let (first, rest) = coming.layer.split_at(coming.layer.len() / 2);
        coming.write(&arrivals, &mut partial, first);
        let begin = Instant::now();
        while !coming.in_the_making().iter().any(|snapshot| snapshot.join("fs/first").exists()) {
            assert!(begin.elapsed() < WAIT_MAX && !importing.is_finished());
            thread::yield_now();
        }
        coming.write(&arrivals, &mut partial, rest);
        partial.commit((&coming.descriptor.digest, coming.descriptor.size)).unwrap();
        arrivals.is_here(&coming.descriptor.digest);
        let image = importing.join().unwrap().unwrap();
        let layer = store.image(&image).unwrap().unwrap().layers[0].clone();
        let root = coming.world.home.path().join("store/snapshots").join(layer.as_str()).join("fs");
        assert_eq!(std::fs::read_to_string(root.join("last")).unwrap(), "3");
    });
}

#[test]
fn what_does_not_arrive_leaves_nothing() {
    let coming = Coming::new();
    let (store, scope) = (&coming.world.store, &coming.world.scope);
    let begins: [&dyn Fn(&Arrivals); 3] = [
        // Nothing came.
        &|_| {},
        // A part came.
        &|arrivals| {
            let mut partial = coming.begin(arrivals);
            coming.write(arrivals, &mut partial, &coming.layer[..coming.layer.len() / 2]);
        },
        // What came was wrong, and comes anew.
        &|arrivals| {
            let mut partial = coming.begin(arrivals);
            coming.write(arrivals, &mut partial, &vec![0; coming.layer.len() / 3]);
            partial.commit((&coming.descriptor.digest, coming.descriptor.size)).expect_err("other bytes");
            coming.begin(arrivals);
        },
    ];
    for begin in begins {
        let arrivals = coming.arrivals();
        let outcome = thread::scope(|threads| {
            let importing = threads.spawn(|| import(store, scope, &coming.manifest, &arrivals));
            begin(&arrivals);
            arrivals.end();
            importing.join().unwrap()
        });
        assert!(outcome.as_ref().is_err_and(|error| error.contains("the blob did not arrive")), "{outcome:?}");
        assert!(coming.in_the_making().is_empty() && store.has_blob(&coming.descriptor.digest).is_none());
    }
}
