//! Setup, gates, their mounts and their order.

use std::collections::BTreeMap;

use dockerfile::nearest;

use super::{CommandPlan, GatePlan, ImagePlan, MountPlan, OF_RUN, Planner, TestPlan, bounds, matrix, uses};
use crate::{
    codes,
    file::{At, Gate, Mount, Test},
};

pub(super) fn test(planner: &mut Planner<'_>, given: Option<&Test>) -> TestPlan {
    let Some(test) = given else { return TestPlan::default() };
    let user = test.user.as_ref().and_then(|user| planner.fill(user));
    let workdir = test.workdir.as_ref().and_then(|workdir| planner.fill(workdir));
    let environment = planner.pairs(&test.environment);
    let mounts = mounts(planner, &test.mounts);
    let setup = test
        .setup
        .iter()
        .map(|step| CommandPlan {
            user: step.user.as_ref().and_then(|user| planner.fill(user)).or_else(|| user.clone()),
            secrets: bounds::secret_files(planner, &step.secrets),
            ..command(planner, &step.run)
        })
        .collect();
    let shared = Shared { test, user, workdir, environment, mounts };
    let mut gates: Vec<GatePlan> =
        test.gates.iter().flat_map(|(name, gate)| self::gates(planner, name, gate, &shared)).collect();
    check_needs(planner, &test.gates);
    expand_needs(&mut gates);
    TestPlan {
        setup,
        setup_environment: shared.environment,
        setup_mounts: shared.mounts,
        setup_workdir: shared.workdir,
        gates,
    }
}

/// What gates have in common.
struct Shared<'f> {
    test: &'f Test,
    user: Option<String>,
    workdir: Option<String>,
    environment: BTreeMap<String, String>,
    mounts: Vec<MountPlan>,
}

fn command(planner: &Planner<'_>, run: &At<String>) -> CommandPlan {
    CommandPlan { run: run.value.clone(), place: planner.place(&run.span), user: None, secrets: Vec::new() }
}

/// One gate, or one for each combination of its matrix.
fn gates(planner: &mut Planner<'_>, name: &At<String>, gate: &Gate, shared: &Shared<'_>) -> Vec<GatePlan> {
    let Some(matrix) = &gate.matrix else { return vec![self::gate(planner, name, gate, shared, &[])] };
    let all = matrix::combinations(planner, matrix);
    let names = matrix::names(planner, name, &all);
    let mut gates = Vec::new();
    for (values, full_name) in all.iter().zip(names) {
        // The values are templates' as well: `in: python:${PYTHON}`.
        let before = planner.values.env.clone();
        planner.values.env.extend(values.iter().cloned());
        let known = planner.diagnostics.len();
        let plan = self::gate(planner, name, gate, shared, values);
        planner.values.env = before;
        // One mistake is one, however many combinations have it.
        let new = planner.diagnostics.split_off(known);
        for diagnostic in new {
            if !planner
                .diagnostics
                .iter()
                .any(|other| other.message == diagnostic.message && other.span == diagnostic.span)
            {
                planner.diagnostics.push(diagnostic);
            }
        }
        let group = Some(name.value.clone());
        gates.push(GatePlan { name: full_name, group, matrix: values.iter().cloned().collect(), ..plan });
    }
    gates
}

/// Who needs a matrix needs all of its gates.
fn expand_needs(gates: &mut [GatePlan]) {
    let names: Vec<(String, String)> =
        gates.iter().map(|gate| (gate.group.clone().unwrap_or_else(|| gate.name.clone()), gate.name.clone())).collect();
    for gate in gates {
        let of = |need: &String| {
            names.iter().filter(|(group, _)| group == need).map(|(_, name)| name.clone()).collect::<Vec<_>>()
        };
        gate.needs = gate.needs.iter().flat_map(of).collect();
    }
}

fn gate(
    planner: &mut Planner<'_>,
    name: &At<String>,
    gate: &Gate,
    shared: &Shared<'_>,
    values: &[(String, String)],
) -> GatePlan {
    let mut environment = shared.environment.clone();
    environment.extend(values.iter().cloned());
    environment.extend(planner.pairs(&gate.environment));
    let mut all_mounts = shared.mounts.clone();
    for mount in mounts(planner, &gate.mounts) {
        // A gate's own mount wins over a shared one at the same place.
        all_mounts.retain(|shared| shared.target != mount.target);
        all_mounts.push(mount);
    }
    let image = gate.image.as_ref().and_then(|image| self::image(planner, image));
    // How the built image is entered says nothing about another one.
    let is_built = gate.image.is_none();
    let entrypoint = gate.entrypoint.as_ref().or(shared.test.entrypoint.as_ref().filter(|_| is_built));
    let workdir = shared.workdir.clone().filter(|_| is_built);
    let user = shared.user.clone().filter(|_| is_built);
    GatePlan {
        name: name.value.clone(),
        group: None,
        matrix: BTreeMap::new(),
        image,
        place: planner.place(&name.span),
        commands: gate.run.iter().map(|run| command(planner, run)).collect(),
        entrypoint: entrypoint.into_iter().flatten().filter_map(|word| planner.fill(word)).collect(),
        workdir: gate.workdir.as_ref().and_then(|workdir| planner.fill(workdir)).or(workdir),
        user: gate.user.as_ref().and_then(|user| planner.fill(user)).or(user),
        environment,
        mounts: all_mounts,
        reports: gate
            .reports
            .iter()
            .map(|(kind, patterns)| (kind.clone(), patterns.iter().map(|pattern| pattern.value.clone()).collect()))
            .collect(),
        needs: gate.needs.iter().map(|need| need.value.clone()).collect(),
        allow_failure: gate.allow_failure,
        timeout: gate.timeout.or(shared.test.timeout),
        retries: gate.retries.or(shared.test.retries).unwrap_or(0),
        rerun: gate.rerun,
        bounds: bounds::bounds(planner, &gate.bounds, &shared.test.bounds),
        uses: uses::uses(planner, &gate.uses, &shared.test.uses),
    }
}

