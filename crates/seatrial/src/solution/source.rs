//! What a project is read from: Compose files as docker compose finds them, or the services of seatrial.yaml.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use compose::{Finding, LoadError, LoadRequest, Project};
use evidence::Trust;
use pipeline::Plan;
use serde::{Deserialize, Serialize};

use crate::{
    commands::trust,
    context::Context,
    failure::Failure,
    settings::find_pipeline_file,
    terminal::{Palette, diagnostics::Findings},
};

/// Flags by which a project is named, with docker compose's meaning.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ProjectArgs {
    /// Compose file, or seatrial.yaml; several are merged [default: compose.yaml as docker compose finds it, else the services of
    /// seatrial.yaml]
    #[arg(short, long, value_name = "FILE", help_heading = "Project options")]
    pub(crate) file: Vec<PathBuf>,
    /// Name of the project [default: the file's `name`, else its directory's]
    #[arg(short, long, value_name = "NAME", help_heading = "Project options")]
    pub(crate) project_name: Option<String>,
    /// Directory that relative paths start from [default: the first file's]
    #[arg(long, value_name = "DIR", help_heading = "Project options")]
    pub(crate) project_directory: Option<PathBuf>,
    /// Profile whose services take part; `*` is all
    #[arg(long, value_name = "PROFILE", help_heading = "Project options")]
    pub(crate) profile: Vec<String>,
    /// File of variables instead of .env
    #[arg(long, value_name = "FILE", help_heading = "Project options")]
    pub(crate) env_file: Vec<PathBuf>,
}

impl ProjectArgs {
    /// Whether anything is said.
    pub(crate) fn is_given(&self) -> bool {
        !self.file.is_empty()
            || self.project_name.is_some()
            || self.project_directory.is_some()
            || !self.profile.is_empty()
            || !self.env_file.is_empty()
    }
}

/// All that a project is read from, so that its owner reads the same as the command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Source {
    directory: PathBuf,
    files: Vec<PathBuf>,
    /// The services of this pipeline file instead.
    pipeline: Option<PathBuf>,
    project_directory: Option<PathBuf>,
    name: Option<String>,
    env_files: Vec<PathBuf>,
    profiles: Vec<String>,
    env: BTreeMap<String, String>,
}

/// A project that was read.
pub(crate) struct Read {
    pub(crate) project: Project,
    /// What was noticed, drawn.
    pub(crate) warnings: String,
    /// Host paths of services lie in it.
    pub(crate) directory: PathBuf,
    /// The plan whose images services may start `from`; Compose files have none.
    pub(crate) plan: Option<Plan>,
}

impl Source {
    /// By flags and environment.
    pub(crate) fn new(args: &ProjectArgs, context: &Context) -> Self {
        let cwd = &context.settings.cwd;
        let env = crate::commands::environment();
        let is_pipeline = |path: &Path| {
            matches!(path.file_name().and_then(|name| name.to_str()), Some("seatrial.yaml" | "seatrial.yml"))
        };
        let pipeline = match args.file.as_slice() {
            [only] if is_pipeline(only) => Some(cwd.join(only)),
            [] if !env.contains_key("COMPOSE_FILE") => {
                let from = args.project_directory.as_ref().map_or_else(|| cwd.clone(), |directory| cwd.join(directory));
                if compose::find_files(&from).is_empty() { find_pipeline_file(&from) } else { None }
            }
            _ => None,
        };
        Self {
            directory: cwd.clone(),
            files: args.file.clone(),
            pipeline,
            project_directory: args.project_directory.clone(),
            name: args.project_name.clone(),
            env_files: args.env_file.clone(),
            profiles: args.profile.clone(),
            env,
        }
    }

