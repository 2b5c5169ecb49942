//! What the machine's configuration says of registries: own authorities, client certificates, mirrors, plain hosts.
//!
//! Read are docker's and podman's files, so that a host which they can reach is reached here too (`dockerd(8)`,
//! "Understand the configuration" of certificates; containers-certs.d(5); containers-registries.conf(5)).

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use fs_err as fs;
use serde::Deserialize;

/// A configuration file has a few kilobytes.
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// Where such files lie. Nothing is read before the first request.
#[derive(Clone, Debug, Default)]
pub struct HostFiles {
    /// Directories with one directory for each `host[:port]`: `*.crt` are authorities, `*.cert` with `*.key` clients.
    pub certificates: Vec<PathBuf>,
    /// The first that exists is read: podman's `registries.conf`, version 2.
    pub registries: Vec<PathBuf>,
    /// Docker's `daemon.json`: `registry-mirrors` and `insecure-registries`; the first that exists is read.
    pub daemons: Vec<PathBuf>,
    /// Mirrors that go before those of files: `docker.io=mirror.example:5000/hub`, separated by commas or spaces.
    pub mirrors: String,
}

/// The files cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{place} cannot be used: {reason}")]
pub struct HostFilesError {
    /// The file, or the variable.
    pub place: String,
    /// What is wrong.
    pub reason: String,
}

impl HostFiles {
    /// The usual places. `variable` looks up an environment variable.
    pub fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let config = path("XDG_CONFIG_HOME").or_else(|| path("HOME").map(|home| home.join(".config")));
        let own = |name: &str| config.as_ref().map(|config| config.join(name));
        let list = |places: [Option<PathBuf>; 3]| places.into_iter().flatten().collect::<Vec<_>>();
        let mut certificates: Vec<PathBuf> = path("SEATRIAL_CERTS_DIR").into_iter().collect();
        certificates.extend(list([own("seatrial/certs.d"), own("containers/certs.d"), own("docker/certs.d")]));
        certificates
            .extend(["/etc/seatrial/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d"].map(Into::into));
        Self {
            certificates,
            registries: list([
                path("CONTAINERS_REGISTRIES_CONF"),
                own("containers/registries.conf"),
                Some("/etc/containers/registries.conf".into()),
            ]),
            daemons: list([own("docker/daemon.json"), Some("/etc/docker/daemon.json".into()), None]),
            mirrors: variable("SEATRIAL_MIRRORS").and_then(|text| text.into_string().ok()).unwrap_or_default(),
        }
    }

    /// Reads them. What does not exist says nothing.
    pub(crate) fn read(&self) -> Result<Hosts, HostFilesError> {
        let mut hosts = Hosts { certificates: self.certificates.clone(), ..Hosts::default() };
        hosts.add_listed(&self.mirrors)?;
        for file in &self.registries {
            if let Some(text) = read(file)? {
                hosts.add_registries(&text).map_err(|reason| wrong(file, reason))?;
                break;
            }
        }
        for file in &self.daemons {
            if let Some(text) = read(file)? {
                hosts.add_daemon(&text).map_err(|reason| wrong(file, reason))?;
                break;
            }
        }
        Ok(hosts)
    }
}

/// What the files say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts {
    certificates: Vec<PathBuf>,
    mirrors: Vec<Mirror>,
    insecure: Vec<String>,
}

/// Another place for the images below a name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mirror {
    /// `host[:port][/path]` that is mirrored.
    of: String,
    /// `host[:port][/path]` of the copy.
    at: String,
    /// Tags are not asked there, because a mirror may be behind.
    digests_only: bool,
}

/// Where a repository may also be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) path: String,
}

/// PEM texts for one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostCertificates {
    /// Authorities.
    pub(crate) authorities: Vec<Vec<u8>>,
    /// Certificate and key of the client, in one text.
    pub(crate) client: Option<Vec<u8>>,
}

impl Hosts {
    /// Mirrors of a repository, in order.
    pub(crate) fn mirrors(&self, host: &str, path: &str, is_digest: bool) -> Vec<Place> {
        let name = format!("{host}/{path}");
        let of = |mirror: &&Mirror| is_digest || !mirror.digests_only;
        self.mirrors.iter().filter(of).filter_map(|mirror| mirror.place(&name)).collect()
    }

    /// Hosts that may be met without TLS.
    pub(crate) fn insecure(&self) -> &[String] {
        &self.insecure
    }

