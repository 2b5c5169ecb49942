//! `publish.files`: made in the image that passed or by `before`, checked all together, then sent, before the image has names.
//!
//! Indexes never change what they gave out. So nothing is sent before everything is made and read, and what an index has already
//! is no mistake as long as it is the same: a run that was cut off is repeated and goes on.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use engine::{BindMount, Built, ContainerSpec, Limits, NetworkMode, Scope, Stdio, Surroundings};
use events::{Event, Verdict};
use globset::{GlobBuilder, GlobMatcher};
use packages::{Login, Package, State, Target};

use super::{
    gate::{self, Ending},
    log::{StageLog, StepText},
    publish::Intention,
    record::{self, StageRecord},
    secrets::Secrets,
    words::{self, Stage},
};
use crate::{
    FileFate, FilesPlan, GateFailure, Plan, PublishedFile, RunContext, RunError, RunOptions, Values, interpolate,
};

/// The stage's id; of further entries with their number.
pub const STAGE: &str = "publish-files";
/// Where the commands write, inside.
const OUT_TARGET: &str = "/run/seatrial/out";
const OUT_VARIABLE: &str = "SEATRIAL_OUT";
/// One entry with more files is a mistake in its pattern.
const FILES_MAX: usize = 1000;
/// A command that makes a package and takes longer hangs.
const TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// What the entries are published with.
pub(super) struct Work<'a> {
    pub(super) cx: RunContext<'a>,
    pub(super) plan: &'a Plan,
    pub(super) options: &'a RunOptions,
    pub(super) scope: &'a dyn Scope,
    pub(super) built: &'a Built,
    pub(super) secrets: &'a Secrets,
    pub(super) values: &'a Values,
}

/// An entry whose files are there and were read.
struct Made {
    target: Target,
    login: Option<Login>,
    packages: Vec<Package>,
}

/// The stages of a plan's entries.
pub(super) fn stages(plan: &Plan) -> Vec<String> {
    let entries = plan.publish.as_ref().map_or(0, |publish| publish.files.len());
    (0..entries).map(|index| stage_of(plan, index)).collect()
}

fn stage_of(plan: &Plan, index: usize) -> String {
    if index == 0 { plan.stage(STAGE) } else { plan.stage(&format!("{STAGE}-{}", index + 1)) }
}

/// Makes and sends all files, or says which command failed. With `--dry-run` it makes them and asks the indexes.
pub(super) async fn publish(
    work: &Work<'_>,
    intention: &Intention,
) -> Result<Result<Vec<PublishedFile>, GateFailure>, RunError> {
    let entries = work.plan.publish.as_ref().map(|publish| publish.files.as_slice()).unwrap_or_default();
    if entries.is_empty() || !(intention.is_planned || intention.is_dry) {
        return Ok(Ok(Vec::new()));
    }
    let (mut stages, mut made) = (Vec::new(), Vec::new());
    for (index, entry) in entries.iter().enumerate() {
        let stage = Stage::start(work.cx.events, &stage_of(work.plan, index));
        let failed = match make(work, entry, &stage_of(work.plan, index)).await {
            Ok(Ok(one)) => {
                made.push(one);
                stages.push(stage);
                continue;
            }
            Ok(Err(failure)) => Ok(failure),
            Err(error) => Err(error),
        };
        stage.finish(
            Verdict::Failed,
            failed.as_ref().map_or_else(ToString::to_string, |failure| failure.reason.clone()),
        );
        skip(stages);
        return failed.map(Err);
    }
    let mut published = Vec::new();
    let mut stages = stages.into_iter();
    for (index, one) in made.iter().enumerate() {
        let stage = stages.next().expect("each entry has a stage");
        let before = published.len();
        if let Err(error) = send(work, one, intention.is_dry, &mut published).await {
            stage.finish(Verdict::Failed, error.to_string());
            skip(stages);
            return Err(in_part(&published, missing(&made[index..], &published), error));
        }
        stage.finish(Verdict::Passed, summary(&published[before..]));
    }
    Ok(Ok(published))
}

/// Ends the stages of entries that are not sent, because another one failed.
fn skip<'s>(stages: impl IntoIterator<Item = Stage<'s>>) {
    for stage in stages {
        stage.finish(Verdict::Skipped, "not sent");
    }
}

