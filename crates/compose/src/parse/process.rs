//! How a service's processes start and end: hooks, `restart`, `pull_policy`, `stop_signal`.

use std::sync::Arc;

use crate::{
    Hook, PullPolicy, Restart, codes, duration,
    parse::Cx,
    read::{Fields, Keys, shorten},
    yaml::Node,
};

pub(crate) const HOOK: Keys = Keys {
    what: "a step of `pre_start`",
    known: &["command", "image", "user", "working_dir", "environment", "privileged", "per_replica"],
    later: &[],
    foreign: &[("run", "command"), ("env", "environment"), ("workdir", "working_dir")],
};

/// A step of `pre_start`, or the command of a watch rule.
pub(crate) fn hook(cx: &mut Cx<'_>, node: &Arc<Node>) -> Option<Hook> {
    let fields = cx.fields(node, &HOOK, "a map with `command`")?;
    let Some(command) = fields.get("command") else {
        cx.error(codes::MISSING_KEY, "this step needs `command`", &node.span);
        return None;
    };
    let words = cx.command(command)?;
    if words.is_empty() {
        cx.invalid("the command is empty", command);
    }
    if let Some(per_replica) = fields.get("per_replica")
        && cx.flag(per_replica) == Some(true)
    {
        cx.invalid(
            "a step runs once for all containers of a service; `per_replica: true` is not supported",
            per_replica,
        );
    }
    Some(Hook {
        place: cx.place(&node.span),
        command: words,
        image: fields.get("image").and_then(|node| cx.reference(node)),
        user: cx.name_of(&fields, "user"),
        working_dir: cx.name_of(&fields, "working_dir"),
        environment: cx.environment_of(&fields, "environment"),
        privileged: cx.flag_of(&fields, "privileged"),
    })
}

pub(crate) fn restart(cx: &mut Cx<'_>, node: &Node) -> Option<Restart> {
    let text = cx.text(node)?;
    match text.as_str() {
        "" | "no" | "false" => return Some(Restart::No),
        "always" => return Some(Restart::Always),
        "unless-stopped" => return Some(Restart::UnlessStopped),
        "on-failure" => return Some(Restart::OnFailure { attempts: None }),
        _ => {}
    }
    if let Some(attempts) = text.strip_prefix("on-failure:").and_then(|attempts| attempts.parse().ok()) {
        // docker: 0 is without a limit.
        return Some(Restart::OnFailure { attempts: Some(attempts).filter(|attempts| *attempts > 0) });
    }
    let known = ["no", "always", "on-failure", "unless-stopped"];
    let near = dockerfile::nearest(&text, known).map(|near| format!("did you mean `{near}`?"));
    let message = format!(
        "`{}` is not a restart policy; there are `no`, `always`, `on-failure[:ATTEMPTS]` and `unless-stopped`",
        shorten(&text)
    );
    cx.invalid(message, node).label = near;
    None
}

/// With what of it does nothing: a period, and any but `build` beside `build`.
pub(crate) fn pull_policy(cx: &mut Cx<'_>, fields: &Fields<'_>) -> Option<PullPolicy> {
    let policy = read_pull_policy(cx, fields)?;
    let (span, _) = fields.entry("pull_policy")?;
    let is_built = fields.get("build").is_some();
    match policy {
        PullPolicy::Every(_) => {
            cx.no_effect("this period has no effect here: the image is pulled when it is missing", span)
        }
        PullPolicy::Always if is_built => {
            cx.no_effect("`always` has no effect here: the image is built", span);
        }
        PullPolicy::Build if !is_built => {
            cx.no_effect("`build` has no effect here: there is no `build` that says how", span);
        }
        _ => {}
    }
    Some(policy)
}

fn read_pull_policy(cx: &mut Cx<'_>, fields: &Fields<'_>) -> Option<PullPolicy> {
    const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);
    let node = fields.get("pull_policy")?;
    let text = cx.text(node)?;
    match text.as_str() {
        "" => return None,
        "always" => return Some(PullPolicy::Always),
        "never" => return Some(PullPolicy::Never),
        "missing" | "if_not_present" => return Some(PullPolicy::Missing),
        "build" => return Some(PullPolicy::Build),
        "daily" => return Some(PullPolicy::Every(DAY)),
        "weekly" => return Some(PullPolicy::Every(7 * DAY)),
        _ => {}
    }
    if let Some(Ok(age)) = text.strip_prefix("every_").map(duration::parse) {
        return Some(PullPolicy::Every(age));
    }
    let known = ["always", "never", "missing", "build", "daily", "weekly"];
    let near = dockerfile::nearest(&text, known).map(|near| format!("did you mean `{near}`?"));
    let message = format!(
        "`{}` is not a pull policy; there are `always`, `never`, `missing`, `build`, `daily`, `weekly` and `every_12h`",
        shorten(&text)
    );
    cx.invalid(message, node).label = near;
    None
}

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`.
pub(crate) fn stop_signal(cx: &mut Cx<'_>, node: &Node) -> Option<String> {
    let text = cx.text(node)?;
    if text.is_empty() {
        return None;
    }
    if oci::signal::parse(&text).is_some() {
        return Some(text);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let near = dockerfile::nearest(name, oci::signal::names()).map(|near| format!("did you mean `SIG{near}`?"));
    cx.invalid(format!("`{}` is not a signal", shorten(&text)), node).label = near;
    None
}
