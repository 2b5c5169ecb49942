//! What is refused, and what is said then.

use dockerfile::{Diagnostic, Severity, parse, parse_trigger, parse_with_warnings};

use crate::dump::check;

#[test]
fn structure() {
    check(&[
        ("empty", "", "ST101"),
        ("comments only", "# x\n\n# y\n", "ST101"),
        ("BOM only", "\u{feff}", "ST101"),
        ("no FROM", "ARG a", "ST101"),
        ("RUN before FROM", "RUN x\nFROM a", "ST103"),
        ("it is said once", "RUN x\nCOPY a b\nFROM a", "ST103"),
        ("unknown", "FROM a\nRUNN x", "ST102"),
        ("unknown before FROM", "FRMO a", "ST102"),
        ("forgotten escape", "FROM a\nRUN apt update\n  && apt install x", "ST102"),
        ("escape alone at the end", "FROM a\n\\", "ST102"),
        ("as without name", "FROM a AS", "ST108"),
        ("no image", "FROM", "ST108"),
        ("two images", "FROM a b", "ST108"),
        ("not as", "FROM a is b", "ST108"),
        ("too many", "FROM a AS b c", "ST108"),
        ("stage name with a digit first", "FROM a AS 1", "ST111"),
        ("stage name with a slash", "FROM a AS b/c", "ST111"),
        ("stage name with a variable", "FROM a AS $x", "ST111"),
        ("stage name with an underscore first", "FROM a AS _x", "ST111"),
        ("wrong FROM hides nothing else", "FROM a AS 1\nRUN x\nNOPE", "ST111 ST102"),
        ("all are collected", "FROM a\nCOPY x\nENV\nUSER", "ST108 ST108 ST108"),
    ]);
}

#[test]
fn flags() {
    check(&[
        ("unknown", "FROM a\nCOPY --form=x y z", "ST105"),
        ("of another instruction", "FROM a\nADD --from=x y z", "ST105"),
        ("parents is for copy", "FROM a\nADD --parents y z", "ST105"),
        ("checksum is for add", "FROM a\nCOPY --checksum=x y z", "ST105"),
        ("none at all", "FROM a\nUSER --x y", "ST105"),
        ("env", "FROM a\nENV --x A=b", "ST105"),
        ("case counts", "FROM a\nCOPY --From=x y z", "ST105"),
        ("three dashes", "FROM a\nCOPY ---from=x y z", "ST105"),
        ("twice", "FROM a\nCOPY --from=x --from=y a b", "ST106"),
        ("twice a switch", "FROM a\nCOPY --link --link a b", "ST106"),
        ("no value", "FROM a\nCOPY --from a b", "ST107"),
        ("no value of a list", "FROM a\nCOPY --exclude a b", "ST107"),
        ("empty switch", "FROM a\nCOPY --link= a b", "ST107"),
        ("bad switch", "FROM a\nCOPY --link=yes a b", "ST107"),
        ("bad number as a switch", "FROM a\nCOPY --link=1 a b", "ST107"),
        ("network", "FROM a\nRUN --network=bridge x", "ST107"),
        ("security", "FROM a\nRUN --security=privileged x", "ST107"),
        ("platform twice", "FROM --platform=a --platform=b c", "ST106"),
        ("onbuild", "FROM a\nONBUILD --x RUN y", "ST105"),
        ("inside onbuild", "FROM a\nONBUILD COPY --x y z", "ST105"),
    ]);
}

#[test]
fn arguments() {
    check(&[
        ("copy one", "FROM a\nCOPY x", "ST108"),
        ("copy none", "FROM a\nCOPY", "ST108"),
        ("copy one in JSON", "FROM a\nCOPY [\"x\"]", "ST108"),
        ("copy numbers", "FROM a\nCOPY [1, 2]", "ST113"),
        ("env none", "FROM a\nENV", "ST108"),
        ("env one", "FROM a\nENV A", "ST114"),
        ("env mixed", "FROM a\nENV A=1 B", "ST114"),
        ("env unquoted", "FROM a\nENV A=b c", "ST114"),
        ("env blank", "FROM a\nENV =x", "ST114"),
        ("label none", "FROM a\nLABEL", "ST108"),
        ("label one", "FROM a\nLABEL x", "ST114"),
        ("arg none", "FROM a\nARG", "ST108"),
        ("arg blank", "FROM a\nARG =x", "ST114"),
        ("user none", "FROM a\nUSER", "ST108"),
        ("workdir none", "FROM a\nWORKDIR", "ST108"),
        ("stopsignal none", "FROM a\nSTOPSIGNAL", "ST108"),
        ("maintainer none", "FROM a\nMAINTAINER", "ST108"),
        ("expose none", "FROM a\nEXPOSE", "ST108"),
        ("shell none", "FROM a\nSHELL", "ST108"),
        ("run empty list", "FROM a\nRUN []", "ST108"),
        ("onbuild none", "FROM a\nONBUILD", "ST108"),
        ("onbuild onbuild", "FROM a\nONBUILD ONBUILD RUN x", "ST112"),
        ("onbuild from", "FROM a\nONBUILD from x", "ST112"),
        ("onbuild maintainer", "FROM a\nONBUILD MAINTAINER x", "ST112"),
        ("onbuild unknown", "FROM a\nONBUILD RUNN x", "ST102"),
    ]);
}

