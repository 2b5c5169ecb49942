//! One logical line to one instruction.

use super::flags::Flags;
use crate::syntax::words::{self, Command as Split};
use crate::syntax::{Comment, Piece, RawInstruction, heredoc};
use crate::{
    Command, CopyLike, Diagnostic, Healthcheck, Heredoc, Instruction, InstructionKind, Run, Stage, Word, nearest,
    parse_duration,
};

/// All instructions, upper case.
pub(crate) const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// The shortest time that HEALTHCHECK takes, except 0, which means the default (moby's `MinimumDuration`).
const HEALTHCHECK_TIME_MIN: std::time::Duration = std::time::Duration::from_millis(1);

/// What all instructions of a file share.
pub(crate) struct Context {
    pub(super) escape: char,
    pub(super) problems: Vec<Diagnostic>,
}

impl Context {
    pub(super) fn new(escape: char) -> Context {
        Context { escape, problems: Vec::new() }
    }

    pub(super) fn error(&mut self, diagnostic: Diagnostic) {
        self.problems.push(diagnostic);
    }

    /// Reads any instruction but FROM. Mistakes are noted; `None` if there is nothing left to go on with.
    pub(super) fn instruction(&mut self, line: &Piece<'_>, raw: &RawInstruction) -> Option<Instruction> {
        let split = words::split_command(line);
        let keyword = split.keyword.as_str().to_ascii_uppercase();
        let flags = Flags::check(&keyword, &split.flags, self);
        let kind = self.kind(&keyword, &split, &flags, raw)?;
        let start = line.trim().span().start;
        Some(Instruction { span: start..raw.span.end.max(start), text: line.as_str().trim().to_owned(), kind })
    }

    fn kind(
        &mut self,
        keyword: &str,
        split: &Split<'_>,
        flags: &Flags,
        raw: &RawInstruction,
    ) -> Option<InstructionKind> {
        let args = &split.args;
        Some(match keyword {
            "ADD" => InstructionKind::Add(self.copy_like(keyword, args, flags, raw)?),
            "ARG" => InstructionKind::Arg(self.declarations(args, &raw.comments)?),
            "CMD" => InstructionKind::Cmd(self.command(args)?),
            "COPY" => InstructionKind::Copy(self.copy_like(keyword, args, flags, raw)?),
            "ENTRYPOINT" => InstructionKind::Entrypoint(self.command(args)?),
            "ENV" => InstructionKind::Env(self.pairs(keyword, args)?),
            "EXPOSE" => {
                if args.is_empty() {
                    return self.missing(keyword, "at least one argument", args);
                }
                InstructionKind::Expose(words::split_blanks(args).iter().map(Piece::to_word).collect())
            }
            "HEALTHCHECK" => InstructionKind::Healthcheck(self.healthcheck(args, flags)?),
            "LABEL" => InstructionKind::Label(self.pairs(keyword, args)?),
            "MAINTAINER" => InstructionKind::Maintainer(self.one(keyword, args)?),
            "ONBUILD" => self.onbuild(split, raw)?,
            "RUN" => InstructionKind::Run(self.run(args, flags, raw)?),
            "SHELL" => InstructionKind::Shell(self.shell(args)?),
            "STOPSIGNAL" => InstructionKind::Stopsignal(self.one(keyword, args)?),
            "USER" => InstructionKind::User(self.one(keyword, args)?),
            "VOLUME" => InstructionKind::Volume(self.volumes(args)?),
            "WORKDIR" => InstructionKind::Workdir(self.one(keyword, args)?),
            _ => {
                self.error(super::unknown_instruction(&split.keyword.to_word()));
                return None;
            }
        })
    }

    /// `FROM [--platform=…] image [AS name]`
    pub(super) fn from(&mut self, raw: &RawInstruction, split: &Split<'_>) -> Option<Stage> {
        let flags = Flags::check("FROM", &split.flags, self);
        let args = words::split_blanks(&split.args);
        let name = match &args[..] {
            [_] => None,
            [_, keyword, name] if keyword.as_str().eq_ignore_ascii_case("as") => Some(self.stage_name(name)?),
            _ => {
                let diagnostic =
                    Diagnostic::error("ST108", "FROM needs `image` or `image AS name`").with_span(split.args.span());
                self.error(match args.get(1) {
                    Some(second) if args.len() == 3 => {
                        diagnostic.with_label(format!("`{}` should be AS", second.as_str()))
                    }
                    _ => diagnostic,
                });
                return None;
            }
        };
        Some(Stage {
            span: raw.span.clone(),
            text: raw.joined.all().as_str().trim().to_owned(),
            base: args[0].to_word(),
            platform: flags.value("platform"),
            description: name.as_ref().and_then(|name| description(&raw.comments, &name.raw)),
            name,
            instructions: Vec::new(),
        })
    }

