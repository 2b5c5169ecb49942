//! What is wanted of a run: of each image, and of the whole.

use std::collections::BTreeSet;

use crate::{GatePlan, Plan, RunError, RunOptions, Stages};

/// What is wanted of one image, or of the whole of several.
#[derive(Clone)]
pub(super) struct Selection<'p> {
    /// Gates, with those that they need, in the order of the file.
    pub(super) gates: Vec<&'p GatePlan>,
    /// Whether the health check is wanted.
    pub(super) health: bool,
    /// Whether the image becomes a sealed one.
    pub(super) seals: bool,
    /// Whether it gets names.
    pub(super) names: bool,
    /// Whether an earlier run must have passed with this image.
    pub(super) needs_verdict: bool,
}

/// An image with what is wanted of it.
pub(super) struct Part<'p> {
    pub(super) plan: &'p Plan,
    pub(super) work: Selection<'p>,
}

/// All that is wanted.
pub(super) struct Course<'p> {
    /// In the order of the file.
    pub(super) parts: Vec<Part<'p>>,
    /// Gates of the whole, where there are several images.
    pub(super) whole: Selection<'p>,
    /// Nothing of the pipeline was left out by name.
    pub(super) is_whole: bool,
}

impl<'p> Course<'p> {
    pub(super) fn of(plan: &'p Plan, options: &RunOptions) -> Result<Self, RunError> {
        if plan.images.is_empty() {
            if let Some(name) = options.images.first() {
                return Err(unknown_image(name, &[]));
            }
            let work = Selection::of(plan, &options.stages)?;
            return Ok(Self { parts: vec![Part { plan, work }], whole: Selection::nothing(), is_whole: true });
        }
        let known: Vec<&str> = plan.images.iter().map(|image| image.name.as_str()).collect();
        if let Some(name) = options.images.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(unknown_image(name, &known));
        }
        let (own, whole) = match &options.stages {
            Stages::Gates(names) if !names.is_empty() => by_gates(plan, names)?,
            stages => {
                let is_wanted = |image: &Plan| options.images.is_empty() || options.images.contains(&image.name);
                let own = plan.images.iter().map(|image| match is_wanted(image) {
                    true => Selection::of(image, stages).map(Some),
                    false => Ok(None),
                });
                let whole = match stages {
                    Stages::All | Stages::Gates(_) if options.images.is_empty() => plan.test.gates.iter().collect(),
                    _ => Vec::new(),
                };
                (own.collect::<Result<Vec<_>, _>>()?, Selection { gates: whole, ..Selection::nothing() })
            }
        };
        Ok(Self { parts: with_needed(plan, own, &whole), whole, is_whole: options.images.is_empty() })
    }

    /// The file of a change request may ask for the host's network; only the machine's owner can give it.
    pub(super) fn check_rights(&self, options: &RunOptions) -> Result<(), RunError> {
        let asks = |gate: &&&GatePlan| gate.bounds.network.as_deref() == Some("host");
        let gates = self.parts.iter().flat_map(|part| &part.work.gates).chain(&self.whole.gates);
        let mut gates = gates;
        match gates.find(asks).filter(|_| !options.allow_host_network) {
            None => Ok(()),
            Some(gate) => Err(RunError::Usage {
                message: format!("gate `{}` asks for the host's network, which this machine does not allow", gate.name),
                hint: Some(
                    "allow it to all pipelines that run here: write `network.host` into /etc/seatrial/allow or \
                     ~/.config/seatrial/allow"
                        .into(),
                ),
            }),
        }
    }

    /// What services ask for and cannot be given is told before anything is built for them.
    pub(super) fn check_services(&self, plan: &Plan) -> Result<(), RunError> {
        let health = self.parts.iter().filter(|part| part.work.health && part.plan.health.enabled);
        let health = health.map(|part| &part.plan.health.uses);
        let gates = self.parts.iter().flat_map(|part| &part.work.gates).chain(&self.whole.gates);
        let uses = gates.map(|gate| &gate.uses).chain(health);
        let names: Vec<String> = uses.flat_map(|uses| uses.names.iter().cloned()).collect();
        services::check(&plan.services.project.services, &names).map_err(RunError::Service)
    }
}

impl<'p> Selection<'p> {
    fn nothing() -> Self {
        Self { gates: Vec::new(), health: false, seals: false, names: false, needs_verdict: false }
    }

    fn of(plan: &'p Plan, stages: &Stages) -> Result<Self, RunError> {
        let all = || plan.test.gates.iter().collect();
        let named = Self { seals: true, names: true, ..Self::nothing() };
        Ok(match stages {
            Stages::All => Self { gates: all(), health: true, ..named },
            Stages::Build => named,
            Stages::Images => Self::nothing(),
            Stages::Publish => Self { needs_verdict: true, ..named },
            Stages::Gates(names) if names.is_empty() => Self { gates: all(), ..Self::nothing() },
            Stages::Gates(names) => Self { gates: with_needs(plan, names)?, ..Self::nothing() },
            Stages::Health => Self { health: true, ..Self::nothing() },
        })
    }

    pub(super) fn has_setup(&self, plan: &Plan) -> bool {
        self.gates.iter().any(|gate| gate.image.is_none()) && !plan.test.setup.is_empty()
    }
}

