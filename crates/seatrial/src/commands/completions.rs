//! `seatrial completions`.

use clap_complete::Shell;

use crate::{cli, context::Context, exit::Exit, terminal};

/// Flags of `seatrial completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints completions.
pub(crate) fn run(args: &CompletionsArgs, _: &Context) -> anyhow::Result<Exit> {
    let mut out = Vec::new();
    clap_complete::generate(args.shell, &mut cli::command(), "seatrial", &mut out);
    terminal::result_bytes(&out);
    Ok(Exit::Passed)
}
