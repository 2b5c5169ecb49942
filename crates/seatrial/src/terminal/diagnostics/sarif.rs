//! SARIF 2.1.0, which code scanning of GitHub, GitLab and editors read.

use dockerfile::{Diagnostic, Lines, Severity, lint};
use serde_json::{Value, json};

use super::{Findings, text_with_label, word};

/// A SARIF log of several files.
pub(crate) fn sarif(files: &[Findings<'_>]) -> Value {
    let mut codes: Vec<&str> = files.iter().flat_map(|file| file.diagnostics).map(|d| d.code).collect();
    codes.sort_unstable();
    codes.dedup();
    let rules: Vec<Value> = codes.iter().map(|code| descriptor(code)).collect();
    let results: Vec<Value> = files.iter().flat_map(|file| results(file, &codes)).collect();
    let driver = json!({
        "name": "seatrial",
        "version": env!("CARGO_PKG_VERSION"),
        "semanticVersion": env!("CARGO_PKG_VERSION"),
        "rules": rules,
    });
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}],
    })
}

/// What a code means: a check, or a mistake that stops the build.
fn descriptor(code: &str) -> Value {
    if let Some(rule) = lint::explain(code) {
        let mut value = json!({
            "id": code,
            "name": rule.name,
            "shortDescription": {"text": rule.title},
            "fullDescription": {"text": rule.docs},
            "help": {"text": rule.docs},
            "defaultConfiguration": {"level": word(rule.severity)},
        });
        if let Some(url) = rule.url() {
            value["helpUri"] = json!(url);
        }
        return value;
    }
    let mut known = dockerfile::codes::ALL.iter().chain(pipeline::codes::ALL).chain(compose::codes::ALL);
    match known.find(|(known, ..)| *known == code) {
        Some((_, title, text)) => json!({
            "id": code,
            "shortDescription": {"text": title},
            "fullDescription": {"text": text},
            "help": {"text": text},
            "defaultConfiguration": {"level": word(Severity::Error)},
        }),
        None => json!({"id": code}),
    }
}

fn results(file: &Findings<'_>, codes: &[&str]) -> Vec<Value> {
    let lines = Lines::new(file.text);
    let uri = uri(file.name);
    let result = |diagnostic: &Diagnostic| {
        let mut region = json!({"startLine": 1});
        if let Some(span) = &diagnostic.span {
            let (line, column) = lines.line_column(span.start);
            let (end_line, end_column) = lines.line_column(span.end);
            region = json!({"startLine": line, "startColumn": column, "endLine": end_line, "endColumn": end_column});
        }
        let mut message = text_with_label(diagnostic);
        for more in diagnostic.notes.iter().chain(&diagnostic.help) {
            message.push('\n');
            message.push_str(more);
        }
        json!({
            "ruleId": diagnostic.code,
            "ruleIndex": codes.binary_search(&diagnostic.code).unwrap_or_default(),
            "level": word(diagnostic.severity),
            "message": {"text": message},
            "locations": [{"physicalLocation": {"artifactLocation": {"uri": uri}, "region": region}}],
        })
    };
    file.diagnostics.iter().map(result).collect()
}

/// A path as a URI reference: what RFC 3986 does not allow in a path is escaped, and a colon in the first part too, which
/// would end a scheme.
fn uri(path: &str) -> String {
    let mut out = String::new();
    for byte in path.bytes() {
        let is_plain = byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=@".contains(&byte);
        if is_plain {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    // `//host` would name an authority.
    if out.starts_with("//") { format!("/{}", out.trim_start_matches('/')) } else { out }
}
