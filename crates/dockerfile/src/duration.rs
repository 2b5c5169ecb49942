//! Durations as `HEALTHCHECK` takes them: Go's `time.ParseDuration`.

use std::time::Duration;

/// Reads a duration such as `1m30s`, `500ms`, `1.5h` or `0`. `None`: malformed, negative, or out of range.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" || text == "-0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total_ns: u128 = 0;
    while !rest.is_empty() {
        let number_length = rest.find(|ch: char| !ch.is_ascii_digit() && ch != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(number_length);
        let unit_length = behind.find(|ch: char| ch.is_ascii_digit() || ch == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_length);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return None;
        }
        let unit_ns: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total_ns = total_ns.checked_add(whole.checked_mul(unit_ns)?)?;
        // Digits past the twelfth are below a nanosecond even for hours.
        let mut digit_ns = unit_ns;
        for digit in fraction.bytes().take(13) {
            digit_ns /= 10;
            total_ns = total_ns.checked_add(u128::from(digit - b'0') * digit_ns)?;
        }
        rest = behind;
    }
    // Go's duration is a signed 64-bit number of nanoseconds.
    i64::try_from(total_ns).ok().map(|ns| Duration::from_nanos(ns.unsigned_abs()))
}
