//! `.dockerignore`: patterns up to the first NUL byte, paths behind it.

use dockerfile::dockerignore::DockerIgnore;

/// Reads the bytes as patterns, and asks them about paths.
pub fn run(data: &[u8]) {
    let mut parts = data.split(|&byte| byte == 0);
    let text = &*String::from_utf8_lossy(parts.next().unwrap_or_default());
    let ignore = match DockerIgnore::parse(text) {
        Ok(ignore) => ignore,
        Err(problem) => {
            let span = problem.span.expect("a wrong pattern has a place");
            assert!(text.get(span).is_some_and(|pattern| !pattern.is_empty()), "the place is that of a pattern");
            return;
        }
    };
    assert!(!ignore.is_excluded(".", true), "the context itself is always there");
    let _ = ignore.line_of_everything();
    // More paths would only make one input slow.
    for path in parts.chain([&b"a/b/c"[..], b"README.md", b".git/x"]).take(16) {
        let is_excluded = ignore.is_excluded(path, false);
        let line = ignore.matching_line(path);
        assert_eq!(is_excluded, line.is_some(), "what is left out has a line that says so");
        assert!(line.is_none_or(|line| line >= 1 && line <= text.lines().count()), "the line is one of the file");
        // A walk of the context meets no other paths than these.
        let is_plain = path.split(|&byte| byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."));
        if !is_excluded && is_plain {
            for (at, _) in path.iter().enumerate().filter(|&(at, &byte)| byte == b'/' && at > 0) {
                assert!(ignore.may_contain_included(&path[..at]), "a walk has to come by what is kept");
            }
        }
    }
}
