//! The fuzz target of image documents on stable Rust: its corpus, and each seed with bytes taken out and put in.

#[path = "../../../fuzz/src/image_config.rs"]
#[expect(unreachable_pub, reason = "it is part of another crate's interface")]
mod target;

fn corpus() -> Vec<Vec<u8>> {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/image_config");
    let files = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

#[test]
fn the_corpus_holds() {
    let seeds = corpus();
    assert!(seeds.len() >= 4);
    seeds.iter().for_each(|seed| target::run(seed));
}

#[test]
fn changed_documents_hold() {
    for seed in corpus() {
        for at in 0..seed.len() {
            // Each place meets one of the patches, the names' seeds all of them.
            let patches = ["", "\"", "{}", "null", "-1", "1e400", "[[", "\\ud800", "\u{0}", "/", ":"];
            let chosen = if seed.len() < 200 { &patches[..] } else { &patches[at % patches.len()..][..1] };
            for patch in chosen {
                let mut changed = seed.clone();
                changed.splice(at..at + 1, patch.bytes());
                target::run(&changed);
            }
        }
    }
}
