//! Patterns against paths, as moby's patternmatcher answers.

use dockerfile::dockerignore::{DockerIgnore, PatternSet};
use dockerfile::glob;

/// `(pattern, path, whether it is excluded)`; several patterns are parted by `|`.
const PAIRS: &[(&str, &str, bool)] = &[
    // Anchoring.
    ("foo", "foo", true),
    ("foo", "bar/foo", false),
    ("foo", "foobar", false),
    ("*.md", "README.md", true),
    ("*.md", "docs/README.md", false),
    ("docs/*.md", "docs/README.md", true),
    ("docs/*.md", "docs/a/README.md", false),
    ("/foo", "foo", true),
    ("/foo", "bar/foo", false),
    ("foo/bar", "foo/bar", true),
    ("foo/bar", "x/foo/bar", false),
    // A matching directory holds for what is below.
    ("foo", "foo/bar", true),
    ("foo", "foo/bar/baz", true),
    ("foo/", "foo/bar", true),
    ("foo/", "foo", true),
    ("f*", "foo/bar/baz", true),
    ("*", "foo/bar", true),
    ("*/bar", "foo/bar/baz", true),
    ("node_modules", "app/node_modules/x", false),
    ("**/node_modules", "app/node_modules/x", true),
    // Cleaning.
    ("./foo", "foo", true),
    ("foo/./bar", "foo/bar", true),
    ("foo//bar", "foo/bar", true),
    ("foo/../bar", "bar", true),
    ("foo/../bar", "foo", false),
    ("../foo", "foo", false),
    ("/../foo", "foo", true),
    ("foo/..", "foo", false),
    ("./", "foo", false),
    (".", "foo", false),
    ("/", "foo", false),
    ("foo", "./foo", true),
    ("foo", "bar/../foo", true),
    ("*", ".", false),
    (" foo \t", "foo", true),
    // Two stars.
    ("**", "foo", true),
    ("**", "foo/bar", true),
    ("**/", "foo/bar", true),
    ("**/**", "foo", true),
    ("**/foo", "foo", true),
    ("**/foo", "a/foo", true),
    ("**/foo", "a/b/foo", true),
    ("**/foo", "a/barfoo", false),
    ("**foo", "a/barfoo", true),
    ("**foo", "foo", true),
    ("foo/**", "foo", false),
    ("foo/**", "foo/bar", true),
    ("foo/**", "foo/bar/baz", true),
    ("foo**", "foobar/baz", true),
    ("foo**", "foo", true),
    ("foo/**/bar", "foo/bar", true),
    ("foo/**/bar", "foo/a/bar", true),
    ("foo/**/bar", "foo/a/b/bar", true),
    ("foo/**/bar", "foobar", false),
    ("foo**bar", "foobar", true),
    ("foo**bar", "foo/bar", true),
    ("foo**bar", "foox/bar", true),
    ("foo**bar", "fooxbar", false),
    ("**/*.md", "README.md", true),
    ("**/*.md", "docs/a/README.md", true),
    ("**/.git", "a/.git/config", true),
    ("a/**/*.txt", "a/x.txt", true),
    ("a/**/*.txt", "a/b/c/x.txt", true),
    ("a/**/*.txt", "b/x.txt", false),
    ("**/a/**/b", "x/a/y/b", true),
    // One character.
    ("fo?", "foo", true),
    ("fo?", "fo", false),
    ("fo?", "fo/", false),
    ("f?o", "f/o", false),
    ("?", "ü", true),
    ("a?b", "a☃b", true),
    ("a??b", "a☃b", false),
    // Classes.
    ("[abc]", "b", true),
    ("[a-c]x", "bx", true),
    ("[a-c]x", "dx", false),
    ("[^a]", "a", false),
    ("[^a]", "b", true),
    ("[!a]", "a", true),
    ("[!a]", "!", true),
    ("[!a]", "b", false),
    ("a[.]b", "a.b", true),
    ("a[.]b", "axb", false),
    ("a[\\]]b", "a]b", true),
    ("[a-c&&b]", "a", true),
    ("[a-c&&b]", "&", true),
    ("[a[]", "[", true),
    ("x[α-ω]", "xβ", true),
    // Literal characters that mean something elsewhere.
    ("{a,b}", "a", false),
    ("{a,b}", "{a,b}", true),
    ("a.b", "axb", false),
    ("a+b*", "aab", false),
    ("a+b*", "a+bc", true),
    ("(a)*", "(a)x", true),
    ("a|b*", "a|b", true),
    ("a|b*", "a", false),
    ("a$*", "a$b", true),
    ("a\\*b", "a*b", true),
    ("a\\*b", "axb", false),
    ("a\\?", "a?", true),
    ("\\!foo", "!foo", true),
    ("\\#foo", "#foo", true),
    ("a b", "a b", true),
    ("A", "a", false),
    ("*.MD", "x.md", false),
    (".*", ".git", true),
    (".*", "git", false),
    ("*", ".hidden", true),
    ("a*", "a", true),
    // Exceptions; the last match decides.
    ("*|!foo", "foo", false),
    ("*|!foo", "bar", true),
    ("*|!foo", "foo/bar", false),
    ("!foo|*", "foo", true),
    ("*.md|!README.md", "README.md", false),
    ("*.md|!README.md|README*", "README.md", true),
    ("foo|!foo/bar", "foo/bar", false),
    ("foo|!foo/bar", "foo/baz", true),
    ("foo|!foo/bar", "foo/bar/x", false),
    ("foo/*|!foo/bar", "foo", false),
    ("**|!a/**/c", "a/b/c", false),
    ("**|!a/**/c", "a/b/d", true),
    ("*|!*.go", "main.go", false),
    ("*|!*.go", "cmd/main.go", true),
    ("*|!**/*.go", "cmd/main.go", false),
    ("*|!/foo", "foo", false),
    ("*|! foo", "foo", false),
    ("*|!./foo/", "foo/x", false),
    ("foo|!foo|foo/x", "foo/x", true),
    ("foo|!foo|foo/x", "foo/y", false),
    ("a/b|!a", "a/b", false),
    ("!foo", "foo", false),
    // Comments.
    ("#foo", "#foo", false),
    (" #foo", "#foo", true),
    ("foo#", "foo#", true),
    ("", "foo", false),
];

