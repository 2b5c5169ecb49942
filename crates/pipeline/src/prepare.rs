//! From a directory to a [`Plan`]: finds the pipeline file, asks Git, plans.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
};

use compose::Finding;
pub use compose::SourceText;
use dockerfile::Diagnostic;

use crate::{Plan, PlanInputs, Source, changed_paths, file, plan, read_source};

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
    /// Number of the run, when there is one; see [`Prepared::numbered`].
    pub run_number: Option<u64>,
}

/// A plan, and what was noticed on the way.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The plan.
    pub plan: Plan,
    /// The pipeline file; `None` when everything was inferred.
    pub file: Option<SourceText>,
    /// Findings in it that stop nothing; those in files that it includes are in [`Plan::services`].
    pub warnings: Vec<Diagnostic>,
    /// The directory that paths are relative to: the file's, or the working directory.
    pub base: PathBuf,
}

/// Something that the user wrote is wrong: exit 2.
#[derive(Debug, thiserror::Error)]
#[error("{} is not valid", .file.name)]
pub struct Invalid {
    /// The file with its text; diagnostics point into it.
    pub file: Box<SourceText>,
    /// Findings in it.
    pub diagnostics: Vec<Diagnostic>,
    /// Findings in Compose files that it includes; there is at least one error in all.
    pub included: Vec<Finding>,
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
    let path = match &request.file {
        Some(file) => Some(request.directory.join(file)),
        None => find_file(&request.directory),
    };
    let base = match path.as_deref().and_then(Path::parent) {
        Some(parent) => fs_err::canonicalize(parent)?,
        None => fs_err::canonicalize(&request.directory)?,
    };
    // Git's two processes run while the file is read.
    let (read, mut source) = std::thread::scope(|scope| {
        let source = scope.spawn(|| read_source(&base, &request.env));
        let read = path.as_deref().map(|path| read_file(path, &request.directory)).transpose();
        (read, source.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let text = read?;
    let file = text.as_ref().map(|text| file::parse(&text.text).0).unwrap_or_default();
    if Plan::needs_changed_paths(&file)
        && let Some(root) = source.root.clone()
    {
        source.changed = changed_paths(&root, &request.env, &mut source);
    }
    follow(text, base, &source, &request.env, request.run_number)
}

impl Prepared {
    /// The same plan for a run with this number; neither Git nor the file is asked again.
    ///
    /// # Errors
    /// As [`prepare`]: paths are looked at again.
    pub fn numbered(self, run_number: u64) -> Result<Prepared, PrepareError> {
        follow(self.file, self.base, &self.plan.source, &self.plan.values.env, Some(run_number))
    }
}

/// From the file's text and what Git said to the plan.
fn follow(
    text: Option<SourceText>,
    base: PathBuf,
    source: &Source,
    env: &BTreeMap<String, String>,
    run_number: Option<u64>,
) -> Result<Prepared, PrepareError> {
    let (file, mut diagnostics) = match &text {
        Some(text) => file::parse(&text.text),
        None => Default::default(),
    };
    let inputs = PlanInputs { file: &file, text: text.as_ref(), base: &base, source, env, run_number };
    let (plan, findings) = plan::plan(inputs);
    diagnostics.extend(findings);
    if text.is_none() && plan.build.dockerfile_path.is_none() {
        return Err(PrepareError::NothingToBuild { directory: base });
    }
    let included = &plan.services.included;
    if diagnostics.iter().chain(included.iter().map(|finding| &finding.diagnostic)).any(Diagnostic::is_error) {
        let included = included.clone();
        return Err(Invalid { file: Box::new(text.unwrap_or_default()), diagnostics, included }.into());
    }
    Ok(Prepared { plan, file: text, warnings: diagnostics, base })
}

/// The file is read whole up to this size; a larger one is refused by the reader with its reason.
const READ_BYTES_MAX: u64 = (1 << 20) + 1;

fn read_file(path: &Path, directory: &Path) -> std::io::Result<SourceText> {
    let mut bytes = Vec::new();
    let file = fs_err::File::open(path)?;
    // A FIFO would block, a device would never end.
    if !file.metadata()?.is_file() {
        let message = format!("{} is not a regular file", path.display());
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, message));
    }
    file.take(READ_BYTES_MAX).read_to_end(&mut bytes)?;
    let name = path.strip_prefix(directory).unwrap_or(path).display().to_string();
    Ok(SourceText { name, path: path.to_path_buf(), text: String::from_utf8_lossy(&bytes).into_owned() })
}

/// The nearest pipeline file from `directory` upwards; not above the Git root, and without Git only `directory` itself.
pub fn find_file(directory: &Path) -> Option<PathBuf> {
    let directory = directory.canonicalize().ok()?;
    let git_root = directory.ancestors().find(|ancestor| ancestor.join(".git").symlink_metadata().is_ok());
    let top = git_root.unwrap_or(&directory);
    directory
        .ancestors()
        .take_while(|ancestor| ancestor.starts_with(top))
        .map(|ancestor| ancestor.join(FILE_NAME))
        .find(|path| path.is_file())
}

/// The file that `seatrial init` writes: what is inferred without one, with the modeline that names the schema.
pub fn init_yaml(directory: &Path) -> String {
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_path_buf());
    let parts = parts(&directory);
    if !parts.is_empty() {
        return init_several(&parts);
    }
    let image = plan::build::directory_reference(&directory).familiar();
    let name =
        ["Dockerfile", "Containerfile"].into_iter().find(|name| directory.join(name).is_file()).unwrap_or("Dockerfile");
    let has_healthcheck = fs_err::read_to_string(directory.join(name)).ok().is_some_and(|text| {
        dockerfile::parse(&text).is_ok_and(|file| {
            let mut instructions = file.stages.iter().flat_map(|stage| &stage.instructions);
            instructions.any(|one| matches!(one.kind, dockerfile::InstructionKind::Healthcheck(_)))
        })
    });
    let health = if has_healthcheck {
        "# The container's HEALTHCHECK is awaited.\nhealth: {attempts: 10}\n"
    } else {
        "# There is no HEALTHCHECK in the Dockerfile: the container is started, and may not fail within a second.\nhealth: {}\n"
    };
    format!(
        "# yaml-language-server: $schema={schema}\n\
         # The schema: seatrial schema > {schema}\n\
         image: {image}\n\
         build: {{dockerfile: {name}, labels: {{commit: \"${{git.sha:-unknown}}\"}}}}\n\
         \n\
         # Checks that run inside the built image, each in a fresh copy.\n\
         # test:\n\
         #   mounts: [tests]\n\
         #   setup: [pip install pytest]\n\
         #   gates:\n\
         #     unit: pytest tests\n\
         \n\
         {health}\
         \n\
         # Without this, the image is only named in the local store: by short commit and branch.\n\
         # publish:\n\
         #   to: registry.example/team\n\
         #   when: {{branch: main}}\n\
         #   tags: [\"${{git.short}}\", latest]\n",
        schema = file::SCHEMA_ID,
    )
}

