//! What a COPY or ADD asks for, with all its words expanded.

use dockerfile::{CopyLike, Diagnostic, Span, Word, dockerignore::PatternSet, expand};
use engine::{BuildError, GitSource, RemoteSource};
use oci::Digest;

use super::mode::Chmod;
use crate::stage::{At, State};

/// An instruction with all its words expanded.
pub(super) struct Request {
    /// Sources that are paths.
    pub(super) patterns: Vec<(String, Span)>,
    /// Sources that lie elsewhere.
    pub(super) remotes: Vec<(Remote, Span)>,
    /// Name and text of each file given inline.
    pub(super) heredocs: Vec<(String, String)>,
    /// Absolute.
    pub(super) dest: String,
    /// The destination is written as a directory.
    pub(super) is_dir: bool,
    pub(super) chown: Option<(String, Span)>,
    pub(super) mode: Option<Chmod>,
    pub(super) exclude: PatternSet,
    pub(super) parents: bool,
    /// Links on the way to the destination are not followed.
    pub(super) link: bool,
    /// Local archives are unpacked.
    pub(super) unpacks: bool,
    /// Fetched archives are unpacked.
    pub(super) unpacks_fetched: bool,
    /// Its meaning as text, for the key.
    pub(super) text: String,
}

/// A source that lies elsewhere.
pub(super) enum Remote {
    /// A file of the web, with `--checksum`.
    Web { url: String, checksum: Option<Digest> },
    /// A repository.
    Git { source: GitSource, keeps_git_dir: bool },
}

impl Request {
    /// One path as it is, to the root.
    pub(super) fn of_path(path: &str, span: &Span) -> Self {
        Self {
            patterns: vec![(path.to_owned(), span.clone())],
            remotes: Vec::new(),
            heredocs: Vec::new(),
            dest: "/".into(),
            is_dir: true,
            chown: None,
            mode: None,
            exclude: PatternSet::default(),
            parents: false,
            link: false,
            unpacks: false,
            unpacks_fetched: false,
            text: String::new(),
        }
    }

    /// Reads an instruction.
    pub(super) fn read(at: &At<'_>, state: &State, copy: &CopyLike, is_add: bool) -> Result<Self, BuildError> {
        let spanned = |word: &Word| Ok::<_, BuildError>((at.expand(state, word)?, word.span.clone()));
        let mut patterns = Vec::new();
        let mut remotes = Vec::new();
        for word in &copy.sources {
            let (text, span) = spanned(word)?;
            match remote(at, state, copy, &text, &span, is_add)? {
                Some(remote) => remotes.push((remote, span)),
                None => patterns.push((text, span)),
            }
        }
        check_checksum(at, copy, &remotes)?;
        let heredocs = heredocs(at, state, copy)?;
        let written = at.expand(state, &copy.dest)?;
        if written.is_empty() {
            let message = "the destination is empty after expansion";
            return Err(at.invalid(Diagnostic::error("ST123", message), Some(&copy.dest.span)));
        }
        let is_dir = written.ends_with('/') || written == "." || written.ends_with("/.") || written.ends_with("..");
        if !is_dir && copy.sources.len() + heredocs.len() > 1 {
            let message = "several sources need a destination that is a directory";
            let help = format!("write the destination as `{written}/`");
            return Err(at.invalid(Diagnostic::error("ST108", message).with_help(help), Some(&copy.dest.span)));
        }
        let dest = state.absolute(&written);
        let chown = copy.chown.as_ref().map(spanned).transpose()?.filter(|(text, _)| !text.is_empty());
        let mode = match &copy.chmod {
            None => None,
            Some(word) => {
                let text = at.expand(state, word)?;
                let wrong = |message| at.invalid(Diagnostic::error("ST123", message), Some(&word.span));
                Some(Chmod::parse(&text).map_err(wrong)?)
            }
        };
        let mut exclude = Vec::new();
        for word in &copy.exclude {
            exclude.push(at.expand(state, word)?);
        }
        let excluded = PatternSet::new(&exclude).map_err(|error| {
            at.invalid(Diagnostic::error("ST107", error.to_string()), copy.exclude.first().map(|word| &word.span))
        })?;
        let unpacks = is_add && copy.unpack.unwrap_or(true);
        // As docker: what is fetched stays as it came unless it is asked for.
        let unpacks_fetched = !remotes.is_empty() && copy.unpack.unwrap_or(false);
        let slash = if is_dir { "/" } else { "" };
        let mut text = format!("{} to {dest}{slash}", if unpacks { "ADD" } else { "COPY" });
        for (flag, value) in [
            ("chown", chown.as_ref().map(|(text, _)| text.clone())),
            ("chmod", mode.as_ref().map(Chmod::to_string)),
            ("parents", copy.parents.then(String::new)),
            ("link", copy.link.then(String::new)),
            ("unpack", unpacks_fetched.then(String::new)),
            ("exclude", (!exclude.is_empty() && !remotes.is_empty()).then(|| exclude.join("\0"))),
        ] {
            if let Some(value) = value {
                text.push_str(&format!(" {flag}={value}"));
            }
        }
        Ok(Self {
            patterns,
            remotes,
            heredocs,
            dest,
            is_dir,
            chown,
            mode,
            exclude: excluded,
            parents: copy.parents,
            link: copy.link,
            unpacks,
            unpacks_fetched,
            text,
        })
    }
}

