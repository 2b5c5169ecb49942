//! What an image is to those who use it: one tree of files and the part of the config that containers are started by.
//!
//! Reads OCI layouts and docker's older archives, both as a tar, and lays the layers over each other by the rules of the
//! image-spec ("Applying Changesets"). It shares no code with the builder, so that one mistake is not made on both sides.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Times of files that a build makes are not promised by anybody: from here on, in seconds, a file counts as new.
pub(crate) const EPOCH: u64 = 1_700_000_000;

/// Longer content is told by size and digest.
const SHOWN_BYTES_MAX: usize = 80;

/// The keys of a config that are compared. The rest (creation time, author, history) names the builder, or is for Windows.
const KEYS: [&str; 12] = [
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "Healthcheck",
    "Shell",
    "OnBuild",
];

/// One image.
pub(crate) struct Image {
    pub(crate) tree: Tree,
    config: Value,
}

/// The merged root filesystem.
#[derive(Default)]
pub(crate) struct Tree {
    /// Path without a leading slash to inode; the root is the empty path.
    names: BTreeMap<Vec<u8>, usize>,
    inodes: Vec<Inode>,
}

#[derive(Clone, PartialEq)]
struct Inode {
    kind: char,
    mode: u32,
    owner: (u64, u64),
    seconds: u64,
    /// As written in the header, when there are any.
    fraction: String,
    /// Content, link target or device numbers, ready to be shown.
    detail: String,
    xattrs: BTreeMap<String, Vec<u8>>,
}

impl Image {
    /// Reads every image of an archive.
    pub(crate) fn read_all(archive: &Path) -> Vec<Image> {
        let files = read_files(File::open(archive).unwrap_or_else(|error| panic!("{}: {error}", archive.display())));
        if let Some(index) = files.get("index.json") {
            return oci_manifests(&files, &json(index)).iter().map(|manifest| oci_image(&files, manifest)).collect();
        }
        let list = json(files.get("manifest.json").expect("an archive has index.json or manifest.json"));
        list.as_array().expect("manifest.json is a list").iter().map(|entry| docker_image(&files, entry)).collect()
    }

    /// What differs from the base's tree, and the config. The base's own files are not told, so that answers do not depend
    /// on the version of the tools in it.
    pub(crate) fn show(&self, base: &Tree) -> String {
        let mut text = String::new();
        let (os, architecture) = (self.config["os"].as_str(), self.config["architecture"].as_str());
        let variant = self.config["variant"].as_str().map(|variant| format!("/{variant}")).unwrap_or_default();
        let platform = format!("{}/{}{variant}", os.unwrap_or("-"), architecture.unwrap_or("-"));
        if platform != format!("linux/{}", host_architecture()) {
            writeln!(text, "platform: {platform}").unwrap();
        }
        for key in KEYS {
            let value = &self.config["config"][key];
            let is_empty = match value {
                Value::Null | Value::Bool(false) => true,
                Value::String(text) => text.is_empty(),
                Value::Array(list) => list.is_empty(),
                Value::Object(map) => map.is_empty(),
                _ => false,
            };
            if !is_empty {
                writeln!(text, "{key}: {}", sorted(value)).unwrap();
            }
        }
        self.tree.show_changes(base, &mut text);
        text
    }
}

impl Tree {
    fn apply(&mut self, layer: impl Read) {
        let mut archive = tar::Archive::new(layer);
        let mut added = Vec::new();
        // Whiteouts go first: they hide what lower layers have, never what their own layer adds.
        for entry in archive.entries().expect("a layer is a tar") {
            let mut entry = entry.expect("a layer is a tar");
            let path = clean(&entry.path_bytes());
            let (parent, name) = split(&path);
            if name == b".wh..wh..opq" {
                self.remove_below(parent);
            } else if let Some(hidden) = name.strip_prefix(b".wh.") {
                self.remove(&join(parent, hidden));
            } else {
                added.push((path, Added::read(&mut entry)));
            }
        }
        for (path, entry) in added {
            self.add(path, entry);
        }
    }

    fn add(&mut self, path: Vec<u8>, entry: Added) {
        let (parent, _) = split(&path);
        if !path.is_empty() {
            match self.names.get(parent) {
                Some(inode) => {
                    assert_eq!(self.inodes[*inode].kind, 'd', "{} is below a file", path.escape_ascii());
                }
                // The image-spec demands parents; those who leave them out get what everybody makes of it.
                None => self.add(parent.to_vec(), Added::Inode(Inode::implied())),
            }
        }
        match entry {
            Added::Link(target) => {
                let inode = self.names.get(&target);
                let inode = *inode.unwrap_or_else(|| panic!("hard link to nothing: {}", target.escape_ascii()));
                self.names.insert(path, inode);
            }
            Added::Inode(inode) => {
                if inode.kind != 'd' {
                    self.remove_below(&path);
                }
                self.inodes.push(inode);
                self.names.insert(path, self.inodes.len() - 1);
            }
        }
    }

