//! What all commands about environments need: the plan, the registry, keys.

use std::path::Path;

use evidence::{Attachment, Bundle, NamedKey, Policy, Signer, Statement, promotion::attach};
use oci::{Descriptor, Digest, Reference};
use pipeline::{EnvironmentPlan, Plan};
use registry::{Client, ErrorKind, RegistryError, TagCondition};

use super::{DeskArgs, SignArgs, steps::Counting};
use crate::{
    commands::{capsule::found::git, init::environment, keys, run::prepare, trust},
    context::Context,
    failure::Failure,
};

/// Manifests and indexes are short.
const MANIFEST_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The plan and the registry.
pub(super) struct Desk {
    /// `None` outside a repository with a pipeline file.
    pub(super) plan: Option<Plan>,
    pub(super) client: Client,
}

/// What is asked about.
pub(super) enum Asked {
    /// All environments of the pipeline file.
    File,
    /// One of them.
    Environment(EnvironmentPlan),
    /// All environments of a repository.
    Repository(Reference),
    /// One image.
    Image(Reference),
}

/// An image in its registry.
pub(super) struct Target {
    /// By digest.
    pub(super) place: Reference,
    pub(super) digest: Digest,
    pub(super) descriptor: Descriptor,
    bytes: Vec<u8>,
}

impl Desk {
    pub(super) fn open(args: &DeskArgs, context: &Context) -> anyhow::Result<Self> {
        let plan = prepare(context, args.file.as_ref(), None)?.plan;
        if plan.environments.is_empty() {
            return Err(Failure::usage("the pipeline file has no `environments`")
                .hint("write them down: `environments: {staging: {}, production: {after: staging}}`")
                .into());
        }
        let client = context.client(&args.engine.insecure_registry);
        Ok(Self { plan: Some(plan), client })
    }

    /// The same for who only looks: a pipeline file is not needed.
    pub(super) fn open_for_reading(args: &DeskArgs, context: &Context) -> anyhow::Result<Self> {
        let has_file = args.file.is_some() || pipeline::find_file(&context.settings.cwd).is_some();
        let plan = has_file.then(|| prepare(context, args.file.as_ref(), None)).transpose()?.map(|found| found.plan);
        let client = context.client(&args.engine.insecure_registry);
        Ok(Self { plan, client })
    }

    pub(super) fn environments(&self) -> &[EnvironmentPlan] {
        self.plan.as_ref().map_or(&[], |plan| &plan.environments)
    }

    /// Those of a repository: the pipeline file speaks of its own.
    pub(super) fn environments_of(&self, repository: &Reference) -> &[EnvironmentPlan] {
        let is_own = self.repository().is_ok_and(|own| own.repository() == repository.repository());
        if is_own { self.environments() } else { &[] }
    }

    /// What a word stands for: an environment of the file before an image.
    pub(super) fn asked(&self, what: Option<&str>) -> Result<Asked, Failure> {
        let Some(what) = what else {
            return match self.environments() {
                [] => self.repository().map(Asked::Repository),
                _ => Ok(Asked::File),
            };
        };
        let environments = self.environments();
        if let Some(environment) = environments.iter().find(|environment| environment.name == what) {
            return Ok(Asked::Environment(environment.clone()));
        }
        // A misspelt environment would be looked for as a tag.
        if dockerfile::nearest(what, environments.iter().map(|known| known.name.as_str())).is_some() {
            return self.environment(what).map(|environment| Asked::Environment(environment.clone()));
        }
        self.image_of(what)
    }

    /// The image, or the repository, that a word stands for; without a pipeline file whole names only.
    pub(super) fn image_of(&self, what: &str) -> Result<Asked, Failure> {
        if what.parse::<Digest>().is_ok() && self.repository().is_err() {
            return Err(Failure::usage("a digest alone does not tell its repository, and no pipeline file here does")
                .hint(format!("name all of it: `registry.example/team/app@{what}`")));
        }
        let image = self.image(what)?;
        let is_bare = image.tag().is_none() && image.digest().is_none();
        Ok(if is_bare { Asked::Repository(image) } else { Asked::Image(image) })
    }

