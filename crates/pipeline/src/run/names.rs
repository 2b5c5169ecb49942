//! After the verdict: the manifest and its names. Digest first, then the names that move freely, and last those that stand for
//! the newest of several versions, each only where the registry has nothing higher.

use events::{Event, Verdict};
use futures::{StreamExt, TryStreamExt};
use oci::{Digest, Reference};
use registry::{ErrorKind, TagCondition};

use super::{
    evidence::{self, Attached},
    publish::{Intention, STAGE, Sealed, Tags},
    words::Stage,
};
use crate::{Foreseen, Judgement, KeptTag, Plan, Published, RunContext, RunError, TagFate, TagState};

/// Somebody else moved a tag each time between our looking and our writing: more than this is no race but a fault.
const RACES_MAX: u32 = 16;

/// Tags that are asked about side by side.
const ASKED_AT_ONCE: usize = 8;

/// What became of the names.
#[derive(Default)]
pub(super) struct Named {
    pub(super) published: Vec<Published>,
    pub(super) kept: Vec<KeptTag>,
    pub(super) foreseen: Vec<Foreseen>,
    /// What was attached.
    pub(super) attached: Attached,
}

/// Writes manifest and names: by digest first, so that a name never means something incomplete. With `--dry-run` it only asks.
pub(super) async fn write_names(
    cx: RunContext<'_>,
    plan: &Plan,
    intention: &Intention,
    sealed: &Sealed,
    tags: &Tags,
    evidence: Attached,
) -> Result<Named, RunError> {
    let mut named = Named { attached: evidence, ..Named::default() };
    if tags.registry.is_empty() {
        return Ok(named);
    }
    if intention.is_dry {
        for repository in &intention.repositories {
            foresee(cx, repository, sealed, tags, &mut named).await?;
        }
        return Ok(named);
    }
    if !intention.is_planned {
        return Ok(named);
    }
    if cx.cancel.is_cancelled() {
        return Err(RunError::Cancelled);
    }
    let stage = Stage::start(cx.events, &plan.stage(STAGE));
    match write_all(cx, intention, sealed, tags, &mut named).await {
        Ok(()) => {
            stage.finish(Verdict::Passed, summary(&named));
            Ok(named)
        }
        Err(error) => {
            let names: Vec<_> = named.published.iter().map(|name| name.reference.as_str()).collect();
            let written = if names.is_empty() { String::new() } else { format!(" ({} written)", names.join(", ")) };
            stage.finish(Verdict::Failed, format!("{error}{written}"));
            Err(error)
        }
    }
}

/// `1.2.3, 1.2; latest stays`.
fn summary(named: &Named) -> String {
    let mut tags = Vec::new();
    for published in &named.published {
        let tag = published.reference.rsplit(':').next().unwrap_or_default();
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    let kept = match named.kept.len() {
        0 => String::new(),
        1 => format!("; {} stays", named.kept[0].reference.rsplit(':').next().unwrap_or_default()),
        number => format!("; {number} tags stay"),
    };
    tags.join(", ") + &kept
}

async fn write_all(
    cx: RunContext<'_>,
    intention: &Intention,
    sealed: &Sealed,
    tags: &Tags,
    named: &mut Named,
) -> Result<(), RunError> {
    let mut is_new = Vec::new();
    for repository in &intention.repositories {
        let by_digest = repository.with_digest(sealed.manifest.digest.clone());
        if cx.registry.digest_of(&by_digest).await?.is_none() {
            is_new.push(repository);
            cx.registry.put_manifest(&by_digest, sealed.media_type(), &sealed.manifest.bytes).await?;
        }
        // Before the names, so that whoever comes by one finds what is said of it.
        evidence::attach(cx, &by_digest, &named.attached).await?;
    }
    for repository in &intention.repositories {
        if cx.cancel.is_cancelled() {
            return Err(RunError::Cancelled);
        }
        let mut names = Names { cx, repository, sealed, named };
        let (moving, mut free) = tags.by_kind();
        // No name means what was not there; a name that means it already is left alone.
        if !is_new.contains(&repository) {
            free = names.others(free).await?.into_iter().map(|(tag, _)| tag).collect();
        }
        names.put(&free, &TagCondition::Any).await?;
        names.move_forward(moving, tags).await?;
    }
    Ok(())
}

impl Tags {
    /// Tags that stand for the newest of several versions, and the others.
    fn by_kind(&self) -> (Vec<String>, Vec<String>) {
        self.registry.iter().cloned().partition(|tag| self.is_moving(tag))
    }
}

/// The names in one repository.
struct Names<'a> {
    cx: RunContext<'a>,
    repository: &'a Reference,
    sealed: &'a Sealed,
    named: &'a mut Named,
}

