//! `healthcheck`, and our own `ready`.

use crate::{
    Healthcheck, HttpStatus, Ready, ReadyHttp, ReadyLog, codes,
    parse::Cx,
    read::{Keys, shorten},
    yaml::{Kind, Node},
};

pub(crate) const HEALTHCHECK: Keys = Keys {
    what: "`healthcheck`",
    known: &["test", "interval", "timeout", "retries", "start_period", "start_interval", "disable"],
    later: &[],
    foreign: &[("command", "test"), ("cmd", "test"), ("attempts", "retries"), ("disabled", "disable")],
};

pub(crate) const READY: Keys = Keys {
    what: "`ready`",
    known: &["log", "http", "port", "command", "timeout", "interval"],
    later: &[],
    foreign: &[("test", "command"), ("tcp", "port"), ("url", "http"), ("logs", "log")],
};

pub(crate) const READY_LOG: Keys = Keys {
    what: "`ready.log`",
    known: &["pattern", "times"],
    later: &[],
    foreign: &[("regex", "pattern"), ("count", "times")],
};

pub(crate) const READY_HTTP: Keys = Keys {
    what: "`ready.http`",
    known: &["port", "path", "status", "body"],
    later: &[],
    foreign: &[("url", "path"), ("code", "status")],
};

/// A health check that fails more often is never going to pass.
const RETRIES_MAX: u32 = 100_000;
/// A line that is awaited more often is a slip.
const TIMES_MAX: u64 = 1_000_000;

pub(crate) fn healthcheck(cx: &mut Cx<'_>, node: &Node) -> Option<Healthcheck> {
    let fields = cx.fields(node, &HEALTHCHECK, "a map with keys such as `test`")?;
    let test = fields.get("test").and_then(|node| test(cx, node));
    let is_none = test.as_ref().is_some_and(|test| test.first().is_some_and(|word| word == "NONE"));
    Some(Healthcheck {
        disabled: cx.flag_of(&fields, "disable") || is_none,
        test: test.filter(|_| !is_none),
        interval: cx.duration_of(&fields, "interval"),
        timeout: cx.duration_of(&fields, "timeout"),
        retries: cx.count_of(&fields, "retries", RETRIES_MAX),
        start_period: cx.duration_of(&fields, "start_period"),
        start_interval: cx.duration_of(&fields, "start_interval"),
    })
}

/// A text is for the shell; a list begins with `CMD`, `CMD-SHELL` or `NONE`.
fn test(cx: &mut Cx<'_>, node: &Node) -> Option<Vec<String>> {
    let Kind::List(items) = &node.kind else {
        return Some(vec!["CMD-SHELL".into(), cx.text(node)?]);
    };
    let words: Vec<String> = items.iter().filter_map(|item| cx.text(item)).collect();
    match words.first().map(String::as_str) {
        Some("NONE") => Some(words),
        Some("CMD" | "CMD-SHELL") if words.len() > 1 => Some(words),
        Some("CMD" | "CMD-SHELL") | None => {
            cx.invalid("the command is empty", node);
            None
        }
        Some(_) => {
            cx.invalid("the list has to begin with `CMD`, `CMD-SHELL` or `NONE`", node).help =
                Some("a text without a list is a command for the shell".into());
            None
        }
    }
}

pub(crate) fn ready(cx: &mut Cx<'_>, node: &Node) -> Option<Ready> {
    let fields = cx.fields(node, &READY, "a map with one of `log`, `http`, `port`, `command`")?;
    let ready = Ready {
        log: fields.get("log").and_then(|node| ready_log(cx, node)),
        http: fields.get("http").and_then(|node| ready_http(cx, node)),
        port: fields.get("port").and_then(|node| port(cx, node)),
        command: fields.get("command").and_then(|node| ready_command(cx, node)),
        timeout: cx.duration_of(&fields, "timeout"),
        interval: cx.duration_of(&fields, "interval"),
    };
    if ["log", "http", "port", "command"].iter().all(|key| fields.get(key).is_none()) {
        cx.error(codes::MISSING_KEY, "`ready` needs one of `log`, `http`, `port`, `command`", &node.span);
    }
    Some(ready)
}

