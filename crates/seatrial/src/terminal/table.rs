//! Results: tables for people, `--format json` and small `{{.Field}}` templates for programs.

use serde_json::Value;

use super::text;
use crate::failure::Failure;

/// Columns under headings, as wide as their widest cell; the last column is not padded.
pub(crate) fn render(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|heading| text::width(heading)).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(text::width(cell));
        }
    }
    let mut out = String::new();
    let headings: Vec<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
    for row in std::iter::once(&headings).chain(rows) {
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            line.push_str(cell);
            if index + 1 < row.len() {
                line.push_str(&" ".repeat(width + 3 - text::width(cell)));
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Indented columns without headings.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let headings = vec![""; rows.iter().map(Vec::len).max().unwrap_or(0)];
    render(&headings, rows).lines().skip(1).map(|line| format!("  {line}\n")).collect()
}

/// How results are written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// One JSON value a line.
    Json,
    /// A template, once for each result.
    Template(Vec<Piece>),
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Piece {
    Text(String),
    /// Path of fields; empty is the whole value. `true`: as JSON.
    Field(Vec<String>, bool),
}

impl Format {
    /// Reads `--format`.
    pub(crate) fn parse(format: Option<&str>) -> Result<Format, Failure> {
        match format {
            None | Some("table" | "") => Ok(Format::Table),
            Some("json") => Ok(Format::Json),
            Some(template) if template.contains("{{") => parse_template(template).map(Format::Template),
            Some(other) => Err(Failure::usage(format!("`{other}` is not a format"))
                .hint("use `--format json`, or a template such as `--format '{{.Digest}}'`")),
        }
    }

    /// Whether a result's field is shown, so that what is costly to know is worked out only then.
    pub(crate) fn reads(&self, name: &str) -> bool {
        match self {
            Format::Table => false,
            Format::Json => true,
            Format::Template(pieces) => pieces.iter().any(|piece| match piece {
                Piece::Text(_) => false,
                Piece::Field(path, _) => path.first().is_none_or(|first| first == name),
            }),
        }
    }

    /// One result as a line; `None` where a table is wanted.
    pub(crate) fn line(&self, value: &Value) -> Result<Option<String>, Failure> {
        match self {
            Format::Table => Ok(None),
            Format::Json => Ok(Some(value.to_string())),
            Format::Template(pieces) => {
                let mut line = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => line.push_str(text),
                        Piece::Field(path, as_json) => line.push_str(&field(value, path, *as_json)?),
                    }
                }
                Ok(Some(line))
            }
        }
    }
}

fn parse_template(template: &str) -> Result<Vec<Piece>, Failure> {
    let wrong = |part: &str| {
        Failure::usage(format!("`{{{{{part}}}}}` is not understood in a template"))
            .hint("templates know `{{.Field}}`, `{{.Field.Inner}}`, `{{json .}}` and `{{json .Field}}`")
    };
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some((text, after)) = rest.split_once("{{") {
        if !text.is_empty() {
            pieces.push(Piece::Text(unescape(text)));
        }
        let (inside, after) = after.split_once("}}").ok_or_else(|| wrong(after))?;
        let (path, as_json) = match inside.trim().strip_prefix("json ") {
            Some(path) => (path.trim(), true),
            None => (inside.trim(), false),
        };
        let path = path.strip_prefix('.').ok_or_else(|| wrong(inside))?;
        let fields: Vec<String> = path.split('.').filter(|field| !field.is_empty()).map(str::to_owned).collect();
        if fields.iter().any(|field| field.contains(char::is_whitespace)) {
            return Err(wrong(inside));
        }
        pieces.push(Piece::Field(fields, as_json));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(unescape(rest)));
    }
    Ok(pieces)
}

/// Shells hand `\t` and `\n` on as they are written; docker's templates understand them.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

fn field(value: &Value, path: &[String], as_json: bool) -> Result<String, Failure> {
    let mut at = value;
    for name in path {
        let Some(object) = at.as_object() else {
            return Err(Failure::usage(format!("there is no field `{}`", path.join("."))));
        };
        let found = object
            .get(name)
            .or_else(|| object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value));
        at = found.ok_or_else(|| {
            let known: Vec<&str> = object.keys().map(String::as_str).collect();
            let near = dockerfile::nearest(name, known.iter().copied()).map_or_else(
                || format!("fields are {}", known.join(", ")),
                |near| format!("did you mean `{{{{.{near}}}}}`?"),
            );
            Failure::usage(format!("there is no field `{name}`")).hint(near)
        })?;
    }
    Ok(match at {
        Value::String(text) if !as_json => text.clone(),
        Value::Null if !as_json => String::new(),
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(template: &str, expected: Result<&str, &str>) {
        let value = json!({"Id": "sha256:00", "Config": {"User": "app", "Env": ["A=1"]}, "Size": 5, "None": null});
        let line = Format::parse(Some(template)).and_then(|format| format.line(&value));
        match expected {
            Ok(expected) => assert_eq!(line.unwrap().unwrap(), expected),
            Err(expected) => assert_eq!(line.unwrap_err().message, expected),
        }
    }

    #[test]
    fn templates_name_fields() {
        check("{{.Id}}", Ok("sha256:00"));
        check("{{ .id }}\\t{{.Size}}", Ok("sha256:00\t5"));
        check("{{.Config.User}}", Ok("app"));
        check("{{json .Config.Env}}", Ok("[\"A=1\"]"));
        check("x{{.None}}y", Ok("xy"));
        check("{{.Digst}}", Err("there is no field `Digst`"));
        check("{{range .}}", Err("`{{range .}}` is not understood in a template"));
        check("yaml", Err("`yaml` is not a format"));
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".into(), "b".into()], vec!["long".into(), "c".into()]];
        assert_eq!(render(&["X", "Y"], &rows), "X      Y\na      b\nlong   c\n");
    }
}
