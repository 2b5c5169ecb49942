//! The second step of `main`: become somebody who may mount and start containers.
//!
//! Real root only gets a mount namespace of its own. An ordinary user becomes root of a user namespace, in this very
//! process, with the subordinate ids that the host's administrator granted.

use crate::{error::EnterError, sys};
use rustix::pipe::{PipeFlags, pipe_with};
use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Read, Write as _},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::{Command, Stdio},
    sync::OnceLock,
};

/// What this process may do after [`enter`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// Real root. Containers get a user namespace of shifted ids through idmapped mounts where the kernel allows.
    Root {
        /// The kernel and the root file system allow it.
        idmapped: bool,
    },
    /// Root of an own user namespace with subordinate ids (newuidmap, newgidmap).
    Subordinate {
        /// User ids that exist in it, from 0 up.
        uids: u32,
        /// Group ids that exist in it, from 0 up.
        gids: u32,
    },
    /// Root of an own user namespace that maps one id only: chown to other ids fails.
    SingleId,
    /// No user namespace could be made; the reason and remedy as text.
    None {
        /// For the user to read.
        reason: String,
    },
}

/// Second step of `main` for commands that touch the store or start containers; the process must be single-threaded.
///
/// Ordinary user: forks a short-lived child that runs newuidmap and newgidmap for us while this very process does
/// `unshare(CLONE_NEWUSER)`: no re-exec, same pid; afterwards we are uid 0 in it. Everyone: `unshare(CLONE_NEWNS)` whose
/// mounts do not propagate back, so that any mount of ours dies with the process.
///
/// # Errors
/// When a system call fails in a way that no setting of the host explains; when called with threads running.
pub fn enter() -> Result<Privilege, EnterError> {
    let privilege = if rustix::process::geteuid().is_root() && unshare_mounts().is_ok() {
        privilege_of_root()
    } else {
        become_root_of_a_namespace()?
    };
    Ok(ENTERED.get_or_init(|| privilege).clone())
}

static ENTERED: OnceLock<Privilege> = OnceLock::new();

/// What [`enter`] said, or what holds for a process that did not call it.
pub(crate) fn privilege() -> &'static Privilege {
    ENTERED.get_or_init(privilege_of_root)
}

/// First id on the host of containers that real root starts: id 0 inside is this one outside. A high range, as far as
/// possible from what `useradd` and `/etc/subuid` hand out (100000 up) and systemd's dynamic ranges.
pub(crate) const SHIFTED_BASE: u32 = 1_000_000_000;
/// How many ids containers of real root have.
pub(crate) const SHIFTED_COUNT: u32 = 1_000_000_000;

fn unshare_mounts() -> io::Result<()> {
    sys::unshare(libc::CLONE_NEWNS)?;
    // A slave, not private: what the host unmounts must not stay busy because of us.
    sys::set_propagation(libc::MS_SLAVE)
}

/// Whether `/proc/self/uid_map` maps all ids to themselves, as only the first user namespace does.
pub(crate) fn uid_map_is_whole() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

fn privilege_of_root() -> Privilege {
    if uid_map_is_whole() {
        return Privilege::Root { idmapped: idmap_works(Path::new("/")).is_ok() };
    }
    match (ids_in("/proc/self/uid_map"), ids_in("/proc/self/gid_map")) {
        (0..=1, _) | (_, 0..=1) => Privilege::SingleId,
        (uids, gids) => Privilege::Subordinate { uids, gids },
    }
}

/// How many ids from 0 up a map has without a gap.
pub(crate) fn ids_in(map: &str) -> u32 {
    let text = std::fs::read_to_string(map).unwrap_or_default();
    let mut ranges: Vec<(u64, u64)> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            Some((fields.next()?.parse().ok()?, fields.nth(1)?.parse().ok()?))
        })
        .collect();
    ranges.sort_unstable();
    let end = ranges.iter().fold(0, |end, (start, count)| if *start == end { end + count } else { end });
    u32::try_from(end).unwrap_or(u32::MAX)
}