    fn stage_name(&mut self, piece: &Piece<'_>) -> Option<Word> {
        let mut name = piece.to_word();
        name.raw = name.raw.to_lowercase();
        let is_valid = name.raw.starts_with(|ch: char| ch.is_ascii_lowercase())
            && name.raw.chars().all(|ch| ch.is_ascii_lowercase() || ch.is_ascii_digit() || "-_.".contains(ch));
        if is_valid {
            return Some(name);
        }
        self.error(
            Diagnostic::error("ST111", format!("`{}` cannot be the name of a stage", piece.as_str()))
                .with_span(name.span)
                .with_label("a letter, then letters, digits, `-`, `_`, `.`"),
        );
        None
    }

    fn copy_like(&mut self, keyword: &str, args: &Piece<'_>, flags: &Flags, raw: &RawInstruction) -> Option<CopyLike> {
        let list = self.list(args)?;
        let mut words = list.words;
        let needs = "at least one source and a destination";
        let Some(dest) = words.pop() else { return self.missing(keyword, needs, args) };
        if words.is_empty() {
            return self.missing(keyword, needs, args);
        }
        let mut sources = Vec::new();
        let mut heredocs = Vec::new();
        if list.is_json {
            sources = words;
        } else {
            if heredoc::parse(&dest.raw).is_some() {
                self.error(
                    Diagnostic::error("ST109", format!("{keyword} cannot take a heredoc as its destination"))
                        .with_span(dest.span),
                );
                return None;
            }
            for word in words {
                match heredoc::parse(&word.raw) {
                    // The line opened a heredoc, but blanks cut its name off.
                    None if word.raw.starts_with("<<") && !raw.heredocs.is_empty() => {
                        let message = "a heredoc's name follows `<<` directly and holds no blanks here";
                        self.error(Diagnostic::error("ST109", message).with_span(word.span));
                        return None;
                    }
                    None => sources.push(word),
                    Some(sign) => heredocs.extend(self.heredoc_source(&sign, raw)),
                }
            }
        }
        Some(CopyLike {
            sources,
            heredocs,
            dest,
            from: flags.value("from"),
            chown: flags.value("chown"),
            chmod: flags.value("chmod"),
            link: flags.switch("link").unwrap_or(false),
            parents: flags.switch("parents").unwrap_or(false),
            exclude: flags.values("exclude"),
            checksum: flags.value("checksum"),
            keep_git_dir: flags.switch("keep-git-dir").unwrap_or(false),
            unpack: flags.switch("unpack"),
        })
    }

    /// Of several heredocs with one name the last one's text counts, for all of them.
    fn heredoc_source(&self, sign: &heredoc::HeredocSign, raw: &RawInstruction) -> Option<Heredoc> {
        let body = raw.heredocs.iter().rfind(|body| body.sign.name == sign.name)?;
        let mut body = body.clone();
        body.sign = sign.clone();
        Some(body.to_heredoc())
    }

    fn run(&mut self, args: &Piece<'_>, flags: &Flags, raw: &RawInstruction) -> Option<Run> {
        let command = self.command(args)?;
        if command == Command::Exec(Vec::new()) {
            return self.missing("RUN", "a command", args);
        }
        let network = self.one_of(flags.value("network"), "network", &["default", "none", "host"])?;
        let security = self.one_of(flags.value("security"), "security", &["sandbox", "insecure"])?;
        let mut mounts = Vec::new();
        for (flag, value) in flags.letters("mount") {
            mounts.push(self.mount(flag, value)?);
        }
        let mut run = Run {
            command,
            script: None,
            heredocs: Vec::new(),
            mounts,
            network,
            security,
            devices: flags.values("device"),
        };
        if let (Command::Shell(text), [first, ..]) = (&mut run.command, &raw.heredocs[..]) {
            if heredoc::parse(text).is_some() {
                let script = first.to_heredoc();
                text.clone_from(&script.content);
                run.script = Some(script);
            } else {
                for body in &raw.heredocs {
                    // The shell reads the heredoc itself, tabs and all.
                    text.push('\n');
                    text.push_str(&body.raw);
                    text.push_str(&body.sign.name);
                }
                run.heredocs = raw.heredocs.iter().map(heredoc::RawHeredoc::to_heredoc).collect();
            }
        }
        Some(run)
    }

    /// Outer `None`: the value is wrong.
    fn one_of(&mut self, value: Option<Word>, flag: &str, known: &[&str]) -> Option<Option<Word>> {
        let Some(word) = value else { return Some(None) };
        if known.contains(&word.raw.as_str()) {
            return Some(Some(word));
        }
        let near = nearest(&word.raw, known.iter().copied());
        self.error(
            Diagnostic::error("ST107", format!("flag `--{flag}` does not take `{}`", word.raw))
                .with_span(word.span)
                .with_suggestion(near)
                .with_help(format!("it takes {}", known.join(" or "))),
        );
        None
    }

