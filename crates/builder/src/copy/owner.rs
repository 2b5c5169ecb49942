//! `--chown`: names looked up in the image, numbers taken as they are.

use std::{io::Read as _, os::fd::BorrowedFd};

use rustix::fs::OFlags;

use super::target::Owner;
use crate::tree;

/// A passwd file of the largest systems is smaller; an image's that is larger is an attack on memory.
const TABLE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Reads `user[:group]`. Without a group it is the user's own, or for a number the same number.
pub(crate) fn parse_owner(text: &str, root: Option<BorrowedFd<'_>>) -> Result<Owner, String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let passwd = || root.map(|root| table(root, b"etc/passwd")).unwrap_or_default();
    let (uid, own_group) = match user.parse::<u32>() {
        _ if user.is_empty() => (0, 0),
        Ok(uid) => (uid, uid),
        Err(_) => {
            let found = find(&passwd(), user).and_then(|fields| Some((number(&fields, 2)?, number(&fields, 3)?)));
            found.ok_or_else(|| format!("user `{user}` is not in the image's /etc/passwd"))?
        }
    };
    let gid = match group {
        None => own_group,
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => {
                let groups = root.map(|root| table(root, b"etc/group")).unwrap_or_default();
                find(&groups, group)
                    .and_then(|fields| number(&fields, 2))
                    .ok_or_else(|| format!("group `{group}` is not in the image's /etc/group"))?
            }
        },
    };
    Ok((uid, gid))
}

/// Whether the owner can be read without the image.
pub(crate) fn is_numeric(text: &str) -> bool {
    text.split(':').all(|part| part.is_empty() || part.parse::<u32>().is_ok())
}

fn table(root: BorrowedFd<'_>, path: &[u8]) -> String {
    let mut bytes = Vec::new();
    // A missing or unreadable table knows nobody; NONBLOCK because an image may put a FIFO there.
    if let Ok(file) = tree::open_in_root(root, path, OFlags::RDONLY | OFlags::NONBLOCK) {
        let _ = std::fs::File::from(file).take(TABLE_BYTES_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn find<'a>(table: &'a str, name: &str) -> Option<Vec<&'a str>> {
    table.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name)
}

fn number(fields: &[&str], at: usize) -> Option<u32> {
    fields.get(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_need_no_image() {
        assert_eq!(parse_owner("55", None), Ok((55, 55)));
        assert_eq!(parse_owner("55:7", None), Ok((55, 7)));
        assert_eq!(parse_owner("55:", None), Ok((55, 55)));
        assert!(parse_owner("bin", None).is_err());
        assert!(is_numeric("1:2") && !is_numeric("bin:2"));
    }
}