    /// Certificates for `host[:port]`, from the first directory that has one for it.
    pub(crate) fn certificates(&self, host: &str) -> Result<Option<HostCertificates>, HostFilesError> {
        for directory in &self.certificates {
            let directory = directory.join(host);
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) if is_absent(&error) => continue,
                Err(error) => return Err(wrong(&directory, error.to_string())),
            };
            let mut names: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
            names.sort();
            let mut found = HostCertificates::default();
            for path in names {
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("crt") => found.authorities.push(read_bytes(&path)?),
                    Some("cert") => {
                        let mut text = read_bytes(&path)?;
                        text.push(b'\n');
                        text.extend(read_bytes(&path.with_extension("key"))?);
                        found.client = Some(text);
                    }
                    _ => {}
                }
            }
            return Ok(Some(found));
        }
        Ok(None)
    }

    fn add_listed(&mut self, text: &str) -> Result<(), HostFilesError> {
        for entry in text.split([',', ' ', '\n']).filter(|entry| !entry.is_empty()) {
            let (of, at) =
                entry.split_once('=').filter(|(of, at)| !of.is_empty() && !at.is_empty()).ok_or_else(|| {
                    let reason = format!("`{entry}` is not HOST=MIRROR");
                    HostFilesError { place: "SEATRIAL_MIRRORS".into(), reason }
                })?;
            self.add_mirror(of, at, false);
        }
        Ok(())
    }

    fn add_mirror(&mut self, of: &str, at: &str, digests_only: bool) {
        let (is_plain, at) = match at.split_once("://") {
            Some((scheme, rest)) => (scheme == "http", rest),
            None => (false, at),
        };
        let at = at.trim_end_matches('/').to_owned();
        if is_plain {
            self.insecure.push(at.split('/').next().unwrap_or_default().to_owned());
        }
        self.mirrors.push(Mirror { of: of.trim_end_matches('/').to_owned(), at, digests_only });
    }

    fn add_registries(&mut self, text: &str) -> Result<(), String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct File {
            #[serde(default)]
            registry: Vec<Registry>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Registry {
            prefix: Option<String>,
            location: Option<String>,
            #[serde(default)]
            insecure: bool,
            #[serde(default)]
            mirror_by_digest_only: bool,
            #[serde(default)]
            mirror: Vec<Copy>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Copy {
            location: String,
            #[serde(default)]
            insecure: bool,
            pull_from_mirror: Option<String>,
        }
        // Version 1 has tables of other names, which are passed over.
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        for registry in file.registry {
            let Some(of) = registry.prefix.as_ref().or(registry.location.as_ref()) else { continue };
            for copy in &registry.mirror {
                let rule = copy.pull_from_mirror.as_deref();
                if rule == Some("tag-only") {
                    continue;
                }
                self.add_mirror(of, &copy.location, registry.mirror_by_digest_only || rule == Some("digest-only"));
                if copy.insecure {
                    self.insecure.push(copy.location.split('/').next().unwrap_or_default().to_owned());
                }
            }
            if let Some(location) = registry.location.as_ref().filter(|location| *location != of) {
                self.add_mirror(of, location, false);
            }
            if registry.insecure {
                let host = registry.location.as_ref().unwrap_or(of).split('/').next().unwrap_or_default();
                self.insecure.push(host.to_owned());
            }
        }
        Ok(())
    }

    fn add_daemon(&mut self, text: &str) -> Result<(), String> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "kebab-case", default)]
        struct Daemon {
            registry_mirrors: Vec<String>,
            insecure_registries: Vec<String>,
        }
        let daemon: Daemon = if text.trim().is_empty() {
            Daemon::default()
        } else {
            serde_json::from_str(text).map_err(|e| e.to_string())?
        };
        for mirror in daemon.registry_mirrors {
            self.add_mirror("docker.io", &mirror, false);
        }
        // Networks (`10.0.0.0/8`) are docker's affair: here hosts are named.
        self.insecure.extend(daemon.insecure_registries.into_iter().filter(|host| !host.contains('/')));
        Ok(())
    }
}

impl Mirror {
    /// Where `name` (`host/path`) is found here, if it lies below what is mirrored.
    fn place(&self, name: &str) -> Option<Place> {
        let below = match self.of.strip_prefix("*.") {
            // `*.example.com` names all hosts below it (containers-registries.conf(5), "prefix").
            Some(domain) => {
                let (host, path) = name.split_once('/')?;
                host.strip_suffix(domain)?.strip_suffix('.')?;
                path
            }
            None => name.strip_prefix(self.of.as_str())?.strip_prefix('/')?,
        };
        let (host, prefix) = self.at.split_once('/').unwrap_or((&self.at, ""));
        let path = if prefix.is_empty() { below.to_owned() } else { format!("{prefix}/{below}") };
        Some(Place { host: host.to_owned(), path })
    }
}

fn read(path: &Path) -> Result<Option<String>, HostFilesError> {
    match fs::metadata(path) {
        Ok(found) if found.len() > CONFIG_BYTES_MAX => Err(wrong(path, "it is larger than 1 MiB".into())),
        Ok(_) => fs::read_to_string(path).map(Some).map_err(|error| wrong(path, error.to_string())),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(wrong(path, error.to_string())),
    }
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, HostFilesError> {
    read(path)?.map(String::into_bytes).ok_or_else(|| wrong(path, "there is no such file".into()))
}

/// A place that an ordinary user may not look into says nothing either: it was not meant for them.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied)
}

fn wrong(path: &Path, reason: String) -> HostFilesError {
    HostFilesError { place: path.display().to_string(), reason }
}

#[cfg(test)]
mod tests;
