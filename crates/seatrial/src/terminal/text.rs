//! Text for people: control characters removed, durations, sizes, widths.

use std::time::Duration;

/// A line is cut here before it is looked at further; nobody reads longer ones on a terminal.
const LINE_CHARS_MAX: usize = 4_000;

/// Rows and columns of the terminal at stderr; 24 by 80 when that is unknown.
pub(crate) fn terminal_size() -> (usize, usize) {
    let (rows, columns) = console::Term::stderr().size_checked().unwrap_or((24, 80));
    // Some terminals say 0 until they are drawn for the first time.
    (usize::from(if rows == 0 { 24 } else { rows }), usize::from(if columns == 0 { 80 } else { columns }))
}

/// Columns that a text takes, colours not counted.
pub(crate) fn width(text: &str) -> usize {
    console::measure_text_width(text)
}

/// Cut to `columns`, with `…` where something is missing.
pub(crate) fn fit(text: &str, columns: usize) -> String {
    console::truncate_str(text, columns, "…").into_owned()
}

/// Broken at blanks into lines of so many columns; after `lines_max` lines `…` stands for the rest. A word that is longer
/// than a line is broken anywhere.
pub(crate) fn wrap(text: &str, columns: usize, lines_max: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut rest: Vec<&str> = text.split(' ').rev().collect();
    while let Some(word) = rest.pop() {
        let is_last = lines.len() == lines_max;
        let last = lines.last_mut().expect("there is one");
        let gap = usize::from(!last.is_empty());
        if width(last) + gap + width(word) <= columns {
            last.push_str(&" "[..gap]);
            last.push_str(word);
            continue;
        }
        if is_last {
            let cut = fit(&format!("{last} {word} {}", "…"), columns);
            *last = if cut.ends_with('…') { cut } else { format!("{cut}…") };
            return lines;
        }
        if !last.is_empty() {
            lines.push(String::new());
            rest.push(word);
            continue;
        }
        // As many characters as fit; one at least, however narrow it is.
        let mut end = 0;
        for (at, character) in word.char_indices() {
            let next = at + character.len_utf8();
            if end > 0 && width(&word[..next]) > columns {
                break;
            }
            end = next;
        }
        last.push_str(&word[..end]);
        lines.push(String::new());
        rest.push(&word[end..]);
    }
    if lines.len() > 1 && lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// A line of a container's output made harmless: no control sequences, no direction marks, tabs as spaces; of a
/// progress bar that redraws itself only the last state.
pub(crate) fn clean_line(line: &str) -> String {
    let line = line.trim_end_matches(['\r', '\n']);
    let line = line.rsplit('\r').next().unwrap_or(line);
    let mut out = String::with_capacity(line.len().min(LINE_CHARS_MAX));
    let mut characters = line.chars().peekable();
    let mut taken = 0;
    while let Some(character) = characters.next() {
        if taken >= LINE_CHARS_MAX {
            out.push('…');
            break;
        }
        match character {
            '\x1b' => skip_escape(&mut characters),
            '\u{9b}' => skip_csi(&mut characters),
            '\u{90}' | '\u{9d}' | '\u{98}' | '\u{9e}' | '\u{9f}' => skip_string(&mut characters),
            '\t' => {
                let column = taken % 8;
                out.extend(std::iter::repeat_n(' ', 8 - column));
                taken += 8 - column;
            }
            '\u{8}' => {
                out.pop();
            }
            character if character.is_control() || is_invisible(character) => {}
            character => {
                out.push(character);
                taken += 1;
            }
        }
    }
    out
}

/// Marks that turn the direction of writing or hide: they make a log say other things than it shows.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

type Characters<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Skips what follows ESC (ECMA-48: CSI, the string sequences, and two- or three-character ones).
fn skip_escape(characters: &mut Characters<'_>) {
    match characters.next() {
        Some('[') => skip_csi(characters),
        Some(']' | 'P' | 'X' | '^' | '_') => skip_string(characters),
        Some(' '..='/') => {
            while characters.next_if(|c| matches!(c, ' '..='/')).is_some() {}
            characters.next_if(|c| matches!(c, '0'..='~'));
        }
        _ => {}
    }
}

fn skip_csi(characters: &mut Characters<'_>) {
    while characters.next_if(|c| matches!(c, ' '..='?')).is_some() {}
    characters.next_if(|c| matches!(c, '@'..='~'));
}

/// A string sequence ends with BEL or ESC \; without an end, nothing of the line is shown.
fn skip_string(characters: &mut Characters<'_>) {
    while let Some(character) = characters.next() {
        if character == '\u{7}' || character == '\u{9c}' {
            return;
        }
        if character == '\x1b' {
            characters.next_if_eq(&'\\');
            return;
        }
    }
}

/// Text of ours with parts from outside, on one line.
pub(crate) fn one_line(text: &str) -> String {
    text.lines().map(clean_line).collect::<Vec<_>>().join(" ")
}

/// Text of ours with parts from outside, its line ends kept. Further lines are marked: they may not begin like a
/// command to a CI system.
pub(crate) fn multi_line(text: &str) -> String {
    text.lines().map(clean_line).collect::<Vec<_>>().join("\n  | ")
}

/// `0.4s`, `31.0s`, `2m05s`, `1h02m`.
pub(crate) fn duration(duration: Duration) -> String {
    let tenths = duration.as_millis().saturating_add(50) / 100;
    let seconds = tenths / 10;
    match seconds {
        0..60 => format!("{seconds}.{}s", tenths % 10),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// [`duration`] of milliseconds.
pub(crate) fn millis(duration_ms: u64) -> String {
    duration(Duration::from_millis(duration_ms))
}

/// `812 B`, `18 kB`, `58.1 MB`: decimal units, as docker shows them.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut scaled = bytes as f64 / 1000.0;
    let mut unit = 0;
    while scaled >= 999.95 && unit + 1 < UNITS.len() {
        scaled /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{scaled:.0} kB") } else { format!("{scaled:.1} {}", UNITS[unit]) }
}

/// `48 MB/s`.
pub(crate) fn rate(bytes_per_second: u64) -> String {
    format!("{}/s", bytes(bytes_per_second))
}

/// `(+0.2 MB)`, `(-3 kB)`; empty without a difference.
pub(crate) fn delta(now: u64, before: u64) -> String {
    match now.cmp(&before) {
        std::cmp::Ordering::Equal => String::new(),
        std::cmp::Ordering::Greater => format!("(+{})", bytes(now - before)),
        std::cmp::Ordering::Less => format!("(-{})", bytes(before - now)),
    }
}

/// `1 gate`, `3 gates`.
pub(crate) fn count(number: usize, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}

/// `5 minutes ago`, as docker's tables say it.
pub(crate) fn ago(age: Duration) -> String {
    let seconds = age.as_secs();
    let (number, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        86_400..1_209_600 => (seconds / 86_400, "day"),
        1_209_600..5_184_000 => (seconds / 604_800, "week"),
        5_184_000..63_072_000 => (seconds / 2_592_000, "month"),
        _ => (seconds / 31_536_000, "year"),
    };
    format!("{} ago", count(usize::try_from(number).unwrap_or(usize::MAX), unit))
}

/// `2h`, `30m`, `7d`, `90s`, `500ms`, or plain seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is not a duration such as `24h` or `7d`"))?;
    let factor = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        "w" => 604_800.0,
        other => return Err(format!("`{other}` is not a unit of time (ms, s, m, h, d, w)")),
    };
    Duration::try_from_secs_f64(number * factor).map_err(|_| format!("`{text}` is too long"))
}

/// `10GB`, `512MiB`, `1g`, or plain bytes.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is not a size such as `10GB`"))?;
    let factor: f64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1_048_576.0,
        "gib" => 1_073_741_824.0,
        other => return Err(format!("`{other}` is not a unit of size (kB, MB, GB, KiB, MiB, GiB)")),
    };
    Ok((number * factor) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_wrapped() {
        let check = |text: &str, columns: usize, lines: usize, expected: &[&str]| {
            assert_eq!(wrap(text, columns, lines), expected, "{text}");
        };
        check("", 10, 3, &[""]);
        check("one two three", 80, 3, &["one two three"]);
        check("one two three", 8, 3, &["one two", "three"]);
        check("one two three four five", 8, 2, &["one two", "three f…"]);
        check("abcdefghij", 4, 5, &["abcd", "efgh", "ij"]);
        check("ab cdefgh", 4, 5, &["ab", "cdef", "gh"]);
    }

    #[test]
    fn control_sequences_do_not_reach_the_terminal() {
        for (raw, shown) in [
            ("\x1b[31mred\x1b[0m", "red"),
            ("\x1b]0;title\x07text", "text"),
            ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
            ("\x1bPsecret\x1b\\after", "after"),
            ("10%\r50%\r100%\r\n", "100%"),
            ("a\tb", "a       b"),
            ("\u{9b}2Jx", "x"),
            ("bell\x07", "bell"),
            ("\u{202e}gnp.exe", "gnp.exe"),
            ("\x1b(Bok", "ok"),
            ("\x1b]never ended", ""),
        ] {
            assert_eq!(clean_line(raw), shown, "{raw:?}");
        }
        assert_eq!(clean_line(&"x".repeat(10_000)).chars().count(), LINE_CHARS_MAX + 1);
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(millis(0), "0.0s");
        assert_eq!(millis(31_040), "31.0s");
        assert_eq!(millis(59_970), "1m00s");
        assert_eq!(millis(125_000), "2m05s");
        assert_eq!(millis(3_720_000), "1h02m");
        assert_eq!(bytes(812), "812 B");
        assert_eq!(bytes(18_200), "18 kB");
        assert_eq!(bytes(58_100_000), "58.1 MB");
        assert_eq!(bytes(999_990), "1.0 MB");
        assert_eq!(delta(5, 5), "");
        assert_eq!(delta(1_300_000, 1_100_000), "(+200 kB)");
        assert_eq!(ago(Duration::from_secs(7200)), "2 hours ago");
    }

    #[test]
    fn durations_and_sizes_are_read() {
        assert_eq!(parse_duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert!(parse_duration("soon").is_err());
        assert_eq!(parse_bytes("10GB"), Ok(10_000_000_000));
        assert_eq!(parse_bytes("1MiB"), Ok(1_048_576));
        assert!(parse_bytes("many").is_err());
    }
}
