//! What can go wrong with a registry, in kinds that callers act on.

use std::{error::Error, io, time::Duration};

use oci::{Digest, Platform};

use crate::CredentialError;

/// An operation on a registry failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {target}")]
pub struct RegistryError {
    /// What was attempted: `pull`, `push`, `log in to`.
    pub action: &'static str,
    /// The reference or host it was attempted on.
    pub target: String,
    /// Why it failed.
    #[source]
    pub kind: ErrorKind,
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum ErrorKind {
    /// No or wrong credentials: logging in may help.
    #[error("registry asks for credentials{}", detail(.message))]
    Unauthorized {
        /// The registry's own words, or empty.
        message: String,
    },
    /// The credentials are good, but not for this.
    #[error("registry denies access{}", detail(.message))]
    Denied {
        /// The registry's own words, or empty.
        message: String,
    },
    /// The repository, tag, manifest or blob does not exist there.
    #[error("not found in the registry{}", detail(.message))]
    NotFound {
        /// The registry's own words, or empty.
        message: String,
    },
    /// A tag does not name what it had to name, or is not absent as it had to be: somebody else was faster.
    #[error("tag was changed meanwhile{}", detail(.message))]
    TagChanged {
        /// The registry's own words, or empty.
        message: String,
    },
    /// The registry acknowledged other content than was sent.
    #[error("registry stored {stored} where {sent} was sent")]
    DigestMismatch {
        /// Digest of what was sent.
        sent: Digest,
        /// What the registry says that it stored.
        stored: String,
    },
    /// The registry gave other bytes than were asked for, also when asked again.
    #[error("registry gave wrong content for {expected}: {reason}")]
    WrongContent {
        /// Digest of what was asked for.
        expected: Digest,
        /// What was wrong: digest or size.
        reason: String,
    },
    /// A document is larger than we accept, or the registry does not take one of that size.
    #[error("{}", too_large(*.limit_bytes))]
    TooLarge {
        /// The limit in bytes; 0 when the registry does not tell its own.
        limit_bytes: u64,
    },
    /// Too many requests, also after waiting as asked within bounds.
    #[error("registry limits the rate of requests{}", retry_hint(.retry_after))]
    RateLimited {
        /// How long the registry wants us to wait.
        retry_after: Option<Duration>,
    },
    /// The registry could not be reached, or the connection was lost again and again.
    #[error("registry cannot be reached")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    /// An answer that the specification does not provide for here.
    #[error("registry answered with status {status}{}{}", code_hint(.code), detail(.message))]
    Unexpected {
        /// HTTP status.
        status: u16,
        /// Error code of the distribution specification, or empty.
        code: String,
        /// The registry's own words, or empty.
        message: String,
    },
    /// The answer does not follow the protocol.
    #[error("registry's answer is not understood: {0}")]
    Malformed(String),
    /// The image is there, but not for the wanted platform.
    #[error("no image for {wanted}; there is {}", list(.available))]
    PlatformMissing {
        /// The platform asked for.
        wanted: Box<Platform>,
        /// The platforms that the index lists.
        available: Vec<Platform>,
    },
    /// Stored credentials could not be read or written.
    #[error("credentials cannot be used")]
    Credentials(#[from] CredentialError),
    /// The image came whole, but cannot be unpacked: not an image, hostile, or no room.
    #[error("image cannot be unpacked")]
    Import(#[source] Box<store::ImportError>),
    /// Our own side failed: file or store.
    #[error("local content cannot be read or written")]
    Local(#[source] Box<dyn Error + Send + Sync>),
}

impl RegistryError {
    /// Whether logging in (or in as somebody else) is the remedy: exit code 4.
    pub fn is_auth(&self) -> bool {
        matches!(self.kind, ErrorKind::Unauthorized { .. } | ErrorKind::Denied { .. } | ErrorKind::Credentials(_))
    }

    /// Whether network, registry or disk failed, so that the same command may succeed later: exit code 3.
    pub fn is_surroundings(&self) -> bool {
        match self.kind {
            ErrorKind::DigestMismatch { .. }
            | ErrorKind::WrongContent { .. }
            | ErrorKind::RateLimited { .. }
            | ErrorKind::TagChanged { .. }
            | ErrorKind::Unreachable(_)
            | ErrorKind::Unexpected { .. }
            | ErrorKind::Malformed(_)
            | ErrorKind::Import(_)
            | ErrorKind::Local(_) => true,
            ErrorKind::Unauthorized { .. }
            | ErrorKind::Denied { .. }
            | ErrorKind::Credentials(_)
            | ErrorKind::NotFound { .. }
            | ErrorKind::TooLarge { .. }
            | ErrorKind::PlatformMissing { .. } => false,
        }
    }

    /// Whether the thing asked for does not exist in the registry.
    pub fn is_not_found(&self) -> bool {
        matches!(self.kind, ErrorKind::NotFound { .. })
    }

    /// Whether our disk is full, or our quota used up.
    pub fn is_no_space(&self) -> bool {
        let mut cause: Option<&(dyn Error + 'static)> = Some(&self.kind);
        while let Some(error) = cause {
            let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
            if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
                return true;
            }
            cause = error.source();
        }
        matches!(&self.kind, ErrorKind::Import(error) if error.is_no_space())
    }

    /// Whether the registry was not reached at all: the hint for images without a registry fits.
    pub fn is_unreachable(&self) -> bool {
        matches!(self.kind, ErrorKind::Unreachable(_))
    }
}

impl ErrorKind {
    pub(crate) fn during(self, action: &'static str, target: impl ToString) -> RegistryError {
        RegistryError { action, target: target.to_string(), kind: self }
    }

    pub(crate) fn local(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Local(error.into())
    }

    pub(crate) fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed(what.into())
    }
}

fn detail(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

fn code_hint(code: &str) -> String {
    if code.is_empty() { String::new() } else { format!(" ({code})") }
}

fn retry_hint(retry_after: &Option<Duration>) -> String {
    retry_after.map_or_else(String::new, |wait| format!("; it says to come back in {} s", wait.as_secs()))
}

fn too_large(limit_bytes: u64) -> String {
    match limit_bytes {
        0 => "larger than the registry takes".into(),
        limit => format!("larger than the limit of {limit} bytes"),
    }
}

fn list(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "none that is named".into();
    }
    platforms.iter().map(Platform::to_string).collect::<Vec<_>>().join(", ")
}
