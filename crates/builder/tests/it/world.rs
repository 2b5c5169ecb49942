//! A store with a base image made of this machine's shell and core tools, and a context.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, UNIX_EPOCH},
};

use builder::{AdmitError, BaseError, BaseSource, Download, DownloadError, Downloaded, Downloads, Host, Shared, build};
use engine::{BuildContext, BuildError, BuildRequest, Built, Cancel, DockerfileSource, NetworkMode};
use events::{Event, EventSink, Record, Subscriber};
use oci::{Digest, ImageConfig, Platform, Reference};
use runtime::Privilege;
use store::{Compression, Image, Store, StoreOptions};

/// The tools that Dockerfiles of the tests use.
const TOOLS: &[&str] = &[
    "sh", "cat", "ls", "mkdir", "rm", "ln", "chmod", "chown", "id", "env", "echo", "true", "false", "sleep", "touch",
    "stat", "readlink", "cp", "mv", "date", "tr", "sort", "seq", "head", "mknod", "mkfifo", "yes", "find",
];

static PRIVILEGE: OnceLock<Privilege> = OnceLock::new();

pub(crate) fn set_privilege(privilege: Privilege) {
    PRIVILEGE.set(privilege).expect("set once");
}

pub(crate) fn privilege() -> &'static Privilege {
    PRIVILEGE.get().expect("set by main")
}

/// Whether files can belong to others than root here.
pub(crate) fn has_owners() -> bool {
    *privilege() != Privilege::SingleId
}

pub(crate) const EPOCH: u64 = 1_700_000_000;

/// A root filesystem with a shell, made once for all tests: tools and the libraries they ask for.
fn base_root() -> &'static Path {
    static ROOT: OnceLock<tempfile::TempDir> = OnceLock::new();
    ROOT.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path();
        for name in ["bin", "etc", "tmp", "root", "usr/bin", "dev", "proc", "sys", "home/app"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        copy_tools(root, TOOLS);
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")
            .unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\napp:x:1001:\nstaff:x:50:app\n").unwrap();
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        symlink("bin", root.join("linked")).unwrap();
        dir
    })
    .path()
}

/// Copies programs of this machine into a root, with the libraries that they ask for.
fn copy_tools(root: &Path, tools: &[&str]) {
    let mut libraries = BTreeSet::new();
    for tool in tools {
        let path = ["/usr/bin", "/bin"].iter().map(|dir| Path::new(dir).join(tool)).find(|path| path.exists());
        let path = fs::canonicalize(path.unwrap_or_else(|| panic!("this machine has no {tool}"))).unwrap();
        fs::copy(&path, root.join("bin").join(tool)).unwrap();
        let output = Command::new("ldd").arg(&path).output().expect("ldd comes with the C library");
        for word in String::from_utf8_lossy(&output.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
            libraries.insert(PathBuf::from(word));
        }
    }
    for library in libraries {
        let target = root.join(library.strip_prefix("/").unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        if !target.exists() {
            fs::copy(&library, target).unwrap();
        }
    }
}

fn link_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            fs::create_dir_all(&target).unwrap();
            fs::set_permissions(&target, fs::metadata(&source).unwrap().permissions()).unwrap();
            link_tree(&source, &target);
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source).unwrap(), &target).unwrap();
        } else {
            fs::hard_link(&source, &target).unwrap();
        }
    }
}

#[derive(Default)]
pub(crate) struct Recorder(Mutex<Vec<Event>>);

impl Subscriber for Recorder {
    fn event(&self, record: &Record) {
        self.0.lock().unwrap().push(record.event.clone());
    }
}

/// Knows no registry.
struct NoRegistry;

impl BaseSource for NoRegistry {
    fn pull(&self, _: &Reference, _: &Platform) -> Result<Image, BaseError> {
        Err(BaseError { is_auth: false, source: "registry cannot be reached".into() })
    }

