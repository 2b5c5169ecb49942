//! The files that are published beside the image, checked.

use dockerfile::nearest;
use events::Place;
use globset::GlobBuilder;
use packages::Target;
use serde::Serialize;

use super::{CommandPlan, Planner, SecretPlan};
use crate::{
    codes,
    file::{At, PipelineFile, Publish, PublishFiles},
};

/// Files that go to one place.
#[derive(Clone, Debug, Serialize)]
pub struct FilesPlan {
    /// Commands that make them in the built image; none: they are what `before` made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<CommandPlan>,
    /// Patterns: below `$SEATRIAL_OUT`, or of what `before` made. Each has to match something.
    pub paths: Vec<String>,
    /// Where to, as a template of a [`Target`].
    pub to: String,
    /// Name of the secret with the password or token, in [`crate::Plan::secrets`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where it stands.
    pub place: Option<Place>,
}

/// All entries of `publish`.
pub(super) fn files(planner: &mut Planner<'_>, publish: &Publish, file: &PipelineFile) -> Vec<FilesPlan> {
    publish.files.iter().map(|entry| plan_entry(planner, entry, !file.before.is_empty())).collect()
}

fn plan_entry(planner: &mut Planner<'_>, entry: &PublishFiles, has_before: bool) -> FilesPlan {
    check_source(planner, entry, has_before);
    check_target(planner, &entry.to);
    let command = |run: &At<String>| CommandPlan {
        run: run.value.clone(),
        place: planner.place(&run.span),
        user: None,
        secrets: Vec::new(),
    };
    let commands = entry.run.iter().map(command).collect();
    let mut paths: Vec<String> = entry.path.iter().filter_map(|pattern| self::pattern(planner, pattern)).collect();
    if paths.is_empty() {
        paths.push("*".into());
    }
    FilesPlan {
        commands,
        paths,
        to: entry.to.value.clone(),
        secret: entry.secret.as_ref().and_then(|name| secret(planner, name)),
        user: entry.user.as_ref().and_then(|user| planner.fill(user)),
        place: planner.place(&entry.span),
    }
}

fn check_source(planner: &mut Planner<'_>, entry: &PublishFiles, has_before: bool) {
    match &entry.image {
        Some(image) if image.value != "image" => {
            let message = format!("`{}` is not known; there is `image`, the built one", image.value);
            planner.error(codes::INVALID_VALUE, message, &image.span).help =
                Some("what another image makes is the matter of `before`, whose output is taken by `path`".into());
        }
        Some(image) if entry.run.is_empty() => {
            planner.error(codes::MISSING_KEY, "this entry needs `run`", &image.span).help =
                Some("write the files into `$SEATRIAL_OUT`: `run: cp /app/x.whl $SEATRIAL_OUT`".into());
        }
        Some(_) => {}
        None if !entry.run.is_empty() => {
            planner.error(codes::MISSING_KEY, "this entry needs `in: image`, where its commands run", &entry.span);
        }
        None if entry.path.is_empty() => {
            let message = "this entry needs `in: image` with `run`, or `path` with files that `before` makes";
            planner.error(codes::MISSING_KEY, message, &entry.span);
        }
        None if !has_before => {
            let message = "`path` without `in: image` names what `before` makes, and there is no `before`";
            planner.error(codes::INVALID_VALUE, message, &entry.span);
        }
        None => {}
    }
}

/// A place without a template can be read now.
fn check_target(planner: &mut Planner<'_>, to: &At<String>) {
    planner.check_template(to);
    if !to.value.contains('$')
        && let Err(error) = to.value.parse::<Target>()
    {
        planner.error(codes::INVALID_VALUE, error.to_string(), &to.span);
    }
}

/// A pattern within the directory of the files.
fn pattern(planner: &mut Planner<'_>, pattern: &At<String>) -> Option<String> {
    let text = planner.fill(pattern)?;
    let text = text.strip_prefix("./").unwrap_or(&text).to_owned();
    if text.is_empty() || text.starts_with('/') || text.split('/').any(|part| part == "..") {
        let message = format!("`{text}` is not below the directory of the files");
        planner.error(codes::INVALID_VALUE, message, &pattern.span);
        return None;
    }
    if let Err(error) = GlobBuilder::new(&text).literal_separator(true).build() {
        planner.error(codes::INVALID_VALUE, format!("`{text}` is no pattern: {}", error.kind()), &pattern.span);
        return None;
    }
    Some(text)
}

/// A secret by its name in `secrets`; else by that of its variable, as CI systems give them.
fn secret(planner: &mut Planner<'_>, name: &At<String>) -> Option<String> {
    let text = planner.fill(name)?;
    if planner.secrets.contains_key(&text) {
        return Some(text);
    }
    let is_variable = !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    if is_variable {
        planner.secrets.insert(text.clone(), SecretPlan::Environment(text.clone()));
        return Some(text);
    }
    let near = nearest(&text, planner.secrets.keys().map(String::as_str)).map(str::to_owned);
    let diagnostic = planner.error(codes::INVALID_VALUE, format!("there is no secret `{text}`"), &name.span);
    diagnostic.label = near.map(|near| format!("did you mean `{near}`?"));
    diagnostic.help = Some(format!("define it: `secrets: {{{text}: {{environment: VARIABLE}}}}`"));
    None
}
