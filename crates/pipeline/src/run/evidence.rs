//! What is said of an image that passed: how it was built, each verdict, and that all of it holds. It is made beside the
//! gates and after them, signed, and attached to the digest before that gets a name.

use std::{sync::Arc, time::SystemTime};

use engine::{Built, Material};
use events::Verdict;
use evidence::{
    Attachment, BUILDER_ID, Bundle, GateResult, Invocation, Parameters, Provenance, Resource, Signer, Statement,
    Summary, TIMED, TestResult, predicate, repeated, sbom,
};
use oci::{Descriptor, Platform, Reference};
use store::{MemoSubject, Stop, Store};

use super::{Run, health, publish::Sealed, record, words};
use crate::{
    GateOutcome, HealthOutcome, OpenSigner, Plan, RunContext, RunError, SbomFormat, Source, SourceEvent, source,
};

/// Where the store remembers what was said of an image, by the digest of its manifest: for `publish` later.
const NAMESPACE: &str = "evidence";
/// Images whose statements are remembered, in each of 256 parts.
const REMEMBERED_PER_PART: usize = 8;

/// What is made beside the gates, where something is to be signed.
#[derive(Clone, Debug, Default)]
pub(super) struct Ready {
    signer: Option<Arc<Signer>>,
    /// The list of packages.
    sbom: Option<Statement>,
}

/// Opens the key, and lists the packages. Neither needs a verdict.
pub(super) async fn prepare(
    cx: RunContext<'_>,
    plan: &Plan,
    open: &OpenSigner,
    image: &store::Image,
    manifest: &store::SealedManifest,
) -> Result<Ready, RunError> {
    let (open, store, image, manifest) = (open.clone(), cx.store.clone(), image.clone(), manifest.clone());
    let format = plan.publish.as_ref().and_then(|publish| publish.sign.as_ref()).and_then(|sign| sign.sbom);
    let (name, time) = (name(plan).clone(), plan.source.commit_time);
    let work = move || {
        let signer = Arc::new(open.open()?);
        let sbom = format.map(|format| packages(&store, &image, &manifest, &name, time, format)).transpose()?;
        Ok(Ready { signer: Some(signer), sbom })
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

fn packages(
    store: &Store,
    image: &store::Image,
    manifest: &store::SealedManifest,
    name: &Reference,
    time: Option<SystemTime>,
    format: SbomFormat,
) -> Result<Statement, RunError> {
    let inventory = sbom::inventory(store, image, Stop::NEVER)
        .map_err(|error| RunError::local("list the packages of the image", error))?;
    let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let about = sbom::About {
        reference: Some(name),
        digest: &manifest.digest,
        architecture: &image.config.architecture,
        created_s: since.and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0),
    };
    let subject = vec![Resource::image(&name.repository(), &manifest.digest)];
    Ok(match format {
        SbomFormat::Spdx => Statement::new(subject, predicate::SPDX, inventory.spdx(&about)),
        SbomFormat::Cyclonedx => Statement::new(subject, predicate::CYCLONEDX, inventory.cyclonedx(&about)),
    })
}

/// What passed.
pub(super) struct Passed<'a, G> {
    pub(super) gates: G,
    pub(super) health: Option<&'a HealthOutcome>,
}

