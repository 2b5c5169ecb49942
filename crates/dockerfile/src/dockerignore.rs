//! `.dockerignore`, and the patterns of `COPY --exclude`: moby's `patternmatcher` semantics on `regex`.
//!
//! Patterns are anchored at the context's root (`*.md` does not match `docs/README.md`), a later pattern beats an
//! earlier one, `!` takes back, and a pattern that matches a directory holds for everything below it.
//! Start at [`DockerIgnore::parse`], or at [`PatternSet::new`] for patterns without a file.

mod pattern;

use crate::{Diagnostic, Span, glob};
use pattern::Pattern;

/// A pattern that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid pattern `{pattern}`: {reason}")]
pub struct PatternError {
    /// The pattern as given.
    pub pattern: String,
    /// Its position in the list, from 0.
    pub index: usize,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// A list of patterns with exceptions; the last one that matches decides.
#[derive(Clone, Debug, Default)]
pub struct PatternSet {
    patterns: Vec<Pattern>,
    /// Parallel to `patterns`: position in the list given to `new` (blank patterns are dropped).
    origins: Vec<usize>,
}

impl PatternSet {
    /// Compiles patterns; blank ones are skipped.
    ///
    /// # Errors
    /// The first malformed pattern.
    pub fn new<P: AsRef<str>>(patterns: impl IntoIterator<Item = P>) -> Result<PatternSet, PatternError> {
        let mut set = PatternSet::default();
        for (index, given) in patterns.into_iter().enumerate() {
            let given = given.as_ref();
            let trimmed = given.trim();
            if trimmed.is_empty() {
                continue;
            }
            let error = |reason| PatternError { pattern: trimmed.to_owned(), index, reason };
            let cleaned = String::from_utf8_lossy(&clean(trimmed.as_bytes())).into_owned();
            set.patterns.push(Pattern::new(&cleaned).map_err(error)?);
            set.origins.push(index);
        }
        Ok(set)
    }

    /// Whether there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether any pattern begins with `!`.
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.is_exception)
    }

    /// Whether the patterns leave the path out. The path is relative to the root, with `/` between its parts.
    /// The root itself (`.`) is never left out.
    pub fn is_excluded(&self, path: impl AsRef<[u8]>) -> bool {
        self.deciding(path.as_ref()).is_some()
    }

    /// Position, in the list given to [`PatternSet::new`], of the pattern that leaves the path out.
    pub fn deciding_index(&self, path: impl AsRef<[u8]>) -> Option<usize> {
        self.deciding(path.as_ref()).map(|at| self.origins[at])
    }

    /// Whether something at or below the directory may be kept, so that a walk has to look inside.
    ///
    /// May say yes for nothing, never no for something.
    pub fn may_contain_included(&self, directory: impl AsRef<[u8]>) -> bool {
        let directory = clean(directory.as_ref());
        if self.deciding(&directory).is_none() {
            return true;
        }
        self.patterns.iter().any(|pattern| pattern.is_exception && pattern.may_match_below(&directory))
    }

    fn position_of_everything(&self) -> Option<usize> {
        let at = self.patterns.iter().position(|pattern| matches!(pattern.text(), "*" | "**" | "**/*"))?;
        Some(self.origins[at])
    }

    fn deciding(&self, path: &[u8]) -> Option<usize> {
        let path = clean(path);
        if path == b"." {
            return None;
        }
        let names: Vec<pattern::Name<'_>> = parents(&path).map(pattern::Name::new).collect();
        let mut decided = None;
        for (at, pattern) in self.patterns.iter().enumerate() {
            // A pattern is looked at only if it could change the verdict so far.
            if pattern.is_exception == decided.is_some() && names.iter().any(|name| pattern.matches(name)) {
                decided = if pattern.is_exception { None } else { Some(at) };
            }
        }
        decided
    }
}

/// A parsed `.dockerignore`.
#[derive(Clone, Debug, Default)]
pub struct DockerIgnore {
    set: PatternSet,
    /// Line numbers, from 1, parallel to the patterns given to `set`.
    lines: Vec<usize>,
}

