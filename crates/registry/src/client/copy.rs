//! Copying between registries: the whole graph below a name, byte for byte, without unpacking anything.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    sync::{Arc, Mutex},
};

use futures::{StreamExt, TryStreamExt, future::BoxFuture, stream::FuturesUnordered};
use oci::{Descriptor, Digest, Hasher, Manifest, ManifestOrIndex, Platform, Reference};
use store::Store;
use tokio::sync::Semaphore;

use super::{
    BlobSource, BlobTarget, Client, CommitError, CopyPlace, NoProgress, PARALLEL_MANIFESTS, Progress, ResolvedManifest,
    UploadOutcome, describe, document_type,
    ends::End,
    pull::is_there,
    referrers::{self, legacy_tags},
};
use crate::{ErrorKind, RegistryError};

/// Index in index, referrer of referrer: honest graphs have two or three levels.
const DEPTH_MAX: usize = 8;
/// Manifests of one graph, all platforms and referrers together.
const MANIFESTS_MAX: usize = 10_000;
/// Bytes of all manifests of one graph.
const GRAPH_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What a copy takes along. `..CopyOptions::default()` is everything.
#[derive(Clone, Debug)]
pub struct CopyOptions<'a> {
    /// Only the image for this platform, without the index around it; `None`: whatever the name means.
    pub platform: Option<Platform>,
    /// Signatures, SBOMs and whatever else refers to what is copied.
    pub referrers: bool,
    /// Blobs that it has are not fetched from the source.
    pub local: Option<&'a Store>,
}

impl Default for CopyOptions<'_> {
    fn default() -> Self {
        Self { platform: None, referrers: true, local: None }
    }
}

/// What a copy did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// What the new name means: the same digest as at the source.
    pub digest: Digest,
    /// Manifests and indexes that were written.
    pub manifests: usize,
    /// Manifests among them that refer to another one.
    pub referrers: usize,
    /// Blobs that were sent.
    pub sent: usize,
    /// Bytes of them.
    pub sent_bytes: u64,
    /// Blobs that the registry took from another of its repositories.
    pub mounted: usize,
    /// Blobs that were there.
    pub present: usize,
}

/// A manifest with its place in the order of writing.
struct Node {
    resolved: ResolvedManifest,
    /// The target has it: its blobs and manifests are there, because no registry takes it without them.
    is_present: bool,
    role: Role,
}

/// Entries of lists of referrers, by their subjects.
type Entries = BTreeMap<Digest, Vec<Descriptor>>;

/// What leads to a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Role {
    /// The name.
    Root,
    /// An index.
    Listed,
    /// Its own subject.
    Referrer,
    /// A tag that is made of the digest of what it is about, as cosign 1 and 2 did it.
    Beside(String),
}

impl Client {
    /// Copies what `from` names to `to`: index, manifests, blobs and referrers, with equal digests. The name is written
    /// last; what the target has is not sent, nor a name that is right already. Within one registry blobs are mounted.
    ///
    /// # Errors
    /// A registry fails or refuses, content is wrong, or the graph is beyond the bounds.
    pub async fn copy(
        &self,
        from: &Reference,
        to: &Reference,
        options: &CopyOptions<'_>,
        progress: &dyn Progress,
    ) -> Result<Copied, RegistryError> {
        let (from, to) = (CopyPlace::Registry(from.clone()), CopyPlace::Registry(to.clone()));
        self.copy_between(&from, &to, options, progress).await
    }

