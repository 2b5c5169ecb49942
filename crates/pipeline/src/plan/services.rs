//! The sections that are Compose's, to services.

use std::rc::Rc;

use compose::{Finding, Project, Sections};
use dockerfile::Diagnostic;
use oci::Reference;
use serde::Serialize;

use super::Planner;
use crate::{codes, file::PipelineFile};

/// The services of the pipeline file and of the files that it includes. They are started when a gate or another service
/// needs them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ServicesPlan {
    /// The services with their networks, volumes, configs and secrets.
    #[serde(flatten)]
    pub project: Project,
    /// What was found in included files, with their texts.
    #[serde(skip)]
    pub included: Vec<Finding>,
}

pub(super) fn services(planner: &mut Planner<'_>, file: &PipelineFile, image: &Reference) -> ServicesPlan {
    let entries = file.compose_sections();
    let Some(text) = planner.text.filter(|_| !entries.is_empty()) else { return ServicesPlan::default() };
    let last = image.path().rsplit('/').next().unwrap_or("app");
    let sections = Sections {
        file: text,
        entries,
        base: planner.base,
        root: &planner.root,
        name: last,
        variables: Rc::new(planner.values.clone()),
    };
    let read = sections.read();
    // Secrets are looked at for gates, too.
    let is_new = |finding: &Diagnostic| {
        !planner.diagnostics.iter().any(|own| (own.code, &own.span) == (finding.code, &finding.span))
    };
    let new: Vec<Diagnostic> = read.diagnostics.into_iter().filter(is_new).collect();
    planner.diagnostics.extend(new);
    for service in &read.project.services {
        let Some(from) = service.from.as_deref().filter(|from| *from != last) else { continue };
        let named = file.services.as_ref().and_then(|services| services.value.get(&service.name)?.get("from").cloned());
        let Some(node) = named else { continue };
        let near = dockerfile::nearest(from, [last]).map(|near| format!("did you mean `{near}`?"));
        let message = format!("no image `{from}` is built here");
        let diagnostic = planner.error(codes::INVALID_VALUE, message, &node.span);
        diagnostic.label = near;
        diagnostic.notes.push(format!("the run builds `{last}`"));
    }
    ServicesPlan { project: read.project, included: read.included }
}
