//! `seatrial.yaml` as values with places. Start at [`parse`].
//!
//! The doc comments of these types are the descriptions in the JSON Schema ([`schema`](fn@schema)).

mod before;
mod bounds;
mod environments;
mod files;
mod gates;
mod images;
mod matrix;
mod schema;
mod sections;
mod sign;
mod tags;
mod trust;
mod uses;
mod version;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub use compose::At;
use compose::{read, yaml};
use dockerfile::{Diagnostic, Span};
use schemars::JsonSchema;

pub use environments::Environment;
pub use schema::{SCHEMA_ID, schema};
pub(crate) use version::pattern;
pub use version::{GitRule, VersionRule};

/// Reads a pipeline file. The file is usable when no finding is an error.
pub fn parse(text: &str) -> (PipelineFile, Vec<Diagnostic>) {
    let mut reader = read::Reader::default();
    let root = yaml::parse(text, yaml::ParseOptions::default(), &mut reader.diagnostics);
    let file = match &root {
        Some(root) => sections::pipeline_file(&mut reader, root),
        None => PipelineFile::default(),
    };
    let mut diagnostics = reader.diagnostics;
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.as_ref().map_or(0, |span| span.start));
    (file, diagnostics)
}

/// A Seatrial pipeline: build an image, check it from the inside, await its health, name it, publish it.
#[derive(Clone, Debug, Default, JsonSchema)]
#[schemars(title = "Seatrial pipeline", deny_unknown_fields)]
pub struct PipelineFile {
    /// Name of the image with its registry, without a tag: `registry.example/team/app`.
    pub image: Option<At<String>>,
    /// What is made of the source before the image is built: commands in an image, or on this machine, whose output is added
    /// to a copy of the build context.
    #[schemars(with = "Option<schema::BeforeForm>")]
    pub before: Vec<Before>,
    /// How the image is built, in Compose's words. A text is the directory of the context.
    #[schemars(with = "Option<schema::BuildForm>")]
    pub build: Option<Build>,
    /// Several images by name, built in the order in which they need one another and otherwise side by side. What an entry does
    /// not say is taken from the top level, whose gates are those of the whole: each says `in` which image it runs.
    #[schemars(with = "Option<BTreeMap<String, schema::ImageForm>>")]
    pub images: Vec<(At<String>, ImageEntry)>,
    /// Where the version comes from; `${version}` in tags and labels, `SEATRIAL_VERSION` in gates.
    #[schemars(with = "Option<schema::VersionForm>")]
    pub version: Option<VersionRule>,
    /// Checks that run inside the built image.
    pub test: Option<Test>,
    /// How the container's own HEALTHCHECK is awaited; `false` switches it off.
    #[schemars(with = "Option<schema::HealthForm>")]
    pub health: Option<Health>,
    /// Where and under which names the image is published once it has passed; `false`: nowhere.
    #[schemars(with = "Option<schema::PublishForm>")]
    pub publish: Option<Publish>,
    /// Evidence that images have to have before builds, gates and services use them, by keys that are trusted: of the images
    /// beside those that this file publishes, or by the beginnings of names.
    #[schemars(with = "Option<schema::TrustForm>")]
    pub trust: Vec<TrustRule>,
    /// Secrets by name, for `secrets` of gates, setup commands and the build. Change requests from forks get none.
    #[schemars(with = "Option<std::collections::BTreeMap<String, SecretSource>>")]
    pub secrets: Vec<(At<String>, SecretSource)>,
    /// What is kept after runs.
    pub keep: Option<Keep>,
    /// Limits of the image; breaking one makes the verdict no.
    pub limits: Option<Limits>,
    /// Compose files whose services are this file's as well; what `services` says of one of them is merged over it.
    #[schemars(with = "Option<compose::schema::IncludeForm>")]
    pub include: Option<Section>,
    /// Containers that gates need, in Compose's words.
    #[schemars(with = "Option<BTreeMap<String, compose::schema::ServiceForm>>")]
    pub services: Option<Section>,
    /// Networks of services, in Compose's words.
    #[schemars(with = "Option<compose::schema::NamedForm>")]
    pub networks: Option<Section>,
    /// Volumes of services, in Compose's words.
    #[schemars(with = "Option<compose::schema::NamedForm>")]
    pub volumes: Option<Section>,
    /// Files for services, in Compose's words.
    #[schemars(with = "Option<compose::schema::NamedForm>")]
    pub configs: Option<Section>,
    /// Places that images come to by `seatrial promote`, one after the other; a tag of the repository stands for each.
    #[schemars(with = "Option<BTreeMap<String, schema::EnvironmentForm>>")]
    pub environments: Vec<(At<String>, Environment)>,
    /// The section `secrets` once more, for services.
    #[schemars(skip)]
    pub secret_section: Option<Section>,
}

