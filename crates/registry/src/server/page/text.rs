//! Sizes, times and hosts as people read them.

use std::time::SystemTime;

/// `1.2 MB`, in units of a thousand.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let mut scaled = bytes as f64;
    let mut unit = None;
    for name in UNITS {
        if scaled < 999.95 {
            break;
        }
        scaled /= 1000.0;
        unit = Some(name);
    }
    match unit {
        None => format!("{bytes} B"),
        Some(unit) => format!("{scaled:.1} {unit}"),
    }
}

/// `2026-03-01 12:00`, in UTC.
pub(super) fn time(at: SystemTime) -> String {
    let zoned = jiff::Timestamp::try_from(at).map(|at| at.to_zoned(jiff::tz::TimeZone::UTC));
    zoned.map_or_else(|_| String::new(), |at| at.strftime("%Y-%m-%d %H:%M").to_string())
}

/// The name that the browser calls us by, if it is one that may stand in a command.
pub(super) fn host(told: Option<&str>) -> String {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    let host = told.filter(|host| !host.is_empty() && host.len() <= 255 && host.bytes().all(legal));
    host.unwrap_or("registry.example").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_hosts_are_short_and_harmless() {
        assert_eq!([0, 999, 1000, 1_234_567].map(bytes), ["0 B", "999 B", "1.0 kB", "1.2 MB"]);
        assert_eq!(host(Some("[::1]:5000")), "[::1]:5000");
        assert_eq!(host(Some("x;rm -rf")), "registry.example");
        assert_eq!(time(std::time::UNIX_EPOCH), "1970-01-01 00:00");
    }
}