/// Everything that a passing run says, the sum last. Kept for a later `publish`, unless the tree has changes.
pub(super) fn say<'a>(
    run: Run<'_>,
    plan: &Plan,
    built: &Built,
    sealed: &Sealed,
    passed: Passed<'a, impl Iterator<Item = &'a GateOutcome>>,
    began: SystemTime,
) -> Vec<Statement> {
    let cx = run.cx;
    let finished = SystemTime::now();
    let image = Resource::image(&name(plan).repository(), &sealed.manifest.digest);
    let origin = public_url(&plan.source);
    let commit = plan.source.sha.as_deref().map(|sha| Resource::commit(origin.as_deref(), sha));
    let mut statements = vec![provenance(cx, plan, built, &image, origin.clone(), commit.clone(), (began, finished))];
    // What passed was not the commit, where files had changes.
    let commit = commit.filter(|_| !plan.source.is_dirty);
    let subjects: Vec<Resource> = [image.clone()].into_iter().chain(commit).collect();
    let tried = passed.gates.filter(|gate| gate.verdict != Verdict::Skipped);
    statements.extend(tried.map(|gate| result_of(gate, &subjects)));
    if let Some(health) = passed.health.filter(|health| health.verdict == Verdict::Passed) {
        let configuration = vec![Resource::content(&record::health_definition(plan)).named(health::STAGE)];
        let gate = health::STAGE.to_owned();
        let result = if health.flaps > 0 { GateResult::Warned } else { GateResult::Passed };
        statements.push(TestResult { subjects: subjects.clone(), gate, result, configuration }.statement());
    }
    let summary = Summary {
        subject: image,
        resource: name(plan).repository(),
        verifier: BUILDER_ID.into(),
        time: finished,
        policy: plan.file.clone().unwrap_or_else(|| crate::FILE_NAME.to_owned()),
        definition: record::definition(run, plan),
        inputs: statements.iter().map(|statement| oci::Digest::of(&statement.to_bytes())).collect(),
        passed: true,
    };
    statements.push(summary.statement());
    if !plan.source.is_dirty {
        remember(cx, sealed, &statements);
    }
    statements
}

/// Losing it costs a later `publish` the evidence, which it says.
fn remember(cx: RunContext<'_>, sealed: &Sealed, statements: &[Statement]) {
    let value = serde_json::to_vec(statements).unwrap_or_default();
    let about = Some(MemoSubject::Image(sealed.image.id.clone()));
    let _ = cx.store.memo_put_bounded(NAMESPACE, sealed.manifest.digest.hex(), &value, REMEMBERED_PER_PART, about);
}

/// What the run said that this image passed in.
pub(super) fn recall(cx: RunContext<'_>, sealed: &Sealed) -> Vec<Statement> {
    let value = cx.store.memo_get(NAMESPACE, sealed.manifest.digest.hex());
    let said: Vec<Statement> = value.and_then(|value| serde_json::from_slice(&value).ok()).unwrap_or_default();
    if said.iter().all(|statement| statement.speaks_of(&sealed.manifest.digest)) { said } else { Vec::new() }
}

/// What is to be attached, signed.
#[derive(Clone, Debug, Default)]
pub(super) struct Attached {
    /// In the same order.
    statements: Vec<Statement>,
    attachments: Vec<Attachment>,
    signer: Option<Arc<Signer>>,
}

impl Attached {
    /// `7 statements signed by SHA256:…`.
    pub(super) fn words(&self) -> Option<String> {
        let (signer, count) = (self.signer.as_ref()?, self.attachments.len() as u64);
        Some(format!("{} signed by {}", words::count(count, "statement"), signer.public().fingerprint()))
    }
}

