//! The services that gates use, resolved and checked.

use std::collections::{BTreeMap, BTreeSet};

use compose::{Link, Project};
use dockerfile::nearest;
use serde::Serialize;

use super::Planner;
use crate::{
    codes,
    file::{At, PipelineFile, Uses},
};

/// The services that a gate uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UsesPlan {
    /// Names, those of links included.
    #[serde(rename = "services", skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Those that the gate is told of as docker's links do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// They are started for this gate alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub fresh: bool,
}

impl UsesPlan {
    /// Images of the run that these services and what they need are started from.
    pub(crate) fn images(&self, project: &Project) -> BTreeSet<String> {
        // A service that does not exist is told of where it is started.
        let needed = services::needed(&project.services, &self.names).unwrap_or_default();
        needed.into_iter().filter_map(|service| service.from.clone()).collect()
    }
}

/// What a gate uses beside what all gates do.
pub(super) fn uses(planner: &mut Planner<'_>, gate: &Uses, shared: &Uses) -> UsesPlan {
    let mut plan = UsesPlan { fresh: gate.fresh || (shared.fresh && gate.services.is_empty()), ..UsesPlan::default() };
    let add = |names: &mut Vec<String>, name: &str| {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    };
    for given in shared.services.iter().chain(&gate.services) {
        if let Some(name) = planner.fill(given) {
            add(&mut plan.names, &name);
        }
    }
    for given in shared.links.iter().chain(&gate.links) {
        let Some(text) = planner.fill(given) else { continue };
        let (service, alias) = text.split_once(':').unwrap_or((&text, &text));
        add(&mut plan.names, service);
        plan.links.retain(|link| link.alias != alias);
        plan.links.push(Link { service: service.to_owned(), alias: alias.to_owned() });
    }
    plan
}

/// Stages that services may not be named like.
const RESERVED_NAMES: &[&str] = &["build", "setup", "health", "publish", "publish-files", "tags", "before"];

/// Every service that is used exists, and none has the name of another stage.
pub(super) fn check(planner: &mut Planner<'_>, file: &PipelineFile, project: &Project) {
    let known: BTreeMap<&str, ()> = project.services.iter().map(|service| (service.name.as_str(), ())).collect();
    let of_tests = file
        .test
        .iter()
        .flat_map(|test| std::iter::once(&test.uses).chain(test.gates.iter().map(|(_, gate)| &gate.uses)));
    let uses: Vec<&Uses> = of_tests.chain(file.health.iter().map(|health| &health.uses)).collect();
    let named = |at: &At<String>| at.value.split(':').next().unwrap_or_default().to_owned();
    for given in uses.iter().flat_map(|uses| uses.services.iter().chain(&uses.links)) {
        let name = named(given);
        if known.contains_key(name.as_str()) || name.contains('$') {
            continue;
        }
        let near = nearest(&name, known.keys().copied()).map(|near| format!("did you mean `{near}`?"));
        let help =
            known.is_empty().then(|| "describe it under `services:`, or name a Compose file in `include:`".into());
        let diagnostic = planner.error(codes::INVALID_VALUE, format!("there is no service `{name}`"), &given.span);
        (diagnostic.label, diagnostic.help) = (near, help);
    }
    for (name, _) in file.test.iter().flat_map(|test| &test.gates) {
        if known.contains_key(name.value.as_str()) {
            let message =
                format!("gate `{}` is named like a service: both have a log and a line of their own", name.value);
            planner.error(codes::INVALID_VALUE, message, &name.span);
        }
    }
    let taken = project.services.iter().filter(|service| RESERVED_NAMES.contains(&service.name.as_str()));
    let used =
        |name: &str| uses.iter().flat_map(|uses| uses.services.iter().chain(&uses.links)).find(|at| named(at) == name);
    for service in taken {
        if let Some(at) = used(&service.name) {
            let message =
                format!("a service of a run may not be named `{}`: that is a stage of every run", service.name);
            planner.error(codes::INVALID_VALUE, message, &at.span);
        }
    }
}
