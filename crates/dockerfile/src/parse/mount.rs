//! `RUN --mount=…`.

use super::instruction::Context;
use crate::syntax::words::Letters;
use crate::{Diagnostic, MountKind, RunMount, Word, nearest};

const KINDS: [(&str, MountKind); 5] = [
    ("bind", MountKind::Bind),
    ("cache", MountKind::Cache),
    ("tmpfs", MountKind::Tmpfs),
    ("secret", MountKind::Secret),
    ("ssh", MountKind::Ssh),
];

/// Keys other than `type`, with the kinds that take them (`None`: all).
const KEYS: [(&str, Option<&[MountKind]>); 18] = [
    ("from", None),
    ("source", None),
    ("src", None),
    ("target", None),
    ("dst", None),
    ("destination", None),
    ("readonly", None),
    ("ro", None),
    ("readwrite", None),
    ("rw", None),
    ("id", None),
    ("sharing", Some(&[MountKind::Cache])),
    ("required", Some(&[MountKind::Secret, MountKind::Ssh])),
    ("size", Some(&[MountKind::Tmpfs])),
    ("mode", Some(&[MountKind::Secret, MountKind::Ssh, MountKind::Cache])),
    ("uid", Some(&[MountKind::Secret, MountKind::Ssh, MountKind::Cache])),
    ("gid", Some(&[MountKind::Secret, MountKind::Ssh, MountKind::Cache])),
    ("env", Some(&[MountKind::Secret])),
];

/// Keys that may stand without a value, which means true.
const BARE: [&str; 5] = ["readonly", "ro", "readwrite", "rw", "required"];

impl Context {
    /// Reads one mount; values with a `$` are left for later.
    pub(super) fn mount(&mut self, flag: &Letters, value: &Letters) -> Option<RunMount> {
        let Some(fields) = value.csv() else {
            return self.mount_error("the mount's quotes are wrong", value.to_word());
        };
        let mut kind = MountKind::Bind;
        let mut options: Vec<(Word, Option<Word>)> = Vec::new();
        for field in &fields {
            let (name, value) = field.split_equals();
            let mut name = name.to_word();
            name.raw.make_ascii_lowercase();
            let value = value.map(|value| value.to_word());
            if name.raw == "type" {
                kind = self.mount_kind(name, value)?;
                continue;
            }
            if !KEYS.iter().any(|(known, _)| *known == name.raw) {
                let near = nearest(&name.raw, KEYS.iter().map(|(known, _)| *known).chain(["type"]));
                let message = format!("a mount has no key `{}`", name.raw);
                self.error(Diagnostic::error("ST116", message).with_span(name.span).with_suggestion(near));
                return None;
            }
            if value.is_none() && !BARE.contains(&name.raw.as_str()) {
                return self.mount_error(&format!("mount key `{}` needs a value", name.raw), name);
            }
            options.push((name, value));
        }
        self.check_mount(kind, &options, flag)?;
        Some(RunMount { span: flag.span(), kind, options })
    }

    fn mount_error<T>(&mut self, message: &str, at: Word) -> Option<T> {
        self.error(Diagnostic::error("ST116", message).with_span(at.span));
        None
    }

    fn mount_kind(&mut self, name: Word, value: Option<Word>) -> Option<MountKind> {
        let Some(value) = value else { return self.mount_error("mount key `type` needs a value", name) };
        if let Some((_, kind)) = KINDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(&value.raw)) {
            return Some(*kind);
        }
        let message = if value.raw.contains('$') {
            "the type of a mount cannot be a variable".to_owned()
        } else {
            format!("there is no mount type `{}`", value.raw)
        };
        let near = nearest(&value.raw, KINDS.iter().map(|(known, _)| *known));
        let known: Vec<&str> = KINDS.iter().map(|(known, _)| *known).collect();
        self.error(
            Diagnostic::error("ST116", message)
                .with_span(value.span)
                .with_suggestion(near)
                .with_help(format!("types are {}", known.join(", "))),
        );
        None
    }

    /// What can be judged without values of variables.
    fn check_mount(&mut self, kind: MountKind, options: &[(Word, Option<Word>)], flag: &Letters) -> Option<()> {
        let kind_name = KINDS.iter().find(|(_, known)| *known == kind).map_or("", |(name, _)| name);
        for (name, value) in options {
            let allowed = KEYS.iter().find(|(known, _)| *known == name.raw).and_then(|(_, kinds)| *kinds);
            if allowed.is_some_and(|kinds| !kinds.contains(&kind)) {
                let message = format!("mount key `{}` is not for type `{kind_name}`", name.raw);
                return self.mount_error(&message, name.clone());
            }
            let Some(value) = value else { continue };
            if value.raw.contains('$') {
                if name.raw == "from" && !value.raw.ends_with('$') {
                    let message = "`from` of a mount cannot be a variable";
                    self.error(
                        Diagnostic::error("ST116", message)
                            .with_span(value.span.clone())
                            .with_help("name a stage by `FROM $image AS name`, and use the name here"),
                    );
                    return None;
                }
                continue;
            }
            if let Some(expected) = expected(&name.raw, &value.raw) {
                let message = format!("mount key `{}` is {expected}, not `{}`", name.raw, value.raw);
                return self.mount_error(&message, value.clone());
            }
        }
        let has = |names: &[&str]| options.iter().any(|(name, _)| names.contains(&name.raw.as_str()));
        let at = Word { raw: String::new(), span: flag.span() };
        if kind == MountKind::Secret {
            if has(&["from"]) {
                return self.mount_error("a secret mount has no `from`", at);
            }
            if has(&["source", "src"]) && has(&["id"]) {
                return self.mount_error("a secret mount has `id` or `source`, not both", at);
            }
            if !has(&["source", "src", "target", "dst", "destination", "id"]) {
                return self.mount_error("a secret mount needs `id` or `target`", at);
            }
        }
        Some(())
    }
}

/// What the key takes, if `value` is something else.
fn expected(key: &str, value: &str) -> Option<&'static str> {
    // Go's strconv.ParseBool.
    const BOOLEANS: [&str; 12] = ["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"];
    let is_fine = match key {
        "readonly" | "ro" | "readwrite" | "rw" | "required" => BOOLEANS.contains(&value),
        "sharing" => ["shared", "private", "locked"].iter().any(|known| known.eq_ignore_ascii_case(value)),
        "mode" => !value.starts_with('+') && u32::from_str_radix(value, 8).is_ok(),
        "uid" | "gid" => !value.starts_with('+') && value.parse::<u32>().is_ok(),
        "size" => value.starts_with(|ch: char| ch.is_ascii_digit()),
        _ => true,
    };
    if is_fine {
        return None;
    }
    Some(match key {
        "sharing" => "shared, private or locked",
        "mode" => "an octal number",
        "uid" | "gid" => "a number",
        "size" => "a number of bytes such as 64m",
        _ => "true or false",
    })
}
