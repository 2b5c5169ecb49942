//! From a built image to its names: seal, upload early, and after the verdict tag and push.

use std::{collections::BTreeMap, time::SystemTime};

use engine::{Built, Cancel};
use events::{Event, Transfers};
use oci::{Descriptor, Digest, Reference};
use registry::{Progress, RegistryError};

use super::{Run, evidence, record, selection::Part};
use crate::{
    ChosenTags, Flavor, Judgement, OpenSigner, PlainTag, Plan, RunContext, RunError, RunOptions, SkippedTag, Source,
    SourceEvent, Stages, TagInputs, TagRule, TagState, Values, Version, choose_tags, choose_tags_by, higher_tag,
    is_moving, judge_tag, legal_tag, tags, version::Ordered,
};

/// The stage's id.
pub(super) const STAGE: &str = "publish";

/// Whether this run means to publish.
pub(super) struct Intention {
    /// Where; empty when [`Intention::refusal`] says why not.
    pub(super) repositories: Vec<Reference>,
    /// Something is to be written to a registry if the verdict is yes.
    pub(super) is_planned: bool,
    /// Why not, in words. `None` as well when nobody speaks of publishing.
    pub(super) refusal: Option<String>,
    /// It was asked for, and this image may never be published.
    pub(super) is_forbidden: bool,
    /// Only what would be written is asked for.
    pub(super) is_dry: bool,
    /// Who signs what is said of it.
    pub(super) signer: Option<OpenSigner>,
}

impl Intention {
    /// Whether files may be published, as far as that is known before there is an image: their secrets are read then.
    pub(super) fn may_publish_files(plan: &Plan, options: &RunOptions) -> bool {
        let wanted = options.publish || options.stages == Stages::Publish;
        let holds = |when| tags::holds(when, &plan.source, &plan.values.env).is_ok();
        wanted
            && plan.source.event != SourceEvent::PullRequest
            && plan.publish.as_ref().is_some_and(|publish| holds(&publish.when))
    }

    pub(super) fn of(run: Run<'_>, part: &Part<'_>, built: &Built) -> Intention {
        let (options, plan) = (run.options, part.plan);
        let wanted = options.publish || options.stages == Stages::Publish;
        let none = |refusal| Intention {
            repositories: Vec::new(),
            is_planned: false,
            refusal,
            is_forbidden: false,
            is_dry: false,
            signer: None,
        };
        let refused = |reason: String| none(Some(reason));
        if plan.entry.is_some() && !part.work.names {
            return none(None);
        }
        let Some(publish) = &plan.publish else {
            let reason = wanted.then(|| "the pipeline file has no `publish`".to_owned());
            return none(reason);
        };
        if let Some(reason) = &built.unpublishable {
            return Intention { is_forbidden: wanted, ..refused(reason.clone()) };
        }
        if plan.source.event == SourceEvent::PullRequest {
            return refused("change requests are not published".into());
        }
        if let Err(reason) = tags::holds(&publish.when, &plan.source, &plan.values.env) {
            return refused(reason);
        }
        if publish.repositories.is_empty() && publish.files.is_empty() {
            return refused("neither `image` nor `publish.to` names a registry".into());
        }
        if !wanted {
            return refused("`--publish` was not given".into());
        }
        if !run.course.is_whole && !run.whole.test.gates.is_empty() {
            return refused("the gates of the whole were left out: publish without naming images".into());
        }
        Intention {
            repositories: publish.repositories.clone(),
            is_planned: !options.dry_run,
            refusal: options.dry_run.then(|| "`--dry-run` was given".to_owned()),
            is_forbidden: false,
            is_dry: options.dry_run,
            signer: options.signers.get(&plan.entry).cloned(),
        }
    }
}

/// An image with its digests.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    pub(super) image: store::Image,
    pub(super) manifest: store::SealedManifest,
    /// What was made beside the gates to be said of it.
    pub(super) ready: evidence::Ready,
}

impl Sealed {
    /// Media type of the manifest.
    pub(super) fn media_type(&self) -> &str {
        self.manifest.manifest.media_type.as_deref().unwrap_or(oci::media_type::MANIFEST)
    }
}

/// What happens beside sealing and uploading.
#[derive(Clone, Copy)]
pub(super) struct Moments<'a> {
    /// The verdict is no, so that uploading more is of no use.
    pub(super) abandon: &'a Cancel,
    /// The first gate runs, or none will.
    pub(super) begun: &'a Cancel,
}

