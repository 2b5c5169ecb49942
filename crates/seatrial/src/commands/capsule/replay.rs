//! `seatrial replay`: the source of a capsule beside the user's own, and the stage that failed again.

use std::{
    ffi::OsStr,
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;

use store::{RunDir, Store};

use super::{Capsule, Content, DESCRIPTION, Image, PATCH, UNTRACKED, Used, broken, found::git, pack};
use crate::{context::Context, exit::Exit, failure::Failure, settings::REPLAYED, terminal};

/// A capsule is made by somebody else: whatever it unpacks to, not more than this is read of it.
const UNPACKED_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Its description is some kilobytes.
const DESCRIPTION_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Flags of `seatrial replay`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    /// The capsule
    file: PathBuf,
    /// Repository with the commit; without it the one here, else the address in the capsule
    #[arg(long, value_name = "DIR|URL")]
    source: Option<String>,
    /// Show what the capsule holds, and run nothing
    #[arg(long)]
    show: bool,
    /// Keep the source directory
    #[arg(long)]
    keep: bool,
}

/// Does again what failed; its verdict is ours.
pub(crate) fn run(args: &ReplayArgs, context: &Context) -> anyhow::Result<Exit> {
    let path = context.settings.cwd.join(&args.file);
    let unpacked = tempfile::Builder::new().prefix("seatrial-replay-").tempdir().context("cannot make a directory")?;
    let capsule = unpack(&path, unpacked.path())?;
    if args.show {
        terminal::result_line(&serde_json::to_string_pretty(&capsule)?);
        return Ok(Exit::Passed);
    }
    let source = unpacked.path().join("source");
    check_out(args, &capsule, context, unpacked.path(), &source)?;
    for missing in &capsule.source.missing {
        terminal::warning(&format!("the capsule lacks a part of the source: {missing}"));
    }
    let arguments = command(&capsule);
    let run = &capsule.run;
    terminal::message_line(&format!(
        "{} {}: repeating `seatrial {}`",
        run.name,
        run.commit.as_deref().unwrap_or("(no commit)"),
        arguments.join(" ")
    ));
    let image = unpacked.path().join("image.json");
    fs_err::write(&image, serde_json::to_vec(&capsule.content)?)?;
    let exit = repeat(context, &capsule, &source, &arguments, &image)?;
    if args.keep {
        terminal::message_line(&format!("the source is kept in {}", unpacked.keep().join("source").display()));
    }
    Ok(exit)
}

/// The command for what failed.
fn command(capsule: &Capsule) -> Vec<String> {
    // Other stages with a container of their own are no gates.
    let is_other = |name: &str| name == "health" || name == "before" || name.starts_with(pipeline::FILES_STAGE);
    let is_gate = |stage: &&String| capsule.stages.contains_key(*stage) && !is_other(pipeline::name_in_image(stage));
    let gates: Vec<String> = capsule.failed.iter().filter(is_gate).cloned().collect();
    let of = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    match &capsule.failed[..] {
        _ if !gates.is_empty() => of(&["test"]).into_iter().chain(gates).collect(),
        [only] if pipeline::name_in_image(only) == "health" => of(&["health"]),
        _ => of(&["test"]),
    }
}

fn repeat(
    context: &Context,
    capsule: &Capsule,
    source: &Path,
    arguments: &[String],
    image: &Path,
) -> anyhow::Result<Exit> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut child = Command::new(program);
    child.arg("--home").arg(&context.settings.home).arg("-C").arg(source.join(&capsule.source.directory));
    child.args(arguments).env(REPLAYED, image);
    if let Some(file) = &capsule.source.file {
        child.arg("--file").arg(Path::new(file).file_name().unwrap_or_default());
    }
    let status = child.stdin(Stdio::null()).status().context("cannot start this program again")?;
    Ok(match status.code() {
        Some(code) => Exit::Command(u8::try_from(code).unwrap_or(u8::MAX)),
        None => Exit::Surroundings,
    })
}

/// Tells whether a run that repeats a capsule's had the same images: with others, its verdict speaks of something else.
/// It is asked in the process of that run, which has the store.
pub(in crate::commands) fn compare(replayed: &Path, store: &Store, run: &RunDir) {
    let (was, is) = (Content::read(replayed), pack::content(store, run));
    if let (Some(was), Some(is)) = (&was.image, &is.image) {
        compare_image("the image", was, is);
    }
    // What was not repeated has nothing to be compared with.
    for (name, is) in &is.images {
        if let Some(was) = was.images.get(name) {
            compare_image(&format!("image {name}"), was, is);
        }
    }
    for is in &is.used {
        let same = |was: &&Used| (&was.by, &was.name) == (&is.by, &is.name);
        if let Some(was) = was.used.iter().find(same).filter(|was| was.id != is.id) {
            let Used { by, name, .. } = is;
            terminal::warning(&format!(
                "{name}, which {by} uses, differs from the capsule's: it is {}, and was {}",
                is.id, was.id
            ));
        }
    }
}

fn compare_image(what: &str, was: &Image, is: &Image) {
    if was.id == is.id {
        terminal::message_line(&format!("{what} is the capsule's: {}", was.id));
        return;
    }
    terminal::warning(&format!("{what} differs from the capsule's: it is {}, and was {}", is.id, was.id));
    for difference in differences(was, is) {
        terminal::message_line(&format!("  {difference}"));
    }
}

impl Content {
    /// What `replay` handed to the run that it started. What it did not write is no reason to spoil the run.
    pub(super) fn read(replayed: &Path) -> Self {
        let bytes = fs_err::read(replayed).ok();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }
}

