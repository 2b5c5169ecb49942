//! `RUN --mount`: what the options say. [`prepare`] makes what is shown.

mod cache;
mod prepare;

pub(crate) use cache::directory;

use dockerfile::{Diagnostic, MountKind as Type, Run, RunMount};
use engine::{BuildError, Secret, SshSource};

use crate::{
    copy::{self, Source},
    stage::{At, State},
    step::Key,
};

pub(crate) use prepare::prepare;

/// Docker's names for secrets and agents.
const SECRET_DIRECTORY: &str = "/run/secrets";
const SSH_DIRECTORY: &str = "/run/buildkit/ssh_agent.";
/// The agent of `--mount=type=ssh` without `id`.
const SSH_DEFAULT: &str = "default";

/// What the mounts of a RUN give it.
#[derive(Default)]
pub(crate) struct Wishes {
    /// Outer mount points first.
    mounts: Vec<Wanted>,
    /// Variables that hold secrets, with the secret's id.
    secret_env: Vec<(String, String, Option<Secret>)>,
    /// Where ssh finds its agent: the first `type=ssh`.
    pub(crate) agent: Option<String>,
}

/// A mount with its options read.
struct Wanted {
    target: String,
    kind: WantedKind,
    readonly: bool,
}

/// Permission bits, user and group.
#[derive(Clone, Copy)]
struct Access {
    mode: u32,
    uid: u32,
    gid: u32,
}

enum WantedKind {
    Tmpfs { size_bytes: Option<u64> },
    Cache { id: String, sharing: Sharing, access: Option<Access>, source: Option<(Source, String)> },
    Bind { source: Source, path: String, shown: copy::Shown },
    Secret { id: String, content: Option<Secret>, access: Access },
    Ssh { id: String, source: Option<SshSource>, access: Access },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Shared,
    Private,
    Locked,
}

impl Wishes {
    /// A cache's content is no part of the key, its place is; of a secret only its name.
    pub(crate) fn add_to(&self, key: &mut Key) {
        for want in &self.mounts {
            let name = format!("mount {}", want.target);
            match &want.kind {
                WantedKind::Tmpfs { .. } => key.add(name, "tmpfs"),
                WantedKind::Cache { id, .. } => key.add(name, format!("cache {id}")),
                WantedKind::Bind { shown, .. } => key.add(name, format!("bind {}", shown.digest)),
                WantedKind::Secret { id, access, .. } => key.add(name, access.named("secret", id)),
                WantedKind::Ssh { id, access, .. } => key.add(name, access.named("ssh", id)),
            }
        }
        for (name, id, _) in &self.secret_env {
            key.add(format!("variable {name}"), format!("secret {id}"));
        }
    }

    /// Variables that hold secrets.
    pub(crate) fn secret_env(&self, at: &At<'_>) -> Result<Vec<(String, String)>, BuildError> {
        let mut env = Vec::new();
        for (name, id, content) in &self.secret_env {
            let Some(content) = content else { continue };
            let text = std::str::from_utf8(content.expose()).ok().filter(|text| !text.contains('\0'));
            let Some(text) = text else {
                let message = format!("secret `{id}` is no text that variable `{name}` could hold");
                return Err(at.invalid(Diagnostic::error("ST116", message), None));
            };
            env.push((name.clone(), text.to_owned()));
        }
        Ok(env)
    }
}

impl Access {
    fn named(self, kind: &str, id: &str) -> String {
        format!("{kind} {id} {:o} {}:{}", self.mode, self.uid, self.gid)
    }
}

/// Reads the options of all mounts. Bind sources are hashed here, because they are part of the key.
pub(crate) fn plan(at: &At<'_>, state: &State, run: &Run) -> Result<Wishes, BuildError> {
    let mut wishes = Wishes::default();
    let mut sockets = 0;
    for mount in &run.mounts {
        let options = Options { at, state, mount };
        let wanted = match mount.kind {
            Type::Secret => secret(&options, &mut wishes)?,
            Type::Ssh => {
                let wanted = ssh(&options, sockets)?;
                sockets += 1;
                if wishes.agent.is_none() {
                    wishes.agent = Some(wanted.target.clone());
                }
                Some(wanted)
            }
            Type::Tmpfs | Type::Cache | Type::Bind => Some(file_system(&options)?),
        };
        wishes.mounts.extend(wanted);
    }
    // As BuildKit does, so that a mount within another one is seen, in whatever order they are written.
    wishes.mounts.sort_by(|one, other| one.target.cmp(&other.target));
    Ok(wishes)
}

