//! `user[:group]` against the container's own `/etc/passwd` and `/etc/group`.

use crate::protocol::{Failure, FailureKind};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use std::{fs::File, io::Read, os::fd::BorrowedFd};

/// Who a process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) home: String,
}

/// Largest account file that is read; real ones have a few kilobytes.
const ACCOUNTS_MAX: u64 = 8 * 1024 * 1024;
/// Most supplementary groups, the kernel's own bound (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65_536;

/// Looks a user up as docker does: names or numbers, the group from passwd unless told, supplementary groups unless a
/// group is told, root's group for numbers that passwd does not know. Empty means root.
pub(super) fn look_up(root: BorrowedFd<'_>, user: &str) -> Result<Identity, Failure> {
    resolve(user, &read_accounts(root, "etc/passwd"), &read_accounts(root, "etc/group")).ok_or_else(|| Failure {
        step: "find the user".to_owned(),
        path: Some(user.to_owned()),
        errno: libc::ENOENT,
        kind: FailureKind::UnknownUser,
    })
}

fn resolve(user: &str, passwd: &str, group: &str) -> Option<Identity> {
    let (user, wanted_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = parse_id(user);
    let entries = || passwd.lines().filter_map(PasswdEntry::parse);
    let entry =
        entries().find(|entry| entry.name == user).or_else(|| entries().find(|entry| Some(entry.uid) == number));
    let (uid, mut gid, home, name) = match entry {
        Some(entry) => (entry.uid, entry.gid, entry.home, entry.name),
        None => (number?, 0, "/", ""),
    };
    // The group itself is listed too: programs that drop it would else gain rights where it is denied some
    // (CVE-2022-36109).
    let mut groups = Vec::new();
    match wanted_group {
        Some(wanted) => {
            gid = group_lines(group)
                .find(|(name, _, _)| *name == wanted)
                .map(|(_, gid, _)| gid)
                .or_else(|| parse_id(wanted))?;
        }
        None if !name.is_empty() => {
            groups = group_lines(group)
                .filter(|(_, _, members)| members.split(',').any(|member| member == name))
                .map(|(_, gid, _)| gid)
                .take(GROUPS_MAX - 1)
                .collect();
        }
        None => {}
    }
    groups.retain(|group| *group != gid);
    groups.insert(0, gid);
    let home = if home.is_empty() { "/" } else { home };
    Some(Identity { uid, gid, groups, home: home.to_owned() })
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> PasswdEntry<'a> {
    fn parse(line: &'a str) -> Option<PasswdEntry<'a>> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        fields.next()?;
        let uid = parse_id(fields.next()?)?;
        let gid = parse_id(fields.next()?)?;
        fields.next();
        Some(PasswdEntry { name, uid, gid, home: fields.next().unwrap_or("/") })
    }
}

fn group_lines(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        fields.next()?;
        let gid = parse_id(fields.next()?)?;
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

/// Ids above this mean "no change" or "nobody" to some calls (moby has the same bound).
fn parse_id(text: &str) -> Option<u32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|id| *id <= i32::MAX as u32)
}

/// A regular file of bounded size, links resolved inside the root; anything else counts as empty (a FIFO would hang us).
fn read_accounts(root: BorrowedFd<'_>, path: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let Ok(file) = openat2(root, path, flags, Mode::empty(), resolve) else { return String::new() };
    if !fstat(&file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile) {
        return String::new();
    }
    let mut bytes = Vec::new();
    drop(File::from(file).take(ACCOUNTS_MAX).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1001:Ada:/home/ada:/bin/sh\nbroken\n4:x:7:8::/seven:\n";
    const GROUP: &str = "root:x:0:\nada:x:1001:\nwheel:x:10:root,ada\nvideo:x:44:adam,ada\n";

    fn check(user: &str, expected: Option<(u32, u32, &[u32], &str)>) {
        let found = resolve(user, PASSWD, GROUP);
        let found = found.as_ref().map(|id| (id.uid, id.gid, id.groups.as_slice(), id.home.as_str()));
        assert_eq!(found, expected, "{user}");
    }

    #[test]
    fn users_are_found_as_docker_finds_them() {
        check("", Some((0, 0, &[0, 10], "/root")));
        check("ada", Some((1000, 1001, &[1001, 10, 44], "/home/ada")));
        check("1000", Some((1000, 1001, &[1001, 10, 44], "/home/ada")));
        check("ada:video", Some((1000, 44, &[44], "/home/ada")));
        check("ada:5", Some((1000, 5, &[5], "/home/ada")));
        check(":wheel", Some((0, 10, &[10], "/root")));
        check("5000", Some((5000, 0, &[0], "/")));
        check("5000:6000", Some((5000, 6000, &[6000], "/")));
        check("4", Some((7, 8, &[8], "/seven")));
        check("eve", None);
        check("ada:eves", None);
        check("-1", None);
        check("4294967295", None);
    }
}
