//! What a failing run notes about its source and image while both are as they were.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime},
};

use engine::Masks;
use oci::ImageConfig;
use pipeline::{Outcome, Plan};
use serde::{Deserialize, Serialize};
use store::{RunDir, SnapshotId};

use super::{PATCH, UNTRACKED, Used};

const FILE: &str = "source.json";
const IMAGES: &str = "images.json";
/// A patch of more is no slip of a developer's, and makes a file that nobody sends.
const PATCH_BYTES_MAX: usize = 20 * 1024 * 1024;
/// Files that Git does not know, together.
const UNTRACKED_BYTES_MAX: u64 = 20 * 1024 * 1024;

/// Where the source is, and how it differs from its commit.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::commands) struct Source {
    /// The commit, in full.
    pub(super) sha: Option<String>,
    pub(super) branch: Option<String>,
    /// Address of the repository that it came from, without credentials.
    pub(super) remote: Option<String>,
    /// Directory of the pipeline file in the repository.
    pub(super) directory: String,
    /// The pipeline file's name; `None` when there is none.
    pub(super) file: Option<String>,
    pub(super) has_patch: bool,
    /// What could not be taken along.
    pub(super) missing: Vec<String>,
}

/// What a run built and used.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Images {
    /// By name; of a run with one image, without.
    pub(super) built: Vec<(Option<String>, Built)>,
    pub(super) used: Vec<Used>,
}

/// Enough to name the image's digests later; sealing is not waited for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Built {
    pub(super) config: ImageConfig,
    pub(super) layers: Vec<SnapshotId>,
    /// Seconds since 1970.
    pub(super) epoch: u64,
    pub(super) bases: Vec<(String, String)>,
}

/// Called when a run has failed. What cannot be noted costs the capsule, not the run.
pub(in crate::commands) fn remember(plan: &Plan, base: &Path, run: &RunDir) {
    write(run, FILE, &Source::of(plan, base, run));
}

/// Called when a run has found out, so that a replay knows its images also when it passes.
pub(in crate::commands) fn remember_images(outcome: &Outcome, run: &RunDir) {
    let mut images = Images::default();
    for part in outcome.parts() {
        if let Some(image) = &part.image {
            images.built.push((part.entry.clone(), Built::of(&image.built)));
        }
        let used = |by: String, name: &str, id: &oci::Digest| Used {
            by,
            name: name.to_owned(),
            id: id.to_string(),
            manifest: None,
        };
        let services = part.services.iter();
        images.used.extend(services.map(|one| used(part.stage(&one.service), &one.reference, &one.image)));
        let gates = part.gates.iter().filter_map(|gate| Some((gate, gate.image.as_ref()?)));
        images.used.extend(gates.map(|(gate, image)| used(gate.gate.clone(), &image.reference, &image.id)));
    }
    write(run, IMAGES, &images);
}

fn write(run: &RunDir, name: &str, value: &impl Serialize) {
    if let Ok(bytes) = serde_json::to_vec(value) {
        let _ = fs_err::write(run.path.join(name), bytes);
    }
}

impl Source {
    /// What the run noted.
    pub(super) fn read(run: &RunDir) -> Option<Self> {
        serde_json::from_slice(&fs_err::read(run.path.join(FILE)).ok()?).ok()
    }

    fn of(plan: &Plan, base: &Path, run: &RunDir) -> Self {
        let mut source = Self { file: plan.file.clone(), branch: plan.source.branch.clone(), ..Self::default() };
        let Some(root) = &plan.source.root else { return source };
        let root = root.canonicalize().unwrap_or_else(|_| root.clone());
        source.directory = base.strip_prefix(&root).unwrap_or(Path::new("")).display().to_string();
        source.sha.clone_from(&plan.source.sha);
        source.remote = git(&root, &["config", "--get", "remote.origin.url"])
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .map(|url| engine::redacted(url.trim()));
        let masks = Masks::new(&pipeline::known_secrets(plan)).map(Arc::new);
        let holds_secret = |bytes: &[u8]| masks.as_ref().is_some_and(|masks| masks.mask(bytes) != bytes);
        if plan.source.is_dirty {
            match git(&root, &["diff", "--binary", "--no-color", "--no-ext-diff", "HEAD", "--"]) {
                Some(patch) if holds_secret(&patch) => {
                    source.missing.push("changes of tracked files: they hold a secret".into());
                }
                Some(patch) if patch.len() <= PATCH_BYTES_MAX => {
                    source.has_patch = fs_err::write(run.path.join(PATCH), patch).is_ok();
                }
                _ => source.missing.push("changes of tracked files: too many".into()),
            }
        }
        source.take_untracked(&root, run, &holds_secret);
        source
    }

    fn take_untracked(&mut self, root: &Path, run: &RunDir, holds_secret: &dyn Fn(&[u8]) -> bool) {
        let listed = git(root, &["ls-files", "-z", "--others", "--exclude-standard"]).unwrap_or_default();
        let mut left = UNTRACKED_BYTES_MAX;
        for name in listed.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let Ok(name) = std::str::from_utf8(name) else { continue };
            let path = root.join(name);
            let size = match fs_err::symlink_metadata(&path) {
                Ok(data) if data.is_file() => data.len(),
                _ => continue,
            };
            if size > left {
                self.missing.push(format!("{name}: too large"));
                continue;
            }
            left -= size;
            if fs_err::read(&path).is_ok_and(|bytes| holds_secret(&bytes)) {
                self.missing.push(format!("{name}: it holds a secret"));
                continue;
            }
            let target: PathBuf = run.path.join(UNTRACKED).join(name);
            let copied =
                target.parent().map_or(Ok(()), fs_err::create_dir_all).and_then(|()| fs_err::copy(&path, &target));
            if copied.is_err() {
                self.missing.push(format!("{name}: cannot be read"));
            }
        }
    }
}

impl Images {
    pub(super) fn read(run: &RunDir) -> Self {
        let bytes = fs_err::read(run.path.join(IMAGES)).ok();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }
}

impl Built {
    fn of(built: &engine::Built) -> Self {
        let epoch = built.epoch.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let bases = built.bases.iter().map(|(name, id)| (name.clone(), id.to_string())).collect();
        Self { config: built.root.config.clone(), layers: built.layers.clone(), epoch, bases }
    }

    pub(super) fn epoch(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.epoch)
    }
}

/// Output of a Git command that went well.
pub(in crate::commands) fn git(directory: &Path, arguments: &[&str]) -> Option<Vec<u8>> {
    let output = Command::new("git").arg("-C").arg(directory).args(arguments).output().ok()?;
    output.status.success().then_some(output.stdout)
}
