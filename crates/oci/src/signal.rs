//! Signals by name or number, as STOPSIGNAL and `stop_signal` have them (moby, `sys/signal`): with or without `SIG`, in any
//! case, real-time ones counted from either end.

/// SIGTERM: what a container without a stop signal gets.
pub const SIGTERM: i32 = 15;

/// Names without `SIG` with their numbers on Linux (signal(7)), the usual one of a number first.
const NAMES: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", SIGTERM),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("UNUSED", 31),
];
/// `SIGRTMIN` as glibc counts, which takes two of the kernel's 32 to 64 for itself.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The number of a signal. `None`: there is no such one.
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let (base, offset) = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(offset), _) => (RTMIN, offset),
        (None, offset) => (RTMAX, offset?),
    };
    let offset: i32 = if offset.is_empty() { 0 } else { offset.parse().ok()? };
    Some(base.saturating_add(offset)).filter(|number| (RTMIN..=RTMAX).contains(number))
}

/// What stops a container whose image or definition says this: SIGTERM where it says nothing, or nothing that is known.
pub fn stop_signal(text: &str) -> i32 {
    parse(text).unwrap_or(SIGTERM)
}

/// Its name, for people.
pub fn name(signal: i32) -> String {
    let known = NAMES.iter().find(|(_, number)| *number == signal);
    known.map_or_else(|| format!("signal {signal}"), |(name, _)| format!("SIG{name}"))
}

/// All names, without `SIG`.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name).chain(["RTMIN", "RTMAX"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read() {
        let known = [("SIGQUIT", 3), ("quit", 3), ("9", 9), ("SIGRTMIN+3", 37), ("RTMIN", 34), ("RTMAX-1", 63)];
        for (text, number) in known {
            assert_eq!((parse(text), stop_signal(text)), (Some(number), number), "{text}");
        }
        for text in ["", "NONSENSE", "0", "65", "-1", "RTMIN+31", "RTMAX+1", "RTMINX", "SIG"] {
            assert_eq!((parse(text), stop_signal(text)), (None, SIGTERM), "{text}");
        }
        assert_eq!((name(6), name(40)), ("SIGABRT".to_owned(), "signal 40".to_owned()));
    }
}
