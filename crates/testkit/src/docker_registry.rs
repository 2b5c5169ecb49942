//! Debian's docker-registry: what many registries are, and older than referrers, conditions and several tags at once.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A server on a port of this machine with a directory of its own. It ends when it is dropped.
pub struct DockerRegistry {
    address: SocketAddr,
    child: Child,
    directory: tempfile::TempDir,
}

impl DockerRegistry {
    /// Starts one that also deletes. `None`, with the reason said, where it is not installed.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Option<Self> {
        let is_there = std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join("docker-registry").is_file()));
        if !is_there {
            crate::skip("`docker-registry` is not installed");
            return None;
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = free.local_addr().expect("bound");
        drop(free);
        let (config, data) = (directory.path().join("config.yml"), directory.path().join("data"));
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n\
             http: {{addr: \"{address}\"}}\n",
            data.display()
        );
        fs::write(&config, text).expect("written");
        let mut command = Command::new("docker-registry");
        let child = command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let registry = Self { address, child: child.expect("it starts"), directory };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The file with the content of this digest (`sha256:…`).
    pub fn content(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let blobs = self.directory.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