    fn admit(&self, _: &Reference, _: &Platform, _: &[String]) -> Result<Option<Reference>, AdmitError> {
        Ok(None)
    }
}

/// Knows no web; the engine's own tests have one.
struct NoWeb;

impl Downloads for NoWeb {
    fn get(&self, _: &Download<'_>, _: &mut (dyn std::io::Write + Send)) -> Result<Downloaded, DownloadError> {
        Err(DownloadError::Failed("server cannot be reached".into()))
    }
}

pub(crate) struct World {
    dir: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) scope: store::Scope,
    /// What the builds of this world share with others.
    pub(crate) shared: Shared,
}

/// What a build did.
pub(crate) struct Outcome {
    pub(crate) result: Result<Built, BuildError>,
    pub(crate) events: Vec<Event>,
}

impl Outcome {
    pub(crate) fn built(&self) -> &Built {
        match &self.result {
            Ok(built) => built,
            Err(error) => panic!("the build failed: {}", explain(error)),
        }
    }

    pub(crate) fn failed(&self) -> &BuildError {
        self.result.as_ref().expect_err("the build should fail")
    }

    /// Texts of the steps that were made, in order of their start.
    pub(crate) fn made(&self) -> Vec<String> {
        let started = self.events.iter().filter_map(|event| match event {
            Event::StepStarted { text, .. } => Some(text.clone()),
            _ => None,
        });
        started.collect()
    }

    pub(crate) fn reasons(&self) -> Vec<String> {
        let reasons = self.events.iter().filter_map(|event| match event {
            Event::StepFinished { reason, .. } => reason.clone(),
            _ => None,
        });
        reasons.collect()
    }

    pub(crate) fn logs(&self) -> Vec<String> {
        let lines = self.events.iter().filter_map(|event| match event {
            Event::StepLog { line, .. } => Some(line.clone()),
            _ => None,
        });
        lines.collect()
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        let lines = self.events.iter().filter_map(|event| match event {
            Event::Warning { message, .. } => Some(message.clone()),
            _ => None,
        });
        lines.collect()
    }
}

