//! Where the Dockerfile says how health is checked.

use dockerfile::{InstructionKind, line_column};
use events::Place;

use crate::BuildPlan;

/// The HEALTHCHECK that the built image has, if it stands in the Dockerfile rather than in a base image.
pub(super) fn of_healthcheck(build: &BuildPlan) -> Option<Place> {
    let text = fs_err::read_to_string(build.dockerfile_path.as_ref()?).ok()?;
    let stages = dockerfile::parse(&text).ok()?.stages;
    let named = |below: usize, name: &str| {
        let is_called =
            |stage: &dockerfile::Stage| stage.name.as_ref().is_some_and(|word| word.raw.eq_ignore_ascii_case(name));
        stages[..below].iter().rposition(is_called)
    };
    let mut at = match &build.target {
        Some(target) => named(stages.len(), target).or_else(|| target.parse().ok())?,
        None => stages.len().checked_sub(1)?,
    };
    loop {
        let stage = stages.get(at)?;
        let is_check = |kind: &InstructionKind| matches!(kind, InstructionKind::Healthcheck(_));
        if let Some(check) = stage.instructions.iter().rev().find(|instruction| is_check(&instruction.kind)) {
            let (line, column) = line_column(&text, check.span.start);
            return Some(Place { file: build.dockerfile.clone(), line, column });
        }
        at = named(at, &stage.base.raw)?;
    }
}
