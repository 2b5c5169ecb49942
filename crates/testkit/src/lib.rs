//! The shared test world: a temporary home, store, repository and registry, a tiny image made on the spot, and filters
//! that take times and digests out of what a session shows.
//!
//! Knows the program only by its path: everything goes through the command line, as users do. Start at [`World`].

mod docker_registry;
mod filter;
mod git;
mod harness;
mod image;
mod services;
mod session;
mod terminal;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    os::fd::OwnedFd,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use rustix::event::Timespec;

pub use docker_registry::DockerRegistry;
pub use filter::filtered;
pub use git::{COMMIT_SECONDS, GitServer, Repository, serve_repositories};
pub use harness::{Test, run_tests};
pub use services::{POSTGRES, RABBITMQ, REDIS};
pub use session::{Finished, Running, Session};
pub use terminal::Terminal;

/// Name of the tiny image: a shell and a few tools, on no base.
pub const TINY: &str = "tiny:1";

/// A temporary home with a store, a repository and, when asked for, a registry. Everything goes when it is dropped.
pub struct World {
    directory: tempfile::TempDir,
    program: PathBuf,
    /// Sessions are this user's and group's; `None`: whoever runs the tests.
    user: Option<(u32, u32)>,
    registry: OnceLock<Registry>,
}

struct Registry {
    child: Child,
    address: SocketAddr,
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long a project has to end with the test that left it: longer than docker's grace for a container.
const OWNER_GRACE: Timespec = Timespec { tv_sec: 15, tv_nsec: 0 };

impl Drop for World {
    /// Ends the projects that a test has left up, as failing ones do; tests that look for leaks have looked by now.
    fn drop(&mut self) {
        for owner in self.owners() {
            use rustix::{
                event::{PollFd, PollFlags, poll},
                process::{Signal, pidfd_send_signal},
            };
            let has_ended = || {
                let mut ended = [PollFd::new(&owner, PollFlags::IN)];
                poll(&mut ended, Some(&OWNER_GRACE)).is_ok_and(|count| count > 0)
            };
            for signal in [Signal::TERM, Signal::KILL] {
                // It may have ended by itself, which is as good.
                let _ = pidfd_send_signal(&owner, signal);
                if has_ended() {
                    break;
                }
            }
        }
    }
}

impl World {
    /// An empty repository directory and an empty store. `program` is `env!("CARGO_BIN_EXE_seatrial")`.
    ///
    /// # Panics
    /// Without a temporary directory there are no tests.
    pub fn new(program: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("seatrial-test-").tempdir().expect("a temporary directory");
        let world = Self { directory, program: program.into(), user: None, registry: OnceLock::new() };
        for name in ["home", "repo"] {
            fs::create_dir(world.path(name)).expect("a fresh directory takes directories");
        }
        world
    }

    /// A world of an ordinary user, which root makes for him. He has a copy of the program, since he may not be able to reach
    /// the build directory.
    ///
    /// # Panics
    /// For all but root.
    pub fn of_user(program: &str, (user, group): (u32, u32)) -> Self {
        let mut world = Self::new(program);
        let copy = world.path("seatrial");
        // The same file under another name costs nothing where it is possible.
        fs::hard_link(program, &copy).or_else(|_| fs::copy(program, &copy).map(drop)).expect("programs can be copied");
        for path in [world.path(""), world.path("home"), world.path("repo")] {
            std::os::unix::fs::chown(path, Some(user), Some(group)).expect("root gives files away");
        }
        (world.program, world.user) = (copy, Some((user, group)));
        world
    }

    /// The same, with the tiny image loaded as [`TINY`].
    pub fn with_image(program: &str) -> Self {
        Self::new(program).loaded()
    }

    /// With the tiny image loaded as [`TINY`].
    #[must_use]
    pub fn loaded(self) -> Self {
        let world = self;
        let tar = world.path("tiny.tar");
        image::write_tiny_tar(&tar);
        world.seatrial(["load", "--name", TINY]).arg(&tar).run().exits(0);
        world
    }

