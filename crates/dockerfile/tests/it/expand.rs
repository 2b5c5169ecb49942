//! Values of words.

use dockerfile::expand::{ExpandError, expand, expand_heredoc, expand_noting, expand_words};

fn environment(name: &str) -> Option<String> {
    let value = match name {
        "A" => "a",
        "EMPTY" => "",
        "BLANKS" => "x  y z",
        "PATH" => "/usr/bin:/bin",
        "FILE" => "dir/sub/name.tar.gz",
        "HOME" => "/home/u",
        "UTF" => "naïve☃",
        "STAR" => "a*b*c",
        "A_1" => "long",
        _ => return None,
    };
    Some(value.to_owned())
}

#[test]
fn words() {
    let mut failures = String::new();
    for (word, expected) in [
        ("", ""),
        ("plain", "plain"),
        ("$A", "a"),
        ("${A}", "a"),
        ("x$A/y", "xa/y"),
        ("$A_1", "long"),
        ("${A}_1", "a_1"),
        ("$UNSET", ""),
        ("x${UNSET}y", "xy"),
        ("$A$A", "aa"),
        ("a b  c", "a b  c"),
        ("\"a $A\"", "a a"),
        ("'a $A'", "a $A"),
        ("a'b'\"c\"d", "abcd"),
        ("\"'$A'\"", "'a'"),
        ("'\"$A\"'", "\"$A\""),
        ("\\$A", "$A"),
        ("\\\\$A", "\\a"),
        ("\"\\$A\"", "$A"),
        ("\"\\\"\"", "\""),
        ("\"\\\\\"", "\\"),
        ("\"\\n\"", "\\n"),
        ("\\n", "n"),
        ("'\\'", "\\"),
        ("a\\", "a"),
        ("a\\ b", "a b"),
        ("\\'", "'"),
        ("$", "$"),
        ("a$", "a$"),
        ("$ x", "$ x"),
        ("$/x", "$/x"),
        ("$$", ""),
        ("$1", ""),
        ("$12x", "x"),
        ("$@", ""),
        ("${A:-d}", "a"),
        ("${EMPTY:-d}", "d"),
        ("${UNSET:-d}", "d"),
        ("${A-d}", "a"),
        ("${EMPTY-d}", ""),
        ("${UNSET-d}", "d"),
        ("${A:+d}", "d"),
        ("${EMPTY:+d}", ""),
        ("${UNSET:+d}", ""),
        ("${A+d}", "d"),
        ("${EMPTY+d}", "d"),
        ("${UNSET+d}", ""),
        ("${A:?e}", "a"),
        ("${EMPTY?e}", ""),
        ("${UNSET:-${A}}", "a"),
        ("${UNSET:-${UNSET2:-x}}", "x"),
        ("${UNSET:-$A b}", "a b"),
        ("${UNSET:-\"a } b\"}", "a } b"),
        ("${UNSET:-'}'}", "}"),
        ("${UNSET:-a\\}b}", "a}b"),
        ("${FILE#*/}", "sub/name.tar.gz"),
        ("${FILE##*/}", "name.tar.gz"),
        ("${FILE%.*}", "dir/sub/name.tar"),
        ("${FILE%%.*}", "dir/sub/name"),
        ("${FILE#x}", "dir/sub/name.tar.gz"),
        ("${FILE%x}", "dir/sub/name.tar.gz"),
        ("${FILE#dir}", "/sub/name.tar.gz"),
        ("${FILE#d?r/}", "sub/name.tar.gz"),
        ("${FILE%.tar.gz}", "dir/sub/name"),
        ("${STAR#a\\*}", "b*c"),
        ("${STAR%\\*c}", "a*b"),
        ("${STAR##*}", ""),
        ("${UTF%?}", "naïve"),
        ("${UTF#na?}", "ve☃"),
        ("${UNSET#x}", ""),
        ("${FILE/name/x}", "dir/sub/x.tar.gz"),
        ("${FILE/r/R}", "diR/sub/name.tar.gz"),
        ("${FILE//r/R}", "diR/sub/name.taR.gz"),
        ("${FILE/s*b/X}", "dir/X/name.tar.gz"),
        ("${FILE//\\//-}", "dir-sub-name.tar.gz"),
        ("${FILE/./$A}", "dir/sub/nameatar.gz"),
        ("${FILE/nope/x}", "dir/sub/name.tar.gz"),
        ("${FILE//r/}", "di/sub/name.ta.gz"),
        ("$PATH:/x", "/usr/bin:/bin:/x"),
        ("${HOME}/.local", "/home/u/.local"),
        ("$BLANKS", "x  y z"),
        ("\"$BLANKS\"", "x  y z"),
        ("a<<b", "a<<b"),
        ("{$A}", "{a}"),
        ("$A-$A", "a-a"),
        ("ü$A☃", "üa☃"),
    ] {
        let found = expand(word, '\\', &environment);
        if found.as_deref() != Ok(expected) {
            failures += &format!("\n{word}: expected {expected:?}, found {found:?}");
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn backtick_as_escape() {
    for (word, expected) in [("`$A", "$A"), ("c:\\$A", "c:\\a"), ("\"`\"\"", "\""), ("``", "`"), ("\"\\$A\"", "\\a")] {
        assert_eq!(expand(word, '`', &environment).as_deref(), Ok(expected), "{word}");
    }
}

#[test]
fn mistakes() {
    use ExpandError::*;
    let required = |name: &str, message: &str| Required { name: name.into(), message: message.into() };
    for (word, expected) in [
        ("'a", SingleQuote),
        ("\"a", DoubleQuote),
        ("a\"", DoubleQuote),
        ("${A", MissingBrace),
        ("${", MissingBrace),
        ("${A:", MissingBrace),
        ("${A:-x", MissingBrace),
        ("${}", BadSubstitution("${}".into())),
        ("${:-x}", BadSubstitution("${:".into())),
        ("${{A}}", BadSubstitution("${{".into())),
        ("${A:x}", UnsupportedModifier { name: "A".into(), modifier: ":x".into() }),
        ("${A^}", UnsupportedModifier { name: "A".into(), modifier: "^".into() }),
        ("${A,,}", UnsupportedModifier { name: "A".into(), modifier: ",".into() }),
        ("${A/x}", MissingSlash),
        ("${UNSET:?gone}", required("UNSET", "gone")),
        ("${UNSET?}", required("UNSET", "is not allowed to be unset")),
        ("${EMPTY:?}", required("EMPTY", "is not allowed to be empty")),
        ("${A#\\x}", BadPattern("\\x".into())),
    ] {
        assert_eq!(expand(word, '\\', &environment), Err(expected), "{word}");
    }
    let deep = format!("{}x{}", "${U:-".repeat(10_000), "}".repeat(10_000));
    assert_eq!(expand(&deep, '\\', &environment), Err(TooDeep));
}

#[test]
fn several_words() {
    for (word, expected) in [
        ("a b  c", &["a", "b", "c"][..]),
        ("$BLANKS", &["x", "y", "z"]),
        ("\"$BLANKS\"", &["x  y z"]),
        ("p$BLANKS", &["px", "y", "z"]),
        ("'a b' c", &["a b", "c"]),
        ("a\\ b c", &["a b", "c"]),
        ("$UNSET", &[]),
        ("\"\"", &[]),
        ("  a ", &["a"]),
        ("80 443/tcp", &["80", "443/tcp"]),
        ("a<< b", &["a<< b"]),
    ] {
        assert_eq!(expand_words(word, '\\', &environment).expect("it is right"), expected, "{word}");
    }
}

#[test]
fn names_that_were_read() {
    let found = expand_noting("$A ${U} ${V:-x} ${W+y} $A ${EMPTY#z} ${X%z}", '\\', &environment).expect("right");
    assert_eq!(found.matched, ["A", "EMPTY"]);
    assert_eq!(found.unmatched, ["U", "V", "W", "X"]);
    assert_eq!(found.undefined, ["U", "X"]);
    assert_eq!(expand_noting("'$A' \\$B", '\\', &environment).expect("right").matched, [""; 0]);
}

#[test]
fn heredoc_texts_keep_their_quotes() {
    for (text, expected) in [
        ("x=\"$A\" 'b' $UNSET.\n", "x=\"a\" 'b' .\n"),
        ("it's $A\n", "it's a\n"),
        ("\\$A\n", "$A\n"),
        ("a <<b\n\tc\n", "a <<b\n\tc\n"),
    ] {
        assert_eq!(expand_heredoc(text, &environment).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn growth_is_bounded() {
    let long = "x".repeat(600_000);
    let lookup = |name: &str| (name == "A").then(|| long.clone());
    assert_eq!(expand("$A", '\\', &lookup).map(|value| value.len()), Ok(600_000));
    assert_eq!(expand("$A$A", '\\', &lookup), Err(ExpandError::TooLong));
    assert_eq!(expand("${A//x/yyyy}", '\\', &lookup), Err(ExpandError::TooLong));
    assert_eq!(expand("${A/x/yyyy}", '\\', &lookup).map(|value| value.len()), Ok(600_003));
    // A long text may be as long as it is.
    let text = format!("{}$A", "y".repeat(3_000_000));
    assert_eq!(expand(&text, '\\', &lookup).map(|value| value.len()), Ok(3_600_000));
}

#[test]
fn a_colon_goes_with_three_modifiers() {
    let lookup = |_: &str| Some("ab".to_owned());
    for modifier in ["#", "%", "x", ":"] {
        let word = format!("${{A:{modifier}a}}");
        assert!(matches!(expand(&word, '\\', &lookup), Err(ExpandError::UnsupportedModifier { .. })), "{word}");
    }
}
