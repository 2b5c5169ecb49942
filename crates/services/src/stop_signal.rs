//! STOPSIGNAL of an image (Dockerfile reference, STOPSIGNAL).

/// What a container without one gets.
pub const SIGTERM: i32 = 15;

const NAMES: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("KILL", 9),
    ("USR1", 10),
    ("USR2", 12),
    ("ALRM", 14),
    ("TERM", 15),
    ("CONT", 18),
    ("WINCH", 28),
    ("PWR", 30),
];

/// STOPSIGNAL: a number or a name, with or without `SIG`. What is neither is SIGTERM.
pub fn stop_signal(text: &str) -> i32 {
    /// `SIGRTMIN` of glibc and of the signals that systemd documents.
    const RTMIN: i32 = 34;
    if let Ok(number) = text.parse() {
        return number;
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        return RTMIN + offset.trim_start_matches('+').parse::<i32>().unwrap_or(0);
    }
    NAMES.iter().find(|(known, _)| *known == name).map_or(SIGTERM, |(_, number)| *number)
}

/// Its name, for people.
pub fn name(signal: i32) -> String {
    NAMES
        .iter()
        .find(|(_, number)| *number == signal)
        .map_or_else(|| format!("signal {signal}"), |(name, _)| format!("SIG{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_are_read() {
        for (text, number) in
            [("", 15), ("SIGQUIT", 3), ("quit", 3), ("9", 9), ("SIGRTMIN+3", 37), ("RTMIN", 34), ("NONSENSE", 15)]
        {
            assert_eq!(stop_signal(text), number, "{text}");
        }
    }
}
