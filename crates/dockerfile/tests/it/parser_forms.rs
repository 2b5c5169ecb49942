//! What is read, and as what.

use crate::dump::check;

#[test]
fn lines_comments_and_continuations() {
    check(&[
        ("smallest", "FROM scratch", "FROM scratch"),
        ("lower and mixed case", "from scratch\nRuN x", "FROM scratch; RUN sh(x)"),
        ("leading blanks", "  FROM a\n\t RUN b", "FROM a; RUN sh(b)"),
        ("trailing blanks", "FROM a  \nRUN b \t", "FROM a; RUN sh(b)"),
        ("tabs between", "FROM\ta\nRUN\t\tb", "FROM a; RUN sh(b)"),
        ("CRLF", "FROM a\r\nRUN b \\\r\n  c\r\nCMD d\r\n", "FROM a; RUN sh(b   c); CMD sh(d)"),
        ("BOM", "\u{feff}FROM a", "FROM a"),
        ("BOM before a directive", "\u{feff}# escape=`\nFROM a\nRUN b `\nc", "FROM a; RUN sh(b c)"),
        ("comments and blank lines", "# x\n\nFROM a\n # y\n\n#z\nRUN b\n", "FROM a; RUN sh(b)"),
        ("no comment behind an instruction", "FROM a\nRUN b # c", "FROM a; RUN sh(b # c)"),
        ("continuation keeps the blanks of the next line", "FROM a\nRUN b \\\n    c", "FROM a; RUN sh(b     c)"),
        ("continuation joins words", "FROM a\nRUN b\\\nc", "FROM a; RUN sh(bc)"),
        ("blanks behind the escape", "FROM a\nRUN b \\ \t\n c", "FROM a; RUN sh(b  c)"),
        ("comment inside", "FROM a\nRUN b \\\n# no\n  # no\n c", "FROM a; RUN sh(b  c)"),
        ("comment with an escape at its end inside", "FROM a\nRUN b \\\n# no \\\n c", "FROM a; RUN sh(b  c)"),
        ("blank line inside", "FROM a\nRUN b \\\n\n c", "FROM a; RUN sh(b  c)"),
        ("blank and comment inside", "FROM a\nRUN b \\\n\n# no\n\n c \\\n d", "FROM a; RUN sh(b  c  d)"),
        ("continuation at the end of the file", "FROM a\nRUN b \\", "FROM a; RUN sh(b)"),
        ("comment ends the file inside", "FROM a\nRUN b \\\n# c", "FROM a; RUN sh(b)"),
        ("doubled escape is none", "FROM a\nRUN echo a\\\\\nRUN b", "FROM a; RUN sh(echo a\\\\); RUN sh(b)"),
        ("doubled escape and blanks", "FROM a\nRUN echo a\\\\  \nRUN b", "FROM a; RUN sh(echo a\\\\); RUN sh(b)"),
        ("three escapes are none either", "FROM a\nRUN a\\\\\\\nRUN b", "FROM a; RUN sh(a\\\\\\); RUN sh(b)"),
        ("escape apart from a doubled one", "FROM a\nRUN a\\\\ \\\n b", "FROM a; RUN sh(a\\\\  b)"),
        ("escape alone on a line", "FROM a\nRUN b \\\n\\\n c", "FROM a; RUN sh(b  c)"),
        ("escape alone first", "\\\nFROM a", "FROM a"),
        ("keyword across lines", "FR\\\nOM a\nRU\\\nN b", "FROM a; RUN sh(b)"),
        ("hash inside a word", "FROM a\nRUN echo a#b", "FROM a; RUN sh(echo a#b)"),
        ("form feed splits", "FROM\u{c}a", "FROM a"),
        ("no newline at the end", "FROM a\nCMD b", "FROM a; CMD sh(b)"),
        ("not only ASCII", "FROM a\nRUN écho ü \\\n ☃", "FROM a; RUN sh(écho ü  ☃)"),
    ]);
}