fn parse(patterns: &str) -> DockerIgnore {
    DockerIgnore::parse(&patterns.replace('|', "\n")).expect("the patterns are right")
}

#[test]
fn pairs() {
    let mut failures = String::new();
    for &(patterns, path, expected) in PAIRS {
        // In a list of literal bars the bar is part of the pattern.
        let ignore = if patterns.starts_with("a|") {
            DockerIgnore::parse(patterns).expect("the pattern is right")
        } else {
            parse(patterns)
        };
        if ignore.is_excluded(path, false) != expected {
            failures += &format!("\n{patterns:?} {path:?} should be {expected}");
        }
    }
    assert!(PAIRS.len() > 100);
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn bad_patterns_name_their_line() {
    for (text, line) in [
        ("[", 1),
        ("a\n[a", 2),
        ("# x\n\na[", 3),
        ("[]a]", 1),
        ("[^]", 1),
        ("[-a]", 1),
        ("[a-]", 1),
        ("a\\", 1),
        ("x\n!", 2),
        ("x\n!  ", 2),
        ("![", 1),
        ("[b-a]", 1),
    ] {
        let problem = DockerIgnore::parse(text).expect_err(text);
        assert_eq!(problem.code, "ST126");
        assert!(problem.message.contains(&format!("line {line}:")), "{text:?}: {problem}");
        let span = problem.span.expect("a place");
        assert_eq!(dockerfile::line_column(text, span.start).0, line);
        assert_eq!(text[span.clone()], *text.lines().nth(line - 1).expect("the line").trim());
    }
}

#[test]
fn bom_and_line_ends() {
    let ignore = DockerIgnore::parse("\u{feff}foo\r\n# bar\r\nbaz\r\n").expect("it is right");
    assert!(ignore.is_excluded("foo", false));
    assert!(ignore.is_excluded("baz", true));
    assert!(!ignore.is_excluded("bar", false));
    let commented = DockerIgnore::parse("\u{feff}#foo").expect("it is right");
    assert!(!commented.is_excluded("#foo", false));
}

#[test]
fn names_need_not_be_utf8() {
    let ignore = parse("a?b|c*|d");
    assert!(ignore.is_excluded(b"a\xffb", false));
    assert!(!ignore.is_excluded(b"a\xff\xfeb", false));
    assert!(ignore.is_excluded(b"c\xff\xfe", false));
    assert!(ignore.is_excluded(b"d/\xff", false));
    assert!(!ignore.is_excluded(b"\xff", false));
}

#[test]
fn the_deciding_line_is_known() {
    let ignore = DockerIgnore::parse("# comment\n\n*.log\ntmp\n!tmp/keep\nkeep*\n").expect("it is right");
    assert_eq!(ignore.matching_line("x.log"), Some(3));
    assert_eq!(ignore.matching_line("tmp/x"), Some(4));
    assert_eq!(ignore.matching_line("tmp/keep"), None);
    assert_eq!(ignore.matching_line("keepers"), Some(6));
    assert_eq!(ignore.matching_line("src"), None);
}

#[test]
fn walks_are_pruned_where_nothing_can_be_kept() {
    for (patterns, directory, expected) in [
        ("foo", "foo", false),
        ("foo", "bar", true),
        ("foo", ".", true),
        ("*|!foo/bar", "foo", true),
        ("*|!foo/bar", "baz", false),
        ("*|!foo/bar", "foo/bar", true),
        ("*|!foo/bar", "foo/baz", false),
        ("*|!foo", "foo/bar", true),
        ("*|!*/x", "foo", true),
        ("*|!*/x", "foo/y", false),
        ("*|!**/x", "foo/y", true),
        ("*|!*.go", "src", false),
        ("*|![f]oo/x", "foo", true),
        ("**/node_modules", "a/node_modules", false),
    ] {
        assert_eq!(parse(patterns).may_contain_included(directory), expected, "{patterns} {directory}");
    }
}

#[test]
fn sets_for_copy_exclude() {
    let set = PatternSet::new(["*.txt", "", "!keep.txt", "/abs"]).expect("they are right");
    assert!(set.is_excluded("a.txt"));
    assert!(!set.is_excluded("keep.txt"));
    assert!(set.has_exceptions() && !set.is_empty());
    assert_eq!(set.deciding_index("a.txt"), Some(0));
    // Only the file format drops a leading slash.
    assert!(!set.is_excluded("abs"));
    let error = PatternSet::new(["a", "["]).expect_err("an open class");
    assert_eq!((error.index, error.pattern.as_str()), (1, "["));
    assert!(PatternSet::new([""; 0]).expect("nothing").is_empty());
}

#[test]
fn globs() {
    // From Go's tests of `path/filepath`; `None` is a bad pattern.
    for (pattern, name, expected) in [
        ("abc", "abc", Some(true)),
        ("*", "abc", Some(true)),
        ("*c", "abc", Some(true)),
        ("a*", "a", Some(true)),
        ("a*", "abc", Some(true)),
        ("a*", "ab/c", Some(false)),
        ("a*/b", "abc/b", Some(true)),
        ("a*/b", "a/c/b", Some(false)),
        ("a*b*c*d*e*/f", "axbxcxdxe/f", Some(true)),
        ("a*b*c*d*e*/f", "axbxcxdxexxx/f", Some(true)),
        ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", Some(false)),
        ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", Some(false)),
        ("a*b?c*x", "abxbbxdbxebxczzx", Some(true)),
        ("a*b?c*x", "abxbbxdbxebxczzy", Some(false)),
        ("ab[c]", "abc", Some(true)),
        ("ab[b-d]", "abc", Some(true)),
        ("ab[e-g]", "abc", Some(false)),
        ("ab[^c]", "abc", Some(false)),
        ("ab[^b-d]", "abc", Some(false)),
        ("ab[^e-g]", "abc", Some(true)),
        ("a\\*b", "a*b", Some(true)),
        ("a\\*b", "ab", Some(false)),
        ("a?b", "a☺b", Some(true)),
        ("a[^a]b", "a☺b", Some(true)),
        ("a???b", "a☺b", Some(false)),
        ("a[^a][^a][^a]b", "a☺b", Some(false)),
        ("[a-ζ]*", "α", Some(true)),
        ("*[a-ζ]", "A", Some(false)),
        ("a?b", "a/b", Some(false)),
        ("a*b", "a/b", Some(false)),
        ("[\\]a]", "]", Some(true)),
        ("[\\-]", "-", Some(true)),
        ("[x\\-]", "x", Some(true)),
        ("[x\\-]", "z", Some(false)),
        ("[\\-x]", "a", Some(false)),
        ("[]a]", "]", None),
        ("[-]", "-", None),
        ("[x-]", "x", None),
        ("[-x]", "x", None),
        ("\\", "a", None),
        ("[a-b-c]", "a", None),
        ("[", "a", None),
        ("[^", "a", None),
        ("[^bc", "a", None),
        ("a[", "a", None),
        ("a[", "ab", None),
        ("a[", "x", None),
        ("a/b[", "x", None),
        ("*x", "xxx", Some(true)),
        ("", "", Some(true)),
        ("", "a", Some(false)),
        ("**", "a/b", Some(false)),
        ("*/*", "a/b", Some(true)),
    ] {
        assert_eq!(glob::matches(pattern, name).ok(), expected, "{pattern} {name}");
    }
    assert_eq!(glob::matches("a?", b"a\xff"), Ok(true));
    assert!(glob::has_meta("a*") && glob::has_meta("[a]") && glob::has_meta("a\\b") && glob::has_meta("?"));
    assert!(!glob::has_meta("a{b}c!") && !glob::has_meta(""));
}
