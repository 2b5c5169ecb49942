//! Garbage collection beside running pushes and pulls: expired tags, manifests that nothing names, blobs that no manifest
//! refers to, content that no repository has.
//!
//! It never removes what a request relies on: requests hold what they use ([`Leases`](super::lease::Leases)), whatever is
//! linked or referred to since the collection began stays, and so does what was touched within the grace period, which is
//! what a client may rely on between two requests of one push.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::atomic::Ordering,
    time::{Duration, SystemTime},
};

use oci::{Digest, ManifestOrIndex};
use serde::{Deserialize, Serialize};

use super::{
    GitHistory,
    lease::Claim,
    rules::{RepositoryRules, Retention, Rules},
    storage::{RepositoryName, Storage, blob_link, content, manifest_keys, manifest_link, pulled, repository, tag_key},
    tags::Condition,
};

/// Names of removed things in a report; more are only counted.
const NAMED_MAX: usize = 1000;
/// Things removed together: one sync for all of them, and nobody waits long for one of them.
const BATCH: usize = 100;

/// How to collect.
#[derive(Clone, Debug)]
pub struct CollectOptions {
    /// Rules for what expires.
    pub rules: Rules,
    /// What was pushed, mounted or asked for within this time stays.
    pub grace: Duration,
    /// Only tell what would be removed.
    pub is_dry_run: bool,
}

/// What a collection removed, or would remove.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CollectReport {
    /// Nothing was removed, only looked for.
    pub is_dry_run: bool,
    /// Tags that expired.
    pub tags: usize,
    /// Manifests that nothing names.
    pub manifests: usize,
    /// Blobs that a repository no longer needs.
    pub blobs: usize,
    /// Content that no repository has any more.
    pub contents: usize,
    /// Bytes of that content.
    pub bytes: u64,
    /// Repositories that were left alone, because a manifest of theirs cannot be read.
    pub unreadable: Vec<String>,
    /// Repositories whose tags were left alone, because the Git history that decides cannot be read; with the reason.
    #[serde(default)]
    pub untold: Vec<String>,
    /// The first of what was removed, by name.
    pub removed: Vec<Removed>,
}

/// One thing that was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Removed {
    /// `repository:tag`.
    Tag(String),
    /// `repository@digest`.
    Manifest(String),
    /// `repository@digest`.
    Blob(String),
    /// A digest.
    Content(String),
}

/// A manifest, as far as it matters here.
struct Node {
    refers: Vec<Digest>,
    subject: Option<Digest>,
}