#[test]
fn parser_directives() {
    check(&[
        ("escape", "# escape=`\nFROM a\nRUN b `\n c", "FROM a; RUN sh(b  c)"),
        ("escape without blanks", "#escape=`\nFROM a\nRUN b `\n c", "FROM a; RUN sh(b  c)"),
        ("escape with many blanks", " #  EsCaPe =  ` \nFROM a\nRUN b `\n c", "FROM a; RUN sh(b  c)"),
        (
            "backslash is ordinary then",
            "# escape=`\nFROM a\nRUN dir c:\\\nRUN b",
            "FROM a; RUN sh(dir c:\\); RUN sh(b)",
        ),
        ("after syntax", "# syntax=docker/dockerfile:1\n# escape=`\nFROM a\nRUN b `\n c", "FROM a; RUN sh(b  c)"),
        ("after a comment it is one", "# hello\n# escape=`\nFROM a\nRUN b `\nRUN c", "FROM a; RUN sh(b `); RUN sh(c)"),
        ("after a blank line it is a comment", "\n# escape=`\nFROM a\nRUN b `", "FROM a; RUN sh(b `)"),
        ("after an unknown one it is a comment", "# x=y\n# escape=`\nFROM a\nRUN b `", "FROM a; RUN sh(b `)"),
        ("after an instruction it is a comment", "FROM a\n# escape=`\nRUN b `", "FROM a; RUN sh(b `)"),
        ("a doubled one of the other kind", "# escape=`\nFROM a\nRUN b ``\nRUN c", "FROM a; RUN sh(b ``); RUN sh(c)"),
        ("check", "# check=skip=all\nFROM a", "FROM a"),
        ("without value it is a comment", "# escape=\n# escape=`\nFROM a\nRUN b `", "FROM a; RUN sh(b `)"),
        ("twice", "# escape=`\n# escape=`\nFROM a", "ST110"),
        ("syntax twice", "# syntax=a\n# syntax=b\nFROM a", "ST110"),
        ("bad escape", "# escape=x\nFROM a", "ST110"),
        ("bad escape of two", "# escape=\\\\\nFROM a", "ST110"),
    ]);
}

#[test]
fn from_and_arg() {
    check(&[
        ("as", "FROM a AS b", "FROM a as=b"),
        ("as in lower case", "FROM a as Build-1.x_Y", "FROM a as=build-1.x_y"),
        ("platform", "FROM --platform=$BUILDPLATFORM a AS b", "FROM a platform=$BUILDPLATFORM as=b"),
        ("variable", "ARG V=1\nFROM a:$V", "ARG V=1; FROM a:$V"),
        ("several stages", "FROM a AS x\nRUN 1\nFROM x\nRUN 2", "FROM a as=x; RUN sh(1); FROM x; RUN sh(2)"),
        ("several arguments", "FROM a\nARG a b=1 c=\"x y\" d=", "FROM a; ARG a b=1 c=\"x y\" d="),
        ("global ones", "ARG a b=2\nARG c\nFROM a", "ARG a; ARG b=2; ARG c; FROM a"),
        ("quotes stay", "FROM a\nARG a='$x y'", "FROM a; ARG a='$x y'"),
        ("equals in the value", "FROM a\nARG a=b=c", "FROM a; ARG a=b=c"),
        ("digest", "FROM a@sha256:0123 AS b", "FROM a@sha256:0123 as=b"),
        ("double dash ends flags", "FROM -- a", "FROM a"),
        ("quoted flag value", "FROM --platform=\"linux/amd64\" a", "FROM a platform=linux/amd64"),
        ("quoted flag", "FROM '--platform=x' a", "ST108"),
    ]);
}

