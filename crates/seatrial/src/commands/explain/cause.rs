//! A cause with all that is known of it.

use events::{Cause, Change, FileChange, FileState};

use crate::terminal::{table, text};

/// Files that are shown; the rest is counted.
const FILES_SHOWN: usize = 10;
/// Digits of a digest that people compare.
const DIGEST_DIGITS: usize = 12;

/// Paragraphs on a cause; `has_pipeline_file`: its settings are another place for flags.
pub(super) fn whole(cause: &Cause, has_pipeline_file: bool) -> String {
    let former = "the former build of this Dockerfile, context and platform";
    match cause {
        Cause::NeverBuilt => "not cached: no former build of this step is known here\n".into(),
        Cause::NewInstruction => format!("not cached: the instruction is new, {former} had none like it\n"),
        Cause::CacheOff { flag } => {
            let also = if has_pipeline_file { ", or `no_cache: true` in seatrial.yaml" } else { "" };
            format!("not cached: the cache was switched off by {flag}{also}\n")
        }
        Cause::Gone => "not cached: nothing differs from the former build, but its result is no longer in the store\n\
             (`seatrial clean` or the limit of the cache removed it)\n"
            .into(),
        Cause::Version => "not cached: another version of seatrial made the former result, in another way\n".into(),
        Cause::Base { reference, old_reference, old, new } => {
            let was = old_reference.as_ref().unwrap_or(reference);
            let rows = vec![image_row("was", was, old.as_ref()), image_row("is", reference, new.as_ref())];
            format!("not cached: the base image is another one\n{}", table::columns(&rows))
        }
        Cause::BuiltImage => "not cached: the image that it runs on is another one\n".into(),
        Cause::EarlierStep { step, text, place, is_gone } => {
            let place = place.as_ref().map(|place| format!("{}:{}: ", place.file, place.line)).unwrap_or_default();
            let step = step.map(|step| format!("step {step}, ")).unwrap_or_default();
            let what = if *is_gone { "is no longer there" } else { "is another one" };
            format!("not cached: a step before it {what}: {step}{place}{}\n", text::one_line(text))
        }
        Cause::Instruction { old, new } => {
            format!(
                "not cached: the instruction says something else\n  was  {}\n  is   {}\n",
                text::multi_line(old),
                text::multi_line(new)
            )
        }
        Cause::Value { what, name, old, new, is_secret, change } => {
            let name = if name.is_empty() { what.clone() } else { format!("{what} {name}") };
            let how = match change {
                Change::Changed => "has another value",
                Change::Added => "is new",
                Change::Removed => "is gone",
            };
            let mut out = format!("not cached: {} {how}\n", text::one_line(&name));
            if *is_secret {
                out.push_str("  its name says that it is secret, so its values are not recorded\n");
            }
            for (word, value) in [("was", old), ("is ", new)] {
                if let Some(value) = value {
                    out.push_str(&format!("  {word}  {}\n", text::multi_line(&show(value))));
                }
            }
            out
        }
        Cause::Files { mount, files, changed, added, removed } => {
            let place = mount.as_ref().map(|mount| format!(" that the mount at {mount} shows")).unwrap_or_default();
            let counts = [(changed, "changed"), (added, "new"), (removed, "gone")];
            let counts = counts.iter().filter(|(number, _)| **number > 0);
            let counts: Vec<String> = counts.map(|(number, word)| format!("{number} {word}")).collect();
            let mut out = format!("not cached: files{place} differ: {}\n", counts.join(", "));
            if files.is_empty() {
                return format!("not cached: files{place} differ; which ones is no longer known\n");
            }
            out.push_str(&table::columns(&files.iter().take(FILES_SHOWN).map(file_row).collect::<Vec<_>>()));
            let rest = changed + added + removed - files.len().min(FILES_SHOWN) as u64;
            if rest > 0 {
                out.push_str(&format!("  and {rest} more\n"));
            }
            out
        }
    }
}

/// Arguments of commands are kept apart by NUL.
fn show(value: &str) -> String {
    if value.is_empty() { "(empty)".into() } else { value.replace('\0', " ") }
}

fn image_row(word: &str, reference: &str, id: Option<&oci::Digest>) -> Vec<String> {
    vec![word.into(), text::one_line(reference), id.map(short).unwrap_or_default()]
}

/// `changed  src/app.py  1.2 kB 5891b5b522d5  →  1.3 kB 0263829989b6`.
fn file_row(file: &FileChange) -> Vec<String> {
    let word = match file.change {
        Change::Changed => "changed",
        Change::Added => "new",
        Change::Removed => "gone",
    };
    let states = match (&file.old, &file.new) {
        (Some(old), Some(new)) => {
            let what = file.what();
            format!("{} → {}", state(old, what), state(new, what))
        }
        (one, other) => one.as_ref().or(other.as_ref()).map(|only| state(only, "the file")).unwrap_or_default(),
    };
    vec![word.into(), text::one_line(&file.path), states]
}

/// What counts of a file, given what about it changed.
fn state(state: &FileState, what: &str) -> String {
    match what {
        "the mode" => format!("mode {}", state.mode),
        "the owner" => format!("owner {}", state.owner.as_deref().unwrap_or("-")),
        _ => match (&state.link, &state.digest, state.kind) {
            (Some(link), ..) => format!("link to {}", text::one_line(link)),
            (_, Some(digest), _) => {
                format!("{} {}", state.size_bytes.map(text::bytes).unwrap_or_default(), short(digest))
            }
            (_, _, 'd') => "directory".into(),
            _ => format!("mode {}", state.mode),
        },
    }
}

fn short(digest: &oci::Digest) -> String {
    digest.hex()[..DIGEST_DIGITS].to_owned()
}
