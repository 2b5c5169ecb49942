//! Secrets in output: each becomes `***` before anything else sees the bytes.
//!
//! Masked are the secret as it is, its lines, and its base64 forms, also when a program writes them in pieces. A value that
//! is encoded in any other way (hex, URL, reversed) is not recognised.

use std::{collections::BTreeSet, sync::Arc};

use crate::Secret;
use aho_corasick::{AhoCorasick, MatchKind};
use base64::{
    Engine as _, alphabet,
    engine::general_purpose::{GeneralPurpose, NO_PAD},
};

const MASK: &[u8] = b"***";
/// A whole secret that is shorter would be found in nearly every line.
const VALUE_BYTES_MIN: usize = 3;
/// Lines of a secret that are shorter are brackets and the like.
const LINE_BYTES_MIN: usize = 6;
/// Encoded text that is shorter occurs by chance.
const ENCODED_BYTES_MIN: usize = 6;
/// base64(1) breaks its lines here, so longer encodings are looked for in such pieces.
const ENCODED_LINE_BYTES: usize = 76;
/// Whole values longer than this are found by their lines, which keeps what has to be held back small.
const VALUE_BYTES_MAX: usize = 16 * 1024;

const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, NO_PAD);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, NO_PAD);

/// The forms of all secrets of a build or run. `Debug` tells how many, not which.
pub struct Masks {
    finder: AhoCorasick,
    forms: Vec<Vec<u8>>,
    longest: usize,
}

impl Masks {
    /// Works out what to look for. `None` when there is nothing to hide.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Option<Self> {
        let mut forms = BTreeSet::new();
        for secret in secrets {
            add_forms(secret.expose(), &mut forms);
        }
        let longest = forms.iter().map(Vec::len).max()?;
        let forms: Vec<Vec<u8>> = forms.into_iter().collect();
        let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&forms).ok()?;
        Some(Self { finder, forms, longest })
    }

    /// All of a text at once.
    pub fn mask(self: &Arc<Self>, text: &[u8]) -> Vec<u8> {
        let mut masker = Masker::new(Arc::clone(self));
        let mut out = masker.push(text);
        out.extend(masker.finish());
        out
    }

    /// Where the longest end of `text` begins that may become a form with what follows; its length if there is none.
    fn undecided(&self, text: &[u8]) -> usize {
        let first = text.len().saturating_sub(self.longest - 1);
        let may_begin = |at: &usize| self.forms.iter().any(|form| form.starts_with(&text[*at..]));
        (first..text.len()).find(may_begin).unwrap_or(text.len())
    }
}

fn add_forms(content: &[u8], forms: &mut BTreeSet<Vec<u8>>) {
    let trimmed = content.trim_ascii();
    // Without its last line end, which the output needs for its own lines.
    if (VALUE_BYTES_MIN..=VALUE_BYTES_MAX).contains(&trimmed.len()) {
        forms.insert(trimmed.to_vec());
    }
    for value in [content, trimmed] {
        for engine in [&STANDARD, &URL_SAFE] {
            add_encoded(engine, value, forms);
        }
    }
    let lines = trimmed.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    forms.extend(lines.filter(|line| line.len() >= LINE_BYTES_MIN).map(<[u8]>::to_vec));
}

/// Encoded alone, and as it looks behind and before other bytes (`user:secret`). Characters that also hold bits of the
/// neighbours are left out.
fn add_encoded(engine: &GeneralPurpose, value: &[u8], forms: &mut BTreeSet<Vec<u8>>) {
    let mut add = |text: &[u8]| {
        let whole = [text].into_iter().filter(|_| value.len() <= VALUE_BYTES_MAX);
        for piece in text.chunks(ENCODED_LINE_BYTES).chain(whole).filter(|piece| piece.len() >= ENCODED_BYTES_MIN) {
            forms.insert(piece.to_vec());
        }
    };
    add(engine.encode(value).as_bytes());
    for before in 0..3 {
        let mut padded = vec![0; before];
        padded.extend(value);
        let encoded = engine.encode(&padded);
        let first = (before * 8).div_ceil(6);
        let end = padded.len() * 8 / 6;
        add(encoded.as_bytes().get(first..end).unwrap_or_default());
    }
}

impl std::fmt::Debug for Masks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Masks({} forms)", self.forms.len())
    }
}