    fn remove(&mut self, path: &[u8]) {
        self.names.remove(path);
        self.remove_below(path);
    }

    fn remove_below(&mut self, path: &[u8]) {
        let prefix = join(path, b"");
        self.names.retain(|name, _| name == path || !name.starts_with(&prefix));
    }

    /// Each path's first name, by which hard links know each other.
    fn groups(&self) -> BTreeMap<&[u8], &[u8]> {
        let mut first: BTreeMap<usize, &[u8]> = BTreeMap::new();
        let groups = self.names.iter().map(|(path, inode)| (path.as_slice(), *first.entry(*inode).or_insert(path)));
        groups.collect()
    }

    fn show_changes(&self, base: &Tree, text: &mut String) {
        let (groups, old_groups) = (self.groups(), base.groups());
        for (path, inode) in &self.names {
            let group = groups[path.as_slice()];
            let new = &self.inodes[*inode];
            let old = base.names.get(path).map(|inode| &base.inodes[*inode]);
            if old == Some(new) && old_groups.get(path.as_slice()) == Some(&group) {
                continue;
            }
            write!(text, "{}", new.show(path)).unwrap();
            if group != path {
                write!(text, " = /{}", group.escape_ascii()).unwrap();
            }
            text.push('\n');
        }
        let mut gone: Option<&[u8]> = None;
        for path in base.names.keys().filter(|path| !self.names.contains_key(*path)) {
            // Of a directory that is gone, one line is enough.
            if !gone.is_some_and(|gone| path.starts_with(&join(gone, b""))) {
                writeln!(text, "gone /{}", path.escape_ascii()).unwrap();
                gone = Some(path);
            }
        }
    }
}

enum Added {
    Inode(Inode),
    Link(Vec<u8>),
}

impl Added {
    fn read(entry: &mut tar::Entry<'_, impl Read>) -> Self {
        let header = entry.header().clone();
        let mut xattrs = BTreeMap::new();
        let mut fraction = String::new();
        for record in entry.pax_extensions().expect("records can be read").into_iter().flatten() {
            let record = record.expect("records can be read");
            let key = record.key().expect("keys are text");
            if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                xattrs.insert(name.to_owned(), record.value_bytes().to_vec());
            } else if key == "mtime"
                && let Some((_, digits)) = record.value().expect("times are text").split_once('.')
            {
                fraction = digits.trim_end_matches('0').to_owned();
            }
        }
        let link = entry.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default();
        let (kind, detail) = match header.entry_type() {
            tar::EntryType::Link => return Added::Link(clean(&link)),
            tar::EntryType::Directory => ('d', String::new()),
            tar::EntryType::Symlink => ('l', format!("-> {}", link.escape_ascii())),
            tar::EntryType::Fifo => ('p', String::new()),
            kind @ (tar::EntryType::Char | tar::EntryType::Block) => {
                let (major, minor) = (header.device_major().unwrap(), header.device_minor().unwrap());
                let kind = if kind == tar::EntryType::Char { 'c' } else { 'b' };
                (kind, format!("{},{}", major.unwrap_or(0), minor.unwrap_or(0)))
            }
            _ => ('-', show_content(entry)),
        };
        let owner = (entry_id(entry, "uid", header.uid()), entry_id(entry, "gid", header.gid()));
        // The format bits of the oldest tars are no part of the mode; a link has none of its own.
        let mode = if kind == 'l' { 0o777 } else { header.mode().expect("a mode") & 0o7777 };
        // Whoever adds a name to a directory changes its time, BuildKit too when it receives a context.
        let (seconds, fraction) =
            if kind == 'd' { (0, String::new()) } else { (header.mtime().expect("a time"), fraction) };
        Added::Inode(Inode { kind, mode, owner, seconds, fraction, detail, xattrs })
    }
}

impl Inode {
    fn implied() -> Self {
        let (owner, detail, fraction) = ((0, 0), String::new(), String::new());
        Self { kind: 'd', mode: 0o755, owner, seconds: 0, fraction, detail, xattrs: BTreeMap::new() }
    }

    fn show(&self, path: &[u8]) -> String {
        let time = match self.seconds {
            _ if self.kind == 'd' => "-".into(),
            EPOCH.. => "new".into(),
            old if self.fraction.is_empty() => old.to_string(),
            old => format!("{old}.{}", self.fraction),
        };
        let (user, group) = self.owner;
        let mut text = format!("{}{:o} {user}:{group} {time} /{}", self.kind, self.mode, path.escape_ascii());
        if !self.detail.is_empty() {
            write!(text, " {}", self.detail).unwrap();
        }
        for (name, value) in &self.xattrs {
            write!(text, " {{{name}={}}}", value.escape_ascii()).unwrap();
        }
        text
    }
}

