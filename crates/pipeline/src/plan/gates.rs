//! Setup, gates, their mounts and their order.

use std::collections::BTreeMap;

use dockerfile::nearest;

use super::{CommandPlan, GatePlan, MountPlan, Planner, TestPlan};
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
            ..command(planner, &step.run)
        })
        .collect();
    let shared = Shared { test, user, workdir, environment, mounts };
    let gates = test.gates.iter().map(|(name, gate)| self::gate(planner, name, gate, &shared)).collect();
    check_needs(planner, &test.gates);
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
    CommandPlan { run: run.value.clone(), place: planner.place(&run.span), user: None }
}

fn gate(planner: &mut Planner<'_>, name: &At<String>, gate: &Gate, shared: &Shared<'_>) -> GatePlan {
    let mut environment = shared.environment.clone();
    environment.extend(planner.pairs(&gate.environment));
    let mut all_mounts = shared.mounts.clone();
    for mount in mounts(planner, &gate.mounts) {
        // A gate's own mount wins over a shared one at the same place.
        all_mounts.retain(|shared| shared.target != mount.target);
        all_mounts.push(mount);
    }
    let entrypoint = gate.entrypoint.as_ref().or(shared.test.entrypoint.as_ref());
    GatePlan {
        name: name.value.clone(),
        place: planner.place(&name.span),
        commands: gate.run.iter().map(|run| command(planner, run)).collect(),
        entrypoint: entrypoint.into_iter().flatten().filter_map(|word| planner.fill(word)).collect(),
        workdir: gate.workdir.as_ref().and_then(|workdir| planner.fill(workdir)).or_else(|| shared.workdir.clone()),
        user: gate.user.as_ref().and_then(|user| planner.fill(user)).or_else(|| shared.user.clone()),
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