    fn healthcheck(&mut self, args: &Piece<'_>, flags: &Flags) -> Option<Healthcheck> {
        let text = args.as_str();
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let kind = args.sub(0..end);
        let rest = args.from(end).trim();
        match kind.as_str().to_ascii_uppercase().as_str() {
            "" => self.missing("HEALTHCHECK", "NONE, or CMD and a command", args),
            "NONE" if rest.is_empty() => Some(Healthcheck::None),
            "NONE" => {
                let message = "HEALTHCHECK NONE takes no arguments";
                self.error(Diagnostic::error("ST115", message).with_span(rest.span()));
                None
            }
            "CMD" => {
                let command = self.command(&rest)?;
                if rest.is_empty() || command == Command::Exec(Vec::new()) {
                    return self.missing("HEALTHCHECK CMD", "a command", &rest);
                }
                Some(Healthcheck::Cmd {
                    interval: self.time(flags, "interval")?,
                    timeout: self.time(flags, "timeout")?,
                    start_period: self.time(flags, "start-period")?,
                    start_interval: self.time(flags, "start-interval")?,
                    retries: self.retries(flags)?,
                    command,
                })
            }
            other => {
                self.error(
                    Diagnostic::error("ST115", format!("HEALTHCHECK has no type `{other}`"))
                        .with_span(kind.span())
                        .with_label(if other.starts_with("--") {
                            "options stand before CMD"
                        } else {
                            "write CMD before the command"
                        }),
                );
                None
            }
        }
    }

    /// Outer `None`: the value is wrong.
    fn time(&mut self, flags: &Flags, name: &str) -> Option<Option<Word>> {
        let Some(word) = flags.value(name) else { return Some(None) };
        let is_fine = |time: std::time::Duration| time.is_zero() || time >= HEALTHCHECK_TIME_MIN;
        if word.raw.is_empty() || parse_duration(&word.raw).is_some_and(is_fine) {
            return Some(Some(word).filter(|word| !word.raw.is_empty()));
        }
        self.error(
            Diagnostic::error("ST115", format!("`{}` is not a duration of at least 1ms", word.raw))
                .with_span(word.span)
                .with_help("durations are written like 30s, 1m30s or 500ms"),
        );
        None
    }

    /// Outer `None`: the value is wrong.
    fn retries(&mut self, flags: &Flags) -> Option<Option<Word>> {
        let Some(word) = flags.value("retries").filter(|word| !word.raw.is_empty()) else { return Some(None) };
        if word.raw.parse::<i32>().is_ok_and(|count| count >= 0) {
            return Some(Some(word));
        }
        let message = format!("`--retries` is a number from 0, not `{}`", word.raw);
        self.error(Diagnostic::error("ST115", message).with_span(word.span));
        None
    }

    fn onbuild(&mut self, split: &Split<'_>, raw: &RawInstruction) -> Option<InstructionKind> {
        if split.args.is_empty() {
            return self.missing("ONBUILD", "an instruction", &split.args);
        }
        let instruction = Box::new(self.trigger(&split.args, raw)?);
        let mut trigger = split.rest.as_str().to_owned();
        for body in &raw.heredocs {
            trigger.push('\n');
            trigger.push_str(&body.raw);
            trigger.push_str(&body.sign.name);
        }
        Some(InstructionKind::Onbuild { trigger, instruction })
    }

    /// An instruction that ONBUILD may store.
    pub(super) fn trigger(&mut self, line: &Piece<'_>, raw: &RawInstruction) -> Option<Instruction> {
        let keyword = words::split_command(line).keyword;
        let name = keyword.as_str().to_ascii_uppercase();
        if ["ONBUILD", "FROM", "MAINTAINER"].contains(&name.as_str()) {
            let message = format!("{name} is not allowed as an ONBUILD trigger");
            self.error(Diagnostic::error("ST112", message).with_span(keyword.span()));
            return None;
        }
        self.instruction(line, raw)
    }

    fn shell(&mut self, args: &Piece<'_>) -> Option<Vec<String>> {
        match self.command(args)? {
            Command::Exec(words) if words.is_empty() => self.missing("SHELL", "at least one argument", args),
            Command::Exec(words) => Some(words),
            Command::Shell(text) if text.is_empty() => self.missing("SHELL", "at least one argument", args),
            Command::Shell(_) => {
                self.error(
                    Diagnostic::error("ST113", "SHELL needs the exec form")
                        .with_span(args.span())
                        .with_label("write it like [\"/bin/bash\", \"-c\"]"),
                );
                None
            }
        }
    }

    fn volumes(&mut self, args: &Piece<'_>) -> Option<Vec<Word>> {
        let mut words = self.list(args)?.words;
        if words.is_empty() {
            return self.missing("VOLUME", "at least one argument", args);
        }
        for word in &mut words {
            word.raw = word.raw.trim().to_owned();
            if word.raw.is_empty() {
                self.error(
                    Diagnostic::error("ST108", "a VOLUME cannot be an empty string").with_span(word.span.clone()),
                );
                return None;
            }
        }
        Some(words)
    }
}

/// What the comments above a definition say of it: the rest of the first one that begins with its name.
pub(super) fn description(comments: &[Comment], name: &str) -> Option<String> {
    comments.iter().find_map(|comment| Some(comment.text.strip_prefix(name)?.strip_prefix(' ')?.to_owned()))
}
