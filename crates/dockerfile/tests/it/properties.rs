//! Whatever the text is: no panic, and spans that can be used to cut it.

use dockerfile::dockerignore::DockerIgnore;
use dockerfile::{Diagnostic, InstructionKind, Span, Word, expand, glob, parse_with_warnings};
use proptest::prelude::*;

/// Lines made of what the parser looks at, so that random texts reach deep.
fn dockerfile_text() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "FROM ",
        "ARG ",
        "RUN ",
        "COPY ",
        "ADD ",
        "ENV ",
        "LABEL ",
        "CMD ",
        "ONBUILD ",
        "HEALTHCHECK ",
        "SHELL ",
        "VOLUME ",
        "EXPOSE ",
        "USER ",
        "from ",
        "a",
        "b",
        " ",
        "  ",
        "\t",
        "\n",
        "\n",
        "\n",
        "\r\n",
        "\\\n",
        "\\",
        "\\\\\n",
        "`",
        "`\n",
        "#",
        "# escape=`\n",
        "# syntax=x\n",
        "# check=skip=all\n",
        "\u{feff}",
        "=",
        "\"",
        "'",
        "[",
        "]",
        "[\"a\"]",
        ",",
        "<<EOF",
        "<<-E",
        "<<'E'",
        "EOF\n",
        "E\n",
        "--from=x ",
        "--mount=type=cache,target=/x ",
        "--link ",
        "--",
        "--mount=",
        "--interval=1s ",
        "CMD",
        "NONE",
        "AS ",
        "as ",
        "$A",
        "${A",
        "${A:-",
        "}",
        "{",
        "ü",
        "☃",
        "\u{a0}",
        "\u{c}",
        "<",
        "3<<",
        "/",
        ".",
        "*",
        "\\u",
        "\\\"",
    ]);
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

fn check_span(text: &str, span: &Span) {
    assert!(text.get(span.clone()).is_some(), "span {span:?} of {text:?}");
}

fn check_problems(text: &str, problems: &[Diagnostic]) {
    for problem in problems {
        assert!(!problem.message.ends_with('.') && !problem.message.is_empty(), "{problem}");
        if let Some(span) = &problem.span {
            check_span(text, span);
        }
    }
}

fn check_word(text: &str, word: &Word) {
    check_span(text, &word.span);
    let _ = expand::expand_noting(&word.raw, '\\', &|name| Some(name.to_owned()));
}

fn check_text(text: &str) {
    match parse_with_warnings(text) {
        Err(problems) => {
            assert!(problems.iter().any(Diagnostic::is_error));
            check_problems(text, &problems);
        }
        Ok(parsed) => {
            check_problems(text, &parsed.warnings);
            assert!(!parsed.dockerfile.stages.is_empty());
            for stage in &parsed.dockerfile.stages {
                check_span(text, &stage.span);
                check_word(text, &stage.base);
                for instruction in &stage.instructions {
                    check_span(text, &instruction.span);
                    assert!(stage.span.end <= instruction.span.start);
                    match &instruction.kind {
                        InstructionKind::Copy(copy) | InstructionKind::Add(copy) => {
                            copy.sources.iter().chain([&copy.dest]).for_each(|word| check_word(text, word));
                            copy.heredocs.iter().for_each(|heredoc| check_span(text, &heredoc.span));
                        }
                        InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => {
                            for (name, value) in pairs {
                                check_word(text, name);
                                check_word(text, value);
                            }
                        }
                        InstructionKind::Run(run) => {
                            run.mounts.iter().for_each(|mount| check_span(text, &mount.span));
                            run.heredocs.iter().for_each(|heredoc| check_span(text, &heredoc.span));
                        }
                        InstructionKind::Volume(words) | InstructionKind::Expose(words) => {
                            words.iter().for_each(|word| check_word(text, word));
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parsing_never_panics(text in dockerfile_text()) {
        check_text(&text);
        check_text(&format!("FROM a\n{text}"));
    }

    #[test]
    fn any_text_is_survived(text in "\\PC*") {
        check_text(&text);
    }

    #[test]
    fn dockerignore_never_panics(
        lines in prop::collection::vec("[!#/.*?\\[\\]^a-c\\\\ü \t{}$+()|&~-]{0,12}", 0..6),
        path in "[a-c/.ü*^!-]{1,12}",
    ) {
        let text = lines.join("\n");
        match DockerIgnore::parse(&text) {
            Err(problem) => check_problems(&text, &[problem]),
            Ok(ignore) => {
                let excluded = ignore.is_excluded(&path, false);
                prop_assert_eq!(excluded, ignore.matching_line(&path).is_some());
                // Pruning a directory must not lose a file that is kept. A walk meets only plain names.
                let is_met = path.split('/').all(|name| !matches!(name, "" | "." | ".."));
                if !excluded && is_met {
                    for (at, _) in path.match_indices('/') {
                        prop_assert!(ignore.may_contain_included(&path[..at]), "{:?} {:?}", text, path);
                    }
                }
            }
        }
    }

    #[test]
    fn globs_never_panic(pattern in "[*?\\[\\]^a-c\\\\/-]{0,10}", name in prop::collection::vec(any::<u8>(), 0..10)) {
        let checked = glob::check(&pattern);
        prop_assert_eq!(glob::matches(&pattern, &name).is_ok(), checked.is_ok());
        if !glob::has_meta(&pattern) {
            prop_assert_eq!(glob::matches(&pattern, &pattern), Ok(true));
        }
    }

    #[test]
    fn expansion_never_panics(word in "[$\\{}:\\-+?#%/a-c\"'\\\\ <*ü]{0,30}") {
        let lookup = |name: &str| name.starts_with('a').then(|| "x y*z/ü".to_owned());
        let _ = expand::expand(&word, '\\', &lookup);
        let _ = expand::expand(&word, '`', &lookup);
        let _ = expand::expand_heredoc(&word, &lookup);
    }
}

/// Not timed: what is not linear in here would take minutes or all memory.
#[test]
fn large_files_are_read() {
    use dockerfile::{lint, outline};
    use std::fmt::Write as _;

    let mut doubling = "FROM scratch\nENV A=xxxxxxxxxxxxxxxx\n".to_owned();
    let mut chain = "FROM a AS s0\n".to_owned();
    let mut runs = "FROM a\n".to_owned();
    let mut unknown = "FROM a\n".to_owned();
    for at in 1..=3_000 {
        if at <= 100 {
            let _ = writeln!(doubling, "ENV A=$A$A B{at}=$A${{A//x/yy}}");
        }
        let _ = writeln!(chain, "FROM s{} AS s{at}\nARG A{at}=1\nENV B=$A{at}\nCMD x", at - 1);
        let _ = writeln!(
            runs,
            "RUN apt-get update && echo {at} of a story that is about a hundred bytes long, as usual, {at}"
        );
        let _ = writeln!(unknown, "ARG NAME_{at}\nCOPY $NAEM_{at} /");
    }
    let one_line = format!("FROM a\nRUN {}y\nENV {}\n", "x && \\\n".repeat(20_000), "A=\"$B\" ".repeat(20_000));
    for text in [doubling, chain, runs, unknown, one_line] {
        let file = dockerfile::parse(&text).expect("it is right");
        lint::check(&file, &text, &lint::LintInput { experimental: true, ..lint::LintInput::default() });
        outline::outline(&file, None, &[]).expect("it has a last stage");
    }
}