/// Really maps the ids of a mount of `dir` through a user namespace.
pub(crate) fn idmap_works(dir: &Path) -> io::Result<()> {
    let (wait, go) = pipe_with(PipeFlags::CLOEXEC)?;
    match sys::fork(libc::CLONE_NEWUSER, None)? {
        sys::Fork::Child => {
            drop(go);
            // Only here so that its namespace exists. The end of the pipe wakes it.
            drop(File::from(wait).read(&mut [0]));
            sys::exit_now(0)
        }
        sys::Fork::Parent(child) => {
            let attempt = (|| {
                write_shifted_map(child.pid)?;
                let userns = File::open(format!("/proc/{}/ns/user", child.pid))?;
                let source = File::open(dir)?;
                let mount = crate::overlay::clone_mount(source.as_fd(), false)?;
                sys::idmap_mount(mount.as_fd(), userns.as_fd(), false)
            })();
            drop(go);
            sys::reap(child.pidfd.as_fd())?;
            attempt
        }
    }
}

/// Maps the ids of a child in a new user namespace to the shifted range.
pub(crate) fn write_shifted_map(pid: i32) -> io::Result<()> {
    let map = format!("0 {SHIFTED_BASE} {SHIFTED_COUNT}\n");
    std::fs::write(format!("/proc/{pid}/uid_map"), &map)?;
    std::fs::write(format!("/proc/{pid}/gid_map"), &map)
}

fn become_root_of_a_namespace() -> Result<Privilege, EnterError> {
    let fail = |attempt| move |source| EnterError { attempt, source };
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let grants = Grants::find(uid, gid);

    let (ready, tell_ready) = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from).map_err(fail("make a pipe"))?;
    let (answer, tell_answer) = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from).map_err(fail("make a pipe"))?;
    let child = match sys::fork(0, None).map_err(fail("fork"))? {
        sys::Fork::Child => {
            drop((tell_ready, answer));
            map_ids_of_parent(&grants, ready, tell_answer)
        }
        sys::Fork::Parent(child) => child,
    };
    drop((ready, tell_answer));

    let unshared = sys::unshare(libc::CLONE_NEWUSER);
    let mut message = String::new();
    if unshared.is_ok() {
        // The child waits for this byte; when we had to give up it sees the end of the pipe instead.
        drop(File::from(tell_ready).write_all(b"g"));
        drop(File::from(answer).read_to_string(&mut message));
    } else {
        drop(tell_ready);
    }
    sys::reap(child.pidfd.as_fd()).map_err(fail("wait for the process that maps ids"))?;

    if let Err(error) = unshared {
        return match error.raw_os_error() {
            Some(libc::EINVAL) => {
                Err(EnterError { attempt: "make a user namespace (are threads running?)", source: error })
            }
            _ => Ok(Privilege::None { reason: why_no_namespace(&error) }),
        };
    }
    if message != "mapped" {
        map_only_self(uid, gid).map_err(fail("map the own id in a user namespace"))?;
    }
    sys::become_user(0, 0, None).map_err(fail("become root of the user namespace"))?;
    if let Err(error) = unshare_mounts() {
        // Ubuntu's AppArmor lets the namespace be made but gives no rights in it.
        return Ok(Privilege::None { reason: why_no_namespace(&error) });
    }
    Ok(if message == "mapped" {
        Privilege::Subordinate { uids: ids_in("/proc/self/uid_map"), gids: ids_in("/proc/self/gid_map") }
    } else {
        Privilege::SingleId
    })
}

/// Ids that a process may map in its user namespace, in the order in which they appear inside.
struct Grants {
    uids: Vec<(u32, u32)>,
    gids: Vec<(u32, u32)>,
    /// Root without the right to mount, as in a container: writes the maps itself.
    direct: bool,
}

impl Grants {
    fn find(uid: u32, gid: u32) -> Grants {
        if uid == 0 {
            let whole = |map: &str| vec![(0, ids_in(map))];
            return Grants { uids: whole("/proc/self/uid_map"), gids: whole("/proc/self/gid_map"), direct: true };
        }
        let name = user_name(uid);
        let granted = |file: &str, own: u32| {
            let mut ranges = vec![(own, 1)];
            ranges.extend(subordinate_ranges(file, name.as_deref(), uid));
            ranges
        };
        Grants { uids: granted("/etc/subuid", uid), gids: granted("/etc/subgid", gid), direct: false }
    }
}