impl Names<'_> {
    /// Moves tags to the image as far as nothing higher is there. Where somebody else was faster, it looks and judges again.
    async fn move_forward(&mut self, mut open: Vec<String>, rules: &Tags) -> Result<(), RunError> {
        let mut races = 0;
        loop {
            let others = self.others(std::mem::take(&mut open)).await?;
            if others.is_empty() {
                return Ok(());
            }
            let all = self.cx.registry.list_tags(self.repository).await?;
            let (mut absent, mut present, mut digests) = (Vec::new(), Vec::new(), Vec::new());
            for (tag, digest) in others {
                let now = match digest {
                    Some(digest) => Some(state(self.cx, self.repository, digest).await?),
                    None => None,
                };
                let ours = &self.sealed.manifest.digest;
                match (rules.judge(&tag, ours, now.as_ref(), &all), now) {
                    (Judgement::IsThere, _) => self.note_written(&tag),
                    (Judgement::Stays(reason), _) => self.note_kept(&tag, reason),
                    (Judgement::Moves, None) => absent.push(tag),
                    (Judgement::Moves, Some(now)) => {
                        present.push(tag);
                        digests.push(now.digest);
                    }
                }
            }
            // Whichever of these a tag names, our version is not lower than it: so one condition serves for all of them.
            for (tags, condition) in [(present, TagCondition::Names(digests)), (absent, TagCondition::Absent)] {
                match self.put(&tags, &condition).await {
                    Ok(()) => self.settle(&tags, rules).await?,
                    Err(RunError::Registry(error))
                        if matches!(error.kind, ErrorKind::TagChanged { .. }) && races < RACES_MAX =>
                    {
                        open.extend(tags);
                    }
                    Err(error) => return Err(error),
                }
            }
            races += 1;
        }
    }

    /// Those of some tags that do not name the image, with what they name instead.
    async fn others(&mut self, tags: Vec<String>) -> Result<Vec<(String, Option<Digest>)>, RunError> {
        let names: Vec<Reference> = tags.iter().map(|tag| self.repository.with_tag(tag)).collect();
        let asked: Vec<_> = names.iter().map(|name| self.cx.registry.digest_of(name)).collect();
        let found: Vec<_> = futures::stream::iter(asked).buffered(ASKED_AT_ONCE).try_collect().await?;
        let (ours, others): (Vec<_>, Vec<_>) =
            tags.into_iter().zip(found).partition(|(_, digest)| digest.as_ref() == Some(&self.sealed.manifest.digest));
        ours.iter().for_each(|(tag, _)| self.note_written(tag));
        Ok(others)
    }

    /// Looks again. A registry that knows no conditions wrote the tags all the same, perhaps over a higher version that came
    /// while we were about to write; its own tag tells of it. Whoever writes last looks last, so that the highest wins in the end.
    async fn settle(&mut self, written: &[String], rules: &Tags) -> Result<(), RunError> {
        let (cx, repository) = (self.cx, self.repository);
        let mut open: Vec<String> = written.to_vec();
        for _ in 0..RACES_MAX {
            if open.is_empty() {
                return Ok(());
            }
            let all = cx.registry.list_tags(repository).await?;
            for tag in std::mem::take(&mut open) {
                let Some(higher) = rules.higher(&tag, &all) else { continue };
                let named = async |tag: &str| cx.registry.digest_of(&repository.with_tag(tag)).await;
                let (is, ought) = (named(&tag).await?, named(&higher).await?);
                let Some(ought) = ought else { continue };
                if is.is_none_or(|is| is != ought) {
                    cx.registry.retag(repository, &higher, &tag).await?;
                    open.push(tag.clone());
                }
                self.note_overtaken(&tag, format!("the repository has {higher}, which is higher"));
            }
        }
        Ok(())
    }

    async fn put(&mut self, tags: &[String], condition: &TagCondition) -> Result<(), RunError> {
        if tags.is_empty() {
            return Ok(());
        }
        let (cx, repository, sealed) = (self.cx, self.repository, self.sealed);
        let mut written = |tag: String| self.note_written(&tag);
        let bytes = &sealed.manifest.bytes;
        Ok(cx.registry.put_tags(repository, tags, condition, sealed.media_type(), bytes, &mut written).await?)
    }

    fn note_written(&mut self, tag: &str) {
        let reference = self.repository.with_tag(tag).to_string();
        let digest = self.sealed.manifest.digest.clone();
        let published = Published { reference: reference.clone(), digest: digest.clone() };
        if !self.named.published.contains(&published) {
            self.cx.events.emit(Event::TagWritten { reference, digest: Some(digest) });
            self.named.published.push(published);
        }
    }

    /// What was written is not any more.
    fn note_overtaken(&mut self, tag: &str, reason: String) {
        let reference = self.repository.with_tag(tag).to_string();
        self.named.published.retain(|published| published.reference != reference);
        if !self.named.kept.iter().any(|kept| kept.reference == reference) {
            self.note_kept(tag, reason);
        }
    }

    fn note_kept(&mut self, tag: &str, reason: String) {
        let reference = self.repository.with_tag(tag).to_string();
        self.cx.events.emit(Event::TagKept { reference: reference.clone(), reason: reason.clone() });
        self.named.kept.push(KeptTag { reference, reason });
    }
}

