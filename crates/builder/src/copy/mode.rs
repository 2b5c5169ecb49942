//! `--chmod`: octal, or symbolic as chmod(1) and BuildKit read it.

/// Permission bits of all three classes.
const ALL: u32 = 0o777;
const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const STICKY: u32 = 0o1000;

/// What becomes of the permission bits of each file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chmod {
    /// The same for all.
    Octal(u32),
    /// Worked out from what the file had.
    Symbolic(Vec<Change>),
}

/// `u+rw`, `=X`, `go=u`: one operator with what stands on its left and right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Bits that may change. The sticky bit is among them only where `t` stands.
    who: u32,
    operator: char,
    /// Bits for every class.
    bits: u32,
    /// `X`: execute, if it is a directory or somebody may execute it already.
    execute_if_any: bool,
    /// Classes whose bits are taken over, as shifts.
    copied: Vec<u32>,
}

impl Chmod {
    /// Reads `755`, `u=rwX,go=rX`, `+x`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let looks_octal = text.starts_with(|first: char| first.is_ascii_digit());
        if looks_octal {
            return match u32::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o7777 => Ok(Self::Octal(mode)),
                _ => Err(format!("`{text}` is not an octal mode between 0 and 7777")),
            };
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            let wrong =
                || format!("`{text}` is neither an octal mode such as `755` nor a symbolic one such as `u=rwX,go=rX`");
            changes.extend(clause_changes(clause).ok_or_else(wrong)?);
        }
        Ok(Self::Symbolic(changes))
    }

    /// The mode of a file that had `mode`.
    pub(crate) fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::Octal(octal) => *octal,
            Self::Symbolic(changes) => {
                // As BSD's setmode(3), which BuildKit follows: X looks at what the file had at first.
                let may_execute = is_dir || mode & 0o111 != 0;
                changes.iter().fold(mode, |now, change| change.apply(now, may_execute))
            }
        }
    }
}

impl std::fmt::Display for Chmod {
    /// Equal texts change equally.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Octal(mode) => write!(f, "{mode:o}"),
            Self::Symbolic(changes) => changes.iter().try_for_each(|change| {
                let Change { who, operator, bits, execute_if_any, copied } = change;
                write!(f, "{who:o}{operator}{bits:o}{}{copied:?};", if *execute_if_any { "X" } else { "" })
            }),
        }
    }
}

impl Change {
    fn apply(&self, now: u32, may_execute: bool) -> u32 {
        let mut bits = self.bits;
        // Taking away what is there only sometimes has no meaning (setmode(3)).
        if self.execute_if_any && may_execute && self.operator != '-' {
            bits |= 0o111;
        }
        for shift in &self.copied {
            bits |= (now >> shift & 0o7) * 0o111;
        }
        let bits = bits & self.who;
        match self.operator {
            '+' => now | bits,
            '-' => now & !bits,
            // The sticky bit is nobody's: `=` leaves it unless it is named.
            _ => now & !(self.who & !STICKY | bits) | bits,
        }
    }
}

/// The changes of one clause: classes, then one or more operators with their permissions.
fn clause_changes(clause: &str) -> Option<Vec<Change>> {
    let start = clause.find(['+', '-', '='])?;
    let (classes, mut rest) = clause.split_at(start);
    let mut who = 0;
    for class in classes.chars() {
        who |= match class {
            'u' => 0o700 | SET_UID,
            'g' => 0o070 | SET_GID,
            'o' => 0o007,
            'a' => ALL | SET_UID | SET_GID,
            _ => return None,
        };
    }
    // Without classes all of them: an image is built with no mask.
    let is_others_only = who == 0o007;
    if who == 0 {
        who = ALL | SET_UID | SET_GID;
    }
    let mut changes = Vec::new();
    while let Some(operator) = rest.chars().next() {
        let permissions = &rest[1..];
        let end = permissions.find(['+', '-', '=']).unwrap_or(permissions.len());
        let mut change = Change { who, operator, ..Change::default() };
        for permission in permissions[..end].chars() {
            match permission {
                'r' => change.bits |= 0o444,
                'w' => change.bits |= 0o222,
                'x' => change.bits |= 0o111,
                'X' => change.execute_if_any = true,
                's' => change.bits |= SET_UID | SET_GID,
                't' if is_others_only => {}
                't' => {
                    change.bits |= STICKY;
                    change.who |= STICKY;
                }
                'u' => change.copied.push(6),
                'g' => change.copied.push(3),
                'o' => change.copied.push(0),
                _ => return None,
            }
        }
        changes.push(change);
        rest = &permissions[end..];
    }
    Some(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_chmod() {
        let check = |text: &str, files: &[(u32, u32)], directories: &[(u32, u32)]| {
            let chmod = Chmod::parse(text).unwrap();
            for (is_dir, cases) in [(false, files), (true, directories)] {
                for (before, after) in cases {
                    let got = chmod.apply(*before, is_dir);
                    assert_eq!(got, *after, "{text} on {before:o}: {got:o} instead of {after:o}");
                }
            }
        };
        check("0755", &[(0o4600, 0o755)], &[(0o1777, 0o755)]);
        check("u=rwX,go=rX", &[(0o600, 0o644), (0o700, 0o755), (0o4711, 0o755)], &[(0o700, 0o755)]);
        check("+x", &[(0o644, 0o755), (0o4600, 0o4711)], &[]);
        check("a-w", &[(0o666, 0o444)], &[(0o1777, 0o1555)]);
        check("go-w", &[(0o777, 0o755)], &[]);
        check("u+rw,g+r,o-x,o+w", &[(0o001, 0o642)], &[]);
        check("a+X", &[(0o644, 0o644), (0o744, 0o755)], &[(0o600, 0o711)]);
        check("go=u-w", &[(0o770, 0o755), (0o370, 0o311)], &[]);
        check("u+s,+t", &[(0o755, 0o5755)], &[(0o755, 0o5755)]);
        check("o+st", &[(0o755, 0o755)], &[]);
        check("=", &[(0o4777, 0)], &[(0o1777, 0o1000)]);
        check("u=g", &[(0o042, 0o442), (0o742, 0o442)], &[]);
        check("a=r,ug=rw,u+x", &[(0o777, 0o764)], &[]);
        check("-X", &[(0o777, 0o777)], &[(0o777, 0o777)]);
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        for text in ["", "8", "77777", "rw", "u", "q+r", "u+q", ",", "u+r,", "9x", "ü+r"] {
            assert!(Chmod::parse(text).is_err(), "{text}");
        }
    }
}
