//! `seatrial ps`: the containers of a project.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use services::{Health, State};

use crate::{
    context::Context,
    exit::Exit,
    failure::Failure,
    solution::{
        client::{self, Answering},
        place,
        protocol::{Answer, Container, Port, Request},
        source::{ProjectArgs, Source},
    },
    terminal::{
        self,
        table::{self, Format},
        text,
    },
};

/// As long as docker shows commands.
const COMMAND_SHOWN: usize = 20;

/// Flags of `seatrial ps`.
#[derive(Debug, clap::Args)]
pub(crate) struct PsArgs {
    /// Services; all without a name
    #[arg(value_name = "SERVICES")]
    names: Vec<String>,
    /// What docker compose needs to be told: containers that have ended are always shown
    #[arg(short, long, hide = true)]
    all: bool,
    /// The containers of every project that is up
    #[arg(long)]
    all_projects: bool,
    /// Only names
    #[arg(short, long)]
    quiet: bool,
    /// Only names of services
    #[arg(long, conflicts_with_all = ["quiet", "format"])]
    services: bool,
    /// `json`, or a template such as `{{.Name}} {{.State}}`
    #[arg(long)]
    format: Option<String>,
    #[command(flatten)]
    project: ProjectArgs,
}

/// Lists containers.
pub(crate) fn run(args: &PsArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = Format::parse(args.format.as_deref())?;
    let projects = match args.all_projects {
        true => place::all(&context.settings.home),
        false => vec![Source::new(&args.project, context).name()?],
    };
    let mut rows = Vec::new();
    for project in projects {
        let Some(stream) = client::find(context, &project)? else { continue };
        let mut answering = Answering::call(stream, Request::List, &[])?;
        let containers = match answering.next()? {
            Some(Answer::Containers(containers)) => containers,
            // It has ended at this very moment.
            _ => Vec::new(),
        };
        let wanted = |one: &Container| args.names.is_empty() || args.names.contains(&one.service);
        rows.extend(containers.iter().filter(|one| wanted(one)).map(|one| row(&project, one)));
    }
    for name in &args.names {
        if !rows.iter().any(|row| row["Service"] == name.as_str()) {
            return Err(Failure::refused(format!("no such service: {name}"))
                .hint("see which are up: `seatrial ps`")
                .into());
        }
    }
    if args.services {
        let mut names: Vec<&str> = rows.iter().filter_map(|row| row["Service"].as_str()).collect();
        names.dedup();
        names.into_iter().for_each(terminal::result_line);
        return Ok(Exit::Passed);
    }
    if args.quiet {
        rows.iter().filter_map(|row| row["Name"].as_str()).for_each(terminal::result_line);
        return Ok(Exit::Passed);
    }
    if format == Format::Table {
        let headings = ["NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS"];
        let fields = ["Name", "Image", "Command", "Service", "RunningFor", "Status", "Ports"];
        let cells =
            |row: &Value| fields.iter().map(|field| row[*field].as_str().unwrap_or_default().to_owned()).collect();
        let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
        terminal::result(&table::render(&headings, &rows));
        return Ok(Exit::Passed);
    }
    for row in &rows {
        if let Some(line) = format.line(row)? {
            terminal::result_line(&line);
        }
    }
    Ok(Exit::Passed)
}

/// Docker compose's fields.
fn row(project: &str, one: &Container) -> Value {
    let command = text::one_line(&one.command.join(" "));
    let publishers: Vec<Value> = one.ports.iter().map(publisher).collect();
    json!({
        "Name": one.name,
        "Image": one.image,
        "Command": format!("\"{}\"", text::fit(&command, COMMAND_SHOWN)),
        "Project": project,
        "Service": one.service,
        "Number": one.number,
        "CreatedAt": seconds(one.created),
        "RunningFor": text::ago(age(one.created)),
        "State": one.status.state,
        "Health": one.status.health.filter(|_| one.status.state == State::Running).map_or_else(|| json!(""), |health| json!(health)),
        "ExitCode": one.status.exit_code.filter(|_| one.status.state != State::Running).unwrap_or(0),
        "Restarts": one.status.restarts,
        "Status": status(one),
        "Ports": one.ports.iter().map(port).collect::<Vec<_>>().join(", "),
        "Publishers": publishers,
    })
}

fn publisher(port: &Port) -> Value {
    json!({
        "URL": port.host.ip().to_string(),
        "TargetPort": port.target,
        "PublishedPort": port.host.port(),
        "Protocol": port.protocol,
    })
}

/// `127.0.0.1:8080->80/tcp`.
fn port(port: &Port) -> String {
    format!("{}->{}/{}", port.host, port.target, port.protocol)
}

/// `Up 2 minutes (healthy)`.
fn status(one: &Container) -> String {
    let since = text::ago(age(one.status.since));
    let code = one.status.exit_code.unwrap_or(0);
    match one.status.state {
        State::Restarting => format!("Restarting ({code}) {since}"),
        State::Exited => format!("Exited ({code}) {since}"),
        State::Running => {
            let health = match one.status.health {
                None => "",
                Some(Health::Starting) => " (health: starting)",
                Some(Health::Healthy) => " (healthy)",
                Some(Health::Unhealthy) => " (unhealthy)",
            };
            format!("Up {}{health}", since.trim_end_matches(" ago"))
        }
    }
}

fn age(time: SystemTime) -> Duration {
    SystemTime::now().duration_since(time).unwrap_or_default()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
