//! `docs/reference/` is generated from the types, and this test keeps it so: `UPDATE=1 cargo test -p seatrial reference`
//! writes the pages anew.

use std::{fmt::Write as _, path::Path};

use serde_json::Value;

const GENERATED: &str = "<!-- Generated from the program's types: `UPDATE=1 cargo test -p seatrial reference`. -->\n\n";

#[test]
fn the_reference_says_what_the_program_does() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    let pages = [("command-line.md", command_line()), ("pipeline-file.md", pipeline_file()), ("codes.md", codes())];
    let update = std::env::var_os("UPDATE").is_some_and(|value| value == "1");
    for (name, text) in pages {
        let file = directory.join(name);
        if update {
            fs_err::create_dir_all(&directory).unwrap();
            fs_err::write(&file, &text).unwrap();
        }
        let has = fs_err::read_to_string(&file).unwrap_or_default();
        let first = has.lines().zip(text.lines()).position(|(has, wanted)| has != wanted);
        assert!(
            has == text,
            "docs/reference/{name} is stale (line {}); write it with `UPDATE=1 cargo test -p seatrial reference`",
            first.unwrap_or(has.lines().count().min(text.lines().count())) + 1
        );
    }
}

fn command_line() -> String {
    let command = crate::cli::command();
    let mut out = format!(
        "{GENERATED}# The command line\n\nEvery flag can be given in the environment: `--no-cache` as `SEATRIAL_NO_CACHE=1`. \
         Results go to stdout, progress and messages to stderr.\n\n\
         | Exit code | Meaning |\n|---|---|\n\
         | 0 | passed |\n\
         | 1 | the verdict is no: a step, gate, health check or verification failed; or what was named (an image, a run) is not there |\n\
         | 2 | wrong invocation, Dockerfile or `seatrial.yaml` |\n\
         | 3 | the surroundings failed (registry, kernel, disk, engine); repeating may help |\n\
         | 4 | authentication |\n\
         | 129, 130, 143 | cancelled |\n\n"
    );
    options(&mut out, "Flags of every command", command.get_arguments());
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        subcommand(&mut out, "seatrial", sub);
    }
    out.trim_end().to_owned() + "\n"
}

/// A command, and those within it.
fn subcommand(out: &mut String, parent: &str, command: &clap::Command) {
    let name = format!("{parent} {}", command.get_name());
    let mut command = command.clone().bin_name(name.clone());
    let usage = command.render_usage().to_string();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = write!(out, "## {name}\n\n{about}.\n\n```text\n{}\n```\n\n", usage.trim());
    options(out, "", command.get_arguments().filter(|arg| !arg.is_global_set()));
    if let Some(after) = command.get_after_help() {
        let _ = write!(out, "```text\n{}\n```\n\n", after.to_string().trim());
    }
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        subcommand(out, &name, inner);
    }
}

fn options<'a>(out: &mut String, title: &str, arguments: impl Iterator<Item = &'a clap::Arg>) {
    let shown: Vec<_> =
        arguments.filter(|arg| !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version")).collect();
    if shown.is_empty() {
        return;
    }
    if !title.is_empty() {
        let _ = write!(out, "## {title}\n\n");
    }
    out.push_str("| | |\n|---|---|\n");
    for arg in shown {
        let takes_value = arg.get_action().takes_values();
        let values: Vec<String> =
            arg.get_value_names().unwrap_or_default().iter().map(|name| format!("<{name}>")).collect();
        let mut names: Vec<String> = arg.get_short().map(|short| format!("-{short}")).into_iter().collect();
        names.extend(arg.get_long().map(|long| format!("--{long}")));
        let mut name = names.join(", ");
        if takes_value && !values.is_empty() {
            name = format!("{name} {}", values.join(" ")).trim().to_owned();
        }
        let mut says = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let possible: Vec<String> = arg
            .get_possible_values()
            .iter()
            .filter(|value| !value.is_hide_set())
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        if takes_value && !possible.is_empty() {
            let _ = write!(says, ": {}", possible.join(", "));
        }
        let default: Vec<String> =
            arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
        if takes_value && !default.is_empty() && !arg.is_hide_default_value_set() {
            let _ = write!(says, " (default: `{}`)", default.join(","));
        }
        let _ = writeln!(out, "| `{}` | {} |", cell(&name), cell(&says));
    }
    out.push('\n');
}

fn pipeline_file() -> String {
    let schema = pipeline::file::schema();
    let mut out = format!(
        "{GENERATED}# seatrial.yaml\n\nThe file stands at the root of the repository; the nearest one upwards is used. Without \
         it, a Dockerfile alone is enough. `seatrial schema` prints the JSON Schema for editors, `seatrial config` the resolved \
         pipeline. Keys that begin with `x-` are ignored and yours.\n\n## At the top\n\n"
    );
    keys(&mut out, &schema);
    for (name, definition) in schema["$defs"].as_object().into_iter().flatten() {
        if !definition["properties"].is_object() {
            continue;
        }
        let _ = write!(out, "## {name}\n\n");
        if let Some(text) = definition["description"].as_str() {
            let _ = write!(out, "{text}\n\n");
        }
        keys(&mut out, definition);
    }
    out.trim_end().to_owned() + "\n"
}

fn keys(out: &mut String, schema: &Value) {
    out.push_str("| Key | Takes | |\n|---|---|---|\n");
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let says = property["description"].as_str().unwrap_or_default();
        let _ = writeln!(out, "| `{key}` | {} | {} |", cell(&kinds(property).join(" or ")), cell(says));
    }
    out.push('\n');
}

