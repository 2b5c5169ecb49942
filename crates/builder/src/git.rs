//! Git repositories, by the `git` program: which commit a reference names, and its files in a directory.
//!
//! A repository is somebody else's: no hooks, no transports but the network's own, no prompts, and, unless the user
//! named it on the command line, none of the user's configuration and credentials.

use std::{
    io::{self, Read},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use engine::{GitSource, redacted};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};

use crate::fetch::{FetchError, even_out};

/// Transports that a repository and its submodules may come by. No `file`: it would read this machine's own.
const PROTOCOLS: &str = "http:https:git:ssh";
/// A transfer of less than a byte a second for this long is dead.
const SILENCE_SECONDS_MAX: &str = "60";
/// No single call of git takes longer than this, even on a slow line with a large repository.
const CALL_WAIT_MAX: Duration = Duration::from_secs(3600);
/// How often a waiting call looks whether the build was stopped.
const STOP_TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// References that match a name are a handful; more output than this is no answer.
const OUTPUT_BYTES_MAX: usize = 4 << 20;
/// The end of what git says is enough to know what it wants.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Variables of Git that are the user's way of reaching a host, rather than a state of some other repository.
const KEPT_VARIABLES: &[&str] =
    &["GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_PROXY_COMMAND"];

/// Whose configuration is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nobody's: a Dockerfile asks, which may come from anybody.
    Anonymous,
    /// The user's, with credential helpers.
    User,
}

/// What a reference turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    /// All its hex digits.
    pub(crate) id: String,
    /// The full name by which the remote knows it; `None` when the commit itself was named.
    pub(crate) reference: Option<String>,
}

type IsStopped<'a> = &'a (dyn Fn() -> bool + Sync);

/// The commit that a source means. A commit that is written out in full asks nobody.
pub(crate) fn resolve(source: &GitSource, access: Access, is_stopped: IsStopped<'_>) -> Result<Commit, FetchError> {
    let commit = match &source.reference {
        Some(id) if is_commit(id) => Commit { id: id.to_ascii_lowercase(), reference: None },
        reference => ask(source, reference.as_deref(), access, is_stopped)?,
    };
    check(source, &commit)?;
    Ok(commit)
}

/// Whether it is the commit that the source promises.
pub(crate) fn check(source: &GitSource, commit: &Commit) -> Result<(), FetchError> {
    match &source.checksum {
        Some(wanted) if !commit.id.starts_with(&wanted.to_ascii_lowercase()) => Err(FetchError::Mismatch {
            what: source.to_string(),
            wanted: format!("commit {wanted}"),
            got: format!("commit {}", commit.id),
        }),
        _ => Ok(()),
    }
}

