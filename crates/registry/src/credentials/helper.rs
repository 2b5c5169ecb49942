//! Credential helpers: programs `docker-credential-NAME` (docker-credential-helpers, "Usage").

use std::{process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::{Credential, CredentialError};

/// A helper may ask the user to unlock a key ring.
const HELPER_WAIT_MAX: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks for the credential of a server; `None` when the helper knows none.
pub(super) async fn get(name: &str, server: &str) -> Result<Option<Credential>, CredentialError> {
    let (success, output) = run(name, "get", server).await?;
    if !success {
        // The helpers' only way to say "none" is this text.
        if output.contains("credentials not found") {
            return Ok(None);
        }
        return Err(failure(name, output));
    }
    let answer: Answer = serde_json::from_str(&output).map_err(|error| failure(name, error.to_string()))?;
    Ok(match answer {
        Answer { secret, .. } if secret.is_empty() => None,
        Answer { username, secret } if username == "<token>" => Some(Credential::IdentityToken(secret)),
        Answer { username, secret } => Some(Credential::Password { user: username, password: secret }),
    })
}

/// Keeps a credential.
pub(super) async fn store(name: &str, server: &str, user: &str, password: &str) -> Result<(), CredentialError> {
    let input = serde_json::json!({ "ServerURL": server, "Username": user, "Secret": password }).to_string();
    match run(name, "store", &input).await? {
        (true, _) => Ok(()),
        (false, output) => Err(failure(name, output)),
    }
}

/// Forgets a credential.
pub(super) async fn erase(name: &str, server: &str) -> Result<(), CredentialError> {
    match run(name, "erase", server).await? {
        (true, _) => Ok(()),
        (false, output) => Err(failure(name, output)),
    }
}

async fn run(name: &str, verb: &str, input: &str) -> Result<(bool, String), CredentialError> {
    // The name comes from a file and becomes part of a program's name: it must not become a path.
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err(failure(name, "not a legal helper name".into()));
    }
    let io = |error: std::io::Error| failure(name, error.to_string());
    let mut child = Command::new(format!("docker-credential-{name}"))
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
        Err(_) => return Err(failure(name, format!("no answer within {} s", HELPER_WAIT_MAX.as_secs()))),
    };
    let mut text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if text.is_empty() && !output.status.success() {
        text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    }
    Ok((output.status.success(), text))
}

fn failure(name: &str, reason: String) -> CredentialError {
    CredentialError::Helper { name: name.into(), reason: reason.chars().take(500).collect() }
}
