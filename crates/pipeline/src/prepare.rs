//! From a directory to a [`Plan`]: finds the pipeline file, asks Git, plans.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use dockerfile::Diagnostic;

use crate::{Plan, Source};

/// Name of the pipeline file.
pub const FILE_NAME: &str = "seatrial.yaml";

/// What [`prepare`] starts from.
#[derive(Clone, Debug)]
pub struct PrepareRequest {
    /// Working directory, absolute: the file is looked for here and upwards to the Git root.
    pub directory: PathBuf,
    /// `--file`: this file instead.
    pub file: Option<PathBuf>,
    /// The environment of the program.
    pub env: BTreeMap<String, String>,
    /// Number of the run, when there is one.
    pub run_number: Option<u64>,
}

/// A plan, and what was noticed on the way.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The plan.
    pub plan: Plan,
    /// The pipeline file; `None` when everything was inferred.
    pub file: Option<SourceText>,
    /// Findings in it that stop nothing.
    pub warnings: Vec<Diagnostic>,
    /// The directory that paths are relative to: the file's, or the working directory.
    pub base: PathBuf,
}

/// A text file of the user's, for showing places in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceText {
    /// As the user would name it.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// Something that the user wrote is wrong: exit 2.
#[derive(Debug, thiserror::Error)]
#[error("{} is not valid", .file.name)]
pub struct Invalid {
    /// The file with its text; diagnostics point into it.
    pub file: Box<SourceText>,
    /// At least one error.
    pub diagnostics: Vec<Diagnostic>,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The pipeline file is wrong: exit 2.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// No pipeline file and no Dockerfile: exit 2.
    #[error("no `seatrial.yaml` and no Dockerfile in {}", .directory.display())]
    NothingToBuild {
        /// Where was looked.
        directory: PathBuf,
    },
    /// A file could not be read: exit 3.
    #[error("cannot read the pipeline file")]
    Read(#[from] std::io::Error),
}

/// Finds and reads the pipeline file, asks Git beside it, and plans.
///
/// # Errors
/// See [`PrepareError`].
pub fn prepare(request: &PrepareRequest) -> Result<Prepared, PrepareError> {
    Err(PrepareError::NothingToBuild { directory: request.directory.clone() })
}

/// The nearest pipeline file from `directory` upwards; not above the Git root, and without Git only `directory` itself.
pub fn find_file(directory: &Path) -> Option<PathBuf> {
    let _ = directory;
    None
}

/// The file that `seatrial init` writes: what is inferred without one, with the modeline that names the schema.
pub fn init_yaml(directory: &Path, source: &Source) -> String {
    let _ = (directory, source);
    String::new()
}