/// Signs all of it, and the image itself. Nothing where there is no key.
pub(super) async fn sign(plan: &Plan, sealed: &Sealed, mut said: Vec<Statement>) -> Result<Attached, RunError> {
    let Ready { signer: Some(signer), sbom } = &sealed.ready else { return Ok(Attached::default()) };
    said.extend(sbom.clone());
    said.push(Statement::signature(Resource::image(&name(plan).repository(), &sealed.manifest.digest)));
    let subject =
        Descriptor::new(sealed.media_type(), sealed.manifest.digest.clone(), sealed.manifest.bytes.len() as u64);
    let signer = Arc::clone(signer);
    let work = move || {
        let attach =
            |statement: &Statement| Ok(Attachment::new(&Bundle::sign(statement, &signer)?, statement, &subject));
        let attachments = said.iter().map(attach).collect::<Result<_, RunError>>()?;
        Ok(Attached { statements: said, attachments, signer: Some(signer) })
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// Attaches it to an image that is there, but for what the same key has said there a short while ago.
pub(super) async fn attach(cx: RunContext<'_>, image: &Reference, attached: &Attached) -> Result<(), RunError> {
    let (Some(signer), Some(digest)) = (&attached.signer, image.digest()) else { return Ok(()) };
    let kinds: Vec<&str> = match signer.is_repeatable() {
        true => TIMED.to_vec(),
        false => attached.statements.iter().map(|statement| statement.predicate_type.as_str()).collect(),
    };
    let found = cx.registry.evidence_of_kinds(image, &kinds).await?;
    let repeated = repeated(&attached.statements, &found, digest, signer.public(), SystemTime::now());
    let new = attached.attachments.iter().zip(repeated).filter(|(_, is_repeated)| !is_repeated);
    let new: Vec<Attachment> = new.map(|(attachment, _)| attachment.clone()).collect();
    Ok(cx.registry.attach(image, &new).await?)
}

/// Where the image is published first, else how it is called here.
fn name(plan: &Plan) -> &Reference {
    plan.publish.as_ref().and_then(|publish| publish.repositories.first()).unwrap_or(&plan.image)
}

fn result_of(gate: &GateOutcome, subjects: &[Resource]) -> Statement {
    let result = match gate.verdict {
        Verdict::Passed if gate.is_flaky() => GateResult::Warned,
        Verdict::Passed => GateResult::Passed,
        Verdict::Failed | Verdict::Skipped => GateResult::Failed,
    };
    let configuration = gate.configuration.iter().map(|(name, digest)| Resource::content(digest).named(name));
    TestResult { subjects: subjects.to_vec(), gate: gate.gate.clone(), result, configuration: configuration.collect() }
        .statement()
}

fn provenance(
    cx: RunContext<'_>,
    plan: &Plan,
    built: &Built,
    image: &Resource,
    origin: Option<String>,
    commit: Option<Resource>,
    (started, finished): (SystemTime, SystemTime),
) -> Statement {
    let build = &plan.build;
    Provenance {
        subject: image.clone(),
        parameters: Parameters {
            repository: origin,
            reference: git_ref(&plan.source),
            dockerfile: build.dockerfile.clone(),
            target: build.target.clone(),
            platform: build.platform.clone().unwrap_or_else(|| Platform::host().to_string()),
            args: build.args.clone(),
            secrets: build.secrets.iter().map(|secret| secret.source.clone()).collect(),
            is_dirty: plan.source.is_dirty,
        },
        dependencies: commit.into_iter().chain(built.materials.iter().map(resource_of)).collect(),
        builder: BUILDER_ID.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        internal: serde_json::Map::new(),
        run: Some(Invocation {
            id: source::run_url(&plan.values.env).unwrap_or_else(|| format!("run-{}", cx.run.number)),
            started,
            finished,
        }),
    }
    .statement()
}

/// Where the source is for others; a directory of this machine tells nobody anything.
pub fn public_url(source: &Source) -> Option<String> {
    source.url.clone().filter(|url| url.contains("://") && !url.starts_with("file:"))
}

/// What went into a build, as provenance names it: by where it is from, and by a digest.
pub fn resource_of(material: &Material) -> Resource {
    match material {
        Material::Image { name, reference: Some(reference), manifest: Some(manifest), platform, .. } => {
            Resource::base(reference, manifest, platform).named(name)
        }
        Material::Image { name, manifest: Some(manifest), .. } => Resource::content(manifest).named(name),
        Material::Image { name, id, .. } => Resource::config(id).named(name),
        Material::File { url, digest } => Resource::file(url, digest),
        Material::Repository { url, commit } => Resource::commit(Some(url), commit),
    }
}

/// `refs/tags/v1` or `refs/heads/main`, where the source says one.
pub fn git_ref(source: &Source) -> Option<String> {
    match (source.event, &source.tag, &source.branch) {
        (SourceEvent::Tag, Some(tag), _) => Some(format!("refs/tags/{tag}")),
        (_, _, Some(branch)) => Some(format!("refs/heads/{branch}")),
        _ => None,
    }
}
