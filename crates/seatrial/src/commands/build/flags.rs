//! The flags of `build`, and the request that they make.

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use clap::ArgAction;
use engine::{BuildContext, BuildRequest, DockerfileSource, HOST_GATEWAY, NamedContext, NetworkMode};
use oci::{Platform, Reference};

use super::{call::Call, no_dockerfile, run_flags::RunArgs};
use crate::{
    cli::{EngineArgs, Progress},
    context::Context,
    failure::Failure,
    settings::find_dockerfile,
    terminal::{summary::relative, text},
};

/// A Dockerfile from stdin may be this long; real ones have a few kilobytes.
const DOCKERFILE_BYTES_MAX: u64 = 16 << 20;

/// Flags of `seatrial build`.
#[derive(Debug, clap::Args)]
pub(crate) struct BuildArgs {
    /// Directory of the build context, or `-` for a Dockerfile on stdin
    #[arg(default_value = ".")]
    pub(super) context: String,

    /// Dockerfile [default: CONTEXT/Dockerfile, then CONTEXT/Containerfile]; `-` reads stdin
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Name of the image, may be repeated
    #[arg(short, long, value_name = "NAME")]
    pub(super) tag: Vec<Reference>,
    /// Stage to build instead of the last
    #[arg(long, value_name = "STAGE")]
    pub(super) target: Option<String>,
    /// Value of an ARG; without `=`, the environment's
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(super) build_arg: Vec<String>,
    /// Another context: a directory, `docker-image://NAME` or `oci-layout://DIRECTORY[:TAG]`
    #[arg(long, value_name = "NAME=PATH")]
    pub(super) build_context: Vec<String>,
    /// Label of the image
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) label: Vec<String>,
    /// Platform of the image
    #[arg(long, value_name = "PLATFORM")]
    pub(super) platform: Option<String>,
    /// Network of RUN: default, none or host
    #[arg(long, value_name = "MODE", default_value = "default")]
    pub(super) network: String,
    /// Name for /etc/hosts
    #[arg(long, value_name = "HOST:IP")]
    pub(super) add_host: Vec<String>,
    /// Ignore the cache
    #[arg(long)]
    pub(super) no_cache: bool,
    /// Ignore the cache of these stages
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(super) no_cache_filter: Vec<String>,
    /// Ask the registry for base images also when they are here
    #[arg(long)]
    pub(super) pull: bool,
    /// Where the result goes: a directory for its files, `-` for a tar of them, or
    /// type=image|registry|oci|docker|local|tar|cacheonly with options, as buildx takes them; may be repeated
    #[arg(short, long, value_name = "OUTPUT")]
    pub(super) output: Vec<String>,
    /// Annotation of the manifest; a TYPE is manifest, index, manifest-descriptor or index-descriptor, each also `[PLATFORM]`
    #[arg(long, value_name = "[TYPE:]KEY=VALUE")]
    pub(super) annotation: Vec<String>,
    /// Push the image under its names
    #[arg(long)]
    pub(super) push: bool,
    /// Nothing to do: images are always kept here
    #[arg(long)]
    pub(super) load: bool,
    /// Write the image id to a file
    #[arg(long, value_name = "FILE")]
    pub(super) iidfile: Option<PathBuf>,
    /// Write digest and names to a JSON file
    #[arg(long, value_name = "FILE")]
    pub(super) metadata_file: Option<PathBuf>,
    /// Only the image id, on stdout
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t)]
    pub(super) progress: Progress,
    /// Print the result: `json`, or a template such as `{{.Digest}}`; of a check also `sarif` or `github`
    #[arg(long)]
    pub(super) format: Option<String>,
    /// Check the Dockerfile without building
    #[arg(long)]
    pub(super) check: bool,
    /// check, outline or targets instead of building; `,format=json` as with docker
    #[arg(long, value_name = "METHOD")]
    pub(super) call: Option<String>,
    /// How long the root filesystem of a failed step is kept for `seatrial shell`
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = text::parse_duration)]
    pub(super) keep_failed: Duration,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    pub(super) engine: EngineArgs,

    /// Not supported yet
    #[arg(long, value_name = "SOURCE", hide = true)]
    cache_from: Vec<String>,
    /// Not supported yet
    #[arg(long, value_name = "TARGET", hide = true)]
    cache_to: Vec<String>,
    /// Not supported yet, except `false`
    #[arg(long, value_name = "SBOM", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sbom: Option<String>,
    /// Not supported yet, except `false`
    #[arg(long, value_name = "PROVENANCE", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    provenance: Option<String>,
    /// Not supported yet
    #[arg(long, value_name = "ATTESTATION", hide = true)]
    attest: Vec<String>,

    // Accepted in silence: what they ask for is how we work anyway.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    rm: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    force_rm: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    compress: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    disable_content_trust: Option<String>,
}