/// Masks one stream of bytes, which comes in pieces.
#[derive(Debug)]
pub struct Masker {
    masks: Arc<Masks>,
    held: Vec<u8>,
}

impl Masker {
    /// For a stream that begins.
    pub fn new(masks: Arc<Masks>) -> Self {
        Self { masks, held: Vec::new() }
    }

    /// Takes more bytes; gives what is decided.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend(bytes);
        let mut out = Vec::with_capacity(self.held.len());
        let mut from = 0;
        let mut undecided = self.masks.undecided(&self.held);
        loop {
            let found = self.masks.finder.find(&self.held[from..]);
            // A form that begins where a longer one may still come is not decided.
            let Some(found) = found.filter(|found| from + found.start() < undecided) else { break };
            out.extend(&self.held[from..from + found.start()]);
            out.extend(MASK);
            from += found.end();
            if from > undecided {
                undecided = from + self.masks.undecided(&self.held[from..]);
            }
        }
        out.extend(&self.held[from..undecided]);
        self.held.drain(..undecided);
        out
    }

    /// The rest, when nothing more comes.
    pub fn finish(&mut self) -> Vec<u8> {
        let rest = std::mem::take(&mut self.held);
        let mut out = Vec::with_capacity(rest.len());
        let mut from = 0;
        for found in self.masks.finder.find_iter(&rest) {
            out.extend(&rest[from..found.start()]);
            out.extend(MASK);
            from = found.end();
        }
        out.extend(&rest[from..]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(secrets: &[&str], pieces: &[&str]) -> String {
        let secrets: Vec<Secret> = secrets.iter().map(|text| Secret::new(text.as_bytes().to_vec())).collect();
        let masks = Arc::new(Masks::new(&secrets).expect("there is something to hide"));
        let mut masker = Masker::new(masks);
        let mut out: Vec<u8> = pieces.iter().flat_map(|piece| masker.push(piece.as_bytes())).collect();
        out.extend(masker.finish());
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn secrets_are_masked_however_they_are_cut() {
        let text = "a hunter2hunter2 b hunt er hunter2";
        for at in 0..text.len() {
            let (one, two) = text.split_at(at);
            assert_eq!(masked(&["hunter2\n"], &[one, two]), "a ****** b hunt er ***", "cut at {at}");
        }
        let bytes: Vec<String> = text.chars().map(String::from).collect();
        let pieces: Vec<&str> = bytes.iter().map(String::as_str).collect();
        assert_eq!(masked(&["hunter2"], &pieces), "a ****** b hunt er ***");
    }

    #[test]
    fn the_longest_secret_wins_and_lines_are_masked_alone() {
        assert_eq!(masked(&["abcdef", "abc"], &["xab", "cdef abc abcd"]), "x*** *** ***d");
        let key = "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA\nend\n";
        assert_eq!(masked(&[key], &[key]), "***\n");
        assert_eq!(masked(&[key], &["second: MIIEpAIBAAKCAQEA\nend\n"]), "second: ***\nend\n");
    }

    #[test]
    fn base64_is_masked_alone_and_behind_other_text() {
        let long = "0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz";
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        for secret in ["hunter2", "correct horse", long] {
            for before in ["", "u", "u:", "user:"] {
                for after in ["", "\n", "@host"] {
                    let encoded = encode(&format!("{before}{secret}{after}"));
                    let shown = masked(&[secret], &[&encoded]);
                    assert!(shown.contains("***"), "{secret} {before} {after}: {shown}");
                    // What is left are the neighbours and a character at each end that holds bits of them.
                    let rest = shown.replace("***", "").replace('=', "");
                    let neighbours = (before.len() * 8).div_ceil(6) + (after.len() * 8).div_ceil(6);
                    assert!(rest.len() <= neighbours + 2, "{secret} {before} {after}: {shown}");
                }
            }
        }
        // As base64(1) wraps it.
        let encoded = encode(long);
        let (one, two) = encoded.split_at(ENCODED_LINE_BYTES);
        assert_eq!(masked(&[long], &[&format!("{one}\n{two}")]), "***\n***");
    }

    #[test]
    fn nothing_to_hide_is_no_mask() {
        for nothing in ["", "\n", "  ", "x"] {
            assert!(Masks::new([&Secret::new(nothing.into())]).is_none(), "{nothing:?}");
        }
    }
}
