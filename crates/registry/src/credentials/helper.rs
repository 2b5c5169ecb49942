//! Credential helpers: programs `docker-credential-NAME` (docker-credential-helpers, "Usage").

use std::{ffi::OsStr, path::PathBuf, process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::{Credential, CredentialError};

/// A helper may ask the user to unlock a key ring.
const HELPER_WAIT_MAX: Duration = Duration::from_secs(60);

/// A helper by its name, and the `PATH` it is looked for in (`None`: the process's own).
#[derive(Clone, Copy)]
pub(super) struct Helper<'a> {
    pub(super) name: &'a str,
    pub(super) search: Option<&'a OsStr>,
}

impl Helper<'_> {
    fn program(&self) -> PathBuf {
        let file = format!("docker-credential-{}", self.name);
        let found = self
            .search
            .and_then(|search| std::env::split_paths(search).map(|dir| dir.join(&file)).find(|path| path.is_file()));
        found.unwrap_or_else(|| file.into())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks for the credential of a server; `None` when the helper knows none.
pub(super) async fn get(helper: Helper<'_>, server: &str) -> Result<Option<Credential>, CredentialError> {
    let (success, output) = run(helper, "get", server).await?;
    if !success {
        // The helpers' only way to say "none" is this text.
        if output.contains("credentials not found") {
            return Ok(None);
        }
        return Err(failure(helper, output));
    }
    let answer: Answer = serde_json::from_str(&output).map_err(|error| failure(helper, error.to_string()))?;
    Ok(match answer {
        Answer { secret, .. } if secret.is_empty() => None,
        Answer { username, secret } if username == "<token>" => Some(Credential::IdentityToken(secret)),
        Answer { username, secret } => Some(Credential::Password { user: username, password: secret }),
    })
}

/// Keeps a credential.
pub(super) async fn store(helper: Helper<'_>, server: &str, user: &str, password: &str) -> Result<(), CredentialError> {
    let input = serde_json::json!({ "ServerURL": server, "Username": user, "Secret": password }).to_string();
    match run(helper, "store", &input).await? {
        (true, _) => Ok(()),
        (false, output) => Err(failure(helper, output)),
    }
}

/// Forgets a credential.
pub(super) async fn erase(helper: Helper<'_>, server: &str) -> Result<(), CredentialError> {
    match run(helper, "erase", server).await? {
        (true, _) => Ok(()),
        (false, output) => Err(failure(helper, output)),
    }
}

async fn run(helper: Helper<'_>, verb: &str, input: &str) -> Result<(bool, String), CredentialError> {
    // The name comes from a file and becomes part of a program's name: it must not become a path.
    let name = helper.name;
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err(failure(helper, "not a legal helper name".into()));
    }
    let io = |error: std::io::Error| failure(helper, error.to_string());
    let mut child = Command::new(helper.program())
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(io)?;
    let mut stdin = child.stdin.take().expect("stdin was asked for");
    let work = async {
        // A helper that does not read its input has its own reasons; its exit status tells.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await
    };
    let output = match timeout(HELPER_WAIT_MAX, work).await {
        Ok(output) => output.map_err(io)?,
        Err(_) => return Err(failure(helper, format!("no answer within {} s", HELPER_WAIT_MAX.as_secs()))),
    };
    let mut text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if text.is_empty() && !output.status.success() {
        text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    }
    Ok((output.status.success(), text))
}

fn failure(helper: Helper<'_>, reason: String) -> CredentialError {
    CredentialError::Helper { name: helper.name.into(), reason: reason.chars().take(500).collect() }
}
