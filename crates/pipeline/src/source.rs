//! What Git and the CI system say about the source.
//!
//! The git program is asked, because it knows worktrees, submodules and every format of a repository. Hooks, file system
//! monitors and optional locks are switched off: reading a stranger's branch must run nothing and write nothing.

mod changed;
mod ci;
mod head;
mod origin;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::Read,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

pub use changed::changed_paths;
pub use ci::run_url;
pub use head::Head;
use origin::web_url;

/// Where the source comes from. Everything is optional: a directory without Git is fine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Top of the Git work tree.
    pub root: Option<PathBuf>,
    /// The commit, in full.
    pub sha: Option<String>,
    /// Git's own abbreviation of it, seven digits or more.
    pub short: Option<String>,
    /// The branch; with a detached HEAD what the CI system says.
    pub branch: Option<String>,
    /// The Git tag at the commit; of several the highest version.
    pub tag: Option<String>,
    /// The branch that the repository begins with, where Git or the CI system tells.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub default_branch: Option<String>,
    /// Number of the change request.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request: Option<String>,
    /// The branch that the change request is for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request_base: Option<String>,
    /// Where the repository is on the web, or where Git fetches it from, without credentials.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub url: Option<String>,
    /// All Git tags at the commit.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub tags: Vec<String>,
    /// `git describe --tags`, with `-dirty` where tracked files differ.
    pub describe: Option<String>,
    /// Tracked files differ from the commit.
    pub is_dirty: bool,
    /// Time of the commit.
    #[serde(skip)]
    pub commit_time: Option<SystemTime>,
    /// What happened to the repository.
    pub event: SourceEvent,
    /// A change request whose source is another repository, or not known to be this one: it gets no secrets.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub is_fork: bool,
    /// Files that the commit changed, relative to the root; `None` until [`changed_paths`] was asked.
    #[serde(skip)]
    pub changed: Option<Vec<String>>,
    /// Things that the user should know, such as Git refusing the directory.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub warnings: Vec<String>,
}

/// Why the pipeline runs, in Woodpecker's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceEvent {
    /// A branch; also every run by hand of a commit without a tag.
    #[default]
    Push,
    /// A Git tag.
    Tag,
    /// A change request: never published.
    PullRequest,
    /// A run by the clock, of a branch.
    Schedule,
}

impl SourceEvent {
    /// As the pipeline file writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            SourceEvent::Push => "push",
            SourceEvent::Tag => "tag",
            SourceEvent::PullRequest => "pull_request",
            SourceEvent::Schedule => "schedule",
        }
    }
}

/// Git's answers are small; a repository with a million changed files is cut here.
const OUTPUT_BYTES_MAX: u64 = 16 << 20;

/// Asks Git (two processes side by side) and the CI system's variables. Never fails: what cannot be known is `None`, with
/// a warning where that is a surprise.
pub fn read_source(directory: &Path, env: &BTreeMap<String, String>) -> Source {
    let mut source = Source { root: find_root(directory), ..Source::default() };
    if let Some(root) = source.root.clone() {
        ask_git(&root, env, &mut source);
        (source.url, source.default_branch) = origin::read(&root);
    }
    ci::complete(env, &mut source);
    source
}

/// The nearest directory upwards that has `.git` (a directory, or a file in worktrees and submodules).
fn find_root(directory: &Path) -> Option<PathBuf> {
    let directory = fs_err::canonicalize(directory).ok()?;
    directory.ancestors().find(|ancestor| ancestor.join(".git").symlink_metadata().is_ok()).map(Path::to_path_buf)
}

fn ask_git(root: &Path, env: &BTreeMap<String, String>, source: &mut Source) {
    // Fields are separated by NUL, the only byte that none of them can have.
    let format = "--format=%H%x00%h%x00%ct%x00%D%x00%(describe:tags=true,abbrev=7)";
    let log =
        start(root, env, &["log", "-1", "--no-show-signature", "--decorate=full", "--no-color", format, "HEAD", "--"]);
    let status = start(
        root,
        env,
        &["status", "--porcelain=v2", "-z", "--untracked-files=no", "--ignore-submodules=dirty", "--no-renames"],
    );
    let (log, status) = match (log, status) {
        (Ok(log), Ok(status)) => (log.finish(), status.finish()),
        (Err(error), other) | (other, Err(error)) => {
            if let Ok(running) = other {
                running.finish();
            }
            source.branch = branch_of_head_file(root);
            source.warnings.push(match error.kind() {
                std::io::ErrorKind::NotFound => {
                    "git is not installed, so commit and tag are unknown (install git to have them)".into()
                }
                _ => format!("git cannot be started: {error}"),
            });
            return;
        }
    };
    if log.success {
        read_log(&log.stdout, source);
    } else {
        source.branch = branch_of_head_file(root);
        if let Some(warning) = refusal(&log.stderr, root) {
            source.warnings.push(warning);
        }
    }
    source.is_dirty = status.success && !status.stdout.is_empty();
    if source.is_dirty
        && let Some(describe) = &mut source.describe
    {
        describe.push_str("-dirty");
    }
}