    pub(super) fn environment(&self, name: &str) -> Result<&EnvironmentPlan, Failure> {
        let found = self.environments().iter().find(|environment| environment.name == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = self.environments().iter().map(|known| known.name.as_str()).collect();
            Failure::usage(format!("there is no environment `{name}`")).hint(
                match dockerfile::nearest(name, names.clone()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are {}", names.join(", ")),
                },
            )
        })
    }

    /// The repository that the pipeline publishes to.
    pub(super) fn repository(&self) -> Result<Reference, Failure> {
        let Some(plan) = &self.plan else {
            return Err(Failure::usage("there is no pipeline file here that names a repository")
                .hint("name an image or a repository: `seatrial history registry.example/team/app`"));
        };
        let published = plan.publish.as_ref().and_then(|publish| publish.repositories.first());
        let named = || plan.image_is_given.then(|| plan.image.clone());
        published.cloned().or_else(named).ok_or_else(|| {
            Failure::usage("the pipeline file names no repository")
                .hint("write it down: `image: registry.example/team/app`")
        })
    }

    /// The repository of an image.
    pub(super) fn repository_of(&self, target: &Target) -> Reference {
        // A reference without tag and digest.
        target.place.repository().parse().unwrap_or_else(|_| target.place.clone())
    }

    /// `1.4.2`, `sha256:…` or a whole name.
    pub(super) fn image(&self, text: &str) -> Result<Reference, Failure> {
        if let Ok(digest) = text.parse::<Digest>() {
            return Ok(self.repository()?.with_digest(digest));
        }
        if self.plan.is_some() && oci::is_valid_tag(text) {
            return Ok(self.repository()?.with_tag(text));
        }
        text.parse::<Reference>()
            .map_err(|error| Failure::usage(format!("`{text}` is not the name of an image: {}", error.reason)))
    }

    /// What a name means now.
    pub(super) async fn target(&self, image: &Reference) -> anyhow::Result<Target> {
        let resolved = self.client.fetch_manifest(image, MANIFEST_BYTES_MAX).await?;
        let digest = resolved.descriptor.digest.clone();
        let place = image.with_digest(digest.clone());
        Ok(Target { place, digest, descriptor: resolved.descriptor, bytes: resolved.bytes.to_vec() })
    }

    /// What an environment's tag names.
    pub(super) async fn tag(
        &self,
        repository: &Reference,
        environment: &EnvironmentPlan,
    ) -> anyhow::Result<Option<Digest>> {
        match self.client.resolve(&repository.with_tag(&environment.tag)).await {
            Ok(found) => Ok(Some(found.digest)),
            Err(error) if error.is_not_found() => Ok(None),
            // Whoever builds is told how to do without a registry; here there is no way without.
            Err(error) => Err(RegistryError { action: "look for", ..error }.into()),
        }
    }

    pub(super) fn block_on_tag(
        &self,
        repository: &Reference,
        environment: &EnvironmentPlan,
        context: &Context,
    ) -> anyhow::Result<Option<Digest>> {
        context.block_on_cancellable(self.tag(repository, environment))
    }

    /// Moves the tag if it still names what it did.
    pub(super) async fn move_tag(
        &self,
        environment: &EnvironmentPlan,
        target: &Target,
        now: Option<Digest>,
    ) -> anyhow::Result<()> {
        let condition = match now {
            Some(now) => TagCondition::Names(vec![now]),
            None => TagCondition::Absent,
        };
        let (repository, tags) = (self.repository_of(target), [environment.tag.clone()]);
        let kind = &target.descriptor.media_type;
        let (bytes, mut written) = (target.bytes.clone(), drop);
        let moved = self.client.put_manifest_tags(&repository, &tags, &condition, kind, bytes, &mut written);
        match moved.await {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind, ErrorKind::TagChanged { .. }) => {
                let message = format!("somebody else has moved {} meanwhile: nothing was changed", environment.name);
                Err(overtaken(message, environment).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Why the tag does not name what it was just moved to: a registry that knows no conditions writes it all the same, and so it
    /// does for others.
    pub(super) async fn overtaken(
        &self,
        environment: &EnvironmentPlan,
        target: &Target,
    ) -> anyhow::Result<Option<Failure>> {
        let found = self.tag(&self.repository_of(target), environment).await?;
        if found.as_ref() == Some(&target.digest) {
            return Ok(None);
        }
        let found = found.map_or("nothing".to_owned(), |digest| digest.to_string());
        let message = format!("somebody else has moved {} at the same moment: it names {found}", environment.name);
        Ok(Some(overtaken(message, environment)))
    }

    /// Attaches a statement to an image, signed where there is a key.
    pub(super) async fn record(
        &self,
        target: &Target,
        statement: &Statement,
        signer: Option<&Signer>,
    ) -> anyhow::Result<()> {
        let attachment = match signer {
            Some(signer) => Attachment::new(&Bundle::sign(statement, signer)?, statement, &target.descriptor),
            None => Attachment::unsigned(statement, &target.descriptor),
        };
        attach(&self.client, &target.place, &attachment).await?;
        Ok(())
    }

    /// The records that count for what is done in an environment: where it has keys, those that one of them has signed.
    pub(super) fn counting<'a>(&self, environment: &'a EnvironmentPlan) -> Result<Counting<'a>, Failure> {
        let keys = self.keys(environment)?.into_iter().map(|named| named.key).collect();
        Ok(Counting { environment, keys })
    }

    /// The keys that an environment trusts, by the names of their files.
    pub(super) fn keys(&self, environment: &EnvironmentPlan) -> Result<Vec<NamedKey>, Failure> {
        let given: Vec<String> = environment.keys.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        Ok(Policy::of(&given, Vec::new(), Path::new("/")).map_err(trust::policy_failure)?.keys)
    }
}