impl PipelineFile {
    /// Whether it says anything of an image that is built here, rather than only which images are used and where they go.
    pub(crate) fn builds(&self) -> bool {
        self.build.is_some()
            || !self.before.is_empty()
            || !self.images.is_empty()
            || self.version.is_some()
            || self.test.is_some()
            || self.health.is_some()
            || self.publish.is_some()
            || self.limits.is_some()
    }
}

/// One of several images. Its keys are those of the file itself, which gives what is left out here. A text is the directory of
/// the build context.
#[derive(Clone, Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ImageEntry {
    /// Name of the image with its registry, without a tag. Default: the file's `image`, for which its images share one
    /// repository; without that, the name of the entry, which `publish.to` is put before.
    pub image: Option<At<String>>,
    /// What is made of the source before the image is built.
    #[schemars(with = "Option<schema::BeforeForm>")]
    pub before: Vec<Before>,
    /// How the image is built. In `additional_contexts`, `image:NAME` is another image of the run, which has to pass first.
    #[schemars(with = "Option<schema::BuildForm>")]
    pub build: Option<Build>,
    /// Where the version comes from.
    #[schemars(with = "Option<schema::VersionForm>")]
    pub version: Option<VersionRule>,
    /// Checks that run inside this image; the gate `unit` of the image `api` is called `api/unit`.
    pub test: Option<Test>,
    /// How the container's own HEALTHCHECK is awaited; `false` switches it off.
    #[schemars(with = "Option<schema::HealthForm>")]
    pub health: Option<Health>,
    /// Where and under which names it is published once all images have passed; `false`: nowhere.
    #[schemars(with = "Option<schema::PublishForm>")]
    pub publish: Option<Publish>,
    /// Limits of the image; breaking one makes the verdict no.
    pub limits: Option<Limits>,
}

/// A section in Compose's words, as it stands in the file; [`crate::plan()`](fn@crate::plan) reads it.
pub type Section = yaml::Entry;

impl PipelineFile {
    /// The sections that are Compose's.
    pub(crate) fn compose_sections(&self) -> Vec<Section> {
        let secrets = self.secret_section.as_ref().and_then(|section| self.compose_secrets(section));
        let sections = [&self.include, &self.services, &self.networks, &self.volumes, &self.configs];
        sections.into_iter().flatten().cloned().chain(secrets).collect()
    }

    /// The secrets that Compose's words can say. Those with a mistake are told of once, by their own reader.
    fn compose_secrets(&self, section: &Section) -> Option<Section> {
        let yaml::Kind::Map(entries) = &section.value.kind else { return None };
        if entries.len() != self.secrets.len() {
            return None;
        }
        let known = entries.iter().zip(&self.secrets).filter(|(_, (_, source))| source.command.is_none());
        let known: Vec<yaml::Entry> = known.map(|(entry, _)| entry.clone()).collect();
        let value = yaml::Node::new(yaml::Kind::Map(known), section.value.span.clone());
        Some(Section { value: Arc::new(value), ..section.clone() })
    }
}