fn read_log(stdout: &[u8], source: &mut Source) {
    let fields: Vec<String> = stdout.split(|byte| *byte == 0).map(|field| lossy(field).trim_end().to_owned()).collect();
    let field = |index: usize| fields.get(index).filter(|text| !text.is_empty()).cloned();
    source.sha = field(0);
    source.short = field(1);
    source.commit_time = field(2)
        .and_then(|seconds| seconds.parse().ok())
        .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    // Names of refs have no blanks and no commas followed by one (git-check-ref-format).
    let mut tags = Vec::new();
    for name in field(3).unwrap_or_default().split(", ") {
        if let Some(branch) = name.strip_prefix("HEAD -> refs/heads/") {
            source.branch = Some(branch.to_owned());
        } else if let Some(tag) = name.strip_prefix("tag: refs/tags/") {
            tags.push(tag.to_owned());
        }
    }
    source.tags.clone_from(&tags);
    source.tag = highest(tags);
    // Git before 2.32 gives the placeholder back.
    source.describe = field(4).filter(|text| !text.starts_with("%(")).or_else(|| source.short.clone());
    if source.tag.is_some() {
        source.event = SourceEvent::Tag;
    }
}

/// Paths below a directory that Git ignores, directories as a whole; none where there is no Git.
pub(crate) fn ignored(directory: &Path, env: &BTreeMap<String, String>) -> Vec<String> {
    let args = ["ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory"];
    let Ok(listing) = start(directory, env, &args) else { return Vec::new() };
    let answer = listing.finish();
    answer.stdout.split(|byte| *byte == 0).filter(|path| answer.success && !path.is_empty()).map(lossy).collect()
}

/// `git describe` by the tags that a glob matches, also where it is at one: `v1.2.3-0-gabc1234` is written as its tag. `None` where
/// there is no such tag.
pub(crate) fn describe(root: &Path, env: &BTreeMap<String, String>, pattern: &str) -> Option<String> {
    let pattern = format!("--match={pattern}");
    let answer = start(root, env, &["describe", "--tags", "--abbrev=7", &pattern, "HEAD"]).ok()?.finish();
    answer.success.then(|| lossy(&answer.stdout).trim().to_owned())
}

/// The highest version, else the name that sorts last.
pub(crate) fn highest(mut tags: Vec<String>) -> Option<String> {
    tags.sort_by_cached_key(|tag| (crate::version::semantic(tag), tag.clone()));
    tags.pop()
}

/// A repository without a commit, or one that Git refuses, still has its branch's name in `.git/HEAD`.
fn branch_of_head_file(root: &Path) -> Option<String> {
    let mut text = String::new();
    fs_err::File::open(root.join(".git/HEAD")).ok()?.take(4096).read_to_string(&mut text).ok()?;
    text.trim_end().strip_prefix("ref: refs/heads/").map(str::to_owned)
}

/// What Git's refusal means for the user; `None` for the harmless case of no commit yet.
fn refusal(stderr: &[u8], root: &Path) -> Option<String> {
    let text = lossy(stderr);
    if text.contains("dubious ownership") {
        return Some(format!(
            "git refuses this repository because it belongs to another user, so commit and branch are unknown \
             (allow it with `git config --global --add safe.directory {}`)",
            root.display()
        ));
    }
    if text.contains("does not have any commits yet") || text.contains("bad revision 'HEAD'") {
        return None;
    }
    let first: String = text.lines().next().unwrap_or("no reason given").chars().take(300).collect();
    Some(format!("git cannot read this repository: {first}"))
}

struct Running(Child);

struct Answer {
    success: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

fn start(root: &Path, env: &BTreeMap<String, String>, args: &[&str]) -> std::io::Result<Running> {
    let mut command = Command::new("git");
    command
        .args(["--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"])
        .args(["-c", "core.abbrev=7", "-c", "core.untrackedCache=false", "-c", "log.showSignature=false", "-C"])
        .arg(root)
        .args(args)
        .env_clear()
        .envs(git_environment(env))
        // In a partial clone a missing object would be fetched, by whatever program the configuration names.
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_ALLOW_PROTOCOL", "none")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().map(Running)
}

/// The environment for Git. A hook of Git's own may have started us: its variables would name another index or work tree.
pub(crate) fn git_environment(env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let is_kept = |name: &str| !name.starts_with("GIT_") || is_git_config(name) || is_git_transport(name);
    let kept = env.iter().filter(|(name, _)| is_kept(name)).map(|(name, value)| (name.clone(), value.clone()));
    let fixed =
        [("LC_ALL", "C"), ("GIT_TERMINAL_PROMPT", "0")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    kept.chain(fixed).collect()
}

/// How a server is reached and who asks there.
fn is_git_transport(name: &str) -> bool {
    matches!(name, "GIT_SSH" | "GIT_SSH_COMMAND" | "GIT_SSH_VARIANT" | "GIT_ASKPASS" | "GIT_SSL_CAINFO")
}

/// Configuration by environment, such as a `safe.directory` that a CI system sets.
fn is_git_config(name: &str) -> bool {
    name.starts_with("GIT_CONFIG")
        || matches!(name, "GIT_CEILING_DIRECTORIES" | "GIT_DISCOVERY_ACROSS_FILESYSTEM" | "GIT_EXEC_PATH")
}

impl Running {
    fn finish(mut self) -> Answer {
        let read = |stream: &mut dyn Read| {
            let mut bytes = Vec::new();
            let complete = stream.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes).is_ok();
            (bytes, complete)
        };
        let (stdout, complete) = self.0.stdout.take().map(|mut stream| read(&mut stream)).unwrap_or_default();
        // Git writes a line or two here; the pipe holds them while stdout is read.
        let (stderr, _) = self.0.stderr.take().map(|mut stream| read(&mut stream)).unwrap_or_default();
        let success = self.0.wait().is_ok_and(|status| status.success());
        Answer { success: success && complete, stdout, stderr }
    }
}

fn lossy(bytes: &[u8]) -> String {
    OsString::from_vec(bytes.to_vec()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
