//! Which signals a process takes, as `/proc` tells.

use std::time::Duration;

/// `rt_sigtimedwait` by its number here, and by those of 32-bit programs on x86.
const WAITS: [i64; 3] = [libc::SYS_rt_sigtimedwait, 177, 421];

/// A process on the processor does not say what it waits for: it is looked at this often, for 100 ms in all.
const LOOKS_MAX: u32 = 100;
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// Whether a signal from outside has no effect on a process: it is the first one of its pid namespace, which gets only what it
/// handles (pid_namespaces(7), "The namespace init process"), and neither handles it, nor holds it back, nor waits for it.
/// Who ignores it does so on purpose, and has time to finish.
/// Who cannot be looked at is not taken for deaf.
pub(crate) fn is_lost(pid: i32, signal: i32) -> bool {
    let read = |name| std::fs::read_to_string(format!("/proc/{pid}/{name}"));
    for _ in 0..LOOKS_MAX {
        // The kernel shows a signal that is waited for (sigwait(3), as small inits do) as neither held back nor handled, so the
        // call is looked at on both sides of the masks.
        let looks = (read("syscall"), read("status"), read("syscall"));
        let (Ok(before), Ok(status), Ok(after)) = looks else { return false };
        match (awaits_signals(&before), awaits_signals(&after)) {
            _ if !is_lost_by(&status, signal) => return false,
            (Some(true), _) | (_, Some(true)) => return false,
            (Some(false), Some(false)) => return true,
            _ => std::thread::sleep(BETWEEN_LOOKS),
        }
    }
    false
}

/// Whether a process sleeps in a call for signals; `None` while it runs.
fn awaits_signals(call: &str) -> Option<bool> {
    let number: i64 = call.split_whitespace().next()?.parse().ok()?;
    Some(WAITS.contains(&number))
}

fn is_lost_by(status: &str, signal: i32) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let Some(bit) = u32::try_from(signal - 1).ok().and_then(|shift| 1_u64.checked_shl(shift)) else { return false };
    // What cannot be read is not taken for deaf.
    let has =
        |name: &str| field(name).and_then(|mask| u64::from_str_radix(mask, 16).ok()).is_none_or(|mask| mask & bit != 0);
    let is_first = field("NSpid").is_some_and(|numbers| {
        let numbers: Vec<&str> = numbers.split_whitespace().collect();
        numbers.len() > 1 && numbers.last() == Some(&"1")
    });
    // Of a first thread that has ended, while others go on, no masks are told.
    let has_ended = field("State").is_none_or(|state| state.starts_with('Z'));
    let is_meant = ["SigCgt", "SigBlk", "SigIgn"].into_iter().any(has);
    is_first && !has_ended && signal != libc::SIGKILL && signal != libc::SIGSTOP && !is_meant
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_first_process_is_deaf_to_what_it_neither_handles_nor_blocks() {
        let status = |numbers, blocked, caught| {
            format!(
                "Name:\tx\nState:\tS (sleeping)\nNSpid:\t{numbers}\nSigBlk:\t{blocked}\nSigIgn:\t0\nSigCgt:\t{caught}\n"
            )
        };
        // SIGTERM is 15.
        let (none, term) = ("0000000000000000", "0000000000004000");
        for (status, expected) in [
            (status("77\t1", none, none), true),
            (status("77\t1", none, "0000000000000002"), true),
            (status("77\t1", none, term), false),
            (status("77\t1", term, none), false),
            (status("77\t1", none, none).replace("SigIgn:\t0", "SigIgn:\t4000"), false),
            (status("77\t8", none, none), false),
            (status("1", none, none), false),
            (String::new(), false),
        ] {
            assert_eq!(is_lost_by(&status, 15), expected, "{status}");
        }
        assert_eq!(["7 0x7ffd 0x1\n", "running\n", ""].map(awaits_signals), [Some(false), None, None]);
        assert_eq!(awaits_signals(&format!("{} 0x7ffd 0x0\n", libc::SYS_rt_sigtimedwait)), Some(true));
        assert!(!is_lost_by(&status("77\t1", none, none).replace("S (sleeping)", "Z (zombie)"), 15));
        assert!(!is_lost_by(&status("77\t1", none, none), libc::SIGKILL));
    }
}