fn image(planner: &mut Planner<'_>, given: &At<String>) -> Option<ImagePlan> {
    let text = planner.fill(given)?;
    let is_marked = !planner.names.is_empty() && text.starts_with(OF_RUN);
    let (text, is_of_run) = match text.strip_prefix(OF_RUN).filter(|_| is_marked) {
        Some(name) => (name.to_owned(), true),
        None => (text.clone(), planner.names.contains(&text)),
    };
    let of_run = if is_of_run { Some(planner.image_of_run(&text, &given.span)?) } else { None };
    match text.parse() {
        Ok(reference) => Some(ImagePlan { reference, of_run, place: planner.place(&given.span) }),
        Err(error) => {
            let error: oci::InvalidReference = error;
            planner.error(codes::INVALID_VALUE, error.to_string(), &given.span);
            None
        }
    }
}

fn mounts(planner: &mut Planner<'_>, given: &[Mount]) -> Vec<MountPlan> {
    given.iter().filter_map(|mount| self::mount(planner, mount)).collect()
}

fn mount(planner: &mut Planner<'_>, mount: &Mount) -> Option<MountPlan> {
    let text = planner.fill(&mount.source)?;
    let source = planner.path(&At::new(text.clone(), mount.source.span.clone()), planner.base)?;
    let target = match &mount.target {
        Some(target) => planner.fill(&At::new(target.clone(), mount.source.span.clone()))?,
        // `../shared` is shown as `shared`.
        None => text.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect::<Vec<_>>().join("/"),
    };
    let target = target.trim_end_matches('/').to_owned();
    if target.split('/').any(|part| part == "..") {
        planner.error(codes::INVALID_VALUE, "the target may not have `..`", &mount.source.span);
        return None;
    }
    let target = target.strip_prefix("./").unwrap_or(&target).to_owned();
    // An empty target is the working directory itself; the root may not be covered.
    if target.is_empty() && mount.target.as_deref().is_some_and(|given| given.starts_with('/')) {
        planner.error(codes::INVALID_VALUE, "the whole root cannot be covered by a mount", &mount.source.span);
        return None;
    }
    Some(MountPlan { source, target: if target == "." { String::new() } else { target }, readonly: mount.readonly })
}

/// Every needed gate exists, and none needs itself through others.
fn check_needs(planner: &mut Planner<'_>, gates: &[(At<String>, Gate)]) {
    let index: BTreeMap<&str, usize> =
        gates.iter().enumerate().map(|(index, (name, _))| (name.value.as_str(), index)).collect();
    for (_, gate) in gates {
        for need in &gate.needs {
            if !index.contains_key(need.value.as_str()) {
                let near = nearest(&need.value, index.keys().copied()).map(|near| format!("did you mean `{near}`?"));
                let message = format!("there is no gate `{}`", need.value);
                planner.error(codes::UNKNOWN_GATE, message, &need.span).label = near;
            }
        }
    }
    // Colours of a depth-first walk: 0 unseen, 1 on the path, 2 done. Iterative: a thousand gates may be in one chain.
    let mut colour = vec![0u8; gates.len()];
    for start in 0..gates.len() {
        let mut path: Vec<(usize, usize)> = Vec::new();
        if colour[start] == 0 {
            colour[start] = 1;
            path.push((start, 0));
        }
        while let Some((gate, next)) = path.last_mut() {
            let Some(need) = gates[*gate].1.needs.get(*next) else {
                colour[*gate] = 2;
                path.pop();
                continue;
            };
            *next += 1;
            let Some(&needed) = index.get(need.value.as_str()) else { continue };
            if colour[needed] == 1 {
                let from = path.iter().position(|(gate, _)| *gate == needed).unwrap_or(0);
                let mut names: Vec<&str> = path[from..].iter().map(|(gate, _)| gates[*gate].0.value.as_str()).collect();
                names.push(&need.value);
                let message = format!("gates wait for each other: {}", names.join(" → "));
                planner.error(codes::NEEDS_CYCLE, message, &need.span);
                return;
            }
            if colour[needed] == 0 {
                colour[needed] = 1;
                path.push((needed, 0));
            }
        }
    }
}

impl GatePlan {
    /// The name in the file, without that of its image and the values of its matrix.
    pub(super) fn file_name(&self) -> &str {
        let name = self.group.as_deref().unwrap_or(&self.name);
        name.rsplit('/').next().unwrap_or(name)
    }
}