/// Images that are wanted, and those that they need: as bases they have to pass like these, else they are only built.
fn with_needed<'p>(plan: &'p Plan, mut own: Vec<Option<Selection<'p>>>, whole: &Selection<'p>) -> Vec<Part<'p>> {
    let at = |name: &str| plan.images.iter().position(|image| image.name == name);
    for name in whole.gates.iter().flat_map(|gate| images_of(plan, gate)) {
        own_or_built(&mut own, at(&name));
    }
    let mut open: Vec<usize> = (0..own.len()).filter(|at| own[*at].is_some()).collect();
    while let Some(index) = open.pop() {
        let image = &plan.images[index];
        let work = own[index].clone().unwrap_or_else(Selection::nothing);
        for base in image.build.images().filter_map(at) {
            let is_new = own[base].is_none();
            let base_work = own[base].get_or_insert_with(Selection::nothing);
            // What is published stands on what is published: its base passes the same gates.
            if is_new && work.names && work.health {
                *base_work =
                    Selection { gates: plan.images[base].test.gates.iter().collect(), health: true, ..work.clone() };
            }
            base_work.seals = true;
            open.extend(is_new.then_some(base));
        }
        for used in work.gates.iter().flat_map(|gate| images_of(image, gate)).filter_map(|name| at(&name)) {
            if own_or_built(&mut own, Some(used)) {
                open.push(used);
            }
        }
    }
    plan.images.iter().zip(own).filter_map(|(plan, work)| Some(Part { plan, work: work? })).collect()
}

/// Makes sure that the image is built; whether that is new.
fn own_or_built(own: &mut [Option<Selection<'_>>], at: Option<usize>) -> bool {
    let Some(slot) = at.map(|at| &mut own[at]).filter(|slot| slot.is_none()) else { return false };
    *slot = Some(Selection::nothing());
    true
}

/// Images of the run that a gate needs beside its own: the one that it runs `in`, and those of its services.
pub(super) fn images_of(plan: &Plan, gate: &GatePlan) -> BTreeSet<String> {
    let mut images = gate.uses.images(&plan.services.project);
    images.extend(gate.image.iter().filter_map(|image| image.of_run.clone()));
    images
}

/// Gates by name: `api/unit`, `unit` of the whole or of all images that have one, `api` for all of that image.
fn by_gates<'p>(plan: &'p Plan, names: &[String]) -> Result<(Vec<Option<Selection<'p>>>, Selection<'p>), RunError> {
    let is_meant = |gate: &GatePlan, name: &str| gate.name == name || gate.group.as_deref() == Some(name);
    let mut own: Vec<Vec<String>> = vec![Vec::new(); plan.images.len()];
    let mut whole: Vec<String> = Vec::new();
    for name in names {
        if plan.test.gates.iter().any(|gate| is_meant(gate, name)) {
            whole.push(name.clone());
            continue;
        }
        let mut is_found = false;
        for (image, own) in plan.images.iter().zip(&mut own) {
            let all = image.name == *name;
            let short = format!("{}/{name}", image.name);
            let found = image.test.gates.iter().filter(|gate| all || is_meant(gate, name) || is_meant(gate, &short));
            let found: Vec<String> = found.map(|gate| gate.name.clone()).collect();
            is_found |= !found.is_empty();
            own.extend(found);
        }
        if !is_found {
            let gates = plan.parts().flat_map(|part| &part.test.gates);
            let known: Vec<&str> =
                gates.flat_map(|gate| gate.group.as_deref().into_iter().chain([gate.name.as_str()])).collect();
            return Err(unknown_gate(name, &known));
        }
    }
    let of = |plan: &'p Plan, names: &[String]| -> Result<Option<Selection<'p>>, RunError> {
        if names.is_empty() {
            return Ok(None);
        }
        Selection::of(plan, &Stages::Gates(names.to_vec())).map(Some)
    };
    let own = plan.images.iter().zip(&own).map(|(image, names)| of(image, names)).collect::<Result<_, _>>()?;
    Ok((own, of(plan, &whole)?.unwrap_or_else(Selection::nothing)))
}

fn with_needs<'p>(plan: &'p Plan, names: &[String]) -> Result<Vec<&'p GatePlan>, RunError> {
    let is_meant = |gate: &GatePlan, name: &str| gate.name == name || gate.group.as_deref() == Some(name);
    let known =
        || plan.test.gates.iter().flat_map(|gate| gate.group.as_deref().into_iter().chain([gate.name.as_str()]));
    let mut wanted = BTreeSet::new();
    let mut open: Vec<&str> = names.iter().map(String::as_str).collect();
    while let Some(name) = open.pop() {
        let found: Vec<&GatePlan> = plan.test.gates.iter().filter(|gate| is_meant(gate, name)).collect();
        if found.is_empty() {
            return Err(unknown_gate(name, &known().collect::<Vec<_>>()));
        }
        for gate in found {
            if wanted.insert(gate.name.as_str()) {
                open.extend(gate.needs.iter().map(String::as_str));
            }
        }
    }
    Ok(plan.test.gates.iter().filter(|gate| wanted.contains(gate.name.as_str())).collect())
}

fn unknown_image(name: &str, known: &[&str]) -> RunError {
    RunError::Usage {
        message: format!("there is no image `{name}` in the pipeline file"),
        hint: Some(match dockerfile::nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "several images are defined under `images:` in `seatrial.yaml`".into(),
            None => format!("there are {}", known.join(", ")),
        }),
    }
}

fn unknown_gate(name: &str, known: &[&str]) -> RunError {
    RunError::Usage {
        message: format!("there is no gate `{name}`"),
        hint: Some(match dockerfile::nearest(name, known.iter().copied()) {
            Some(near) if near.contains(' ') => format!("did you mean `seatrial test '{near}'`?"),
            Some(near) => format!("did you mean `seatrial test {near}`?"),
            None if known.is_empty() => "add gates under `test.gates` in `seatrial.yaml`".into(),
            None => format!("there are {}", known.join(", ")),
        }),
    }
}
