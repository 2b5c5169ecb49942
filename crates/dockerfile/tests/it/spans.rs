//! Each value says where it stands.

use dockerfile::{InstructionKind, line_column, parse};

#[test]
fn spans_point_at_the_text() {
    let text = "# syntax=x\nARG V=1\n\nFROM --platform=p img:$V AS Build\nCOPY --from=rel \\\n  # c\n  src \\\n  /dst\n\
                RUN <<EOF\nhi\nEOF\nENV A=\"ü x\" B=2\nCMD [\"a\", \"b\"]\n";
    let file = parse(text).expect("it is right");
    let at = |span: &std::ops::Range<usize>| &text[span.clone()];
    assert_eq!(at(&file.directives.syntax.as_ref().expect("syntax").span), "x");
    assert_eq!(at(&file.global_args[0].name.span), "V");
    assert_eq!(at(&file.global_args[0].default.as_ref().expect("default").span), "1");
    let stage = &file.stages[0];
    assert_eq!(at(&stage.span), "FROM --platform=p img:$V AS Build");
    assert_eq!(at(&stage.base.span), "img:$V");
    assert_eq!(at(&stage.platform.as_ref().expect("platform").span), "p");
    assert_eq!(at(&stage.name.as_ref().expect("name").span), "Build");
    let [copy, run, env, cmd] = &stage.instructions[..] else { panic!("four instructions") };
    assert_eq!(copy.text, "COPY --from=rel   src   /dst");
    assert_eq!(at(&copy.span), "COPY --from=rel \\\n  # c\n  src \\\n  /dst");
    let InstructionKind::Copy(copy) = &copy.kind else { panic!("a copy") };
    assert_eq!(at(&copy.from.as_ref().expect("from").span), "rel");
    assert_eq!(at(&copy.sources[0].span), "src");
    assert_eq!(at(&copy.dest.span), "/dst");
    assert_eq!(at(&run.span), "RUN <<EOF\nhi\nEOF");
    assert_eq!(run.text, "RUN <<EOF");
    let InstructionKind::Run(run) = &run.kind else { panic!("a run") };
    assert_eq!(at(&run.script.as_ref().expect("script").span), "hi\n");
    let InstructionKind::Env(env) = &env.kind else { panic!("an env") };
    assert_eq!(at(&env[0].0.span), "A");
    assert_eq!(at(&env[0].1.span), "\"ü x\"");
    assert_eq!(at(&env[1].1.span), "2");
    assert_eq!(at(&cmd.span), "CMD [\"a\", \"b\"]");
}

#[test]
fn a_word_across_lines_spans_both() {
    let text = "FROM a\nCOPY so\\\nurce /x\n";
    let file = parse(text).expect("it is right");
    let InstructionKind::Copy(copy) = &file.stages[0].instructions[0].kind else { panic!("a copy") };
    assert_eq!(copy.sources[0].raw, "source");
    assert_eq!(&text[copy.sources[0].span.clone()], "so\\\nurce");
}

#[test]
fn errors_point_at_the_mistake() {
    for (text, expected) in [
        ("FROM a\nRUNN x", "RUNN"),
        ("FROM a\nCOPY --form=b x /y", "--form=b"),
        ("FROM a\nCOPY --link=yes x /y", "yes"),
        ("FROM a AS 1b", "1b"),
        ("FROM a\nENV A=1 B", "B"),
        ("FROM a\nRUN --mount=type=cahce,target=/x y", "cahce"),
        ("FROM a\nRUN --mount=type=cache,taget=/x y", "taget"),
        ("FROM a\nHEALTHCHECK --interval=5 CMD x", "5"),
        ("FROM a\nONBUILD FROM x", "FROM"),
        ("# escape=x\nFROM a", "x"),
        ("FROM a\nCOPY --chown=\\\n --from='re l' --bad x /y", "--bad"),
    ] {
        let errors = parse(text).expect_err("it has a mistake");
        let span = errors[0].span.clone().expect("a place");
        assert_eq!(&text[span], expected, "{text:?}");
    }
}

#[test]
fn lines_and_columns_count_from_one() {
    assert_eq!(line_column("ab\nüx", 0), (1, 1));
    assert_eq!(line_column("ab\nüx", 5), (2, 2));
    assert_eq!(line_column("ab\nüx", 4), (2, 1));
    assert_eq!(line_column("ab\n", 99), (2, 1));
}
