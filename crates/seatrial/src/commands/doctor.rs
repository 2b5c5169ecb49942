//! `seatrial doctor`: what this machine offers, and the exact remedy where it does not.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use oci::Platform;
use runtime::Privilege;
use serde_json::{Value, json};

use crate::{
    context::Context,
    exit::Exit,
    terminal::{self, Palette, text},
};

/// Below this, even a small build may fill the disk.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// Flags of `seatrial doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// `json` for one JSON array
    #[arg(long)]
    format: Option<String>,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// Fine.
    Good,
    /// Something works less well.
    Lacking,
    /// Seatrial cannot work like this.
    Broken,
}

struct Check {
    name: String,
    finding: Finding,
    detail: String,
    remedy: Option<String>,
}

impl Check {
    fn good(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), finding: Finding::Good, detail: detail.into(), remedy: None }
    }

    fn lacking(name: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name: name.to_owned(), finding: Finding::Lacking, detail: detail.into(), remedy: Some(remedy.into()) }
    }

    fn broken(name: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { finding: Finding::Broken, ..Self::lacking(name, detail, remedy) }
    }
}

/// Runs all checks; exit 3 when something that is needed is missing.
pub(crate) fn run(args: &DoctorArgs, context: &Context) -> anyhow::Result<Exit> {
    let home = &context.settings.home;
    let mut checks = vec![privilege(context.privilege()), store(home), disk(home)];
    for check in runtime::host_checks(&nearest_directory(home)) {
        let finding = if check.ok { Finding::Good } else { Finding::Lacking };
        checks.push(Check { name: check.name.to_owned(), finding, detail: check.detail, remedy: check.remedy });
    }
    checks.push(private_networks(context.privilege()));
    checks.push(platforms());
    checks.push(git());
    checks.extend(helpers());

    if args.format.as_deref() == Some("json") {
        let list: Vec<Value> = checks
            .iter()
            .map(|check| {
                let state = match check.finding {
                    Finding::Good => "good",
                    Finding::Lacking => "lacking",
                    Finding::Broken => "broken",
                };
                json!({"name": check.name, "state": state, "detail": check.detail, "remedy": check.remedy})
            })
            .collect();
        terminal::result_line(&Value::Array(list).to_string());
    } else {
        terminal::result(&render(&checks));
    }
    let is_broken = checks.iter().any(|check| check.finding == Finding::Broken);
    Ok(if is_broken { Exit::Surroundings } else { Exit::Passed })
}

fn render(checks: &[Check]) -> String {
    let palette = Palette::new(terminal::streams().stdout_colours);
    let columns = checks.iter().map(|check| text::width(&check.name)).max().unwrap_or(0);
    let mut out = String::new();
    for check in checks {
        let mark = match check.finding {
            Finding::Good => palette.good("✓"),
            Finding::Lacking => palette.warn("!"),
            Finding::Broken => palette.bad("✗"),
        };
        let pad = " ".repeat(columns - text::width(&check.name));
        out.push_str(&format!("{mark} {}{pad}  {}\n", check.name, text::one_line(&check.detail)));
        if let Some(remedy) = &check.remedy {
            out.push_str(&format!(
                "  {}  {} {}\n",
                " ".repeat(columns),
                palette.hint("remedy:"),
                text::one_line(remedy)
            ));
        }
    }
    let number = |finding| checks.iter().filter(|check| check.finding == finding).count();
    out.push_str(&match (number(Finding::Broken), number(Finding::Lacking)) {
        (0, 0) => "everything is there\n".to_owned(),
        (0, lacking) => {
            format!("{} would work better; nothing that is needed is missing\n", text::count(lacking, "thing"))
        }
        (broken, _) => format!("{} must be mended first\n", text::count(broken, "thing")),
    });
    out
}

fn privilege(privilege: &Privilege) -> Check {
    const NAME: &str = "user";
    match privilege {
        Privilege::Root { idmapped: true } => Check::good(NAME, "root; containers get a user namespace of their own"),
        Privilege::Root { idmapped: false } => Check::lacking(
            NAME,
            "root; containers share its user ids, because mounts cannot map ids here",
            "a kernel from 5.12 on, and a store on ext4, xfs, btrfs or tmpfs",
        ),
        Privilege::Subordinate { uids, gids } => {
            Check::good(NAME, format!("an ordinary user with {uids} subordinate user ids and {gids} group ids"))
        }
        Privilege::SingleId => Check::lacking(
            NAME,
            "an ordinary user without subordinate ids: files get one owner only",
            "apt-get install uidmap, and as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER",
        ),
        Privilege::None { reason } => Check::broken(
            NAME,
            format!("no user namespace can be made: {reason}"),
            "as root: sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000, or run seatrial as root",
        ),
    }
}