fn show_content(entry: &mut tar::Entry<'_, impl Read>) -> String {
    let mut content = Vec::new();
    entry.read_to_end(&mut content).expect("a layer is whole");
    match std::str::from_utf8(&content) {
        Ok(text) if content.len() <= SHOWN_BYTES_MAX => format!("{text:?}"),
        _ => format!("{} bytes sha256:{}", content.len(), &hex(&Sha256::digest(&content))[..16]),
    }
}

fn entry_id(entry: &mut tar::Entry<'_, impl Read>, key: &str, plain: std::io::Result<u64>) -> u64 {
    let records = entry.pax_extensions().expect("records can be read").into_iter().flatten();
    let large = records.flatten().find(|record| record.key() == Ok(key)).map(|record| record.value().map(str::parse));
    match large {
        Some(Ok(Ok(id))) => id,
        _ => plain.expect("an id"),
    }
}

fn oci_manifests(files: &BTreeMap<String, Vec<u8>>, index: &Value) -> Vec<Value> {
    let mut manifests = Vec::new();
    for descriptor in index["manifests"].as_array().expect("an index lists manifests") {
        let value = json(blob(files, descriptor));
        if value["manifests"].is_array() {
            manifests.extend(oci_manifests(files, &value));
        } else {
            manifests.push(value);
        }
    }
    manifests
}

fn oci_image(files: &BTreeMap<String, Vec<u8>>, manifest: &Value) -> Image {
    let mut tree = Tree::default();
    // An image without files may have no list at all.
    for layer in manifest["layers"].as_array().into_iter().flatten() {
        tree.apply(&*unpacked(blob(files, layer)));
    }
    Image { tree, config: json(blob(files, &manifest["config"])) }
}

fn docker_image(files: &BTreeMap<String, Vec<u8>>, entry: &Value) -> Image {
    let mut tree = Tree::default();
    for layer in entry["Layers"].as_array().into_iter().flatten() {
        tree.apply(&*unpacked(&files[layer.as_str().expect("a path")]));
    }
    Image { tree, config: json(&files[entry["Config"].as_str().expect("a path")]) }
}

fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
    let digest = descriptor["digest"].as_str().expect("a descriptor has a digest").replace(':', "/");
    files.get(&format!("blobs/{digest}")).unwrap_or_else(|| panic!("{digest} is missing"))
}

fn unpacked(layer: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match layer {
        [0x1f, 0x8b, ..] => flate2::read::MultiGzDecoder::new(layer).read_to_end(&mut bytes).expect("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            zstd::Decoder::new(layer).and_then(|mut d| d.read_to_end(&mut bytes)).expect("zstd")
        }
        _ => return layer.to_vec(),
    };
    bytes
}

/// Files of an archive; links within it (docker's way to share layers) are followed.
fn read_files(archive: File) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut links = Vec::new();
    for entry in tar::Archive::new(BufReader::new(archive)).entries().expect("an archive is a tar") {
        let mut entry = entry.expect("an archive is a tar");
        let name = String::from_utf8(clean(&entry.path_bytes())).expect("names in archives are text");
        match entry.link_name().expect("link names can be read") {
            Some(target) => {
                let from = Path::new(&name).parent().expect("links are in directories").join(target);
                links.push((
                    name,
                    from.components().fold(String::new(), |path, part| match part.as_os_str().to_str() {
                        Some("..") => path.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned(),
                        Some(part) if path.is_empty() => part.to_owned(),
                        part => format!("{path}/{}", part.expect("names in archives are text")),
                    }),
                ));
            }
            None => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).expect("an archive is whole");
                files.insert(name, bytes);
            }
        }
    }
    for (name, target) in links {
        if let Some(bytes) = files.get(&target).cloned() {
            files.insert(name, bytes);
        }
    }
    files
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

/// The same value with sorted keys.
fn sorted(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let map: BTreeMap<&String, String> = map.iter().map(|(key, value)| (key, sorted(value))).collect();
            let fields: Vec<String> =
                map.iter().map(|(key, value)| format!("{}:{value}", Value::from(key.as_str()))).collect();
            format!("{{{}}}", fields.join(","))
        }
        other => other.to_string(),
    }
}

fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Without `./`, leading and trailing slashes.
fn clean(path: &[u8]) -> Vec<u8> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.collect::<Vec<_>>().join(&b'/')
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
