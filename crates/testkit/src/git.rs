//! Git repositories on a server of this machine.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Time of every commit, in seconds since 1970.
pub const COMMIT_SECONDS: u64 = 1_699_995_000;

/// Repositories in a directory, served by `git daemon` on a port of the kernel's choice until the test program ends.
pub struct GitServer {
    directory: tempfile::TempDir,
    address: SocketAddr,
}

/// A repository of a [`GitServer`], with a working tree.
pub struct Repository {
    path: PathBuf,
}

impl GitServer {
    /// A server without repositories.
    ///
    /// # Panics
    /// Without a temporary directory or a port there are no tests.
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("seatrial-git-").tempdir().expect("a temporary directory");
        let address = serve_repositories(directory.path());
        Self { directory, address }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Address of a repository.
    pub fn url(&self, repository: &str) -> String {
        format!("git://{}/{repository}", self.address)
    }

    /// A new repository on branch `main`.
    ///
    /// # Panics
    /// Without Git.
    pub fn repository(&self, name: &str) -> Repository {
        let path = self.directory.path().join(name);
        fs::create_dir(&path).expect("the name is new");
        let repository = Repository { path };
        repository.git(&["init", "-q", "-b", "main"]);
        repository
    }
}

/// Serves every repository below a directory until the test program ends, at the address that comes back.
///
/// # Panics
/// Without a free port there are no tests.
pub fn serve_repositories(directory: &Path) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let address = listener.local_addr().expect("a bound socket has an address");
    let base = directory.to_owned();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let Ok(output) = connection.try_clone() else { continue };
            let mut daemon = Command::new("git");
            daemon.args(["daemon", "--inetd", "--export-all"]).arg(format!("--base-path={}", base.display()));
            // The tests may look like root to git, and their directories like somebody else's.
            daemon.env("GIT_CONFIG_COUNT", "1");
            daemon.env("GIT_CONFIG_KEY_0", "safe.directory").env("GIT_CONFIG_VALUE_0", "*");
            daemon.stdin(Stdio::from(OwnedFd::from(connection))).stdout(Stdio::from(OwnedFd::from(output)));
            if let Ok(mut child) = daemon.stderr(Stdio::null()).spawn() {
                std::thread::spawn(move || child.wait());
            }
        }
    });
    address
}

impl Repository {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs Git in it, without the user's settings; gives what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn git(&self, arguments: &[&str]) -> String {
        let date = format!("{COMMIT_SECONDS} +0000");
        let output = Command::new("git")
            .args(["-c", "user.name=Ann", "-c", "user.email=ann@localhost", "-c", "protocol.allow=always"])
            .args(arguments)
            .current_dir(&self.path)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_COMMITTER_DATE", &date)
            .env("GIT_AUTHOR_DATE", &date)
            .stdin(Stdio::null())
            .output()
            .expect("git is installed");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Writes files (`-> x` is a link, `.sh` can be executed) and commits everything; gives the commit.
    ///
    /// # Panics
    /// When a file cannot be written.
    pub fn commit(&self, files: &[(&str, &str)]) -> String {
        for (name, content) in files {
            let path = self.path.join(name);
            fs::create_dir_all(path.parent().expect("a file has a directory")).expect("the directory can be made");
            match content.strip_prefix("-> ") {
                Some(target) => std::os::unix::fs::symlink(target, &path).expect("the link can be made"),
                None => fs::write(&path, content).expect("the file can be written"),
            }
            if name.ends_with(".sh") {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("the mode can be set");
            }
        }
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", "x"]);
        self.git(&["rev-parse", "HEAD"])
    }
}
