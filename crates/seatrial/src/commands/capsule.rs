//! `seatrial capsule` and `seatrial replay`: a failed run in one file, and that failure again somewhere else.

pub(super) mod found;
mod pack;
mod pinned;
mod replay;

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Context as _;
use events::Verdict;
use serde::{Deserialize, Serialize};

pub(super) use pinned::Pinned;
pub(super) use replay::compare;
pub(crate) use replay::{ReplayArgs, run as replay};

use super::{logs::find_run, record::RunRecord};
use crate::{
    context::Context,
    exit::Exit,
    failure::Failure,
    terminal::{self, text},
};

/// Version of the file's form.
const VERSION: u32 = 1;
/// Describes the run, in the file.
const DESCRIPTION: &str = "capsule.json";
/// Changes of tracked files against the commit, in the file.
const PATCH: &str = "source.patch";
/// Files that Git does not know, below this name in the file.
const UNTRACKED: &str = "untracked";

/// Flags of `seatrial capsule`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    seatrial capsule last                  the last run, as NAME-run-N.capsule here\n  \
    seatrial capsule 42 -o failure.capsule\n  \
    seatrial replay failure.capsule        the failing gate again, in a clone of the repository")]
pub(crate) struct CapsuleArgs {
    /// Number of a run, or `last`
    #[arg(value_name = "RUN")]
    run: String,
    /// File to write
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What `capsule.json` holds.
#[derive(Debug, Serialize, Deserialize)]
struct Capsule {
    version: u32,
    /// `seatrial` and its version.
    made_by: String,
    /// Processor and kernel of the machine.
    machine: String,
    run: RunRecord,
    source: found::Source,
    #[serde(flatten)]
    content: Content,
    /// What failed: `build`, `setup`, gates, `health`.
    failed: Vec<String>,
    /// Containers by stage: arguments, masked environment, working directory, user.
    stages: BTreeMap<String, serde_json::Value>,
    /// The command that does it again.
    replay: String,
}

/// The images that a run was about and those that it used.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    /// What it built.
    image: Option<Image>,
    /// What it built, by name, of a run with several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    images: BTreeMap<String, Image>,
    /// Images of services and of gates that run in another one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    used: Vec<Used>,
}

/// An image that a run used by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Used {
    /// The service, or the gate.
    by: String,
    /// As the file says it.
    name: String,
    /// What it stood for: an image id, or a digest of content and config for one that was built for a service.
    id: String,
    /// The manifest by which a registry has that image, where it came from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    manifest: Option<String>,
}

/// The image by its digests.
#[derive(Debug, Serialize, Deserialize)]
struct Image {
    /// Config digest: docker's image id.
    id: String,
    /// Diff ids of its layers, bottom first.
    layers: Vec<String>,
    /// Base images: name and id.
    bases: Vec<(String, String)>,
}

/// Writes the capsule of a run.
pub(crate) fn run(args: &CapsuleArgs, context: &Context) -> anyhow::Result<Exit> {
    let store = context.store()?;
    let run = find_run(store, &args.run)?;
    let record = RunRecord::read(&run).ok_or_else(|| {
        Failure::refused(format!("run {} has not ended, or was killed", run.number))
            .hint(format!("look at its log: `seatrial logs {}`", run.number))
    })?;
    let Some(source) = found::Source::read(&run) else {
        let failure = Failure::refused(format!("run {} keeps nothing for a capsule", run.number));
        return Err(match record.verdict {
            Verdict::Passed => failure.hint("capsules are made of runs that failed"),
            _ => failure.hint("repeat it with `seatrial run`, then `seatrial capsule last`"),
        }
        .into());
    };
    let name = format!("{}-run-{}.capsule", pipeline::file_name(&record.name), run.number);
    let path = context.settings.cwd.join(args.output.clone().unwrap_or_else(|| name.into()));
    let size = pack::write(&path, store, &run, record, source)?;
    let shown = path.strip_prefix(&context.settings.cwd).unwrap_or(&path).display();
    terminal::message_line(&format!(
        "wrote {shown}, {}: do it again with `seatrial replay {shown}`",
        text::bytes(size)
    ));
    terminal::result_line(&path.display().to_string());
    Ok(Exit::Passed)
}

/// A capsule that cannot be read.
fn broken(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> anyhow::Error {
    move |error| anyhow::Error::from(error).context(format!("{} is no capsule of a run, or is damaged", path.display()))
}

impl Capsule {
    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let capsule: Self = serde_json::from_slice(bytes).context("its description cannot be read")?;
        if capsule.version != VERSION {
            let message = format!("the capsule has form {}, this program reads {VERSION}", capsule.version);
            return Err(Failure::usage(message)
                .hint(format!("use the program that made it: {}", capsule.made_by))
                .into());
        }
        Ok(capsule)
    }
}