impl DockerIgnore {
    /// Reads the file: comments (`#` in the first column) and blank lines are skipped, patterns are cleaned
    /// (`./a/../b/` is `b`), and a leading `/` means nothing.
    ///
    /// # Errors
    /// The first malformed pattern, with its place.
    #[expect(clippy::result_large_err, reason = "read once a build")]
    pub fn parse(text: &str) -> Result<DockerIgnore, Diagnostic> {
        let mut patterns = Vec::new();
        let mut lines = Vec::new();
        let mut spans: Vec<Span> = Vec::new();
        let mut offset = 0;
        for (number, whole) in text.split_inclusive('\n').enumerate() {
            let bom = if number == 0 && whole.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
            let line = &whole[bom..];
            let start = offset + bom + (line.len() - line.trim_start().len());
            offset += whole.len();
            let trimmed = line.trim();
            if line.starts_with('#') || trimmed.is_empty() {
                continue;
            }
            patterns.push(normalise(trimmed));
            lines.push(number + 1);
            spans.push(start..start + trimmed.len());
        }
        let set = PatternSet::new(&patterns).map_err(|error| {
            let line = lines[error.index];
            Diagnostic::error("ST126", format!("`.dockerignore` line {line}: {error}"))
                .with_span(spans[error.index].clone())
                .with_label(error.reason)
        })?;
        Ok(DockerIgnore { set, lines })
    }

    /// Whether the path, relative to the context, stays out of it. Directories and files are judged alike.
    pub fn is_excluded(&self, path: impl AsRef<[u8]>, _is_dir: bool) -> bool {
        self.set.is_excluded(path)
    }

    /// Whether a walk has to look into the directory: it is not excluded, or an exception may lie below it.
    pub fn may_contain_included(&self, directory: impl AsRef<[u8]>) -> bool {
        self.set.may_contain_included(directory)
    }

    /// The line, from 1, of the pattern that keeps the path out; `None` when it is not kept out.
    pub fn matching_line(&self, path: impl AsRef<[u8]>) -> Option<usize> {
        self.set.deciding_index(path).map(|index| self.lines[index])
    }

    /// The line, from 1, of a pattern that leaves out everything in the context (`*`, `**`, `**/*`), unless exceptions may
    /// bring something back.
    pub fn line_of_everything(&self) -> Option<usize> {
        if self.set.has_exceptions() {
            return None;
        }
        self.set.position_of_everything().map(|index| self.lines[index])
    }

    /// The compiled patterns.
    pub fn patterns(&self) -> &PatternSet {
        &self.set
    }
}

/// A line of the file as a pattern.
fn normalise(line: &str) -> String {
    let (sign, body) = match line.strip_prefix('!') {
        Some(body) => ("!", body.trim()),
        None => ("", line),
    };
    if body.is_empty() {
        return sign.to_owned();
    }
    let cleaned = String::from_utf8_lossy(&clean(body.as_bytes())).into_owned();
    match cleaned.strip_prefix('/') {
        Some(relative) if !relative.is_empty() => format!("{sign}{relative}"),
        _ => format!("{sign}{cleaned}"),
    }
}

/// The path and its parents, the outermost first.
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().filter(|&(at, &byte)| byte == b'/' && at > 0).map(|(at, _)| at);
    slashes.chain([path.len()]).map(|end| &path[..end])
}

/// Go's `filepath.Clean`: the shortest equivalent path by text alone.
pub(crate) fn clean(path: &[u8]) -> Vec<u8> {
    let is_rooted = path.first() == Some(&b'/');
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match parts.last() {
                Some(&last) if last != b".." => {
                    parts.pop();
                }
                _ if is_rooted => {}
                _ => parts.push(part),
            },
            _ => parts.push(part),
        }
    }
    let mut cleaned = if is_rooted { b"/".to_vec() } else { Vec::new() };
    cleaned.extend(parts.join(&b'/'));
    if cleaned.is_empty() {
        cleaned.push(b'.');
    }
    cleaned
}

/// Whether the name of one path part may match the glob; doubt says yes.
fn part_may_match(glob_part: &str, part: &[u8]) -> bool {
    glob::matches(glob_part, part).unwrap_or(true)
}
