//! What went into a build from elsewhere.

use oci::{Digest, Platform, Reference};

/// Something from elsewhere that went into a build, named by what cannot change: SLSA's "resolved dependency".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Material {
    /// An image that was built on, or that files were taken from.
    Image {
        /// As the Dockerfile calls it.
        name: String,
        /// Where it is from; `None` for an image of a directory, or of the same run.
        reference: Option<Reference>,
        /// Digest of its config.
        id: Digest,
        /// Digest of its manifest. `None` where there never was one: an image that was built or loaded here.
        manifest: Option<Digest>,
        /// What it is for.
        platform: Platform,
    },
    /// A file of the web.
    File {
        /// Its address, without a password.
        url: String,
        /// Digest of its content.
        digest: Digest,
    },
    /// A Git repository.
    Repository {
        /// As it was asked for, without a password: `https://host/repo.git#ref:dir`.
        url: String,
        /// The commit, all its hex digits.
        commit: String,
    },
}

impl Material {
    /// By what materials are sorted, and each is there once.
    pub fn key(&self) -> String {
        match self {
            Self::Image { name, platform, .. } => format!("1 {name} {platform}"),
            Self::File { url, digest } => format!("2 {url} {digest}"),
            Self::Repository { url, commit } => format!("3 {url} {commit}"),
        }
    }
}