/// Makes something of the source before the image is built: a wheel, a jar, a bundle.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Before {
    /// The place of the entry.
    #[schemars(skip)]
    pub span: Span,
    /// Image that the commands run in. Without it they run on this machine, which has to be allowed there (`before.host`).
    #[schemars(rename = "in")]
    pub image: Option<At<String>>,
    /// Commands for `/bin/sh -e`, in a copy of the build context. In an image they are cached by the files of the context
    /// that Git does not ignore.
    #[schemars(with = "schema::TextsForm")]
    pub run: Vec<At<String>>,
    /// Files that are added to the build context, as patterns relative to it: `dist/*.whl`. Each has to match something.
    #[schemars(with = "schema::TextsForm")]
    pub output: Vec<At<String>>,
    /// Environment of the commands.
    #[schemars(with = "Option<schema::PairsForm>")]
    pub environment: Pairs,
}

/// How the image is built.
#[derive(Clone, Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Build {
    /// Directory that COPY reads from, relative to this file. Default: this file's directory.
    pub context: Option<At<String>>,
    /// Path of the Dockerfile, relative to the context. Default: `Dockerfile`, else `Containerfile`.
    pub dockerfile: Option<At<String>>,
    /// The Dockerfile itself.
    pub dockerfile_inline: Option<At<String>>,
    /// Stage to build. Default: the last one.
    pub target: Option<At<String>>,
    /// Build arguments; one without a value is taken from the environment.
    #[schemars(with = "Option<schema::PairsForm>")]
    pub args: Pairs,
    /// Labels of the image.
    #[schemars(with = "Option<schema::PairsForm>")]
    pub labels: Pairs,
    /// Names that FROM and COPY --from may use: a directory, a Git repository, a URL, `docker-image://…`, `oci-layout://…`, or
    /// `image:NAME` of another image of the run.
    #[schemars(with = "Option<schema::PairsForm>")]
    pub additional_contexts: Pairs,
    /// Network of RUN.
    #[schemars(with = "Option<schema::NetworkForm>")]
    pub network: Option<At<String>>,
    /// Platform to build for, such as `linux/arm64`. Default: this machine's.
    pub platform: Option<At<String>>,
    /// Names for `/etc/hosts`, as `name=address`.
    #[schemars(with = "Option<schema::PairsForm>")]
    pub extra_hosts: Pairs,
    /// Secrets for `RUN --mount=type=secret`: names, or maps with `source` and `target` (the id).
    #[schemars(with = "Option<Vec<schema::SecretForm>>")]
    pub secrets: Vec<SecretUse>,
    /// Build without the cache.
    #[schemars(with = "Option<bool>")]
    pub no_cache: bool,
    /// Ask the registry for newer base images.
    #[schemars(with = "Option<bool>")]
    pub pull: bool,
    /// Labels of the OCI annotation keys: `org.opencontainers.image.created` (the commit's time), `revision`, `source`, `version`,
    /// `ref.name`, `title`. Those that the Dockerfile or `labels` has stay as they are.
    #[schemars(with = "Option<bool>")]
    pub oci_labels: bool,
}

/// Names with values; without a value, the environment's.
pub type Pairs = Vec<(At<String>, Option<At<String>>)>;

/// Checks that run inside the built image. All but `setup` and `gates` are defaults of the gates.
#[derive(Clone, Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Test {
    /// Working directory. Default: the image's.
    pub workdir: Option<At<String>>,
    /// User, as `name[:group]` or numbers. Default: the image's.
    pub user: Option<At<String>>,
    /// Environment beside the image's own.
    #[schemars(with = "Option<schema::PairsForm>")]
    pub environment: Pairs,
    /// Program that starts the shell of each gate. Default: none; the image's ENTRYPOINT is not used.
    #[schemars(with = "Option<schema::TextsForm>")]
    pub entrypoint: Option<Vec<At<String>>>,
    /// Files and directories of the repository that gates see: `path`, or `path:target[:rw]`.
    #[schemars(with = "Option<Vec<schema::MountForm>>")]
    pub mounts: Vec<Mount>,
    /// Commands that run once on the built image, in a layer that is cached and never published.
    #[schemars(with = "Option<schema::SetupForm>")]
    pub setup: Vec<SetupStep>,
    /// The checks by name. They run side by side; each starts from a fresh copy of the image with its setup.
    #[schemars(with = "Option<std::collections::BTreeMap<String, schema::GateForm>>")]
    pub gates: Vec<(At<String>, Gate)>,
    /// Time after which a gate is stopped.
    #[schemars(with = "Option<schema::DurationForm>")]
    pub timeout: Option<Duration>,
    /// Further attempts of a gate that failed, each from a fresh copy.
    #[schemars(with = "Option<u32>")]
    pub retries: Option<u32>,
    /// Bounds and surroundings of the gates.
    #[schemars(flatten)]
    pub bounds: Bounds,
    /// Services.
    #[schemars(flatten)]
    pub uses: Uses,
}

