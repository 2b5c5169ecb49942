//! Files that differ: one by one, and in numbers.

use serde_json::{Value, json};
use store::{FileDifference, FileFacts};

use crate::terminal::text;

/// Digits of a digest that people compare.
const DIGEST_DIGITS: usize = 12;

/// Numbers and bytes of what differs. Directories count as files do, with no bytes.
#[derive(Default)]
pub(super) struct Totals {
    added: u64,
    added_bytes: u64,
    removed: u64,
    removed_bytes: u64,
    changed: u64,
    /// Of changed files.
    old_bytes: u64,
    new_bytes: u64,
}

impl Totals {
    pub(super) fn add(&mut self, difference: &FileDifference) {
        match (&difference.old, &difference.new) {
            (None, Some(new)) => {
                self.added += 1;
                self.added_bytes += new.size_bytes;
            }
            (Some(old), None) => {
                self.removed += 1;
                self.removed_bytes += old.size_bytes;
            }
            (Some(old), Some(new)) => {
                self.changed += 1;
                self.old_bytes += old.size_bytes;
                self.new_bytes += new.size_bytes;
            }
            (None, None) => {}
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.added + self.removed + self.changed == 0
    }

    /// `12 new (1.2 MB), 3 changed (+12 kB), 1 gone (4 kB)`.
    pub(super) fn words(&self) -> String {
        let mut parts = Vec::new();
        if self.added > 0 {
            parts.push(format!("{} new ({})", self.added, text::bytes(self.added_bytes)));
        }
        if self.changed > 0 {
            let delta = text::delta(self.new_bytes, self.old_bytes);
            let delta = if delta.is_empty() { String::new() } else { format!(" {delta}") };
            parts.push(format!("{} changed{delta}", self.changed));
        }
        if self.removed > 0 {
            parts.push(format!("{} gone ({})", self.removed, text::bytes(self.removed_bytes)));
        }
        parts.join(", ")
    }

    pub(super) fn value(&self) -> Value {
        json!({
            "Added": self.added,
            "AddedBytes": self.added_bytes,
            "Removed": self.removed,
            "RemovedBytes": self.removed_bytes,
            "Changed": self.changed,
            "ChangedOldBytes": self.old_bytes,
            "ChangedNewBytes": self.new_bytes,
        })
    }
}

/// `  M  /etc/motd  12 B 5891b5b522d5 → 14 B 0263829989b6`.
pub(super) fn line(difference: &FileDifference) -> String {
    let path = text::one_line(&difference.path);
    match (&difference.old, &difference.new) {
        (None, Some(only)) => format!("  A  {path}{}", size_of(only)),
        (Some(only), None) => format!("  D  {path}{}", size_of(only)),
        (Some(old), Some(new)) => format!("  M  {path}  {}", changes(difference, old, new)),
        (None, None) => String::new(),
    }
}

fn size_of(facts: &FileFacts) -> String {
    match (facts.kind, &facts.link) {
        ('d', _) => "/".into(),
        (_, Some(link)) => format!(" -> {}", text::one_line(link)),
        ('-', _) => format!("  {}", text::bytes(facts.size_bytes)),
        (kind, _) => format!("  {}", kind_of(kind)),
    }
}

fn changes(difference: &FileDifference, old: &FileFacts, new: &FileFacts) -> String {
    let mut parts = Vec::new();
    if old.kind != new.kind {
        parts.push(format!("{} → {}", kind_of(old.kind), kind_of(new.kind)));
    }
    if difference.content_differs {
        let content = |facts: &FileFacts| {
            let digest = facts.digest.as_ref().map(|digest| format!(" {}", &digest.hex()[..DIGEST_DIGITS]));
            format!("{}{}", text::bytes(facts.size_bytes), digest.unwrap_or_default())
        };
        parts.push(format!("{} → {}", content(old), content(new)));
    }
    if let (Some(old), Some(new)) = (&old.link, &new.link)
        && old != new
    {
        parts.push(format!("-> {} → -> {}", text::one_line(old), text::one_line(new)));
    }
    if old.mode != new.mode && old.kind != 'l' && new.kind != 'l' {
        parts.push(format!("mode {:o} → {:o}", old.mode, new.mode));
    }
    if (old.uid, old.gid) != (new.uid, new.gid) {
        parts.push(format!("owner {}:{} → {}:{}", old.uid, old.gid, new.uid, new.gid));
    }
    if old.device != new.device && old.kind == new.kind {
        parts.push("another device".into());
    }
    if difference.attributes_differ {
        parts.push("extended attributes".into());
    }
    parts.join(", ")
}

fn kind_of(kind: char) -> &'static str {
    match kind {
        'd' => "directory",
        'l' => "link",
        'c' | 'b' => "device",
        'p' => "named pipe",
        's' => "socket",
        _ => "file",
    }
}

/// For programs.
pub(super) fn value(difference: &FileDifference) -> Value {
    let change = match (&difference.old, &difference.new) {
        (None, _) => "added",
        (_, None) => "removed",
        _ => "changed",
    };
    json!({
        "Path": difference.path,
        "Change": change,
        "ContentDiffers": difference.content_differs,
        "AttributesDiffer": difference.attributes_differ,
        "Old": difference.old,
        "New": difference.new,
    })
}