/// What of these entries is not out, in words; the image comes after them all.
fn missing(entries: &[Made], published: &[PublishedFile]) -> Vec<String> {
    let is_out = |words: &String| published.iter().any(|file| file.words() == *words);
    let all = entries
        .iter()
        .flat_map(|entry| entry.packages.iter().map(|package| format!("{} at {}", package.file_name, entry.target)));
    all.filter(|words| !is_out(words)).chain(["the image".to_owned()]).collect()
}

/// An error after some files are out says which they are.
pub(super) fn in_part(published: &[PublishedFile], missing: Vec<String>, error: RunError) -> RunError {
    let out: Vec<String> =
        published.iter().filter(|file| file.fate != FileFate::Absent).map(PublishedFile::words).collect();
    if out.is_empty() || matches!(error, RunError::Cancelled) {
        return error;
    }
    RunError::InPart { out, missing, cause: Box::new(error) }
}

/// `1 file sent, 2 there already`.
fn summary(files: &[PublishedFile]) -> String {
    let count = |fate: FileFate| files.iter().filter(|file| file.fate == fate).count() as u64;
    let (sent, there, absent) = (count(FileFate::Sent), count(FileFate::WasThere), count(FileFate::Absent));
    let words = [
        (sent > 0).then(|| format!("{} sent", words::count(sent, "file"))),
        (there > 0).then(|| format!("{} there already", words::count(there, "file"))),
        (absent > 0).then(|| format!("{} would be sent", words::count(absent, "file"))),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

async fn make(work: &Work<'_>, entry: &FilesPlan, stage: &str) -> Result<Result<Made, GateFailure>, RunError> {
    let usage = |message: String| {
        let at = entry.place.as_ref().map(|at| format!(" ({}:{}:{})", at.file, at.line, at.column)).unwrap_or_default();
        RunError::Usage { message: message + &at, hint: None }
    };
    let to = interpolate(&entry.to, work.values).map_err(|error| usage(format!("`{}`: {error}", entry.to)))?;
    let target: Target = to.parse().map_err(|error: packages::InvalidTarget| usage(error.to_string()))?;
    let login = match &entry.secret {
        Some(name) => Some(Login { user: entry.user.clone(), secret: work.secrets.text(name)? }),
        None => None,
    };
    let directory = if entry.commands.is_empty() {
        super::before::output_dir(work.cx, work.plan)
    } else {
        match run(work, entry, stage).await? {
            Ok(directory) => directory,
            Err(failure) => return Ok(Err(failure)),
        }
    };
    let (patterns, read_for) = (entry.paths.clone(), target.clone());
    let task = tokio::task::spawn_blocking(move || read(&directory, &patterns, &read_for));
    let packages = task.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    let hint = format!("look at what was made: `seatrial logs {} {stage}`", work.cx.run.number);
    let packages = packages.map_err(|message| RunError::Refused { message, hint })?;
    Ok(Ok(Made { target, login, packages }))
}

/// The files that the patterns name, sorted, as packages of the target.
fn read(directory: &Path, patterns: &[String], target: &Target) -> Result<Vec<Package>, String> {
    let matchers: Vec<(&String, GlobMatcher)> = patterns
        .iter()
        .filter_map(|pattern| {
            // The plan has read them before.
            let glob = GlobBuilder::new(pattern).literal_separator(true).build().ok()?;
            Some((pattern, glob.compile_matcher()))
        })
        .collect();
    let mut found = Vec::new();
    walk(directory, Path::new(""), &mut found).map_err(|error| format!("what was made cannot be read: {error}"))?;
    found.sort();
    for (pattern, matcher) in &matchers {
        if !found.iter().any(|path| matcher.is_match(path)) {
            return Err(format!("nothing that was made matches `{pattern}`"));
        }
    }
    found.retain(|path| matchers.iter().any(|(_, matcher)| matcher.is_match(path)));
    if found.len() > FILES_MAX {
        return Err(format!("more than {FILES_MAX} files are to be published"));
    }
    found.iter().map(|path| Package::read(&directory.join(path), target).map_err(|error| error.to_string())).collect()
}

/// Regular files below a directory; links are not followed, because a container made them.
fn walk(top: &Path, below: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs_err::read_dir(top.join(below))? {
        let entry = entry?;
        let (path, kind) = (below.join(entry.file_name()), entry.file_type()?);
        if kind.is_dir() {
            walk(top, &path, found)?;
        } else if kind.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

/// Runs an entry's commands in a container of the image, and gives the directory that they wrote to.
async fn run(work: &Work<'_>, entry: &FilesPlan, stage: &str) -> Result<Result<PathBuf, GateFailure>, RunError> {
    let cx = work.cx;
    let out = cx.run.path.join("work").join(words::file_name(stage));
    let prepare = || {
        fs_err::create_dir_all(&out)?;
        // The image's user may be anyone; the run's directory above it is ours alone.
        fs_err::set_permissions(&out, std::fs::Permissions::from_mode(0o1777))
    };
    prepare().map_err(|error| RunError::local("prepare `publish.files`", error))?;
    let mark = (entry.commands.len() > 1).then(gate::nonce);
    let step = |command: &crate::CommandPlan| StepText { text: command.run.clone(), place: command.place.clone() };
    let log =
        StageLog::open(cx, stage, entry.commands.iter().map(step).collect(), mark.clone(), work.secrets.masks.clone())?;
    let root = &work.built.root;
    let mut ours = gate::seatrial_environment(cx, work.values);
    ours.push((OUT_VARIABLE.to_owned(), OUT_TARGET.to_owned()));
    // Archives hold file times: a repeated run is to make the same bytes.
    let epoch = super::build::epoch(work.plan).and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    ours.extend(epoch.map(|epoch| ("SOURCE_DATE_EPOCH".to_owned(), epoch.as_secs().to_string())));
    let spec = ContainerSpec {
        name: gate::container_name(stage),
        root: root.clone(),
        args: gate::args(&[], &entry.commands, mark.as_deref()),
        env: gate::environment(root, &Default::default(), &ours),
        mounts: vec![BindMount { source: out.clone(), target: OUT_TARGET.into(), readonly: false }],
        cwd: gate::workdir(None, root),
        user: root.config.config.user.clone(),
        network: NetworkMode::Default,
        attachment: Default::default(),
        surroundings: Surroundings::default(),
        limits: Limits::default(),
        init: true,
        stdio: Stdio::Sink(log.sink()),
    };
    record::write(cx, &StageRecord::of(stage, &spec));
    let keep = work.options.keep_failed.unwrap_or(work.plan.keep.failed);
    let ending = gate::run_to_end(cx, work.scope, spec, Some(TIMEOUT), keep).await;
    let Ending { exit, note, kept, duration } = ending?;
    if let Some(note) = note {
        log.note(&note);
    }
    let begun = log.begun();
    let tail = log.finish(exit.code);
    if exit == engine::Exit::default() {
        return Ok(Ok(out));
    }
    let command = entry.commands.get(begun.saturating_sub(1)).or(entry.commands.first());
    Ok(Err(GateFailure {
        gate: stage.to_owned(),
        command: command.map(|command| command.run.clone()).unwrap_or_default(),
        place: command.and_then(|command| command.place.clone()),
        reason: gate::reason(&exit, Some(TIMEOUT), &Default::default()),
        exit,
        tail: tail.lines,
        earlier_lines: tail.earlier,
        duration,
        log: tail.path,
        kept,
        hint: None,
    }))
}

async fn send(work: &Work<'_>, made: &Made, is_dry: bool, published: &mut Vec<PublishedFile>) -> Result<(), RunError> {
    let cx = work.cx;
    let mut told = |package: &Package, state: State| {
        let fate = match state {
            State::Sent => FileFate::Sent,
            State::WasThere => FileFate::WasThere,
            State::Absent => FileFate::Absent,
        };
        let file = PublishedFile {
            name: package.file_name.clone(),
            to: made.target.to_string(),
            digest: package.sha256.clone(),
            fate,
        };
        cx.events.emit(Event::FilePublished {
            file: file.name.clone(),
            to: file.to.clone(),
            digest: file.digest.clone(),
            action: fate.word().to_owned(),
        });
        published.push(file);
    };
    let (target, login, packages) = (&made.target, made.login.as_ref(), made.packages.as_slice());
    let sending = cx.registry.publish_files(target, login, packages, is_dry, &mut told);
    tokio::select! {
        biased;
        () = cx.cancel.cancelled() => Err(RunError::Cancelled),
        done = sending => done.map_err(RunError::from),
    }
}
