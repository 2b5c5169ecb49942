//! Combinations of a matrix, by the rules of GitHub Actions (workflow syntax, `jobs.<job_id>.strategy.matrix`).

use super::Planner;
use crate::{
    codes,
    file::{At, Combination, Matrix},
};

/// GitHub's own bound.
const COMBINATIONS_MAX: usize = 256;

/// Variables with their values, in the order of the file; those that only `include` names come last.
pub(super) type Values = Vec<(String, String)>;

/// All combinations: the axes' product without what `exclude` names, then what `include` adds. Empty after a mistake.
pub(super) fn combinations(planner: &mut Planner<'_>, matrix: &Matrix) -> Vec<Values> {
    let axes: Vec<(String, Vec<String>)> = matrix
        .axes
        .iter()
        .map(|(name, values)| (name.value.clone(), values.iter().filter_map(|value| fill(planner, value)).collect()))
        .collect();
    let size = axes.iter().try_fold(1usize, |size, (_, values)| size.checked_mul(values.len()));
    if size.is_none_or(|size| size + matrix.include.len() > COMBINATIONS_MAX) {
        let message = format!("the matrix has more than {COMBINATIONS_MAX} combinations");
        planner.error(codes::TOO_LARGE, message, &matrix.span);
        return Vec::new();
    }
    let excluded: Vec<Values> = matrix.exclude.iter().map(|one| excluded(planner, one, &axes)).collect();
    let included: Vec<Values> = matrix.include.iter().map(|one| filled(planner, one)).collect();

    let mut all = product(&axes);
    // An empty exclusion would exclude everything; GitHub takes it as none.
    all.retain(|values| !excluded.iter().any(|one| !one.is_empty() && one.iter().all(|pair| values.contains(pair))));
    include(&mut all, included, &axes);
    if all.is_empty() {
        planner.error(codes::INVALID_VALUE, "no combination of the matrix is left", &matrix.span);
    }
    all
}

/// `unit (3.11, linux)`, unique within the matrix.
pub(super) fn names(planner: &mut Planner<'_>, gate: &At<String>, all: &[Values]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for values in all {
        let words: Vec<&str> = values.iter().map(|(_, value)| value.as_str()).collect();
        let name = format!("{} ({})", gate.value, words.join(", "));
        if crate::file_name(&name).len() >= crate::run::FILE_NAME_BYTES_MAX || name.chars().any(char::is_control) {
            let message =
                format!("a combination of gate `{}` is no name: it is too long, or has control characters", gate.value);
            planner.error(codes::INVALID_VALUE, message, &gate.span);
        } else if names.contains(&name) {
            planner.error(codes::INVALID_VALUE, format!("the matrix has `{name}` twice"), &gate.span);
        }
        names.push(name);
    }
    names
}

fn fill(planner: &mut Planner<'_>, value: &At<String>) -> Option<String> {
    planner.fill(value)
}

fn filled(planner: &mut Planner<'_>, one: &Combination) -> Values {
    one.iter().filter_map(|(name, value)| Some((name.value.clone(), fill(planner, value)?))).collect()
}

fn excluded(planner: &mut Planner<'_>, one: &Combination, axes: &[(String, Vec<String>)]) -> Values {
    for (name, _) in one {
        if !axes.iter().any(|(axis, _)| *axis == name.value) {
            let near = dockerfile::nearest(&name.value, axes.iter().map(|(axis, _)| axis.as_str()));
            let near = near.map(|near| format!("did you mean `{near}`?"));
            let message = format!("the matrix has no `{}` that could be excluded", name.value);
            planner.error(codes::INVALID_VALUE, message, &name.span).label = near;
        }
    }
    filled(planner, one)
}

/// The first axis turns slowest. Without axes there is no combination.
fn product(axes: &[(String, Vec<String>)]) -> Vec<Values> {
    if axes.is_empty() {
        return Vec::new();
    }
    axes.iter().fold(vec![Values::new()], |all, (name, values)| {
        let with = |former: &Values, value: &String| {
            let mut longer = former.clone();
            longer.push((name.clone(), value.clone()));
            longer
        };
        all.iter().flat_map(|former| values.iter().map(move |value| with(former, value))).collect()
    })
}

/// Each entry adds its values to the combinations of the product whose own values it does not change; where there is none, it
/// is a combination of its own. Values that an earlier entry added may be changed.
fn include(all: &mut Vec<Values>, included: Vec<Values>, axes: &[(String, Vec<String>)]) {
    let of_product = all.len();
    for entry in included {
        let is_axis = |name: &str| axes.iter().any(|(axis, _)| axis == name);
        let mut is_added = false;
        for values in &mut all[..of_product] {
            if entry.iter().any(|(name, value)| is_axis(name) && !values.contains(&(name.clone(), value.clone()))) {
                continue;
            }
            is_added = true;
            for (name, value) in entry.iter().filter(|(name, _)| !is_axis(name)) {
                match values.iter_mut().find(|(known, _)| known == name) {
                    Some(known) => known.1.clone_from(value),
                    None => values.push((name.clone(), value.clone())),
                }
            }
        }
        if !is_added {
            all.push(entry);
        }
    }
}
