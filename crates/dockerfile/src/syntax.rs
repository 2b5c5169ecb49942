//! Text to logical lines: directives, comments, continuations, heredoc bodies. Knows no instruction's arguments.
//!
//! Follows BuildKit's `parser` package, whose order of steps decides many corner cases.

pub(crate) mod heredoc;
mod joined;
pub(crate) mod json;
pub(crate) mod words;

use crate::{Diagnostic, Span};
use heredoc::RawHeredoc;
pub(crate) use joined::{Joined, Piece};

/// Byte order mark, tolerated at the very start.
const BOM: char = '\u{feff}';

/// A file cut into logical lines.
pub(crate) struct RawFile {
    pub(crate) directives: Vec<RawDirective>,
    pub(crate) escape: char,
    pub(crate) instructions: Vec<RawInstruction>,
    pub(crate) problems: Vec<Diagnostic>,
}

/// `# name=value` at the top.
pub(crate) struct RawDirective {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) value_span: Span,
    pub(crate) span: Span,
}

/// A comment line right before an instruction, without `#` and blanks.
pub(crate) struct Comment {
    pub(crate) text: String,
    pub(crate) span: Span,
}

/// One logical line with what belongs to it.
pub(crate) struct RawInstruction {
    pub(crate) joined: Joined,
    /// With continuation lines and heredocs.
    pub(crate) span: Span,
    pub(crate) comments: Vec<Comment>,
    /// Blank lines inside the continuation.
    pub(crate) blank_continuations: Vec<Span>,
    pub(crate) heredocs: Vec<RawHeredoc>,
}

/// Cuts the text.
pub(crate) fn read(text: &str) -> RawFile {
    let mut reader = Reader {
        lines: Lines { text, offset: 0 },
        file: RawFile { directives: Vec::new(), escape: '\\', instructions: Vec::new(), problems: Vec::new() },
        in_directives: true,
        comments: Vec::new(),
    };
    if text.starts_with(BOM) {
        reader.lines.offset = BOM.len_utf8();
    }
    while let Some(line) = reader.lines.next() {
        if !reader.logical_line(line) {
            break;
        }
    }
    reader.file
}

/// A physical line without its end.
#[derive(Clone, Copy)]
struct Line<'a> {
    text: &'a str,
    start: usize,
}

impl<'a> Line<'a> {
    fn end(self) -> usize {
        self.start + self.text.len()
    }

    fn trim_start(self) -> Line<'a> {
        let text = self.text.trim_start();
        Line { text, start: self.end() - text.len() }
    }

    fn is_comment(self) -> bool {
        self.text.trim_start().starts_with('#')
    }
}

struct Lines<'a> {
    text: &'a str,
    offset: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<Line<'a>> {
        let rest = &self.text[self.offset..];
        if rest.is_empty() {
            return None;
        }
        let length = rest.find('\n').map_or(rest.len(), |newline| newline + 1);
        let line = Line { text: rest[..length].trim_end_matches(['\r', '\n']), start: self.offset };
        self.offset += length;
        Some(line)
    }
}

struct Reader<'a> {
    lines: Lines<'a>,
    file: RawFile,
    in_directives: bool,
    comments: Vec<Comment>,
}

impl<'a> Reader<'a> {
    /// Reads one logical line, which begins with `line`. False: nothing after it can be read.
    fn logical_line(&mut self, line: Line<'a>) -> bool {
        let line = line.trim_start();
        self.directive(line);
        if line.is_comment() {
            self.comment(line);
            return true;
        }
        if line.text.is_empty() {
            self.comments.clear();
            return true;
        }
        let (joined, blank_continuations, end) = self.join(line);
        let (heredocs, end, complete) = self.heredocs(&joined, line.start, end);
        self.file.instructions.push(RawInstruction {
            joined,
            span: line.start..end,
            comments: std::mem::take(&mut self.comments),
            blank_continuations,
            heredocs,
        });
        complete
    }

    fn comment(&mut self, line: Line<'_>) {
        let body = line.text[1..].trim();
        if body.is_empty() {
            self.comments.clear();
        } else if self.file.directives.last().is_none_or(|directive| directive.span.start != line.start) {
            self.comments.push(Comment { text: body.to_owned(), span: line.start..line.end() });
        }
    }

