//! What the surroundings say: environment, working directory, where the store is. Read once, at the front door.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::failure::Failure;

/// Everything read from the environment.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Directory of the store.
    pub(crate) home: PathBuf,
    /// Absolute working directory.
    pub(crate) cwd: PathBuf,
    /// The CI system around us.
    pub(crate) ci: Option<Ci>,
    /// `SOURCE_DATE_EPOCH`.
    pub(crate) source_date_epoch: Option<SystemTime>,
    /// `HOST:PORT` of the demo's own registry, the only one that takes images of this machine's files.
    pub(crate) demo_registry: Option<String>,
    /// Digests of the image whose run is repeated; `replay` tells its child where they are.
    pub(crate) replayed: Option<PathBuf>,
}

/// CI systems whose logs fold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ci {
    /// GitHub Actions, and Gitea and Forgejo, which speak the same.
    GitHub,
    /// GitLab.
    GitLab,
    /// Some other one: `CI` is set.
    Other,
}

impl Settings {
    /// Reads the environment. `home` and `directory` are the flags `--home` and `-C`.
    pub(crate) fn load(home: Option<PathBuf>, directory: Option<&Path>) -> Result<Settings, Failure> {
        let here = env::current_dir()
            .map_err(|error| Failure::surroundings("the working directory does not exist").because(&error))?;
        let cwd = match directory {
            None => here.clone(),
            Some(directory) => {
                let joined = here.join(directory);
                fs_err::canonicalize(&joined).map_err(|error| {
                    Failure::usage(format!("cannot work in `{}`", directory.display())).because(&error)
                })?
            }
        };
        let is_root = rustix::process::geteuid().is_root();
        let home = match home {
            Some(home) => here.join(home),
            None => default_home(is_root, &|name| env::var_os(name))?,
        };
        Ok(Settings {
            home,
            cwd,
            ci: Ci::detect(&|name| env::var_os(name)),
            source_date_epoch: epoch()?,
            demo_registry: None,
            replayed: env::var_os(REPLAYED).map(PathBuf::from),
        })
    }
}

fn default_home(is_root: bool, env: &dyn Fn(&str) -> Option<OsString>) -> Result<PathBuf, Failure> {
    if is_root {
        return Ok("/var/lib/seatrial".into());
    }
    let absolute = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("seatrial"))
        .ok_or_else(|| {
            Failure::surroundings("there is no place for the store: neither HOME nor XDG_DATA_HOME is set")
                .hint("name a directory: `export SEATRIAL_HOME=/path/to/store`")
        })
}

/// From `replay` to the run that it starts.
pub(crate) const REPLAYED: &str = "SEATRIAL_REPLAYED";
/// A container may use the host's network (BuildKit's name of the entitlement).
pub(crate) const NETWORK_HOST: &str = "network.host";
/// The machine's own file of what may be allowed to builds, for everybody who uses it.
const SYSTEM_ALLOW_FILE: &str = "/etc/seatrial/allow";
/// It holds a handful of names.
const ALLOW_BYTES_MAX: u64 = 64 * 1024;

/// Where this user writes what builds may be allowed: root's counts for everybody.
pub(crate) fn allow_file(env: &dyn Fn(&str) -> Option<OsString>) -> PathBuf {
    let absolute = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    config.map_or_else(|| SYSTEM_ALLOW_FILE.into(), |config| config.join("seatrial/allow"))
}

