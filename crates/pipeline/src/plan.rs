//! File and source to a [`Plan`]: pure data that can be printed, compared and tested without a container.

mod before;
mod bounds;
pub(crate) mod build;
mod environments;
mod files;
mod gates;
mod images;
mod labels;
mod matrix;
mod services;
mod tags;
mod test;
mod trust;
mod uses;
mod version;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

pub use test::{
    BoundsPlan, CommandPlan, GatePlan, ImagePlan, MountPlan, SecretPlan, SecretUsePlan, TestPlan, TmpfsPlan, UlimitPlan,
};

use dockerfile::{Diagnostic, Span, line_column};
use events::Place;
use evidence::KeySource;
use oci::Reference;
use serde::Serialize;

use crate::{
    Flavor, Source, SourceText, TagRule, Values, When, codes,
    file::{At, Pairs, PipelineFile, Publish, SbomFormat, Sign, Uses, WhenRule},
    interpolate::{self, TemplateError},
};

pub(crate) use build::{NAME_DOCKERFILE, NO_DOCKERFILE};
pub use environments::EnvironmentPlan;
pub use files::FilesPlan;
pub(crate) use images::OF_RUN;
pub use services::ServicesPlan;
pub use trust::{TrustPlan, TrustedKey};
pub use uses::UsesPlan;

/// What will be done. Serialises to what `seatrial config` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Name of what is built, for people: the last part of the image's name, or the name of the entry of `images`.
    pub name: String,
    /// The entry of `images` that this is the plan of.
    #[serde(skip)]
    pub entry: Option<String>,
    /// With `images`, the plan of each. Then this plan builds nothing itself: its gates are those of the whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Plan>,
    /// Repository of the image, without a tag.
    pub image: Reference,
    /// Whether [`Plan::image`] was given by the file; otherwise it is made from the directory's name.
    pub image_is_given: bool,
    /// The pipeline file, as the user would name it.
    pub file: Option<String>,
    /// What Git said.
    pub source: Source,
    /// Where the version comes from.
    pub version: Version,
    /// What is made of the source before the build.
    pub before: Vec<BeforePlan>,
    /// The build.
    pub build: BuildPlan,
    /// The gates.
    pub test: TestPlan,
    /// Where secrets come from, by name. Nothing is read before a run needs it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretPlan>,
    /// The health check.
    pub health: HealthPlan,
    /// The services that gates may need.
    pub services: ServicesPlan,
    /// What local tags begin with, so that images of one repository differ: `base-`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tag_prefix: String,
    /// Local tags; always the short commit and the branch.
    pub local_tags: Vec<TagRule>,
    /// Publishing; `None` when the file does not say so.
    pub publish: Option<PublishPlan>,
    /// Places that images come to, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<EnvironmentPlan>,
    /// What images need before they are used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trust: Vec<TrustPlan>,
    /// What is kept for how long.
    pub keep: KeepPlan,
    /// Limits of the image.
    pub limits: LimitsPlan,
    /// What templates are filled in with.
    #[serde(skip)]
    pub values: Values,
}

/// What a plan is made of.
#[derive(Clone, Copy, Debug)]
pub struct PlanInputs<'a> {
    /// The file's values; the default where there is no file.
    pub file: &'a PipelineFile,
    /// The file's text, for places; `None` where there is no file.
    pub text: Option<&'a SourceText>,
    /// Directory that paths are relative to: the file's. Absolute, links resolved.
    pub base: &'a Path,
    /// What Git said.
    pub source: &'a Source,
    /// The environment of the program.
    pub env: &'a BTreeMap<String, String>,
    /// Number of the run; without one, templates see 0, so that a plan can be looked at before there is a run.
    pub run_number: Option<u64>,
}

