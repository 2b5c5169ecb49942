//! The fuzz target of the tar reader on stable Rust: its corpus, and broken headers.

#[path = "../../../../fuzz/src/layer.rs"]
#[expect(unreachable_pub, reason = "it is part of another crate's interface")]
mod layer_target;

fn corpus() -> Vec<Vec<u8>> {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/layer");
    let files = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

#[test]
fn the_corpus_holds() {
    let seeds = corpus();
    assert!(seeds.len() >= 4);
    seeds.iter().for_each(|seed| layer_target::run(seed));
}

#[test]
fn broken_headers_hold() {
    for seed in corpus() {
        // Header fields lie in the first blocks; a step that shares no factor with 512 meets each of them somewhere.
        for (round, at) in (0..seed.len().min(4096)).step_by(509).enumerate() {
            let mut broken = seed.clone();
            broken[at] = [0, b'7', b'/', 0xff][round % 4];
            repair_checksum(&mut broken, at);
            layer_target::run(&broken);
        }
    }
}

/// Makes the header's sum right again, or nothing behind it would be looked at.
fn repair_checksum(archive: &mut [u8], at: usize) {
    let start = at / 512 * 512;
    let Some(header) = archive.get_mut(start..start + 512).filter(|header| header[257..262] == *b"ustar") else {
        return;
    };
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
