//! `key=value,key=value` of docker's flags, which is a line of CSV (RFC 4180): values with a comma stand in quotes.

use crate::failure::Failure;

/// The fields of one flag, in order. A field without `=` has an empty value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fields {
    flag: &'static str,
    given: Vec<(String, String)>,
}

impl Fields {
    /// Splits what was given for a flag.
    pub(crate) fn parse(flag: &'static str, text: &str) -> Result<Self, Failure> {
        let mut given = Vec::new();
        for field in split(text).ok_or_else(|| Failure::usage(format!("`{flag} {text}`: a quote is not closed")))? {
            let (key, value) = field.split_once('=').unwrap_or((&field, ""));
            given.push((key.trim().to_owned(), value.to_owned()));
        }
        Ok(Self { flag, given })
    }

    /// Takes the last value of a key out; `None` when it was not given.
    pub(crate) fn take(&mut self, key: &str) -> Option<String> {
        let found = self.given.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, v)| v.clone());
        self.given.retain(|(name, _)| !name.eq_ignore_ascii_case(key));
        found
    }

    /// As [`Fields::take`] for `true` and `false`; the key alone is true.
    pub(crate) fn take_bool(&mut self, key: &str) -> Result<Option<bool>, Failure> {
        match self.take(key).as_deref() {
            None => Ok(None),
            Some("" | "true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(other) => Err(Failure::usage(format!("`{}`: {key} is `{other}`, neither true nor false", self.flag))),
        }
    }

    /// Takes all fields whose key begins so; their keys without it.
    pub(crate) fn take_prefixed(&mut self, prefix: &str) -> Vec<(String, String)> {
        let (taken, left) = std::mem::take(&mut self.given).into_iter().partition(|(name, _)| name.starts_with(prefix));
        self.given = left;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().map(|(name, value)| (name[prefix.len()..].to_owned(), value)).collect()
    }

    /// What nobody took is a mistake.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        match self.given.first() {
            None => Ok(()),
            Some((key, _)) => Err(Failure::usage(format!("`{}`: there is no option `{key}`", self.flag))),
        }
    }
}

/// Fields of a CSV line; `None` when a quote stays open.
fn split(text: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut is_quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut().expect("there is always one");
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if is_quoted || field.is_empty() => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    (!is_quoted).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_csv() {
        let fields = |text| split(text).map(|fields| fields.join("|"));
        assert_eq!(fields("type=local,dest=out"), Some("type=local|dest=out".into()));
        assert_eq!(fields(r#"type=image,"name=a,b",push=true"#), Some("type=image|name=a,b|push=true".into()));
        assert_eq!(fields(r#""a=""x""""#), Some(r#"a="x""#.into()));
        assert_eq!(fields(r#""open"#), None);
    }
}
