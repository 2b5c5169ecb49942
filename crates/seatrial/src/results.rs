//! A run's results for other programs: one JUnit file, GitLab's code quality, GitHub's annotations.

pub(crate) mod annotations;
mod code_quality;
mod junit;

use std::path::{Path, PathBuf};

use pipeline::{Outcome, Plan};

use crate::{context::Context, failure::Failure};

/// Flags about result files.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct ResultArgs {
    /// Write one JUnit file for the whole run: a test suite for each gate, with its tests, and for the health check
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write failing tests and findings as GitLab's code quality report
    #[arg(long, value_name = "FILE")]
    code_quality: Option<PathBuf>,
}

impl ResultArgs {
    /// Writes what was asked for, of a run that found out.
    pub(crate) fn write(&self, plan: &Plan, outcome: &Outcome, context: &Context) -> Result<(), Failure> {
        if let Some(file) = &self.junit {
            write(file, junit::of(plan, outcome).as_bytes(), context)?;
        }
        if let Some(file) = &self.code_quality {
            write(file, code_quality::of(outcome).as_bytes(), context)?;
        }
        Ok(())
    }

    /// A run that could not find out is no green file of an earlier run either.
    pub(crate) fn write_error(&self, plan: &Plan, message: &str, context: &Context) -> Result<(), Failure> {
        match &self.junit {
            Some(file) => write(file, junit::of_error(&plan.name, message).as_bytes(), context),
            None => Ok(()),
        }
    }
}

fn write(file: &Path, bytes: &[u8], context: &Context) -> Result<(), Failure> {
    let path = context.settings.cwd.join(file);
    let made = path.parent().map_or(Ok(()), fs_err::create_dir_all);
    made.and_then(|()| fs_err::write(&path, bytes))
        .map_err(|error| Failure::surroundings(format!("cannot write {}", file.display())).because(&error))
}