/// What a gate may have of the machine, in Compose's words.
#[derive(Clone, Debug, Default, JsonSchema)]
pub struct Bounds {
    /// Most memory, such as `512m` or `2g`.
    #[schemars(with = "Option<schema::SizeForm>")]
    pub mem_limit: Option<u64>,
    /// Most processor time, in processors: `1.5`.
    #[schemars(with = "Option<schema::NumberForm>")]
    pub cpus: Option<f64>,
    /// Most processes and threads.
    #[schemars(with = "Option<u32>")]
    pub pids_limit: Option<u64>,
    /// Size of `/dev/shm`. Default: `64m`.
    #[schemars(with = "Option<schema::SizeForm>")]
    pub shm_size: Option<u64>,
    /// Empty file systems in memory: `/path`, or `/path:size=64m,mode=1777`.
    #[schemars(with = "Option<schema::TextsForm>")]
    pub tmpfs: Vec<TmpfsRule>,
    /// Resource limits of each process: `nofile: 1024`, or `nofile: {soft: 1024, hard: 4096}`.
    #[schemars(with = "Option<schema::UlimitsForm>")]
    pub ulimits: Vec<UlimitRule>,
    /// `default` (outgoing connections), `none` (loopback only) or `host`, where this machine allows it.
    #[schemars(with = "Option<schema::NetworkForm>")]
    pub network: Option<At<String>>,
    /// Secrets that are shown as files, at `/run/secrets/NAME` unless a `target` says otherwise.
    #[schemars(with = "Option<Vec<schema::SecretForm>>")]
    pub secrets: Vec<SecretUse>,
}

/// An empty file system in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TmpfsRule {
    /// Absolute path inside.
    pub target: At<String>,
    /// Most bytes.
    pub size: Option<u64>,
    /// Permission bits.
    pub mode: Option<u32>,
}

/// A resource limit of processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UlimitRule {
    /// `nofile`, `nproc`, ….
    pub name: String,
    /// In the limit's own unit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// At least `soft`.
    pub hard: u64,
}

/// Where a secret's content comes from; one of the keys.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SecretSource {
    /// Environment variable that holds it.
    pub environment: Option<At<String>>,
    /// File of the repository that holds it, relative to this file.
    pub file: Option<At<String>>,
    /// Command on this machine that says it, for `/bin/sh -e`: `pass show pypi`. It has to be allowed there (`secrets.command`).
    pub command: Option<At<String>>,
}

/// A secret that is shown to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUse {
    /// Its name.
    pub source: At<String>,
    /// Name below `/run/secrets`, or absolute path. Default: the secret's name.
    pub target: Option<String>,
    /// Permission bits. Default: 0444.
    pub mode: Option<u32>,
    /// Owner. Default: root.
    pub uid: Option<u32>,
    /// Group. Default: root.
    pub gid: Option<u32>,
}

/// Values that a gate is run with, one gate for each combination (GitHub Actions, `strategy.matrix`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matrix {
    /// The place of the key.
    pub span: Span,
    /// Variables with their values, in the order of the file.
    pub axes: Vec<(At<String>, Vec<At<String>>)>,
    /// Further values for combinations, or further combinations.
    pub include: Vec<Combination>,
    /// Combinations that are left out.
    pub exclude: Vec<Combination>,
}

