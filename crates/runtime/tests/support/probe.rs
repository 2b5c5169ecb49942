//! A test tool: an engine in miniature. Reads one job as JSON from its first argument, does it, prints what happened.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::exit, clippy::expect_used, reason = "a test tool")]

use runtime::{
    Container, ContainerSpec, Device, Exit, FileContent, Limits, Mount, MountKind, Network, Overlay, ProcessSpec,
    Rootfs, StartError, Stdio, Ulimit,
};
use serde::Deserialize;
use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    path::PathBuf,
    time::{Duration, Instant},
};

#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Job {
    /// `run`, `view`, `hold`, `parallel`, `start-time`, `checks`, `privilege`, `overlay-works`, `sweep`,
    /// `remove`.
    action: String,
    id: String,
    dir: PathBuf,
    /// A plain directory instead of the overlay.
    rootfs: Option<PathBuf>,
    lowers: Vec<PathBuf>,
    upper: Option<PathBuf>,
    work: Option<PathBuf>,
    readonly: bool,
    args: Vec<String>,
    env: Vec<(String, String)>,
    cwd: String,
    user: String,
    no_new_privileges: bool,
    cap_add: Vec<String>,
    cap_drop: Vec<String>,
    init: bool,
    host_network: bool,
    extra_hosts: Vec<(String, String)>,
    mounts: Vec<JobMount>,
    memory_bytes: Option<u64>,
    pids: Option<u64>,
    cpus: Option<f64>,
    nofile: Option<u64>,
    /// Name, soft, hard.
    ulimits: Vec<(String, u64, u64)>,
    shm_size_bytes: Option<u64>,
    /// Source, target, access.
    devices: Vec<(PathBuf, String, String)>,
    sysctls: Vec<(String, String)>,
    cgroup_parent: Option<String>,
    privileged: bool,
    /// `pipe`, `null`, `terminal`, `inherit`.
    stdio: String,
    stdin: Option<String>,
    foreign: Option<PathBuf>,
    /// After the start: run this in the container as well, its output follows.
    exec: Option<Vec<String>>,
    exec_user: String,
    exec_terminal: bool,
    /// Before that: kill the process that forks our helpers.
    kill_zygote: bool,
    /// After the start: stop with SIGTERM and this grace.
    stop_ms: Option<u64>,
    /// After the start: send this signal.
    signal: Option<i32>,
    /// Wait before exec, stop or signal until this appears in the output.
    wait_for: Option<String>,
    /// `parallel`: this many threads, this many starts each.
    threads: usize,
    rounds: usize,
}

