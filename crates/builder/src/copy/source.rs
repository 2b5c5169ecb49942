//! What COPY reads from, and which of its files the sources name.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

use dockerfile::{Word, dockerignore::PatternSet, glob};
use engine::BuildError;
use rustix::fs::OFlags;
use store::Store;

use super::parents;
use crate::{
    base,
    content::FileMemo,
    context::Context,
    plan::{self, From},
    remote,
    stage::At,
    step::Layers,
    tree::{self, Entry, Keep, Kind, Node},
    work::During as _,
};

/// Where files come from.
pub(crate) enum Source {
    /// The build context.
    Context,
    /// A directory given by `--build-context`.
    Named(Arc<Context>),
    /// A stage or an image.
    Layers(Layers),
}

/// What `--from` names; the build context without it.
pub(crate) fn source(at: &At<'_>, from: Option<&Word>) -> Result<Source, BuildError> {
    let Some(word) = from else { return Ok(Source::Context) };
    let work = at.work;
    let contexts = &work.request.build_contexts;
    let name = match plan::resolve_from(work.file, at.stage, word, &work.plan.globals, contexts) {
        Ok(From::Stage(stage)) => return Ok(Source::Layers(work.stage(stage)?.layers.clone())),
        Ok(From::Other(name)) => name,
        Err(diagnostic) => return Err(at.invalid(*diagnostic, Some(&word.span))),
    };
    if let Some(context) = remote::named(work, &name, &word.span)? {
        return Ok(Source::Named(context));
    }
    Ok(Source::Layers(base::find(work, &name, None, &word.span)?.layers))
}

impl Source {
    /// The directory context; `default` for the build's own.
    pub(crate) fn context<'a>(&'a self, default: &'a Context) -> &'a Context {
        match self {
            Self::Named(context) => context,
            Self::Context | Self::Layers(_) => default,
        }
    }

    /// Opens it for reading.
    pub(crate) fn open<'a>(&'a self, at: &At<'a>) -> Result<Tree<'a>, BuildError> {
        match self {
            Self::Context => Ok(Tree::Context(at.work.context)),
            Self::Named(context) => Ok(Tree::Context(context)),
            Self::Layers(layers) => {
                at.work.host.ensure(&layers.layers)?;
                let attempt = || "cannot look into a stage or image".to_owned();
                let lowers = match layers.top() {
                    Some(top) => at.work.host.store.lowers(top).during(attempt)?,
                    None => {
                        let empty = at.work.host.scope.dir().join("nothing");
                        fs_err::create_dir_all(&empty).during(attempt)?;
                        vec![empty]
                    }
                };
                Ok(Tree::View(open_view(&lowers).during(attempt)?))
            }
        }
    }
}

/// The merged look of layers, topmost first.
pub(crate) fn open_view(lowers: &[PathBuf]) -> io::Result<OwnedFd> {
    let overlay = runtime::Overlay { lowers: lowers.to_vec(), upper: None, work: None };
    overlay.open_view().map_err(io::Error::other)
}

/// A source that is open.
pub(crate) enum Tree<'a> {
    Context(&'a Context),
    /// What was fetched for the instruction.
    Fetched(Arc<Context>),
    View(OwnedFd),
}

impl Tree<'_> {
    pub(crate) fn root(&self) -> io::Result<BorrowedFd<'_>> {
        match self {
            Self::Context(context) => context.root(),
            Self::Fetched(context) => context.root(),
            Self::View(view) => Ok(view.as_fd()),
        }
    }

    pub(super) fn lookup(&self, path: &[u8]) -> io::Result<Option<Node>> {
        match self {
            Self::Context(context) => context.lookup(path),
            Self::Fetched(context) => context.lookup(path),
            Self::View(view) => tree::lookup(view.as_fd(), path),
        }
    }

    fn keep(&self, path: &[u8]) -> Keep {
        match self {
            Self::Context(context) => context.keep(path),
            Self::Fetched(context) => context.keep(path),
            Self::View(_) => Keep::Yes,
        }
    }

    pub(crate) fn resolve(&self, path: &[u8]) -> io::Result<tree::Resolved> {
        tree::resolve(path, |path| self.lookup(path))
    }

    pub(super) fn scan(&self, path: &[u8]) -> io::Result<Vec<Entry>> {
        match self {
            Self::Context(context) => Ok(Vec::clone(&*context.scan(path)?)),
            Self::Fetched(context) => Ok(Vec::clone(&*context.scan(path)?)),
            Self::View(view) => tree::scan(view.as_fd(), path, &|_| Keep::Yes),
        }
    }

    pub(super) fn digest(&self, store: &Store, path: &[u8], entries: &mut [Entry]) -> io::Result<()> {
        match self {
            Self::Context(context) => context.digest(store, path, entries),
            Self::Fetched(context) => context.digest(store, path, entries),
            Self::View(view) => FileMemo::default().fill(view.as_fd(), path, entries),
        }
    }

    /// Owners are those of the files only where the files are an image's: a context's owner means nothing.
    pub(crate) fn has_owners(&self) -> bool {
        matches!(self, Self::View(_))
    }
}

/// One file or directory that a source names.
#[derive(Debug)]
pub(crate) struct Match {
    /// Where it really is, links followed.
    pub(crate) path: Vec<u8>,
    /// What it is called at the destination, if that is a directory.
    pub(crate) name: Vec<u8>,
    /// Directories above it that are made as well: where `--parents` met a link in the way.
    pub(crate) parents: Vec<u8>,
    /// Itself and everything below, with digests.
    pub(crate) entries: Vec<Entry>,
}