/// Puts the commit's files into the empty directory `into`; gives the commit's time in seconds.
pub(crate) fn checkout(
    source: &GitSource,
    commit: &Commit,
    into: &Path,
    keeps_git_dir: bool,
    access: Access,
    is_stopped: IsStopped<'_>,
) -> Result<u64, FetchError> {
    let git = Git { directory: Some(into), access, is_stopped, source };
    // No template: it could bring hooks.
    git.run(&["init", "--quiet", "--template="])?;
    git.run(&["remote", "add", "origin", &source.remote])?;
    fetch(&git, commit)?;
    git.run(&["checkout", "--quiet", "--force", "--detach", &commit.id])?;
    if source.submodules != Some(false) && into.join(".gitmodules").symlink_metadata().is_ok_and(|file| file.is_file())
    {
        submodules(&git)?;
    }
    let time = git.run(&["log", "-1", "--format=%ct"])?;
    let seconds = time.trim().parse().unwrap_or(0);
    // As BuildKit: the repository's own data is for whoever takes all of it.
    let keeps_git_dir = keeps_git_dir && source.subdir.is_none();
    if keeps_git_dir {
        git.run(&["remote", "set-url", "origin", &redacted(&source.remote)])?;
        git.run(&["reflog", "expire", "--all", "--expire=now"])?;
    }
    even_out(into, seconds, keeps_git_dir)?;
    Ok(seconds)
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `git ls-remote`: full names win, then branches, then tags (as `git checkout` decides).
fn ask(
    source: &GitSource,
    reference: Option<&str>,
    access: Access,
    is_stopped: IsStopped<'_>,
) -> Result<Commit, FetchError> {
    let git = Git { directory: None, access, is_stopped, source };
    let name = reference.unwrap_or("HEAD");
    let peeled = format!("{name}^{{}}");
    let listing = git.run(&["ls-remote", "--quiet", "--", &source.remote, name, &peeled])?;
    let find = |wanted: &str| {
        let line = listing.lines().filter_map(|line| line.split_once('\t')).find(|(_, name)| *name == wanted);
        line.map(|(id, _)| id.to_owned()).filter(|id| is_commit(id))
    };
    let bare = name.strip_prefix("refs/").unwrap_or(name);
    let candidates = match reference {
        None => vec!["HEAD".to_owned()],
        Some(name) => vec![
            format!("refs/{bare}"),
            format!("refs/heads/{}", name.strip_prefix("refs/heads/").unwrap_or(name)),
            format!("refs/tags/{}", name.strip_prefix("refs/tags/").unwrap_or(name)),
            name.to_owned(),
        ],
    };
    for full in candidates {
        // An annotated tag is an object of its own; what it points to is meant.
        if let Some(id) = find(&format!("{full}^{{}}")).or_else(|| find(&full)) {
            return Ok(Commit { id, reference: Some(full) });
        }
    }
    Err(FetchError::Wrong(match reference {
        Some(name) => format!("repository `{}` has no branch, tag or reference `{name}`", redacted(&source.remote)),
        None => format!("repository `{}` has no commit yet", redacted(&source.remote)),
    }))
}

/// The one commit where the server gives it, otherwise what leads to it.
fn fetch(git: &Git<'_>, commit: &Commit) -> Result<(), FetchError> {
    let attempt = |more: &[&str]| {
        let options = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"];
        git.run(&[&options[..], more].concat())
    };
    let has = || git.run(&["cat-file", "-e", &format!("{}^{{commit}}", commit.id)]).is_ok();
    let first = match attempt(&["--depth=1", "origin", &commit.id]) {
        Ok(_) => return Ok(()),
        // Neither another way of asking nor another try would help.
        Err(error @ (FetchError::Stopped | FetchError::Auth(_))) => return Err(error),
        Err(error) => error,
    };
    // Servers that give no single commits, or know nothing of shallow ones.
    if let Some(reference) = &commit.reference
        && attempt(&["origin", reference]).is_ok()
        && has()
    {
        return Ok(());
    }
    match attempt(&["origin", "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]) {
        Ok(_) if has() => Ok(()),
        Ok(_) => Err(FetchError::Wrong(format!("`{}`: the repository has no commit {}", git.source, commit.id))),
        Err(_) => Err(first),
    }
}

fn submodules(git: &Git<'_>) -> Result<(), FetchError> {
    let update = ["submodule", "update", "--init", "--recursive"];
    match git.run(&[&update[..], &["--depth=1"]].concat()) {
        Err(FetchError::Failed(_)) => git.run(&update)?,
        other => other?,
    };
    Ok(())
}

/// How git is called.
struct Git<'a> {
    /// The working tree; `None` for what needs none.
    directory: Option<&'a Path>,
    access: Access,
    is_stopped: IsStopped<'a>,
    source: &'a GitSource,
}

impl Git<'_> {
    /// Runs it to its end and gives what it printed.
    fn run(&self, arguments: &[&str]) -> Result<String, FetchError> {
        let mut command = self.command();
        command.args(arguments);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let message = "the program `git` is not installed; sources of the form of a repository need it";
                return Err(FetchError::Failed(message.into()));
            }
            Err(error) => return Err(error.into()),
        };
        let output = child.stdout.take().expect("it was asked for");
        let messages = child.stderr.take().expect("it was asked for");
        let output = std::thread::spawn(move || text(output, OUTPUT_BYTES_MAX));
        let messages = std::thread::spawn(move || text(messages, MESSAGE_BYTES_MAX));
        let status = self.wait(&mut child);
        let output = output.join().unwrap_or_default();
        let messages = messages.join().unwrap_or_default();
        if status?.success() { Ok(output) } else { Err(self.failure(&messages)) }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("git");
        for (name, _) in std::env::vars_os() {
            let is_of_git =
                name.to_str().is_some_and(|name| name.starts_with("GIT_") && !KEPT_VARIABLES.contains(&name));
            if is_of_git || name == "SSH_ASKPASS" {
                command.env_remove(name);
            }
        }
        for setting in [
            "core.hooksPath=/dev/null",
            "core.fsmonitor=false",
            "core.autocrlf=false",
            "core.symlinks=true",
            "advice.detachedHead=false",
            "init.defaultBranch=main",
            "gc.auto=0",
            "maintenance.auto=false",
            "submodule.recurse=false",
            "http.lowSpeedLimit=1",
            &format!("http.lowSpeedTime={SILENCE_SECONDS_MAX}"),
        ] {
            command.args(["-c", setting]);
        }
        command.env("GIT_ALLOW_PROTOCOL", PROTOCOLS).env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C");
        if let Some(certificates) =
            std::env::var_os("SSL_CERT_FILE").filter(|_| std::env::var_os("GIT_SSL_CAINFO").is_none())
        {
            command.env("GIT_SSL_CAINFO", certificates);
        }
        if std::env::var_os("GIT_SSH_COMMAND").is_none() && std::env::var_os("GIT_SSH").is_none() {
            command.env("GIT_SSH_COMMAND", ssh_command(std::env::var_os("HOME").map(PathBuf::from), self.access));
        }
        if self.access == Access::Anonymous {
            // Also curl's ~/.netrc is credentials.
            command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("HOME", "/dev/null");
        }
        // Outside of a working tree git would look for one upwards from here.
        command.current_dir(self.directory.unwrap_or(Path::new("/")));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        // What carries the bytes ends with it, for its pipes do.
        runtime::die_with_parent(&mut command);
        command
    }

    fn wait(&self, child: &mut Child) -> Result<ExitStatus, FetchError> {
        let pid = Pid::from_child(child);
        let handle = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from)?;
        let start = Instant::now();
        loop {
            let mut watched = [PollFd::new(&handle, PollFlags::IN)];
            let is_over = match poll(&mut watched, Some(&STOP_TICK)) {
                Ok(count) => count > 0,
                Err(rustix::io::Errno::INTR) => false,
                Err(errno) => return Err(io::Error::from(errno).into()),
            };
            if is_over {
                return Ok(child.wait()?);
            }
            let is_late = start.elapsed() > CALL_WAIT_MAX;
            if is_late || (self.is_stopped)() {
                // Its helpers for the transport are of its group.
                let _ = kill_process_group(pid, Signal::KILL);
                child.wait()?;
                let late = || FetchError::Failed(format!("git took longer than {} s", CALL_WAIT_MAX.as_secs()).into());
                return Err(if is_late { late() } else { FetchError::Stopped });
            }
        }
    }

    /// What git's words mean for the user.
    fn failure(&self, messages: &str) -> FetchError {
        let said = |parts: &[&str]| parts.iter().any(|part| messages.contains(part));
        let remote = &self.source.remote;
        let told = told(&messages.replace(remote, &redacted(remote)));
        let is_auth = said(&[
            "Authentication failed",
            "could not read Username",
            "could not read Password",
            "terminal prompts disabled",
            "Permission denied (publickey",
            "Host key verification failed",
            "The requested URL returned error: 403",
        ]);
        if is_auth {
            return FetchError::Auth(told.into());
        }
        let is_wrong = said(&[
            "repository not found",
            "Repository not found",
            "does not appear to be a git repository",
            "not found: did you run",
            "/info/refs not found",
        ]) || (messages.contains("repository '") && messages.contains("' not found"));
        if is_wrong {
            return FetchError::Wrong(format!("`{}` is no repository: {told}", self.source));
        }
        FetchError::Failed(told.into())
    }
}

