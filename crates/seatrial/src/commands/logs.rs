//! `seatrial logs`: what services that are up say, and whole logs of runs.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use events::Verdict;
use store::{RunDir, Store};

use super::{record::RunRecord, solution};
use crate::{
    context::Context,
    exit::Exit,
    failure::Failure,
    solution::{
        client,
        protocol::Request,
        source::{ProjectArgs, Source},
    },
    terminal::{self, containers::Prefix, table, text},
};

/// Runs in the list.
const RUNS_SHOWN: usize = 20;

/// Flags of `seatrial logs`.
#[derive(Debug, clap::Args)]
#[command(
    mut_arg("file", |file| file.short(None)),
    after_help = "Examples:\n  \
        seatrial logs                 of the project here if it is up, else the list of runs\n  \
        seatrial logs -f web db       what two services say, as it comes\n  \
        seatrial logs last unit       the gate `unit` of the last run"
)]
pub(crate) struct LogsArgs {
    /// Services; or the number of a run (or `last`), and its stage: `build`, the name of a gate, `health`
    #[arg(value_name = "SERVICE|RUN")]
    names: Vec<String>,
    /// Go on until the services have ended
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines of each container
    #[arg(short = 'n', long, value_name = "NUMBER", value_parser = tail)]
    tail: Option<Tail>,
    /// Only what was said in this time, such as `10m`
    #[arg(long, value_name = "TIME", value_parser = text::parse_duration)]
    since: Option<Duration>,
    /// When each line was said
    #[arg(short, long)]
    timestamps: bool,
    /// Lines without the names of their containers
    #[arg(long)]
    no_log_prefix: bool,
    /// List all runs
    #[arg(short, long)]
    all: bool,
    /// The events of a run as JSON lines
    #[arg(long)]
    events: bool,
    #[command(flatten)]
    project: ProjectArgs,
}

/// `--tail`.
#[derive(Clone, Copy, Debug)]
enum Tail {
    All,
    Lines(usize),
}

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail::All),
        number => number.parse().map(Tail::Lines).map_err(|_| format!("`{text}` is no number of lines, nor `all`")),
    }
}

impl LogsArgs {
    /// Whether runs are meant, whose logs are in the store.
    fn is_of_run(&self) -> bool {
        self.all || self.events || self.names.first().is_some_and(|name| is_run(name))
    }

    /// Whether only services can be meant.
    pub(crate) fn is_of_services(&self) -> bool {
        let has_flag = self.follow || self.tail.is_some() || self.since.is_some() || self.timestamps;
        !self.is_of_run() && (has_flag || !self.names.is_empty() || self.project.is_given())
    }
}

/// Shows what services say, lists runs, or shows the log of one.
pub(crate) fn run(args: &LogsArgs, context: &Context) -> anyhow::Result<Exit> {
    if args.is_of_services() {
        let (_, stream) = solution::owner(&args.project, context)?;
        return of_services(args, stream, context);
    }
    if args.is_of_run() {
        return of_run(args, context);
    }
    // Nothing is said: what is up here is likelier to be meant than what has ended.
    let here = Source::new(&args.project, context).name().ok();
    match here.map(|project| client::find(context, &project)).transpose()?.flatten() {
        Some(stream) => of_services(args, stream, context),
        None => list(context.store()?, false),
    }
}

fn of_services(args: &LogsArgs, stream: UnixStream, context: &Context) -> anyhow::Result<Exit> {
    let since = args.since.map(|since| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.saturating_sub(since).as_nanos()).unwrap_or(u64::MAX)
    });
    let request = Request::Logs {
        services: args.names.clone(),
        follow: args.follow,
        tail: match args.tail {
            Some(Tail::Lines(lines)) => Some(lines),
            Some(Tail::All) | None => None,
        },
        since,
        attached_only: false,
        forever: false,
    };
    let prefix = Prefix { is_shown: !args.no_log_prefix, times: args.timestamps };
    solution::follow(context, stream, request, prefix)?;
    Ok(Exit::Passed)
}

fn of_run(args: &LogsArgs, context: &Context) -> anyhow::Result<Exit> {
    let store = context.store()?;
    let Some(number) = args.names.first() else {
        if args.events {
            return Err(Failure::usage("`--events` needs a run")
                .hint("the last one's: `seatrial logs last --events`")
                .into());
        }
        return list(store, args.all);
    };
    let run = find_run(store, number)?;
    if args.events {
        copy(&run.path.join("events.jsonl"), false)?;
        return Ok(Exit::Passed);
    }
    let stages = stages(&run)?;
    match args.names.get(1) {
        Some(stage) => {
            let file = run.path.join("log").join(pipeline::file_name(stage));
            if !file.is_file() {
                return Err(no_log(&run, stage, &stages).into());
            }
            copy(&file, terminal::streams().stdout_is_terminal)?;
        }
        None => {
            for stage in &stages {
                terminal::result_line(&format!("== {stage}"));
                copy(&run.path.join("log").join(stage), terminal::streams().stdout_is_terminal)?;
            }
            if stages.is_empty() {
                terminal::message_line(&format!("run {} has no logs", run.number));
            }
        }
    }
    Ok(Exit::Passed)
}

