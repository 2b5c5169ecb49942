//! Sources of an ADD that lie elsewhere: first what they are now, which is part of the key, then their files.

use dockerfile::{Diagnostic, Span};
use engine::{BuildError, GitSource, Material, redacted};
use oci::Digest;

use super::{
    problem,
    request::{Remote, Request},
    source::{self, Match, Tree},
};
use crate::{fetch, git::Commit, remote, stage::At, step::Key};

/// A source of which is known what it is now.
pub(super) struct Fetched<'a> {
    span: &'a Span,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Web { url: &'a str, name: String, digest: Digest, modified: Option<u64> },
    Git { source: &'a GitSource, commit: Commit, keeps_git_dir: bool },
}

/// Asks the servers. What a checksum or a commit names already asks nobody.
pub(super) fn resolve<'a>(at: &At<'_>, request: &'a Request) -> Result<Vec<Fetched<'a>>, BuildError> {
    let mut fetched = Vec::new();
    for (remote, span) in &request.remotes {
        let kind = match remote {
            Remote::Web { url, checksum } => {
                let name = fetch::web_name(url);
                let (digest, modified) = match checksum {
                    Some(checksum) => (checksum.clone(), None),
                    None => {
                        let file = remote::web_file(at.work, url, &at.place_of(Some(span)))?;
                        let modified = file.modified();
                        (file.digest, modified)
                    }
                };
                at.work.took(Material::File { url: redacted(url), digest: digest.clone() });
                Kind::Web { url, name, digest, modified }
            }
            Remote::Git { source, keeps_git_dir } => {
                let commit = remote::commit(at.work, source, &at.place_of(Some(span)))?;
                at.work.took(Material::Repository { url: source.to_string(), commit: commit.id.clone() });
                Kind::Git { source, commit, keeps_git_dir: *keeps_git_dir }
            }
        };
        fetched.push(Fetched { span, kind });
    }
    Ok(fetched)
}

impl Fetched<'_> {
    pub(super) fn add_to(&self, key: &mut Key) {
        match &self.kind {
            Kind::Web { url, name, digest, modified } => {
                let time = modified.map(|time| format!(" of {time}")).unwrap_or_default();
                key.add(format!("file {}", redacted(url)), format!("{digest}{time} as {name}"));
            }
            Kind::Git { source, commit, keeps_git_dir } => {
                let submodules = source.submodules != Some(false);
                let subdir = source.subdir.as_deref().unwrap_or("");
                let text = format!("{} .git={keeps_git_dir} submodules={submodules} {subdir}", commit.id);
                key.add(format!("repository {source}"), text);
            }
        }
    }

    /// Its files: one, or the contents of a directory.
    pub(super) fn open(&self, at: &At<'_>, request: &Request) -> Result<(Tree<'static>, Match), BuildError> {
        let place = at.place_of(Some(self.span));
        let (context, path) = match &self.kind {
            Kind::Web { url, name, digest, modified } => {
                let context = remote::web_context(at.work, url, digest, name, *modified, &place)?;
                (context, name.as_bytes())
            }
            Kind::Git { source, commit, keeps_git_dir } => {
                (remote::checkout(at.work, source, commit, *keeps_git_dir, &place)?, b"".as_slice())
            }
        };
        let tree = Tree::Fetched(context);
        let found = source::one(at.work.host.store, &tree, path, &request.exclude);
        match found {
            Ok(Some(matched)) => Ok((tree, matched)),
            Ok(None) => {
                let message = "`--exclude` leaves nothing of this source";
                Err(at.invalid(Diagnostic::error("ST104", message), Some(self.span)))
            }
            Err(why) => Err(problem::unreadable(at, why)),
        }
    }
}