const SCALARS: [&str; 4] = ["text", "number", "integer", "`true` or `false`"];

/// What a value may be, in words.
fn kinds(schema: &Value) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap_or_default();
        return vec![format!("[{name}](#{})", name.to_lowercase())];
    }
    if let Some(values) = schema["enum"].as_array() {
        let values = values.iter().filter(|value| !value.is_null());
        return values.map(|value| format!("`{}`", value.as_str().unwrap_or(&value.to_string()))).collect();
    }
    let mut found: Vec<String> = Vec::new();
    for list in ["anyOf", "oneOf", "allOf"] {
        found.extend(schema[list].as_array().into_iter().flatten().flat_map(kinds));
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    for kind in types {
        match kind {
            "array" => found.push(match kinds(&schema["items"]).join(" or ") {
                items if items.is_empty() => "list".into(),
                items => format!("list of {items}"),
            }),
            "object" => found.push(match kinds(&schema["additionalProperties"]).as_slice() {
                [] => "map".into(),
                [one] => format!("map of {one}"),
                many if many.iter().all(|kind| SCALARS.contains(&kind.as_str())) => "map of scalars".into(),
                many => format!("map of {}", many.join(" or ")),
            }),
            "string" => found.push("text".into()),
            "boolean" => found.push("`true` or `false`".into()),
            "null" => {}
            other => found.push(other.into()),
        }
    }
    found.retain(|kind| !matches!(kind.as_str(), "null" | "`null`"));
    let mut once: Vec<String> = Vec::new();
    for kind in found {
        if !once.contains(&kind) {
            once.push(kind);
        }
    }
    once
}

fn codes() -> String {
    let mut out = format!("{GENERATED}# Codes\n\n`seatrial explain CODE` prints the same text.\n\n");
    for (title, codes) in [
        ("Dockerfile", dockerfile::codes::ALL),
        ("seatrial.yaml", pipeline::codes::ALL),
        ("Compose files and `services`", compose::codes::ALL),
    ] {
        let _ = write!(out, "## {title}\n\n");
        for (code, says, explanation) in codes {
            let _ = write!(out, "### {code}: {says}\n\n{explanation}\n\n");
            out.push_str(&example(code));
        }
    }
    out.push_str("## Build checks\n\n`seatrial check` runs them; `# check=skip=NAME` at the top of a Dockerfile leaves one out.\n\n");
    for rule in dockerfile::lint::RULES {
        let _ = write!(out, "### {}: {}\n\n{}. {}\n\n", rule.code, rule.name, rule.title, rule.docs);
        out.push_str(&example(rule.code));
    }
    out.trim_end().to_owned() + "\n"
}

/// What `explain` shows as wrong and right.
fn example(code: &str) -> String {
    let example = crate::commands::explain::example(code);
    example
        .map(|(wrong, right)| format!("Wrong:\n\n```\n{wrong}```\n\nRight:\n\n```\n{right}```\n\n"))
        .unwrap_or_default()
}

/// A bar would end the cell.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