    /// The same between any two places.
    ///
    /// # Errors
    /// As [`Client::copy`]; a layout may be none, or not be readable or writable.
    pub async fn copy_between(
        &self,
        from: &CopyPlace,
        to: &CopyPlace,
        options: &CopyOptions<'_>,
        progress: &dyn Progress,
    ) -> Result<Copied, RegistryError> {
        let (from, to) = (End::new(self, from), End::new(self, to));
        let root = from.root(options.platform.as_ref()).await?;
        let root_digest = root.descriptor.digest.clone();
        let wanted = to.repository().and_then(Reference::digest);
        if wanted.is_some_and(|wanted| *wanted != root_digest) {
            let reason = format!("the source is {root_digest}, which is not what the target names");
            return Err(to.failed("copy to", ErrorKind::malformed(reason)));
        }
        let mut walk = Walk::new(&from, &to, options.referrers);
        walk.seen.insert(root_digest.clone());
        walk.visit(root, Role::Root, 0).await?;
        let nodes = walk.order;
        let mut copied =
            Copied { digest: root_digest, manifests: 0, referrers: 0, sent: 0, sent_bytes: 0, mounted: 0, present: 0 };
        self.copy_blobs(&from, &to, &nodes, options, progress, &mut copied).await?;
        // Children come before those that refer to them, the name last of all: it writes the root as well.
        let is_named = wanted.is_none();
        let mut unlisted = Entries::new();
        for node in nodes.iter().filter(|node| !node.is_present) {
            copied.manifests += 1;
            copied.referrers += usize::from(matches!(node.role, Role::Referrer | Role::Beside(_)));
            match &node.role {
                Role::Root if is_named => {}
                Role::Root | Role::Listed => to.put(&node.resolved).await?,
                Role::Beside(tag) => to.put_tagged(&node.resolved, tag).await?,
                Role::Referrer => {
                    if let Some((subject, entry)) = to.put_referrer(&node.resolved).await? {
                        unlisted.entry(subject).or_default().push(entry);
                    }
                }
            }
        }
        self.list(&to, &nodes, unlisted).await?;
        let root = nodes.iter().find(|node| node.role == Role::Root).expect("the graph holds its root");
        if is_named && !(root.is_present && to.names(&copied.digest).await?) {
            to.put_named(&root.resolved).await?;
        }
        Ok(copied)
    }

    /// Lists what refers to the copied manifests, where the target does not do it by itself. What was there already may not have
    /// been listed by whoever wrote it.
    async fn list(&self, to: &End<'_>, nodes: &[Node], unlisted: Entries) -> Result<(), RegistryError> {
        let mut there = Entries::new();
        for node in nodes.iter().filter(|node| node.role == Role::Referrer && node.is_present) {
            let ResolvedManifest { descriptor, bytes, .. } = &node.resolved;
            if let Some((subject, entry)) = referrers::entry(&descriptor.media_type, bytes) {
                there.entry(subject).or_default().push(entry);
            }
        }
        for (entries, is_new) in [(unlisted, true), (there, false)] {
            for (subject, entries) in entries {
                to.list_referrers(&subject, &entries, is_new).await?;
            }
        }
        Ok(())
    }

    /// Moves the blobs of all manifests that the target lacks, several side by side.
    async fn copy_blobs(
        &self,
        from: &End<'_>,
        to: &End<'_>,
        nodes: &[Node],
        options: &CopyOptions<'_>,
        progress: &dyn Progress,
        copied: &mut Copied,
    ) -> Result<(), RegistryError> {
        let permits = Semaphore::new(self.options().parallel_blobs.max(1));
        let mut seen = BTreeSet::new();
        let mut work = FuturesUnordered::new();
        for node in nodes.iter().filter(|node| !node.is_present) {
            let ManifestOrIndex::Manifest(manifest) = &node.resolved.document else { continue };
            for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
                // Layers with addresses of their own are not distributed by registries.
                if blob.media_type.contains("foreign") || !seen.insert(blob.digest.to_string()) {
                    continue;
                }
                let permits = &permits;
                work.push(async move {
                    let _permit = permits.acquire().await.expect("the semaphore is never closed");
                    let outcome = self.copy_blob(from, to, blob, options.local, progress).await?;
                    Ok::<_, RegistryError>((outcome, blob.size))
                });
            }
        }
        while let Some(done) = work.next().await {
            let (outcome, size) = done?;
            match outcome {
                UploadOutcome::Existed => copied.present += 1,
                UploadOutcome::Mounted => copied.mounted += 1,
                UploadOutcome::Uploaded => {
                    copied.sent += 1;
                    copied.sent_bytes += size;
                }
            }
        }
        Ok(())
    }

    /// Moves one blob: not at all, within the registry, from this machine, or from the source through a file without a name.
    async fn copy_blob(
        &self,
        from: &End<'_>,
        to: &End<'_>,
        blob: &Descriptor,
        local: Option<&Store>,
        progress: &dyn Progress,
    ) -> Result<UploadOutcome, RegistryError> {
        let Some(target) = to.repository() else { return to.take(from, blob, progress).await };
        let to_target = |kind: ErrorKind| kind.during("copy a layer to", target.repository());
        let mount_from = from.repository().filter(|from| from.domain() == target.domain()).map(Reference::path);
        if let Some(outcome) = self.place_without_bytes(target, &blob.digest, mount_from).await.map_err(to_target)? {
            is_there(progress, blob);
            return Ok(outcome);
        }
        let known = local.and_then(|store| store.open_blob(&blob.digest).ok().flatten());
        let source = match (known, from.place) {
            (Some(file), _) => Ok(file.into()),
            (None, CopyPlace::Layout(layout, _)) => layout.blob(blob).map(BlobSource::from).map_err(ErrorKind::from),
            (None, CopyPlace::Registry(name)) => self.spooled(name, blob).await,
        };
        let source = source.map_err(|kind| from.failed("copy a layer of", kind))?;
        self.upload_kind(target, blob, source, None, None, progress).await.map_err(to_target)
    }

    /// Fetches a blob into a file that has no name, so that nothing is left of it whatever happens.
    async fn spooled(&self, from: &Reference, blob: &Descriptor) -> Result<BlobSource, ErrorKind> {
        let done: Arc<Mutex<Option<File>>> = Arc::default();
        let open = {
            let done = Arc::clone(&done);
            move || -> Result<Box<dyn BlobTarget>, Box<dyn std::error::Error + Send + Sync>> {
                Ok(Box::new(Nameless { file: tempfile::tempfile()?, hasher: Hasher::new(), done: Arc::clone(&done) }))
            }
        };
        self.fetch_blob_kind(from, blob, &open, &NoProgress).await?;
        let file = done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        Ok(file.expect("a committed blob leaves its file").into())
    }
}

