//! What a Dockerfile says, as values. Text is kept unexpanded: variables are the builder's business.

use std::ops::Range;

/// Byte range in the Dockerfile's text.
pub type Span = Range<usize>;

/// A word as written (quotes, escapes and `$VAR` untouched), with its place.
/// [`crate::expand`] turns it into its value.
///
/// Two kinds of words have been unwrapped once already, as BuildKit does before it expands them: values of `--flags`
/// (quotes and `\` removed), and strings of a JSON array (decoded). Expand them all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The text as written.
    pub raw: String,
    /// Where it stands.
    pub span: Span,
}

/// A whole Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// Parser directives at the top.
    pub directives: Directives,
    /// `ARG`s before the first `FROM`; their scope is the `FROM` lines, and stages that redeclare them.
    pub global_args: Vec<ArgDecl>,
    /// The build stages in order; never empty.
    pub stages: Vec<Stage>,
}

/// `# syntax=`, `# escape=`, `# check=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives {
    /// The named front end, which is ignored with a note.
    pub syntax: Option<Word>,
    /// `\` unless the file says `` ` ``.
    pub escape: char,
    /// Raw value of `# check=`.
    pub check: Option<Word>,
}

/// `FROM` and the instructions up to the next `FROM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The whole `FROM` line.
    pub span: Span,
    /// Its source text (continuations joined as docker shows it in history).
    pub text: String,
    /// Image, stage name or `scratch`, unexpanded.
    pub base: Word,
    /// `--platform`.
    pub platform: Option<Word>,
    /// `AS name`, lower-cased as BuildKit does.
    pub name: Option<Word>,
    /// What a comment right above says of it (`# name text`).
    pub description: Option<String>,
    /// What follows.
    pub instructions: Vec<Instruction>,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The whole instruction with continuation lines and heredocs.
    pub span: Span,
    /// Source text on one line: continuations joined, comments removed; for history and progress.
    pub text: String,
    /// What it is.
    pub kind: InstructionKind,
}

/// The instructions of the Dockerfile reference, `FROM` excepted (see [`Stage`]).
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the instruction of that name")]
pub enum InstructionKind {
    Add(CopyLike),
    Arg(Vec<ArgDecl>),
    Cmd(Command),
    Copy(CopyLike),
    Entrypoint(Command),
    Env(Vec<(Word, Word)>),
    Expose(Vec<Word>),
    Healthcheck(Healthcheck),
    Label(Vec<(Word, Word)>),
    Maintainer(Word),
    /// The trigger's text as it is stored in the image, and the same parsed.
    Onbuild {
        trigger: String,
        instruction: Box<Instruction>,
    },
    Run(Run),
    Shell(Vec<String>),
    Stopsignal(Word),
    User(Word),
    Volume(Vec<Word>),
    Workdir(Word),
}

/// One `NAME[=default]` of an `ARG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgDecl {
    /// The name.
    pub name: Word,
    /// The default, unexpanded.
    pub default: Option<Word>,
    /// What a comment right above says of it (`# name text`).
    pub description: Option<String>,
}

/// Shell form or exec form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Text for the stage's `SHELL`; the shell expands variables, not we.
    Shell(String),
    /// A JSON array, taken as it is.
    Exec(Vec<String>),
}

/// A heredoc: `<<EOF`, `<<-EOF`, `<<"EOF"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter; for COPY and ADD it is also the file's name.
    pub name: String,
    /// The text, tabs stripped already for `<<-`.
    pub content: String,
    /// Whether variables are expanded (the delimiter is unquoted).
    pub expand: bool,
    /// Where the content stands.
    pub span: Span,
}

/// `RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What to run. For `RUN <<EOF` alone this is the heredoc's own text (see `script`).
    pub command: Command,
    /// Set when the whole command is one heredoc: a script, run by the shell or by its `#!` line.
    pub script: Option<Heredoc>,
    /// Heredocs within a shell command (`RUN cat <<EOF > /x`); `command` holds the full text for the shell.
    pub heredocs: Vec<Heredoc>,
    /// `--mount=…`, in order.
    pub mounts: Vec<RunMount>,
    /// `--network=default|none|host`.
    pub network: Option<Word>,
    /// `--security=sandbox|insecure`.
    pub security: Option<Word>,
    /// `--device=…`.
    pub devices: Vec<Word>,
}

/// `RUN --mount=type=…`; options kept as written, in order, unexpanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunMount {
    /// The whole flag.
    pub span: Span,
    /// Kind of mount.
    pub kind: MountKind,
    /// Options other than `type`: `(key, value)`; a bare flag has no value.
    pub options: Vec<(Word, Option<Word>)>,
}

/// `type=` of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the reference's mount type of that name")]
pub enum MountKind {
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

/// `COPY` and `ADD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyLike {
    /// Sources as written; heredoc sources are in `heredocs` and not here.
    pub sources: Vec<Word>,
    /// Files given inline.
    pub heredocs: Vec<Heredoc>,
    /// The destination.
    pub dest: Word,
    /// `--from` (COPY only).
    pub from: Option<Word>,
    /// `--chown`.
    pub chown: Option<Word>,
    /// `--chmod`.
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: bool,
    /// `--parents` (COPY only).
    pub parents: bool,
    /// `--exclude`, repeated.
    pub exclude: Vec<Word>,
    /// `--checksum` (ADD only).
    pub checksum: Option<Word>,
    /// `--keep-git-dir` (ADD only).
    pub keep_git_dir: bool,
    /// `--unpack` (ADD only); docker's default depends on the source.
    pub unpack: Option<bool>,
}

/// `HEALTHCHECK`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a file has one, so its size does not matter")]
pub enum Healthcheck {
    /// `HEALTHCHECK NONE`.
    None,
    /// `HEALTHCHECK [OPTIONS] CMD …`; durations unexpanded.
    #[expect(missing_docs, reason = "named as the options are")]
    Cmd {
        interval: Option<Word>,
        timeout: Option<Word>,
        start_period: Option<Word>,
        start_interval: Option<Word>,
        retries: Option<Word>,
        command: Command,
    },
}
