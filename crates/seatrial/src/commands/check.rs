//! `seatrial check`: Dockerfile and pipeline file, without building.

mod dockerfile;

use std::path::{Path, PathBuf};

use ::dockerfile::{
    Diagnostic, Severity,
    lint::{self, LAYER_LIMIT},
};
use clap::ValueEnum;
use pipeline::{Plan, PrepareError, PrepareRequest, Prepared, SourceText};

use super::{init::environment, run::prepare_failure};
use crate::{
    context::Context,
    exit::Exit,
    failure::Failure,
    settings::find_dockerfile,
    terminal::{
        self, Palette,
        diagnostics::{self, Findings},
        summary::relative,
        text,
    },
};
use dockerfile::Subject;
pub(super) use dockerfile::{CheckedDockerfile, check_request};

/// Flags of `seatrial check`.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Dockerfile, or directory of one [default: what the pipeline builds]
    path: Option<PathBuf>,
    /// This pipeline file instead of the nearest seatrial.yaml
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How findings are written
    #[arg(long, value_enum, default_value_t)]
    format: CheckFormat,
    /// Warnings make it exit 1
    #[arg(long)]
    strict: bool,
}

/// Forms of findings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckFormat {
    /// With the place, for people
    #[default]
    Text,
    /// The JSON of `docker build --call=check,format=json`, with more about each finding
    Json,
    /// SARIF 2.1.0
    Sarif,
    /// GitHub's annotations
    Github,
}

/// A file with what was found in it.
struct Checked {
    name: String,
    text: String,
    diagnostics: Vec<Diagnostic>,
}

/// The Dockerfile that is checked, and what it would be built with.
struct Target {
    path: PathBuf,
    context: Option<PathBuf>,
    stage: Option<String>,
    build_args: Vec<(String, String)>,
    platform: oci::Platform,
    layer_limit: usize,
}

impl Target {
    /// Built in its own directory.
    fn beside(path: PathBuf) -> Self {
        let context = path.parent().map(Path::to_owned);
        Self {
            path,
            context,
            stage: None,
            build_args: Vec::new(),
            platform: oci::Platform::host(),
            layer_limit: LAYER_LIMIT,
        }
    }

    /// As a plan builds it; `None` where its Dockerfile is no file.
    fn of(plan: &Plan) -> Option<Self> {
        let build = plan.build.clone();
        Some(Self {
            path: build.dockerfile_path?,
            context: Some(build.context),
            stage: build.target,
            build_args: build.args.into_iter().collect(),
            platform: build.platform.and_then(|text| text.parse().ok()).unwrap_or_else(oci::Platform::host),
            layer_limit: plan.limits.layers.map_or(LAYER_LIMIT, |limit| limit.min(LAYER_LIMIT)),
        })
    }

    fn subject<'a>(&'a self, text: &'a str, only_needed_stages: bool) -> Subject<'a> {
        Subject {
            text,
            context: self.context.as_deref(),
            path: Some(&self.path),
            target: self.stage.as_deref(),
            build_args: &self.build_args,
            platform: self.platform.clone(),
            layer_limit: self.layer_limit,
            only_needed_stages,
        }
    }
}

/// Checks both files; errors exit 2, warnings 0 (1 with `--strict`).
pub(crate) fn run(args: &CheckArgs, context: &Context) -> anyhow::Result<Exit> {
    let mut files = Vec::new();
    let dockerfiles = match &args.path {
        Some(path) => vec![Target::beside(named_dockerfile(path, context)?)],
        None => pipeline_file(args, context, &mut files)?,
    };
    for target in dockerfiles {
        files.push(check_file(&target, context)?);
    }
    let findings: Vec<Findings<'_>> = files
        .iter()
        .map(|file| Findings { name: &file.name, text: &file.text, diagnostics: &file.diagnostics })
        .collect();
    show(&findings, args.format);

    let worst = files.iter().filter_map(|file| lint::worst(&file.diagnostics)).max();
    Ok(match worst {
        Some(Severity::Error) => Exit::Usage,
        Some(Severity::Warning) if args.strict => Exit::Refused,
        _ => Exit::Passed,
    })
}