/// A source as something that lies elsewhere; `None` is a path.
fn remote(
    at: &At<'_>,
    state: &State,
    copy: &CopyLike,
    text: &str,
    span: &Span,
    is_add: bool,
) -> Result<Option<Remote>, BuildError> {
    let wrong = |code, message: String| at.invalid(Diagnostic::error(code, message), Some(span));
    let source = match RemoteSource::parse(text) {
        Ok(None) => return Ok(None),
        Ok(Some(source)) => source,
        Err(error) if is_add => return Err(wrong("ST123", error.to_string())),
        Err(_) => return Ok(None),
    };
    if !is_add {
        let diagnostic = Diagnostic::error("ST108", format!("COPY cannot take `{source}`, which lies elsewhere"));
        return Err(at.invalid(diagnostic.with_help("use ADD, which can"), Some(span)));
    }
    let checksum = match &copy.checksum {
        None => None,
        Some(word) => Some((at.expand(state, word)?, &word.span)).filter(|(text, _)| !text.is_empty()),
    };
    match source {
        RemoteSource::Http(url) => {
            let checksum = match checksum {
                None => None,
                Some((text, span)) => Some(text.parse().map_err(|_| {
                    let message = format!("`{text}` is no checksum");
                    let help = "write `sha256:` and 64 hex digits";
                    at.invalid(Diagnostic::error("ST107", message).with_help(help), Some(span))
                })?),
            };
            Ok(Some(Remote::Web { url, checksum }))
        }
        RemoteSource::Git(mut git) => {
            if let Some((commit, span)) = checksum {
                let is_commit = (7..=64).contains(&commit.len()) && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
                if !is_commit {
                    let message = format!("`{commit}` is no commit: the checksum of a repository is one");
                    return Err(at.invalid(Diagnostic::error("ST107", message), Some(span)));
                }
                if let Some(other) = git.checksum.as_ref().filter(|other| **other != commit) {
                    let message = format!("`--checksum` is {commit}, and the source says {other}");
                    return Err(at.invalid(Diagnostic::error("ST107", message), Some(span)));
                }
                git.checksum = Some(commit);
            }
            let keeps_git_dir = git.keep_git_dir.unwrap_or(copy.keep_git_dir);
            if copy.keep_git_dir && !keeps_git_dir {
                let message = format!("`{git}` says that `.git` is not kept, and `--keep-git-dir` that it is");
                return Err(wrong("ST107", message));
            }
            Ok(Some(Remote::Git { source: git, keeps_git_dir }))
        }
    }
}

/// A checksum is that of one source, and paths have none.
fn check_checksum(at: &At<'_>, copy: &CopyLike, remotes: &[(Remote, Span)]) -> Result<(), BuildError> {
    let Some(word) = copy.checksum.as_ref().filter(|_| copy.sources.len() != 1 || remotes.len() != 1) else {
        return Ok(());
    };
    let message = "`--checksum` is that of one source, which is a URL or a Git repository";
    Err(at.invalid(Diagnostic::error("ST107", message), Some(&word.span)))
}

fn heredocs(at: &At<'_>, state: &State, copy: &CopyLike) -> Result<Vec<(String, String)>, BuildError> {
    let mut heredocs = Vec::new();
    for heredoc in &copy.heredocs {
        let mut text = heredoc.content.clone();
        if heredoc.expand {
            text = expand::expand_heredoc(&text, &|name| state.env.get(name).map(str::to_owned))
                .map_err(|error| at.cannot_expand(&heredoc.name, &error, Some(&heredoc.span)))?;
        }
        heredocs.push((heredoc.name.clone(), text));
    }
    Ok(heredocs)
}
