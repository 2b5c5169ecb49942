//! `os-release`(5): which distribution an image is of.

use serde::{Deserialize, Serialize};

/// What the image says of its distribution.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OsRelease {
    /// `ID`, such as `debian`; `linux` where the file does not say (its default).
    pub id: String,
    /// `NAME`.
    pub name: String,
    /// `VERSION_ID`; Debian's testing has none.
    pub version_id: Option<String>,
    /// `VERSION_CODENAME`.
    pub codename: Option<String>,
    /// `PRETTY_NAME`.
    pub pretty_name: Option<String>,
    /// `HOME_URL`.
    pub homepage: Option<String>,
    /// `CPE_NAME`.
    pub cpe: Option<String>,
}

/// Reads the assignments; what is none is passed over, as a shell's other lines are not allowed there.
pub(crate) fn parse(text: &str) -> OsRelease {
    let mut os = OsRelease { id: "linux".into(), name: "Linux".into(), ..OsRelease::default() };
    for line in text.lines() {
        let Some((key, value)) = line.trim().split_once('=') else { continue };
        let value = unquoted(value);
        if value.is_empty() {
            continue;
        }
        match key {
            "ID" => os.id = value.to_lowercase(),
            "NAME" => os.name = value,
            "VERSION_ID" => os.version_id = Some(value),
            "VERSION_CODENAME" => os.codename = Some(value),
            "PRETTY_NAME" => os.pretty_name = Some(value),
            "HOME_URL" => os.homepage = Some(value),
            "CPE_NAME" => os.cpe = Some(value),
            _ => {}
        }
    }
    os
}

/// A shell word: quotes around it, backslashes before the five special characters.
fn unquoted(value: &str) -> String {
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
    let inner = quote.and_then(|quote| value.strip_prefix(quote)?.strip_suffix(quote)).unwrap_or(value);
    let mut out = String::with_capacity(inner.len());
    let mut characters = inner.chars().peekable();
    while let Some(c) = characters.next() {
        match (c, characters.peek()) {
            ('\\', Some('"' | '\'' | '\\' | '$' | '`')) if quote != Some('\'') => out.extend(characters.next()),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shell_words() {
        let os = parse(
            "ID=Debian\n# no\nVERSION_ID=\"12\"\nPRETTY_NAME='A \"b\"'\nNAME=\"a\\$b\"\nVERSION_CODENAME=\nrubbish\n",
        );
        assert_eq!((os.id.as_str(), os.version_id.as_deref(), os.codename), ("debian", Some("12"), None));
        assert_eq!((os.pretty_name.as_deref(), os.name.as_str()), (Some("A \"b\""), "a$b"));
        assert_eq!(parse("").id, "linux");
    }
}