fn named_dockerfile(path: &Path, context: &Context) -> Result<PathBuf, Failure> {
    let path = context.settings.cwd.join(path);
    if path.is_dir() {
        return find_dockerfile(&path).ok_or_else(|| super::build::no_dockerfile(&path));
    }
    if path.is_file() { Ok(path) } else { Err(Failure::usage(format!("there is no file {}", path.display()))) }
}

/// Findings of the pipeline file; returns the Dockerfiles that it builds.
fn pipeline_file(args: &CheckArgs, context: &Context, files: &mut Vec<Checked>) -> anyhow::Result<Vec<Target>> {
    let request = PrepareRequest {
        directory: context.settings.cwd.clone(),
        file: args.file.as_ref().map(|file| context.settings.cwd.join(file)),
        env: environment(),
        run_number: None,
    };
    match pipeline::prepare(&request) {
        Ok(Prepared { plan, file, warnings, .. }) => {
            if let Some(SourceText { name, text, .. }) = file {
                files.push(Checked { name, text, diagnostics: warnings });
            }
            let targets = plan.parts().filter_map(Target::of).collect();
            add_included(files, plan.services.included);
            Ok(targets)
        }
        Err(PrepareError::Invalid(invalid)) => {
            let SourceText { name, text, .. } = *invalid.file;
            files.push(Checked { name, text, diagnostics: invalid.diagnostics });
            add_included(files, invalid.included);
            Ok(find_dockerfile(&context.settings.cwd).map(Target::beside).into_iter().collect())
        }
        Err(error) => Err(prepare_failure(error).into()),
    }
}

/// Compose files that the pipeline file includes, with what was found in them.
fn add_included(files: &mut Vec<Checked>, included: Vec<compose::Finding>) {
    for compose::Finding { file, diagnostic } in included {
        match files.iter_mut().find(|checked| checked.name == file.name) {
            Some(checked) => checked.diagnostics.push(diagnostic),
            None => {
                files.push(Checked { name: file.name.clone(), text: file.text.clone(), diagnostics: vec![diagnostic] })
            }
        }
    }
}

/// Checks the Dockerfile that a plan builds, with its text; `None` for one that is not a file, or not readable.
pub(super) fn check_plan(plan: &Plan, home: &Path) -> Option<(CheckedDockerfile, String)> {
    let target = Target::of(plan)?;
    let text = std::fs::read_to_string(&target.path).ok()?;
    Some((target.subject(&text, true).check(home), text))
}

fn check_file(target: &Target, context: &Context) -> anyhow::Result<Checked> {
    let path = &target.path;
    let bytes = match fs_err::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return Err(Failure::usage("cannot read the Dockerfile").because(&error).into()),
    };
    let text = String::from_utf8(bytes)
        .map_err(|error| Failure::usage(format!("{} is not UTF-8", path.display())).because(&error))?;
    let name = relative(path, &context.settings.cwd).display().to_string();
    let diagnostics = target.subject(&text, false).check(&context.settings.home).diagnostics;
    Ok(Checked { name, text, diagnostics })
}

/// Writes findings to stdout; for people, how many there are to stderr.
pub(super) fn show(files: &[Findings<'_>], format: CheckFormat) {
    match format {
        CheckFormat::Text => {
            let palette = Palette::new(terminal::streams().stdout_colours);
            let blocks: Vec<String> =
                files.iter().filter(|file| !file.diagnostics.is_empty()).map(|file| file.render(palette)).collect();
            terminal::result(&blocks.join("\n"));
            let number =
                |severity| files.iter().flat_map(|file| file.diagnostics).filter(|d| d.severity == severity).count();
            let names: Vec<&str> = files.iter().map(|file| file.name).collect();
            let (errors, warnings) = (number(Severity::Error), number(Severity::Warning));
            let words = match (errors, warnings) {
                (0, 0) => "nothing to complain about".to_owned(),
                (0, warnings) => text::count(warnings, "warning"),
                (errors, 0) => text::count(errors, "error"),
                (errors, warnings) => format!("{}, {}", text::count(errors, "error"), text::count(warnings, "warning")),
            };
            terminal::message_line(&format!("{}: {words}", names.join(", ")));
        }
        CheckFormat::Json => terminal::result_line(&diagnostics::json(files).to_string()),
        CheckFormat::Sarif => terminal::result_line(&diagnostics::sarif(files).to_string()),
        CheckFormat::Github => files.iter().for_each(|file| terminal::result(&file.to_github())),
    }
}