/// Seals, and uploads if publishing is planned, beside the gates. Nothing gets a name here: until the verdict, the
/// registry has blobs that nobody can find. Evidence takes nothing of the time until the gates begin.
pub(super) async fn seal_and_upload(
    run: Run<'_>,
    part: &Part<'_>,
    built: &Built,
    intention: &Intention,
    Moments { abandon, begun }: Moments<'_>,
) -> Result<Option<Sealed>, RunError> {
    let (cx, Part { plan, work }) = (run.cx, part);
    if !work.seals {
        return Ok(None);
    }
    let sealed = tokio::select! {
        biased;
        () = cx.cancel.cancelled() => return Err(RunError::Cancelled),
        // What failed is not worth compressing.
        () = abandon.cancelled() => return Ok(None),
        sealed = cx.engine.seal(built) => sealed.map_err(RunError::Engine)?,
    };
    let mut sealed = Sealed { image: sealed.0, manifest: sealed.1, ready: evidence::Ready::default() };
    check_same(built, &sealed);
    cx.events
        .emit(Event::ImageSealed { digest: sealed.manifest.digest.clone(), size_bytes: sealed.manifest.size_bytes });
    if work.needs_verdict {
        record::require_passed(run, plan, &sealed).await?;
    }
    if intention.is_planned {
        if plan.source.is_dirty {
            let message = "publishing what differs from the commit: tracked files have changes".into();
            cx.events.emit(Event::Warning { message, place: None });
        }
        let upload = async {
            for repository in &intention.repositories {
                upload(cx, plan, repository, &sealed).await?;
            }
            Ok::<_, RunError>(())
        };
        let prepared = async {
            match &intention.signer {
                Some(signer) => {
                    begun.cancelled().await;
                    evidence::prepare(cx, plan, signer, &sealed.image, &sealed.manifest).await
                }
                None => Ok(evidence::Ready::default()),
            }
        };
        tokio::select! {
            biased;
            () = cx.cancel.cancelled() => return Err(RunError::Cancelled),
            () = abandon.cancelled() => {}
            done = async { tokio::try_join!(upload, prepared) } => sealed.ready = done?.1,
        }
    }
    Ok(Some(sealed))
}

/// What is pushed is, by digest, what the gates ran on. Both sides are ours, so a difference is broken bookkeeping.
fn check_same(built: &Built, sealed: &Sealed) {
    assert_eq!(built.layers, sealed.image.layers, "the sealed image has the layers that the gates ran on");
    assert_eq!(Digest::of(&sealed.manifest.bytes), sealed.manifest.digest, "the manifest has its digest");
    assert_eq!(sealed.manifest.manifest.config.digest, sealed.image.id, "the manifest names the sealed config");
    assert_eq!(
        sealed.image.config.rootfs.diff_ids.len(),
        sealed.manifest.manifest.layers.len(),
        "config and manifest have the same layers"
    );
}

async fn upload(cx: RunContext<'_>, plan: &Plan, repository: &Reference, sealed: &Sealed) -> Result<(), RegistryError> {
    let manifest = &sealed.manifest.manifest;
    let blobs: Vec<Descriptor> = manifest.layers.iter().chain([&manifest.config]).cloned().collect();
    let progress = Told(Transfers::new(cx.events, &plan.stage(STAGE)));
    cx.registry.push_blobs(repository, &blobs, cx.store, &progress).await
}

/// Turns progress into events.
struct Told(Transfers);

impl Progress for Told {
    fn advance(&self, item: &Digest, done_bytes: u64, total_bytes: u64) {
        self.0.advance(item.short(), done_bytes, Some(total_bytes));
    }

    fn skip(&self, item: &Digest, bytes: u64, total_bytes: u64) {
        self.0.skip(item.short(), bytes, total_bytes);
    }
}

/// The tags of a passing image.
pub(super) struct Tags {
    /// For the local store.
    local: Vec<String>,
    /// For the registry, whether or not it is pushed.
    pub(super) registry: Vec<String>,
    /// Those that rules name and that do not apply.
    pub(super) skipped: Vec<SkippedTag>,
    /// The image's version, by which moving tags are judged.
    pub(super) version: Option<Ordered>,
    /// Names of the branch and the commit, which move freely whatever they look like.
    of_source: Vec<String>,
    /// What tags are without their flavour.
    plain: BTreeMap<String, PlainTag>,
}

impl Tags {
    /// A tag without its flavour: `1.2` of `1.2-alpine`.
    fn plain<'t>(&'t self, tag: &'t str) -> &'t str {
        self.plain.get(tag).map_or(tag, |plain| plain.tag.as_str())
    }

    /// Whether it stands for the newest of several versions.
    pub(super) fn is_moving(&self, tag: &str) -> bool {
        let plain = self.plain(tag);
        !self.of_source.iter().any(|name| name == plain) && is_moving(plain, self.version.as_ref())
    }

    /// What becomes of a moving tag, judged against `all` of the repository: `1.2-alpine` by the versions that end in `-alpine`.
    pub(super) fn judge(&self, tag: &str, ours: &Digest, now: Option<&TagState>, all: &[String]) -> Judgement {
        let Some(plain) = self.plain.get(tag) else {
            return judge_tag(tag, ours, self.version.as_ref(), now, all);
        };
        judge_tag(&plain.tag, ours, self.version.as_ref(), now, &plain.alike(all))
    }

    /// The tag among `all` of a higher version, which a moving tag has to name rather than ours.
    pub(super) fn higher(&self, tag: &str, all: &[String]) -> Option<String> {
        let Some(plain) = self.plain.get(tag) else {
            return higher_tag(tag, self.version.as_ref(), all).map(str::to_owned);
        };
        let found = plain.alike(all);
        let higher = higher_tag(&plain.tag, self.version.as_ref(), &found)?;
        Some(format!("{}{higher}{}", plain.prefix, plain.suffix))
    }
}

