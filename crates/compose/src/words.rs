//! A command text to program and arguments, as docker compose splits it (go-shellwords without variables).

/// What a command text is made of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Words {
    /// Program and arguments.
    pub(crate) words: Vec<String>,
    /// The shell operator at which the text was cut: there is no shell that would understand it.
    pub(crate) cut_at: Option<char>,
}

/// Splits a text at blanks; quotes and backslashes work as in a shell, everything else is left alone.
///
/// # Errors
/// What is not closed.
pub(crate) fn split(text: &str) -> Result<Words, &'static str> {
    let (mut words, mut word, mut started) = (Vec::new(), String::new(), false);
    let (mut quote, mut cut_at) = (None, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', quote) if quote != Some('\'') => match chars.next() {
                Some(escaped) => {
                    word.push(escaped);
                    started = true;
                }
                None => return Err("a backslash ends the command"),
            },
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.push(c),
            ('\'' | '"', None) => (quote, started) = (Some(c), true),
            (c, None) if c.is_whitespace() => {
                if started {
                    words.push(std::mem::take(&mut word));
                }
                started = false;
            }
            (';' | '&' | '|' | '<' | '>', None) => {
                cut_at = Some(c);
                break;
            }
            (c, None) => {
                word.push(c);
                started = true;
            }
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed");
    }
    if started {
        words.push(word);
    }
    Ok(Words { words, cut_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_split_as_docker_compose_does() {
        for (text, expected) in [
            ("sleep 1", vec!["sleep", "1"]),
            ("  a\t b\nc ", vec!["a", "b", "c"]),
            (r#"sh -c "a\"b 'c' $X" 'd\e' f\ g"#, vec!["sh", "-c", "a\"b 'c' $X", "d\\e", "f g"]),
            (r#"a "" ''"#, vec!["a", "", ""]),
            (r#"x="1 2"y"#, vec!["x=1 2y"]),
            ("", vec![]),
        ] {
            assert_eq!(
                split(text).map(|words| words.words),
                Ok(expected.iter().map(|w| (*w).into()).collect()),
                "{text}"
            );
        }
        assert_eq!(split("a 1 && b"), Ok(Words { words: vec!["a".into(), "1".into()], cut_at: Some('&') }));
        assert_eq!(split("a '&&' \\;").map(|words| words.cut_at), Ok(None));
        assert_eq!(split("a 'b"), Err("a quote is not closed"));
        assert_eq!(split("a \\"), Err("a backslash ends the command"));
    }
}