/// Variables with one value each.
pub type Combination = Vec<(At<String>, At<String>)>;

/// The services that a gate uses.
#[derive(Clone, Debug, Default, JsonSchema)]
pub struct Uses {
    /// Services that are up while the gate runs, shared with other gates; as `{fresh: [NAME]}`, the gate's own.
    #[schemars(with = "Option<schema::UsesForm>")]
    pub services: Vec<At<String>>,
    /// Services that the gate is told of as docker's links do: `db`, or `db:alias`. They are up as well.
    #[schemars(with = "Option<schema::TextsForm>")]
    pub links: Vec<At<String>>,
    /// The services are started for this gate alone.
    #[schemars(skip)]
    pub fresh: bool,
}

/// A file or directory of the repository that is shown inside.
#[derive(Clone, Debug)]
pub struct Mount {
    /// Path relative to the pipeline file.
    pub source: At<String>,
    /// Path inside; relative ones are below the working directory. Default: the source.
    pub target: Option<String>,
    /// Whether writing is refused.
    pub readonly: bool,
}

/// One command of the setup.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SetupStep {
    /// The command, for `/bin/sh -ec`.
    pub run: At<String>,
    /// User. Default: the one of `test`, else the image's.
    pub user: Option<At<String>>,
    /// Secrets that are shown as files. What they hold is no part of the cache's key.
    #[schemars(with = "Option<Vec<schema::SecretForm>>")]
    pub secrets: Vec<SecretUse>,
}

/// A check: commands that run inside the built image. Its verdict is their exit code.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Gate {
    /// The place of the whole gate.
    #[schemars(skip)]
    pub span: Span,
    /// Another image to run in, such as `docker.io/library/node:22`, or the name of an image of the run. Default: the built
    /// image with its setup.
    #[schemars(rename = "in")]
    pub image: Option<At<String>>,
    /// One gate for each combination of values, which are variables of its environment and of its templates.
    #[schemars(with = "Option<schema::MatrixForm>")]
    pub matrix: Option<Matrix>,
    /// Commands for `/bin/sh -e`, in one shell; the first that fails ends the gate.
    #[schemars(with = "Option<schema::TextsForm>")]
    pub run: Vec<At<String>>,
    /// User, instead of the one of `test`.
    pub user: Option<At<String>>,
    /// Working directory, instead of the one of `test`.
    pub workdir: Option<At<String>>,
    /// Environment, added to the one of `test`.
    #[schemars(with = "Option<schema::PairsForm>")]
    pub environment: Pairs,
    /// Mounts, added to those of `test`.
    #[schemars(with = "Option<Vec<schema::MountForm>>")]
    pub mounts: Vec<Mount>,
    /// Program that starts the shell; without `run`, the whole command.
    #[schemars(with = "Option<schema::TextsForm>")]
    pub entrypoint: Option<Vec<At<String>>>,
    /// Reports that the gate writes below `$SEATRIAL_REPORTS`; collected also when it fails.
    #[schemars(with = "Option<schema::ReportsForm>")]
    pub reports: Vec<(String, Vec<At<String>>)>,
    /// Gates that must have passed before this one starts.
    #[schemars(with = "Option<schema::TextsForm>")]
    pub needs: Vec<At<String>>,
    /// A failure is shown and does not stop anything.
    #[schemars(with = "Option<bool>")]
    pub allow_failure: bool,
    /// Time after which the gate is stopped.
    #[schemars(with = "Option<schema::DurationForm>")]
    pub timeout: Option<Duration>,
    /// Further attempts when it fails, each from a fresh copy; what passes then is shown as flaky.
    #[schemars(with = "Option<u32>")]
    pub retries: Option<u32>,
    /// Run it also when it passed before with the same image, definition and files.
    #[schemars(with = "Option<bool>")]
    pub rerun: bool,
    /// Bounds and surroundings, instead of those of `test`.
    #[schemars(flatten)]
    pub bounds: Bounds,
    /// Services.
    #[schemars(flatten)]
    pub uses: Uses,
}

