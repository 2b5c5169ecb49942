//! The JSON that `docker build --call=check,format=json` prints, with more about each finding.
//!
//! What BuildKit knows has its names and form (`frontend/subrequests/lint`): `warnings`, `sources`, `buildError`. Beside
//! them stand `notes` (findings that are no warnings) and, in each finding, its code, column and remedy.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use dockerfile::{Diagnostic, Lines, Severity, lint};
use serde_json::{Value, json};

use super::{Findings, text_with_label, word};

/// Findings of several files as one value.
pub(crate) fn json(files: &[Findings<'_>]) -> Value {
    let (mut warnings, mut notes, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    let mut broken_rules: Vec<&str> = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let lines = Lines::new(file.text);
        for diagnostic in file.diagnostics {
            let value = finding(file, &lines, index, diagnostic);
            match (diagnostic.severity, diagnostic.rule) {
                (Severity::Note, _) => notes.push(value),
                // With `error=true` BuildKit lists a warning all the same, and fails because of it.
                (Severity::Error, Some(rule)) => {
                    broken_rules.push(rule);
                    warnings.push(value);
                }
                (Severity::Warning, _) => warnings.push(value),
                (Severity::Error, None) => errors.push(value),
            }
        }
    }
    let sources: Vec<Value> = files.iter().map(source).collect();
    let mut out = json!({"warnings": warnings, "sources": sources});
    broken_rules.sort_unstable();
    broken_rules.dedup();
    if let Some(first) = errors.first() {
        out["buildError"] = json!({"message": first["detail"], "location": first["location"]});
    } else if !broken_rules.is_empty() {
        let message = format!("lint violation found for rules: {}", broken_rules.join(", "));
        out["buildError"] = json!({"message": message});
    }
    for (name, list) in [("errors", errors), ("notes", notes)] {
        if !list.is_empty() {
            out[name] = Value::Array(list);
        }
    }
    out
}

/// A file as BuildKit's `SourceInfo`.
pub(crate) fn source(file: &Findings<'_>) -> Value {
    json!({"filename": file.name, "data": BASE64_STANDARD.encode(file.text)})
}

/// Lines of a range as BuildKit's `Location`; the first source goes without saying.
pub(crate) fn location(lines: &Lines<'_>, source_index: usize, span: &dockerfile::Span) -> Value {
    let (first, last) = lines.range(span);
    let ranges = json!([{"start": {"line": first}, "end": {"line": last}}]);
    if source_index == 0 { json!({"ranges": ranges}) } else { json!({"sourceIndex": source_index, "ranges": ranges}) }
}

fn finding(file: &Findings<'_>, lines: &Lines<'_>, source_index: usize, diagnostic: &Diagnostic) -> Value {
    let rule = diagnostic.rule.and_then(lint::rule);
    let mut value = json!({
        "ruleName": rule.map_or(diagnostic.code, |rule| rule.name),
        "description": rule.map(|rule| capitalised(rule.title)),
        "url": rule.and_then(lint::Rule::url),
        "detail": capitalised(&text_with_label(diagnostic)),
        "location": diagnostic.span.as_ref().map(|span| location(lines, source_index, span)),
        "severity": word(diagnostic.severity),
        "code": diagnostic.code,
        "file": file.name,
        "help": diagnostic.help,
    });
    if !diagnostic.notes.is_empty() {
        value["notes"] = json!(diagnostic.notes);
    }
    if let Some(span) = &diagnostic.span {
        let (start, end) = (lines.line_column(span.start), lines.line_column(span.end));
        for (name, number) in [("line", start.0), ("column", start.1), ("endLine", end.0), ("endColumn", end.1)] {
            value[name] = json!(number);
        }
    }
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, field| !field.is_null());
    }
    value
}

/// BuildKit's sentences begin with a capital.
fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