impl Storage {
    /// Collects. Another collection that runs is an error of the kind `WouldBlock`.
    pub(super) fn collect(&self, options: &CollectOptions) -> io::Result<CollectReport> {
        if self.is_collecting.swap(true, Ordering::AcqRel) {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "a collection is running"));
        }
        self.leases.begin_collection();
        let outcome = self.collect_all(options);
        self.leases.end_collection();
        self.usage.forget();
        self.is_collecting.store(false, Ordering::Release);
        outcome
    }

    fn collect_all(&self, options: &CollectOptions) -> io::Result<CollectReport> {
        let mut report = CollectReport { is_dry_run: options.is_dry_run, ..CollectReport::default() };
        let mut linked = HashSet::new();
        for name in self.repository_names()? {
            self.collect_repository(&name, options, &mut linked, &mut report)?;
        }
        let mut unlinked = Vec::new();
        for hex in self.backend.list("blobs/sha256")? {
            let Some(digest) = digest_of(&hex) else { continue };
            if !linked.contains(&digest) {
                unlinked.push(digest);
            }
        }
        self.remove_each(
            &unlinked,
            options,
            content,
            |digest| vec![content(digest)],
            |digest, bytes| {
                report.contents += 1;
                report.bytes += bytes;
                report.name(Removed::Content(digest.to_string()));
            },
        )?;
        Ok(report)
    }

    /// Collects one repository, and adds what it has after that to `linked`.
    fn collect_repository(
        &self,
        name: &RepositoryName,
        options: &CollectOptions,
        linked: &mut HashSet<Digest>,
        report: &mut CollectReport,
    ) -> io::Result<()> {
        let rules = options.rules.of(name.as_str());
        let expired = match rules {
            Some(RepositoryRules { retention: Some(retention), .. }) => {
                self.expire_tags(name, rules.expect("they are there"), retention, options, report)?
            }
            _ => HashSet::new(),
        };
        let manifests = self.digests(&format!("{}/_manifests", repository(name)))?;
        let blobs = self.digests(&format!("{}/_blobs", repository(name)))?;
        let Some(nodes) = self.read_nodes(name, &manifests)? else {
            report.unreadable.push(name.as_str().to_owned());
            linked.extend(manifests.into_iter().chain(blobs));
            return Ok(());
        };
        let untagged_after = rules.and_then(|rules| rules.retention.as_ref()?.untagged_after);
        let kept = match untagged_after {
            None => manifests.iter().cloned().collect(),
            Some(after) => self.kept_manifests(name, &manifests, &nodes, &expired, after.max(options.grace))?,
        };
        let doomed: Vec<Digest> = manifests.iter().filter(|digest| !kept.contains(*digest)).cloned().collect();
        let removed = self.remove_each(
            &doomed,
            options,
            |digest| manifest_link(name, digest),
            |digest| manifest_keys(name, digest, nodes.get(digest).and_then(|node| node.subject.as_ref())),
            |digest, _| {
                self.cache.forget_manifest(name, digest);
                report.manifests += 1;
                report.name(Removed::Manifest(format!("{}@{digest}", name.as_str())));
            },
        )?;
        linked.extend(manifests.into_iter().filter(|digest| !removed.contains(digest)));

        let gone = |digest: &Digest| removed.contains(digest);
        let needed: HashSet<&Digest> =
            nodes.iter().filter(|(digest, _)| !gone(digest)).flat_map(|(_, node)| &node.refers).collect();
        let unneeded: Vec<Digest> = blobs.iter().filter(|digest| !needed.contains(digest)).cloned().collect();
        let removed = self.remove_each(
            &unneeded,
            options,
            |digest| blob_link(name, digest),
            |digest| vec![blob_link(name, digest)],
            |digest, _| {
                report.blobs += 1;
                report.name(Removed::Blob(format!("{}@{digest}", name.as_str())));
            },
        )?;
        linked.extend(blobs.into_iter().filter(|digest| !removed.contains(digest)));
        Ok(())
    }

    /// Removes tags that no rule speaks for; gives those that were, or would be, removed.
    fn expire_tags(
        &self,
        name: &RepositoryName,
        rules: &RepositoryRules,
        retention: &Retention,
        options: &CollectOptions,
        report: &mut CollectReport,
    ) -> io::Result<HashSet<String>> {
        let mut expired = HashSet::new();
        let nothing_speaks =
            retention.last == 0 && retention.younger_than.is_none() && retention.pulled_within.is_none();
        if nothing_speaks && retention.history.is_none() {
            return Ok(expired);
        }
        let commits = match retention.history.as_ref().map(GitHistory::commits).transpose() {
            Ok(commits) => commits,
            // What cannot be found out must not cost anything.
            Err(error) => {
                report.untold.push(format!("{}: {error}", name.as_str()));
                return Ok(expired);
            }
        };
        let now = SystemTime::now();
        let is_within = |time: SystemTime, span: Duration| now.duration_since(time).is_ok_and(|age| age <= span);
        let mut found = Vec::new();
        for tag in self.tags(name)?.unwrap_or_default() {
            let may = retention.tags.is_empty() || retention.tags.iter().any(|pattern| pattern.matches(&tag));
            if !may || rules.forbids_delete(&tag).is_some() {
                continue;
            }
            if let Some(stat) = self.backend.stat(&tag_key(name, &tag))? {
                found.push((stat.touched, tag));
            }
        }
        found.sort_by(|one, other| other.cmp(one));
        for (written, tag) in found.into_iter().skip(retention.last) {
            if is_within(written, retention.younger_than.unwrap_or_default().max(options.grace)) {
                continue;
            }
            let Some(digest) = self.tag(name, &tag)? else { continue };
            if let Some(span) = retention.pulled_within
                && let Some(stat) = self.backend.stat(&pulled(name, &digest))?
                && is_within(stat.touched, span)
            {
                continue;
            }
            if let Some(commits) = &commits
                && (commits.names(&tag) || self.is_of_commit(name, &digest, commits)?)
            {
                continue;
            }
            // One that was written meanwhile stays.
            let is_same = self.backend.stat(&tag_key(name, &tag))?.is_some_and(|stat| stat.touched == written);
            let is_gone = is_same
                && (options.is_dry_run
                    || self.delete_tag_if(name, &tag, &Condition::Names(vec![digest])).unwrap_or(false));
            if is_gone {
                report.tags += 1;
                report.name(Removed::Tag(format!("{}:{tag}", name.as_str())));
                expired.insert(tag);
            }
        }
        Ok(expired)
    }

    /// All manifests of a repository; `None` when one of them cannot be read, because then nothing can be said.
    fn read_nodes(&self, name: &RepositoryName, manifests: &[Digest]) -> io::Result<Option<HashMap<Digest, Node>>> {
        let mut nodes = HashMap::new();
        for digest in manifests {
            let Some(bytes) = self.backend.read(&content(digest))? else {
                // One that was deleted meanwhile is none.
                if self.backend.stat(&manifest_link(name, digest))?.is_none() {
                    continue;
                }
                return Ok(None);
            };
            let document = if Digest::of(&bytes) == *digest { ManifestOrIndex::parse(&bytes).ok() } else { None };
            let Some(document) = document else { return Ok(None) };
            let refers = match &document {
                ManifestOrIndex::Manifest(manifest) => {
                    std::iter::once(&manifest.config).chain(&manifest.layers).map(|part| part.digest.clone()).collect()
                }
                ManifestOrIndex::Index(index) => index.manifests.iter().map(|part| part.digest.clone()).collect(),
            };
            let subject = document.subject().map(|subject| subject.digest.clone());
            nodes.insert(digest.clone(), Node { refers, subject });
        }
        Ok(Some(nodes))
    }

    /// Manifests that a tag names or that are young, what these refer to, and what is about any of them.
    fn kept_manifests(
        &self,
        name: &RepositoryName,
        manifests: &[Digest],
        nodes: &HashMap<Digest, Node>,
        expired: &HashSet<String>,
        young: Duration,
    ) -> io::Result<HashSet<Digest>> {
        let mut open = Vec::new();
        for tag in self.tags(name)?.unwrap_or_default() {
            if !expired.contains(&tag) {
                open.extend(self.tag(name, &tag)?);
            }
        }
        for digest in manifests {
            if self.is_young(&manifest_link(name, digest), young)? {
                open.push(digest.clone());
            }
        }
        let mut about: HashMap<&Digest, Vec<&Digest>> = HashMap::new();
        for (digest, node) in nodes {
            if let Some(subject) = &node.subject {
                about.entry(subject).or_default().push(digest);
            }
        }
        let mut kept = HashSet::new();
        while let Some(digest) = open.pop() {
            open.extend(about.get(&digest).into_iter().flatten().filter(|it| !kept.contains(**it)).copied().cloned());
            if let Some(node) = nodes.get(&digest) {
                open.extend(node.refers.iter().filter(|it| nodes.contains_key(it) && !kept.contains(*it)).cloned());
            }
            kept.insert(digest);
        }
        Ok(kept)
    }

    /// Removes what is neither in use nor young. `watched` is the key whose time counts; `keys` are those that go.
    fn remove_each(
        &self,
        digests: &[Digest],
        options: &CollectOptions,
        watched: impl Fn(&Digest) -> String,
        keys: impl Fn(&Digest) -> Vec<String>,
        mut tell: impl FnMut(&Digest, u64),
    ) -> io::Result<HashSet<Digest>> {
        let mut removed = HashSet::new();
        for batch in digests.chunks(BATCH) {
            let (mut claims, mut doomed): (Vec<Claim<'_>>, Vec<String>) = Default::default();
            for digest in batch {
                let Some(claim) = self.leases.claim_unused(digest) else { continue };
                let Some(stat) = self.backend.stat(&watched(digest))? else { continue };
                if SystemTime::now().duration_since(stat.touched).map_or(true, |age| age < options.grace) {
                    continue;
                }
                claims.push(claim);
                doomed.extend(keys(digest));
                tell(digest, stat.size_bytes);
                removed.insert(digest.clone());
            }
            if !options.is_dry_run {
                self.backend.remove(&doomed)?;
            }
        }
        Ok(removed)
    }

    fn is_young(&self, key: &str, span: Duration) -> io::Result<bool> {
        let stat = self.backend.stat(key)?;
        Ok(stat.is_some_and(|stat| SystemTime::now().duration_since(stat.touched).map_or(true, |age| age < span)))
    }

    fn digests(&self, key: &str) -> io::Result<Vec<Digest>> {
        Ok(self.backend.list(key)?.iter().filter_map(|hex| digest_of(hex)).collect())
    }
}

impl CollectReport {
    fn name(&mut self, removed: Removed) {
        if self.removed.len() < NAMED_MAX {
            self.removed.push(removed);
        }
    }
}

fn digest_of(hex: &str) -> Option<Digest> {
    format!("sha256:{hex}").parse().ok()
}