/// The way through a graph of manifests.
struct Walk<'a> {
    from: &'a End<'a>,
    to: &'a End<'a>,
    with_referrers: bool,
    seen: HashSet<Digest>,
    /// Bytes of all manifests, which are held in memory.
    size_bytes: usize,
    /// In an order in which they can be written: what an index lists before it, what refers to a manifest after it.
    order: Vec<Node>,
}

impl<'a> Walk<'a> {
    fn new(from: &'a End<'a>, to: &'a End<'a>, with_referrers: bool) -> Self {
        Self { from, to, with_referrers, seen: HashSet::new(), size_bytes: 0, order: Vec::new() }
    }

    fn visit(
        &mut self,
        resolved: ResolvedManifest,
        role: Role,
        depth: usize,
    ) -> BoxFuture<'_, Result<(), RegistryError>> {
        Box::pin(async move {
            if depth > DEPTH_MAX {
                return Err(self.too_much(format!("indexes or referrers nest deeper than {DEPTH_MAX}")));
            }
            self.size_bytes += resolved.bytes.len();
            if self.seen.len() > MANIFESTS_MAX || self.size_bytes > GRAPH_BYTES_MAX {
                return Err(self.too_much("more manifests hang together than any image has".into()));
            }
            let digest = resolved.descriptor.digest.clone();
            let is_present = self.to.has_manifest(&resolved.descriptor).await?;
            // No registry takes an index without what it lists; only what refers to that may still be missing.
            if let ManifestOrIndex::Index(index) = &resolved.document
                && (!is_present || self.with_referrers)
            {
                let listed = index.manifests.iter().map(|child| child.digest.clone()).collect();
                for child in self.fetch_new(listed).await? {
                    self.visit(child, Role::Listed, depth + 1).await?;
                }
            }
            let has_tags_beside = role != Role::Referrer;
            self.order.push(Node { resolved, is_present, role });
            if self.with_referrers {
                let found = self.from.referrers(&digest).await?;
                for referrer in self.fetch_listed(found).await? {
                    self.visit(referrer, Role::Referrer, depth + 1).await?;
                }
                if has_tags_beside {
                    self.visit_beside(&digest).await?;
                }
            }
            Ok(())
        })
    }

    /// What cosign's older tags name. Signatures that the target has below the same tag stay.
    async fn visit_beside(&mut self, digest: &Digest) -> Result<(), RegistryError> {
        let tags = legacy_tags(digest);
        let (from, to) = (self.from, self.to);
        let found = futures::future::try_join_all(tags.iter().map(|tag| from.tagged(tag))).await?;
        for (tag, found) in tags.into_iter().zip(found) {
            let Some(found) = found else { continue };
            let there = to.tagged(&tag).await?;
            let resolved = match &there {
                Some(there) => joined(there, found).map_err(|kind| to.failed("copy to", kind))?,
                None => found,
            };
            let is_present = there.is_some_and(|there| there.descriptor.digest == resolved.descriptor.digest);
            self.size_bytes += resolved.bytes.len();
            self.order.push(Node { resolved, is_present, role: Role::Beside(tag) });
        }
        Ok(())
    }

    fn too_much(&self, what: String) -> RegistryError {
        self.from.failed("copy", ErrorKind::malformed(what))
    }

    /// Fetches manifests that were not met before, in order.
    async fn fetch_new(&mut self, digests: Vec<Digest>) -> Result<Vec<ResolvedManifest>, RegistryError> {
        let new: Vec<Digest> = digests.into_iter().filter(|digest| self.seen.insert(digest.clone())).collect();
        let from = self.from;
        let fetches: Vec<_> = new.iter().map(|digest| from.manifest(digest)).collect();
        futures::stream::iter(fetches).buffered(PARALLEL_MANIFESTS).try_collect().await
    }

    /// The same of a list of referrers. Where that is a tag, it may name what is gone.
    async fn fetch_listed(&mut self, digests: Vec<Digest>) -> Result<Vec<ResolvedManifest>, RegistryError> {
        let new: Vec<Digest> = digests.into_iter().filter(|digest| self.seen.insert(digest.clone())).collect();
        let from = self.from;
        let fetch = async |digest: &Digest| match from.manifest(digest).await {
            Err(error) if error.is_not_found() => Ok(None),
            fetched => fetched.map(Some),
        };
        let fetches: Vec<_> = new.iter().map(fetch).collect();
        let fetched: Vec<_> = futures::stream::iter(fetches).buffered(PARALLEL_MANIFESTS).try_collect().await?;
        Ok(fetched.into_iter().flatten().collect())
    }
}