/// Makes the plan, and says what is wrong with the file. The plan may only be followed when no finding is an error.
///
/// Looks at the file system to resolve paths; changes nothing.
pub fn plan(inputs: PlanInputs<'_>) -> (Plan, Vec<Diagnostic>) {
    let PlanInputs { file, text, base, source, env, run_number } = inputs;
    let values = Values::of(source, Some(run_number.unwrap_or(0)), env.clone());
    let root = source.root.clone().unwrap_or_else(|| base.to_path_buf());
    let root = root.canonicalize().unwrap_or(root);
    let mut planner = Planner {
        text,
        base,
        root,
        source,
        values,
        secrets: BTreeMap::new(),
        names: Vec::new(),
        entry: None,
        image_uses: Vec::new(),
        diagnostics: Vec::new(),
    };
    planner.secrets = bounds::secrets(&mut planner, &file.secrets);

    let plan = if file.images.is_empty() {
        let plan = planner.image(file, None);
        let services = services::services(&mut planner, file, &plan.image);
        uses::check(&mut planner, file, &services.project);
        Plan { services, ..plan }
    } else {
        images::solution(&mut planner, file)
    };
    let mut diagnostics = planner.diagnostics;
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.as_ref().map_or(0, |span| span.start));
    (plan, diagnostics)
}

/// Long enough to look at a failure after lunch.
const KEEP_FAILED_DEFAULT: Duration = Duration::from_secs(2 * 60 * 60);
/// A few weeks of one person's work.
const KEEP_RUNS_DEFAULT: usize = 50;

/// The short commit and the branch.
fn local_tags(prefix: &str) -> Vec<TagRule> {
    ["${git.short}", "${git.branch}"].map(|tag| TagRule { tag: format!("{prefix}{tag}"), ..TagRule::default() }).into()
}

impl Plan {
    /// Whether a rule asks which files changed, so that [`Source::changed`] has to be known.
    pub fn needs_changed_paths(file: &PipelineFile) -> bool {
        let of_images = file.images.iter().filter_map(|(_, image)| image.publish.as_ref());
        file.publish.iter().chain(of_images).any(|publish| {
            let tags = publish.tags.iter().flatten().flat_map(|tag| &tag.when);
            publish.when.iter().chain(tags).any(|when| !when.path.is_empty())
        })
    }

    /// The stage of this name: with several images, `api/build` is the build of the image `api`.
    pub fn stage(&self, name: &str) -> String {
        match &self.entry {
            Some(entry) => format!("{entry}/{name}"),
            None => name.to_owned(),
        }
    }

    /// Where the image is known: where it is published, and the name that the file gives it.
    fn own_names(&self) -> Vec<Reference> {
        let published = self.publish.iter().flat_map(|publish| &publish.repositories);
        published.chain(self.image_is_given.then_some(&self.image)).cloned().collect()
    }

    /// The plans of all images, then that of the whole; of a single image its own.
    pub fn parts(&self) -> impl Iterator<Item = &Plan> {
        self.images.iter().chain([self])
    }
}

/// Fills in, resolves and collects what is wrong.
pub(crate) struct Planner<'a> {
    text: Option<&'a SourceText>,
    base: &'a Path,
    /// Nothing outside of it is read or mounted.
    root: PathBuf,
    source: &'a Source,
    values: Values,
    /// The file's secrets, which others name.
    secrets: BTreeMap<String, SecretPlan>,
    /// The images of the run.
    names: Vec<String>,
    /// The one that is looked at.
    entry: Option<String>,
    /// Where one names another.
    image_uses: Vec<images::Use>,
    diagnostics: Vec<Diagnostic>,
}