fn file_system(options: &Options<'_, '_>) -> Result<Wanted, BuildError> {
    let Options { at, mount, .. } = *options;
    let written = options.text(&["target", "dst", "destination"])?.unwrap_or_default();
    let target = options.state.absolute(&written);
    if target == "/" {
        return Err(options.wrong("the mount needs a `target` other than the root"));
    }
    let is_writable = options.flag(&["rw", "readwrite"])?;
    let is_readonly = options.flag(&["ro", "readonly"])?;
    let from = mount.options.iter().find(|(key, _)| key.raw == "from").and_then(|(_, value)| value.as_ref());
    let path = options.text(&["source", "src"])?.unwrap_or_default();
    let kind = match mount.kind {
        Type::Tmpfs => {
            let size = options.text(&["size"])?;
            let read = |text: String| size_bytes(&text).ok_or_else(|| options.wrong(format!("`{text}` is not a size")));
            WantedKind::Tmpfs { size_bytes: size.map(read).transpose()? }
        }
        Type::Cache => {
            let sharing = match options.text(&["sharing"])?.map(|text| text.to_ascii_lowercase()).as_deref() {
                None | Some("shared") => Sharing::Shared,
                Some("private") => Sharing::Private,
                Some("locked") => Sharing::Locked,
                Some(other) => {
                    let message = format!("`{other}` is no sharing; known are `shared`, `private`, `locked`");
                    return Err(options.wrong(message));
                }
            };
            let source = match from {
                Some(word) => Some((copy::source(at, Some(word))?, path)),
                None => None,
            };
            let is_owned = options.has(&["mode", "uid", "gid"]);
            let id = options.text(&["id"])?.filter(|id| !id.is_empty()).unwrap_or_else(|| target.clone());
            let access = if is_owned { Some(options.access(0o755)?) } else { None };
            if source.is_none() {
                at.work.host.shared.note_mount(&cache::name_of(&id, access, None));
            }
            WantedKind::Cache { id, sharing, access, source }
        }
        Type::Bind => {
            let source = copy::source(at, from)?;
            let shown = copy::shown(at, &source, &path, &mount.span)?;
            WantedKind::Bind { source, path, shown }
        }
        Type::Secret | Type::Ssh => unreachable!("these are no file systems"),
    };
    let readonly = match (is_writable, is_readonly) {
        (_, Some(readonly)) => readonly,
        (Some(writable), None) => !writable,
        (None, None) => mount.kind == Type::Bind,
    };
    Ok(Wanted { target, kind, readonly })
}

/// A file, a variable, or both; neither if it is not given and not required.
fn secret(options: &Options<'_, '_>, wishes: &mut Wishes) -> Result<Option<Wanted>, BuildError> {
    let target = options.text(&["target", "dst", "destination"])?.filter(|target| !target.is_empty());
    let id = options.text(&["source", "src"])?.filter(|id| !id.is_empty()).or(options.text(&["id"])?);
    let id = id.filter(|id| !id.is_empty()).or_else(|| target.as_deref().map(base_name).map(str::to_owned));
    let id = id.ok_or_else(|| options.wrong("a secret mount needs `id` or `target`"))?;
    let content = options.at.work.request.run.secrets.get(&id).cloned();
    if content.is_none() && options.flag(&["required"])?.unwrap_or(false) {
        let message = format!("secret `{id}` is required and was not given");
        let help = format!("give it with `--secret id={id},src=FILE` or `--secret id={id},env=VARIABLE`");
        return Err(options.refuse(Diagnostic::error("ST140", message).with_help(help)));
    }
    let variable = options.text(&["env"])?;
    if let Some(name) = &variable {
        if name.is_empty() || name.contains('=') {
            return Err(options.wrong(format!("`{name}` is no name of a variable")));
        }
        wishes.secret_env.push((name.clone(), id.clone(), content.clone()));
    }
    let target = match target {
        Some(target) => options.state.absolute(&target),
        None if variable.is_some() => return Ok(None),
        None => format!("{SECRET_DIRECTORY}/{}", base_name(&id)),
    };
    let access = options.access(0o400)?;
    Ok(Some(Wanted { target, kind: WantedKind::Secret { id, content, access }, readonly: true }))
}