impl BuildArgs {
    /// Whether this only looks at the Dockerfile.
    pub(crate) fn is_check(&self) -> bool {
        self.check || self.call.as_deref().is_some_and(|call| call != "build")
    }

    /// `--check` and `--call`.
    pub(super) fn call(&self) -> Result<Option<Call>, Failure> {
        match self.call.as_deref() {
            None if self.check => Call::parse("check", self.format.as_deref()).map(Some),
            None | Some("build") => Ok(None),
            Some(call) => Call::parse(call, self.format.as_deref()).map(Some),
        }
    }

    /// What the view shows: `-q` is docker's.
    pub(super) fn progress(&self) -> Progress {
        if self.quiet { Progress::Quiet } else { self.progress }
    }

    /// Flags whose meaning is not delivered yet are refused, never ignored.
    pub(super) fn refuse_what_is_missing(&self) -> Result<(), Failure> {
        let is_on = |value: &Option<String>| value.as_deref().is_some_and(|value| value != "false");
        let given = [
            ("--cache-from", !self.cache_from.is_empty()),
            ("--cache-to", !self.cache_to.is_empty()),
            ("--sbom", is_on(&self.sbom)),
            ("--provenance", is_on(&self.provenance)),
            ("--attest", !self.attest.is_empty()),
        ];
        match given.iter().find(|(_, is_given)| *is_given) {
            Some((flag, _)) => {
                Err(Failure::usage(format!("`{flag}` is not supported yet")).hint(format!("build without `{flag}`")))
            }
            None => Ok(()),
        }
    }

    /// The request to the engine.
    pub(super) fn request(&self, context: &Context) -> anyhow::Result<BuildRequest> {
        let cwd = &context.settings.cwd;
        let directory = self.directory(cwd)?;
        let dockerfile = self.dockerfile(cwd, directory.as_deref())?;
        let build_args = key_values("--build-arg", &self.build_arg, true)?;
        let epoch = match build_args.get("SOURCE_DATE_EPOCH") {
            Some(text) => Some(parse_epoch(text)?),
            None => context.settings.source_date_epoch,
        };
        Ok(BuildRequest {
            stage: "build".into(),
            context: directory.map_or(BuildContext::Empty, BuildContext::Directory),
            dockerfile,
            build_contexts: self
                .build_context
                .iter()
                .map(|given| named_context(given, cwd))
                .collect::<Result<BTreeMap<_, _>, Failure>>()?,
            target: self.target.clone(),
            build_args,
            labels: key_values("--label", &self.label, false)?,
            platform: self.platform()?,
            network: network(&self.network)?,
            extra_hosts: self.add_host.iter().map(|given| extra_host(given)).collect::<Result<Vec<_>, Failure>>()?,
            run: self.run.settings(context)?,
            no_cache: self.no_cache,
            no_cache_filter: self.no_cache_filter.clone(),
            pull: self.pull,
            epoch,
            keep_failed: self.keep_failed,
            cancel: context.cancel.clone(),
        })
    }