impl Planner<'_> {
    /// All of an image's own, without services. `entry` is its name where there are several.
    fn image(&mut self, file: &PipelineFile, entry: Option<&At<String>>) -> Plan {
        let (image, image_is_given) = build::image(self, file.image.as_ref(), entry);
        let is_built = entry.is_some() || file.builds();
        // Build arguments may be the version's source, and labels may name the version: first without, then with it.
        let version = {
            let (before, uses) = (self.diagnostics.len(), self.image_uses.len());
            let draft = build::build(self, file.build.as_ref(), is_built);
            self.diagnostics.truncate(before);
            self.image_uses.truncate(uses);
            version::version(self, file, &draft)
        };
        self.values.version = version.clone();
        let mut build = build::build(self, file.build.as_ref(), is_built);
        if file.build.as_ref().is_some_and(|build| build.oci_labels) {
            labels::add(&mut build, self.source, &self.values, &image);
        }
        let before = self.before(file);
        let test = gates::test(self, file.test.as_ref());
        let health = self.health(file);
        let publish = file.publish.as_ref().filter(|publish| !publish.off);
        let publish = publish.map(|publish| self.publish(publish, file, &image));
        let mut plan = Plan {
            name: image.path().rsplit('/').next().unwrap_or("app").to_owned(),
            image,
            image_is_given,
            version,
            before,
            build,
            test,
            health,
            publish,
            ..self.rest_of_plan(file)
        };
        if entry.is_none() {
            plan.trust = self.trust(file, &plan.own_names());
            plan.environments = self.environments(&file.environments, &plan.trust);
        }
        plan
    }

    /// What does not depend on which image it is, and nothing where it does.
    fn rest_of_plan(&self, file: &PipelineFile) -> Plan {
        let keep = file.keep.clone().unwrap_or_default();
        let limits = file.limits.clone().unwrap_or_default();
        Plan {
            name: String::new(),
            entry: None,
            images: Vec::new(),
            image: build::directory_reference(self.base),
            image_is_given: false,
            file: self.text.map(|text| text.name.clone()),
            source: self.source.clone(),
            version: self.values.version.clone(),
            before: Vec::new(),
            build: BuildPlan::default(),
            test: TestPlan::default(),
            secrets: self.secrets.clone(),
            health: HealthPlan::default(),
            services: ServicesPlan::default(),
            tag_prefix: String::new(),
            local_tags: local_tags(""),
            publish: None,
            environments: Vec::new(),
            trust: Vec::new(),
            keep: KeepPlan {
                failed: keep.failed.unwrap_or(KEEP_FAILED_DEFAULT),
                runs: keep.runs.and_then(|runs| usize::try_from(runs).ok()).unwrap_or(KEEP_RUNS_DEFAULT),
            },
            limits: LimitsPlan {
                layers: limits.layers.and_then(|layers| usize::try_from(layers).ok()),
                size_bytes: limits.size,
                above_base_bytes: limits.above_base,
            },
            values: self.values.clone(),
        }
    }

    fn has_file(&self) -> bool {
        self.text.is_some()
    }

    fn error(&mut self, code: &'static str, message: impl Into<String>, span: &Span) -> &mut Diagnostic {
        self.diagnostics.push(Diagnostic::error(code, message).with_span(span.clone()));
        let last = self.diagnostics.len() - 1;
        &mut self.diagnostics[last]
    }

    fn place(&self, span: &Span) -> Option<Place> {
        let text = self.text?;
        let (line, column) = line_column(&text.text, span.start);
        Some(Place { file: text.name.clone(), line, column })
    }

    /// The template's value; a mistake or an absent value is an error at its place.
    fn fill(&mut self, template: &At<String>) -> Option<String> {
        match interpolate::interpolate(&template.value, &self.values) {
            Ok(text) => Some(text),
            Err(error) => {
                self.template_error(error, &template.span);
                None
            }
        }
    }

    /// As `fill`, but an absent value is the caller's business.
    fn fill_or_absent(&mut self, template: &At<String>) -> Result<String, String> {
        interpolate::interpolate(&template.value, &self.values).map_err(|error| {
            let reason = error.to_string();
            if !matches!(error, TemplateError::Absent { .. }) {
                self.template_error(error, &template.span);
            }
            reason
        })
    }

    fn template_error(&mut self, error: TemplateError, span: &Span) {
        let message = error.to_string();
        match error {
            TemplateError::Absent { name, .. } => {
                self.error(codes::ABSENT_VALUE, format!("`${{{name}}}` has no value: {message}"), span).help =
                    Some(format!("give a default: `${{{name}:-…}}`"));
            }
            TemplateError::Unknown { nearest, .. } => {
                let diagnostic = self.error(codes::BAD_TEMPLATE, message, span);
                match nearest {
                    Some(nearest) => diagnostic.label = Some(format!("did you mean `${{{nearest}}}`?")),
                    None => diagnostic.notes.push(format!("there are {}", interpolate::OUR_NAMES.join(", "))),
                }
            }
            TemplateError::Syntax(_) => {
                self.error(codes::BAD_TEMPLATE, message, span);
            }
        }
    }

    /// Checks a template that is filled in later.
    fn check_template(&mut self, template: &At<String>) {
        if let Err(error) = interpolate::check(&template.value, &self.values) {
            self.template_error(error, &template.span);
        }
    }

    /// Names with values; one without a value has the environment's, or is left out (Compose, `environment`).
    fn pairs(&mut self, pairs: &Pairs) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        for (name, value) in pairs {
            let value = match value {
                Some(value) => self.fill(value),
                None => self.values.env.get(&name.value).cloned(),
            };
            if let Some(value) = value {
                map.insert(name.value.clone(), value);
            }
        }
        map
    }

    /// A path of the user's, resolved: relative to `base`, existing, and within the repository also through links.
    fn path(&mut self, given: &At<String>, base: &Path) -> Option<PathBuf> {
        let text = self.fill(given)?;
        if text.starts_with('/') || text.starts_with('~') {
            self.error(codes::LEAVES_REPOSITORY, format!("`{text}` is not relative to the pipeline file"), &given.span);
            return None;
        }
        match base.join(&text).canonicalize() {
            Ok(path) if path.starts_with(&self.root) => Some(path),
            Ok(_) => {
                self.error(codes::LEAVES_REPOSITORY, format!("`{text}` is outside of the repository"), &given.span);
                None
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let near = nearest_entry(base, &text);
                self.error(codes::NO_SUCH_PATH, format!("`{text}` does not exist"), &given.span).label =
                    near.map(|near| format!("did you mean `{near}`?"));
                None
            }
            Err(error) => {
                self.error(codes::NO_SUCH_PATH, format!("`{text}` cannot be read: {error}"), &given.span);
                None
            }
        }
    }

    fn health(&mut self, file: &PipelineFile) -> HealthPlan {
        let given = file.health.clone().unwrap_or_default();
        let uses = uses::uses(self, &given.uses, &Uses::default());
        HealthPlan {
            enabled: !given.off,
            command: given.command.map(|command| command.value),
            interval: given.interval,
            attempts: given.attempts,
            timeout: given.timeout,
            start_period: given.start_period,
            prove: given.prove,
            stop_grace_period: given.stop_grace_period,
            environment: self.pairs(&given.environment),
            // Gates go on beside it: what they do to a database is nothing to the check's.
            uses: UsesPlan { fresh: !uses.names.is_empty(), ..uses },
            place: file.health.as_ref().and_then(|health| self.place(&health.span)),
        }
    }

    fn publish(&mut self, publish: &Publish, file: &PipelineFile, image: &Reference) -> PublishPlan {
        let mut repositories = Vec::new();
        for to in &publish.to {
            let Some(prefix) = self.fill(to) else { continue };
            let path = image.path().strip_prefix("library/").unwrap_or(image.path());
            let name = format!("{}/{path}", prefix.trim_end_matches('/'));
            match name.parse::<Reference>() {
                Ok(reference) if names_registry(&prefix) && reference.tag().is_none() => repositories.push(reference),
                Ok(_) => {
                    self.error(codes::INVALID_VALUE, format!("`{prefix}` names no registry"), &to.span).help =
                        Some("write it with its host: `registry.example/team` or `localhost:5000`".into());
                }
                Err(error) => {
                    self.error(codes::INVALID_VALUE, format!("`{name}`: {}", error.reason), &to.span);
                }
            }
        }
        if publish.to.is_empty() && file.image.as_ref().is_some_and(|image| names_repository(&image.value)) {
            repositories.push(image.clone());
        }
        let tags = match &publish.tags {
            None => local_tags(""),
            Some(tags) => tags.iter().map(|tag| self.tag_rule(tag)).collect(),
        };
        if let Some(git_tag) = &publish.git_tag {
            self.check_template(git_tag);
        }
        PublishPlan {
            repositories,
            when: self.conditions(&publish.when),
            tags,
            flavor: publish.flavor.as_ref().map(|flavor| self.flavor(flavor)).unwrap_or_default(),
            git_tag: publish.git_tag.as_ref().map(|tag| tag.value.clone()),
            sign: publish.sign.as_ref().and_then(|sign| self.sign(sign)),
            files: files::files(self, publish, file),
        }
    }

    /// A key of the repository is named by its absolute path: programs may change where they work.
    fn sign(&mut self, sign: &Sign) -> Option<SignPlan> {
        let text = self.fill(&sign.key)?;
        let key = match text.parse::<KeySource>() {
            Ok(KeySource::File(path)) => {
                let path = path.to_string_lossy().into_owned();
                let given = At::new(path, sign.key.span.clone());
                let Some(path) = self.path(&given, self.base) else {
                    if let Some(told) = self.diagnostics.last_mut() {
                        let elsewhere = "a key that lies elsewhere is given by `--sign-key FILE`, or as `env://NAME`";
                        told.help.get_or_insert_with(|| elsewhere.into());
                    }
                    return None;
                };
                path.to_string_lossy().into_owned()
            }
            Ok(_) => text,
            Err(error) => {
                self.error(codes::INVALID_VALUE, error.to_string(), &sign.key.span);
                return None;
            }
        };
        Some(SignPlan { key, sbom: sign.sbom })
    }

    fn conditions(&mut self, rules: &[WhenRule]) -> Vec<When> {
        let list = |planner: &mut Self, patterns: &[At<String>]| -> Vec<String> {
            patterns.iter().filter_map(|pattern| planner.fill(pattern)).collect()
        };
        rules
            .iter()
            .map(|rule| When {
                branch: list(self, &rule.branch),
                event: list(self, &rule.event),
                tag: list(self, &rule.tag),
                path: list(self, &rule.path),
                env: rule
                    .env
                    .iter()
                    .map(|(name, pattern)| {
                        (name.value.clone(), pattern.as_ref().and_then(|pattern| self.fill(pattern)))
                    })
                    .collect(),
            })
            .collect()
    }
}

