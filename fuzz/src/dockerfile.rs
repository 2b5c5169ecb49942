//! The Dockerfile parser and all that looks at what it read: checks, outline, expansion.

use dockerfile::lint::{BaseImage, LintInput};
use dockerfile::{Diagnostic, Dockerfile, Lines, Span, Word, dockerignore::DockerIgnore, expand, lint, outline};

/// Reads any bytes as a Dockerfile.
pub fn run(data: &[u8]) {
    let text = &*String::from_utf8_lossy(data);
    // Triggers of base images are read by the same parser.
    let _ = dockerfile::parse_trigger(text);
    let parsed = match dockerfile::parse_with_warnings(text) {
        Ok(parsed) => parsed,
        Err(problems) => {
            assert!(problems.iter().any(Diagnostic::is_error), "refused without an error");
            return problems.iter().for_each(|problem| check_finding(problem, text));
        }
    };
    parsed.warnings.iter().for_each(|warning| check_finding(warning, text));
    check_file(&parsed.dockerfile, text);
    check_lint(&parsed.dockerfile, text);
    for target in outline::targets(&parsed.dockerfile) {
        let found = outline::outline(&parsed.dockerfile, target.name, &[]);
        assert!(found.is_ok(), "a target that is listed can be asked for");
    }
}

fn check_finding(finding: &Diagnostic, text: &str) {
    if let Some(span) = &finding.span {
        check_span(span, text);
    }
    assert!(!finding.message.is_empty() && !finding.message.contains('\n') || finding.span.is_some());
}

fn check_span(span: &Span, text: &str) {
    assert!(text.get(span.clone()).is_some(), "{span:?} cannot be cut from the text");
    let (first, last) = Lines::new(text).range(span);
    assert!(first >= 1 && first <= last && last <= text.matches('\n').count() + 1, "{span:?} has no lines");
}

fn check_file(file: &Dockerfile, text: &str) {
    assert!(!file.stages.is_empty(), "a file without a stage is wrong");
    let values = |name: &str| name.len().is_multiple_of(2).then(|| format!("<{name}>"));
    let word = |word: &Word| {
        check_span(&word.span, text);
        let expanded = expand::expand_noting(&word.raw, file.directives.escape, &values);
        if let Ok(expanded) = expanded {
            assert!(expanded.undefined.iter().all(|name| expanded.unmatched.contains(name)), "{word:?}");
        }
    };
    for arg in &file.global_args {
        word(&arg.name);
        arg.default.iter().for_each(word);
    }
    let mut before = 0;
    for stage in &file.stages {
        check_span(&stage.span, text);
        word(&stage.base);
        stage.platform.iter().chain(&stage.name).for_each(word);
        for instruction in &stage.instructions {
            check_span(&instruction.span, text);
            assert!(instruction.span.start >= before, "instructions follow each other");
            before = instruction.span.start;
            assert!(!instruction.text.trim().is_empty(), "an instruction has a text");
        }
    }
}

fn check_lint(file: &Dockerfile, text: &str) {
    let ignore = DockerIgnore::parse("*.md\n!README.md\nsrc").expect("it is right");
    let names = [".git".to_owned(), "node_modules".to_owned()];
    let base = |name: &str, platform: Option<&str>| {
        let variables = vec!["LANG".to_owned(), name.to_owned()];
        let platform = platform.unwrap_or_default().to_owned();
        name.len().is_multiple_of(2).then(|| BaseImage { variables, platform, ..BaseImage::default() })
    };
    let input = LintInput {
        ignore: Some(&ignore),
        context_names: &names,
        base: Some(&base),
        layer_limit: 3,
        experimental: true,
        ..LintInput::default()
    };
    let all = lint::check(file, text, &input);
    all.iter().for_each(|finding| check_finding(finding, text));
    assert_eq!(all, lint::check(file, text, &input), "the same input gives the same findings");
    let needed = lint::check(file, text, &LintInput { only_needed_stages: true, ..input });
    assert!(needed.iter().all(|finding| all.contains(finding)), "a build sees no more than a check");
}
