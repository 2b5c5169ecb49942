//! Whether an image may come into an environment.

use std::time::SystemTime;

use evidence::{
    Policy, PublicKey, Requirement, Sought, collect_for,
    promotion::{APPROVAL, Record, records},
};
use pipeline::EnvironmentPlan;

use super::{
    desk::{Desk, Target},
    names,
    steps::of_image,
};
use crate::{
    failure::Failure,
    terminal::{Palette, text},
};

/// What was asked of the image, and what came of it.
pub(super) struct Verified {
    pub(super) checks: Vec<Checked>,
    /// Keys whose owners approve it.
    pub(super) approved_by: Vec<String>,
}

/// One thing that was asked.
pub(super) struct Checked {
    what: String,
    result: Result<String, String>,
    hint: Option<String>,
}

impl Checked {
    /// `✓ after staging: it is there`.
    pub(super) fn line(&self) -> String {
        let palette = Palette::stderr();
        let (mark, detail) = match &self.result {
            Ok(detail) => (palette.good("✓"), detail),
            Err(reason) => (palette.bad("✗"), reason),
        };
        format!("{mark} {}: {}", self.what, text::one_line(detail))
    }
}

impl Verified {
    /// The failure that names what is missing.
    pub(super) fn missing(&self, environment: &EnvironmentPlan, target: &Target) -> Option<Failure> {
        let missing: Vec<&Checked> = self.checks.iter().filter(|check| check.result.is_err()).collect();
        if missing.is_empty() {
            return None;
        }
        let names: Vec<&str> = missing.iter().map(|check| check.what.as_str()).collect();
        let message =
            format!("{} may not come into {}: {}", target.place.familiar(), environment.name, names.join(", "));
        let hints = missing.iter().filter_map(|check| check.hint.clone());
        Some(hints.fold(Failure::refused(message), Failure::hint))
    }
}

/// Checks everything, also behind the first thing that is missing.
pub(super) async fn verify(desk: &Desk, environment: &EnvironmentPlan, target: &Target) -> anyhow::Result<Verified> {
    let mut verified = Verified { checks: Vec::new(), approved_by: Vec::new() };
    if let Some(plan) = desk.plan.as_ref().filter(|_| !environment.when.is_empty()) {
        let result = environment.takes(&plan.source, &plan.values);
        verified.checks.push(Checked { what: "when".into(), result: result.map(|()| "it holds".into()), hint: None });
    }
    for name in &environment.after {
        let former = desk.environment(name)?;
        let hint = format!("bring it there first: `seatrial promote {} {name}`", target.digest);
        let result = was_in(desk, former, target).await?;
        verified.checks.push(Checked { what: format!("after {name}"), result, hint: Some(hint) });
    }
    let keys = desk.keys(environment)?;
    if !environment.require.is_empty() {
        let require = environment.require.iter().map(|name| name.parse::<Requirement>().map_err(Failure::usage));
        let policy = Policy { keys: keys.clone(), require: require.collect::<Result<_, _>>()?, exceptions: Vec::new() };
        let collected = collect_for(&desk.client, &target.place, None, &policy).await?;
        let report = policy.judge(Sought { collected: &collected, now: SystemTime::now() });
        verified.checks.extend(report.checks.into_iter().map(|check| Checked {
            result: if check.passed { Ok(check.detail) } else { Err(check.detail) },
            what: check.what,
            hint: None,
        }));
    }
    if !environment.approve.is_empty() {
        let public: Vec<PublicKey> = keys.iter().map(|named| named.key.clone()).collect();
        let approvals = records(&desk.client, &target.place, APPROVAL).await?;
        let of_here =
            |record: &&Record| record.approval().is_some_and(|approval| approval.environment == environment.name);
        let signers = approvals.iter().filter(of_here).filter_map(|record| record.signer(&target.digest, &public));
        let signers: Vec<String> = signers.filter_map(|key| names(&keys, key)).collect();
        for name in &environment.approve {
            let has_approved = signers.contains(name);
            let result = if has_approved {
                Ok("approved, and signed".into())
            } else {
                Err(format!("{name} has not approved it"))
            };
            let hint =
                format!("{name} does it with `seatrial approve {} {} --key KEY`", target.digest, environment.name);
            verified.checks.push(Checked { what: format!("approval by {name}"), result, hint: Some(hint) });
            if has_approved {
                verified.approved_by.push(name.clone());
            }
        }
    }
    Ok(verified)
}

/// Whether an image is in an environment, or a record that counts says that it was.
pub(super) async fn was_in(
    desk: &Desk,
    former: &EnvironmentPlan,
    target: &Target,
) -> anyhow::Result<Result<String, String>> {
    if desk.tag(&desk.repository_of(target), former).await?.as_ref() == Some(&target.digest) {
        return Ok(Ok("it is there".into()));
    }
    let counting = desk.counting(former)?;
    let found = of_image(desk, &target.place, &target.digest).await?;
    Ok(match found.iter().find(|step| counting.counts(step)) {
        Some(step) => Ok(format!("it was there at {}", step.promotion.time)),
        None => Err(format!("it has not been in {}", former.name)),
    })
}