/// Whether the name begins with a host, as docker tells it from a namespace.
fn names_registry(name: &str) -> bool {
    let first = name.split('/').next().unwrap_or_default();
    first.contains(['.', ':']) || first == "localhost"
}

/// `app` alone would be an official image of docker.io: nobody means that.
fn names_repository(name: &str) -> bool {
    name.contains('/')
}

/// The entry of the directory that was probably meant.
fn nearest_entry(base: &Path, text: &str) -> Option<String> {
    /// More names are not compared.
    const ENTRIES_MAX: usize = 1000;
    let (parent, name) = text.rsplit_once('/').unwrap_or(("", text));
    let entries = fs_err::read_dir(base.join(parent)).ok()?;
    let names: Vec<String> =
        entries.take(ENTRIES_MAX).flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let near = dockerfile::nearest(name, names.iter().map(String::as_str))?;
    Some(if parent.is_empty() { near.to_owned() } else { format!("{parent}/{near}") })
}

/// Why there is no version where nobody asked for one.
pub(crate) const NO_VERSION: &str = "the pipeline file has no `version`";

/// Where the version comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Version {
    /// Known already.
    Known(String),
    /// There is none, and why.
    Absent(String),
    /// An ENV of the built image.
    ImageEnv(String),
    /// A label of the built image.
    ImageLabel(String),
    /// What a command prints, once the image is built.
    Command {
        /// For `/bin/sh -e`.
        command: String,
        /// On this machine instead of in the built image.
        on_host: bool,
    },
}

