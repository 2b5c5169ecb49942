//! Pulls and pushes with progress, for the commands of those names.

use std::time::{Duration, Instant};

use events::{Event, EventSink, Moved, Verdict};
use oci::{Descriptor, Digest, Reference, media_type};
use registry::{Client, Progress as RegistryProgress, UploadOutcome};
use store::{Image, SealedIndex, SealedManifest, Store};

use crate::{failure::Failure, terminal::text};

/// Tells the transfers of one stage to the views, from the stage's beginning to its end.
pub(crate) struct Transfers<'a> {
    events: &'a EventSink,
    stage: String,
    begun: Instant,
    told: events::Transfers,
}

impl<'a> Transfers<'a> {
    /// Of a stage that is under way.
    pub(crate) fn new(events: &'a EventSink, stage: &str) -> Self {
        let told = events::Transfers::new(events, stage);
        Self { events, stage: stage.to_owned(), begun: Instant::now(), told }
    }

    /// Begins the stage.
    pub(crate) fn begin(events: &'a EventSink, stage: &str) -> Self {
        events.emit(Event::StageStarted { stage: stage.to_owned() });
        Self::new(events, stage)
    }

    /// Ends the stage with its summary; without one it failed.
    pub(crate) fn end(&self, summary: Option<String>) {
        let verdict = if summary.is_some() { Verdict::Passed } else { Verdict::Failed };
        let duration_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let summary = summary.unwrap_or_default();
        self.events.emit(Event::StageFinished { stage: self.stage.clone(), verdict, duration_ms, summary });
    }

    /// What was moved: `58 MB in 1.2s, 48 MB/s, 3 blobs already there`.
    pub(crate) fn words(&self) -> String {
        let Moved { bytes, present_bytes, present } = self.told.moved();
        let mut parts = Vec::new();
        if bytes > 0 {
            let rate = self.rate().map(|rate| format!(", {}", text::rate(rate))).unwrap_or_default();
            parts.push(format!("{} in {}{rate}", text::bytes(bytes), text::duration(self.begun.elapsed())));
        }
        match present {
            0 if present_bytes > 0 => parts.push(format!("{} already there", text::bytes(present_bytes))),
            0 => {}
            _ => parts.push(format!("{} already there", text::count(present, "blob"))),
        }
        parts.join(", ")
    }

    /// Bytes a second since the beginning, where that can be said.
    pub(crate) fn rate(&self) -> Option<u64> {
        let (took, bytes) = (self.begun.elapsed(), self.told.moved().bytes);
        (took >= RATE_FROM && bytes > 0).then(|| (bytes as f64 / took.as_secs_f64()) as u64)
    }
}

/// A rate of less time than this is noise.
const RATE_FROM: Duration = Duration::from_millis(100);

impl RegistryProgress for Transfers<'_> {
    fn advance(&self, item: &Digest, done_bytes: u64, total_bytes: u64) {
        self.told.advance(item.short(), done_bytes, Some(total_bytes));
    }

    fn skip(&self, item: &Digest, bytes: u64, total_bytes: u64) {
        self.told.skip(item.short(), bytes, total_bytes);
    }
}

/// What a push did.
pub(crate) struct Pushed {
    /// Manifest digest that the registry acknowledged.
    pub(crate) digest: Digest,
    /// Blobs that were sent, and those that were there.
    pub(crate) sent: usize,
    pub(crate) present: usize,
}

/// Pushes an image under its reference, or an index of several, or around what the name keeps beside them: blobs first, the
/// name last.
pub(crate) async fn push(
    client: &Client,
    store: &Store,
    reference: &Reference,
    images: &[Image],
    progress: &Transfers<'_>,
) -> anyhow::Result<Pushed> {
    images.iter().try_for_each(|image| refuse_unpublishable(reference, image))?;
    let kept = store.kept_beside(reference)?;
    if let ([image], []) = (images, &kept[..]) {
        let sealed = tokio::task::block_in_place(|| store.manifest(image, store.preferred_options(&image.id)))?;
        return push_sealed(client, store, reference, &sealed, progress).await;
    }
    let index = tokio::task::block_in_place(|| store.preferred_index(images, &kept))?;
    push_index(client, store, reference, &index, progress).await
}

/// Pushes the images of an index by their digests, then the index under its reference.
pub(crate) async fn push_index(
    client: &Client,
    store: &Store,
    reference: &Reference,
    index: &SealedIndex,
    progress: &Transfers<'_>,
) -> anyhow::Result<Pushed> {
    let mut total = Pushed { digest: index.digest.clone(), sent: 0, present: 0 };
    for sealed in &index.manifests {
        let by_digest = reference.with_digest(sealed.digest.clone());
        let pushed = push_sealed(client, store, &by_digest, sealed, progress).await?;
        total.sent += pushed.sent;
        total.present += pushed.present;
    }
    let kind = index.index.media_type.as_deref().unwrap_or(media_type::INDEX);
    total.digest = client.put_manifest(reference, kind, index.bytes.clone()).await?;
    Ok(total)
}

/// What must stay here is refused before anything is compressed for it.
pub(crate) fn refuse_unpublishable(reference: &Reference, image: &Image) -> anyhow::Result<()> {
    if let Some(reason) = unpublishable(image) {
        return Err(Failure::refused(format!("{} must not be published: {reason}", reference.familiar()))
            .hint("build it on a base image of its own: `seatrial base debian:bookworm`")
            .into());
    }
    Ok(())
}

/// Pushes what is sealed under its reference, which may be a digest: blobs first, the name last.
pub(crate) async fn push_sealed(
    client: &Client,
    store: &Store,
    reference: &Reference,
    sealed: &SealedManifest,
    progress: &Transfers<'_>,
) -> anyhow::Result<Pushed> {
    let mut blobs: Vec<Descriptor> = sealed.manifest.layers.clone();
    blobs.push(sealed.manifest.config.clone());
    let outcomes = client.push_blobs(reference, &blobs, store, None, progress).await?;
    let kind = sealed.manifest.media_type.clone().unwrap_or_else(|| media_type::MANIFEST.into());
    let digest = client.put_manifest(reference, &kind, sealed.bytes.clone()).await?;
    let sent = outcomes.iter().filter(|outcome| matches!(outcome, UploadOutcome::Uploaded)).count();
    Ok(Pushed { digest, sent, present: outcomes.len() - sent })
}

/// Why an image must stay here: `base host` labels what it makes from the machine's own files, and the label is inherited.
pub(crate) fn unpublishable(image: &Image) -> Option<String> {
    let made_of = image.config.config.labels.get(BASE_LABEL)?;
    (made_of == "host").then(|| "it is made of this machine's own files (`seatrial base host`)".to_owned())
}

/// The label that says how a base was made.
const BASE_LABEL: &str = "io.seatrial.base";