/// How the container's own HEALTHCHECK is awaited.
#[derive(Clone, Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Health {
    /// The place of the section.
    #[schemars(skip)]
    pub span: Span,
    /// `health: false`.
    #[schemars(skip)]
    pub off: bool,
    /// Longest time between two attempts. Default: the HEALTHCHECK's.
    #[schemars(with = "Option<schema::DurationForm>")]
    pub interval: Option<Duration>,
    /// Attempts until giving up. Default: the HEALTHCHECK's retries.
    #[schemars(with = "Option<u32>")]
    pub attempts: Option<u32>,
    /// Time for one attempt. Default: the HEALTHCHECK's.
    #[schemars(with = "Option<schema::DurationForm>")]
    pub timeout: Option<Duration>,
    /// Time after the start in which failures do not count. Default: the HEALTHCHECK's.
    #[schemars(with = "Option<schema::DurationForm>")]
    pub start_period: Option<Duration>,
    /// Command instead of the image's HEALTHCHECK: a text for the shell, or a list of arguments.
    #[schemars(with = "Option<schema::TextsForm>")]
    pub command: Option<At<Vec<String>>>,
    /// Prove that the check can fail and that the container ends when asked: the healthy container is frozen and has to be
    /// unhealthy, then gets its stop signal and has to end within `stop_grace_period`.
    #[schemars(with = "Option<bool>")]
    pub prove: bool,
    /// Time between the stop signal and SIGKILL when that is proven. Default: 10s.
    #[schemars(with = "Option<schema::DurationForm>")]
    pub stop_grace_period: Option<Duration>,
    /// Variables of the container, over the image's.
    #[schemars(with = "Option<schema::PairsForm>")]
    pub environment: Pairs,
    /// Services that the container needs; they are started for it alone.
    #[schemars(flatten)]
    pub uses: Uses,
}

/// Where and under which names the image is published once it has passed.
#[derive(Clone, Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Publish {
    /// `publish: false`.
    #[schemars(skip)]
    pub off: bool,
    /// Registries, with a namespace if wanted, that the image's path is appended to. Default: the registry in `image`.
    #[schemars(with = "Option<schema::TextsForm>")]
    pub to: Vec<At<String>>,
    /// Conditions: of a list one must hold, of a map all. Default: always.
    #[schemars(with = "Option<schema::WhenForm>")]
    pub when: Vec<WhenRule>,
    /// Tags, as templates; one whose value is absent is skipped. Default: the short commit and the branch.
    #[schemars(with = "Option<schema::TagsForm>")]
    pub tags: Option<Vec<Tag>>,
    /// What all tags have in common: prefix, suffix, variants, and whether `latest` comes along.
    #[schemars(with = "Option<schema::FlavorForm>")]
    pub flavor: Option<Flavor>,
    /// Git tag that is made at the commit and pushed to `origin` once everything is published: `v${version}`.
    pub git_tag: Option<At<String>>,
    /// Who signs what is said of the image (how it was built, that its gates passed, its packages), which is attached to it.
    #[schemars(with = "Option<schema::SignForm>")]
    pub sign: Option<Sign>,
    /// Packages and other files that are published before the image has its tags: to an index of Python, npm or cargo, or as an
    /// artefact of a registry.
    #[schemars(with = "Option<schema::FilesForm>")]
    pub files: Vec<PublishFiles>,
}

/// Who signs what is said of a published image.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Sign {
    /// Place of the private key: a file of the repository, `env://NAME`, or `exec://PROGRAM`, where this machine allows it.
    pub key: At<String>,
    /// List of packages that is attached: `spdx` (the default), `cyclonedx`, or `false` for none.
    #[schemars(with = "Option<schema::SbomForm>")]
    pub sbom: Option<SbomFormat>,
}

