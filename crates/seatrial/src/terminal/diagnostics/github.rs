//! GitHub's workflow commands, which it shows as annotations at the lines of a change.

use dockerfile::{Lines, Severity, lint};

use super::{Findings, text_with_label};
use crate::terminal::text;

impl Findings<'_> {
    /// One command a line.
    pub(crate) fn to_github(&self) -> String {
        let lines = Lines::new(self.text);
        let mut out = String::new();
        for diagnostic in self.diagnostics {
            let command = match diagnostic.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
                Severity::Note => "notice",
            };
            let mut place = "line=1".to_owned();
            if let Some(span) = &diagnostic.span {
                let (line, column) = lines.line_column(span.start);
                let (end_line, end_column) = lines.line_column(span.end);
                place = format!("line={line},endLine={end_line},col={column}");
                // GitHub takes columns of one line only.
                if end_line == line {
                    place = format!("{place},endColumn={end_column}");
                }
            }
            let title = diagnostic.rule.and_then(lint::rule).map_or(String::new(), |rule| format!(" {}", rule.name));
            let mut message = text_with_label(diagnostic);
            for more in diagnostic.notes.iter().chain(&diagnostic.help) {
                message.push('\n');
                message.push_str(more);
            }
            out.push_str(&format!(
                "::{command} file={},{place},title={}::{}\n",
                property(self.name),
                property(&format!("{}{title}", diagnostic.code)),
                data(&message)
            ));
        }
        out
    }
}

/// GitHub's escapes for the text of a command; it ends with its line. Other control characters are left out: in a log
/// they could move the cursor.
fn data(message: &str) -> String {
    let lines: Vec<String> = message.split('\n').map(|line| text::one_line(line).replace('%', "%25")).collect();
    lines.join("%0A")
}

/// The same for a property, which also ends at `,` and `::`.
fn property(value: &str) -> String {
    text::one_line(value).replace('%', "%25").replace(':', "%3A").replace(',', "%2C")
}