impl Match {
    pub(crate) fn is_dir(&self) -> bool {
        self.entries[0].kind == Kind::Dir
    }
}

/// Why a source cannot be used.
pub(crate) enum NoMatch {
    /// Nothing is there.
    Missing,
    /// The pattern is malformed.
    BadPattern,
    /// The tree cannot be read.
    Io(io::Error),
}

impl std::convert::From<io::Error> for NoMatch {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What a source pattern names, in byte order. Links in the path, the last part's too, are followed within the tree. A
/// pattern with wildcards may name nothing, as in BuildKit; a plain path may not.
pub(crate) fn select(
    store: &Store,
    tree: &Tree<'_>,
    pattern: &[u8],
    exclude: &PatternSet,
    keeps_parents: bool,
) -> Result<Vec<Match>, NoMatch> {
    if keeps_parents {
        return Ok(parents::select(store, tree, pattern, exclude)?.into_iter().collect());
    }
    let mut matches = Vec::new();
    for path in expand(tree, &clean(pattern))? {
        let resolved = tree.resolve(&path)?;
        if resolved.node.is_none() {
            return Err(NoMatch::Missing);
        }
        matches.extend(one_at(store, tree, resolved.path, tree::base_name(&path), glob::has_meta(pattern), exclude)?);
    }
    Ok(matches)
}

/// What stands at a canonical path; `None` when all of it is excluded.
pub(crate) fn one(store: &Store, tree: &Tree<'_>, path: &[u8], exclude: &PatternSet) -> io::Result<Option<Match>> {
    one_at(store, tree, path.to_vec(), tree::base_name(path), false, exclude)
}

fn one_at(
    store: &Store,
    tree: &Tree<'_>,
    path: Vec<u8>,
    name: &[u8],
    is_found: bool,
    exclude: &PatternSet,
) -> io::Result<Option<Match>> {
    let mut entries = tree.scan(&path)?;
    if !exclude.is_empty() {
        entries = without_excluded(entries, name, is_found, exclude);
        if entries.is_empty() {
            return Ok(None);
        }
    }
    tree.digest(store, &path, &mut entries)?;
    Ok(Some(Match { path, name: name.to_vec(), parents: Vec::new(), entries }))
}

/// Relative to the root, without `.` and `..`.
pub(super) fn clean(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in tree::parts(path) {
        match part {
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

/// Paths that a pattern matches, perhaps none (BuildKit's `AllowEmptyWildcard`, by which files are optional: `COPY a b[.]c
/// /`); a path without special characters is itself.
fn expand(tree: &Tree<'_>, pattern: &[u8]) -> Result<Vec<Vec<u8>>, NoMatch> {
    let parts: Vec<&[u8]> = tree::parts(pattern).collect();
    let Some(first_meta) = parts.iter().position(glob::has_meta) else {
        return Ok(vec![pattern.to_vec()]);
    };
    if parts.iter().any(|part| glob::check(part).is_err()) {
        return Err(NoMatch::BadPattern);
    }
    // Links are followed up to the first pattern; patterns then look into real directories only, as BuildKit does.
    let start = tree.resolve(&parts[..first_meta].join(&b'/'))?;
    if start.node.is_none() {
        return Err(NoMatch::Missing);
    }
    let mut found = vec![start.path];
    for part in &parts[first_meta..] {
        let mut next = Vec::new();
        for directory in &found {
            if !tree.lookup(directory)?.is_some_and(|node| node.kind == Kind::Dir) {
                continue;
            }
            let descriptor = tree::open_beneath(tree.root()?, directory, OFlags::RDONLY | OFlags::DIRECTORY)?;
            let mut names: Vec<Vec<u8>> = tree::names(descriptor.as_fd())?.into_iter().map(|(name, _)| name).collect();
            names.sort_unstable();
            for name in names {
                let is_match = glob::matches(part, &name).map_err(|_| NoMatch::BadPattern)?;
                if is_match && tree.keep(&tree::join(directory, &name)) != Keep::No {
                    next.push(tree::join(directory, &name));
                }
            }
        }
        found = next;
    }
    // A directory that is only the way to an exception, and a file that only looks like one.
    found.retain(|path| tree.resolve(path).is_ok_and(|resolved| resolved.node.is_some()));
    Ok(found)
}

/// Patterns are relative to the directory that is copied. What a wildcard found is judged by its name too; what is named
/// outright is wanted.
fn without_excluded(entries: Vec<Entry>, name: &[u8], is_found: bool, exclude: &PatternSet) -> Vec<Entry> {
    let is_dir = entries[0].kind == Kind::Dir;
    if is_found && exclude.is_excluded(name) {
        return Vec::new();
    }
    if !is_dir {
        return entries;
    }
    let kept: Vec<bool> =
        entries.iter().map(|entry| entry.path.is_empty() || !exclude.is_excluded(&entry.path)).collect();
    // A directory that is excluded itself stays if an exception keeps something in it.
    let mut result: Vec<Entry> = Vec::new();
    let mut later: Option<Vec<u8>> = None;
    for (entry, keep) in entries.into_iter().zip(kept).rev() {
        let is_needed = entry.kind == Kind::Dir
            && later.as_ref().is_some_and(|path: &Vec<u8>| {
                path.len() > entry.path.len() && path.starts_with(&entry.path) && path[entry.path.len()] == b'/'
            });
        if keep || is_needed {
            later = Some(entry.path.clone());
            result.push(entry);
        }
    }
    result.reverse();
    result
}

/// A canonical path and everything below it, without digests.
pub(crate) fn scan(tree: &Tree<'_>, path: &[u8]) -> io::Result<Vec<Entry>> {
    tree.scan(path)
}
