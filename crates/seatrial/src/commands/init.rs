//! `seatrial init`: what is inferred without a file, as a file.

use std::{collections::BTreeMap, io::Write as _};

use anyhow::Context as _;

use crate::{
    context::Context,
    exit::Exit,
    failure::Failure,
    settings::{find_dockerfile, find_pipeline_file},
    terminal,
};

/// Flags of `seatrial init`.
#[derive(Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// Print the file instead of writing it
    #[arg(long)]
    print: bool,
}

/// Writes `seatrial.yaml` beside the Dockerfile.
pub(crate) fn run(args: &InitArgs, context: &Context) -> anyhow::Result<Exit> {
    let directory = &context.settings.cwd;
    let yaml = pipeline::init_yaml(directory);
    if args.print {
        terminal::result(&yaml);
        return Ok(Exit::Passed);
    }
    if let Some(file) = find_pipeline_file(directory) {
        return Err(Failure::usage(format!("there is a pipeline file already: {}", file.display()))
            .hint("see what it means with `seatrial config`, or print a fresh one with `seatrial init --print`")
            .into());
    }
    let file = directory.join(pipeline::FILE_NAME);
    fs_err::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&file)
        .and_then(|mut out| out.write_all(yaml.as_bytes()))
        .with_context(|| format!("cannot write {}", file.display()))?;
    terminal::message_line(&format!("wrote {}", pipeline::FILE_NAME));
    if find_dockerfile(directory).is_none() && !yaml.contains("\nimages:\n") {
        terminal::message_line(
            "there is no Dockerfile here yet; the smallest one that does something:\n\n    FROM debian:bookworm\n    COPY . /app\n    CMD [\"/app/start\"]\n",
        );
        terminal::message_line("without a registry, make the base first: `seatrial base debian:bookworm`");
    } else {
        terminal::message_line("try it with `seatrial run`");
    }
    Ok(Exit::Passed)
}

/// The environment as text; what is not UTF-8 cannot be meant for us.
pub(crate) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
