//! What the stages of one build get from elsewhere, each thing once, and how its failures are told at their place.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex},
};

use dockerfile::{Diagnostic, Span};
use engine::{BuildError, GitSource, NamedContext, redacted};
use oci::Digest;

use crate::{
    context::Context,
    fetch::{self, FetchError, WebFile},
    git::{self, Access, Commit},
    work::{During as _, Work, engine_error, locked},
};

/// What was fetched for this build so far.
#[derive(Default)]
pub(crate) struct Remotes {
    files: Once<String, WebFile>,
    commits: Once<(String, Option<String>), Commit>,
    checkouts: Once<String, Arc<Context>>,
    named: Once<String, Arc<Context>>,
}

/// Values that are made once each, whoever asks first; others wait for it.
struct Once<K, V>(Mutex<HashMap<K, Slot<V>>>);

type Slot<V> = Arc<Mutex<Option<V>>>;

impl<K, V> Default for Once<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Once<K, V> {
    fn get(&self, key: K, make: impl FnOnce() -> Result<V, BuildError>) -> Result<V, BuildError> {
        let slot = locked(&self.0).entry(key).or_default().clone();
        let mut slot = locked(&slot);
        if let Some(value) = &*slot {
            return Ok(value.clone());
        }
        let value = make()?;
        *slot = Some(value.clone());
        Ok(value)
    }

    fn all(&self) -> Vec<V> {
        let slots: Vec<Slot<V>> = locked(&self.0).values().cloned().collect();
        slots.iter().filter_map(|slot| locked(slot).clone()).collect()
    }
}

impl Remotes {
    /// Remembers the file digests of named directories for the next build.
    pub(crate) fn save(&self, store: &store::Store) {
        self.named.all().iter().for_each(|context| context.save(store));
    }
}

/// The version of a web file that its server has now.
pub(crate) fn web_file(work: &Work<'_>, url: &str, span: &Span) -> Result<WebFile, BuildError> {
    let stopped = || work.is_stopped();
    work.remotes.files.get(url.to_owned(), || {
        fetch::web_file(work.host, url, &stopped).map_err(|error| failure(work, &redacted(url), error, span))
    })
}

/// A web file of this digest as the only one of a context.
pub(crate) fn web_context(
    work: &Work<'_>,
    url: &str,
    digest: &Digest,
    name: &str,
    modified: Option<u64>,
    span: &Span,
) -> Result<Arc<Context>, BuildError> {
    let stopped = || work.is_stopped();
    let wrap = |error| failure(work, &redacted(url), error, span);
    work.remotes.checkouts.get(format!("{url} {digest} {name}"), || {
        let version = fetch::web_file_content(work.host, url, digest, &stopped).map_err(wrap)?;
        let modified = modified.or_else(|| version.and_then(|version| version.modified));
        let directory = fetch::place_file(work.host, digest, name, modified).map_err(wrap)?;
        Ok(Arc::new(Context::directory(&directory)?))
    })
}

/// The commit that a repository's reference names now.
pub(crate) fn commit(work: &Work<'_>, source: &GitSource, span: &Span) -> Result<Commit, BuildError> {
    let stopped = || work.is_stopped();
    let key = (source.remote.clone(), source.reference.clone());
    let anonymous = GitSource { checksum: None, ..source.clone() };
    let wrap = |error| failure(work, &source.to_string(), error, span);
    let commit =
        work.remotes.commits.get(key, || git::resolve(&anonymous, Access::Anonymous, &stopped).map_err(wrap))?;
    git::check(source, &commit).map_err(wrap)?;
    Ok(commit)
}

/// The files of a repository at a commit.
pub(crate) fn checkout(
    work: &Work<'_>,
    source: &GitSource,
    commit: &Commit,
    keeps_git_dir: bool,
    span: &Span,
) -> Result<Arc<Context>, BuildError> {
    let stopped = || work.is_stopped();
    let submodules = source.submodules;
    let key = format!("{} {} {:?} {keeps_git_dir} {submodules:?}", source.remote, commit.id, source.subdir);
    work.remotes.checkouts.get(key, || {
        let done = fetch::checkout(work.host, source, commit, keeps_git_dir, Access::Anonymous, &stopped);
        let done = done.map_err(|error| failure(work, &source.to_string(), error, span))?;
        Ok(Arc::new(Context::directory(&done.directory)?))
    })
}

/// The named context of this name as a directory; `None` if it is none or something else. Fetched when first asked for.
pub(crate) fn named(work: &Work<'_>, name: &str, span: &Span) -> Result<Option<Arc<Context>>, BuildError> {
    let Some((name, context)) = crate::plan::named_context(&work.request.build_contexts, name) else {
        return Ok(None);
    };
    let open = || match context {
        NamedContext::Directory(path) => Ok(Arc::new(Context::named(work.request, path)?)),
        NamedContext::Remote(source) => {
            let stopped = || work.is_stopped();
            let fetched = fetch::fetch_context(work.host, source, false, &stopped)
                .map_err(|error| failure(work, &source.to_string(), error, span))?;
            work.took(fetched.material);
            Ok(Arc::new(Context::directory(&fetched.directory)?))
        }
        _ => unreachable!("only directories are opened"),
    };
    match context {
        NamedContext::Directory(_) | NamedContext::Remote(_) => work.remotes.named.get(name.to_owned(), open).map(Some),
        _ => Ok(None),
    }
}

/// What the Dockerfile says wrong points at its place; what the network does wrong names it.
pub(crate) fn failure(work: &Work<'_>, what: &str, error: FetchError, span: &Span) -> BuildError {
    let remote = |is_auth, source| {
        let place = Some(work.place(span));
        BuildError::Remote { what: what.to_owned(), place, is_auth, source }
    };
    let invalid = |diagnostic: Diagnostic| work.invalid(diagnostic.with_span(span.clone()));
    match error {
        FetchError::Wrong(message) => invalid(Diagnostic::error("ST128", message)),
        FetchError::Mismatch { what, wanted, got } => invalid(
            Diagnostic::error("ST129", format!("`{what}` is not what its checksum says"))
                .with_note(format!("expected {wanted}"))
                .with_note(format!("it has   {got}"))
                .with_help("if the change is right, write the new one; otherwise somebody exchanged the file"),
        ),
        FetchError::Auth(source) => remote(true, source),
        FetchError::Stopped => BuildError::Cancelled,
        FetchError::Failed(source) => match source.downcast::<store::StoreError>() {
            // A full disk is told with its way out.
            Ok(error) => Err::<(), _>(*error).during(|| format!("cannot fetch {what}")).unwrap_err(),
            Err(source) => match source.downcast::<std::io::Error>() {
                Ok(error) => BuildError::Engine(engine_error(format!("cannot fetch {what}"), error)),
                Err(source) => remote(false, source),
            },
        },
    }
}