#[test]
fn env_and_label() {
    check(&[
        ("one", "FROM a\nENV A=1", "FROM a; ENV (A)=(1)"),
        ("several", "FROM a\nENV A=1 B=2", "FROM a; ENV (A)=(1) (B)=(2)"),
        ("quotes", "FROM a\nENV A=\"x y\" B='z w'", "FROM a; ENV (A)=(\"x y\") (B)=('z w')"),
        ("escaped blank", "FROM a\nENV A=x\\ y B=1", "FROM a; ENV (A)=(x\\ y) (B)=(1)"),
        ("escaped quote", "FROM a\nENV A=\"x\\\" y\" B=1", "FROM a; ENV (A)=(\"x\\\" y\") (B)=(1)"),
        ("no escape in single quotes", "FROM a\nENV A='x\\' B=1", "FROM a; ENV (A)=('x\\') (B)=(1)"),
        ("empty value", "FROM a\nENV A= B=", "FROM a; ENV (A)=() (B)=()"),
        ("equals in the value", "FROM a\nENV A=b=c", "FROM a; ENV (A)=(b=c)"),
        ("legacy", "FROM a\nENV A b  c", "FROM a; ENV (A)=(b  c)"),
        ("legacy with equals later", "FROM a\nENV A b=c", "FROM a; ENV (A)=(b=c)"),
        ("legacy with quotes", "FROM a\nENV A \"b c\"", "FROM a; ENV (A)=(\"b c\")"),
        ("over lines", "FROM a\nENV A=1 \\\n # no\n B=2", "FROM a; ENV (A)=(1) (B)=(2)"),
        ("backtick escape", "# escape=`\nFROM a\nENV A=x` y P=c:\\", "FROM a; ENV (A)=(x` y) (P)=(c:\\)"),
        ("open quote reaches the end", "FROM a\nENV A=\"x y", "FROM a; ENV (A)=(\"x y)"),
        ("label", "FROM a\nLABEL a.b=\"c d\" e=f", "FROM a; LABEL (a.b)=(\"c d\") (e)=(f)"),
        ("quoted label name", "FROM a\nLABEL \"a b\"=c", "FROM a; LABEL (\"a b\")=(c)"),
        ("legacy label", "FROM a\nLABEL a b c", "FROM a; LABEL (a)=(b c)"),
    ]);
}

#[test]
fn exec_and_shell_forms() {
    check(&[
        ("exec", "FROM a\nCMD [\"a\", \"b c\"]", "FROM a; CMD [\"a\", \"b c\"]"),
        ("exec over lines", "FROM a\nCMD [ \"a\", \\\n \"b\" ]", "FROM a; CMD [\"a\", \"b\"]"),
        (
            "escapes in JSON",
            r#"FROM a
CMD ["\u0041\t\"\\\/", "\ud83d\ude00"]"#,
            "FROM a; CMD [\"A\\t\\\"\\\\/\", \"😀\"]",
        ),
        ("empty exec", "FROM a\nCMD []", "FROM a; CMD []"),
        ("empty entrypoint", "FROM a\nENTRYPOINT []", "FROM a; ENTRYPOINT []"),
        ("no arguments", "FROM a\nCMD", "FROM a; CMD sh()"),
        ("single quotes are no JSON", "FROM a\nCMD ['a']", "FROM a; CMD sh(['a'])"),
        ("trailing comma is no JSON", "FROM a\nCMD [\"a\",]", "FROM a; CMD sh([\"a\",])"),
        ("text behind is no JSON", "FROM a\nCMD [\"a\"] b", "FROM a; CMD sh([\"a\"] b)"),
        ("bad escape is no JSON", "FROM a\nCMD [\"a\\x\"]", "FROM a; CMD sh([\"a\\x\"])"),
        ("test command", "FROM a\nRUN [ -f /x ] && y", "FROM a; RUN sh([ -f /x ] && y)"),
        ("run exec", "FROM a\nRUN [\"a\",\"<<EOF\"]", "FROM a; RUN [\"a\", \"<<EOF\"]"),
        ("numbers", "FROM a\nCMD [\"a\", 1]", "ST113"),
        ("nested", "FROM a\nRUN [[\"a\"]]", "ST113"),
        ("bare word is no JSON", "FROM a\nCMD [a]", "FROM a; CMD sh([a])"),
        ("objects", "FROM a\nCMD [{\"a\": [1, null, -1.5e3]}]", "ST113"),
        ("shell", "FROM a\nSHELL [\"/bin/bash\", \"-c\"]", "FROM a; SHELL [\"/bin/bash\", \"-c\"]"),
        ("shell form of shell", "FROM a\nSHELL /bin/bash -c", "ST113"),
        ("empty shell", "FROM a\nSHELL []", "ST108"),
        ("volume as list", "FROM a\nVOLUME /a /b", "FROM a; VOLUME (/a) (/b)"),
        ("volume as JSON", "FROM a\nVOLUME [\"/a b\", \"/c\"]", "FROM a; VOLUME (/a b) (/c)"),
        ("empty volume", "FROM a\nVOLUME [\"\"]", "ST108"),
        ("volume without", "FROM a\nVOLUME []", "ST108"),
    ]);
}

