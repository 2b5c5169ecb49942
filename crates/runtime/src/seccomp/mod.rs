//! The default seccomp filter: a classic BPF program assembled from a table, in microseconds and without a C library.
//!
//! What is closed answers EPERM as in docker. `clone3` and calls newer than the table answer ENOSYS, so that a C library
//! falls back to what it used before.

mod table;

use crate::caps::{Cap, CapSet};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSeccompOperator,
    LinuxSyscall, LinuxSyscallBuilder,
};
use std::io;
use table::{ALWAYS, CLONE, CLONE3, Call, NEWEST, PERSONALITY, SOCKET, WITH_CAPABILITY};

/// Installs the filter for a process with these capabilities. Needs CAP_SYS_ADMIN or `no_new_privs`.
pub(crate) fn install(caps: CapSet) -> io::Result<()> {
    let program = assemble(NATIVE, caps);
    let header = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `header` and the program it points to outlive the call; the kernel copies both.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const header) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The same profile in the words of the runtime spec, for a foreign runtime.
pub(crate) fn to_oci(caps: CapSet) -> Result<LinuxSeccomp, oci_spec::OciSpecError> {
    let mut names: Vec<String> = ALWAYS.iter().map(|call| call.0.to_owned()).collect();
    for (cap, calls) in WITH_CAPABILITY {
        if caps.contains(*cap) {
            names.extend(calls.iter().map(|call| call.0.to_owned()));
        }
    }
    let rule = |name: &str, value: u64, two: Option<u64>, op| -> Result<LinuxSyscall, oci_spec::OciSpecError> {
        let arg = LinuxSeccompArgBuilder::default().index(0usize).value(value).op(op);
        let arg = match two {
            Some(two) => arg.value_two(two),
            None => arg,
        };
        LinuxSyscallBuilder::default()
            .names(vec![name.to_owned()])
            .action(LinuxSeccompAction::ScmpActAllow)
            .args(vec![arg.build()?])
            .build()
    };
    let mut calls = vec![
        LinuxSyscallBuilder::default().names(names).action(LinuxSeccompAction::ScmpActAllow).build()?,
        rule("socket", AF_VSOCK.into(), None, LinuxSeccompOperator::ScmpCmpNe)?,
    ];
    for value in PERSONALITIES {
        calls.push(rule("personality", value.into(), None, LinuxSeccompOperator::ScmpCmpEq)?);
    }
    if !caps.contains(Cap::SysAdmin) {
        calls.push(rule("clone", NAMESPACE_FLAGS.into(), Some(0), LinuxSeccompOperator::ScmpCmpMaskedEq)?);
        calls.push(
            LinuxSyscallBuilder::default()
                .names(vec!["clone3".to_owned()])
                .action(LinuxSeccompAction::ScmpActErrno)
                .errno_ret(38u32)
                .build()?,
        );
    }
    let arches = if cfg!(target_arch = "x86_64") {
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86]
    } else {
        vec![Arch::ScmpArchAarch64]
    };
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(1u32)
        .architectures(arches)
        .syscalls(calls)
        .build()
}

/// Virtual machine sockets: they reach the hypervisor's host, past any network namespace.
const AF_VSOCK: u32 = 40;
/// `CLONE_NEWNS|NEWCGROUP|NEWUTS|NEWIPC|NEWUSER|NEWPID|NEWNET`.
const NAMESPACE_FLAGS: u32 = 0x7e02_0000;
/// `PER_LINUX`, `PER_LINUX32`, each with `UNAME26`, and the query.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Audit names of the architectures a process of this kernel may run as, and the column of the table for each.
struct Machine {
    audit: u32,
    column: fn(&Call) -> i16,
    /// x86_64 only: numbers from here up are the x32 ABI, which nobody needs and which doubles the surface.
    x32_from: Option<u32>,
}

#[cfg(any(test, target_arch = "x86_64"))]
const X86_64: &[Machine] = &[
    Machine { audit: 0xc000_003e, column: |call| call.1, x32_from: Some(0x4000_0000) },
    Machine { audit: 0x4000_0003, column: |call| call.3, x32_from: None },
];
#[cfg(any(test, target_arch = "aarch64"))]
const AARCH64: &[Machine] = &[Machine { audit: 0xc000_00b7, column: |call| call.2, x32_from: None }];
#[cfg(target_arch = "x86_64")]
const NATIVE: &[Machine] = X86_64;
#[cfg(target_arch = "aarch64")]
const NATIVE: &[Machine] = AARCH64;

