//! What the host offers, found out by trying, and the remedy where it does not.

use crate::{
    cgroup,
    enter::{self, Privilege},
    overlay,
};
use std::path::Path;

/// One line of `seatrial doctor`: what the host offers and the exact remedy where it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCheck {
    /// What was checked.
    pub name: &'static str,
    /// It works, or something as good does.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do, as a command where there is one.
    pub remedy: Option<String>,
}

impl HostCheck {
    fn good(name: &'static str, detail: impl Into<String>) -> HostCheck {
        HostCheck { name, ok: true, detail: detail.into(), remedy: None }
    }

    fn bad(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> HostCheck {
        HostCheck { name, ok: false, detail: detail.into(), remedy: Some(remedy.into()) }
    }
}

/// Tries what containers need, in the state after [`enter`](crate::enter()).
pub fn host_checks(store_dir: &Path) -> Vec<HostCheck> {
    vec![user_namespace(), id_maps(), overlayfs(store_dir), proc_mount(), control_groups(), seccomp()]
}

fn user_namespace() -> HostCheck {
    const NAME: &str = "user namespaces";
    match enter::privilege() {
        Privilege::Root { idmapped: true } => {
            HostCheck::good(NAME, "root; containers get shifted ids by idmapped mounts")
        }
        Privilege::Root { idmapped: false } => HostCheck::bad(
            NAME,
            "root; this kernel or file system cannot map ids of mounts, so root in a container is root of the host",
            "use Linux 5.19 or newer with ext4, xfs or btrfs, or run seatrial as an ordinary user",
        ),
        Privilege::Subordinate { uids, gids } => {
            HostCheck::good(NAME, format!("root of an own namespace with {uids} user and {gids} group ids"))
        }
        Privilege::SingleId => HostCheck::good(NAME, "root of an own namespace with one id"),
        Privilege::None { reason } => match reason.split_once("; ") {
            Some((detail, remedy)) => HostCheck::bad(NAME, detail, remedy),
            None => HostCheck::bad(NAME, reason.clone(), "run as root"),
        },
    }
}

fn id_maps() -> HostCheck {
    const NAME: &str = "subordinate ids";
    /// What Debian's apt and dpkg, and most images' highest user (65534, nobody), need.
    const ENOUGH: u32 = 65_535;
    match enter::privilege() {
        Privilege::Root { .. } => HostCheck::good(NAME, "not needed by root"),
        Privilege::Subordinate { uids, gids } if *uids >= ENOUGH && *gids >= ENOUGH => {
            HostCheck::good(NAME, "enough for every user of an ordinary image")
        }
        Privilege::Subordinate { uids, gids } => HostCheck::bad(
            NAME,
            format!("only {uids} user and {gids} group ids: images with higher ones cannot be unpacked"),
            "grant 65536 ids in /etc/subuid and /etc/subgid",
        ),
        Privilege::SingleId | Privilege::None { .. } => {
            let missing = ["newuidmap", "newgidmap"].into_iter().find(|program| !is_in_path(program));
            match missing {
                Some(program) => HostCheck::bad(
                    NAME,
                    format!("{program} is not installed: all files of containers belong to one user"),
                    "install the package `uidmap` (Debian, Ubuntu) or `shadow-utils` (Fedora)",
                ),
                None => HostCheck::bad(
                    NAME,
                    "none are granted to this user: all files of containers belong to one user",
                    "run `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER` as root",
                ),
            }
        }
    }
}

fn is_in_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

fn overlayfs(store_dir: &Path) -> HostCheck {
    const NAME: &str = "overlayfs";
    match overlay::try_overlay(store_dir) {
        Ok(()) => HostCheck::good(NAME, format!("works in {}", store_dir.display())),
        Err(error) => HostCheck::bad(
            NAME,
            format!("{error}: {}; layers are copied instead, which is slow", error.source),
            "put the store on ext4, xfs, btrfs or tmpfs (a volume, inside a container); load the module with `modprobe \
             overlay`",
        ),
    }
}

/// A fresh `/proc` is refused where parts of the present one are hidden, as in an ordinary container.
fn proc_mount() -> HostCheck {
    const NAME: &str = "mounting /proc";
    match crate::helper::try_proc() {
        Ok(()) => HostCheck::good(NAME, "allowed"),
        Err(error) => HostCheck::bad(
            NAME,
            format!("refused: {error}"),
            "run on the host, or start the outer container with `--security-opt systempaths=unconfined`",
        ),
    }
}

fn control_groups() -> HostCheck {
    const NAME: &str = "control groups";
    match cgroup::probe() {
        Ok(version) => HostCheck::good(NAME, format!("{version}; limits of memory, processor and processes apply")),
        Err(error) => HostCheck::bad(
            NAME,
            format!("no group can be made ({error}): limits of memory, processor and processes do not apply"),
            "as an ordinary user with systemd: start through `systemd-run --user --scope -p Delegate=yes seatrial …`",
        ),
    }
}

fn seccomp() -> HostCheck {
    const NAME: &str = "seccomp";
    let actions = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    if actions.contains("errno") {
        HostCheck::good(NAME, "filters are available")
    } else {
        HostCheck::bad(NAME, "this kernel has no seccomp filters", "use a kernel with CONFIG_SECCOMP_FILTER")
    }
}