impl Default for Job {
    fn default() -> Self {
        Job {
            action: "run".into(),
            id: "probe".into(),
            dir: PathBuf::new(),
            rootfs: None,
            lowers: Vec::new(),
            upper: None,
            work: None,
            readonly: false,
            args: Vec::new(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            cwd: "/".into(),
            user: String::new(),
            no_new_privileges: false,
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            init: false,
            host_network: false,
            extra_hosts: Vec::new(),
            mounts: Vec::new(),
            memory_bytes: None,
            pids: None,
            cpus: None,
            nofile: None,
            ulimits: Vec::new(),
            shm_size_bytes: None,
            devices: Vec::new(),
            sysctls: Vec::new(),
            cgroup_parent: None,
            privileged: false,
            stdio: "pipe".into(),
            stdin: None,
            foreign: None,
            exec: None,
            exec_user: String::new(),
            exec_terminal: false,
            kill_zygote: false,
            stop_ms: None,
            signal: None,
            wait_for: None,
            threads: 8,
            rounds: 8,
        }
    }
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct JobMount {
    target: String,
    #[serde(default)]
    bind: Option<PathBuf>,
    #[serde(default)]
    overlay: Option<Overlay>,
    /// Content, mode, uid, gid of a file in memory.
    #[serde(default)]
    file: Option<(String, u32, u32, u32)>,
    #[serde(default)]
    subpath: String,
    #[serde(default)]
    readonly: bool,
}

fn main() {
    runtime::run_if_reexecuted();
    let text = std::env::args().nth(1).expect("a job");
    let job: Job = serde_json::from_str(&text).expect("a job in JSON");
    let entering = Instant::now();
    let privilege = runtime::enter().expect("enter");
    let entered = entering.elapsed();
    match job.action.as_str() {
        "run" => run(&job),
        "hold" => hold(&job),
        "parallel" => parallel(&job),
        "start-time" => start_time(&job),
        "view" => view(&job),
        "remove" => std::fs::remove_dir_all(&job.dir).expect("removable"),
        "sweep" => runtime::sweep_container(&job.id),
        "overlay-works" => println!("{}", runtime::overlay_works(&job.dir)),
        "privilege" => println!("{privilege:?} in {entered:?}"),
        "checks" => {
            for check in runtime::host_checks(&job.dir) {
                println!("{} {}: {} {:?}", if check.ok { "ok" } else { "NO" }, check.name, check.detail, check.remedy);
            }
        }
        other => panic!("unknown action {other}"),
    }
    runtime::leave();
}

fn spec(job: &Job) -> ContainerSpec {
    let rootfs = match &job.rootfs {
        Some(dir) => Rootfs::Dir(dir.clone()),
        None => Rootfs::Overlay(overlay(job)),
    };
    ContainerSpec {
        id: job.id.clone(),
        dir: job.dir.clone(),
        rootfs,
        readonly_rootfs: job.readonly,
        process: process(job, job.args.clone(), &job.user, stdio(job)),
        init: job.init,
        hostname: "probe".into(),
        network: if job.host_network { Network::Host } else { Network::None },
        extra_hosts: job.extra_hosts.clone(),
        mounts: job
            .mounts
            .iter()
            .map(|mount| Mount {
                target: mount.target.clone(),
                kind: match (&mount.bind, &mount.overlay) {
                    _ if mount.file.is_some() => {
                        let (content, mode, uid, gid) = mount.file.clone().unwrap_or_default();
                        MountKind::File { content: FileContent(content.into_bytes()), mode, uid, gid }
                    }
                    (Some(path), _) => MountKind::Bind(path.clone()),
                    (_, Some(overlay)) => {
                        MountKind::Overlay { overlay: overlay.clone(), subpath: mount.subpath.clone() }
                    }
                    _ => MountKind::Tmpfs { size_bytes: Some(1 << 20), mode: 0o1777 },
                },
                readonly: mount.readonly,
            })
            .collect(),
        devices: job
            .devices
            .iter()
            .map(|(source, target, access)| Device {
                source: source.clone(),
                target: target.clone(),
                access: access.clone(),
            })
            .collect(),
        sysctls: job.sysctls.clone(),
        limits: Limits {
            memory_bytes: job.memory_bytes,
            cpus: job.cpus,
            pids: job.pids,
            nofile: job.nofile,
            ulimits: job
                .ulimits
                .iter()
                .map(|(name, soft, hard)| Ulimit { name: name.clone(), soft: *soft, hard: *hard })
                .collect(),
        },
        foreign_runtime: job.foreign.clone(),
        shm_size_bytes: job.shm_size_bytes,
        cgroup_parent: job.cgroup_parent.clone(),
        privileged: job.privileged,
    }
}

fn overlay(job: &Job) -> Overlay {
    Overlay { lowers: job.lowers.clone(), upper: job.upper.clone(), work: job.work.clone() }
}

fn process(job: &Job, args: Vec<String>, user: &str, stdio: Stdio) -> ProcessSpec {
    ProcessSpec {
        args,
        env: job.env.clone(),
        cwd: job.cwd.clone(),
        user: user.to_owned(),
        no_new_privileges: job.no_new_privileges,
        stdio,
        cap_add: job.cap_add.clone(),
        cap_drop: job.cap_drop.clone(),
    }
}

fn stdio(job: &Job) -> Stdio {
    match job.stdio.as_str() {
        "pipe" => Stdio::Pipe {
            stdin: job.stdin.as_ref().map(|text| {
                let (read, mut write) = std::io::pipe().expect("a pipe");
                write.write_all(text.as_bytes()).expect("room in a pipe");
                OwnedFd::from(read)
            }),
        },
        "null" => Stdio::Null,
        "terminal" => Stdio::Terminal { rows: 24, cols: 80 },
        "inherit" => Stdio::Inherit,
        other => panic!("unknown stdio {other}"),
    }
}

fn start(job: &Job) -> Container {
    let started = Container::start(spec(job));
    match started {
        Ok(container) => {
            for warning in container.warnings() {
                println!("[warning: {warning}]");
            }
            container
        }
        Err(error) => {
            println!("[{}: {error}{}]", kind(&error), causes(&error));
            std::process::exit(9)
        }
    }
}

fn kind(error: &StartError) -> &'static str {
    match error {
        StartError::NotFound { .. } => "not found",
        StartError::NotExecutable { .. } => "not executable",
        StartError::UnknownUser { .. } => "unknown user",
        StartError::Setup { .. } => "setup",
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    error.source().map(|cause| format!(": {cause}{}", causes(cause))).unwrap_or_default()
}

fn run(job: &Job) {
    let mut container = start(job);
    let output = container.take_output().or_else(|| container.take_terminal());
    let mut output = output.map(File::from);
    if let (Some(output), Some(text)) = (&mut output, &job.wait_for) {
        let mut seen = Vec::new();
        let mut byte = [0];
        while !String::from_utf8_lossy(&seen).contains(text.as_str()) {
            assert!(output.read(&mut byte).expect("readable") == 1, "no {text} in {}", String::from_utf8_lossy(&seen));
            seen.push(byte[0]);
        }
        std::io::stdout().write_all(&seen).expect("writable");
    }
    if job.kill_zygote {
        let zygote = parent_of(parent_of(container.pid()));
        let zygote = rustix::process::Pid::from_raw(zygote).expect("a process");
        rustix::process::kill_process(zygote, rustix::process::Signal::KILL).expect("our child");
    }
    if let Some(args) = &job.exec {
        let stdio =
            if job.exec_terminal { Stdio::Terminal { rows: 10, cols: 20 } } else { Stdio::Pipe { stdin: None } };
        match container.exec(process(job, args.clone(), &job.exec_user, stdio)) {
            Ok(mut exec) => {
                let output = exec.take_output().or_else(|| exec.take_terminal()).expect("output");
                drain(Some(File::from(output)));
                println!("[exec {}]", show(&exec.wait().expect("an exit")));
            }
            Err(error) => println!("[exec {}: {error}{}]", kind(&error), causes(&error)),
        }
        container.kill().expect("kill");
    }
    if let Some(signal) = job.signal {
        container.signal(signal).expect("signal");
    }
    let start = Instant::now();
    let stopped = job.stop_ms.map(|grace| container.stop(15, Duration::from_millis(grace)).expect("stop"));
    let took = start.elapsed();
    drain(output);
    let exit = container.wait().expect("an exit");
    assert_eq!(container.wait().expect("again"), exit);
    println!("[{}]", show(&exit));
    if stopped.is_some() {
        println!("[stopped in {} s]", took.as_secs());
    }
}

fn parent_of(pid: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("readable");
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok()).expect("a parent")
}

fn drain(output: Option<File>) {
    let mut bytes = Vec::new();
    if let Some(mut output) = output {
        // A terminal ends with EIO.
        drop(output.read_to_end(&mut bytes));
    }
    std::io::stdout().write_all(&bytes).expect("writable");
}

fn show(exit: &Exit) -> String {
    let mut text = format!("exit {}", exit.code);
    if let Some(signal) = exit.signal {
        text.push_str(&format!(" signal {signal}"));
    }
    if exit.oom {
        text.push_str(" oom");
    }
    if exit.pids_limit_hit {
        text.push_str(" pids");
    }
    text
}

/// Starts, says so, and waits to be killed.
fn hold(job: &Job) {
    let mut container = start(job);
    println!("started {}", container.pid());
    drain(container.take_output().map(File::from));
    std::thread::sleep(Duration::from_secs(60));
}

fn parallel(job: &Job) {
    std::thread::scope(|scope| {
        for thread in 0..job.threads {
            scope.spawn(move || {
                for round in 0..job.rounds {
                    // Allocating meanwhile, which is what hangs a careless fork.
                    let noise: Vec<String> = (0..500).map(|number| number.to_string()).collect();
                    let mut job = job.clone();
                    job.id = format!("{}-{thread}-{round}", job.id);
                    job.dir = job.dir.join(&job.id);
                    for dir in ["", "upper", "work"] {
                        std::fs::create_dir_all(job.dir.join(dir)).expect("writable");
                    }
                    job.upper = Some(job.dir.join("upper"));
                    job.work = Some(job.dir.join("work"));
                    let mut container = start(&job);
                    let mut text = String::new();
                    let output = container.take_output().expect("output");
                    File::from(output).read_to_string(&mut text).expect("readable");
                    let exit = container.wait().expect("an exit");
                    println!("{} {}", show(&exit), text.trim());
                    drop(noise);
                }
            });
        }
    });
}

fn start_time(job: &Job) {
    let mut times = Vec::new();
    for round in 0..job.rounds {
        let mut job = job.clone();
        job.id = format!("{}-{round}", job.id);
        job.dir = job.dir.join(&job.id);
        for dir in ["upper", "work"] {
            std::fs::create_dir_all(job.dir.join(dir)).expect("writable");
        }
        job.upper = Some(job.dir.join("upper"));
        job.work = Some(job.dir.join("work"));
        let begin = Instant::now();
        let container = Container::start(spec(&job)).expect("start");
        let started = begin.elapsed();
        container.wait().expect("an exit");
        times.push((begin.elapsed(), started));
    }
    times.sort();
    let (best, middle) = (times[0], times[times.len() / 2]);
    println!("start and end: min {:?}, median {:?}; until started: min {:?}", best.0, middle.0, best.1);
}

/// Lists the root of the merged view.
fn view(job: &Job) {
    let fd = overlay(job).open_view().expect("a view");
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let fd = rustix::fs::openat(&fd, ".", flags, rustix::fs::Mode::empty()).expect("a directory");
    let mut names: Vec<String> = rustix::fs::Dir::read_from(&fd)
        .expect("readable")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    println!("{}", names.join(" "));
}