    /// Directives stand before everything else; the first line that is none ends them.
    fn directive(&mut self, line: Line<'_>) {
        if !self.in_directives {
            return;
        }
        let Some(directive) = parse_directive(line) else {
            self.in_directives = false;
            return;
        };
        let RawDirective { name, value, value_span, span } = &directive;
        if self.file.directives.iter().any(|earlier| earlier.name == *name) {
            let message = format!("only one `{name}` parser directive can be used");
            self.file.problems.push(Diagnostic::error("ST110", message).with_span(span.clone()));
        } else if name == "escape" {
            match value.as_str() {
                "\\" => self.file.escape = '\\',
                "`" => self.file.escape = '`',
                _ => self.file.problems.push(
                    Diagnostic::error("ST110", format!("invalid escape character `{value}`"))
                        .with_span(value_span.clone())
                        .with_label("must be \\ or `"),
                ),
            }
        }
        self.file.directives.push(directive);
    }

    /// Joins continuation lines. Comments inside are dropped, blank lines too (but noted).
    fn join(&mut self, first: Line<'a>) -> (Joined, Vec<Span>, usize) {
        let mut joined = Joined::default();
        let mut blanks = Vec::new();
        let (piece, mut continues) = self.trim_continuation(first.text);
        joined.push(piece, first.start);
        let mut end = first.end();
        while continues {
            let Some(line) = self.lines.next() else { break };
            if line.is_comment() {
                continue;
            }
            if line.text.trim_start().is_empty() {
                blanks.push(line.start..line.end());
                continue;
            }
            let (piece, more) = self.trim_continuation(line.text);
            joined.push(piece, line.start);
            end = line.end();
            continues = more;
        }
        let trimmed = self.lines.text[first.start..end].trim_end();
        (joined, blanks, first.start + trimmed.len())
    }

    /// An escape character at the end continues the line, unless another escape character stands before it.
    fn trim_continuation<'t>(&self, line: &'t str) -> (&'t str, bool) {
        let trimmed = line.trim_end_matches([' ', '\t']);
        match trimmed.strip_suffix(self.file.escape) {
            Some(before) if !before.ends_with(self.file.escape) => (before, true),
            _ => (line, false),
        }
    }

    fn heredocs(&mut self, joined: &Joined, start: usize, end: usize) -> (Vec<RawHeredoc>, usize, bool) {
        let mut found = Vec::new();
        let mut end = end;
        for sign in heredoc::announced(joined) {
            let content_start = self.lines.offset;
            let terminator = loop {
                let Some(line) = self.lines.next() else {
                    let message = format!("heredoc `{}` has no end", sign.name);
                    self.file.problems.push(
                        Diagnostic::error("ST109", message)
                            .with_span(start..end)
                            .with_help(format!("end it with a line that holds `{}` and nothing else", sign.name)),
                    );
                    return (found, end, false);
                };
                let candidate = if sign.chomp { line.text.trim_start_matches('\t') } else { line.text };
                if candidate == sign.name {
                    break line;
                }
            };
            end = terminator.end();
            let span = content_start..terminator.start;
            found.push(RawHeredoc { sign, raw: self.lines.text[span.clone()].to_owned(), span });
        }
        (found, end, true)
    }
}

/// `# name = value`, with one of the three known names.
fn parse_directive(line: Line<'_>) -> Option<RawDirective> {
    let body = line.text.strip_prefix('#')?.trim_start();
    let name_length = body.find(|ch: char| !ch.is_ascii_alphanumeric())?;
    let name = body[..name_length].to_ascii_lowercase();
    let value = body[name_length..].trim_start().strip_prefix('=')?.trim_start();
    let start = line.end() - value.len();
    let value = value.trim_end();
    if value.is_empty() || !["syntax", "escape", "check"].contains(&name.as_str()) {
        return None;
    }
    Some(RawDirective {
        name,
        value: value.to_owned(),
        value_span: start..start + value.len(),
        span: line.start..line.end(),
    })
}