/// What is asked of images.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename = "Trust", deny_unknown_fields)]
pub struct TrustRule {
    /// The place of the rule.
    #[schemars(skip)]
    pub span: Span,
    /// The beginning of their names, up to a slash; `None`: those beside the file's own.
    #[schemars(skip)]
    pub prefix: Option<At<String>>,
    /// Files with public keys in PEM, or the keys themselves.
    #[schemars(with = "schema::TextsForm")]
    pub keys: Vec<At<String>>,
    /// What they need before they are used: `signature`, `gates`, `provenance`, `sbom`. Default: nothing.
    #[schemars(with = "Option<schema::RequirementsForm>")]
    pub pull: Vec<At<String>>,
}

/// Formats of lists of packages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SbomFormat {
    /// SPDX 2.3.
    #[default]
    Spdx,
    /// CycloneDX 1.6.
    Cyclonedx,
}

/// Files that are published to one place.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PublishFiles {
    /// The place of the entry.
    #[schemars(skip)]
    pub span: Span,
    /// `image`: commands in the built image make them. Without it they are what `before` makes.
    #[schemars(rename = "in", with = "Option<schema::InForm>")]
    pub image: Option<At<String>>,
    /// Commands for `/bin/sh -e` in a container of the image that passed; they write to `$SEATRIAL_OUT`.
    #[schemars(with = "Option<schema::TextsForm>")]
    pub run: Vec<At<String>>,
    /// Which files, as patterns: `dist/*.whl`. Each has to match something. Default: all at the top of `$SEATRIAL_OUT`.
    #[schemars(with = "Option<schema::TextsForm>")]
    pub path: Vec<At<String>>,
    /// Where to: `pypi:URL`, `npm:URL`, `crates:URL` or `oci:REGISTRY/REPOSITORY:TAG`. May be a template.
    pub to: At<String>,
    /// Name of the secret with the password or token: of one in `secrets`, else of the environment variable that holds it.
    pub secret: Option<At<String>>,
    /// Name of the user. Default: `__token__` for an index of Python; npm and cargo take the secret alone.
    pub user: Option<At<String>>,
}

/// A tag and when it is used: a template, or a kind in the words of docker/metadata-action, which is also read as its own line:
/// `type=semver,pattern={{version}}`.
#[derive(Clone, Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Tag {
    /// The place of the entry.
    #[schemars(skip)]
    pub span: Span,
    /// The template: `${version}`, `${git.branch}`, `latest`.
    pub tag: Option<At<String>>,
    /// Conditions: of a list one must hold, of a map all. Default: always.
    #[schemars(with = "Option<schema::WhenForm>")]
    pub when: Vec<WhenRule>,
    /// `semver` and `pep440` (1.2.3, 1.2, 1), `ref` (branch, Git tag, `pr-2`), `sha` (`sha-3f2a91c`), `edge`, `schedule` (`nightly`),
    /// `date`, `match` (a part of the Git tag), `build` (`build-42`), `raw`.
    #[schemars(rename = "type", with = "Option<schema::TagKindForm>")]
    pub kind: Option<At<String>>,
    /// Of `semver`, `pep440` and `schedule`: `{{major}}.{{minor}}`; of `match` a regular expression.
    #[schemars(with = "Option<schema::TextsForm>")]
    pub pattern: Vec<At<String>>,
    /// Of `semver` and `pep440`: a regular expression whose first group is the version in the Git tag: `api-v(.*)`. No other tags count.
    #[schemars(rename = "match")]
    pub within: Option<At<String>>,
    /// What is taken instead of the version or Git tag; of `raw` the tag itself.
    #[schemars(with = "Option<schema::ScalarForm>")]
    pub value: Option<At<String>>,
    /// Of `ref`: `branch`, `tag` or `pr`.
    #[schemars(with = "Option<schema::RefEventForm>")]
    pub event: Option<At<String>>,
    /// Of `edge`. Default: the repository's default branch.
    pub branch: Option<At<String>>,
    /// Of `sha`: `short` or `long`. Of `date`: `YYYYMMDD`, or `%Y%m%d`.
    pub format: Option<At<String>>,
    /// Of `match`: the group that is the tag. Default: 0, all of it.
    #[schemars(with = "Option<u32>")]
    pub group: Option<usize>,
    /// Of `date`: a time zone such as `Europe/Berlin` or `+02:00`. Default: UTC.
    pub tz: Option<At<String>>,
    /// Of `date`: the time of the `commit` (default) or of the `run`.
    #[schemars(with = "Option<schema::DateOfForm>")]
    pub of: Option<At<String>>,
    /// Before the tag. Default: `sha-`, `pr-` and `build-` for these kinds, else the flavour's.
    pub prefix: Option<At<String>>,
    /// After the tag. Default: the flavour's.
    pub suffix: Option<At<String>>,
    /// Whether the rule is used: `true`, `false`, or a template that becomes one of them.
    #[schemars(with = "Option<schema::EnableForm>")]
    pub enable: Option<At<String>>,
    /// Of the tags that apply, the one with the highest priority decides whether `latest` comes along.
    pub priority: Option<u32>,
    /// Of `semver` and `pep440` without a pattern: `0` for 0.1.2 as well.
    #[schemars(with = "Option<bool>")]
    pub major_zero: bool,
}