/// What publishing would do to each tag of a repository.
async fn foresee(
    cx: RunContext<'_>,
    repository: &Reference,
    sealed: &Sealed,
    tags: &Tags,
    named: &mut Named,
) -> Result<(), RunError> {
    let all = cx.registry.list_tags(repository).await?;
    let (moving, _) = tags.by_kind();
    for tag in &tags.registry {
        let name = repository.with_tag(tag);
        let digest = if all.contains(tag) { cx.registry.digest_of(&name).await? } else { None };
        let now = match digest {
            Some(digest) => Some(state(cx, repository, digest).await?),
            None => None,
        };
        let fate = fate(tag, &sealed.manifest.digest, now, moving.contains(tag), tags, &all);
        let (action, reason) = match &fate {
            TagFate::New => ("create", None),
            TagFate::Moves(from) => ("move", Some(format!("it names {from}"))),
            TagFate::IsThere => ("none", Some("it names this image".to_owned())),
            TagFate::Stays(reason) => ("keep", Some(reason.clone())),
        };
        let reference = name.to_string();
        cx.events.emit(Event::TagForeseen { reference: reference.clone(), action: action.into(), reason });
        named.foreseen.push(Foreseen { reference, fate });
    }
    Ok(())
}

/// What a tag names, as far as it is judged by.
async fn state(cx: RunContext<'_>, repository: &Reference, digest: Digest) -> Result<TagState, RunError> {
    let version = cx.registry.version_of(&repository.with_digest(digest.clone())).await?;
    Ok(TagState { digest, version })
}

fn fate(tag: &str, ours: &Digest, now: Option<TagState>, is_moving: bool, tags: &Tags, all: &[String]) -> TagFate {
    let judgement = match &now {
        Some(now) if now.digest == *ours => Judgement::IsThere,
        now if is_moving => tags.judge(tag, ours, now.as_ref(), all),
        _ => Judgement::Moves,
    };
    match (judgement, now) {
        (Judgement::IsThere, _) => TagFate::IsThere,
        (Judgement::Stays(reason), _) => TagFate::Stays(reason),
        (Judgement::Moves, None) => TagFate::New,
        (Judgement::Moves, Some(now)) => {
            TagFate::Moves(now.version.map_or_else(|| now.digest.to_string(), |version| version.text().to_owned()))
        }
    }
}
