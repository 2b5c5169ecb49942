//! `.env` files (compose-spec, "Env_file format").

use crate::template::{TemplateError, Variables, interpolate};

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct InvalidLine {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// How a file is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Quotes, escapes, comments and templates.
    #[default]
    Compose,
    /// `NAME=value` as it stands.
    Raw,
}

/// Names in the order of the file; one without `=` has no value.
pub type Lines = Vec<(String, Option<String>)>;

/// The kernel takes no longer string in an environment (MAX_ARG_STRLEN); templates could double one with every line.
const VALUE_BYTES_MAX: usize = 128 << 10;

/// Reads a file. Templates see `outside` first, then the lines above.
///
/// # Errors
/// The first line that is wrong.
pub fn parse(text: &str, format: Format, outside: &dyn Variables) -> Result<Lines, InvalidLine> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser { text, at: 0, lines: Vec::new(), outside };
    while parser.skip_to_statement() {
        let line = text[..parser.at].matches('\n').count() + 1;
        let statement = match format {
            Format::Compose => parser.statement(),
            Format::Raw => parser.raw_statement(),
        };
        statement.map_err(|reason| InvalidLine { line, reason })?;
    }
    Ok(parser.lines)
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    lines: Lines,
    outside: &'t dyn Variables,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// Skips blanks and comments; `false` at the end.
    fn skip_to_statement(&mut self) -> bool {
        loop {
            self.at = self.text.len() - self.rest().trim_start().len();
            if !self.rest().starts_with('#') {
                return !self.rest().is_empty();
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    fn line(&mut self) -> String {
        let line = self.rest().split('\n').next().unwrap_or_default().to_owned();
        self.at += line.len();
        line
    }

    fn raw_statement(&mut self) -> Result<(), String> {
        let line = self.line();
        let line = line.trim_end_matches('\r');
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line.trim_end(), None),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(format!("`{name}` is not a name"));
        }
        self.lines.push((name.to_owned(), value));
        Ok(())
    }

    fn statement(&mut self) -> Result<(), String> {
        if let Some(after) = self.rest().strip_prefix("export")
            && after.starts_with([' ', '\t'])
        {
            self.at = self.text.len() - after.trim_start_matches([' ', '\t']).len();
        }
        let rest = self.rest();
        let end = rest.find(['=', ':', '\n']).unwrap_or(rest.len());
        let name = rest[..end].trim_end().to_owned();
        let has_value = rest[end..].starts_with(['=', ':']);
        let legal = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']');
        if name.is_empty() || !name.chars().all(legal) {
            return Err(format!("`{}` is not a name", crate::read::shorten(&name)));
        }
        self.at += end + usize::from(has_value);
        let value = if has_value { Some(self.value()?) } else { None };
        self.lines.push((name, value));
        Ok(())
    }

    fn value(&mut self) -> Result<String, String> {
        self.at = self.text.len() - self.rest().trim_start_matches([' ', '\t', '\r']).len();
        match self.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote),
            _ => {
                let line = self.line();
                // `VAR=VAL # comment`; of `VAR= # text` docker makes a value.
                let value = line.find(" #").map_or(line.as_str(), |comment| &line[..comment]);
                self.expand(value.trim_end())
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let (mut value, mut escaped) = (String::new(), false);
        for (at, c) in self.rest().char_indices().skip(1) {
            match c {
                _ if escaped => {
                    // Only a quote loses its backslash here; the other escapes are replaced below.
                    if c != quote {
                        value.push('\\');
                    }
                    value.push(c);
                    escaped = false;
                }
                '\\' => escaped = true,
                c if c == quote => {
                    self.at += at + 1;
                    let behind = self.line();
                    let behind = behind.trim();
                    if !behind.is_empty() && !behind.starts_with('#') {
                        return Err("there is text behind the closing quote".into());
                    }
                    return if quote == '"' { self.expand(&unescape(&value)) } else { Ok(value) };
                }
                c => value.push(c),
            }
        }
        Err("the quote is not closed".into())
    }

    fn expand(&self, value: &str) -> Result<String, String> {
        let value =
            interpolate(value, &Seen { lines: &self.lines, outside: self.outside }).map_err(|e| e.to_string())?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(format!("the value is longer than {VALUE_BYTES_MAX} bytes"));
        }
        Ok(value)
    }
}

/// What a line's template sees.
struct Seen<'a> {
    lines: &'a Lines,
    outside: &'a dyn Variables,
}

impl Variables for Seen<'_> {
    fn look_up(&self, name: &str) -> Result<String, TemplateError> {
        let above = || self.lines.iter().rev().find(|(above, _)| above == name)?.1.clone();
        self.outside.look_up(name).or_else(|error| above().ok_or(error))
    }

    /// As docker compose does, without a word: the file may be written for other programs.
    fn absent(&self, _: TemplateError) -> Result<String, TemplateError> {
        Ok(String::new())
    }
}

/// The escapes of a double-quoted value. `\$` becomes `$$`, which templates turn into a dollar sign.
fn unescape(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            value.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => value.push('\n'),
            Some('r') => value.push('\r'),
            Some('t') => value.push('\t'),
            Some('a') => value.push('\x07'),
            Some('b') => value.push('\x08'),
            Some('f') => value.push('\x0c'),
            Some('v') => value.push('\x0b'),
            Some('\\') => value.push('\\'),
            Some('$') => value.push_str("$$"),
            Some(other) => {
                value.push('\\');
                value.push(other);
            }
            None => value.push('\\'),
        }
    }
    value
}
