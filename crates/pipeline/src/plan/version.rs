//! The version as far as it is known before the build, and where it will be asked for.

use globset::Glob;

use super::{BuildPlan, NO_VERSION, Planner, Version};
use crate::{
    codes,
    file::{self, GitRule, PipelineFile, VersionRule},
    source,
    version::{self, Described, VersionFileError},
};

/// Finds the version; what is wrong with its source is an error at its place.
pub(super) fn version(planner: &mut Planner<'_>, file: &PipelineFile, build: &BuildPlan) -> Version {
    match &file.version {
        None => Version::Absent(NO_VERSION.into()),
        Some(VersionRule::Literal(text)) => match planner.fill_or_absent(text) {
            Ok(version) => Version::Known(version),
            Err(reason) => Version::Absent(reason),
        },
        Some(VersionRule::Git(rule)) => match of_git(planner, rule) {
            Ok(version) => Version::Known(version),
            Err(reason) => Version::Absent(reason),
        },
        Some(VersionRule::Env(name)) => Version::ImageEnv(name.value.clone()),
        Some(VersionRule::Label(name)) => Version::ImageLabel(name.value.clone()),
        Some(VersionRule::Arg(name)) => {
            match build.args.get(&name.value).cloned().or_else(|| arg_default(build, &name.value)) {
                Some(version) => Version::Known(version),
                None => Version::Absent(format!("the build argument `{}` has no value", name.value)),
            }
        }
        Some(VersionRule::Command { command, on_host }) => {
            Version::Command { command: command.value.clone(), on_host: *on_host }
        }
        Some(VersionRule::File { path, regex }) => {
            let Some(found) = planner.path(path, planner.base) else { return Version::Absent(String::new()) };
            let pattern = regex.as_ref().and_then(|regex| file::pattern(&regex.value).ok());
            match version::from_file(&found, &planner.root, pattern.as_ref()) {
                Ok(version) => Version::Known(version),
                Err(error) => {
                    let span = regex.as_ref().map_or(&path.span, |regex| &regex.span);
                    let help = match &error {
                        VersionFileError::NotFound { hint, .. } => hint.clone(),
                        VersionFileError::Read(_) => None,
                    };
                    planner.error(codes::INVALID_VALUE, format!("no version can be read: {error}"), span).help = help;
                    Version::Absent(String::new())
                }
            }
        }
    }
}

/// # Errors
/// Why there is none, in words.
fn of_git(planner: &Planner<'_>, rule: &GitRule) -> Result<String, String> {
    let source = planner.source;
    let named = |tag: &str| match &rule.tags {
        Some(pattern) => version::of_tag_like(tag, pattern).to_owned(),
        None => version::of_tag(tag).to_owned(),
    };
    let Some(form) = rule.describe else {
        let Some(pattern) = &rule.tags else {
            return source.tag.as_deref().map(named).ok_or_else(|| "the commit has no Git tag".into());
        };
        let matcher = Glob::new(pattern).map_err(|error| error.to_string())?.compile_matcher();
        let all = source.tags.iter().chain(&source.tag);
        let matching = all.filter(|tag| matcher.is_match(tag.as_str())).map(|tag| named(tag));
        return source::highest(matching.collect())
            .ok_or_else(|| format!("the commit has no Git tag like `{pattern}`"));
    };
    let described = match (&rule.tags, &source.root) {
        (Some(pattern), Some(root)) => source::describe(root, &planner.values.env, pattern)
            .map(|text| if source.is_dirty { format!("{text}-dirty") } else { text })
            .ok_or_else(|| format!("no Git tag like `{pattern}` comes before the commit"))?,
        _ => source.describe.clone().ok_or("there is no Git commit")?,
    };
    let described = Described::parse(&described);
    let has_tag = source.short.as_deref().is_none_or(|short| !described.tag.starts_with(short));
    if !has_tag && form != version::DescribeForm::Git {
        return Err("no Git tag comes before the commit (a shallow clone has none: fetch them)".into());
    }
    described.version(&named(&described.tag), form)
}

/// The default of an ARG in the Dockerfile, if it is plain text.
fn arg_default(build: &BuildPlan, name: &str) -> Option<String> {
    let text = match (&build.dockerfile_inline, &build.dockerfile_path) {
        (Some(text), _) => text.clone(),
        (None, path) => fs_err::read_to_string(path.as_ref()?).ok()?,
    };
    let dockerfile = dockerfile::parse(&text).ok()?;
    let in_stages = dockerfile.stages.iter().flat_map(|stage| &stage.instructions).filter_map(|one| match &one.kind {
        dockerfile::InstructionKind::Arg(args) => Some(args),
        _ => None,
    });
    let default = std::iter::once(&dockerfile.global_args)
        .chain(in_stages)
        .flatten()
        .filter(|arg| arg.name.raw == name)
        .find_map(|arg| arg.default.as_ref())?;
    let plain = default.raw.trim_matches('"').trim_matches('\'');
    (!plain.contains(['$', '\\', '"', '\''])).then(|| plain.to_owned())
}