    /// A path inside the world.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Directory of the store.
    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// Directory of the repository, where sessions start.
    pub fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    /// Writes a file of the repository.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn file(&self, name: &str, text: &str) -> &Self {
        let path = self.repo().join(name);
        fs::create_dir_all(path.parent().expect("a file has a directory")).expect("the directory can be made");
        fs::write(path, text).expect("the file can be written");
        self
    }

    /// Writes a program of the repository.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn program(&self, name: &str, text: &str) -> &Self {
        self.file(name, text);
        fs::set_permissions(self.repo().join(name), fs::Permissions::from_mode(0o755)).expect("the mode can be set");
        self
    }

    /// Makes the repository a Git repository with one commit on `master` of everything in it, always the same one.
    ///
    /// # Panics
    /// Without Git.
    pub fn commit(&self) -> &Self {
        self.git(&["init", "--quiet", "--initial-branch=master"]);
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "First"]);
        self
    }

    /// Runs Git in the repository, without the user's settings.
    ///
    /// # Panics
    /// When it fails.
    pub fn git(&self, arguments: &[&str]) -> &Self {
        let status = Command::new("git")
            .args(arguments)
            .current_dir(self.repo())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("GIT_AUTHOR_NAME", "Ann")
            .env("GIT_AUTHOR_EMAIL", "ann@localhost")
            .env("GIT_COMMITTER_NAME", "Ann")
            .env("GIT_COMMITTER_EMAIL", "ann@localhost")
            .env("GIT_AUTHOR_DATE", "2026-01-02T03:04:05Z")
            .env("GIT_COMMITTER_DATE", "2026-01-02T03:04:05Z")
            .stdin(Stdio::null())
            .status()
            .expect("git is installed");
        assert!(status.success(), "git {arguments:?}");
        self
    }

    /// A session of the program with these arguments, in the repository.
    pub fn seatrial<I, A>(&self, arguments: I) -> Session
    where
        I: IntoIterator<Item = A>,
        A: AsRef<std::ffi::OsStr>,
    {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(self.repo()).env_clear();
        // Tools are found by PATH; certificates and the like are the machine's business.
        command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
        command
            .env("HOME", self.path("home"))
            .env("SEATRIAL_HOME", self.store())
            .env("NO_COLOR", "1")
            .env("LC_ALL", "C.UTF-8");
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        Session::new(command, self.directory.path().to_owned(), self.registry.get().map(|registry| registry.address))
    }

    /// Processes that keep projects of this store up, whatever became of the test that started them.
    fn owners(&self) -> Vec<OwnedFd> {
        let projects = fs::read_dir(self.store().join("solutions")).into_iter().flatten().flatten();
        let marks = projects.filter_map(|project| fs::read_to_string(project.path().join("owner")).ok());
        marks
            .filter_map(|pid| {
                let pid = rustix::process::Pid::from_raw(pid.trim().parse().ok()?)?;
                let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
                // Its number may be another's by now: who holds the process looks at what it is.
                let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
                let line = String::from_utf8_lossy(&line);
                let is_ours = line.contains("solution-owner") && line.contains(&*self.store().to_string_lossy());
                is_ours.then_some(process)
            })
            .collect()
    }

    /// `HOST:PORT` of an embedded registry, started when first asked for.
    ///
    /// # Panics
    /// When it does not start.
    pub fn registry(&self) -> SocketAddr {
        self.registry.get_or_init(|| self.start_registry()).address
    }

    fn start_registry(&self) -> Registry {
        let mut child = Command::new(&self.program)
            .args(["registry", "--listen", "127.0.0.1:0", "--dir"])
            .arg(self.path("registry"))
            .env_clear()
            .env("HOME", self.path("home"))
            .env("SEATRIAL_HOME", self.store())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the registry starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("it was asked for"))
            .read_line(&mut line)
            .expect("the registry speaks");
        let address = line.trim().rsplit_once("http://").and_then(|(_, address)| address.parse().ok());
        Registry { child, address: address.unwrap_or_else(|| panic!("the registry tells its address, not {line:?}")) }
    }

    /// Tags of a repository in the registry, sorted; empty when it was never pushed to.
    pub fn registry_tags(&self, repository: &str) -> Vec<String> {
        let mut tags: Vec<String> = fs::read_dir(self.path("registry/repositories").join(repository).join("_tags"))
            .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        tags.sort();
        tags
    }

    /// Ids of the scopes that are open, or were left by killed commands.
    pub fn scopes(&self) -> Vec<String> {
        let entries = fs::read_dir(self.store().join("scopes")).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Waits until a condition holds, for a bounded time.
    ///
    /// # Panics
    /// When it does not hold in time.
    pub fn wait_until(&self, what: &str, condition: impl FnMut() -> bool) {
        session::wait_until(what, session::SESSION_MAX, condition, || {});
    }

    /// What a killed command may have left: scopes of the store, mounts below it, processes whose environment or command
    /// line names it. Sorted, as text.
    pub fn remains(&self) -> Vec<String> {
        let store = self.store().to_string_lossy().into_owned();
        let mut found = Vec::new();
        found.extend(self.scopes().iter().map(|scope| format!("scope {scope}")));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        found.extend(mounts.lines().filter(|line| line.contains(&store)).map(|line| format!("mount {line}")));
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            let names_it = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(&store);
            let is_registry = String::from_utf8_lossy(&line).contains("registry\0--listen");
            if (names_it(&line) || names_it(&environment)) && !is_registry {
                found.push(format!(
                    "process {} {}",
                    entry.file_name().to_string_lossy(),
                    String::from_utf8_lossy(&line).replace('\0', " ")
                ));
            }
        }
        found.sort();
        found
    }
}

