//! The sections that are Compose's, to services.

use std::rc::Rc;

use compose::{Finding, Project, Sections};
use dockerfile::Diagnostic;
use oci::Reference;
use serde::Serialize;

use super::{OF_RUN, Planner};
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
    let mut project = read.project;
    let built = if planner.names.is_empty() { vec![last.to_owned()] } else { planner.names.clone() };
    for service in &mut project.services {
        let named = service.image.as_ref().map(Reference::familiar);
        if let Some(name) =
            named.as_deref().and_then(|named| named.strip_prefix(OF_RUN)).filter(|_| !planner.names.is_empty())
        {
            (service.from, service.image) = (Some(name.to_owned()), None);
        }
        let Some(from) = service.from.as_deref().filter(|from| !built.iter().any(|built| built == from)) else {
            continue;
        };
        let said = file.services.as_ref().and_then(|services| services.value.get(&service.name));
        let Some(node) = said.and_then(|said| said.get("from").or_else(|| said.get("image"))) else { continue };
        let near = dockerfile::nearest(from, built.iter().map(String::as_str));
        let near = near.map(|near| format!("did you mean `{near}`?"));
        let message = format!("no image `{from}` is built here");
        let diagnostic = planner.error(codes::UNKNOWN_IMAGE, message, &node.span);
        diagnostic.label = near;
        diagnostic.notes.push(format!(
            "the run builds {}",
            built.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        ));
    }
    ServicesPlan { project, included: read.included }
}