#[test]
fn copy_and_add() {
    check(&[
        ("copy", "FROM a\nCOPY x y /z/", "FROM a; COPY (x) (y) -> (/z/)"),
        ("JSON", "FROM a\nCOPY [\"x y\", \"/z\"]", "FROM a; COPY (x y) -> (/z)"),
        ("quotes do not join", "FROM a\nCOPY \"x y\" /z", "FROM a; COPY (\"x) (y\") -> (/z)"),
        (
            "flags",
            "FROM a\nCOPY --from=b --chown=1:2 --chmod=755 --link --parents --exclude=*.md --exclude=d x /y",
            "FROM a; COPY (x) -> (/y) from=b chown=1:2 chmod=755 link parents exclude=*.md exclude=d",
        ),
        (
            "flags of add",
            "FROM a\nADD --checksum=sha256:0 --keep-git-dir=true --unpack=false --link=false https://x /y",
            "FROM a; ADD (https://x) -> (/y) checksum=sha256:0 keep-git-dir unpack=false",
        ),
        ("unpack", "FROM a\nADD --unpack x /y", "FROM a; ADD (x) -> (/y) unpack=true"),
        ("booleans ignore case", "FROM a\nCOPY --link=TRUE x /y", "FROM a; COPY (x) -> (/y) link"),
        ("flags over lines", "FROM a\nCOPY --from=b \\\n --link \\\n x /y", "FROM a; COPY (x) -> (/y) from=b link"),
        ("flag behind is a source", "FROM a\nCOPY x --link /y", "FROM a; COPY (x) (--link) -> (/y)"),
        ("double dash", "FROM a\nCOPY -- --x /y", "FROM a; COPY (--x) -> (/y)"),
        ("quoted flag value", "FROM a\nCOPY --chown='a b' x /y", "FROM a; COPY (x) -> (/y) chown=a b"),
        ("escaped flag value", "FROM a\nCOPY --chown=a\\ b x /y", "FROM a; COPY (x) -> (/y) chown=a b"),
        ("variable", "FROM a\nCOPY --chown=$U:${G:-x} $S /y", "FROM a; COPY ($S) -> (/y) chown=$U:${G:-x}"),
    ]);
}

