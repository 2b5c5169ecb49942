//! A store in miniature and the probe to run in it, as root and as an ordinary user.

use serde_json::{Value, json};
use std::{
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// Who runs the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum As {
    Root,
    /// With subordinate ids.
    User,
    /// Without.
    Stranger,
}

/// A directory with a base of busybox, a probe, and room for containers.
pub struct World {
    pub dir: PathBuf,
    pub who: As,
    probe: PathBuf,
    uid: Option<(u32, u32)>,
}

/// An id that has no name and no subordinate ids anywhere.
const STRANGER: u32 = 3_987_654;
/// Debian's busybox-static; the tests make their root file systems of it.
const BUSYBOX: &str = "/usr/bin/busybox";
const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\n";
const GROUP: &str = "root:x:0:\nwww-data:x:33:\nextra:x:44:www-data\n";

impl World {
    /// `None`, with the reason on stderr, where this host cannot play the part.
    pub fn new(who: As) -> Option<World> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let we_are_root = rustix::process::geteuid().is_root();
        let uid = match (who, we_are_root) {
            (As::Root, true) => None,
            (As::Root, false) => return skip("not root"),
            (As::User, false) => None,
            (As::User, true) => match testkit::user_with_subordinate_ids() {
                Some(user) => Some(user),
                None => return skip("no user has an entry in /etc/subuid and /etc/subgid"),
            },
            (As::Stranger, true) => Some((STRANGER, STRANGER)),
            (As::Stranger, false) => return skip("only root can become a user without subordinate ids"),
        };
        if !Path::new(BUSYBOX).exists() {
            return skip("no static busybox in /usr/bin");
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("runtime-test-{}-{number}", std::process::id()));
        let base = dir.join("base");
        for made in ["base/bin", "base/etc", "base/var/www"] {
            std::fs::create_dir_all(dir.join(made)).unwrap();
        }
        std::fs::copy(BUSYBOX, base.join("bin/busybox")).unwrap();
        for applet in APPLETS.split(' ') {
            std::os::unix::fs::symlink("busybox", base.join("bin").join(applet)).unwrap();
        }
        std::fs::write(base.join("etc/passwd"), PASSWD).unwrap();
        std::fs::write(base.join("etc/group"), GROUP).unwrap();
        // A copy, since an ordinary user may not be able to reach the build directory.
        let probe = dir.join("probe");
        std::fs::copy(env!("CARGO_BIN_EXE_runtime-probe"), &probe).unwrap();
        let world = World { dir, who, probe, uid };
        world.give_all();
        Some(world)
    }

    /// All that lies here now belongs to whoever runs the engine.
    pub fn give_all(&self) {
        if let Some((uid, gid)) = self.uid {
            give(&self.dir, uid, gid);
        }
    }

    /// Runs a job on a fresh upper directory; its output, and the run's directory.
    pub fn run(&self, job: Value) -> Run {
        let (job, dir) = self.job(job);
        let output = self.started(&job).wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!error.contains("panicked"), "{text}{error}");
        Run { text, dir }
    }

    /// Starts a job whose output can be read while it runs.
    pub fn spawn(&self, job: Value) -> (Child, PathBuf) {
        let (job, dir) = self.job(job);
        (self.started(&job), dir)
    }

    fn started(&self, job: &Value) -> Child {
        loop {
            match self.command(job).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
                // Another test's thread forked while we were copying the probe, and has not come to its exec yet.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
                result => return result.unwrap(),
            }
        }
    }

    /// Fills in what a job leaves open.
    fn job(&self, job: Value) -> (Value, PathBuf) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.join(format!("run-{number}"));
        for made in ["scratch", "upper", "work"] {
            std::fs::create_dir_all(dir.join(made)).unwrap();
        }
        if let Some((uid, gid)) = self.uid {
            give(&dir, uid, gid);
        }
        let mut whole = json!({
            "id": format!("test-{}-{number}", std::process::id()),
            "dir": dir.join("scratch"),
            "lowers": [self.dir.join("base")],
            "upper": dir.join("upper"),
            "work": dir.join("work"),
        });
        for (key, value) in job.as_object().unwrap() {
            whole[key] = value.clone();
        }
        (whole, dir)
    }

    fn command(&self, job: &Value) -> Command {
        let mut command = Command::new(&self.probe);
        command.arg(job.to_string()).current_dir("/");
        if let Some((uid, gid)) = self.uid {
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !rustix::process::geteuid().is_root() {
            // Files of subordinate ids can be removed by their namespace's root only.
            drop(self.command(&json!({"action": "remove", "dir": self.dir})).status());
        }
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

/// What a job printed, and where it ran.
pub struct Run {
    pub text: String,
    pub dir: PathBuf,
}

impl Run {
    /// Names below the upper directory with owners, as they are on the disk.
    pub fn upper(&self) -> Vec<String> {
        let mut found = Vec::new();
        list(&self.dir.join("upper"), "", &mut found);
        found.sort();
        found
    }

    #[track_caller]
    pub fn says(&self, expected: &str) -> &Run {
        assert!(self.text.contains(expected), "`{expected}` is not in:\n{}", self.text);
        self
    }

    #[track_caller]
    pub fn says_not(&self, unexpected: &str) -> &Run {
        assert!(!self.text.contains(unexpected), "`{unexpected}` is in:\n{}", self.text);
        self
    }
}

/// Runs a test for root and for an ordinary user.
pub fn for_both(test: impl Fn(&World)) {
    for who in [As::Root, As::User] {
        if let Some(world) = World::new(who) {
            eprintln!("as {who:?}");
            test(&world);
        }
    }
}

/// Arguments for a shell in the container.
pub fn sh(script: &str) -> Value {
    json!(["sh", "-c", script])
}

fn skip(reason: &str) -> Option<World> {
    testkit::skip(reason);
    None
}

fn list(dir: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let metadata = entry.path().symlink_metadata().unwrap();
        found.push(format!("{name} {}:{}", metadata.uid(), metadata.gid()));
        if metadata.is_dir() {
            list(&entry.path(), &format!("{name}/"), found);
        }
    }
}

fn give(path: &Path, uid: u32, gid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), uid, gid);
        }
    }
}

const APPLETS: &str = "sh cat ls id echo true false sleep mount ps touch chown chmod mkdir rm mv env pwd stat grep find dd \
    readlink ulimit tty stty kill hostname ip unshare setsid seq wc head tail sort ln wget nc umount mknod dmesg sync \
    usleep yes df awk";