/// The whole story of an error.
pub(crate) fn explain(error: &BuildError) -> String {
    let mut text = error.to_string();
    match error {
        BuildError::Invalid { diagnostics, source_file, .. } => {
            for diagnostic in diagnostics {
                let at = diagnostic.span.as_ref().map_or("", |span| &source_file.text[span.clone()]);
                write!(text, "\n{diagnostic} at {at:?}").unwrap();
                for line in diagnostic.notes.iter().chain(&diagnostic.help) {
                    write!(text, "\n  {line}").unwrap();
                }
            }
        }
        BuildError::Step(step) => {
            let line = step.place.as_ref().map_or(0, |place| place.line);
            write!(text, " at line {line}\n{}", step.tail.join("\n")).unwrap();
        }
        _ => {
            let mut next = std::error::Error::source(error);
            while let Some(cause) = next {
                write!(text, "\n  cause: {cause}").unwrap();
                next = cause.source();
            }
        }
    }
    text
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let works = runtime::overlay_works(dir.path());
        Self::with(dir, !works)
    }

    /// A world whose store keeps whole copies, as where overlayfs does not work.
    pub(crate) fn with_copies() -> Self {
        Self::with(tempfile::tempdir().unwrap(), true)
    }

    fn with(dir: tempfile::TempDir, copy_snapshots: bool) -> Self {
        let options = StoreOptions {
            copy_snapshots,
            user_xattr: !matches!(privilege(), Privilege::Root { .. }),
            ignore_chown_errors: *privilege() == Privilege::SingleId,
        };
        let store = Store::open(&dir.path().join("store"), options).unwrap();
        let scope = store.open_scope().unwrap();
        let world = Self { dir, store, scope, shared: Shared::default() };
        fs::create_dir(world.context()).unwrap();
        world.add_image("base", base_root(), |_| {});
        world
    }

    /// Puts a directory into the store as an image.
    pub(crate) fn add_image(&self, name: &str, root: &Path, change: impl FnOnce(&mut ImageConfig)) {
        let epoch = UNIX_EPOCH + Duration::from_secs(EPOCH);
        let active = self.store.prepare(&self.scope, None).unwrap();
        link_tree(root, active.upper());
        let snapshot = active.commit().unwrap();
        let mut config = ImageConfig::scratch(&Platform::host());
        config.config.env = vec!["PATH=/usr/bin:/bin".into()];
        config.rootfs.diff_ids = vec![self.store.diff_id(&snapshot, epoch).unwrap().0];
        change(&mut config);
        let image = self.store.put_image(&config, &[snapshot], epoch).unwrap();
        self.store.tag(&name.parse().unwrap(), &image.id).unwrap();
    }

    /// The base with further programs of this machine, as an image.
    pub(crate) fn add_tools(&self, name: &str, tools: &[&str]) {
        let root = self.dir.path().join(name);
        fs::create_dir(&root).unwrap();
        link_tree(base_root(), &root);
        copy_tools(&root, tools);
        self.add_image(name, &root, |_| {});
        fs::remove_dir_all(&root).unwrap();
    }

    pub(crate) fn context(&self) -> PathBuf {
        self.dir.path().join("context")
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file of the context, with an old time so that it is no newer than the epoch. A name that ends with `/` is
    /// a directory, content that begins with `-> ` a link.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.context().join(name);
        if name.ends_with('/') {
            fs::create_dir_all(&path).unwrap();
            return path;
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if let Some(target) = content.strip_prefix("-> ") {
            symlink(target, &path).unwrap();
            return path;
        }
        fs::write(&path, content).unwrap();
        let mode = if name.ends_with(".sh") { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(EPOCH - 1000)).unwrap();
        path
    }

    pub(crate) fn request(&self, dockerfile: &str) -> BuildRequest {
        BuildRequest {
            stage: "build".into(),
            context: BuildContext::Directory(self.context()),
            dockerfile: DockerfileSource { name: "Dockerfile".into(), path: None, text: dockerfile.into() },
            build_contexts: BTreeMap::new(),
            target: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            platform: Platform::host(),
            network: NetworkMode::None,
            extra_hosts: Vec::new(),
            run: engine::RunSettings::default(),
            no_cache: false,
            no_cache_filter: Vec::new(),
            pull: false,
            epoch: Some(UNIX_EPOCH + Duration::from_secs(EPOCH)),
            keep_failed: Duration::ZERO,
            cancel: Cancel::new(),
        }
    }

    pub(crate) fn run(&self, request: &BuildRequest) -> Outcome {
        let recorder = Arc::new(Recorder::default());
        let events = EventSink::new(vec![recorder.clone()]);
        let host = Host {
            store: &self.store,
            scope: &self.scope,
            bases: &NoRegistry,
            downloads: &NoWeb,
            shared: &self.shared,
            privilege: privilege(),
            foreign_runtime: None,
            default_network: &runtime::Network::Host,
        };
        let result = build(request, &host, &events);
        let events = std::mem::take(&mut *recorder.0.lock().unwrap());
        Outcome { result, events }
    }

    pub(crate) fn build(&self, dockerfile: &str) -> Outcome {
        self.run(&self.request(dockerfile))
    }

    /// Number of containers that were ever started: each journals its id first.
    pub(crate) fn containers(&self) -> usize {
        let journal = self.store.root().join("scopes").join(self.scope.id()).join("journal");
        fs::read_to_string(journal).unwrap().lines().count()
    }

    /// Seals the image and gives its manifest digest.
    pub(crate) fn seal(&self, built: &Built) -> Digest {
        self.seal_as(built, Compression::Gzip)
    }

    pub(crate) fn seal_as(&self, built: &Built, compression: Compression) -> Digest {
        let mut config = built.root.config.clone();
        config.rootfs.diff_ids =
            built.layers.iter().map(|layer| self.store.diff_id(layer, built.epoch).unwrap().0).collect();
        let image = self.store.put_image(&config, &built.layers, built.epoch).unwrap();
        self.store.manifest(&image, compression).unwrap().digest
    }

    /// Every header and content of the layers above the base.
    pub(crate) fn tars(&self, built: &Built) -> String {
        let mut text = String::new();
        for layer in &built.layers {
            let sealed = self.store.seal(layer, built.epoch, Compression::None).unwrap();
            let mut archive = tar::Archive::new(self.store.open_blob(&sealed.digest).unwrap().unwrap());
            for entry in archive.entries().unwrap() {
                let mut entry = entry.unwrap();
                let header = entry.header().clone();
                let mut content = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
                let (mode, mtime) = (header.mode().unwrap(), header.mtime().unwrap());
                let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                writeln!(text, "{mode:o} {mtime} {:?} {path} {}", header.entry_type(), content.len()).unwrap();
            }
            writeln!(text).unwrap();
        }
        text
    }

    /// Content of a file in the built image.
    pub(crate) fn read(&self, built: &Built, path: &str) -> String {
        let text = built.layers.iter().rev().find_map(|layer| {
            fs::read_to_string(self.store.snapshot_fs(layer).join(path.trim_start_matches('/'))).ok()
        });
        text.unwrap_or_else(|| panic!("{path} is not in the image"))
    }

    /// Files that layers above the base hold, and what of the config differs from the default.
    pub(crate) fn show(&self, built: &Built) -> String {
        let mut text = String::new();
        let base = self.store.resolve(&"base".parse().unwrap()).unwrap().unwrap();
        for layer in built.layers.iter().filter(|layer| !base.layers.contains(layer)) {
            text.push_str("layer\n");
            list(&self.store.snapshot_fs(layer), Path::new(""), &mut text);
        }
        let config = serde_json::to_value(&built.root.config.config).unwrap();
        for (name, value) in config.as_object().unwrap() {
            let is_default = match name.as_str() {
                "Env" => *value == serde_json::json!(["PATH=/usr/bin:/bin"]),
                "WorkingDir" => *value == "/",
                _ => false,
            };
            if !is_default {
                writeln!(text, "{name}: {value}").unwrap();
            }
        }
        if let Some(author) = &built.root.config.author {
            writeln!(text, "author: {author}").unwrap();
        }
        text
    }

    pub(crate) fn history(&self, built: &Built) -> String {
        let lines = built.root.config.history.iter().map(|entry| {
            let mark = if entry.empty_layer { "  " } else { "L " };
            format!("{mark}{}\n", entry.created_by.as_deref().unwrap_or(""))
        });
        lines.collect()
    }
}

fn list(root: &Path, below: &Path, text: &mut String) {
    let mut names: Vec<_> = fs::read_dir(root.join(below)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for name in names {
        let path = below.join(name);
        let full = root.join(&path);
        let data = fs::symlink_metadata(&full).unwrap();
        let owner = match (data.uid(), data.gid()) {
            (0, 0) => String::new(),
            (uid, gid) => format!(" {uid}:{gid}"),
        };
        let mode = data.mode() & 0o7777;
        let name = path.display();
        if data.is_dir() {
            writeln!(text, "  d{mode:o}{owner} {name}/").unwrap();
            list(root, &path, text);
        } else if data.is_symlink() {
            writeln!(text, "  l{owner} {name} -> {}", fs::read_link(&full).unwrap().display()).unwrap();
        } else if data.is_file() {
            let content = String::from_utf8_lossy(&fs::read(&full).unwrap()).into_owned();
            writeln!(text, "  -{mode:o}{owner} {name} {content:?}").unwrap();
        } else if data.rdev() == 0 && data.mode() & 0o170_000 == 0o020_000 {
            writeln!(text, "  gone {name}").unwrap();
        } else {
            writeln!(text, "  special{mode:o}{owner} {name}").unwrap();
        }
    }
}