// Offsets in `struct seccomp_data`; arguments are 64 bits wide and little-endian on both architectures.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARG0_LOW: u32 = 16;
const ARG0_HIGH: u32 = 20;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

type Program = Vec<libc::sock_filter>;

fn assemble(machines: &[Machine], caps: CapSet) -> Program {
    let mut program = vec![load(ARCH)];
    for machine in machines {
        let body = machine_body(machine, caps);
        program.extend(if_equal(machine.audit, body));
    }
    program.push(ret(KILL));
    program
}

fn machine_body(machine: &Machine, caps: CapSet) -> Program {
    let number = |call: &Call| u32::try_from((machine.column)(call)).ok();
    let mut body = vec![load(NR)];
    if let Some(x32_from) = machine.x32_from {
        body.extend([jump(JGE, x32_from, 0, 1), ret(ENOSYS)]);
    }
    body.extend([jump(JGT, NEWEST, 0, 1), ret(ENOSYS)]);

    if let Some(socket) = number(&SOCKET) {
        // The kernel looks at the low 32 bits only, and so do we: a set high bit must not smuggle the family past us.
        body.extend(if_equal(socket, vec![load(ARG0_LOW), jump(JEQ, AF_VSOCK, 0, 1), ret(EPERM), ret(ALLOW)]));
    }
    if let Some(personality) = number(&PERSONALITY) {
        let mut check = vec![load(ARG0_HIGH), jump(JEQ, 0, 1, 0), ret(EPERM), load(ARG0_LOW)];
        for value in PERSONALITIES {
            check.extend([jump(JEQ, value, 0, 1), ret(ALLOW)]);
        }
        check.push(ret(EPERM));
        body.extend(if_equal(personality, check));
    }
    if !caps.contains(Cap::SysAdmin) {
        if let Some(clone) = number(&CLONE) {
            let check = vec![load(ARG0_LOW), jump(JSET, NAMESPACE_FLAGS, 0, 1), ret(EPERM), ret(ALLOW)];
            body.extend(if_equal(clone, check));
        }
        // Its flags are in memory, where a filter cannot look (moby, "clone3").
        if let Some(clone3) = number(&CLONE3) {
            body.extend(if_equal(clone3, vec![ret(ENOSYS)]));
        }
    }

    let mut open: Vec<u32> = ALWAYS.iter().filter_map(number).collect();
    for (cap, calls) in WITH_CAPABILITY {
        if caps.contains(*cap) {
            open.extend(calls.iter().filter_map(number));
        }
    }
    open.sort_unstable();
    open.dedup();
    body.extend(search(&ranges(&open)));
    body
}

/// Neighbouring numbers as inclusive ranges.
fn ranges(sorted: &[u32]) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &number in sorted {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}

/// Binary search of the loaded number; every path ends in a return.
fn search(ranges: &[(u32, u32)]) -> Program {
    match ranges {
        [] => vec![ret(EPERM)],
        [(low, high)] => vec![jump(JGE, *low, 0, 2), jump(JGT, *high, 1, 0), ret(ALLOW), ret(EPERM)],
        _ => {
            let (left, right) = ranges.split_at(ranges.len() / 2);
            let mut program = search(left);
            // A plain jump reaches farther than the 255 instructions of a conditional one.
            let skip = u32::try_from(program.len()).unwrap_or(u32::MAX);
            program.splice(0..0, [jump(JGE, right[0].0, 0, 1), jump(JA, skip, 0, 0)]);
            program.extend(search(right));
            program
        }
    }
}

/// `body`, which must return on every path, when the accumulator equals `value`.
fn if_equal(value: u32, body: Program) -> Program {
    let skip = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut program = vec![jump(JEQ, value, 1, 0), jump(JA, skip, 0, 0)];
    program.extend(body);
    program
}

const JA: u32 = libc::BPF_JA;
const JEQ: u32 = libc::BPF_JEQ;
const JGE: u32 = libc::BPF_JGE;
const JGT: u32 = libc::BPF_JGT;
const JSET: u32 = libc::BPF_JSET;

const fn load(offset: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: offset }
}

const fn jump(test: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | test | libc::BPF_K) as u16, jt, jf, k }
}

const fn ret(action: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: action }
}

#[cfg(test)]
mod tests;
