//! Who we are at a registry: docker's `config.json`, podman's `auth.json`, credential helpers.

mod file;
mod helper;

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use file::ConfigFile;
use helper::Helper;

/// How to identify at one registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// User name and password (or access token in the password's place).
    Password {
        /// User name.
        user: String,
        /// Password.
        password: String,
    },
    /// OAuth2 refresh token that is exchanged for bearer tokens.
    IdentityToken(String),
    /// A bearer token that is used as it is.
    RegistryToken(String),
}

// Secrets must not reach logs through `{:?}`.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password({user}:…)"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(…)"),
            Self::RegistryToken(_) => f.write_str("RegistryToken(…)"),
        }
    }
}

/// Where a login was written to or removed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginPlace {
    /// This file, readable by its owner only.
    File(PathBuf),
    /// The credential helper of this name.
    Helper(String),
}

/// Stored credentials could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file cannot be read or written; the message has its path.
    #[error("credential file cannot be read or written")]
    Io(#[from] std::io::Error),
    /// The file is not what docker or podman write. It is left as it is.
    #[error("{} is not a docker configuration", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A credential helper could not be run or refused.
    #[error("credential helper `docker-credential-{name}` failed: {reason}")]
    Helper {
        /// Name as in the configuration.
        name: String,
        /// What it said.
        reason: String,
    },
    /// Neither a home directory nor a configured path is known.
    #[error("no place to keep credentials: neither HOME nor DOCKER_CONFIG nor REGISTRY_AUTH_FILE is set")]
    NoPlace,
}

/// A text that no log shows.
#[derive(Clone)]
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// The sources of credentials, asked in order: fixed ones, the environment's text, files with their helpers, pull secrets.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    fixed: Vec<(String, Credential)>,
    /// `DOCKER_AUTH_CONFIG`: a text in docker's format, as GitLab gives it to its jobs.
    inline: Option<Secret>,
    files: Vec<PathBuf>,
    pull_secrets: Vec<PathBuf>,
    // Where helpers are looked for: a `PATH`; `None` for the process's own.
    search: Option<OsString>,
}

impl Credentials {
    /// No credentials at all.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// The places docker and podman use, in the order `REGISTRY_AUTH_FILE`, docker's `config.json` (`DOCKER_CONFIG`),
    /// podman's `auth.json`; before them `DOCKER_AUTH_CONFIG` (the text of such a file), after them the pull secrets of
    /// Kubernetes that `SEATRIAL_PULL_SECRETS` lists (files or directories, separated by colons). `variable` looks up an
    /// environment variable. The first file is where logins are written.
    pub fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = path("HOME");
        let mut files: Vec<PathBuf> = Vec::new();
        files.extend(path("REGISTRY_AUTH_FILE"));
        let docker = path("DOCKER_CONFIG").or_else(|| home.as_ref().map(|home| home.join(".docker")));
        files.extend(docker.map(|dir| dir.join("config.json")));
        files.extend(path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")));
        let config = path("XDG_CONFIG_HOME").or_else(|| home.map(|home| home.join(".config")));
        files.extend(config.map(|dir| dir.join("containers/auth.json")));
        let inline = variable("DOCKER_AUTH_CONFIG").and_then(|text| text.into_string().ok());
        let secrets = path("SEATRIAL_PULL_SECRETS").map(PathBuf::into_os_string).unwrap_or_default();
        Self {
            fixed: Vec::new(),
            inline: inline.filter(|text| !text.trim().is_empty()).map(Secret),
            files,
            pull_secrets: std::env::split_paths(&secrets).filter(|path| !path.as_os_str().is_empty()).collect(),
            search: path("PATH").map(PathBuf::into_os_string),
        }
    }

    /// Files in docker's format; the first is where logins are written.
    pub fn from_files(files: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { files: files.into_iter().collect(), ..Self::default() }
    }

    /// Adds a credential for a host, stronger than any file.
    pub fn with(mut self, host: impl Into<String>, credential: Credential) -> Self {
        self.fixed.push((canonical_host(&host.into()), credential));
        self
    }

    /// The credential for a repository `path` at registry `host` (as in references: `docker.io`, `localhost:5000`).
    pub async fn lookup(&self, host: &str, path: &str) -> Result<Option<Credential>, CredentialError> {
        let host = canonical_host(host);
        if let Some((_, credential)) = self.fixed.iter().find(|(fixed, _)| *fixed == host) {
            return Ok(Some(credential.clone()));
        }
        if let Some(Secret(text)) = &self.inline
            && let Some(credential) =
                ConfigFile::parse(Path::new("DOCKER_AUTH_CONFIG"), text)?.credential(&host, path)?
        {
            return Ok(Some(credential));
        }
        for file in &self.files {
            let Some(config) = ConfigFile::read(file)? else { continue };
            if let Some(name) = config.helper(&host)
                && let Some(credential) = helper::get(self.helper(&name), server_key(&host)).await?
            {
                return Ok(Some(credential));
            }
            if let Some(credential) = config.credential(&host, path)? {
                return Ok(Some(credential));
            }
        }
        for secret in &self.pull_secrets {
            if let Some(secret) = ConfigFile::read_pull_secret(secret)?
                && let Some(credential) = secret.credential(&host, path)?
            {
                return Ok(Some(credential));
            }
        }
        Ok(None)
    }

    fn helper<'a>(&'a self, name: &'a str) -> Helper<'a> {
        Helper { name, search: self.search.as_deref() }
    }

    /// Writes a login: to the configured helper, else into the first file (mode 0600, atomically, unknown fields kept).
    pub async fn store(&self, host: &str, user: &str, password: &str) -> Result<LoginPlace, CredentialError> {
        let host = canonical_host(host);
        let path = self.files.first().ok_or(CredentialError::NoPlace)?;
        let config = ConfigFile::read(path)?.unwrap_or_else(|| ConfigFile::empty(path));
        if let Some(name) = config.helper(&host) {
            helper::store(self.helper(&name), server_key(&host), user, password).await?;
            return Ok(LoginPlace::Helper(name));
        }
        file::update(path, |config| config.set(server_key(&host), user, password))?;
        Ok(LoginPlace::File(path.clone()))
    }

    /// Removes every login for a host; tells from where.
    pub async fn erase(&self, host: &str) -> Result<Vec<LoginPlace>, CredentialError> {
        let host = canonical_host(host);
        let mut places = Vec::new();
        for path in &self.files {
            let Some(config) = ConfigFile::read(path)? else { continue };
            if let Some(name) = config.helper(&host)
                && helper::get(self.helper(&name), server_key(&host)).await?.is_some()
            {
                helper::erase(self.helper(&name), server_key(&host)).await?;
                places.push(LoginPlace::Helper(name));
            }
            if config.mentions(&host) {
                file::update(path, |config| config.remove(&host))?;
                places.push(LoginPlace::File(path.clone()));
            }
        }
        Ok(places)
    }
}

/// One name for the several that Docker Hub has; other hosts in lower case.
fn canonical_host(host: &str) -> String {
    match host {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => "docker.io".into(),
        other => other.to_ascii_lowercase(),
    }
}

/// The name under which docker keeps a host's login.
fn server_key(host: &str) -> &str {
    if host == "docker.io" { "https://index.docker.io/v1/" } else { host }
}

#[cfg(test)]
mod tests;
