//! Extended attributes that belong to a file's content: `user.*` and file capabilities. Labels of the host's security
//! modules, ACLs and overlayfs' own marks stay behind.

use std::{io, os::fd::OwnedFd};

use rustix::{
    fs::{XattrFlags, fgetxattr, flistxattr, fsetxattr},
    io::Errno,
};

/// The kernel's bound on the list of names (xattr(7)).
const LIST_BYTES_MAX: usize = 65536;
/// The kernel's bound on one value (xattr(7)).
const VALUE_BYTES_MAX: usize = 65536;

/// File capabilities (capabilities(7)).
const CAPABILITY: &[u8] = b"security.capability";

/// Name and value of each attribute that is kept, sorted. The file has to be open for reading.
pub(crate) fn of(file: &OwnedFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    // Most files have none: ask with a small buffer on the stack first.
    let mut small = [0; 256];
    let mut large = Vec::new();
    let list: &[u8] = match flistxattr(file, &mut small[..]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(length) => &small[..length],
        Err(Errno::RANGE) => {
            large.resize(LIST_BYTES_MAX, 0);
            let length = flistxattr(file, &mut large[..])?;
            &large[..length]
        }
        Err(errno) => return Err(errno.into()),
    };
    let mut found = Vec::new();
    for name in list.split(|byte| *byte == 0).filter(|name| is_content(name)) {
        let mut value = vec![0; VALUE_BYTES_MAX];
        match fgetxattr(file, name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                found.push((name.to_vec(), value));
            }
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    found.sort();
    Ok(found)
}

/// Sets them on another file; of a context's file only its capabilities: what `user.*` a checkout has is the business of
/// the machine that it lies on, and BuildKit does not send it either. A file system or user namespace that cannot hold
/// them is no failure: neither is it docker's.
pub(crate) fn copy(from: &OwnedFd, to: &OwnedFd, is_context: bool) -> io::Result<()> {
    let mut attributes = of(from)?;
    attributes.retain(|(name, _)| !is_context || name == CAPABILITY);
    set(to, &attributes)
}

/// Sets attributes, with the same leniency.
pub(crate) fn set(file: &OwnedFd, attributes: &[(Vec<u8>, Vec<u8>)]) -> io::Result<()> {
    for (name, value) in attributes {
        match fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Whether an attribute belongs to the content.
pub(crate) fn is_content(name: &[u8]) -> bool {
    name == CAPABILITY || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}