/// What a tag names at the target, with what the source has more: each layer is a signature of its own.
fn joined(there: &ResolvedManifest, found: ResolvedManifest) -> Result<ResolvedManifest, ErrorKind> {
    let (ManifestOrIndex::Manifest(old), ManifestOrIndex::Manifest(new)) = (&there.document, &found.document) else {
        return Ok(found);
    };
    let lacks = |of: &Manifest, layer: &Descriptor| !of.layers.contains(layer);
    if old.layers.iter().all(|layer| !lacks(new, layer)) {
        return Ok(found);
    }
    let further: Vec<Descriptor> = new.layers.iter().filter(|layer| lacks(old, layer)).cloned().collect();
    if further.is_empty() {
        return Ok(there.clone());
    }
    let mut whole = old.clone();
    whole.layers.extend(further);
    let bytes = serde_json::to_vec(&whole).map_err(|error| ErrorKind::malformed(describe(&error)))?;
    let document = ManifestOrIndex::Manifest(whole);
    let kind = document_type(&document).unwrap_or_else(|| there.descriptor.media_type.clone());
    Ok(ResolvedManifest { descriptor: Descriptor::of(&kind, &bytes), bytes: bytes.into(), document })
}

/// A blob on its way from one registry to another.
struct Nameless {
    file: File,
    hasher: Hasher,
    done: Arc<Mutex<Option<File>>>,
}

impl Write for Nameless {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl BlobTarget for Nameless {
    fn commit(self: Box<Self>, digest: &Digest, size_bytes: u64) -> Result<(), CommitError> {
        let Self { mut file, hasher, done } = *self;
        let found = hasher.finish();
        if found != *digest {
            return Err(CommitError::WrongDigest(found));
        }
        let size = file.seek(SeekFrom::End(0)).map_err(|error| CommitError::Failed(error.into()))?;
        if size != size_bytes {
            return Err(CommitError::Failed(format!("{size} bytes came instead of {size_bytes}").into()));
        }
        *done.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(file);
        Ok(())
    }
}