/// What is made of the source before the image is built, in a copy of the context.
#[derive(Clone, Debug, Serialize)]
pub struct BeforePlan {
    /// Image that the commands run in; `None` is this machine.
    pub image: Option<String>,
    /// Commands.
    pub commands: Vec<CommandPlan>,
    /// Patterns of the files that it adds to the context; each has to match.
    pub output: Vec<String>,
    /// Environment of the commands.
    pub environment: BTreeMap<String, String>,
    /// Where it stands.
    pub place: Option<Place>,
    /// Where its image is named.
    pub image_place: Option<Place>,
}

/// The parts of an [`engine::BuildRequest`] that the file decides.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BuildPlan {
    /// Directory of the context, absolute.
    pub context: PathBuf,
    /// Name of the Dockerfile for messages.
    pub dockerfile: String,
    /// Its path; `None` for `dockerfile_inline`.
    pub dockerfile_path: Option<PathBuf>,
    /// Its text, when it is written in the pipeline file.
    pub dockerfile_inline: Option<String>,
    /// Stage to build.
    pub target: Option<String>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Named contexts: a directory, `docker-image://…`, `oci-layout://…`, or `image:NAME` of another image of the run.
    pub additional_contexts: BTreeMap<String, String>,
    /// Network of RUN: `default`, `none` or `host`.
    pub network: String,
    /// Platform; `None` is the host's.
    pub platform: Option<String>,
    /// Names for `/etc/hosts`: name, address.
    pub extra_hosts: Vec<(String, String)>,
    /// Secrets for RUN; their targets are the ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUsePlan>,
    /// Ignore the cache.
    pub no_cache: bool,
    /// Ask the registry for base images.
    pub pull: bool,
}

