use super::{table::NONE, *};

/// Runs the program as the kernel would (only the instructions that we emit).
fn answer(machines: &[Machine], caps: CapSet, arch: u32, nr: u32, arg0: u64) -> u32 {
    let program = assemble(machines, caps);
    assert!(program.len() <= 4096, "the kernel takes 4096 instructions");
    let mut at = 0;
    let mut acc = 0u32;
    loop {
        let op = &program[at];
        at += 1;
        let code = u32::from(op.code);
        let test = |truth: bool| usize::from(if truth { op.jt } else { op.jf });
        match code & 7 {
            libc::BPF_LD => {
                acc = match op.k {
                    NR => nr,
                    ARCH => arch,
                    ARG0_LOW => arg0 as u32,
                    ARG0_HIGH => (arg0 >> 32) as u32,
                    other => panic!("load at {other}"),
                }
            }
            libc::BPF_RET => return op.k,
            libc::BPF_JMP => match code & 0xf0 {
                JA => at += op.k as usize,
                JEQ => at += test(acc == op.k),
                JGE => at += test(acc >= op.k),
                JGT => at += test(acc > op.k),
                JSET => at += test(acc & op.k != 0),
                other => panic!("jump {other}"),
            },
            other => panic!("class {other}"),
        }
    }
}

const AMD64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const ARM64: u32 = 0xc000_00b7;

#[test]
fn every_call_of_the_table_is_open_and_the_others_closed() {
    for nr in 0..=NEWEST {
        for (arch, column) in [(AMD64, 1), (I386, 3)] {
            let pick = |call: &Call| u32::try_from(if column == 1 { call.1 } else { call.3 }).ok();
            if [SOCKET, PERSONALITY, CLONE, CLONE3].iter().any(|call| pick(call) == Some(nr)) {
                continue;
            }
            let open = ALWAYS.iter().any(|call| pick(call) == Some(nr));
            let expected = if open { ALLOW } else { EPERM };
            assert_eq!(answer(X86_64, CapSet::DEFAULT, arch, nr, 0), expected_with_chroot(expected, arch, nr));
        }
    }
}

/// `chroot` is open by default, since CAP_SYS_CHROOT is one of the fourteen.
fn expected_with_chroot(expected: u32, arch: u32, nr: u32) -> u32 {
    if (arch, nr) == (AMD64, 161) || (arch, nr) == (I386, 61) { ALLOW } else { expected }
}

#[test]
fn arguments_decide() {
    let ask = |nr, arg| answer(X86_64, CapSet::DEFAULT, AMD64, nr, arg);
    assert_eq!(ask(41, 2), ALLOW, "socket(AF_INET)");
    assert_eq!(ask(41, 40), EPERM, "socket(AF_VSOCK)");
    assert_eq!(ask(41, 0x1_0000_0028), EPERM, "AF_VSOCK with a high bit that the kernel ignores");
    assert_eq!(ask(56, 0x11), ALLOW, "fork");
    assert_eq!(ask(56, 0x1000_0011), EPERM, "clone(CLONE_NEWUSER)");
    assert_eq!(ask(435, 0), ENOSYS, "clone3");
    assert_eq!(ask(135, 0x20_0000), EPERM, "personality(ADDR_NO_RANDOMIZE and others)");
    assert_eq!(ask(135, 0xffff_ffff), ALLOW, "personality query");
    assert_eq!(ask(272, 0), EPERM, "unshare");
    assert_eq!(ask(165, 0), EPERM, "mount");
    assert_eq!(ask(425, 0), EPERM, "io_uring_setup");
    assert_eq!(ask(NEWEST + 1, 0), ENOSYS, "a call of the future");
    assert_eq!(ask(0x4000_0000, 0), ENOSYS, "x32");
}

#[test]
fn capabilities_open_their_calls() {
    let admin = CapSet::adjusted(&["SYS_ADMIN".into()], &[]).expect("known name");
    assert_eq!(answer(X86_64, admin, AMD64, 165, 0), ALLOW, "mount");
    assert_eq!(answer(X86_64, admin, AMD64, 435, 0), ALLOW, "clone3");
    assert_eq!(answer(X86_64, admin, AMD64, 56, 0x1000_0011), ALLOW, "clone(CLONE_NEWUSER)");
    assert_eq!(answer(AARCH64, admin, ARM64, 40, 0), ALLOW, "mount on aarch64");
    assert_eq!(answer(AARCH64, CapSet::DEFAULT, ARM64, 40, 0), EPERM, "mount on aarch64");
    assert_eq!(answer(AARCH64, CapSet::DEFAULT, AMD64, 0, 0), KILL, "a foreign architecture");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn numbers_agree_with_libc() {
    let known = [
        ("read", libc::SYS_read),
        ("execve", libc::SYS_execve),
        ("statx", libc::SYS_statx),
        ("openat2", libc::SYS_openat2),
        ("close_range", libc::SYS_close_range),
        ("mseal", libc::SYS_mseal),
        ("fchmodat2", libc::SYS_fchmodat2),
        ("pidfd_open", libc::SYS_pidfd_open),
    ];
    for (name, number) in known {
        let call = ALWAYS.iter().find(|call| call.0 == name).expect(name);
        assert_eq!(i64::from(call.1), number, "{name}");
    }
    assert!(ALWAYS.iter().all(|call| [call.1, call.2, call.3].iter().any(|number| *number != NONE)));
}
