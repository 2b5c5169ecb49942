//! A secret of the settings: named there by its file or its variable, never written there.

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Deserialize;

/// A secret is a line; whole files of keys are something else.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Where a secret is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) enum SecretAt {
    /// In a file; relative paths are relative to the settings.
    File(PathBuf),
    /// In a variable of the environment.
    Env(String),
}

impl SecretAt {
    /// Its text, without the newline at its end.
    pub(super) fn read(&self, beside: &Path) -> Result<String, String> {
        let text = match self {
            Self::File(path) => {
                let path = beside.join(path);
                let length = fs::metadata(&path).map_err(|error| error.to_string())?.len();
                if length > SECRET_BYTES_MAX {
                    return Err(format!("{} is too long for a secret", path.display()));
                }
                fs::read_to_string(&path).map_err(|error| error.to_string())?
            }
            Self::Env(name) => std::env::var(name).map_err(|error| format!("variable `{name}`: {error}"))?,
        };
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() { Err("the secret is empty".into()) } else { Ok(text.to_owned()) }
    }
}