/// The health check; `None` where the image's HEALTHCHECK or a default decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HealthPlan {
    /// `false` switches it off.
    pub enabled: bool,
    /// Command of the file's own instead of the image's: `["CMD", …]` or `["CMD-SHELL", "…"]`.
    pub command: Option<Vec<String>>,
    /// Longest time between two attempts.
    #[serde(serialize_with = "crate::duration::serialize_option")]
    pub interval: Option<Duration>,
    /// Attempts until giving up.
    pub attempts: Option<u32>,
    /// Time for one attempt.
    #[serde(serialize_with = "crate::duration::serialize_option")]
    pub timeout: Option<Duration>,
    /// Time in which failures do not count as attempts.
    #[serde(serialize_with = "crate::duration::serialize_option")]
    pub start_period: Option<Duration>,
    /// Whether it is proven that the check can fail and that the container ends when asked.
    pub prove: bool,
    /// Time for that end.
    #[serde(serialize_with = "crate::duration::serialize_option")]
    pub stop_grace_period: Option<Duration>,
    /// Variables of the container, over the image's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Services that it needs, of its own.
    #[serde(flatten)]
    pub uses: UsesPlan,
    /// Where it stands.
    pub place: Option<Place>,
}

/// Publishing.
#[derive(Clone, Debug, Serialize)]
pub struct PublishPlan {
    /// Repositories, without tags.
    pub repositories: Vec<Reference>,
    /// One of these must hold; empty: always.
    pub when: Vec<When>,
    /// Tags.
    pub tags: Vec<TagRule>,
    /// What all tags have in common.
    pub flavor: Flavor,
    /// Template of the Git tag that is made after publishing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git_tag: Option<String>,
    /// Who signs what is said of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sign: Option<SignPlan>,
    /// Files beside the image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FilesPlan>,
}

/// Who signs what is said of a published image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignPlan {
    /// Place of the private key, as [`evidence::KeySource`] reads it; files are absolute.
    pub key: String,
    /// The list of packages that is attached.
    pub sbom: Option<SbomFormat>,
}

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeepPlan {
    /// Root filesystems of failed steps.
    #[serde(serialize_with = "crate::duration::serialize")]
    pub failed: Duration,
    /// Number of runs with their logs.
    pub runs: usize,
}

/// Limits of the image; breaking one makes the verdict no.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LimitsPlan {
    /// Number of layers.
    pub layers: Option<usize>,
    /// Bytes of all layers, uncompressed.
    pub size_bytes: Option<u64>,
    /// Bytes of the layers above the base, uncompressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub above_base_bytes: Option<u64>,
}