/// The store's directory, or the nearest one above it that exists.
fn nearest_directory(home: &Path) -> PathBuf {
    home.ancestors().find(|directory| directory.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

fn store(home: &Path) -> Check {
    let directory = nearest_directory(home);
    let remedy = "name a directory that you may write: export SEATRIAL_HOME=/path/to/store";
    match tempfile::Builder::new().prefix(".seatrial-doctor-").tempfile_in(&directory) {
        Ok(_) if directory == home => Check::good("store", format!("{} can be written", home.display())),
        Ok(_) => Check::good("store", format!("{} will be made", home.display())),
        Err(error) => Check::broken("store", format!("{} cannot be written: {error}", directory.display()), remedy),
    }
}

fn disk(home: &Path) -> Check {
    let directory = nearest_directory(home);
    match rustix::fs::statvfs(&directory) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let words = format!("{} free at {}", text::bytes(free), directory.display());
            if free < FREE_BYTES_MIN {
                Check::lacking("disk", words, "make room: seatrial clean --dry-run, then seatrial clean")
            } else {
                Check::good("disk", words)
            }
        }
        Err(error) => Check::lacking("disk", format!("cannot ask for free space: {error}"), "see `df`"),
    }
}

/// Which platforms' programs can be run, for builds of several.
/// What leads out of the networks of gates, health checks and services.
fn private_networks(privilege: &Privilege) -> Check {
    const NAME: &str = "private networks";
    match network::ways_out(matches!(privilege, Privilege::Root { .. })) {
        Ok(ways) => {
            let ways: Vec<String> = ways.iter().map(ToString::to_string).collect();
            Check::good(NAME, format!("containers reach each other by name, and the outside by {}", ways.join(" or ")))
        }
        Err(no_way_out) => Check::lacking(
            NAME,
            format!("containers reach each other, but nothing outside: {}", no_way_out.reason),
            no_way_out.remedy,
        ),
    }
}

fn platforms() -> Check {
    const NAME: &str = "platforms";
    let host = Platform::host();
    let words = |names: &[&str]| names.iter().map(|name| format!("linux/{name}")).collect::<Vec<_>>().join(", ");
    match &runtime::emulated_architectures()[..] {
        [] => Check::good(
            NAME,
            format!("{host} only; others can be built where they need no RUN (qemu-user-static runs them)"),
        ),
        others => Check::good(NAME, format!("{host}; also {}", words(others))),
    }
}

fn git() -> Check {
    match Command::new("git").arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output() {
        Ok(output) if output.status.success() => {
            Check::good("git", String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        _ => Check::lacking("git", "not found: commit, branch and tags stay unknown", "apt-get install git"),
    }
}

/// Credential helpers that docker's configuration names have to be there.
fn helpers() -> Vec<Check> {
    let file = std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")))
        .map(|directory| directory.join("config.json"));
    let Some(text) = file.as_ref().and_then(|file| std::fs::read(file).ok()) else { return Vec::new() };
    let name = "logins";
    let Ok(config) = serde_json::from_slice::<Value>(&text) else {
        let file = file.unwrap_or_default();
        return vec![Check::lacking(
            name,
            format!("{} is not JSON", file.display()),
            "mend it, or move it away and log in again",
        )];
    };
    let mut wanted: Vec<String> = config["credHelpers"]
        .as_object()
        .map(|helpers| helpers.values().filter_map(|helper| helper.as_str().map(str::to_owned)).collect())
        .unwrap_or_default();
    wanted.extend(config["credsStore"].as_str().map(str::to_owned));
    wanted.sort();
    wanted.dedup();
    wanted
        .into_iter()
        .map(|helper| {
            let program = format!("docker-credential-{helper}");
            match Command::new(&program)
                .arg("version")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
            {
                Ok(_) => Check::good(name, format!("{program} is there")),
                Err(_) => Check::lacking(
                    name,
                    format!("{program} is not found"),
                    format!("install {program}, or take it out of docker's config.json"),
                ),
            }
        })
        .collect()
}
