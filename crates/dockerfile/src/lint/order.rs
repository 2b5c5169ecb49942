//! Checks of the order of instructions: what seldom changes goes first, so that it stays in the cache.

use super::context::takes_all;
use super::shell::{Call, calls};
use super::{Findings, shell_text};
use crate::stages::Stages;
use crate::{Instruction, InstructionKind};

/// Managers of system packages: they need nothing of the context.
const SYSTEM: [&str; 7] = ["apk", "apt", "apt-get", "dnf", "microdnf", "yum", "zypper"];

/// `(programs, what they are told, the files of the context that they install from)`
const LISTED: [(&[&str], &[&str], &str); 14] = [
    (&["pip", "pip3"], &["install"], "requirements.txt"),
    (&["uv"], &["pip install", "pip sync"], "requirements.txt"),
    (&["uv"], &["sync"], "pyproject.toml and uv.lock"),
    (&["poetry"], &["install"], "pyproject.toml and poetry.lock"),
    (&["pipenv"], &["install", "sync"], "Pipfile and Pipfile.lock"),
    (&["conda", "mamba"], &["install", "create", "env create", "env update"], "environment.yml"),
    (&["npm"], &["install", "ci", "i"], "package.json and package-lock.json"),
    (&["pnpm"], &["install", "i"], "package.json and pnpm-lock.yaml"),
    (&["yarn", "bun"], &["install", "add"], "package.json and the lock file"),
    (&["bundle"], &["install"], "Gemfile and Gemfile.lock"),
    (&["composer"], &["install"], "composer.json and composer.lock"),
    (&["go"], &["mod download"], "go.mod and go.sum"),
    (&["cargo"], &["fetch"], "Cargo.toml and Cargo.lock"),
    (&["dotnet"], &["restore"], "the project file"),
];

/// Flags by which managers take the answer for granted.
const YES: [&str; 6] = ["--yes", "--assume-yes", "--assumeyes", "--non-interactive", "-qq", "-n"];

/// Words, between `_`, of names whose value is another one in each build; two must follow each other.
const CHANGING: [&str; 7] = ["commit", "revision", "created", "timestamp", "cachebust", "buildtime", "builddate"];
const CHANGING_PAIRS: [(&str, &[&str]); 5] = [
    ("git", &["sha", "ref", "rev", "hash", "branch", "commit"]),
    ("vcs", &["ref", "rev", "revision"]),
    ("ci", &["sha", "ref"]),
    ("build", &["date", "time", "number", "id", "num"]),
    ("cache", &["bust"]),
];

pub(super) fn check(stages: &Stages<'_>, findings: &mut Findings) {
    for stage in &stages.file.stages {
        copy_before_install(&stage.instructions, findings);
        changing_argument(&stage.instructions, findings);
        apt_update_alone(&stage.instructions, findings);
        for instruction in &stage.instructions {
            installs_without_yes(instruction, findings);
            remote_file(instruction, findings);
        }
    }
}

/// What a RUN installs from: files of the context, or nothing of it.
enum Installs {
    System,
    Listed(&'static str),
}

fn installs(text: &str) -> Option<Installs> {
    let mut found = None;
    for call in calls(text) {
        // `pip install .` needs the sources, so it has to stand behind them.
        if call.is(&["pip", "pip3"], &["install"]) && call.plain().skip(1).any(is_own_source) {
            return None;
        }
        let listed = LISTED.iter().find(|(programs, actions, _)| call.is(programs, actions));
        match (listed, &found) {
            (Some((.., files)), _) => found = Some(Installs::Listed(files)),
            (None, None) if call.is(&SYSTEM, &["install", "add"]) => found = Some(Installs::System),
            _ => {}
        }
    }
    found
}

/// `.`, `./x`, `.[extra]`
fn is_own_source(word: &str) -> bool {
    word.strip_prefix('.').is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '[']))
}

