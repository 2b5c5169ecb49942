//! What a build may be asked for.

use dockerfile::outline::{outline, targets};
use dockerfile::parse;

const TEXT: &str = "\
# VERSION of the base
ARG VERSION=1
ARG BASE=alpine:${VERSION}
ARG UNUSED=x
# other is for nothing
# build compiles
FROM ${BASE} AS build
ARG TOKEN_FILE
ARG VERSION
RUN --mount=type=secret,id=npm,required --mount=type=ssh make
FROM scratch AS other
ARG LOST
# not about the argument
# PORT where it listens
# PORT twice

FROM scratch AS final
# PORT where it listens
# PORT twice
ARG PORT=80
ENV X=1
ARG FULL=${PORT}${X}
RUN --mount=type=secret,target=/run/x/key --mount=type=ssh,id=git,required=true --mount=type=cache,target=/c make
RUN --mount=type=secret,id=npm x
COPY --from=build /a /a
";

fn show(target: Option<&str>, build_args: &[(&str, &str)]) -> String {
    let file = parse(TEXT).expect("it is right");
    let build_args: Vec<_> = build_args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let outline = outline(&file, target, &build_args).unwrap_or_else(|problem| panic!("{problem}"));
    let mut out = format!("{:?} {:?}\n", outline.name, outline.description);
    for arg in outline.args {
        out += &format!("{} {:?} {:?}\n", arg.name, arg.value, arg.description);
    }
    for (kind, needs) in [("secret", outline.secrets), ("ssh", outline.ssh)] {
        for need in needs {
            out += &format!("{kind} {} {}\n", need.id, need.is_required);
        }
    }
    out
}

#[test]
fn the_target_and_what_it_takes_from() {
    assert_eq!(
        show(None, &[]),
        "Some(\"final\") None\n\
         VERSION Some(\"1\") Some(\"of the base\")\n\
         BASE Some(\"alpine:1\") None\n\
         TOKEN_FILE None None\n\
         PORT Some(\"80\") Some(\"where it listens\")\n\
         FULL Some(\"801\") None\n\
         secret key false\nsecret npm true\n\
         ssh default false\nssh git true\n"
    );
    assert_eq!(
        show(Some("BUILD"), &[("VERSION", "2"), ("TOKEN_FILE", "/t")]),
        "Some(\"build\") Some(\"compiles\")\n\
         BASE Some(\"alpine:2\") None\n\
         TOKEN_FILE Some(\"/t\") None\n\
         VERSION Some(\"2\") Some(\"of the base\")\n\
         secret npm true\nssh default false\n"
    );
    assert_eq!(show(Some("1"), &[]), "Some(\"other\") None\nLOST None None\n");
}

#[test]
fn an_unknown_target_is_an_error() {
    let file = parse(TEXT).expect("it is right");
    let problem = outline(&file, Some("fianl"), &[]).expect_err("there is none");
    assert_eq!(problem.to_string(), "error[ST120]: target stage `fianl` does not exist (did you mean `final`?)");
    assert!(outline(&file, Some("3"), &[]).is_err());
}

#[test]
fn all_targets() {
    let file = parse("# a first\nFROM --platform=$BUILDPLATFORM x AS a\nFROM a\n").expect("it is right");
    let shown: Vec<_> = targets(&file)
        .into_iter()
        .map(|target| (target.name, target.is_default, target.description, target.base, target.platform))
        .collect();
    assert_eq!(shown, [(Some("a"), false, Some("first"), "x", Some("$BUILDPLATFORM")), (None, true, None, "a", None)]);
}