    /// The variables that secrets may come from.
    pub(crate) fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// Name of the project. The files are only read when nobody says it.
    pub(crate) fn name(&self) -> Result<String, Failure> {
        let given = self.name.clone().or_else(|| self.env.get("COMPOSE_PROJECT_NAME").cloned());
        match given.filter(|name| !name.is_empty()) {
            Some(name) if is_name(&name) => Ok(name),
            Some(name) => Err(load_failure(LoadError::Name(name))),
            None => self.read().map(|read| read.project.name),
        }
    }

    /// Reads the project.
    pub(crate) fn read(&self) -> Result<Read, Failure> {
        match &self.pipeline {
            Some(file) => self.read_pipeline(file),
            None => self.read_compose(),
        }
    }

    /// What images need before they are used: the pipeline file's word, also where the services stand in Compose files.
    pub(crate) fn trust(&self, read: &Read) -> Result<Trust, Failure> {
        match &read.plan {
            Some(plan) => trust::of(plan),
            None => trust::nearest(&read.project.directory, &self.env),
        }
    }

    fn read_compose(&self) -> Result<Read, Failure> {
        let request = LoadRequest {
            working_directory: self.directory.clone(),
            files: self.files.clone(),
            project_directory: self.project_directory.clone(),
            name: self.name.clone(),
            env_files: self.env_files.clone(),
            profiles: self.profiles.clone(),
            env: self.env.clone(),
        };
        let loaded = Project::load(&request).map_err(load_failure)?;
        let directory = repository_of(&loaded.project.directory);
        Ok(Read { project: loaded.project, warnings: drawn(&loaded.warnings), directory, plan: None })
    }

    fn read_pipeline(&self, file: &Path) -> Result<Read, Failure> {
        let request = pipeline::PrepareRequest {
            directory: file.parent().unwrap_or(Path::new("/")).to_owned(),
            file: Some(file.to_owned()),
            env: self.env.clone(),
            run_number: None,
        };
        let prepared = pipeline::prepare(&request).map_err(crate::commands::prepare_failure)?;
        let services = &prepared.plan.services;
        let mut project = services.project.clone();
        if project.services.is_empty() {
            return Err(Failure::usage(format!("there are no services in {}", file.display()))
                .hint("write them under `services:`, in Compose's words, or `include:` a compose.yaml"));
        }
        let name = self.name.clone().or_else(|| self.env.get("COMPOSE_PROJECT_NAME").cloned());
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            rename(&mut project, name);
        }
        let (directory, warnings) = (repository_of(&project.directory), drawn(&services.included));
        Ok(Read { project, warnings, directory, plan: Some(prepared.plan) })
    }
}

/// Volumes are called after their project.
fn rename(project: &mut Project, name: String) {
    for (key, volume) in &mut project.volumes {
        if volume.name == format!("{}_{key}", project.name) {
            volume.name = format!("{name}_{key}");
        }
    }
    project.name = name;
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.starts_with(plain) && name.chars().all(|c| plain(c) || matches!(c, '-' | '_'))
}

/// The Git repository around a project: what belongs to it may be shown to its services.
fn repository_of(directory: &Path) -> PathBuf {
    let root = directory.ancestors().find(|ancestor| ancestor.join(".git").exists());
    root.unwrap_or(directory).to_owned()
}

fn drawn(findings: &[Finding]) -> String {
    let one = |finding: &Finding| {
        let Finding { file, diagnostic } = finding;
        let diagnostics = std::slice::from_ref(diagnostic);
        Findings { name: &file.name, text: &file.text, diagnostics }.render(Palette::stderr())
    };
    findings.iter().map(one).collect::<Vec<_>>().join("\n")
}

fn load_failure(error: LoadError) -> Failure {
    let failure = Failure::usage(error.to_string());
    match error {
        LoadError::Invalid(findings) => failure.shown_as(drawn(&findings)),
        LoadError::NoFile { .. } => failure
            .hint("name one with `-f FILE`, or a project that is up with `-p NAME` (`seatrial ps --all-projects`)")
            .hint("an image alone is started with `seatrial shell IMAGE`"),
        _ => failure,
    }
}
