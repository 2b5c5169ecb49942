//! One small member out of a package's archive.

use std::{
    io::{BufReader, Read},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use fs_err::File;

/// Metadata with a long description has some hundred kilobytes.
const MEMBER_BYTES_MAX: u64 = 16 << 20;
/// What is read of an archive in search of it. No index takes packages that come near.
const UNPACKED_BYTES_MAX: u64 = 8 << 30;

/// The member of a zip whose name is wanted; of several the first.
pub(crate) fn of_zip(path: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(|error| format!("it is no zip: {error}"))?;
    let mut names = archive.file_names().filter_map(Result::ok);
    let name = names.find(|name| is_wanted(name)).map(|name| name.into_owned()).ok_or("it lacks its metadata")?;
    drop(names);
    let member = archive.by_name(&name).map_err(|error| format!("{name} cannot be read: {error}"))?;
    read(member, &name)
}

/// The same of a tar in gzip.
pub(crate) fn of_tar_gz(path: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut archive = tar::Archive::new(MultiGzDecoder::new(BufReader::new(file)).take(UNPACKED_BYTES_MAX));
    let no_tar = |error: std::io::Error| format!("it is no tar in gzip: {error}");
    for entry in archive.entries().map_err(no_tar)? {
        let entry = entry.map_err(no_tar)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if entry.header().entry_type().is_file() && is_wanted(name.strip_prefix("./").unwrap_or(&name)) {
            return read(entry, &name);
        }
    }
    Err("it lacks its metadata".into())
}

fn read(member: impl Read, name: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    member
        .take(MEMBER_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("{name} cannot be read: {error}"))?;
    if bytes.len() as u64 > MEMBER_BYTES_MAX { Err(format!("{name} is larger than 16 MiB")) } else { Ok(bytes) }
}

/// Whether a name is `DIRECTORY/file`, one directory deep.
pub(crate) fn is_below_top(name: &str, file: &str) -> bool {
    name.split_once('/').is_some_and(|(top, rest)| !top.is_empty() && rest == file)
}
