//! A store in a temporary directory, and tar archives byte by byte.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
    time::{Duration, SystemTime},
};

use oci::{Descriptor, DiffId, Digest, media_type};
use store::{ApplyError, Compression, Scope, SnapshotId, Store, StoreOptions};

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) fn options() -> StoreOptions {
    StoreOptions { copy_snapshots: false, user_xattr: !is_root(), ignore_chown_errors: !is_root() }
}

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) scope: Scope,
    pub(crate) home: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(options())
    }

    pub(crate) fn copying() -> Self {
        Self::with(StoreOptions { copy_snapshots: true, ..options() })
    }

    pub(crate) fn with(options: StoreOptions) -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), options).unwrap();
        let scope = store.open_scope().unwrap();
        Self { store, scope, home }
    }

    /// Stores a tar and unpacks it.
    pub(crate) fn apply(&self, parent: Option<&SnapshotId>, tar: &Tar) -> Result<SnapshotId, ApplyError> {
        let bytes = tar.clone().end();
        self.apply_bytes(parent, &bytes, &bytes)
    }

    pub(crate) fn apply_bytes(
        &self,
        parent: Option<&SnapshotId>,
        blob: &[u8],
        plain: &[u8],
    ) -> Result<SnapshotId, ApplyError> {
        self.store.put_blob(blob).unwrap();
        let chain = parent.map(|parent| self.store.snapshot(parent).unwrap().unwrap().chain_id.unwrap());
        let layer = Descriptor::of(media_type::LAYER, blob);
        self.store.apply_layer(&self.scope, parent, chain.as_ref(), &layer, &DiffId(Digest::of(plain)))
    }

    /// What the chain of causes says when this tar is unpacked.
    pub(crate) fn refusal(&self, tar: &Tar) -> String {
        message(&self.apply(None, tar).expect_err("a hostile archive"))
    }

    /// A committed snapshot with what `fill` puts into it.
    pub(crate) fn snapshot(&self, parent: Option<&SnapshotId>, fill: impl FnOnce(&Path)) -> SnapshotId {
        let active = self.store.prepare(&self.scope, parent).unwrap();
        fill(active.upper());
        active.commit().unwrap()
    }

    /// Seals without compression and gives the tar.
    pub(crate) fn tar(&self, snapshot: &SnapshotId) -> Vec<u8> {
        let layer = self.store.seal(snapshot, epoch(), Compression::None).unwrap();
        self.store.read_blob(&layer.digest, u64::MAX).unwrap().unwrap()
    }
}

pub(crate) fn epoch() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

pub(crate) fn message(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = text + ": " + &error.to_string();
        next = error.source();
    }
    text
}

/// A tar in the making.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A raw entry: nothing is checked.
    pub(crate) fn raw(mut self, name: &[u8], type_flag: u8, mode: u32, link: &[u8], data: &[u8]) -> Self {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name);
        let mut put = |at: usize, text: String| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(100, format!("{mode:07o}\0"));
        put(108, format!("{:07o}\0", rustix::process::geteuid().as_raw()));
        put(116, format!("{:07o}\0", rustix::process::getegid().as_raw()));
        put(124, format!("{:011o}\0", data.len()));
        put(136, format!("{:011o}\0", 1_600_000_000));
        put(257, "ustar\x0000".into());
        if matches!(type_flag, b'3' | b'4') {
            put(329, "0000001\0".into());
            put(337, "0000003\0".into());
        }
        header[156] = type_flag;
        header[157..157 + link.len()].copy_from_slice(link);
        seal_header(&mut header);
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, data: &str) -> Self {
        self.raw(name.as_bytes(), b'0', 0o644, b"", data.as_bytes())
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.raw(name.as_bytes(), b'5', 0o755, b"", b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(name.as_bytes(), b'2', 0o777, target.as_bytes(), b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.raw(name.as_bytes(), b'1', 0o644, target.as_bytes(), b"")
    }

    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (1..).find(|length| rest + length.to_string().len() == *length).unwrap();
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.raw(b"pax", b'x', 0o644, b"", &data)
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

pub(crate) fn seal_header(header: &mut [u8]) {
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A tree as text: path to kind, mode, owner, time, links and content.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, directory: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let stat = fs::symlink_metadata(&path).unwrap();
            let kind = stat.file_type();
            let content = if kind.is_file() {
                String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()
            } else if kind.is_symlink() {
                String::from_utf8_lossy(fs::read_link(&path).unwrap().as_os_str().as_bytes()).into_owned()
            } else {
                format!("{:?} {}", kind.is_dir(), stat.rdev())
            };
            let links = if kind.is_file() { stat.nlink() } else { 0 };
            let (mode, uid, gid, mtime) = (stat.mode(), stat.uid(), stat.gid(), stat.mtime());
            let text = format!("{mode:o} {uid}:{gid} @{mtime} x{links} {content}");
            let name = String::from_utf8_lossy(path.strip_prefix(root).unwrap().as_os_str().as_bytes()).into_owned();
            found.insert(name, text);
            if kind.is_dir() {
                walk(root, &path, found);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

pub(crate) fn names(root: &Path) -> Vec<String> {
    tree(root).into_keys().collect()
}
