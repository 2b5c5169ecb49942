//! `build --check` and `build --call`: questions about a Dockerfile instead of a build.

use engine::BuildRequest;
use serde_json::json;

use crate::{
    commands::check,
    exit::Exit,
    failure::Failure,
    terminal::{self, Palette, diagnostics::Findings, table},
};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Call {
    /// The rules.
    Check,
    /// Target, arguments.
    Outline,
    /// Stages.
    Targets,
}

impl Call {
    /// Reads `--call`; `,format=json` and the like belong to `--format` here.
    pub(super) fn parse(text: &str) -> Result<Call, Failure> {
        match text.split(',').next().unwrap_or(text) {
            "check" | "lint" => Ok(Call::Check),
            "outline" => Ok(Call::Outline),
            "targets" => Ok(Call::Targets),
            other => Err(Failure::usage(format!("`--call {other}` is unknown")).hint("use check, outline or targets")),
        }
    }
}

/// Answers. As docker does, findings make `--check` exit 1.
pub(super) fn run(call: Call, request: &BuildRequest, format: Option<&str>) -> anyhow::Result<Exit> {
    let source = &request.dockerfile;
    let checked = check::dockerfile(request);
    let findings = Findings { name: &source.name, text: &source.text, diagnostics: &checked.diagnostics };
    let has_errors = checked.diagnostics.iter().any(dockerfile::Diagnostic::is_error);
    let Some(parsed) = checked.parsed.filter(|_| !has_errors || call == Call::Check) else {
        return Err(Failure::usage("the Dockerfile is wrong").shown_as(findings.render(Palette::stderr())).into());
    };
    match call {
        Call::Check => {
            let is_json = format == Some("json");
            if is_json {
                terminal::result_line(&serde_json::Value::Array(findings.to_json()).to_string());
            } else {
                terminal::result(&findings.render(Palette::new(terminal::streams().stdout_colours)));
            }
            let found = checked.diagnostics.iter().any(|d| d.severity != dockerfile::Severity::Note);
            if !found && !is_json {
                terminal::message_line(&format!("{}: nothing found", source.name));
            }
            Ok(match (has_errors, found) {
                (true, _) => Exit::Usage,
                (false, true) => Exit::Refused,
                (false, false) => Exit::Passed,
            })
        }
        Call::Targets => {
            let last = parsed.stages.len() - 1;
            let rows: Vec<(String, String, bool)> = parsed
                .stages
                .iter()
                .enumerate()
                .map(|(index, stage)| {
                    let name = stage.name.as_ref().map_or_else(|| index.to_string(), |name| name.raw.clone());
                    (name, stage.base.raw.clone(), index == last)
                })
                .collect();
            if format == Some("json") {
                let list: Vec<_> = rows
                    .iter()
                    .map(|(name, base, default)| json!({"name": name, "base": base, "default": default}))
                    .collect();
                terminal::result_line(&json!({"targets": list}).to_string());
            } else {
                let cells: Vec<Vec<String>> = rows
                    .into_iter()
                    .map(|(name, base, default)| vec![if default { format!("{name} (default)") } else { name }, base])
                    .collect();
                terminal::result(&table::render(&["TARGET", "BASE"], &cells));
            }
            Ok(Exit::Passed)
        }
        Call::Outline => {
            let mut declared = parsed.global_args.clone();
            for stage in &parsed.stages {
                for instruction in &stage.instructions {
                    if let dockerfile::InstructionKind::Arg(args) = &instruction.kind {
                        declared.extend(args.iter().cloned());
                    }
                }
            }
            let mut cells: Vec<Vec<String>> = Vec::new();
            for arg in declared {
                let value = request.build_args.get(&arg.name.raw).cloned().or_else(|| arg.default.map(|word| word.raw));
                let row = vec![arg.name.raw, value.unwrap_or_default()];
                if !cells.iter().any(|known| known[0] == row[0]) {
                    cells.push(row);
                }
            }
            if format == Some("json") {
                let list: Vec<_> = cells.iter().map(|row| json!({"name": row[0], "value": row[1]})).collect();
                terminal::result_line(&json!({"target": request.target, "args": list}).to_string());
            } else {
                terminal::result(&table::render(&["BUILD ARG", "VALUE"], &cells));
            }
            Ok(Exit::Passed)
        }
    }
}