impl PlainTag {
    /// Tags with the same flavour, without it.
    fn alike(&self, all: &[String]) -> Vec<String> {
        let plain = |other: &String| Some(other.strip_prefix(&self.prefix)?.strip_suffix(&self.suffix)?.to_owned());
        all.iter().filter_map(plain).collect()
    }
}

impl Tags {
    /// Full names in the store, and in registries as far as they are to be written there.
    pub(super) fn names(&self, plan: &Plan, intention: &Intention) -> Vec<String> {
        let local = self.local.iter().map(|tag| plan.image.with_tag(tag).familiar());
        let repositories = intention.repositories.iter();
        let published =
            repositories.flat_map(|repository| self.registry.iter().map(|tag| repository.with_tag(tag).familiar()));
        local.chain(published).collect()
    }
}

/// Chooses local and published tags, and tells which rules do not apply.
pub(super) fn choose(cx: RunContext<'_>, plan: &Plan, intention: &Intention, values: &Values, sealed: &Sealed) -> Tags {
    let local_tags: Vec<TagRule> = plan.local_tags.iter().map(|rule| of_tree(rule, &plan.source)).collect();
    let mut local = choose_tags(&local_tags, &plan.source, values).tags;
    if local.is_empty() {
        // Without Git the image would have no name at all.
        local.push(plan.tag_prefix.strip_suffix('-').unwrap_or("latest").to_owned());
    }
    let plain = Flavor::default();
    let (rules, flavor) = match &plan.publish {
        Some(publish) => (publish.tags.as_slice(), &publish.flavor),
        None => (&[][..], &plain),
    };
    // Dates in tags may be of the run; nothing else looks at the clock.
    let now = Some(SystemTime::now());
    let chosen = choose_tags_by(TagInputs { rules, flavor, source: &plan.source, values, now });
    for skipped in &chosen.skipped {
        cx.events.emit(Event::TagSkipped { template: skipped.template.clone(), reason: skipped.reason.clone() });
    }
    if intention.is_planned {
        local.extend(chosen.tags.iter().filter(|tag| !local.contains(tag)).cloned().collect::<Vec<_>>());
    }
    let version = version_of(&chosen, values, sealed);
    let of_source = [&plan.source.branch, &plan.source.short, &plan.source.sha];
    let of_source = of_source.into_iter().flatten().filter_map(|name| legal_tag(name)).collect();
    Tags { local, registry: chosen.tags, skipped: chosen.skipped, version, of_source, plain: chosen.plain }
}

/// The version that the tags were made of, else that which the run knows, which the manifest tells, or the highest that the tags
/// say. The label comes last: it may be that of a base image.
fn version_of(chosen: &ChosenTags, values: &Values, sealed: &Sealed) -> Option<Ordered> {
    let known = match &values.version {
        Version::Known(version) => Some(version.as_str()),
        _ => None,
    };
    let annotated = sealed.manifest.manifest.annotations.get(registry::VERSION_ANNOTATION).map(String::as_str);
    let label = sealed.image.config.config.labels.get(registry::VERSION_ANNOTATION).map(String::as_str);
    let told = [chosen.version.as_deref(), known, annotated].into_iter().flatten().find_map(Ordered::parse);
    let said = || {
        let plain = |tag: &String| Ordered::whole(chosen.plain.get(tag).map_or(tag, |plain| &plain.tag));
        let whole = chosen.tags.iter().filter_map(plain);
        whole.reduce(|one, other| if one.compare(&other).is_some_and(|order| order.is_lt()) { other } else { one })
    };
    told.or_else(said).or_else(|| label.and_then(Ordered::parse))
}

/// Names that say a commit keep meaning what that commit gave: a tree with changes gets `3f2a91c-dirty`.
fn of_tree(rule: &TagRule, source: &Source) -> TagRule {
    let names_commit = ["${git.sha", "${git.short", "${git.tag", "${version"];
    if source.is_dirty && names_commit.iter().any(|name| rule.tag.contains(name)) {
        return TagRule { tag: format!("{}-dirty", rule.tag), ..rule.clone() };
    }
    rule.clone()
}

/// Names the image in the local store.
pub(super) async fn tag_locally(
    cx: RunContext<'_>,
    plan: &Plan,
    sealed: &Sealed,
    tags: &Tags,
) -> Result<Vec<String>, RunError> {
    let references: Vec<Reference> = tags.local.iter().map(|tag| plan.image.with_tag(tag)).collect();
    let (store, id, names) = (cx.store.clone(), sealed.image.id.clone(), references.clone());
    // Tagging waits for the disk.
    let task = tokio::task::spawn_blocking(move || {
        names.iter().try_for_each(|name| {
            store.tag_relaxed(name, &id).map_err(|error| RunError::local(format!("tag {}", name.familiar()), error))
        })
    });
    task.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    Ok(references.iter().map(Reference::familiar).collect())
}
