//! Several images: what each is, in which order they are made, and what may not be.
//!
//! The name of an image is its entry's `image`, else the file's `image` (its images share that repository and differ by their
//! tags), else the name of the entry.

use std::{collections::BTreeMap, path::PathBuf};

use compose::{Project, Service};
use dockerfile::{Diagnostic, Span, nearest};

use super::{BuildPlan, NO_VERSION, Plan, Planner, ServicesPlan, build, gates, local_tags, services, uses, version};
use crate::{
    TagInputs, Version, choose_tags_by, codes,
    file::{At, PipelineFile, Test},
    tags,
};

/// What a named context that is another image of the run begins with; so does a service's `image`.
pub(crate) const OF_RUN: &str = "image:";

/// A place that names another image of the run.
pub(super) struct Use {
    /// The image that names it.
    by: String,
    name: String,
    span: Span,
}

/// The plan of a file with `images`.
pub(super) fn solution(planner: &mut Planner<'_>, file: &PipelineFile) -> Plan {
    let names: Vec<String> = file.images.iter().map(|(name, _)| name.value.clone()).collect();
    planner.names = names;
    let own: Vec<PipelineFile> = file.images.iter().map(|(_, entry)| file.of_image(entry)).collect();
    let mut images: Vec<Plan> = Vec::new();
    for ((name, _), own) in file.images.iter().zip(&own) {
        images.push(planner.one_of_several(name, own));
    }
    let (image, image_is_given) = build::image(planner, file.image.as_ref(), None);
    planner.values.version = version::version(planner, file, &BuildPlan::default());
    let test = gates::test(planner, file.test.as_ref());
    refuse_gates_without_image(planner, file.test.as_ref());
    let mut services = services::services(planner, file, &image);
    let tests: Vec<&Test> = file.test.iter().chain(own.iter().filter_map(|own| own.test.as_ref())).collect();
    build_once(planner, file, &images, &mut services.project);
    add_services(planner, &tests, &mut services.project);
    for one in own.iter().chain([file]) {
        uses::check(planner, one, &services.project);
    }
    separate_names(&own, &mut images);
    let own_names: Vec<_> = images.iter().flat_map(Plan::own_names).collect();
    let trust = planner.trust(file, &own_names);
    let environments = planner.environments(&file.environments, &trust);
    for image in &mut images {
        image.services = ServicesPlan { project: services.project.clone(), included: Vec::new() };
        image.trust.clone_from(&trust);
    }
    let whole = Plan {
        name: image.path().rsplit('/').next().unwrap_or("app").to_owned(),
        version: planner.values.version.clone(),
        build: BuildPlan { context: planner.base.to_path_buf(), ..BuildPlan::default() },
        test,
        services,
        image,
        image_is_given,
        images,
        environments,
        trust,
        ..planner.rest_of_plan(file)
    };
    refuse_cycles(planner, &whole, &own);
    refuse_equal_names(planner, &whole, file);
    drop_repeated(planner);
    whole
}

impl Planner<'_> {
    fn one_of_several(&mut self, name: &At<String>, own: &PipelineFile) -> Plan {
        self.entry = Some(name.value.clone());
        self.values.version = Version::Absent(NO_VERSION.into());
        let mut plan = self.image(own, Some(name));
        self.entry = None;
        plan.name.clone_from(&name.value);
        for gate in &mut plan.test.gates {
            let qualify = |text: &mut String| *text = format!("{}/{text}", name.value);
            qualify(&mut gate.name);
            gate.group.iter_mut().for_each(qualify);
            gate.needs.iter_mut().for_each(qualify);
        }
        plan.entry = Some(name.value.clone());
        plan
    }

    /// The image of the run that a text names; an error where there is none.
    pub(super) fn image_of_run(&mut self, name: &str, span: &Span) -> Option<String> {
        if self.names.iter().any(|known| known == name) {
            if let Some(by) = self.entry.clone() {
                self.image_uses.push(Use { by, name: name.to_owned(), span: span.clone() });
            }
            return Some(name.to_owned());
        }
        let near = nearest(name, self.names.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
        let notes = match self.names.as_slice() {
            [] => "images of one run are defined under `images:`".to_owned(),
            names => format!("there are {}", names.join(", ")),
        };
        let diagnostic = self.error(codes::UNKNOWN_IMAGE, format!("no image `{name}` is built here"), span);
        diagnostic.label = near;
        diagnostic.notes.push(notes);
        None
    }
}

