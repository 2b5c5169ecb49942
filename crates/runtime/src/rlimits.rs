//! Resource limits of processes: docker's names, the bundle's, the kernel's.

use crate::{error::StartError, spec::Limits};
use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;

/// Every limit by its name without `RLIMIT_`.
const KINDS: [(&str, PosixRlimitType, Resource); 16] = [
    ("as", PosixRlimitType::RlimitAs, Resource::As),
    ("core", PosixRlimitType::RlimitCore, Resource::Core),
    ("cpu", PosixRlimitType::RlimitCpu, Resource::Cpu),
    ("data", PosixRlimitType::RlimitData, Resource::Data),
    ("fsize", PosixRlimitType::RlimitFsize, Resource::Fsize),
    ("locks", PosixRlimitType::RlimitLocks, Resource::Locks),
    ("memlock", PosixRlimitType::RlimitMemlock, Resource::Memlock),
    ("msgqueue", PosixRlimitType::RlimitMsgqueue, Resource::Msgqueue),
    ("nice", PosixRlimitType::RlimitNice, Resource::Nice),
    ("nofile", PosixRlimitType::RlimitNofile, Resource::Nofile),
    ("nproc", PosixRlimitType::RlimitNproc, Resource::Nproc),
    ("rss", PosixRlimitType::RlimitRss, Resource::Rss),
    ("rtprio", PosixRlimitType::RlimitRtprio, Resource::Rtprio),
    ("rttime", PosixRlimitType::RlimitRttime, Resource::Rttime),
    ("sigpending", PosixRlimitType::RlimitSigpending, Resource::Sigpending),
    ("stack", PosixRlimitType::RlimitStack, Resource::Stack),
];

/// In the words of the runtime spec. Our own `nofile` is a bound below which a given one goes further.
pub(crate) fn to_oci(limits: &Limits) -> Result<Vec<PosixRlimit>, StartError> {
    let wrong = |error| StartError::setup("set resource limits", io::Error::new(io::ErrorKind::InvalidInput, error));
    let one = |typ, soft, hard| PosixRlimitBuilder::default().typ(typ).soft(soft).hard(hard).build();
    let mut found = Vec::new();
    for limit in &limits.ulimits {
        let kind = KINDS.iter().find(|(name, ..)| name.eq_ignore_ascii_case(&limit.name));
        let (_, typ, _) = kind.ok_or_else(|| wrong(format!("there is no resource limit `{}`", limit.name)))?;
        found.push(one(*typ, limit.soft, limit.hard).map_err(|error| wrong(error.to_string()))?);
    }
    if let Some(nofile) = limits.nofile
        && !found.iter().any(|limit: &PosixRlimit| limit.typ() == PosixRlimitType::RlimitNofile)
    {
        let limit = one(PosixRlimitType::RlimitNofile, nofile, nofile);
        found.push(limit.map_err(|error| wrong(error.to_string()))?);
    }
    Ok(found)
}

/// Raises this process's hard limits to those that a process shall have; it inherits them. What may not be raised is a
/// warning: raising takes a right that even root may lack in a container.
pub(crate) fn raise(process: &Process, warnings: &mut Vec<String>) {
    for limit in process.rlimits().iter().flatten() {
        let Some((name, _, resource)) = KINDS.iter().find(|(_, typ, _)| *typ == limit.typ()) else { continue };
        let current = getrlimit(*resource);
        let Some(own) = current.maximum.filter(|own| *own < limit.hard()) else { continue };
        if setrlimit(*resource, Rlimit { current: current.current, maximum: bound(limit.hard()) }).is_err() {
            warnings.push(format!(
                "the limit {name} stays at {own}: this process may not raise it to {}",
                bound(limit.hard()).map_or_else(|| "unlimited".to_owned(), |hard| hard.to_string())
            ));
        }
    }
}

/// Sets the limits of a process in the process itself, within the hard limits that it has.
pub(crate) fn apply(process: &Process) {
    for limit in process.rlimits().iter().flatten() {
        let Some((_, _, resource)) = KINDS.iter().find(|(_, typ, _)| *typ == limit.typ()) else { continue };
        let own = getrlimit(*resource).maximum.unwrap_or(u64::MAX);
        let hard = limit.hard().min(own);
        let _ = setrlimit(*resource, Rlimit { current: bound(limit.soft().min(hard)), maximum: bound(hard) });
    }
}

/// Sets a limit, within the hard limit that is there.
pub(crate) fn lower(resource: Resource, wanted: u64) {
    let hard = getrlimit(resource).maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let _ = setrlimit(resource, Rlimit { current: Some(hard), maximum: Some(hard) });
}

/// The kernel's `RLIM_INFINITY` is no number.
fn bound(value: u64) -> Option<u64> {
    (value != u64::MAX).then_some(value)
}