fn copy_before_install(instructions: &[Instruction], findings: &mut Findings) {
    let is_copy = |instruction: &&Instruction| match &instruction.kind {
        InstructionKind::Copy(copy) | InstructionKind::Add(copy) => takes_all(copy),
        _ => false,
    };
    let Some(at) = instructions.iter().position(|instruction| is_copy(&instruction)) else { return };
    let found = instructions[at..].iter().find_map(|run| Some((run, installs(shell_text(&run.kind))?)));
    let Some((run, installs)) = found else { return };
    let message = "the whole context is copied before dependencies are installed";
    let finding = findings.add("CopyAllBeforeInstall", &instructions[at].span, message);
    let command = shorten(&run.text);
    finding.notes.push(format!("every changed file repeats `{command}`"));
    finding.help = Some(match installs {
        Installs::System => format!("move `{command}` above this line: it needs nothing of the context"),
        Installs::Listed(files) => {
            format!("copy {files} first, then `{command}`, and move this line below it")
        }
    });
}

fn changing_argument(instructions: &[Instruction], findings: &mut Findings) {
    for (at, instruction) in instructions.iter().enumerate() {
        let InstructionKind::Arg(args) = &instruction.kind else { continue };
        let Some(arg) = args.iter().find(|arg| is_changing(&arg.name.raw)) else { continue };
        let run = instructions[at..].iter().find(|run| installs(shell_text(&run.kind)).is_some());
        // One per stage: moving it shows the next.
        let Some(run) = run else { return };
        let message = format!("`{}` changes with every build and stands above an installation", arg.name.raw);
        let finding = findings.add("ChangingArgEarly", &arg.name.span, message);
        finding.notes.push(format!("every new value repeats `{}`", shorten(&run.text)));
        finding.help = Some("move the ARG below it".to_owned());
        return;
    }
}

fn is_changing(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let words: Vec<&str> = name.split('_').collect();
    let is_pair =
        |pair: &[&str]| CHANGING_PAIRS.iter().any(|(first, then)| *first == pair[0] && then.contains(&pair[1]));
    words.iter().any(|word| CHANGING.contains(word)) || words.windows(2).any(is_pair)
}

fn apt_update_alone(instructions: &[Instruction], findings: &mut Findings) {
    let apt = |text: &str, action: &str| calls(text).any(|call| call.is(&["apt", "apt-get"], &[action]));
    let mut alone = None;
    for instruction in instructions {
        let text = shell_text(&instruction.kind);
        let (updates, installs) = (apt(text, "update"), apt(text, "install"));
        if updates && !installs {
            alone.get_or_insert(&instruction.span);
        } else if installs
            && !updates
            && let Some(span) = alone
        {
            let message = "`apt-get update` is cached without the installation that needs it";
            findings.add("AptUpdateAlone", span, message).help =
                Some("join it with `apt-get install` in one RUN".to_owned());
            return;
        }
    }
}

fn installs_without_yes(instruction: &Instruction, findings: &mut Findings) {
    let text = shell_text(&instruction.kind);
    let asks = |call: &Call<'_>| call.is(&["apt", "apt-get", "dnf", "yum", "zypper"], &["install"]);
    // `-qy` and the like are letters of one word.
    let is_yes = |flag: &str| YES.contains(&flag) || (!flag.starts_with("--") && flag.contains('y'));
    let asking = calls(text).filter(asks).find(|call| !call.flags().any(is_yes));
    let is_set = || text.contains("APT::Get::Assume-Yes") || calls(text).any(|call| call.program == "yes");
    if let Some(call) = asking.filter(|_| !is_set()) {
        let message = format!("`{}` would ask a question", shorten(call.text));
        findings.add("InstallWithoutYes", &instruction.span, message).help = Some("add `-y`".to_owned());
    }
}

fn remote_file(instruction: &Instruction, findings: &mut Findings) {
    let InstructionKind::Add(add) = &instruction.kind else { return };
    let is_file = |source: &str| {
        (source.starts_with("http://") || source.starts_with("https://"))
            && !source.split(['#', '?']).next().unwrap_or_default().ends_with(".git")
    };
    if let Some(source) = add.sources.iter().find(|source| is_file(&source.raw)).filter(|_| add.checksum.is_none()) {
        let message = "nobody notices when the remote file changes";
        findings.add("RemoteFileUnchecked", &source.span, message).help =
            Some("name its digest with `--checksum=sha256:…`".to_owned());
    }
}

/// The beginning of a long instruction.
fn shorten(text: &str) -> String {
    const LENGTH: usize = 60;
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}