#[test]
fn heredocs() {
    check(&[
        (
            "script",
            "FROM a\nRUN <<EOF\nx\n y\nEOF\nCMD z",
            "FROM a; RUN sh(x\n y\n) script <EOF: \"x\\n y\\n\">; CMD sh(z)",
        ),
        ("empty", "FROM a\nRUN <<EOF\nEOF", "FROM a; RUN sh() script <EOF: \"\">"),
        ("blank between", "FROM a\nRUN << EOF\nx\nEOF", "FROM a; RUN sh(x\n) script <EOF: \"x\\n\">"),
        ("quoted", "FROM a\nRUN <<'E F'\n$x\nE F", "FROM a; RUN sh($x\n) script <E F raw: \"$x\\n\">"),
        ("double quoted", "FROM a\nRUN <<\"E\"\nx\nE", "FROM a; RUN sh(x\n) script <E raw: \"x\\n\">"),
        ("partly quoted", "FROM a\nRUN <<E\"O\"F\nx\nEOF", "FROM a; RUN sh(x\n) script <EOF raw: \"x\\n\">"),
        ("tabs", "FROM a\nRUN <<-EOF\n\tx\n\t\ty\n\tEOF", "FROM a; RUN sh(x\ny\n) script <EOF: \"x\\ny\\n\">"),
        ("tabs stay without dash", "FROM a\nRUN <<EOF\n\tx\nEOF", "FROM a; RUN sh(\tx\n) script <EOF: \"\\tx\\n\">"),
        ("descriptor", "FROM a\nRUN 3<<EOF\nx\nEOF", "FROM a; RUN sh(x\n) script <EOF: \"x\\n\">"),
        ("to a file", "FROM a\nRUN cat <<EOF > /x\ny\nEOF", "FROM a; RUN sh(cat <<EOF > /x\ny\nEOF) <EOF: \"y\\n\">"),
        (
            "first to a file",
            "FROM a\nRUN <<EOF cat > /x\ny\nEOF",
            "FROM a; RUN sh(<<EOF cat > /x\ny\nEOF) <EOF: \"y\\n\">",
        ),
        (
            "several",
            "FROM a\nRUN <<A cat && <<B cat\n1\nA\n2\nB\nRUN z",
            "FROM a; RUN sh(<<A cat && <<B cat\n1\nA\n2\nB) <A: \"1\\n\"> <B: \"2\\n\">; RUN sh(z)",
        ),
        (
            "the shell strips tabs itself",
            "FROM a\nRUN cat <<-E >/x\n\ty\n\tE",
            "FROM a; RUN sh(cat <<-E >/x\n\ty\nE) <E: \"y\\n\">",
        ),
        (
            "comment and escape inside are text",
            "FROM a\nRUN <<E\n# x \\\ny\nE",
            "FROM a; RUN sh(# x \\\ny\n) script <E: \"# x \\\\\\ny\\n\">",
        ),
        ("end must be alone", "FROM a\nRUN <<E\nE \nEE\nE", "FROM a; RUN sh(E \nEE\n) script <E: \"E \\nEE\\n\">"),
        ("CRLF stays in the text", "FROM a\r\nRUN <<E\r\nx\r\nE\r\n", "FROM a; RUN sh(x\r\n) script <E: \"x\\r\\n\">"),
        ("in quotes it is none", "FROM a\nRUN echo \"<<EOF\"\nRUN b", "FROM a; RUN sh(echo \"<<EOF\"); RUN sh(b)"),
        ("here string is none", "FROM a\nRUN cat <<<EOF\nRUN b", "FROM a; RUN sh(cat <<<EOF); RUN sh(b)"),
        ("shift is no heredoc", "FROM a\nRUN echo $((1<<2))\nRUN b", "FROM a; RUN sh(echo $((1<<2))); RUN sh(b)"),
        ("variable as its name", "FROM a\nRUN <<$E\nx\n$E", "FROM a; RUN sh(x\n) script <$E: \"x\\n\">"),
        (
            "with a flag",
            "FROM a\nRUN --network=none <<E\nx\nE",
            "FROM a; RUN sh(x\n) network=none script <E: \"x\\n\">",
        ),
        ("continued line", "FROM a\nRUN <<E cat \\\n > /x\ny\nE", "FROM a; RUN sh(<<E cat  > /x\ny\nE) <E: \"y\\n\">"),
        ("copy", "FROM a\nCOPY <<f /x\ny\nf", "FROM a; COPY <f: \"y\\n\"> -> (/x)"),
        ("copy raw", "FROM a\nCOPY <<\"f\" /x\n$y\nf", "FROM a; COPY <f raw: \"$y\\n\"> -> (/x)"),
        ("copy with tabs", "FROM a\nCOPY <<-f /x\n\ty\n\tf", "FROM a; COPY <f: \"y\\n\"> -> (/x)"),
        (
            "copy several",
            "FROM a\nCOPY <<f z <<g /x/\n1\nf\n2\ng",
            "FROM a; COPY (z) <f: \"1\\n\"> <g: \"2\\n\"> -> (/x/)",
        ),
        ("add", "FROM a\nADD <<f /x\ny\nf", "FROM a; ADD <f: \"y\\n\"> -> (/x)"),
        ("env has none", "FROM a\nENV A=<<EOF\nRUN b", "FROM a; ENV (A)=(<<EOF); RUN sh(b)"),
        (
            "onbuild",
            "FROM a\nONBUILD RUN <<E\nx\nE\nRUN b",
            "FROM a; ONBUILD \"RUN <<E\\nx\\nE\" = RUN sh(x\n) script <E: \"x\\n\">; RUN sh(b)",
        ),
        (
            "onbuild copy",
            "FROM a\nONBUILD COPY <<f /y\nx\nf",
            "FROM a; ONBUILD \"COPY <<f /y\\nx\\nf\" = COPY <f: \"x\\n\"> -> (/y)",
        ),
    ]);
}