/// What all tags have in common.
#[derive(Clone, Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Flavor {
    /// Whether `latest` comes along: `auto` with a release that a Git tag names, `true`, `false`. Default: `auto`.
    #[schemars(with = "Option<schema::LatestForm>")]
    pub latest: Option<At<String>>,
    /// Before every tag but the `latest` that comes by itself.
    pub prefix: Option<At<String>>,
    /// After every tag but the `latest` that comes by itself.
    pub suffix: Option<At<String>>,
    /// The prefix is put before `latest` as well.
    #[schemars(rename = "onlatest", with = "Option<bool>")]
    pub prefix_latest: bool,
    /// The same of the suffix.
    #[schemars(skip)]
    pub suffix_latest: bool,
    /// Every tag once for each of these: `alpine` gives `1.2.3-alpine`, and `alpine` for `latest`; an empty one is the tag itself.
    #[schemars(with = "Option<schema::TextsForm>")]
    pub variants: Vec<At<String>>,
}

/// Conditions; all of them must hold, and of each list one pattern. Patterns are globs: `*` stops at `/`, `**` does not.
#[derive(Clone, Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WhenRule {
    /// Branch names.
    #[schemars(with = "Option<schema::TextsForm>")]
    pub branch: Vec<At<String>>,
    /// `push`, `tag`, `pull_request` or `schedule`. Change requests are never published.
    #[schemars(with = "Option<schema::EventsForm>")]
    pub event: Vec<At<String>>,
    /// Git tags.
    #[schemars(with = "Option<schema::TextsForm>")]
    pub tag: Vec<At<String>>,
    /// Files that the commit changed.
    #[schemars(with = "Option<schema::TextsForm>")]
    pub path: Vec<At<String>>,
    /// Environment variables with patterns; a name alone means that it is set.
    #[schemars(with = "Option<schema::PairsForm>")]
    pub env: Pairs,
}

/// What is kept after runs.
#[derive(Clone, Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Keep {
    /// How long the root filesystem of a failed step can be entered. Default: 2h.
    #[schemars(with = "Option<schema::DurationForm>")]
    pub failed: Option<Duration>,
    /// Number of runs whose logs and reports are kept. Default: 50.
    #[schemars(with = "Option<u32>")]
    pub runs: Option<u64>,
}

/// Limits of the image; breaking one makes the verdict no.
#[derive(Clone, Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Limits {
    /// Number of layers.
    #[schemars(with = "Option<u32>")]
    pub layers: Option<u64>,
    /// Size of all layers, uncompressed, such as `300MB`.
    #[schemars(with = "Option<schema::SizeForm>")]
    pub size: Option<u64>,
    /// Size of the layers that the image adds to its base, uncompressed: what a deployment moves where the base is already.
    #[schemars(with = "Option<schema::SizeForm>")]
    pub above_base: Option<u64>,
}

#[cfg(test)]
mod tests;
