//! What can go wrong with packages and indexes.

use std::path::PathBuf;

use registry::{RegistryError, WebAnswer};
use serde::Deserialize;

/// Longest text of an index that is shown.
const MESSAGE_CHARS_MAX: usize = 300;

/// A file is not what its index takes.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be published: {reason}", .path.file_name().unwrap_or_default().to_string_lossy())]
pub struct InvalidPackage {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// A package was not published.
#[derive(Debug, thiserror::Error)]
#[error("cannot publish {package} to {target}")]
pub struct PublishError {
    /// Name of the file.
    pub package: String,
    /// Where to.
    pub target: String,
    /// Why not.
    #[source]
    pub kind: PublishErrorKind,
}

/// Why a package was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishErrorKind {
    /// The index was not reached, or its answer was none.
    #[error(transparent)]
    Registry(Box<RegistryError>),
    /// No or wrong credentials.
    #[error("the index asks for other credentials{}", detail(.message))]
    Unauthorized {
        /// The index's own words, or empty.
        message: String,
    },
    /// The index does not take it.
    #[error("the index refuses it with status {status}{}", detail(.message))]
    Refused {
        /// HTTP status.
        status: u16,
        /// The index's own words, or empty.
        message: String,
    },
    /// The index has other content under this name.
    #[error("the index has other content under this name: {theirs}, and this is {ours}")]
    Differs {
        /// Digest of what is there, or that it is not told.
        theirs: String,
        /// Digest of what was to be published.
        ours: String,
    },
    /// The index's answer does not follow its protocol.
    #[error("the index's answer is not understood: {0}")]
    Malformed(String),
    /// The file cannot be read again, or a request cannot be written down.
    #[error("the request cannot be prepared")]
    Local(#[from] std::io::Error),
}

impl PublishError {
    /// Whether logging in otherwise is the remedy: exit code 4.
    pub fn is_auth(&self) -> bool {
        match &self.kind {
            PublishErrorKind::Unauthorized { .. } => true,
            PublishErrorKind::Registry(error) => error.is_auth(),
            _ => false,
        }
    }

    /// Whether repeating makes no sense, because something else is there: exit code 1.
    pub fn is_taken(&self) -> bool {
        matches!(self.kind, PublishErrorKind::Differs { .. })
    }
}

impl From<RegistryError> for PublishErrorKind {
    fn from(error: RegistryError) -> Self {
        Self::Registry(Box::new(error))
    }
}

impl PublishErrorKind {
    pub(crate) fn malformed(what: impl ToString) -> Self {
        Self::Malformed(what.to_string())
    }

    /// What an answer that is none of success means.
    pub(crate) fn of(answer: &WebAnswer) -> Self {
        let message = words(answer);
        match answer.status {
            401 | 403 => Self::Unauthorized { message },
            status => Self::Refused { status, message },
        }
    }
}

/// What an index says: of JSON the message, else the text itself, without control characters.
pub(crate) fn words(answer: &WebAnswer) -> String {
    #[derive(Deserialize)]
    struct Document {
        #[serde(alias = "message", alias = "detail", alias = "reason")]
        error: Option<String>,
        #[serde(default)]
        errors: Vec<Detail>,
    }
    #[derive(Deserialize)]
    struct Detail {
        detail: String,
    }
    let document: Option<Document> = serde_json::from_slice(&answer.body).ok();
    let text = match document {
        Some(Document { errors, .. }) if !errors.is_empty() => {
            errors.into_iter().map(|error| error.detail).collect::<Vec<_>>().join("; ")
        }
        Some(Document { error, .. }) => error.unwrap_or_default(),
        None => without_tags(&String::from_utf8_lossy(&answer.body)),
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect()
}

/// Frameworks answer with a page.
fn without_tags(text: &str) -> String {
    let mut plain = String::new();
    let mut is_inside = false;
    for c in text.chars() {
        match c {
            '<' => is_inside = true,
            '>' if is_inside => {
                is_inside = false;
                plain.push(' ');
            }
            c if !is_inside => plain.push(c),
            _ => {}
        }
    }
    plain
}

fn detail(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}