#[test]
fn run_flags() {
    check(&[
        (
            "cache",
            "FROM a\nRUN --mount=type=cache,target=/x,sharing=locked,id=y z",
            "FROM a; RUN mount:cache,target=/x,sharing=locked,id=y sh(z)",
        ),
        ("bind is the default", "FROM a\nRUN --mount=target=/x,ro z", "FROM a; RUN mount:bind,target=/x,ro sh(z)"),
        (
            "two",
            "FROM a\nRUN --mount=type=secret,id=k,required=true --mount=type=ssh z",
            "FROM a; RUN mount:secret,id=k,required=true mount:ssh sh(z)",
        ),
        ("tmpfs", "FROM a\nRUN --mount=type=tmpfs,dst=/t,size=64m z", "FROM a; RUN mount:tmpfs,dst=/t,size=64m sh(z)"),
        (
            "from",
            "FROM a\nRUN --mount=from=b,source=/s,dst=/t,rw z",
            "FROM a; RUN mount:bind,from=b,source=/s,dst=/t,rw sh(z)",
        ),
        (
            "variable value",
            "FROM a\nRUN --mount=type=cache,target=$X,uid=$U z",
            "FROM a; RUN mount:cache,target=$X,uid=$U sh(z)",
        ),
        ("upper case", "FROM a\nRUN --mount=TYPE=Cache,Target=/X z", "FROM a; RUN mount:cache,target=/X sh(z)"),
        (
            "quoted field",
            "FROM a\nRUN --mount=type=bind,\\\"source=a,b\\\",target=/x z",
            "FROM a; RUN mount:bind,source=a,b,target=/x sh(z)",
        ),
        (
            "over lines",
            "FROM a\nRUN --mount=type=ssh \\\n --network=host \\\n z",
            "FROM a; RUN mount:ssh sh(z) network=host",
        ),
        ("security", "FROM a\nRUN --security=insecure z", "FROM a; RUN sh(z) security=insecure"),
        ("device", "FROM a\nRUN --device=vendor/x=all --device=y z", "FROM a; RUN sh(z) device=vendor/x=all device=y"),
        ("exec form", "FROM a\nRUN --network=none [\"z\"]", "FROM a; RUN [\"z\"] network=none"),
        ("flag of the command", "FROM a\nRUN z --network=x", "FROM a; RUN sh(z --network=x)"),
        ("nothing", "FROM a\nRUN", "FROM a; RUN sh()"),
    ]);
}

#[test]
fn the_rest() {
    check(&[
        ("workdir with blanks", "FROM a\nWORKDIR /a b", "FROM a; WORKDIR (/a b)"),
        ("user", "FROM a\nUSER $U:g", "FROM a; USER ($U:g)"),
        ("stopsignal", "FROM a\nSTOPSIGNAL SIGKILL", "FROM a; STOPSIGNAL (SIGKILL)"),
        ("maintainer", "FROM a\nMAINTAINER A B <a@b>", "FROM a; MAINTAINER (A B <a@b>)"),
        ("expose", "FROM a\nEXPOSE 80 443/tcp $P", "FROM a; EXPOSE (80) (443/tcp) ($P)"),
        ("onbuild", "FROM a\nONBUILD   copy . /x", "FROM a; ONBUILD \"copy . /x\" = COPY (.) -> (/x)"),
        ("no healthcheck", "FROM a\nHEALTHCHECK NONE", "FROM a; HEALTHCHECK NONE"),
        ("healthcheck", "FROM a\nHEALTHCHECK CMD curl x || exit 1", "FROM a; HEALTHCHECK sh(curl x || exit 1)"),
        ("exec healthcheck", "FROM a\nHEALTHCHECK cmd [\"x\"]", "FROM a; HEALTHCHECK [\"x\"]"),
        (
            "healthcheck flags",
            "FROM a\nHEALTHCHECK --interval=5s --timeout=1m30s --start-period=0 --start-interval=500ms --retries=2 \\\n CMD x",
            "FROM a; HEALTHCHECK sh(x) interval=5s timeout=1m30s start-period=0 start-interval=500ms retries=2",
        ),
        ("empty flag means default", "FROM a\nHEALTHCHECK --interval= CMD x", "FROM a; HEALTHCHECK sh(x)"),
    ]);
}
