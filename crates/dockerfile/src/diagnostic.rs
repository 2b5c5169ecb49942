//! What is wrong with a Dockerfile, as plain data; the binary draws it.

use crate::Span;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Good to know.
    Note,
    /// Probably not what was meant.
    Warning,
    /// Cannot be built.
    Error,
}

/// One finding with its place in the Dockerfile (or `.dockerignore`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Stable code such as `ST101`; its long text is in [`crate::codes::ALL`] or [`crate::lint::RULES`].
    pub code: &'static str,
    /// Name of the build check that found it.
    pub rule: Option<&'static str>,
    /// One line, lower case, no full stop.
    pub message: String,
    /// Byte range in the text; `None` when it concerns the whole file.
    pub span: Option<Span>,
    /// Text beside the carets, such as ``did you mean `app.sh`?``.
    pub label: Option<String>,
    /// Further facts, one line each.
    pub notes: Vec<String>,
    /// How to go on.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error with nothing but code and message; the `with_` functions add the rest.
    pub fn error(code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            code,
            rule: None,
            message: message.into(),
            span: None,
            label: None,
            notes: Vec::new(),
            help: None,
        }
    }

    /// A warning with nothing but code and message.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(code, message) }
    }

    /// Sets the place.
    #[must_use]
    pub fn with_span(mut self, span: Span) -> Diagnostic {
        self.span = Some(span);
        self
    }

    /// Sets the text beside the carets.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Diagnostic {
        self.label = Some(label.into());
        self
    }

    /// Sets the label to ``did you mean `x`?`` when there is such an `x`.
    #[must_use]
    pub fn with_suggestion(mut self, nearest: Option<&str>) -> Diagnostic {
        if let Some(name) = nearest {
            self.label = Some(format!("did you mean `{name}`?"));
        }
        self
    }

    /// Adds a further fact.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Diagnostic {
        self.notes.push(note.into());
        self
    }

    /// Sets how to go on.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }

    /// Whether this stops the build.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let severity = match self.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}[{}]: {}", self.code, self.message)?;
        match &self.label {
            Some(label) => write!(f, " ({label})"),
            None => Ok(()),
        }
    }
}

/// Line and column (both from 1, the column in characters) of a byte offset. For many places use [`Lines`].
pub fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..boundary(text, offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Where the lines of a text begin, for many look-ups in one text.
#[derive(Clone, Debug)]
pub struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    /// Reads the text once.
    pub fn new(text: &'a str) -> Lines<'a> {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Lines { text, starts }
    }

    /// As [`line_column`].
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let offset = boundary(self.text, offset);
        let line = self.starts.partition_point(|&start| start <= offset);
        (line, self.text[self.starts[line - 1]..offset].chars().count() + 1)
    }

    /// First and last line, from 1, of a byte range; one that ends with a line's end does not reach into the next.
    pub fn range(&self, span: &Span) -> (usize, usize) {
        let first = self.line_column(span.start).0;
        let last = self.line_column(span.end.saturating_sub(1).max(span.start)).0;
        (first, last)
    }

    /// The line of this number, from 1, without its end.
    pub fn line(&self, number: usize) -> Option<&'a str> {
        let start = *self.starts.get(number.checked_sub(1)?)?;
        self.text[start..].split('\n').next().map(|line| line.trim_end_matches('\r'))
    }

    /// The number of lines; a text that ends with a line's end has an empty last one.
    pub fn count(&self) -> usize {
        self.starts.len()
    }
}

/// The offset, or the beginning of the character that it falls into, or the end of the text.
pub(crate) fn boundary(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// Longer names are not compared: the cost is quadratic and nobody mistypes such a name.
const NAME_LENGTH_MAX: usize = 128;

/// The candidate that `name` is most likely a slip of, if any is near enough.
///
/// Letter case is ignored. Insertions, deletions, replacements and swapped neighbours count one each; about one slip
/// in three letters is accepted. Of equally near candidates the first wins.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name_chars: Vec<char> = name.to_lowercase().chars().collect();
    if name_chars.is_empty() || name_chars.len() > NAME_LENGTH_MAX {
        return None;
    }
    let mut best: Option<(usize, &'a str)> = None;
    for candidate in candidates {
        if candidate == name {
            continue;
        }
        let candidate_chars: Vec<char> = candidate.to_lowercase().chars().collect();
        let longer = name_chars.len().max(candidate_chars.len());
        if candidate_chars.is_empty() || longer > NAME_LENGTH_MAX {
            continue;
        }
        let allowed = (longer / 3).max(usize::from(longer > 1));
        if name_chars.len().abs_diff(candidate_chars.len()) > allowed {
            continue;
        }
        let distance = edit_distance(&name_chars, &candidate_chars);
        if distance <= allowed && best.is_none_or(|(nearest, _)| distance < nearest) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Damerau-Levenshtein distance in the "optimal string alignment" form.
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &y) in b.iter().enumerate() {
            let mut cost = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                cost = cost.min(before_last[j - 1] + 1);
            }
            row.push(cost);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}
