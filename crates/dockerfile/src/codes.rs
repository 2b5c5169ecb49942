//! Every error code with its long explanation, for `seatrial explain CODE`.
//!
//! Codes are stable: a number is never given a second meaning. Build checks have their own table,
//! [`crate::lint::RULES`].

pub mod examples;
pub mod rules;

/// `(code, title, long explanation)`, ascending.
pub const ALL: &[(&str, &str, &str)] = &[
    (
        "ST101",
        "nothing to build",
        "The Dockerfile holds no instruction, or no FROM. The smallest Dockerfile is `FROM scratch` followed by one \
         instruction that puts something into the image.",
    ),
    (
        "ST102",
        "unknown instruction",
        "A line begins with a word that is no Dockerfile instruction. Often a continuation character `\\` is missing \
         at the end of the line above, so that the rest of a command is read as an instruction of its own.",
    ),
    (
        "ST103",
        "instruction before FROM",
        "Only ARG, comments and parser directives may stand before the first FROM: there is no stage yet that the \
         instruction could change.",
    ),
    (
        "ST104",
        "source is not in the build context",
        "COPY and ADD take files from the build context: the directory given to the build, without what \
         `.dockerignore` leaves out. Sources are relative to its root; `..` and a leading `/` do not lead out of it. \
         Check the spelling and letter case, whether the file is generated later, and whether a pattern in \
         `.dockerignore` hides it (a later `!pattern` takes it back).",
    ),
    (
        "ST105",
        "unknown flag",
        "The instruction has no flag of this name. Flags stand between the instruction and its arguments and are \
         written `--name=value`. Everything that begins with `--` there is read as a flag; `--` alone ends the flags.",
    ),
    (
        "ST106",
        "flag given twice",
        "The flag may be given once. Only `--mount`, `--device` and `--exclude` may be repeated.",
    ),
    (
        "ST107",
        "invalid flag value",
        "The flag needs a value (`--name=value`, no blank around `=`) and takes only the values named in the message. \
         Switches such as `--link` take `true` or `false`, or no value at all, which means `true`.",
    ),
    ("ST108", "wrong arguments", "The instruction got too few or too many arguments; the message says what it takes."),
    (
        "ST109",
        "heredoc error",
        "A heredoc begins with `<<NAME` and ends with a line that is NAME and nothing else (`<<-NAME` allows tabs \
         before it). In COPY and ADD the name stands directly behind `<<` and is a source, never the destination.",
    ),
    (
        "ST110",
        "parser directive error",
        "Parser directives (`# syntax=`, `# escape=`, `# check=`) stand at the very top, each at most once. `escape` \
         is a backslash or a backtick. `check` takes `skip=RULE,…` or `skip=all`, and `error=true`, joined with `;`; the \
         latter makes findings of BuildKit's checks errors, and leaves our own what they are.",
    ),
    (
        "ST111",
        "invalid stage name",
        "A stage name begins with a letter and continues with letters, digits, `-`, `_` and `.`. Letter case is \
         ignored.",
    ),
    (
        "ST112",
        "not allowed in ONBUILD",
        "ONBUILD stores an instruction for images built on this one. ONBUILD itself, FROM and MAINTAINER cannot be \
         stored.",
    ),
    (
        "ST113",
        "invalid exec form",
        "The exec form is a JSON array of strings in double quotes: `[\"program\", \"argument\"]`. Numbers have to be \
         quoted too. SHELL accepts only this form.",
    ),
    (
        "ST114",
        "invalid name=value",
        "ENV and LABEL take `name=value` pairs, with quotes or escapes around blanks: `ENV A=1 B=\"two words\"`. ARG \
         takes `name` or `name=default`. The name may not be empty.",
    ),
    (
        "ST115",
        "invalid HEALTHCHECK",
        "Either `HEALTHCHECK NONE`, or `HEALTHCHECK [--interval=30s] [--timeout=30s] [--start-period=0s] \
         [--start-interval=5s] [--retries=3] CMD command`. Durations are written like `90s`, `1m30s` or `500ms` and \
         are at least 1ms; 0 means the default.",
    ),
    (
        "ST116",
        "invalid RUN --mount",
        "A mount is `--mount=type=bind|cache|tmpfs|secret|ssh,key=value,…`. Which keys are allowed depends on the \
         type; see the Dockerfile reference.",
    ),
    (
        "ST117",
        "looks like an exec form",
        "The text begins like a JSON array but is none, so it is handed to the shell as it is, which is rarely meant. \
         JSON knows double quotes only, no comma before `]`, and a backslash is written twice.",
    ),
    (
        "ST118",
        "variable cannot be expanded",
        "Quotes or braces are not balanced, the modifier after the name is unknown, or `${name:?message}` found the \
         variable missing. Known are `:-`, `:+`, `:?`, `-`, `+`, `?`, `#`, `##`, `%`, `%%`, `/` and `//`. A literal \
         `$` is written `\\$`.",
    ),
    (
        "ST120",
        "stage not found",
        "`--target`, `COPY --from` or `RUN --mount=…,from=` names a stage that does not exist. Stages are named by \
         `FROM image AS name`, or numbered from 0.",
    ),
    ("ST121", "stage used before it is defined", "A stage can use only the stages above it. Move the used stage up."),
    (
        "ST122",
        "unknown base image",
        "The image after FROM (or in `--from`) is no stage of this file, not in the local store, and could not be \
         fetched from its registry. `seatrial base host` or `seatrial base debian:SUITE` make a base without a \
         registry, `seatrial load` takes one from a file, `--build-context NAME=oci-layout://PATH` from a directory.",
    ),
    (
        "ST123",
        "invalid value after expansion",
        "A value that holds a variable turned out not to be usable, such as a mode for `--chmod`, an owner for \
         `--chown`, a port for EXPOSE or a platform.",
    ),
    (
        "ST124",
        "undefined user or group",
        "USER, `--chown` or a mount names a user or group that `/etc/passwd` or `/etc/group` of the image does not \
         list. Create it before (RUN useradd …) or give a number.",
    ),
    (
        "ST125",
        "a step failed",
        "The command of a RUN instruction ended with another exit code than 0. The end of its output is shown; the \
         whole is in the log of the run.",
    ),
    (
        "ST126",
        "invalid .dockerignore pattern",
        "Patterns are those of Go's `filepath.Match`, with `**` for any number of directories: `*`, `?`, `[a-z]`, \
         `[^a]`, and `\\` before a special character. A class has to be closed and not empty, and `!` needs a pattern.",
    ),
    (
        "ST127",
        "not supported",
        "The Dockerfile asks for something that this program does not do; the message names it.",
    ),
    (
        "ST128",
        "source does not exist elsewhere",
        "ADD or a named context takes a file of the web or a Git repository, and what it names is not there: the server \
         says that it has no such file, or the repository has no such branch, tag, commit or directory. Check the address \
         for letters and versions; a reference stands behind `#`, a directory behind `#REFERENCE:`.",
    ),
    (
        "ST129",
        "checksum does not fit",
        "What was fetched is not what `--checksum` (or `checksum=` of a repository's address) promises: a file's digest is \
         `sha256:` and 64 hex digits, a repository's its commit. Either a new version was published under the same \
         address, or somebody exchanged it. The message says both; write the new one only if the change is meant.",
    ),
    (
        "ST130",
        "reserved name",
        "A layer says that a file of an earlier layer is gone by an empty file `.wh.NAME` beside it (image-spec, \
         \"Whiteouts\"), so no file of an image can have a name that begins with `.wh.`: it would delete another one. Give \
         it another name, leave it out by `.dockerignore`, or remove it in the RUN that makes it.",
    ),
    (
        "ST140",
        "a secret or key agent is missing",
        "`RUN --mount=type=secret,required=true` or `type=ssh,required=true` names something that the build was not \
         given. `--secret id=NAME,src=FILE` gives a file, `--secret id=NAME,env=VARIABLE` a variable, `--ssh NAME` the \
         running agent and `--ssh NAME=KEYFILE` a key. Without `required` the instruction runs without it.",
    ),
    (
        "ST141",
        "not allowed",
        "A RUN asks for more than builds have: `--network=host` where builds have a network of their own or none, or \
         `--security=insecure`. Whoever starts the build allows it with `--allow network.host` or \
         `--allow security.insecure`; the latter also has to be listed in the machine's own file of what is allowed, \
         `/etc/seatrial/allow` or `~/.config/seatrial/allow`, one name on a line.",
    ),
];

/// Title and explanation of a code; letter case is ignored.
pub fn explain(code: &str) -> Option<(&'static str, &'static str)> {
    ALL.iter().find(|(known, ..)| known.eq_ignore_ascii_case(code)).map(|&(_, title, text)| (title, text))
}