/// Entitlements that this machine or user permits: one on a line, `#` begins a comment.
pub(crate) fn locally_allowed(env: &dyn Fn(&str) -> Option<OsString>) -> Vec<String> {
    let read = |path: &Path| {
        let mut text = String::new();
        let file = fs_err::File::open(path).ok()?;
        std::io::Read::read_to_string(&mut std::io::Read::take(file, ALLOW_BYTES_MAX), &mut text).ok()?;
        Some(text)
    };
    let own = allow_file(env);
    let texts = [Path::new(SYSTEM_ALLOW_FILE), &own].into_iter().filter_map(read);
    let lines = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
    lines.map(|line| line.split('#').next().unwrap_or("").trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

/// Devices of the host that this machine or user lets services have.
pub(crate) fn allowed_devices() -> services::AllowedDevices {
    services::AllowedDevices::of(&locally_allowed(&|name| env::var_os(name)))
}

fn epoch() -> Result<Option<SystemTime>, Failure> {
    let Some(text) = env::var_os("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty()) else { return Ok(None) };
    let seconds = text.to_str().and_then(|text| text.parse::<u64>().ok()).ok_or_else(|| {
        Failure::usage(format!("SOURCE_DATE_EPOCH is `{}`, not a number of seconds", text.to_string_lossy()))
    })?;
    Ok(SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
}

impl Ci {
    fn detect(env: &dyn Fn(&str) -> Option<OsString>) -> Option<Ci> {
        let is = |name: &str| env(name).is_some_and(|value| !value.is_empty() && value != "false" && value != "0");
        if is("GITHUB_ACTIONS") {
            Some(Ci::GitHub)
        } else if is("GITLAB_CI") {
            Some(Ci::GitLab)
        } else if is("CI") {
            Some(Ci::Other)
        } else {
            None
        }
    }
}

/// The nearest `seatrial.yaml` upwards, not beyond the root of the Git repository (or the file system's).
pub(crate) fn find_pipeline_file(from: &Path) -> Option<PathBuf> {
    for directory in from.ancestors() {
        for name in ["seatrial.yaml", "seatrial.yml"] {
            let file = directory.join(name);
            if file.is_file() {
                return Some(file);
            }
        }
        if directory.join(".git").exists() {
            return None;
        }
    }
    None
}

/// `Dockerfile` before `Containerfile`.
pub(crate) fn find_dockerfile(directory: &Path) -> Option<PathBuf> {
    ["Dockerfile", "Containerfile"].iter().map(|name| directory.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment<'a>(set: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        move |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(*value))
    }

    #[test]
    fn the_store_of_an_ordinary_user_is_below_the_data_directory() {
        let home = |set: &[(&str, &str)]| default_home(false, &environment(set)).unwrap();
        assert_eq!(home(&[("HOME", "/home/ann")]), Path::new("/home/ann/.local/share/seatrial"));
        assert_eq!(home(&[("HOME", "/home/ann"), ("XDG_DATA_HOME", "/data")]), Path::new("/data/seatrial"));
        assert_eq!(
            home(&[("HOME", "/home/ann"), ("XDG_DATA_HOME", "rel")]),
            Path::new("/home/ann/.local/share/seatrial")
        );
        assert!(default_home(false, &environment(&[])).is_err());
        assert_eq!(default_home(true, &environment(&[])).unwrap(), Path::new("/var/lib/seatrial"));
    }

    #[test]
    fn what_is_allowed_stands_in_files() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir(dir.path().join("seatrial")).unwrap();
        fs_err::write(dir.path().join("seatrial/allow"), "# ours\nsecurity.insecure # why not\n\n").unwrap();
        let config = dir.path().display().to_string();
        let allowed = locally_allowed(&environment(&[("XDG_CONFIG_HOME", &config)]));
        assert!(allowed.contains(&"security.insecure".to_owned()) && allowed.iter().all(|line| !line.contains('#')));
        assert_eq!(allow_file(&environment(&[("HOME", "/home/ann")])), Path::new("/home/ann/.config/seatrial/allow"));
    }

    #[test]
    fn ci_systems_are_told_apart() {
        assert_eq!(Ci::detect(&environment(&[("CI", "true"), ("GITHUB_ACTIONS", "true")])), Some(Ci::GitHub));
        assert_eq!(Ci::detect(&environment(&[("CI", "1"), ("GITLAB_CI", "true")])), Some(Ci::GitLab));
        assert_eq!(Ci::detect(&environment(&[("CI", "yes")])), Some(Ci::Other));
        assert_eq!(Ci::detect(&environment(&[("CI", "false")])), None);
    }
}