/// As `test` of a health check, except that a list may also be the bare arguments.
fn ready_command(cx: &mut Cx<'_>, node: &Node) -> Option<Vec<String>> {
    match &node.kind {
        Kind::List(items) if !items.first().is_some_and(|item| matches!(item.scalar(), Some("CMD" | "CMD-SHELL"))) => {
            let words: Vec<String> = items.iter().filter_map(|item| cx.text(item)).collect();
            if words.is_empty() {
                cx.invalid("the command is empty", node);
                return None;
            }
            Some([vec!["CMD".into()], words].concat())
        }
        _ => test(cx, node),
    }
}

fn ready_log(cx: &mut Cx<'_>, node: &Node) -> Option<ReadyLog> {
    if !matches!(node.kind, Kind::Map(_)) {
        return Some(ReadyLog { pattern: pattern(cx, node)?, times: 1 });
    }
    let fields = cx.fields(node, &READY_LOG, "a regular expression, or a map with `pattern` and `times`")?;
    let times = cx.whole_of(&fields, "times", 1, TIMES_MAX).and_then(|times| u32::try_from(times).ok()).unwrap_or(1);
    let Some(node) = fields.get("pattern") else {
        cx.error(codes::MISSING_KEY, "`ready.log` needs `pattern`", &node.span);
        return None;
    };
    Some(ReadyLog { pattern: pattern(cx, node)?, times })
}

fn pattern(cx: &mut Cx<'_>, node: &Node) -> Option<String> {
    let text = cx.text(node)?;
    match regex::Regex::new(&text) {
        Ok(_) => Some(text),
        Err(error) => {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
            cx.invalid(format!("the regular expression is not valid: {reason}"), node);
            None
        }
    }
}

/// A path, `port/path`, or a map.
fn ready_http(cx: &mut Cx<'_>, node: &Node) -> Option<ReadyHttp> {
    if !matches!(node.kind, Kind::Map(_)) {
        let text = cx.text(node)?;
        let (port, path) = match text.split_once('/') {
            Some(("", _)) => (None, text.clone()),
            Some((port, path)) if port.parse::<u16>().is_ok_and(|port| port > 0) => {
                (port.parse().ok(), format!("/{path}"))
            }
            _ => {
                cx.invalid(format!("`{}` is not a path", shorten(&text)), node).label =
                    Some("write it like `/health` or `8080/health`".into());
                return None;
            }
        };
        return Some(ReadyHttp { port, path, status: None, body: None });
    }
    let fields = cx.fields(node, &READY_HTTP, "a path, or a map with `path`")?;
    Some(ReadyHttp {
        port: fields.get("port").and_then(|node| port(cx, node)),
        path: fields.get("path").and_then(|node| cx.path_inside(node)).unwrap_or_else(|| "/".into()),
        status: fields.get("status").and_then(|node| status(cx, node)),
        body: fields.get("body").and_then(|node| pattern(cx, node)),
    })
}

fn status(cx: &mut Cx<'_>, node: &Node) -> Option<HttpStatus> {
    let text = cx.text(node)?;
    let class =
        text.strip_suffix("xx").and_then(|digit| digit.parse::<u8>().ok()).filter(|class| (1..=5).contains(class));
    let exact = text.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    match (class, exact) {
        (Some(class), _) => Some(HttpStatus::Class(class)),
        (_, Some(status)) => Some(HttpStatus::Exactly(status)),
        _ => {
            cx.invalid(format!("`{}` is not an HTTP status", shorten(&text)), node).label =
                Some("write it like `200` or `2xx`".into());
            None
        }
    }
}

fn port(cx: &mut Cx<'_>, node: &Node) -> Option<u16> {
    cx.whole(node, 1, 65_535).and_then(|port| u16::try_from(port).ok())
}