/// Whether this is how runs are named.
pub(super) fn is_run(text: &str) -> bool {
    matches!(text, "last" | "latest") || (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The run of this number, or the `last` one.
pub(super) fn find_run(store: &Store, number: &str) -> anyhow::Result<RunDir> {
    let found = match number {
        "last" | "latest" => store.runs().context("cannot list runs")?.pop(),
        number => {
            let number: u64 = number.parse().map_err(|_| {
                Failure::usage(format!("`{number}` is not the number of a run"))
                    .hint("see the list with `seatrial logs`")
            })?;
            store.run(number)
        }
    };
    found.ok_or_else(|| match number {
        "last" | "latest" => Failure::refused("there are no runs yet").hint("begin with `seatrial run`").into(),
        number => {
            Failure::refused(format!("there is no run {number}")).hint("see the list with `seatrial logs`").into()
        }
    })
}

fn no_log(run: &RunDir, stage: &str, stages: &[String]) -> Failure {
    let failure = Failure::refused(format!("run {} has no log of `{stage}`", run.number));
    match dockerfile::nearest(stage, stages.iter().map(String::as_str)) {
        Some(near) => failure.hint(format!("did you mean `seatrial logs {} {near}`?", run.number)),
        None => {
            failure.hint(format!("it has {}", if stages.is_empty() { "none".to_owned() } else { stages.join(", ") }))
        }
    }
}

/// Names of logs, oldest first.
fn stages(run: &RunDir) -> anyhow::Result<Vec<String>> {
    let directory = run.path.join("log");
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in fs_err::read_dir(&directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_file() {
            // Logs are appended to, so only the time of creation tells the order, where the file system has it.
            let time = metadata.created().or_else(|_| metadata.modified()).ok();
            files.push((time, entry.file_name().to_string_lossy().into_owned()));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, name)| name).collect())
}

/// Copies a log to stdout; for a terminal, made harmless.
fn copy(file: &Path, for_terminal: bool) -> anyhow::Result<()> {
    let mut reader =
        BufReader::with_capacity(1 << 16, File::open(file).with_context(|| format!("cannot read {}", file.display()))?);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A log without line ends still comes in pieces of bounded size.
        let read = std::io::Read::take(&mut reader, 1 << 16).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        if for_terminal {
            terminal::result_line(&text::clean_line(&String::from_utf8_lossy(&line)));
        } else {
            terminal::result_bytes(&line);
        }
    }
}

fn list(store: &Store, all: bool) -> anyhow::Result<Exit> {
    let mut runs = store.runs().context("cannot list runs")?;
    runs.reverse();
    let total = runs.len();
    if !all {
        runs.truncate(RUNS_SHOWN);
    }
    let rows: Vec<Vec<String>> = runs.iter().map(row).collect();
    terminal::result(&table::render(&["RUN", "COMMAND", "NAME", "SOURCE", "VERDICT", "TOOK", "ENDED"], &rows));
    if total > runs.len() {
        terminal::message_line(&format!("{} older: `seatrial logs --all`", total - runs.len()));
    }
    if total == 0 {
        terminal::message_line("there are no runs yet: begin with `seatrial run`");
    }
    Ok(Exit::Passed)
}

fn row(run: &RunDir) -> Vec<String> {
    let Some(record) = RunRecord::read(run) else {
        return vec![
            run.number.to_string(),
            String::new(),
            String::new(),
            String::new(),
            "unfinished".into(),
            String::new(),
            String::new(),
        ];
    };
    let verdict = match record.verdict {
        _ if record.cancelled => "cancelled",
        Verdict::Passed => "passed",
        Verdict::Failed => "failed",
        Verdict::Skipped => "built",
    };
    let source = [record.commit.clone(), record.branch.clone()].into_iter().flatten().collect::<Vec<_>>().join(" ");
    vec![
        run.number.to_string(),
        record.command.clone(),
        text::one_line(&record.name),
        text::one_line(&source),
        verdict.into(),
        text::millis(record.duration_ms),
        text::ago(record.age()),
    ]
}