/// The top level builds nothing: its gates have to say where they run.
fn refuse_gates_without_image(planner: &mut Planner<'_>, test: Option<&Test>) {
    let names = planner.names.join(", ");
    for (name, gate) in test.iter().flat_map(|test| &test.gates) {
        if gate.image.is_none() {
            let message = format!("gate `{}` has to say `in` which image it runs", name.value);
            planner.error(codes::MISSING_KEY, message, &name.span).help = Some(format!(
                "name an image of the run ({names}) or any other one; or move the gate into the `test` of its image"
            ));
        }
    }
}

/// A service that is built as the image of its name is that image.
fn build_once(planner: &mut Planner<'_>, file: &PipelineFile, images: &[Plan], project: &mut Project) {
    for service in &mut project.services {
        let (Some(image), Some(build)) = (images.iter().find(|image| image.name == service.name), &service.build)
        else {
            continue;
        };
        if is_same_build(build, &image.build) {
            (service.from, service.build, service.image) = (Some(service.name.clone()), None, None);
        } else if let Some((at, _)) = file.images.iter().find(|(name, _)| name.value == service.name) {
            let message = format!(
                "service `{}` is built on its own: its `build` in the Compose file is not that of this image",
                service.name
            );
            let span = at.span.clone();
            planner.diagnostics.push(Diagnostic::warning(codes::BUILT_TWICE, message).with_span(span));
        }
    }
}

/// A gate may name an image of the run as a service without describing one.
fn add_services(planner: &Planner<'_>, tests: &[&Test], project: &mut Project) {
    let uses =
        tests.iter().flat_map(|test| std::iter::once(&test.uses).chain(test.gates.iter().map(|(_, gate)| &gate.uses)));
    for given in uses.flat_map(|uses| uses.services.iter().chain(&uses.links)) {
        let name = given.value.split(':').next().unwrap_or_default();
        let is_known = project.services.iter().any(|service| service.name == name);
        if !is_known && planner.names.iter().any(|image| image == name) {
            let place = planner.place(&given.span);
            let service = Service { name: name.to_owned(), from: Some(name.to_owned()), place, ..Service::default() };
            project.services.push(service);
        }
    }
}

/// Images that share a repository have local and default tags of their own: `base-3f2a91c`.
fn separate_names(own: &[PipelineFile], images: &mut [Plan]) {
    let repositories: Vec<String> = images.iter().map(|image| image.image.repository()).collect();
    for (at, image) in images.iter_mut().enumerate() {
        if repositories.iter().filter(|other| **other == repositories[at]).count() < 2 {
            continue;
        }
        image.tag_prefix = format!("{}-", image.name);
        image.local_tags = local_tags(&image.tag_prefix);
        if let Some(publish) = &mut image.publish
            && own[at].publish.as_ref().is_none_or(|publish| publish.tags.is_none())
        {
            publish.tags.clone_from(&image.local_tags);
        }
    }
}

/// A state that others wait for: an image is built, or it has passed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Built(usize),
    Passed(usize),
}

/// An image begins when those that it is built on have passed, and passes when those that its gates use are built. Whoever
/// waits for itself waits for ever.
fn refuse_cycles(planner: &mut Planner<'_>, whole: &Plan, own: &[PipelineFile]) {
    let at = |name: &str| whole.images.iter().position(|image| image.name == name);
    let mut edges: BTreeMap<State, Vec<(State, Span)>> = BTreeMap::new();
    for used in std::mem::take(&mut planner.image_uses) {
        if let (Some(by), Some(on)) = (at(&used.by), at(&used.name)) {
            let is_base = whole.images[by].build.images().any(|name| name == used.name);
            let (from, to) =
                if is_base { (State::Built(by), State::Passed(on)) } else { (State::Passed(by), State::Built(on)) };
            edges.entry(from).or_default().push((to, used.span));
        }
    }
    for (by, image) in whole.images.iter().enumerate() {
        edges.entry(State::Passed(by)).or_default().push((State::Built(by), 0..0));
        let spans = own[by].test.iter().flat_map(|test| &test.gates).map(|(name, gate)| (name, &gate.uses));
        for (name, uses) in spans {
            let Some(gate) = image.test.gates.iter().find(|gate| gate.file_name() == name.value) else { continue };
            let span = uses.services.first().or(uses.links.first()).map_or(&name.span, |given| &given.span);
            for used in gate.uses.images(&image.services.project).iter().filter_map(|name| at(name)) {
                edges.entry(State::Passed(by)).or_default().push((State::Built(used), span.clone()));
            }
        }
    }
    let (mut done, mut path) = (Vec::new(), Vec::new());
    for start in edges.keys().copied().collect::<Vec<_>>() {
        if let Some((chain, span)) = cycle(&edges, start, &mut done, &mut path) {
            let mut names: Vec<&str> = Vec::new();
            for state in chain {
                let (State::Built(at) | State::Passed(at)) = state;
                let name = whole.images[at].name.as_str();
                if names.last() != Some(&name) {
                    names.push(name);
                }
            }
            if names.len() == 1 || names.first() != names.last() {
                names.push(names[0]);
            }
            let message = format!("images wait for each other: {}", names.join(" → "));
            planner.error(codes::IMAGE_CYCLE, message, &span);
            return;
        }
    }
}

