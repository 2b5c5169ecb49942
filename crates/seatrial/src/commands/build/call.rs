//! `build --check` and `build --call`: questions about a Dockerfile instead of a build. Texts and JSON are those of buildx.

use clap::ValueEnum as _;
use dockerfile::{
    Diagnostic, Dockerfile, Lines, Severity,
    outline::{self, Need, Outline, Target},
};
use engine::BuildRequest;
use serde_json::{Value, json};

use crate::{
    commands::check::{self, CheckFormat},
    context::Context,
    exit::Exit,
    failure::Failure,
    terminal::{
        self, Palette,
        diagnostics::{self, Findings},
        table, text,
    },
};

/// What is asked, and how the answer is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Call {
    /// The rules.
    Check(CheckFormat),
    /// What the target may be given.
    Outline { is_json: bool },
    /// Stages.
    Targets { is_json: bool },
}

impl Call {
    /// Reads `--call=METHOD[,format=FORMAT]`; `--format` does as well.
    pub(super) fn parse(call: &str, format: Option<&str>) -> Result<Call, Failure> {
        let mut options = call.split(',');
        let method = options.next().unwrap_or_default();
        let mut format = format;
        for option in options {
            match option.split_once('=') {
                Some(("format", value)) => format = Some(value),
                // Without it buildx asks the front end again on errors; there is nothing to ask here.
                Some(("ignorestatus", _)) => {}
                _ => {
                    return Err(Failure::usage(format!("`--call` has no option `{option}`"))
                        .hint(format!("write `--call={method},format=json`")));
                }
            }
        }
        let format = format.filter(|format| !format.is_empty());
        let plain = || match format {
            None | Some("text" | "table") => Ok(false),
            Some("json") => Ok(true),
            Some(other) => {
                Err(Failure::usage(format!("`--call={method}` has no format `{other}`")).hint("use text or json"))
            }
        };
        match method {
            "check" | "lint" => {
                let format = format.map_or(Ok(CheckFormat::Text), |format| CheckFormat::from_str(format, false));
                format
                    .map(Call::Check)
                    .map_err(|_| Failure::usage("a check has no such format").hint("use text, json, sarif or github"))
            }
            "outline" => plain().map(|is_json| Call::Outline { is_json }),
            "targets" => plain().map(|is_json| Call::Targets { is_json }),
            other => Err(Failure::usage(format!("`--call {other}` is unknown")).hint("use check, outline or targets")),
        }
    }
}

/// Answers on stdout.
pub(super) fn run(call: Call, request: &BuildRequest, context: &Context) -> anyhow::Result<Exit> {
    match call {
        Call::Check(format) => return Ok(check(format, request, context)),
        Call::Outline { is_json } => {
            let parsed = parse(request)?;
            let build_args: Vec<(String, String)> = request.build_args.clone().into_iter().collect();
            let outline = outline::outline(&parsed, request.target.as_deref(), &build_args)
                .map_err(|diagnostic| wrong(request, &[diagnostic]))?;
            match is_json {
                true => terminal::result_line(&outline_json(&outline, &findings(request, &[])).to_string()),
                false => terminal::result(&outline_text(&outline)),
            }
        }
        Call::Targets { is_json } => {
            let parsed = parse(request)?;
            match is_json {
                true => terminal::result_line(&targets_json(&parsed, &findings(request, &[])).to_string()),
                false => terminal::result(&targets_text(&parsed)),
            }
        }
    }
    Ok(Exit::Passed)
}

/// As with docker, warnings make it exit 1.
fn check(format: CheckFormat, request: &BuildRequest, context: &Context) -> Exit {
    let checked = check::check_request(request, &context.settings.home, false);
    check::show(&[findings(request, &checked.diagnostics)], format);
    match checked.diagnostics.iter().map(|diagnostic| diagnostic.severity).max() {
        Some(Severity::Error) => Exit::Usage,
        Some(Severity::Warning) => Exit::Refused,
        Some(Severity::Note) | None => Exit::Passed,
    }
}

fn findings<'a>(request: &'a BuildRequest, diagnostics: &'a [Diagnostic]) -> Findings<'a> {
    Findings { name: &request.dockerfile.name, text: &request.dockerfile.text, diagnostics }
}

