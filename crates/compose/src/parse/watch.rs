//! `develop.watch`.

use std::sync::Arc;

use crate::{
    Hook, WatchAction, WatchRule, codes,
    parse::{Cx, process},
    read::Keys,
    yaml::Node,
};

pub(crate) const DEVELOP: Keys =
    Keys { what: "`develop`", known: &["watch"], later: &[], foreign: &[("sync", "watch")] };
pub(crate) const WATCH: Keys = Keys {
    what: "a rule of `develop.watch`",
    known: &["path", "action", "target", "ignore", "include", "exec", "initial_sync"],
    later: &[],
    foreign: &[("source", "path"), ("exclude", "ignore"), ("command", "exec")],
};

#[derive(Clone, Copy, PartialEq)]
enum Action {
    Rebuild,
    Restart,
    Sync,
    SyncRestart,
    SyncExec,
}

pub(crate) fn watch(cx: &mut Cx<'_>, develop: &Node) -> Vec<WatchRule> {
    let Some(fields) = cx.fields(develop, &DEVELOP, "a map with `watch`") else { return Vec::new() };
    let items = cx.items_of(&fields, "watch", "a list of rules");
    items.iter().filter_map(|item| rule(cx, item)).collect()
}

fn rule(cx: &mut Cx<'_>, node: &Arc<Node>) -> Option<WatchRule> {
    let actions = [
        ("rebuild", Action::Rebuild),
        ("restart", Action::Restart),
        ("sync", Action::Sync),
        ("sync+restart", Action::SyncRestart),
        ("sync+exec", Action::SyncExec),
    ];
    let fields = cx.fields(node, &WATCH, "a map with `path` and `action`")?;
    let (Some(path), Some(action_node)) = (fields.get("path"), fields.get("action")) else {
        cx.error(codes::MISSING_KEY, "a rule needs `path` and `action`", &node.span);
        return None;
    };
    let text = cx.text(path)?;
    let path = cx.host_path(&text, &path.span)?;
    let action = cx.word(action_node, "an action", &actions)?;
    let target = fields.get("target").and_then(|node| cx.path_inside(node));
    let exec: Option<Hook> = fields.get("exec").and_then(|node| process::hook(cx, node));
    if fields.get("exec").is_some() != (action == Action::SyncExec) {
        cx.error(codes::MISSING_KEY, "`exec` and the action `sync+exec` belong together", &action_node.span);
        return None;
    }
    let needs_target = !matches!(action, Action::Rebuild | Action::Restart);
    if needs_target && fields.get("target").is_none() {
        cx.error(codes::MISSING_KEY, "this action needs `target`", &action_node.span);
        return None;
    }
    let target = target.unwrap_or_default();
    let action = match action {
        Action::Rebuild => WatchAction::Rebuild,
        Action::Restart => WatchAction::Restart,
        Action::Sync => WatchAction::Sync { target },
        Action::SyncRestart => WatchAction::SyncRestart { target },
        Action::SyncExec => WatchAction::SyncExec { target, exec: Box::new(exec?) },
    };
    Some(WatchRule {
        place: cx.place(&node.span),
        path,
        action,
        ignore: cx.values_of(&fields, "ignore"),
        include: cx.values_of(&fields, "include"),
        initial_sync: cx.flag_of(&fields, "initial_sync"),
    })
}