fn ssh(options: &Options<'_, '_>, number: usize) -> Result<Wanted, BuildError> {
    let id = options.text(&["id"])?.filter(|id| !id.is_empty()).unwrap_or_else(|| SSH_DEFAULT.to_owned());
    let source = options.at.work.request.run.ssh.get(&id).cloned();
    if source.is_none() && options.flag(&["required"])?.unwrap_or(false) {
        let message = format!("the key agent `{id}` is required and was not given");
        let help = format!("give it with `--ssh {id}` (the agent of SSH_AUTH_SOCK) or `--ssh {id}=KEYFILE`");
        return Err(options.refuse(Diagnostic::error("ST140", message).with_help(help)));
    }
    let target = match options.text(&["target", "dst", "destination"])?.filter(|target| !target.is_empty()) {
        Some(target) => options.state.absolute(&target),
        None => format!("{SSH_DIRECTORY}{number}"),
    };
    let access = options.access(0o600)?;
    Ok(Wanted { target, kind: WantedKind::Ssh { id, source, access }, readonly: false })
}

fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

/// The options of one mount; of a key that is given twice the last value counts, as in BuildKit.
struct Options<'o, 'a> {
    at: &'o At<'a>,
    state: &'o State,
    mount: &'o RunMount,
}

impl Options<'_, '_> {
    fn has(&self, names: &[&str]) -> bool {
        self.mount.options.iter().any(|(key, _)| names.contains(&key.raw.as_str()))
    }

    fn text(&self, names: &[&str]) -> Result<Option<String>, BuildError> {
        let found = self.mount.options.iter().rev().find(|(key, _)| names.contains(&key.raw.as_str()));
        let value = |(_, value): &(_, Option<dockerfile::Word>)| {
            value.as_ref().map_or(Ok(String::new()), |word| self.at.expand(self.state, word))
        };
        found.map(value).transpose()
    }

    /// A key alone means true; values are those of Go's `strconv.ParseBool`.
    fn flag(&self, names: &[&str]) -> Result<Option<bool>, BuildError> {
        match self.text(names)?.as_deref() {
            None => Ok(None),
            Some("" | "1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(Some(false)),
            Some(other) => Err(self.wrong(format!("`{other}` is neither `true` nor `false`"))),
        }
    }

    fn number(&self, name: &str, default: u32, radix: u32) -> Result<u32, BuildError> {
        let Some(text) = self.text(&[name])? else { return Ok(default) };
        let digits = Some(&text).filter(|text| !text.starts_with('+'));
        digits
            .and_then(|text| u32::from_str_radix(text, radix).ok())
            .ok_or_else(|| self.wrong(format!("`{text}` is not a number that `{name}` takes")))
    }

    fn access(&self, mode: u32) -> Result<Access, BuildError> {
        Ok(Access {
            mode: self.number("mode", mode, 8)?,
            uid: self.number("uid", 0, 10)?,
            gid: self.number("gid", 0, 10)?,
        })
    }

    fn wrong(&self, message: impl Into<String>) -> BuildError {
        self.refuse(Diagnostic::error("ST116", message.into()))
    }

    fn refuse(&self, diagnostic: Diagnostic) -> BuildError {
        self.at.invalid(diagnostic, Some(&self.mount.span))
    }
}

/// `64m`, `1g`, or bytes.
fn size_bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match lower[digits.len()..].trim_end_matches("ib").trim_end_matches('b') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}
