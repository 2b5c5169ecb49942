//! The header of an installed package (rpm, `lib/header.c`): counts, an index of tags, and their data. Big-endian.

use super::super::{
    Algorithm, Checksum, Ecosystem, Package, SourcePackage,
    layer::{Installed, Malformed},
    source::number,
};

const NAME: u64 = 1000;
const VERSION: u64 = 1001;
const RELEASE: u64 = 1002;
const EPOCH: u64 = 1003;
const SUMMARY: u64 = 1004;
const VENDOR: u64 = 1011;
const LICENSE: u64 = 1014;
const PACKAGER: u64 = 1015;
const URL: u64 = 1020;
const ARCH: u64 = 1022;
const SOURCE_RPM: u64 = 1044;
const DIR_INDEXES: u64 = 1116;
const BASE_NAMES: u64 = 1117;
const DIR_NAMES: u64 = 1118;
const SIG_MD5: u64 = 261;
const SHA1_HEADER: u64 = 269;
const SHA256_HEADER: u64 = 273;

/// Bytes of the two counts before the index, and of one entry of it.
const INTRO_BYTES: usize = 8;
const ENTRY_BYTES: usize = 16;
/// Files of one package; kernels and fonts have some ten thousand.
const FILES_MAX: usize = 500_000;

/// The package; `None` for a key that only stands in the database to be trusted.
pub(super) fn parse(blob: &[u8]) -> Result<Option<Installed>, Malformed> {
    let header = Header::open(blob)?;
    let name =
        header.text(NAME).filter(|name| !name.is_empty()).ok_or_else(|| Malformed::new("a package has no name"))?;
    if name == "gpg-pubkey" {
        return Ok(None);
    }
    let (version, release) = (header.text(VERSION).unwrap_or_default(), header.text(RELEASE).unwrap_or_default());
    let epoch = header.integers(EPOCH).first().map(|epoch| format!("{epoch}:")).unwrap_or_default();
    let mut checksums = Vec::new();
    if let Some(md5) = header.data(SIG_MD5, 16) {
        checksums.push(Checksum { algorithm: Algorithm::Md5, hex: hex::encode(md5) });
    }
    for (tag, algorithm, digits) in [(SHA1_HEADER, Algorithm::Sha1, 40), (SHA256_HEADER, Algorithm::Sha256, 64)] {
        let is_hash = |hash: &String| hash.len() == digits && hash.bytes().all(|b| b.is_ascii_hexdigit());
        checksums.extend(header.text(tag).filter(is_hash).map(|hash| Checksum { algorithm, hex: hash.to_lowercase() }));
    }
    let said = |tag| header.text(tag).filter(|text| !text.is_empty() && text != "(none)");
    let package = Package {
        ecosystem: Ecosystem::Rpm,
        name,
        version: format!("{epoch}{version}-{release}"),
        architecture: said(ARCH),
        licences: said(LICENSE).into_iter().collect(),
        supplier: said(VENDOR).or_else(|| said(PACKAGER)),
        homepage: said(URL),
        description: said(SUMMARY),
        source: said(SOURCE_RPM).map(|name| SourcePackage { name, version: None }),
        checksums,
        ..Package::default()
    };
    Ok(Some((package, header.files())))
}

struct Header<'a> {
    index: &'a [u8],
    data: &'a [u8],
}

impl<'a> Header<'a> {
    fn open(blob: &'a [u8]) -> Result<Self, Malformed> {
        let cut = || Malformed::new("the header of a package is cut short");
        let (entries, length) = (number(blob, 0, 4, true)? as usize, number(blob, 4, 4, true)? as usize);
        let rest = blob.get(INTRO_BYTES..).ok_or_else(cut)?;
        let (index, rest) = rest.split_at_checked(entries.saturating_mul(ENTRY_BYTES)).ok_or_else(cut)?;
        Ok(Self { index, data: rest.get(..length).ok_or_else(cut)? })
    }

    /// Where a tag's data begins, and how many values it has.
    fn entry(&self, tag: u64) -> Option<(&'a [u8], usize)> {
        let entry = self.index.chunks_exact(ENTRY_BYTES).find(|entry| number(entry, 0, 4, true).ok() == Some(tag))?;
        let (offset, count) = (number(entry, 8, 4, true).ok()?, number(entry, 12, 4, true).ok()?);
        Some((self.data.get(offset as usize..)?, count as usize))
    }

    fn data(&self, tag: u64, length: usize) -> Option<&'a [u8]> {
        let (data, count) = self.entry(tag)?;
        (count == length).then(|| data.get(..length)).flatten()
    }

    /// The first string; of texts in several languages that is English.
    fn text(&self, tag: u64) -> Option<String> {
        self.texts(tag, 1).into_iter().next()
    }

    fn texts(&self, tag: u64, at_most: usize) -> Vec<String> {
        let Some((data, count)) = self.entry(tag) else { return Vec::new() };
        let strings = data.split(|byte| *byte == 0).take(count.min(at_most));
        strings.map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    }

    fn integers(&self, tag: u64) -> Vec<u64> {
        let Some((data, count)) = self.entry(tag) else { return Vec::new() };
        data.chunks_exact(4).take(count.min(FILES_MAX)).filter_map(|four| number(four, 0, 4, true).ok()).collect()
    }

    fn files(&self) -> Vec<String> {
        let directories = self.texts(DIR_NAMES, FILES_MAX);
        let names = self.texts(BASE_NAMES, FILES_MAX);
        let places = self.integers(DIR_INDEXES);
        let join = |(name, place): (&String, &u64)| Some(format!("{}{name}", directories.get(*place as usize)?));
        names.iter().zip(&places).filter_map(join).collect()
    }
}