fn overtaken(message: String, environment: &EnvironmentPlan) -> Failure {
    Failure::refused(message).hint(format!("look again: `seatrial history {}`", environment.name))
}

impl Asked {
    /// In words, for a message.
    pub(super) fn words(&self, desk: &Desk) -> String {
        match self {
            Self::File => desk.repository().map(|own| own.familiar()).unwrap_or_default(),
            Self::Environment(environment) => environment.name.clone(),
            Self::Repository(image) | Self::Image(image) => image.familiar(),
        }
    }
}

/// As whom commits would be made.
fn git_name(directory: &Path) -> Option<String> {
    let name = String::from_utf8(git(directory, &["config", "user.name"])?).ok()?.trim().to_owned();
    (!name.is_empty()).then_some(name)
}

impl SignArgs {
    /// Opens the key, if there is one.
    pub(super) fn signer(&self, context: &Context) -> anyhow::Result<Option<Signer>> {
        let Some(key) = &self.key else { return Ok(None) };
        let opened = keys::open(&keys::source(key)?, &context.settings.cwd);
        Ok(Some(opened.map_err(|error| Failure::usage(error.to_string()).because(&error))?))
    }

    /// Who does it, as far as the machine knows.
    pub(super) fn by(&self, context: &Context) -> String {
        let env = environment();
        let names = ["GITHUB_ACTOR", "GITLAB_USER_LOGIN", "CI_COMMIT_AUTHOR", "BUILD_USER_ID", "USER", "LOGNAME"];
        let told = names.iter().find_map(|name| env.get(*name).filter(|value| !value.is_empty()).cloned());
        self.by.clone().or(told).or_else(|| git_name(&context.settings.cwd)).unwrap_or_else(|| "unknown".to_owned())
    }
}