fn differences(was: &Image, is: &Image) -> Vec<String> {
    let mut found = Vec::new();
    for (name, id) in &was.bases {
        match is.bases.iter().find(|(other, _)| other == name) {
            Some((_, other)) if other == id => {}
            Some((_, other)) => found.push(format!("its base {name} was {id} and is {other}")),
            None => found.push(format!("its base {name} is not used any more")),
        }
    }
    let same = was.layers.iter().zip(&is.layers).take_while(|(was, is)| was == is).count();
    found.push(match (was.layers.len(), is.layers.len()) {
        (all, others) if all == others && same == all => "the layers are the same, the configuration is another".into(),
        (all, others) => format!("{same} of its {others} layers are the first of those {all}"),
    });
    found
}

/// The commit with its changes in `source`; repositories of the user's stay as they are.
fn check_out(
    args: &ReplayArgs,
    capsule: &Capsule,
    context: &Context,
    unpacked: &Path,
    source: &Path,
) -> anyhow::Result<()> {
    let is_id = |sha: &&String| sha.bytes().all(|byte| byte.is_ascii_hexdigit());
    let Some(sha) = capsule.source.sha.as_ref().filter(is_id) else {
        return Err(Failure::refused("the run's source was in no Git repository, so it cannot be had again")
            .hint("look at what the capsule holds: `seatrial replay --show FILE`")
            .into());
    };
    let from = repository(args, capsule, context, sha)?;
    let clone = |arguments: &[&str]| -> anyhow::Result<()> {
        let output = Command::new("git").args(arguments).output().context("cannot start git")?;
        if output.status.success() {
            return Ok(());
        }
        let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Failure::surroundings(format!("cannot get commit {sha} from {from}"))
            .because(&io::Error::other(told))
            .hint("name a repository that has it: `seatrial replay --source DIR FILE`")
            .into())
    };
    let directory = source.display().to_string();
    clone(&["clone", "--quiet", "--no-checkout", "--", &from, &directory])?;
    let branch = capsule.source.branch.as_deref().filter(|branch| !branch.starts_with('-'));
    match branch {
        Some(branch) => clone(&["-C", &directory, "checkout", "--quiet", "--force", "-B", branch, sha])?,
        None => clone(&["-C", &directory, "checkout", "--quiet", "--detach", sha])?,
    }
    if capsule.source.has_patch {
        let patch = unpacked.join(PATCH).display().to_string();
        clone(&["-C", &directory, "apply", "--binary", "--whitespace=nowarn", &patch])?;
    }
    let untracked = unpacked.join(UNTRACKED);
    if !untracked.is_dir() {
        return Ok(());
    }
    // A link of the commit's gives way, so that nothing is written through it.
    store::copy_tree(&untracked, source, &|_| true).context("cannot add the files that Git does not know")
}

fn repository(args: &ReplayArgs, capsule: &Capsule, context: &Context, sha: &str) -> anyhow::Result<String> {
    if let Some(source) = &args.source {
        let path = context.settings.cwd.join(source);
        return Ok(if path.is_dir() { path.display().to_string() } else { source.clone() });
    }
    let here = &context.settings.cwd;
    let has_commit = git(here, &["cat-file", "-e", &format!("{sha}^{{commit}}")]).is_some();
    if has_commit && let Some(top) = git(here, &["rev-parse", "--show-toplevel"]) {
        return Ok(String::from_utf8_lossy(&top).trim().to_owned());
    }
    capsule.source.remote.clone().filter(|remote| !remote.starts_with('-')).ok_or_else(|| {
        Failure::refused(format!("there is no repository with commit {sha} here"))
            .hint("go to a clone of it, or name one: `seatrial replay --source DIR FILE`")
            .into()
    })
}

/// Description, patch and untracked files into `directory`; the rest is for people.
fn unpack(path: &Path, directory: &Path) -> anyhow::Result<Capsule> {
    let file = fs_err::File::open(path)?;
    let plain = zstd::Decoder::new(file).map_err(broken(path))?.take(UNPACKED_BYTES_MAX);
    let mut tar = tar::Archive::new(plain);
    let mut capsule = None;
    for entry in tar.entries().map_err(broken(path))? {
        let mut entry = entry.map_err(broken(path))?;
        let name = entry.path().map_err(broken(path))?.into_owned();
        // Plain names and files only: nothing may land elsewhere, nor among Git's own files, which name programs to run.
        let is_ours = |name: &OsStr| name.eq_ignore_ascii_case(".git");
        let is_plain = name.components().all(|part| matches!(part, Component::Normal(name) if !is_ours(name)));
        if !entry.header().entry_type().is_file() || !is_plain {
            return Err(broken(path)(io::Error::other(format!("an entry is called `{}`", name.display()))));
        }
        if name == Path::new(DESCRIPTION) {
            let mut bytes = Vec::new();
            (&mut entry).take(DESCRIPTION_BYTES_MAX).read_to_end(&mut bytes).map_err(broken(path))?;
            capsule = Some(Capsule::parse(&bytes)?);
        } else if name == Path::new(PATCH) || name.starts_with(UNTRACKED) {
            let target = directory.join(&name);
            if let Some(parent) = target.parent() {
                fs_err::create_dir_all(parent)?;
            }
            io::copy(&mut entry, &mut fs_err::File::create(&target)?).map_err(broken(path))?;
        }
    }
    capsule.ok_or_else(|| broken(path)(io::Error::other("it has no description")))
}
