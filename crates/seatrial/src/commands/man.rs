//! `seatrial man`.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::{cli, context::Context, exit::Exit, terminal};

/// Flags of `seatrial man`.
#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// Directory for one page per command; without it, the main page is printed
    output: Option<PathBuf>,
}

/// Writes manual pages.
pub(crate) fn run(args: &ManArgs, context: &Context) -> anyhow::Result<Exit> {
    let command = cli::command();
    let Some(directory) = &args.output else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page).context("cannot render the manual page")?;
        terminal::result_bytes(&page);
        return Ok(Exit::Passed);
    };
    let directory = context.settings.cwd.join(directory);
    fs_err::create_dir_all(&directory)?;
    clap_mangen::generate_to(command, &directory)
        .with_context(|| format!("cannot write pages to {}", directory.display()))?;
    terminal::message_line(&format!("manual pages are in {0}: `man -l {0}/seatrial.1`", directory.display()));
    Ok(Exit::Passed)
}
