//! Docker's `config.json` and podman's `auth.json`: the same format, read leniently, changed with care.

use std::{
    io::{ErrorKind, Read, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::{Credential, CredentialError, canonical_host};

/// Such a file has a few kilobytes; a megabyte is not one.
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// A file in docker's configuration format, with everything we do not know kept.
pub(super) struct ConfigFile {
    path: PathBuf,
    fields: Map<String, Value>,
}

impl ConfigFile {
    /// A file without content.
    pub(super) fn empty(path: &Path) -> Self {
        Self { path: path.into(), fields: Map::new() }
    }

    /// Reads it; `None` when there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, CredentialError> {
        let malformed = |source: Box<dyn std::error::Error + Send + Sync>| CredentialError::Malformed {
            path: path.to_owned(),
            source,
        };
        let file = match fs_err::File::open(path) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut text = String::new();
        file.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text)?;
        if text.len() as u64 > CONFIG_BYTES_MAX {
            return Err(malformed("larger than 1 MiB".into()));
        }
        Self::parse(path, &text).map(Some)
    }

    /// Reads a text in docker's format; `path` says where it is from.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, CredentialError> {
        // Podman makes an empty file before it writes to it.
        if text.trim().is_empty() {
            return Ok(Self::empty(path));
        }
        let malformed = |source| CredentialError::Malformed { path: path.to_owned(), source };
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Ok(Self { path: path.into(), fields }),
            Ok(_) => Err(malformed("not a JSON object".into())),
            Err(error) => Err(malformed(Box::new(error) as Box<dyn std::error::Error + Send + Sync>)),
        }
    }

    /// Reads a pull secret of Kubernetes: the file that a pod sees (of type `kubernetes.io/dockerconfigjson` or the older
    /// `dockercfg`), a directory with it, or the whole `Secret` as JSON.
    pub(super) fn read_pull_secret(path: &Path) -> Result<Option<Self>, CredentialError> {
        if path.is_dir() {
            for name in [".dockerconfigjson", ".dockercfg", "config.json"] {
                if let Some(secret) = Self::read_pull_secret(&path.join(name))? {
                    return Ok(Some(secret));
                }
            }
            return Ok(None);
        }
        let Some(file) = Self::read(path)? else { return Ok(None) };
        if let Some(data) = file.fields.get("data").and_then(Value::as_object) {
            for name in [".dockerconfigjson", ".dockercfg"] {
                let Some(text) = data.get(name).and_then(Value::as_str) else { continue };
                let text = STANDARD.decode(text.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                let text = text.ok_or_else(|| CredentialError::Malformed {
                    path: path.to_owned(),
                    source: format!("`data` of `{name}` is not base64 of a text").into(),
                })?;
                return Self::parse(path, &text).map(|file| Some(file.with_auths_inside()));
            }
        }
        Ok(Some(file.with_auths_inside()))
    }

    /// The older form of pull secrets is what the newer one has below `auths`.
    fn with_auths_inside(self) -> Self {
        if self.fields.contains_key("auths") || !self.fields.values().all(|entry| entry.get("auth").is_some()) {
            return self;
        }
        let mut fields = Map::new();
        fields.insert("auths".into(), Value::Object(self.fields));
        Self { fields, ..self }
    }

    /// Name of the helper in charge of a host.
    pub(super) fn helper(&self, host: &str) -> Option<String> {
        let special = self
            .fields
            .get("credHelpers")
            .and_then(Value::as_object)
            .and_then(|helpers| helpers.iter().find(|(key, _)| key_host(key) == host))
            .map(|(_, name)| name);
        special.or_else(|| self.fields.get("credsStore"))?.as_str().filter(|name| !name.is_empty()).map(str::to_owned)
    }

    /// The credential for a repository, the most specific key first (containers-auth.json(5)).
    pub(super) fn credential(&self, host: &str, path: &str) -> Result<Option<Credential>, CredentialError> {
        let Some(auths) = self.fields.get("auths").and_then(Value::as_object) else { return Ok(None) };
        let mut wanted = format!("{host}/{path}");
        loop {
            for (key, entry) in auths {
                if key_name(key) == wanted
                    && let Some(credential) = self.entry_credential(key, entry)?
                {
                    return Ok(Some(credential));
                }
            }
            match wanted.rfind('/') {
                Some(end) => wanted.truncate(end),
                None => return Ok(None),
            }
        }
    }

    fn entry_credential(&self, key: &str, entry: &Value) -> Result<Option<Credential>, CredentialError> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|value| !value.is_empty());
        if let Some(token) = text("identitytoken") {
            return Ok(Some(Credential::IdentityToken(token.into())));
        }
        if let Some(token) = text("registrytoken") {
            return Ok(Some(Credential::RegistryToken(token.into())));
        }
        if let (Some(user), Some(password)) = (text("username"), text("password")) {
            return Ok(Some(Credential::Password { user: user.into(), password: password.into() }));
        }
        let Some(auth) = text("auth") else { return Ok(None) };
        let decoded = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match decoded.as_deref().and_then(|pair| pair.split_once(':')) {
            Some((user, password)) => {
                let password = password.trim_end_matches('\0');
                Ok(Some(Credential::Password { user: user.into(), password: password.into() }))
            }
            None => Err(CredentialError::Malformed {
                path: self.path.clone(),
                source: format!("`auth` of `{key}` is not base64 of `user:password`").into(),
            }),
        }
    }

    /// Whether a login for exactly this host is noted here.
    pub(super) fn mentions(&self, host: &str) -> bool {
        let auths = self.fields.get("auths").and_then(Value::as_object);
        auths.is_some_and(|auths| auths.keys().any(|key| key_name(key) == host))
    }

    /// Sets the login of a host, replacing other spellings of it.
    pub(super) fn set(&mut self, key: &str, user: &str, password: &str) {
        self.remove(&key_name(key));
        let auths = self.fields.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        if !auths.is_object() {
            *auths = Value::Object(Map::new());
        }
        auths[key] = json!({ "auth": STANDARD.encode(format!("{user}:{password}")) });
    }

    /// Removes the login of a host.
    pub(super) fn remove(&mut self, host: &str) {
        if let Some(auths) = self.fields.get_mut("auths").and_then(Value::as_object_mut) {
            auths.retain(|key, _| key_name(key) != host);
        }
    }
}

/// Reads, changes and writes the file under a lock, so that two logins at once lose nothing.
pub(super) fn update(path: &Path, change: impl FnOnce(&mut ConfigFile)) -> Result<(), CredentialError> {
    // A link, as dotfile managers make, stays a link: its target is replaced.
    let path = &fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let lock = fs_err::File::open(dir)?;
    lock.file().lock()?;
    let mut config = ConfigFile::read(path)?.unwrap_or_else(|| ConfigFile::empty(path));
    change(&mut config);
    // `NamedTempFile` makes files of mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    let text = serde_json::to_string_pretty(&config.fields).expect("JSON values serialise");
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    lock.sync_all()?;
    Ok(())
}

/// `host[/path]` of a key. Docker's keys may be URLs, whose path says nothing; podman's may be `host/namespace/repo`.
fn key_name(key: &str) -> String {
    if key.contains("://") {
        return key_host(key);
    }
    match key.trim_end_matches('/').split_once('/') {
        Some((host, "v1" | "v2")) => canonical_host(host),
        Some((host, path)) => format!("{}/{path}", canonical_host(host)),
        None => canonical_host(key.trim_end_matches('/')),
    }
}

fn key_host(key: &str) -> String {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    canonical_host(rest.split('/').next().unwrap_or(rest))
}
