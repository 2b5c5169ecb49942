//! Labels of the OCI annotation keys (image-spec, "Pre-Defined Annotation Keys"): what the source says, never the clock, so that
//! the same commit gives the same image.

use jiff::Timestamp;
use oci::Reference;

use super::{BuildPlan, Version};
use crate::{Source, Values};

/// What the keys begin with.
const PREFIX: &str = "org.opencontainers.image.";

/// Adds those labels that neither the file nor the Dockerfile sets.
pub(super) fn add(build: &mut BuildPlan, source: &Source, values: &Values, image: &Reference) {
    let created = source.commit_time.and_then(|time| Timestamp::try_from(time).ok());
    let version = match &values.version {
        Version::Known(version) => Some(version.clone()),
        _ => source.tag.clone().or_else(|| source.branch.clone()),
    };
    let title = image.path().rsplit('/').next().map(str::to_owned);
    let labels = [
        ("created", created.map(|time| time.to_string())),
        ("revision", source.sha.clone()),
        ("source", source.url.clone()),
        ("url", source.url.clone()),
        ("version", version),
        ("ref.name", source.tag.clone().or_else(|| source.branch.clone())),
        ("title", title),
    ];
    let own = in_dockerfile(build);
    for (key, value) in labels {
        let key = format!("{PREFIX}{key}");
        if let Some(value) = value.filter(|_| !own.contains(&key)) {
            build.labels.entry(key).or_insert(value);
        }
    }
}

/// Names of labels that the Dockerfile sets itself.
fn in_dockerfile(build: &BuildPlan) -> Vec<String> {
    let text = match (&build.dockerfile_inline, &build.dockerfile_path) {
        (Some(text), _) => text.clone(),
        (None, path) => path.as_ref().and_then(|path| fs_err::read_to_string(path).ok()).unwrap_or_default(),
    };
    let Ok(dockerfile) = dockerfile::parse(&text) else { return Vec::new() };
    let instructions = dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
    let labels = instructions.filter_map(|one| match &one.kind {
        dockerfile::InstructionKind::Label(labels) => Some(labels),
        _ => None,
    });
    labels.flatten().map(|(key, _)| key.raw.trim_matches(['"', '\'']).to_owned()).collect()
}
