//! The commit of a work tree and its time. A commit's time never changes, so who remembers it by the commit's id needs
//! Git only once; the id itself stands in files that are read here.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{OUTPUT_BYTES_MAX, find_root, lossy, refusal, start};

/// HEAD of the work tree that a directory lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    root: PathBuf,
    id: Option<String>,
}

impl Head {
    /// Looks upwards for a work tree; `None` outside of Git. Starts no process.
    pub fn find(directory: &Path) -> Option<Self> {
        let root = find_root(directory)?;
        let git_dir = git_dir(&root)?;
        let head = text(&git_dir.join("HEAD"))?;
        let id = match head.strip_prefix("ref: ") {
            Some(name) => ref_id(&git_dir, name),
            None => id_of(&head),
        };
        Some(Self { root, id })
    }

    /// The commit in full; `None` before the first commit, and where refs are kept in another way than as files.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Asks Git for the time of the commit; `None` before the first one.
    ///
    /// # Errors
    /// Why Git does not tell, in words for the user.
    pub fn time(&self, env: &BTreeMap<String, String>) -> Result<Option<SystemTime>, String> {
        let commit = self.id().unwrap_or("HEAD");
        let args = ["log", "-1", "--no-show-signature", "--no-color", "--format=%ct", commit, "--"];
        let answer = match start(&self.root, env, &args) {
            Ok(running) => running.finish(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err("git is not installed".into()),
            Err(error) => return Err(format!("git cannot be started: {error}")),
        };
        if !answer.success {
            return refusal(&answer.stderr, &self.root).map_or(Ok(None), Err);
        }
        let seconds = lossy(&answer.stdout).trim().parse().ok();
        Ok(seconds.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))))
    }
}

/// `.git`, or the directory that the file `.git` of a further work tree or a submodule names.
pub(super) fn git_dir(root: &Path) -> Option<PathBuf> {
    let git = root.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    Some(root.join(text(&git)?.strip_prefix("gitdir: ")?))
}

/// A loose ref, else a packed one (gitrepository-layout). Work trees share those of the first one.
fn ref_id(git_dir: &Path, name: &str) -> Option<String> {
    if !name.starts_with("refs/") || name.split('/').any(|part| part == "..") {
        return None;
    }
    let shared = text(&git_dir.join("commondir")).map_or_else(|| git_dir.to_owned(), |path| git_dir.join(path));
    let loose = [git_dir, &shared].into_iter().find_map(|directory| id_of(&text(&directory.join(name))?));
    loose.or_else(|| {
        let packed = text(&shared.join("packed-refs"))?;
        packed.lines().find_map(|line| line.split_once(' ').filter(|(_, of)| *of == name).and_then(|(id, _)| id_of(id)))
    })
}

/// A whole object id, of SHA-1 or SHA-256.
fn id_of(text: &str) -> Option<String> {
    let is_id = matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| text.to_owned())
}

pub(super) fn text(path: &Path) -> Option<String> {
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(OUTPUT_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.truncate(text.trim_end().len());
    Some(text)
}