/// Control groups of containers that belong to these scopes.
pub fn control_groups(scopes: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((directory, depth)) = waiting.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            // Containers' groups are never far below the caller's own.
            if depth < CGROUP_DEPTH_MAX && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let name = entry.file_name().to_string_lossy().into_owned();
                found.extend(scopes.iter().filter(|scope| name.contains(*scope)).map(|_| name.clone()));
                waiting.push((entry.path(), depth + 1));
            }
        }
    }
    found
}

/// How deep control groups are looked for.
const CGROUP_DEPTH_MAX: usize = 8;

/// Whether tests run that need the network and minutes: in CI, or where `SEATRIAL_SLOW_TESTS` is set.
pub fn wants_slow_tests() -> bool {
    let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    is_ci || std::env::var_os("SEATRIAL_SLOW_TESTS").is_some()
}

/// Says why a test, or a part of it, looks at nothing here: on stderr itself, since libtest shows only what failed.
pub fn skip(reason: impl std::fmt::Display) {
    use std::io::Write as _;
    let thread = std::thread::current();
    let test = thread.name().filter(|name| *name != "main").map(|name| format!("{name}: ")).unwrap_or_default();
    // Nobody is left to hear that stderr is gone.
    let _ = writeln!(std::io::stderr(), "skipped: {test}{reason}");
}

/// Whether a program is in one of the directories of PATH, or the skip is said.
pub fn has_tool(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|directory| directory.join(name).is_file());
    if !is_there {
        skip(format_args!("`{name}` is not installed"));
    }
    is_there
}

/// User and group id of an ordinary user who may have containers: one with an entry in `/etc/subuid` and `/etc/subgid`.
#[must_use]
pub fn user_with_subordinate_ids() -> Option<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let granted = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| line.split(':').next() == Some(name))
    };
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, ..] = fields[..] else { return None };
        let uid: u32 = uid.parse().ok().filter(|uid| *uid != 0)?;
        (granted("/etc/subuid", name) && granted("/etc/subgid", name)).then_some((uid, gid.parse().ok()?))
    })
}

/// Whether this is root: some tests speak of what only root, or only others, can see.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
