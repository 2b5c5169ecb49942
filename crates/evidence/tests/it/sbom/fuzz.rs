//! The fuzz target of the readers on stable Rust: its corpus, and each seed with bytes changed.

#[path = "../../../../../fuzz/src/sbom.rs"]
#[expect(unreachable_pub, reason = "it is part of another crate's interface")]
pub(super) mod target;

fn corpus() -> Vec<(String, Vec<u8>)> {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/sbom");
    let files = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let files = files.map(|file| file.unwrap());
    files.map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap())).collect()
}

#[test]
fn the_corpus_holds() {
    let seeds = corpus();
    assert!(seeds.len() >= 12);
    for (name, seed) in seeds {
        target::run(&seed);
        // Those that tell of no package by themselves, and those that a run of the fuzzer has left.
        let is_mute = ["os_release", "dpkg_files", "copyright", "copyright_prose", "npm_lock"].contains(&name.as_str());
        let found = target::read(&seed).unwrap();
        assert!(is_mute || name.starts_with("found_") || !found.packages.is_empty(), "{name}: {found:?}");
    }
}

#[test]
fn changed_files_hold() {
    for (_, seed) in corpus() {
        for (round, at) in (2..seed.len()).step_by(1 + seed.len() / 60).enumerate() {
            let mut changed = seed.clone();
            changed[at] = [0, 0xff, changed[at] ^ 1, 0x80][round % 4];
            target::run(&changed);
            changed.truncate(at);
            target::run(&changed);
        }
    }
}