fn parse(request: &BuildRequest) -> Result<Dockerfile, Failure> {
    dockerfile::parse(&request.dockerfile.text).map_err(|diagnostics| wrong(request, &diagnostics))
}

fn wrong(request: &BuildRequest, diagnostics: &[Diagnostic]) -> Failure {
    Failure::usage("the Dockerfile is wrong").shown_as(findings(request, diagnostics).render(Palette::stderr()))
}

fn outline_text(outline: &Outline) -> String {
    let mut blocks = Vec::new();
    if outline.name.is_some() || outline.description.is_some() {
        let mut head = format!("TARGET:      {}\n", clean(outline.name.as_deref().unwrap_or("(default)")));
        if let Some(description) = &outline.description {
            head.push_str(&format!("DESCRIPTION: {}\n", clean(description)));
        }
        blocks.push(head);
    }
    if !outline.args.is_empty() {
        let or_empty = |text: &Option<String>| clean(text.as_deref().unwrap_or_default());
        let rows: Vec<Vec<String>> = outline
            .args
            .iter()
            .map(|arg| vec![clean(&arg.name), or_empty(&arg.value), or_empty(&arg.description)])
            .collect();
        blocks.push(table::render(&["BUILD ARG", "VALUE", "DESCRIPTION"], &rows));
    }
    for (heading, needs) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !needs.is_empty() {
            let required = |need: &Need| if need.is_required { "true" } else { "" }.to_owned();
            let rows: Vec<Vec<String>> = needs.iter().map(|need| vec![clean(&need.id), required(need)]).collect();
            blocks.push(table::render(&[heading, "REQUIRED"], &rows));
        }
    }
    blocks.join("\n")
}

fn outline_json(outline: &Outline, findings: &Findings<'_>) -> Value {
    let lines = Lines::new(findings.text);
    let needs = |needs: &[Need]| {
        let one = |need: &Need| {
            let required = need.is_required.then_some(true);
            sparse(json!({
                "name": need.id,
                "required": required,
                "location": diagnostics::location(&lines, 0, &need.span),
            }))
        };
        list(needs.iter().map(one))
    };
    let args = outline.args.iter().map(|arg| {
        sparse(json!({
            "name": arg.name,
            "description": arg.description,
            "value": arg.value.as_ref().filter(|value| !value.is_empty()),
            "location": diagnostics::location(&lines, 0, &arg.span),
        }))
    });
    sparse(json!({
        "name": outline.name,
        "description": outline.description,
        "args": list(args),
        "secrets": needs(&outline.secrets),
        "ssh": needs(&outline.ssh),
        "sources": [diagnostics::source(findings)["data"]],
    }))
}

fn targets_text(parsed: &Dockerfile) -> String {
    let row = |(at, target): (usize, Target<'_>)| {
        let name = match (target.name, target.is_default) {
            (Some(name), true) => format!("{name} (default)"),
            (None, true) => "(default)".to_owned(),
            (Some(name), false) => name.to_owned(),
            // A stage without a name is built by its number.
            (None, false) => at.to_string(),
        };
        vec![clean(&name), clean(target.description.unwrap_or_default())]
    };
    let rows: Vec<Vec<String>> = outline::targets(parsed).into_iter().enumerate().map(row).collect();
    table::render(&["TARGET", "DESCRIPTION"], &rows)
}

fn targets_json(parsed: &Dockerfile, findings: &Findings<'_>) -> Value {
    let lines = Lines::new(findings.text);
    let targets = outline::targets(parsed).into_iter().map(|target| {
        sparse(json!({
            "name": target.name,
            "default": target.is_default.then_some(true),
            "description": target.description,
            "base": target.base,
            "platform": target.platform,
            "location": diagnostics::location(&lines, 0, &target.span),
        }))
    });
    json!({"targets": targets.collect::<Vec<_>>(), "sources": [diagnostics::source(findings)["data"]]})
}

/// Without the fields that are null, as Go's `omitempty` has it.
fn sparse(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, field| !field.is_null());
    }
    value
}

/// An array, or null where there is nothing in it.
fn list(values: impl Iterator<Item = Value>) -> Value {
    let values: Vec<Value> = values.collect();
    if values.is_empty() { Value::Null } else { Value::Array(values) }
}

/// What the user's file says may hold anything.
fn clean(part: &str) -> String {
    text::one_line(part)
}
