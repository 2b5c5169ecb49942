//! The fuzz targets of this crate on stable Rust: their corpus, changed at random, and any bytes.

use proptest::prelude::*;

#[path = "../../../../fuzz/src/dockerfile.rs"]
#[expect(unreachable_pub, reason = "it is part of another crate's interface")]
mod dockerfile_target;
#[path = "../../../../fuzz/src/dockerignore.rs"]
#[expect(unreachable_pub, reason = "it is part of another crate's interface")]
mod dockerignore_target;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 2] = [("dockerfile", dockerfile_target::run), ("dockerignore", dockerignore_target::run)];

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let files = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    files.map(|file| std::fs::read(file.expect("an entry").path()).expect("a seed")).collect()
}

#[test]
fn the_corpus_holds() {
    for (target, run) in TARGETS {
        let seeds = corpus(target);
        assert!(seeds.len() >= 4, "{target} has seeds");
        seeds.iter().for_each(|seed| run(seed));
    }
}

/// A seed with a part of it replaced by a part of another, or by anything.
fn changed(target: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let seeds = corpus(target);
    let seed = prop::sample::select(seeds.clone());
    let patch = prop_oneof![
        (prop::sample::select(seeds), any::<prop::sample::Index>(), 0..40_usize).prop_map(|(other, from, length)| {
            let from = from.index(other.len().max(1)).min(other.len());
            other[from..other.len().min(from + length)].to_vec()
        }),
        prop::collection::vec(any::<u8>(), 0..8),
    ];
    (seed, any::<prop::sample::Index>(), 0..12_usize, patch).prop_map(|(mut seed, at, cut, patch)| {
        let at = at.index(seed.len() + 1);
        let end = seed.len().min(at + cut);
        seed.splice(at..end, patch);
        seed
    })
}

proptest! {
    #[test]
    fn changed_dockerfiles_hold(data in changed("dockerfile")) {
        dockerfile_target::run(&data);
    }

    #[test]
    fn changed_ignore_files_hold(data in changed("dockerignore")) {
        dockerignore_target::run(&data);
    }

    #[test]
    fn any_bytes_hold(data in prop::collection::vec(any::<u8>(), 0..200)) {
        for (_, run) in TARGETS {
            run(&data);
        }
    }
}
