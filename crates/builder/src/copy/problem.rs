//! What is wrong with a COPY, told so that it can be mended.

use std::io;

use dockerfile::{Diagnostic, Span, nearest};
use engine::BuildError;

use super::source::{Match, NoMatch, Source, Tree};
use crate::{
    context::{Census, Context},
    settle::WHITEOUT_PREFIX,
    stage::At,
    tree::{self, Kind},
    work::During as _,
};

/// Names that are looked through for a suggestion; a larger context would make the error slow.
const NAMES_MAX: usize = 50_000;

/// A source that names nothing.
pub(crate) fn no_match(at: &At<'_>, from: &Source, pattern: &str, span: &Span, why: NoMatch) -> BuildError {
    match why {
        NoMatch::BadPattern => {
            let message = format!("`{pattern}` is not a pattern: a `[` is not closed, or a `\\` ends it");
            at.invalid(Diagnostic::error("ST107", message), Some(span))
        }
        NoMatch::Io(error) => unreadable(at, error),
        NoMatch::Missing => match from {
            Source::Context | Source::Named(_) => missing_in_context(at, from.context(at.work.context), pattern, span),
            Source::Layers(_) => {
                let message = format!("`{pattern}` is not in the stage or image that it is copied from");
                at.invalid(Diagnostic::error("ST104", message), Some(span))
            }
        },
    }
}

/// A source cannot be read.
pub(crate) fn unreadable(at: &At<'_>, error: io::Error) -> BuildError {
    Err::<(), _>(error).during(|| format!("cannot read the sources of `{}`", at.instruction.text)).unwrap_err()
}

fn missing_in_context(at: &At<'_>, context: &Context, pattern: &str, span: &Span) -> BuildError {
    let mut diagnostic = Diagnostic::error("ST104", format!("`{pattern}` is not in the build context"));
    let path = tree::parts(pattern.as_bytes()).collect::<Vec<_>>().join(&b'/');
    let exists = || {
        matches!(tree::lookup(context.root()?, &path), Ok(Some(_))).then_some(()).ok_or(io::ErrorKind::NotFound.into())
    };
    let exists: io::Result<()> = exists();
    if exists.is_ok()
        && let Some((name, line)) = context.hidden_by(&path)
    {
        diagnostic = diagnostic
            .with_label(format!("`{name}` line {line} hides it"))
            .with_help(format!("add `!{pattern}` to the end of `{name}`, or remove line {line}"));
    } else if let Some(target) = link_target(context, &path) {
        diagnostic = Diagnostic::error(
            "ST104",
            format!("`{pattern}` is a link to `{target}`, which is not in the build context"),
        )
        .with_help("put what it leads to into the context, or copy the file itself");
    } else if let Ok(census) = context.census() {
        let suggestion = suggest(&census, pattern);
        diagnostic = diagnostic.with_suggestion(suggestion.as_deref()).with_note(describe(&census));
    }
    at.invalid(diagnostic, Some(span))
}

/// Where a link of the context leads.
fn link_target(context: &Context, path: &[u8]) -> Option<String> {
    let node = tree::lookup(context.root().ok()?, path).ok()??;
    (node.kind == Kind::Symlink).then(|| tree::show(&node.link))
}

/// The file or directory of the context whose path is nearest, or one of that name elsewhere.
fn suggest(census: &Census, pattern: &str) -> Option<String> {
    let pattern = pattern.trim_start_matches("./").trim_matches('/');
    let mut candidates = std::collections::BTreeSet::new();
    for path in census.names.iter().take(NAMES_MAX).filter_map(|name| std::str::from_utf8(name).ok()) {
        candidates.insert(path);
        let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        candidates.extend(parents);
    }
    let name = pattern.rsplit('/').next().unwrap_or(pattern);
    let elsewhere = || candidates.iter().copied().find(|path| path.rsplit('/').next() == Some(name));
    let found = nearest(pattern, candidates.iter().copied()).or_else(elsewhere);
    found.map(|path| path.chars().flat_map(|c| if c.is_control() { vec!['\u{fffd}'] } else { vec![c] }).collect())
}

fn describe(census: &Census) -> String {
    let plural = if census.files == 1 { "" } else { "s" };
    let mut note = format!("context: {} file{plural}, {}", census.files, size(census.size_bytes));
    if let Some(name) = &census.ignore_name {
        let most = census.hidden.iter().max_by_key(|(_, count)| **count);
        match most {
            Some((line, count)) => note.push_str(&format!("; `{name}` line {line} hides {count}")),
            None => note.push_str(&format!("; `{name}` hides none")),
        }
    }
    note
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{} kB", bytes / 1_000),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// Sockets and pipes of a context are no files: reading them could block for good. Names of whiteouts would delete
/// others (image-spec, "Whiteouts").
pub(crate) fn check_kinds(at: &At<'_>, tree: &Tree<'_>, matches: &[Match], span: &Span) -> Result<(), BuildError> {
    if tree.has_owners() {
        return Ok(());
    }
    for matched in matches {
        for entry in &matched.entries {
            let path = tree::show(&tree::join(&matched.path, &entry.path));
            if tree::base_name(&entry.path).starts_with(WHITEOUT_PREFIX) {
                let message = format!("`{path}` cannot be copied: names that begin with `.wh.` mark deleted files");
                let help = "give it another name, or name it in `.dockerignore`";
                return Err(at.invalid(Diagnostic::error("ST130", message).with_help(help), Some(span)));
            }
            let kind = match entry.kind {
                Kind::File | Kind::Dir | Kind::Symlink => continue,
                Kind::Socket => "a socket",
                Kind::Fifo => "a named pipe",
                Kind::Char | Kind::Block => "a device",
            };
            let message = format!("`{path}` is {kind} and cannot be copied");
            let help = "remove it from the context, or name it in `.dockerignore`";
            return Err(at.invalid(Diagnostic::error("ST104", message).with_help(help), Some(span)));
        }
    }
    Ok(())
}

/// Conflicts with what is there are the Dockerfile's mistake; anything else is the machine's.
pub(crate) fn write_failure(at: &At<'_>, error: io::Error) -> BuildError {
    match error.kind() {
        io::ErrorKind::Interrupted => BuildError::Cancelled,
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            at.invalid(Diagnostic::error("ST108", error.to_string()), None)
        }
        io::ErrorKind::Unsupported => at.invalid(Diagnostic::error("ST127", error.to_string()), None),
        _ => Err::<(), _>(error).during(|| format!("cannot make `{}`", at.instruction.text)).unwrap_err(),
    }
}
