//! Layers that are small where they lie and would take all memory, disk or time when they are read.

use std::{fs, io::Write as _};

use crate::support::{Tar, World, gzip, message, seal_header};

/// Just more than what may unpack without a question.
const BOMB_BYTES: usize = (1 << 30) + (4 << 20);

#[test]
fn decompression_bombs_are_stopped() {
    let start = header_of_size(b"bomb", 8_000_000_000);
    let zeros = vec![0; 4 << 20];
    // Members and frames may follow one another, so one small piece is enough for any number of bytes.
    for (name, compress) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd)] {
        let world = World::new();
        let mut bomb = compress(&start);
        let piece = compress(&zeros);
        (0..BOMB_BYTES / zeros.len()).for_each(|_| bomb.extend_from_slice(&piece));
        assert!(bomb.len() < BOMB_BYTES / 200, "{name} makes {} bytes", bomb.len());
        let error = world.apply_bytes(None, &bomb, b"").expect_err("a bomb");
        assert!(
            message(&error).contains("grows to more than 200 times its compressed size (a decompression bomb)"),
            "{name}: {}",
            message(&error)
        );
        assert_eq!(fs::read_dir(world.store.root().join("snapshots")).unwrap().count(), 0, "nothing is kept");
    }
}

/// Zeros behind the end of the archive are read too, for the digest.
#[test]
fn bombs_behind_the_end_are_stopped() {
    let world = World::new();
    let mut bomb = zstd(&Tar::new().file("a", "A").end());
    let piece = zstd(&vec![0; 4 << 20]);
    (0..BOMB_BYTES / (4 << 20)).for_each(|_| bomb.extend_from_slice(&piece));
    let error = world.apply_bytes(None, &bomb, b"").expect_err("a bomb");
    assert!(message(&error).contains("(a decompression bomb)"), "{}", message(&error));
}

#[test]
fn zstd_frames_that_ask_for_much_memory_are_refused() {
    let world = World::new();
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&Tar::new().file("a", "A").end()).unwrap();
    let frame = encoder.finish().unwrap();
    let error = world.apply_bytes(None, &frame, b"").expect_err("a window of 128 MiB");
    assert!(message(&error).contains("requires too much memory"), "{}", message(&error));
}

#[test]
fn headers_of_more_than_a_mebibyte_are_refused() {
    let world = World::new();
    let large = vec![b'x'; 1 << 20];
    let said = "an extension header has 104";
    for tar in [
        Tar::new().pax(&[("comment", &large)]).file("a", ""),
        Tar::new().raw(b"././@LongLink", b'L', 0, b"", &[&large[..], b"x"].concat()).file("a", ""),
        Tar::new().raw(b"././@LongLink", b'K', 0, b"", &[&large[..], b"x"].concat()).symlink("a", ""),
    ] {
        let refusal = world.refusal(&tar);
        assert!(refusal.contains(said) && refusal.contains("the limit is 1 MiB"), "{refusal}");
    }
    // What only claims to be large takes no memory either.
    let mut claim = header_of_size(b"pax", 8_000_000_000);
    claim[156] = b'x';
    seal_header(&mut claim);
    let refusal = world.refusal(&Tar(claim));
    assert!(refusal.contains("an extension header has 8000000000 bytes"), "{refusal}");
    // One that is just as large as allowed is read.
    let fitting = vec![b'x'; (1 << 20) - 100];
    world.apply(None, &Tar::new().pax(&[("comment", &fitting)]).file("a", "")).unwrap();
    let endless = (0..20).fold(Tar::new(), |tar, _| tar.pax(&[("comment", b"again")])).file("a", "");
    assert!(world.refusal(&endless).contains("too many extension headers in a row"));
}

/// A message goes to a terminal or into a log of a CI system: no name may speak to either.
#[test]
fn names_in_messages_are_escaped() {
    let world = World::new();
    let name = "\u{1b}[2J\u{1b}]0;title\u{7}\r\n::error::owned\u{9b}31m";
    for tar in [
        Tar::new().raw(name.as_bytes(), b'z', 0o644, b"", b""),
        Tar::new().file(name, "").file(&format!("{name}/x"), ""),
        Tar::new().hard_link("a", name),
        Tar::new().file(name, "").raw(b"x", b'z', 0o644, b"", b""),
        Tar::new().pax(&[(name, b"1"), ("size", name.as_bytes())]).file("x", ""),
    ] {
        let refusal = world.refusal(&tar);
        assert!(!refusal.contains(|letter: char| letter.is_control()), "{refusal:?}");
    }
    let refusal = world.refusal(&Tar::new().hard_link("a", name));
    let escaped = r"\u{1b}[2J\u{1b}]0;title\u{7}\r\n::error::owned\u{9b}31m";
    assert!(refusal.contains(escaped), "{refusal}");
}

fn header_of_size(name: &[u8], bytes: u64) -> Vec<u8> {
    let mut header = Tar::new().raw(name, b'0', 0o644, b"", b"").0;
    header[124..136].copy_from_slice(format!("{bytes:011o}\0").as_bytes());
    seal_header(&mut header);
    header
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 1).unwrap()
}