/// Never asks. Inside a user namespace everybody is root to ssh, which then looks into root's home: the user's own files
/// are named.
fn ssh_command(home: Option<PathBuf>, access: Access) -> String {
    let mut words =
        vec!["ssh".to_owned(), "-o".into(), "BatchMode=yes".into(), "-o".into(), "ConnectTimeout=30".into()];
    let Some(directory) = home.map(|home| home.join(".ssh")) else { return words.join(" ") };
    let mut add = |option: &str, name: &str| {
        let path = directory.join(name);
        // A path that a shell would read otherwise is left out rather than quoted.
        let text = path.to_str().filter(|text| text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c)));
        if let Some(text) = text.filter(|_| path.is_file()) {
            words.extend(["-o".into(), format!("{option}={text}")]);
        }
    };
    add("UserKnownHostsFile", "known_hosts");
    // A Dockerfile has the agent at most, never the keys themselves.
    if access == Access::User {
        for key in ["id_ed25519", "id_ecdsa", "id_rsa"] {
            add("IdentityFile", key);
        }
    }
    words.join(" ")
}

/// The end of what was said, in one line, without what git puts before it.
fn told(messages: &str) -> String {
    let lines: Vec<&str> = messages.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let important: Vec<&str> =
        lines.iter().filter_map(|line| line.strip_prefix("fatal: ").or_else(|| line.strip_prefix("error: "))).collect();
    let chosen = if important.is_empty() { lines } else { important };
    let text = chosen.join("; ");
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.is_empty() { "git failed without a word".into() } else { text }
}

/// All that is read, or its end if it is long.
fn text(mut from: impl Read, bytes_max: usize) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 8192];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..count]);
        kept.drain(..kept.len().saturating_sub(bytes_max));
    }
    String::from_utf8_lossy(&kept).into_owned()
}
