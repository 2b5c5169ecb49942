//! The flags of `build`, and the request that they make.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use clap::ArgAction;
use engine::{BuildRequest, HOST_GATEWAY, Material, NetworkMode};
use oci::{Platform, Reference};

use super::{
    attest::Attestations,
    call::Call,
    run_flags::RunArgs,
    source::{self, LazyEngine, Source, named_context},
};
use crate::{
    cli::{EngineArgs, Progress},
    commands::{cache::CacheArgs, run::PipelineArgs},
    context::Context,
    failure::Failure,
    terminal::text,
};

/// Go knows some fifty platforms, and each is built on threads of its own.
const PLATFORMS_MAX: usize = 16;

/// Flags of `seatrial build`.
#[derive(Debug, clap::Args)]
pub(crate) struct BuildArgs {
    /// Build context: a directory, Git repository or URL, or `-` for an archive or Dockerfile on stdin; or `image:NAME` of
    /// `images:` in the pipeline file, with those that it is built on
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
    /// Another context: a directory, Git repository, URL, `docker-image://NAME`, `oci-layout://DIRECTORY[:TAG]` or
    /// `target:STAGE`
    #[arg(long, value_name = "NAME=SOURCE")]
    pub(super) build_context: Vec<String>,
    /// Label of the image
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) label: Vec<String>,
    /// Platform of the image; several (`linux/amd64,linux/arm64`) make an image for each, under one name
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub(super) platform: Vec<String>,
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
    /// List the packages of the image in its index, or in a file beside its files, as buildx does (SPDX)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) sbom: Option<String>,
    /// Say in the same place how the image was built (SLSA): `true`, `mode=min`, or `mode=max` with the values of build arguments
    /// and the Dockerfile
    #[arg(long, value_name = "OPTIONS", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) provenance: Option<String>,
    /// The same in full: `type=sbom`, or `type=provenance` with mode, builder-id, reproducible, disabled
    #[arg(long, value_name = "ATTESTATION")]
    pub(super) attest: Vec<String>,
    /// Private key that signs what is pushed, and what is said of it: a file, `env://NAME`, or `exec://PROGRAM`
    #[arg(long, value_name = "KEY")]
    pub(super) sign_key: Option<String>,
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
    pub(super) cache: CacheArgs,
    #[command(flatten)]
    pub(super) engine: EngineArgs,

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

    /// Whether the store is needed: for a build, and for a context that has to be fetched or unpacked.
    pub(crate) fn needs_store(&self) -> bool {
        !self.is_check() || source::may_need_fetching(&self.context) || self.file.as_deref().is_some_and(source::is_web)
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

    /// What is to be said in the image's index.
    pub(super) fn attestations(&self) -> Result<Attestations, Failure> {
        Attestations::parse(self.sbom.as_deref(), self.provenance.as_deref(), &self.attest)
    }

    /// The image of the pipeline file that is named instead of a context.
    pub(super) fn pipeline_image(&self) -> Option<&str> {
        self.context.strip_prefix("image:")
    }

    /// Flags that go with an image of the pipeline file; the others it says itself.
    pub(super) fn for_pipeline(&self) -> Result<PipelineArgs, Failure> {
        let is_given = [
            ("--file", self.file.is_some()),
            ("--tag", !self.tag.is_empty()),
            ("--target", self.target.is_some()),
            ("--build-arg", !self.build_arg.is_empty()),
            ("--build-context", !self.build_context.is_empty()),
            ("--label", !self.label.is_empty()),
            ("--platform", !self.platform.is_empty()),
            ("--network", self.network != "default"),
            ("--add-host", !self.add_host.is_empty()),
            ("--no-cache-filter", !self.no_cache_filter.is_empty()),
            ("--output", !self.output.is_empty()),
            ("--annotation", !self.annotation.is_empty()),
            ("--push", self.push),
            ("--sbom", self.sbom.is_some()),
            ("--provenance", self.provenance.is_some()),
            ("--attest", !self.attest.is_empty()),
            ("--sign-key", self.sign_key.is_some()),
            ("--iidfile", self.iidfile.is_some()),
            ("--metadata-file", self.metadata_file.is_some()),
            ("--format", self.format.is_some()),
            ("--check", self.is_check()),
        ];
        match is_given.iter().find(|(_, is_given)| *is_given) {
            Some((flag, _)) => Err(Failure::usage(format!("`{flag}` does not go with an image of the pipeline file"))
                .hint("say it in `build:` or `publish:` of the image; what is built has a name that `tag`, `push` and `save` take")),
            None => Ok(PipelineArgs::of_build(self.no_cache, self.pull, self.progress(), &self.cache, &self.engine)),
        }
    }

    /// The request to the engine, and what was fetched as its context.
    pub(super) fn request(
        &self,
        context: &Context,
        engine: &LazyEngine<'_>,
    ) -> anyhow::Result<(BuildRequest, Option<Material>)> {
        let cwd = &context.settings.cwd;
        let build_args = key_values("--build-arg", &self.build_arg, true)?;
        let epoch = match build_args.get("SOURCE_DATE_EPOCH") {
            Some(text) => Some(parse_epoch(text)?),
            None => context.settings.source_date_epoch,
        };
        let source = Source::find(self, &build_args, context, engine)?;
        let request = BuildRequest {
            stage: "build".into(),
            context: source.context,
            dockerfile: source.dockerfile,
            build_contexts: self
                .build_context
                .iter()
                .map(|given| named_context(given, cwd))
                .collect::<Result<BTreeMap<_, _>, Failure>>()?,
            target: self.target.clone(),
            build_args,
            labels: key_values("--label", &self.label, false)?,
            platform: self.platforms()?.swap_remove(0),
            network: network(&self.network)?,
            extra_hosts: self.add_host.iter().map(|given| extra_host(given)).collect::<Result<Vec<_>, Failure>>()?,
            run: self.run.settings(context)?,
            no_cache: self.no_cache,
            no_cache_filter: self.no_cache_filter.clone(),
            pull: self.pull,
            epoch: epoch.or(source.time),
            keep_failed: self.keep_failed,
            cancel: context.cancel.clone(),
        };
        Ok((request, source.material))
    }

    /// The platforms to build for, each once; at least one.
    pub(super) fn platforms(&self) -> Result<Vec<Platform>, Failure> {
        let mut platforms: Vec<Platform> = Vec::new();
        for given in self.platform.iter().filter(|given| !given.is_empty()) {
            let platform =
                given.trim().parse().map_err(|error| Failure::usage("`--platform` is wrong").because(&error))?;
            if !platforms.contains(&platform) {
                platforms.push(platform);
            }
        }
        if platforms.is_empty() {
            platforms.push(Platform::host());
        }
        if platforms.len() > PLATFORMS_MAX {
            return Err(Failure::usage(format!("`--platform`: more than {PLATFORMS_MAX} platforms")));
        }
        Ok(platforms)
    }
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
    fn hosts_have_addresses_of_both_kinds() {
        assert_eq!(extra_host("db:10.0.0.1").unwrap(), ("db".into(), "10.0.0.1".into()));
        assert_eq!(extra_host("db=[::1]").unwrap(), ("db".into(), "::1".into()));
        assert_eq!(extra_host("db:::1").unwrap(), ("db".into(), "::1".into()));
        assert_eq!(extra_host("db:host-gateway").unwrap(), ("db".into(), "host-gateway".into()));
        assert!(extra_host("db").is_err());
        assert!(extra_host("db:host").is_err());
    }
}
