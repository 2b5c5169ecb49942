//! Seatrial: build the image first, test inside it, push what passed.
//!
//! The front door: flags, composition, exit codes. What happens is told in `commands`; what it looks like is in
//! `terminal`, the only module that prints.

mod cli;
mod commands;
mod context;
mod exit;
mod failure;
#[cfg(test)]
mod reference;
mod results;
mod settings;
mod signals;
mod solution;
mod terminal;

use std::process::ExitCode;

use clap::FromArgMatches as _;

use cli::{Cli, Needs};
use context::Context;
use exit::Exit;
use failure::Failure;
use settings::Settings;

fn main() -> ExitCode {
    // A container's first process is this very program, re-executed; nothing may run before this.
    runtime::run_if_reexecuted();

    let exit = match Cli::from_arguments() {
        Ok(cli) => run(cli),
        Err(exit) => exit,
    };
    runtime::leave();
    exit.into()
}

/// One command, from its flags to its exit code.
fn run(cli: Cli) -> Exit {
    let context = match prepare(&cli) {
        Ok(context) => context,
        Err(failure) => {
            terminal::failure(&failure);
            return failure.exit;
        }
    };
    let outcome = commands::dispatch(cli.command, &context);
    // Whatever a stopped command ends with, its caller has to hear of the signal.
    let stopped = context.stopped_by();
    match outcome {
        Ok(exit) => stopped.unwrap_or(exit),
        Err(error) => {
            let mut failure = failure::explain(error);
            if failure.suspects_no_space && context.is_short_of_space() {
                failure.blame_full_disk();
                terminal::warning(&format!("the disk is full: {}", context.free_space()));
            }
            if failure.is_no_space {
                failure.causes.push(context.free_space());
            }
            if !(stopped.is_some() && failure.is_cancelled()) {
                terminal::failure(&failure);
            }
            stopped.unwrap_or(failure.exit)
        }
    }
}

/// Settings first: inside a user namespace everybody looks like root.
fn prepare(cli: &Cli) -> Result<Context, Failure> {
    let settings = Settings::load(cli.home.clone(), cli.directory.as_deref())?;
    let privilege = match cli.command.needs(&settings.cwd) {
        Needs::Nothing => None,
        Needs::Store => Some(runtime::enter().map_err(|error| {
            Failure::surroundings("cannot prepare this process for containers")
                .because(&error)
                .hint("see what this machine offers: `seatrial doctor`")
        })?),
    };
    Ok(Context::new(settings, privilege))
}

impl Cli {
    /// The command line, with `SEATRIAL_*` behind each flag. Mistakes and help are shown here.
    fn from_arguments() -> Result<Cli, Exit> {
        let parsed =
            cli::command().try_get_matches_from(cli::arguments()).and_then(|matches| Cli::from_arg_matches(&matches));
        parsed.map_err(cli::without_far_guesses).map_err(|error| {
            if error.use_stderr() {
                let arguments = cli::arguments();
                let hints = terminal::hints(&commands::run::hints(&error, &arguments), terminal::Palette::stderr());
                terminal::message(&(cli::styled(&error, terminal::streams().stderr_colours) + &hints));
                return Exit::Usage;
            }
            terminal::result(&cli::styled(&error, terminal::streams().stdout_colours));
            Exit::Passed
        })
    }
}