/// Directories with a Dockerfile each, as `(name of the image, directory)`, where `directory` has none itself.
fn parts(directory: &Path) -> Vec<(String, String)> {
    /// More are no solution but a collection.
    const PARTS_MAX: usize = 20;
    let has_dockerfile =
        |directory: &Path| ["Dockerfile", "Containerfile"].iter().any(|name| directory.join(name).is_file());
    let entries = match fs_err::read_dir(directory) {
        Ok(entries) if !has_dockerfile(directory) => entries,
        _ => return Vec::new(),
    };
    let with_dockerfile = entries.flatten().map(|entry| entry.path()).filter(|path| has_dockerfile(path));
    let name = |path: PathBuf| {
        let directory = path.file_name()?.to_str()?.to_owned();
        Some((plan::build::directory_reference(&path).familiar(), directory))
    };
    let mut parts: Vec<(String, String)> = with_dockerfile.filter_map(name).collect();
    parts.sort();
    parts.dedup_by(|one, other| one.0 == other.0);
    if (2..=PARTS_MAX).contains(&parts.len()) { parts } else { Vec::new() }
}

fn init_several(parts: &[(String, String)]) -> String {
    let images: String = parts.iter().map(|(name, directory)| format!("  {name}: {directory:?}\n")).collect();
    let first = &parts[0].0;
    format!(
        "# yaml-language-server: $schema={schema}\n\
         # The schema: seatrial schema > {schema}\n\
         # What the images have in common; each may say its own.\n\
         build: {{labels: {{commit: \"${{git.sha:-unknown}}\"}}}}\n\
         images:\n\
         {images}\n\
         # Checks of the whole, each in an image of the run or in any other; those of one image stand in its own `test`.\n\
         # test:\n\
         #   gates:\n\
         #     e2e: {{in: {first}, services: [{first}], run: ./e2e.sh}}\n\
         \n\
         # Without this, the images are only named in the local store: by short commit and branch.\n\
         # publish:\n\
         #   to: registry.example/team\n\
         #   when: {{branch: main}}\n\
         #   tags: [\"${{git.short}}\", latest]\n",
        schema = file::SCHEMA_ID,
    )
}