/// In the forked child: gives the parent, which is in its new namespace by now, the granted ids. Never returns.
fn map_ids_of_parent(grants: &Grants, ready: OwnedFd, tell_answer: OwnedFd) -> ! {
    let parent = std::os::unix::process::parent_id();
    let mut byte = [0];
    if !matches!(File::from(ready).read(&mut byte), Ok(1)) {
        sys::exit_now(0);
    }
    let mapped = if grants.direct {
        let line =
            |ranges: &[(u32, u32)]| ranges.iter().map(|(at, count)| format!("{at} {at} {count}\n")).collect::<String>();
        std::fs::write(format!("/proc/{parent}/uid_map"), line(&grants.uids)).is_ok()
            && std::fs::write(format!("/proc/{parent}/gid_map"), line(&grants.gids)).is_ok()
    } else if grants.uids.len() < 2 || grants.gids.len() < 2 {
        false
    } else {
        let uids = id_map_command("newuidmap", parent, &grants.uids).spawn();
        let gids = id_map_command("newgidmap", parent, &grants.gids).spawn();
        let succeeded = |child: io::Result<std::process::Child>| {
            child.and_then(|mut child| child.wait()).is_ok_and(|status| status.success())
        };
        // Both are awaited, also when the first one fails.
        succeeded(uids) & succeeded(gids)
    };
    let answer = if mapped { "mapped" } else { "single" };
    drop(File::from(tell_answer).write_all(answer.as_bytes()));
    sys::exit_now(0)
}

fn id_map_command(program: &str, pid: u32, ranges: &[(u32, u32)]) -> Command {
    let mut command = Command::new(program);
    command.arg(pid.to_string()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut inside = 0;
    for (outside, count) in ranges {
        command.args([inside, *outside, *count].map(|number: u32| number.to_string()));
        inside = inside.saturating_add(*count);
    }
    command
}

/// What everybody may do: map one id, with `setgroups` given up.
fn map_only_self(uid: u32, gid: u32) -> io::Result<()> {
    // newuidmap may have succeeded where newgidmap failed; a map is written once.
    let set = |file: &str, text: String| match std::fs::write(file, text) {
        Err(error) if std::fs::read_to_string(file).is_ok_and(|map| map.trim().is_empty()) => Err(error),
        _ => Ok(()),
    };
    std::fs::write("/proc/self/setgroups", "deny").or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    set("/proc/self/gid_map", format!("0 {gid} 1\n"))?;
    set("/proc/self/uid_map", format!("0 {uid} 1\n"))
}

/// Name of a user in `/etc/passwd`.
pub(crate) fn user_name(uid: u32) -> Option<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// Lines of `/etc/subuid` or `/etc/subgid` for a user, by name or number: (first id, count).
pub(crate) fn subordinate_ranges(file: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let number = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let who = fields.next()?;
            let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            (Some(who) == name || who == number).then_some(range)
        })
        .collect()
}

/// The setting that most likely forbids user namespaces, and its remedy.
pub(crate) fn why_no_namespace(error: &io::Error) -> String {
    let setting =
        |name: &str| std::fs::read_to_string(format!("/proc/sys/{name}")).ok().map(|text| text.trim().to_owned());
    let mut text = format!("user namespaces are not usable here ({error})");
    let remedy = if setting("user/max_user_namespaces").as_deref() == Some("0") {
        "run `sysctl -w user.max_user_namespaces=15000` as root"
    } else if setting("kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        "run `sysctl -w kernel.unprivileged_userns_clone=1` as root"
    } else if setting("kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        "run `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` as root, or give seatrial an AppArmor profile that \
         allows `userns`"
    } else if error.raw_os_error() == Some(libc::ENOSPC) {
        "too many of them exist; raise the sysctl user.max_user_namespaces"
    } else if Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists() {
        "this is a container whose profile forbids them; start it with `--security-opt seccomp=unconfined --security-opt \
         apparmor=unconfined`, or with `--privileged`"
    } else {
        "a security policy forbids them; run as root, or ask the administrator of this host"
    };
    let _ = write!(text, "; {remedy}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ranges_are_found_by_name_and_number() {
        let dir = std::env::temp_dir().join(format!("runtime-subuid-{}", std::process::id()));
        std::fs::write(&dir, "ada:100000:65536\n# note\n1001:300000:10\nbob:1:1\nada:bad\n").expect("writable");
        let file = dir.to_str().expect("text");
        assert_eq!(subordinate_ranges(file, Some("ada"), 1001), [(100_000, 65_536), (300_000, 10)]);
        assert_eq!(subordinate_ranges(file, None, 7), []);
        std::fs::remove_file(dir).expect("removable");
    }
}