#[test]
fn heredocs_healthchecks_and_mounts() {
    check(&[
        ("no end", "FROM a\nRUN <<EOF\nx", "ST109"),
        ("end with a blank", "FROM a\nRUN <<EOF\nx\nEOF ", "ST109"),
        ("end with a tab", "FROM a\nRUN <<EOF\nx\n\tEOF", "ST109"),
        ("second has no end", "FROM a\nRUN <<A <<B\n1\nA\n2", "ST109"),
        ("as destination", "FROM a\nCOPY x <<E\ny\nE", "ST109"),
        ("name with a blank", "FROM a\nCOPY <<'a b' /x\ny\na b", "ST109"),
        ("apart from its name", "FROM a\nCOPY << E /x\ny\nE", "ST109"),
        ("healthcheck none with more", "FROM a\nHEALTHCHECK NONE x", "ST115"),
        ("healthcheck none at all", "FROM a\nHEALTHCHECK", "ST108"),
        ("healthcheck cmd without", "FROM a\nHEALTHCHECK CMD", "ST108"),
        ("healthcheck cmd with an empty list", "FROM a\nHEALTHCHECK CMD []", "ST108"),
        ("healthcheck without cmd", "FROM a\nHEALTHCHECK curl x", "ST115"),
        ("bad duration", "FROM a\nHEALTHCHECK --interval=5 CMD x", "ST115"),
        ("word as a duration", "FROM a\nHEALTHCHECK --timeout=fast CMD x", "ST115"),
        ("too short", "FROM a\nHEALTHCHECK --interval=10us CMD x", "ST115"),
        ("negative", "FROM a\nHEALTHCHECK --interval=-5s CMD x", "ST115"),
        ("bad retries", "FROM a\nHEALTHCHECK --retries=x CMD x", "ST115"),
        ("negative retries", "FROM a\nHEALTHCHECK --retries=-1 CMD x", "ST115"),
        ("unknown healthcheck flag", "FROM a\nHEALTHCHECK --intervall=5s CMD x", "ST105"),
        ("mount type", "FROM a\nRUN --mount=type=cahce,target=/x y", "ST116"),
        ("mount key", "FROM a\nRUN --mount=type=cache,taget=/x y", "ST116"),
        ("mount key without value", "FROM a\nRUN --mount=type=cache,target y", "ST116"),
        ("mount key of another type", "FROM a\nRUN --mount=type=bind,target=/x,size=1 y", "ST116"),
        ("sharing of a bind", "FROM a\nRUN --mount=target=/x,sharing=locked y", "ST116"),
        ("bad sharing", "FROM a\nRUN --mount=type=cache,target=/x,sharing=mine y", "ST116"),
        ("bad mode", "FROM a\nRUN --mount=type=cache,target=/x,mode=9 y", "ST116"),
        ("bad uid", "FROM a\nRUN --mount=type=cache,target=/x,uid=me y", "ST116"),
        ("bad boolean", "FROM a\nRUN --mount=target=/x,ro=maybe y", "ST116"),
        ("secret without name", "FROM a\nRUN --mount=type=secret y", "ST116"),
        ("secret from", "FROM a\nRUN --mount=type=secret,id=x,from=y z", "ST116"),
        ("from a variable", "FROM a\nRUN --mount=from=$x,target=/x y", "ST116"),
        ("type a variable", "FROM a\nRUN --mount=type=$x,target=/x y", "ST116"),
        ("bad quotes", "FROM a\nRUN --mount=type=bind,a\\\"b,target=/x y", "ST116"),
    ]);
}

fn first(text: &str) -> Diagnostic {
    parse(text).expect_err("the text has a mistake").remove(0)
}

#[test]
fn the_nearest_name_is_offered() {
    for (text, label) in [
        ("FROM a\nRUNN x", "did you mean `RUN`?"),
        ("FORM a", "did you mean `FROM`?"),
        ("FROM a\nENTRYPIONT x", "did you mean `ENTRYPOINT`?"),
        ("FROM a\nCOPY --form=x y z", "did you mean `--from`?"),
        ("FROM a\nCOPY --chwon=x y z", "did you mean `--chown`?"),
        ("FROM a\nRUN --netwrok=x y", "did you mean `--network`?"),
        ("FROM a\nRUN --network=nnoe y", "did you mean `none`?"),
        ("FROM a\nRUN --mount=type=cahce,target=/x y", "did you mean `cache`?"),
        ("FROM a\nRUN --mount=type=cache,taget=/x y", "did you mean `target`?"),
    ] {
        assert_eq!(first(text).label.as_deref(), Some(label), "{text}");
    }
    let other = first("FROM a\nADD --from=x y z");
    assert_eq!(other.notes, ["COPY has such a flag"]);
    assert_eq!(first("FROM a\nUSER --x y").help.as_deref(), Some("USER takes no flags"));
}

#[test]
fn broken_json_is_a_warning() {
    for text in ["CMD ['a']", "CMD [\"a\",]", "ENTRYPOINT [ 'a', 'b' ]", "COPY ['a', 'b']", "CMD [“a”]"] {
        let parsed = parse_with_warnings(&format!("FROM a\n{text}")).expect("docker takes it as text");
        let codes: Vec<_> = parsed.warnings.iter().map(|warning| (warning.severity, warning.code)).collect();
        assert_eq!(codes, [(Severity::Warning, "ST117")], "{text}");
    }
    for text in ["RUN [ -f x ]", "RUN [ \"$a\" = b ] && c", "CMD [\"a\"]"] {
        let parsed = parse_with_warnings(&format!("FROM a\n{text}")).expect("it is right");
        assert_eq!(parsed.warnings, [], "{text}");
    }
}

#[test]
fn triggers_of_base_images() {
    let instruction = parse_trigger("COPY . /app").expect("a trigger");
    assert_eq!(instruction.text, "COPY . /app");
    assert!(parse_trigger("RUN <<E\nx\nE").is_ok());
    for text in ["", "FROM x", "ONBUILD RUN x", "MAINTAINER x", "RUN a\nRUN b", "COPY x", "NOPE"] {
        assert!(parse_trigger(text).is_err(), "{text}");
    }
}