    fn directory(&self, cwd: &Path) -> Result<Option<PathBuf>, Failure> {
        if self.context == "-" {
            return Ok(None);
        }
        if self.context.contains("://") || self.context.starts_with("git@") {
            return Err(Failure::usage(format!("a build context from `{}` is not supported yet", self.context))
                .hint("clone it, and build the directory"));
        }
        let directory = if self.context == "." { cwd.to_owned() } else { cwd.join(&self.context) };
        match directory.metadata() {
            Ok(metadata) if metadata.is_dir() => Ok(Some(directory)),
            Ok(_) => Err(Failure::usage(format!("the build context `{}` is a file", self.context))
                .hint(format!("name the Dockerfile with `-f {} .`", self.context))),
            Err(error) => Err(Failure::usage(format!("there is no build context `{}`", self.context)).because(&error)),
        }
    }

    fn dockerfile(&self, cwd: &Path, directory: Option<&Path>) -> anyhow::Result<DockerfileSource> {
        let from_stdin = self.file.as_deref().map_or(directory.is_none(), |file| file == Path::new("-"));
        if from_stdin {
            return Ok(DockerfileSource { name: "Dockerfile".into(), path: None, text: read_stdin()? });
        }
        let path = match (&self.file, directory) {
            (None, Some(directory)) => find_dockerfile(directory).ok_or_else(|| no_dockerfile(directory))?,
            (None, None) => unreachable!("without a directory the Dockerfile comes from stdin"),
            (Some(file), directory) => {
                // Docker's command line reads it from the working directory, its older one from the context.
                let here = cwd.join(file);
                let there = directory.map(|directory| directory.join(file));
                let found = [Some(here.clone()), there].into_iter().flatten().find(|path| path.is_file());
                found.ok_or_else(|| Failure::usage(format!("there is no Dockerfile {}", here.display())))?
            }
        };
        let text = fs_err::read(&path).context("cannot read the Dockerfile")?;
        let text = String::from_utf8(text)
            .map_err(|error| Failure::usage(format!("{} is not UTF-8", path.display())).because(&error))?;
        let name = relative(&path, cwd).display().to_string();
        let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
        Ok(DockerfileSource { name, path: Some(path), text })
    }

    fn platform(&self) -> Result<Platform, Failure> {
        match &self.platform {
            None => Ok(Platform::host()),
            Some(list) if list.contains(',') => {
                Err(Failure::usage("`--platform` with several platforms is not supported yet")
                    .hint("build one platform at a time"))
            }
            Some(one) => one.parse().map_err(|error| Failure::usage("`--platform` is wrong").because(&error)),
        }
    }
}

fn read_stdin() -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(DOCKERFILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .context("cannot read the Dockerfile from stdin")?;
    if bytes.len() as u64 > DOCKERFILE_BYTES_MAX {
        return Err(Failure::usage("stdin is too long for a Dockerfile").into());
    }
    // gzip, bzip2, xz, zstd, and tar's own magic: docker takes a whole context this way.
    let is_archive =
        [&b"\x1f\x8b"[..], b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"].iter().any(|magic| bytes.starts_with(magic))
            || bytes.get(257..262) == Some(b"ustar");
    if is_archive {
        return Err(Failure::usage("a build context on stdin is not supported yet")
            .hint("unpack it, and build the directory")
            .into());
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| Failure::usage("the Dockerfile on stdin is not UTF-8").because(&error))?;
    Ok(text)
}

/// `NAME=VALUE`; with `from_env`, a bare name takes the environment's value, and is left out without one.
fn key_values(flag: &str, given: &[String], from_env: bool) -> Result<BTreeMap<String, String>, Failure> {
    let mut map = BTreeMap::new();
    for entry in given {
        match entry.split_once('=') {
            Some(("", _)) => return Err(Failure::usage(format!("`{flag} {entry}` has no name"))),
            Some((name, value)) => {
                map.insert(name.to_owned(), value.to_owned());
            }
            None if from_env => {
                if let Ok(value) = std::env::var(entry) {
                    map.insert(entry.clone(), value);
                }
            }
            None => {
                map.insert(entry.clone(), String::new());
            }
        }
    }
    Ok(map)
}

fn named_context(given: &str, cwd: &Path) -> Result<(String, NamedContext), Failure> {
    let Some((name, value)) = given.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty())
    else {
        return Err(Failure::usage(format!("`--build-context {given}` is not NAME=PATH")));
    };
    let wrong = |error: &(dyn std::error::Error + 'static)| {
        Failure::usage(format!("`--build-context {given}` is wrong")).because(error)
    };
    let context = if let Some(image) = value.strip_prefix("docker-image://") {
        NamedContext::Image(image.parse().map_err(|error: oci::InvalidReference| wrong(&error))?)
    } else if let Some(layout) = value.strip_prefix("oci-layout://") {
        let (path, name) = split_layout(layout);
        NamedContext::OciLayout { path: cwd.join(path), name }
    } else if value.contains("://") {
        return Err(Failure::usage(format!("`--build-context {given}`: this kind of context is not supported yet"))
            .hint("use a directory, `docker-image://NAME` or `oci-layout://DIRECTORY[:TAG]`"));
    } else {
        let directory = cwd.join(value);
        if !directory.is_dir() {
            return Err(Failure::usage(format!(
                "`--build-context {given}`: there is no directory {}",
                directory.display()
            )));
        }
        NamedContext::Directory(directory)
    };
    Ok((name.to_owned(), context))
}

