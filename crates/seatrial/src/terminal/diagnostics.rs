//! Mistakes in the user's files, drawn at their place, and the same for machines: JSON, SARIF, GitHub annotations.

mod docker;
mod github;
mod sarif;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use dockerfile::{Diagnostic, Severity, line_column};

use super::{Palette, text};
pub(crate) use docker::{json, location, source};
pub(crate) use sarif::sarif;

/// Findings of one file are drawn up to this number; the rest is counted.
const SHOWN_MAX: usize = 50;

/// Columns where nobody knows the width: logs scroll sideways, and a cut line helps nobody.
const LOG_COLUMNS: usize = 160;

/// A file of the user's with what was found in it.
pub(crate) struct Findings<'a> {
    /// As the user would name it.
    pub(crate) name: &'a str,
    /// Its text.
    pub(crate) text: &'a str,
    /// What was found.
    pub(crate) diagnostics: &'a [Diagnostic],
}

impl Findings<'_> {
    /// All findings, drawn; a blank line between two.
    pub(crate) fn render(&self, palette: Palette) -> String {
        let mut out = String::new();
        for (index, diagnostic) in self.diagnostics.iter().take(SHOWN_MAX).enumerate() {
            if index > 0 {
                out.push('\n');
            }
            out.push_str(&self.render_one(diagnostic, palette));
            out.push('\n');
        }
        if self.diagnostics.len() > SHOWN_MAX {
            out.push_str(&format!("\nand {} more in {}\n", self.diagnostics.len() - SHOWN_MAX, self.name));
        }
        out
    }

    fn render_one(&self, diagnostic: &Diagnostic, palette: Palette) -> String {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Note => Level::NOTE,
        };
        let message = text::one_line(&diagnostic.message);
        let mut title = level.primary_title(match diagnostic.rule {
            Some(rule) => format!("{message} ({rule})"),
            None => message,
        });
        if !diagnostic.code.is_empty() {
            title = title.id(diagnostic.code);
        }
        // The drawing library keeps control characters; the user's file may have any.
        let source: String =
            self.text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { ' ' } else { c }).collect();
        let mut group: Group<'_> = match &diagnostic.span {
            Some(span) if source.len() == self.text.len() => {
                let span = first_line(&source, span.clone());
                let mut mark = AnnotationKind::Primary.span(span);
                if let Some(label) = &diagnostic.label {
                    mark = mark.label(text::one_line(label));
                }
                title.element(Snippet::source(source).path(self.name.to_owned()).annotation(mark))
            }
            Some(span) => {
                let (line, column) = line_column(self.text, span.start);
                title.element(Origin::path(self.name.to_owned()).line(line).char_column(column))
            }
            None => title.element(Origin::path(self.name.to_owned())),
        };
        if diagnostic.span.is_none()
            && let Some(label) = &diagnostic.label
        {
            group = group.element(Level::NOTE.message(text::one_line(label)));
        }
        for note in &diagnostic.notes {
            group = group.element(Level::NOTE.message(text::one_line(note)));
        }
        if let Some(help) = &diagnostic.help {
            group = group.element(Level::HELP.message(text::one_line(help)));
        }
        let renderer = if palette.is_on() { Renderer::styled() } else { Renderer::plain() };
        let width = if super::streams().stderr_is_terminal { text::terminal_size().1.max(60) } else { LOG_COLUMNS };
        tighten(&renderer.term_width(width).render(&[group]))
    }
}

/// The message with what stands beside the carets, on one line. A suggestion is written as BuildKit does.
fn text_with_label(diagnostic: &Diagnostic) -> String {
    match &diagnostic.label {
        Some(label) if label.starts_with("did you mean") => {
            format!("{} ({})", diagnostic.message, label.replace('`', ""))
        }
        // BuildKit's own words stay as they are.
        Some(label) if diagnostic.rule.is_none() => format!("{} ({label})", diagnostic.message),
        _ => diagnostic.message.clone(),
    }
}

/// The library's drawing in our form: notes follow the marks directly, and a place without a line is indented like others.
fn tighten(drawing: &str) -> String {
    let lines: Vec<&str> = drawing.trim_end().lines().collect();
    let plain: Vec<String> = lines.iter().map(|line| console::strip_ansi_codes(line).into_owned()).collect();
    let has_marks = plain.iter().any(|line| line.trim() == "|");
    let mut out = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let is_gap =
            plain[index].trim() == "|" && plain.get(index + 1).is_some_and(|next| next.trim().starts_with("= "));
        if !is_gap {
            let indent = if !has_marks && index > 0 { " " } else { "" };
            out.push(format!("{indent}{line}"));
        }
    }
    out.join("\n")
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

/// A span over several lines is drawn with its first line only: a whole RUN with its heredoc would fill the screen.
fn first_line(source: &str, span: std::ops::Range<usize>) -> std::ops::Range<usize> {
    let boundary = |mut offset: usize| {
        offset = offset.min(source.len());
        while !source.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    };
    let (start, end) = (boundary(span.start), boundary(span.end));
    let end = end.max(start);
    let line_end = source[start..end].find('\n').map_or(end, |newline| start + newline);
    start..line_end.max(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    const TEXT: &str = "FROM scratch\nCOPY ap.sh /app.sh\nRUN <<EOF\nx\nEOF\n";

    fn sample() -> Vec<Diagnostic> {
        vec![
            Diagnostic::error("ST104", "`ap.sh` is not in the build context")
                .with_span(18..23)
                .with_suggestion(Some("app.sh"))
                .with_note("context `.`: 6 files, 18 kB; `.dockerignore` line 3 hides 14"),
            Diagnostic::warning("ST201", "whole file\x1b[31m").with_help("do: this, or that"),
        ]
    }

    #[test]
    fn a_mistake_points_at_its_place() {
        let diagnostics = sample();
        let findings = Findings { name: "Dockerfile", text: TEXT, diagnostics: &diagnostics };
        expect![[r#"
            error[ST104]: `ap.sh` is not in the build context
             --> Dockerfile:2:6
              |
            2 | COPY ap.sh /app.sh
              |      ^^^^^ did you mean `app.sh`?
              = note: context `.`: 6 files, 18 kB; `.dockerignore` line 3 hides 14

            warning[ST201]: whole file
             --> Dockerfile
              = help: do: this, or that
        "#]]
        .assert_eq(&findings.render(Palette::new(false)));
    }

    #[test]
    fn annotations_escape_what_github_reads() {
        let mut diagnostics = sample();
        diagnostics[0].notes.clear();
        diagnostics.push(Diagnostic::warning("ST201", "x\r\n::error::y%0A::set-env name=A::b\u{7}::z").with_span(0..4));
        let findings = Findings { name: "a,b\n::stop-commands::x", text: TEXT, diagnostics: &diagnostics };
        let shown = findings.to_github();
        expect![[r#"
            ::error file=a%2Cb %3A%3Astop-commands%3A%3Ax,line=2,endLine=2,col=6,endColumn=11,title=ST104::`ap.sh` is not in the build context (did you mean app.sh?)
            ::warning file=a%2Cb %3A%3Astop-commands%3A%3Ax,line=1,title=ST201::whole file%0Ado: this, or that
            ::warning file=a%2Cb %3A%3Astop-commands%3A%3Ax,line=1,endLine=1,col=1,endColumn=5,title=ST201::x%0A::error::y%250A::set-env name=A::b::z
        "#]]
        .assert_eq(&shown);
        // One command a line, and nothing that begins a line of its own.
        assert_eq!(shown.lines().count(), diagnostics.len());
    }
}