/// A walk in depth: no longer than there are states.
fn cycle(
    edges: &BTreeMap<State, Vec<(State, Span)>>,
    state: State,
    done: &mut Vec<State>,
    path: &mut Vec<State>,
) -> Option<(Vec<State>, Span)> {
    if done.contains(&state) {
        return None;
    }
    path.push(state);
    for (next, span) in edges.get(&state).into_iter().flatten() {
        if let Some(from) = path.iter().position(|known| known == next) {
            return Some((path[from..].to_vec(), span.clone()));
        }
        if let Some((chain, inner)) = cycle(edges, *next, done, path) {
            // The place of a step within one image says nothing.
            return Some((chain, if inner == (0..0) { span.clone() } else { inner }));
        }
    }
    path.pop();
    done.push(state);
    None
}

/// Two images with one name would hide one another. Names that only a built image tells are compared once it is built.
fn refuse_equal_names(planner: &mut Planner<'_>, whole: &Plan, file: &PipelineFile) {
    let mut taken: BTreeMap<String, &str> = BTreeMap::new();
    for (image, (at, entry)) in whole.images.iter().zip(&file.images) {
        for name in image.names_known() {
            match taken.insert(name.clone(), &image.name) {
                Some(other) if other != image.name => {
                    let span = entry.publish.as_ref().and_then(|publish| publish.tags.as_ref()?.first());
                    let span = span.map_or(&at.span, |tag| &tag.span);
                    planner
                        .error(codes::SAME_NAME, format!("`{other}` and `{}` would both be {name}", image.name), span)
                        .help = Some("give each its own `image`, or `publish.tags` that tell them apart".into());
                    break;
                }
                _ => {}
            }
        }
    }
}

/// What the top level says wrongly is said once, not for each image.
fn drop_repeated(planner: &mut Planner<'_>) {
    let mut seen: Vec<(String, Option<Span>)> = Vec::new();
    planner.diagnostics.retain(|diagnostic| {
        let one = (diagnostic.message.clone(), diagnostic.span.clone());
        let is_new = !seen.contains(&one);
        if is_new {
            seen.push(one);
        }
        is_new
    });
}

impl Plan {
    /// Full names in registries and in the store that are known before the build.
    fn names_known(&self) -> Vec<String> {
        let Some(publish) = &self.publish else { return Vec::new() };
        if publish.repositories.is_empty() || tags::holds(&publish.when, &self.source, &self.values.env).is_err() {
            return Vec::new();
        }
        let (rules, flavor) = (publish.tags.as_slice(), &publish.flavor);
        let inputs = TagInputs { rules, flavor, source: &self.source, values: &self.values, now: None };
        let tags = choose_tags_by(inputs).tags;
        let repositories = || publish.repositories.iter().chain([&self.image]);
        let mut names: Vec<String> =
            repositories().flat_map(|repository| tags.iter().map(|tag| repository.with_tag(tag).familiar())).collect();
        names.dedup();
        names
    }
}

impl BuildPlan {
    /// Images of the run that this one is built on.
    pub(crate) fn images(&self) -> impl Iterator<Item = &str> {
        self.additional_contexts.values().filter_map(|context| context.strip_prefix(OF_RUN))
    }
}

/// A service's build is the image's when both say the same.
fn is_same_build(service: &compose::Build, image: &BuildPlan) -> bool {
    let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
    let context = real(PathBuf::from(&service.context));
    let dockerfile = match (&service.dockerfile, &service.dockerfile_inline) {
        (Some(given), _) => Some(real(context.join(given))),
        (None, Some(_)) => None,
        (None, None) => {
            build::DOCKERFILE_NAMES.iter().map(|name| context.join(name)).find(|path| path.is_file()).map(real)
        }
    };
    context == real(image.context.clone())
        && dockerfile == image.dockerfile_path
        && service.dockerfile_inline == image.dockerfile_inline
        && service.target == image.target
        && service.args == image.args
}