/// `PATH[:TAG|@DIGEST]`.
fn split_layout(text: &str) -> (&str, Option<String>) {
    if let Some((path, digest)) = text.split_once('@') {
        return (path, Some(digest.to_owned()));
    }
    match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') && !path.is_empty() => (path, Some(tag.to_owned())),
        _ => (text, None),
    }
}

fn network(mode: &str) -> Result<NetworkMode, Failure> {
    match mode {
        "default" | "bridge" => Ok(NetworkMode::Default),
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        other => Err(Failure::usage(format!("there is no network mode `{other}`"))
            .hint("use `--network default`, `none` or `host`")),
    }
}

/// `HOST:IP`, `HOST=IP`; IPv6 addresses may stand in brackets. `host-gateway` stands for the address of this machine.
fn extra_host(given: &str) -> Result<(String, String), Failure> {
    let wrong = || Failure::usage(format!("`--add-host {given}` is not HOST:IP"));
    let (name, address) = given.split_once('=').or_else(|| given.split_once(':')).ok_or_else(wrong)?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    if name.is_empty() || (address.parse::<std::net::IpAddr>().is_err() && address != HOST_GATEWAY) {
        return Err(wrong());
    }
    Ok((name.to_owned(), address.to_owned()))
}

fn parse_epoch(text: &str) -> Result<SystemTime, Failure> {
    let seconds: u64 =
        text.parse().map_err(|_| Failure::usage(format!("SOURCE_DATE_EPOCH is `{text}`, not a number of seconds")))?;
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .ok_or_else(|| Failure::usage(format!("SOURCE_DATE_EPOCH {text} is out of range")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_tags_and_digests() {
        assert_eq!(split_layout("/a/b"), ("/a/b", None));
        assert_eq!(split_layout("/a/b:v1"), ("/a/b", Some("v1".into())));
        assert_eq!(split_layout("./a@sha256:00"), ("./a", Some("sha256:00".into())));
        assert_eq!(split_layout("/a:b/c"), ("/a:b/c", None));
    }

    #[test]
    fn hosts_have_addresses_of_both_kinds() {
        assert_eq!(extra_host("db:10.0.0.1").unwrap(), ("db".into(), "10.0.0.1".into()));
        assert_eq!(extra_host("db=[::1]").unwrap(), ("db".into(), "::1".into()));
        assert_eq!(extra_host("db:::1").unwrap(), ("db".into(), "::1".into()));
        assert_eq!(extra_host("db:host-gateway").unwrap(), ("db".into(), "host-gateway".into()));
        assert!(extra_host("db").is_err());
        assert!(extra_host("db:host").is_err());
    }
}
