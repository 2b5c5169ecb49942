//! Build numbers without a server: unique and increasing for a repository, also with several machines at once.
//!
//! The registry is the authority, because whoever publishes can write there, while not everybody may push to the Git
//! repository; two authorities would give one number twice. A number is claimed by a tag with a name that nobody else has
//! (`_build.7.NONCE`, on the image itself), and belongs to whoever then finds no other claim of it and none of a higher number.
//! Of two who claim the same number at once the later one sees the earlier claim, so that at most one of them takes it; the
//! others go on behind all claims, each at a distance of its own. This needs of a registry only that a written tag is listed.
//!
//! Claims are cleared away where the registry removes tags: a claim that lost by whoever made it, one that won by whoever wins
//! a higher number. The number stays taken nonetheless, because the highest claim that won is always there, and a claim below
//! it wins nothing. Numbers that the winner finds claimed twice are left to those who claimed them: one of the two may be about
//! to look, page by page, and must find the other. Both may have been killed as well: so a claim has its time in its name, and
//! whoever wins a higher number after [`CLAIM_AGE_MAX`] removes it.

use std::time::{Duration, SystemTime};

use oci::Reference;
use registry::TagCondition;

use super::{
    gate,
    publish::{Intention, Sealed},
};
use crate::{Plan, RunContext, RunError, TagKind, Values};

/// What the tags of claims begin with.
const CLAIM: &str = "_build.";
/// With the distances of the second round a collision needs another newcomer each time.
const ROUNDS_MAX: u32 = 50;
/// Claims that one run clears away; what older runs left goes bit by bit, so that no run waits for long.
const FORGOTTEN_MAX: usize = 16;

/// Nobody looks for so long: each request has an end after minutes. A clock that is wrong by less than that does no harm.
const CLAIM_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The values with the number of the published build, where a rule names it. Where nothing is to be written it is the number
/// that the build would get if nobody else published before.
pub(super) async fn reserve(
    cx: RunContext<'_>,
    plan: &Plan,
    intention: &Intention,
    values: Values,
    sealed: &Sealed,
) -> Result<Values, RunError> {
    match intention.repositories.first() {
        Some(repository) if intention.is_planned && is_named(plan) => {
            let number = claim(cx, repository, sealed).await?;
            Ok(Values { run_number: Some(number), ..values })
        }
        Some(repository) if intention.is_dry && is_named(plan) => {
            let number = highest(&claims(cx, repository).await?).saturating_add(1);
            Ok(Values { run_number: Some(number), ..values })
        }
        _ => Ok(values),
    }
}

/// Whether a tag or the Git tag has the number in it.
fn is_named(plan: &Plan) -> bool {
    let Some(publish) = &plan.publish else { return false };
    let of_rule = |rule: &crate::TagRule| {
        let Some(shorthand) = &rule.shorthand else { return is_in(&rule.tag) };
        let texts = [&shorthand.value, &shorthand.prefix, &shorthand.suffix];
        let mut texts = texts.into_iter().flatten().chain(&shorthand.pattern);
        shorthand.kind == TagKind::Build || texts.any(|text| is_in(text))
    };
    publish.tags.iter().any(of_rule) || publish.git_tag.as_deref().is_some_and(is_in)
}

/// Whether a template has the number in it.
pub(super) fn is_in(text: &str) -> bool {
    text.contains("run.number") || text.contains("{{number}}")
}

async fn claim(cx: RunContext<'_>, repository: &Reference, sealed: &Sealed) -> Result<u64, RunError> {
    let nonce = format!("{:x}-{}", seconds(SystemTime::now()), gate::nonce());
    let mut claims = claims(cx, repository).await?;
    let mut distance = 1;
    for _ in 0..ROUNDS_MAX {
        if cx.cancel.is_cancelled() {
            return Err(RunError::Cancelled);
        }
        let number = highest(&claims).saturating_add(distance);
        let tag = [claim_tag(number, &nonce)];
        let (kind, bytes) = (sealed.media_type(), &sealed.manifest.bytes);
        cx.registry.put_tags(repository, &tag, &TagCondition::Any, kind, bytes, &mut drop).await?;
        claims = self::claims(cx, repository).await?;
        let mut same: Vec<&str> =
            claims.iter().filter(|(other, _)| *other == number).map(|(_, nonce)| nonce.as_str()).collect();
        same.sort_unstable();
        let place = same.iter().position(|other| *other == nonce);
        let is_highest = highest(&claims) <= number;
        match place {
            Some(_) if is_highest && same.len() == 1 => {
                let superseded = superseded(&claims, number, SystemTime::now());
                forget(cx, repository, &superseded).await;
                return Ok(number);
            }
            // A higher one that won may have cleared ours away.
            None if is_highest => {
                let message = format!("{} does not list a tag that was just written", repository.domain());
                let hint =
                    "name builds by something else than `${run.number}` there: by version, commit or date".into();
                return Err(RunError::Usage { message, hint: Some(hint) });
            }
            place => distance = place.unwrap_or(0) as u64 + 1,
        }
        forget(cx, repository, &tag).await;
    }
    let message = format!("no build number could be had from {repository}: others were faster {ROUNDS_MAX} times");
    Err(RunError::Refused { message, hint: "publish again with `seatrial publish`".into() })
}

/// Whether a tag is the claim of a build number, which names nothing that anybody looks for.
pub fn is_claim_tag(tag: &str) -> bool {
    read_claim(tag).is_some()
}

fn claim_tag(number: u64, nonce: &str) -> String {
    format!("{CLAIM}{number}.{nonce}")
}

fn read_claim(tag: &str) -> Option<(u64, String)> {
    let (number, nonce) = tag.strip_prefix(CLAIM)?.split_once('.')?;
    Some((number.parse().ok()?, nonce.to_owned()))
}

/// When a claim was made, by the clock of its maker.
fn made_at(nonce: &str) -> Option<u64> {
    u64::from_str_radix(nonce.split_once('-')?.0, 16).ok()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The highest number that was claimed; zero before the first.
fn highest(claims: &[(u64, String)]) -> u64 {
    claims.iter().map(|(number, _)| *number).max().unwrap_or(0)
}

/// Tags of lower numbers that one alone has claimed, or somebody long ago.
fn superseded(claims: &[(u64, String)], won: u64, now: SystemTime) -> Vec<String> {
    let is_alone = |number: u64| claims.iter().filter(|(other, _)| *other == number).count() == 1;
    let is_old =
        |nonce: &str| made_at(nonce).is_some_and(|made| made.saturating_add(CLAIM_AGE_MAX.as_secs()) < seconds(now));
    let lower = claims.iter().filter(|(number, nonce)| *number < won && (is_alone(*number) || is_old(nonce)));
    lower.map(|(number, nonce)| claim_tag(*number, nonce)).take(FORGOTTEN_MAX).collect()
}

/// Clears claims away. Many registries remove no tags, and then they stay: that harms nobody.
async fn forget(cx: RunContext<'_>, repository: &Reference, tags: &[String]) {
    for tag in tags {
        // Also where somebody else has just cleared it away: the next run sees to the rest.
        if cx.registry.remove_tag(&repository.with_tag(tag)).await.is_err() {
            return;
        }
    }
}

/// Numbers and nonces of all claims.
async fn claims(cx: RunContext<'_>, repository: &Reference) -> Result<Vec<(u64, String)>, RunError> {
    let tags = cx.registry.list_tags(repository).await?;
    Ok(tags.iter().filter_map(|tag| read_claim(tag)).collect())
}
