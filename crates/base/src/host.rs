//! `seatrial base host`: a root filesystem from this machine's own shell and core tools.

use std::{
    io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use oci::{DiffId, History, ImageConfig, Platform, Reference};
use store::{Image, Scope, Store, StoreError};

use crate::{
    HOST_LABEL, PATH,
    plan::{HostPlan, PlanError, Skipped},
    rfc3339,
    write::write,
};

/// The name that a host base gets when no other is asked for. `localhost/` means that it is never looked for elsewhere:
/// a name such as `seatrial/host` would be asked of docker.io where the image is missing.
pub const HOST_REFERENCE: &str = "localhost/host:latest";

/// Tools that are taken where this machine has them. None of them is required, except a shell.
pub(crate) const TOOLS: &[&str] = &[
    "sh",
    "bash",
    "dash",
    "[",
    "arch",
    "awk",
    "base32",
    "base64",
    "basename",
    "cat",
    "chgrp",
    "chmod",
    "chown",
    "cksum",
    "clear",
    "cmp",
    "comm",
    "cp",
    "csplit",
    "cut",
    "date",
    "dd",
    "df",
    "diff",
    "dirname",
    "du",
    "echo",
    "egrep",
    "env",
    "expand",
    "expr",
    "factor",
    "false",
    "fgrep",
    "find",
    "flock",
    "fmt",
    "fold",
    "free",
    "getconf",
    "getent",
    "grep",
    "gunzip",
    "gzip",
    "head",
    "hostname",
    "id",
    "install",
    "join",
    "kill",
    "link",
    "ln",
    "logname",
    "ls",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mknod",
    "mktemp",
    "mv",
    "nice",
    "nl",
    "nohup",
    "nproc",
    "numfmt",
    "od",
    "paste",
    "pathchk",
    "pgrep",
    "pkill",
    "pr",
    "printenv",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "realpath",
    "rev",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "setsid",
    "sha1sum",
    "sha224sum",
    "sha256sum",
    "sha384sum",
    "sha512sum",
    "shuf",
    "sleep",
    "sort",
    "split",
    "stat",
    "stty",
    "sum",
    "sync",
    "tac",
    "tail",
    "tar",
    "tee",
    "test",
    "timeout",
    "touch",
    "tr",
    "true",
    "truncate",
    "tsort",
    "tty",
    "uname",
    "unexpand",
    "uniq",
    "unlink",
    "uptime",
    "wc",
    "which",
    "whoami",
    "xargs",
    "yes",
    "zcat",
];

/// Searched before the user's PATH: what the system installed comes before shims of version managers,
/// which do not work outside their owner's home.
pub(crate) const SYSTEM_DIRECTORIES: &[&str] = &["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"];

/// Where distributions keep the certificates of public authorities, as one file.
const CERTIFICATES: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// What to take besides the core tools, and how to name the result.
#[derive(Clone, Debug, Default)]
pub struct HostOptions {
    /// Programs by name, or absolute paths of files and directories. `python3` and `perl` bring their libraries,
    /// `perl-base` only the smallest set.
    pub with: Vec<String>,
    /// Names to give; empty: [`HOST_REFERENCE`].
    pub names: Vec<Reference>,
    /// The user's `PATH`, searched after the system's directories.
    pub search_path: Vec<PathBuf>,
}

/// A host base in the store.
#[derive(Clone, Debug)]
pub struct HostBase {
    /// The image.
    pub image: Image,
    /// Its names.
    pub names: Vec<Reference>,
    /// Number of files in it.
    pub files: usize,
    /// Their size.
    pub size_bytes: u64,
    /// What was left out of it.
    pub skipped: Vec<Skipped>,
}

/// There is no host base.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a base image from this machine")]
pub struct HostError(#[from] pub HostErrorKind);

/// Why.
#[derive(Debug, thiserror::Error)]
pub enum HostErrorKind {
    /// `--with` names something that is not there.
    #[error("`{0}` is neither a program in PATH nor an absolute path that exists")]
    NoProgram(String),
    /// No shell.
    #[error("this machine has no `sh`")]
    NoShell,
    /// A file cannot be taken.
    #[error("cannot take in `{what}`")]
    Plan {
        /// What was asked for.
        what: String,
        /// Why not.
        #[source]
        source: PlanError,
    },
    /// A file cannot be copied.
    #[error("cannot copy")]
    Copy(#[source] io::Error),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a base image from this machine's own shell and core tools, and names it. Works as an ordinary user too:
/// only files that everyone may read are taken, and everything belongs to root in the image.
/// The same machine gives the same digest.
pub fn host(store: &Store, scope: &Scope, options: &HostOptions) -> Result<HostBase, HostError> {
    let plan = plan(options)?;
    let time = plan.newest.unwrap_or(UNIX_EPOCH);
    let active = store.prepare(scope, None).map_err(HostErrorKind::from)?;
    let written = write(&plan, active.upper(), time).map_err(HostErrorKind::Copy)?;
    let snapshot = active.commit().map_err(HostErrorKind::from)?;
    let (layer, _) = store.diff_id(&snapshot, time).map_err(HostErrorKind::from)?;
    let config = config(time, &plan, layer);
    let image = store.put_image(&config, &[snapshot], time).map_err(HostErrorKind::from)?;

    let mut names = options.names.clone();
    if names.is_empty() {
        names.push(HOST_REFERENCE.parse().expect("the name is a constant"));
    }
    for name in &mut names {
        if let Some(tag) = name.tag_or_latest().map(str::to_owned) {
            *name = name.with_tag(&tag);
        }
        store.tag(name, &image.id).map_err(HostErrorKind::from)?;
    }
    Ok(HostBase { image, names, files: written.files, size_bytes: written.size_bytes, skipped: plan.skipped })
}

pub(crate) fn plan(options: &HostOptions) -> Result<HostPlan, HostErrorKind> {
    let mut plan = HostPlan::new();
    skeleton(&mut plan);
    for tool in TOOLS {
        if let Some(path) = find_program(tool, &options.search_path) {
            take_tool(&mut plan, tool, &path);
        }
    }
    if !plan.has("usr/bin/sh") {
        return Err(HostErrorKind::NoShell);
    }
    for name in &options.with {
        let failed = |source| HostErrorKind::Plan { what: name.clone(), source };
        if name.starts_with('/') && Path::new(name).exists() {
            let path = Path::new(name);
            if path.is_dir() { plan.tree(path, &|_| true) } else { plan.file(path).map(drop) }.map_err(failed)?;
            continue;
        }
        let program = if name == "perl-base" { "perl" } else { name };
        let path = find_program(program, &options.search_path).ok_or_else(|| HostErrorKind::NoProgram(name.clone()))?;
        let real = plan.file(&path).map_err(failed)?;
        into_path(&mut plan, program, &path);
        companions(&mut plan, name, &Path::new("/").join(real)).map_err(failed)?;
    }
    surroundings(&mut plan);
    Ok(plan)
}

/// The directories, links and accounts that programs expect of any root filesystem.
fn skeleton(plan: &mut HostPlan) {
    for directory in ["dev", "etc", "home", "mnt", "opt", "proc", "run", "srv", "sys", "usr/local/bin", "usr/share"] {
        plan.directory(directory, 0o755);
    }
    for directory in ["usr/bin", "usr/sbin", "usr/lib", "var/cache", "var/lib", "var/log"] {
        plan.directory(directory, 0o755);
    }
    plan.directory("root", 0o700);
    plan.directory("tmp", 0o1777);
    plan.directory("var/tmp", 0o1777);
    for name in ["bin", "sbin", "lib"] {
        plan.link(name, Path::new("usr").join(name));
    }
    plan.link("var/run", "/run");
    plan.text(
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\n\
         daemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
         nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    );
    plan.text("etc/group", "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n");
    plan.text(
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    );
    plan.text("etc/shells", "/bin/sh\n");
}

/// One core tool: what stands in its way is noted, and the base goes without it.
fn take_tool(plan: &mut HostPlan, tool: &str, path: &Path) {
    match plan.file(path) {
        Ok(_) => into_path(plan, tool, path),
        Err(error) => plan.skipped.push(Skipped { what: tool.into(), reason: error.to_string() }),
    }
}

/// A program that lies outside the image's PATH is linked into it.
fn into_path(plan: &mut HostPlan, name: &str, path: &Path) {
    let places = ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin"];
    if !places.iter().any(|place| plan.has(&format!("{place}/{name}"))) {
        plan.link(&format!("usr/bin/{name}"), path);
    }
}

/// What programs need besides their libraries, as far as this machine has it.
fn surroundings(plan: &mut HostPlan) {
    // Copied as one plain file under Debian's name: a library looks for nothing else.
    let certificates = CERTIFICATES.iter().map(Path::new).find(|path| path.is_file());
    if let Some(text) = certificates.and_then(|path| fs_err::read_to_string(path).ok()) {
        plan.text("etc/ssl/certs/ca-certificates.crt", text);
    }
    let files = ["/etc/protocols", "/etc/services", "/etc/os-release", "/etc/debian_version", "/etc/alpine-release"];
    for file in files.into_iter().map(Path::new).filter(|path| path.exists()) {
        let _ = plan.file(file);
    }
    // Loaded by name at run time, so no table lists them; beside the C library where there are any.
    let libraries: Vec<PathBuf> = plan
        .entries
        .keys()
        .filter(|path| path.file_name().is_some_and(|name| name == "libc.so.6"))
        .map(|path| Path::new("/").join(path))
        .collect();
    for directory in libraries.iter().filter_map(|path| path.parent()) {
        for name in ["libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2", "libgcc_s.so.1"] {
            let path = directory.join(name);
            if path.exists() {
                let _ = plan.file(&path);
            }
        }
    }
    for locale in ["/usr/lib/locale/C.utf8", "/usr/lib/locale/C.UTF-8"].map(Path::new) {
        if locale.is_dir() {
            let _ = plan.tree(locale, &keep);
        }
    }
    if plan.entries.keys().any(|path| path.starts_with("usr/lib64")) {
        plan.link("lib64", "usr/lib64");
    }
}

/// The libraries of interpreters, found by where distributions and installers put them; nothing is run to ask.
fn companions(plan: &mut HostPlan, name: &str, real: &Path) -> Result<(), PlanError> {
    let prefix = real.parent().and_then(Path::parent).unwrap_or(Path::new("/usr"));
    let mut trees = Vec::new();
    if name.starts_with("perl") {
        let base: Vec<PathBuf> =
            children(&prefix.join("lib")).into_iter().map(|triplet| triplet.join("perl-base")).collect();
        let has_base = base.iter().any(|path| path.is_dir());
        trees.extend(base);
        if name != "perl-base" || !has_base {
            for directory in ["lib/perl5", "lib64/perl5", "share/perl", "share/perl5"] {
                trees.push(prefix.join(directory));
            }
            trees.extend(children(&prefix.join("lib")).into_iter().map(|triplet| triplet.join("perl")));
        }
    }
    if name.starts_with("python3") || name == "python" {
        // `python3` leads to `python3.11`, whose library has the same name.
        if let Some(versioned) = real.file_name() {
            trees.extend(["lib", "lib64"].map(|lib| prefix.join(lib).join(versioned)));
        }
    }
    for tree in trees.iter().filter(|tree| tree.is_dir()) {
        plan.tree(tree, &keep)?;
    }
    Ok(())
}

/// Tests, caches, build files and other people's packages stay behind. Compiled Python differs with who ran what.
fn keep(path: &Path) -> bool {
    const LEFT_OUT: &[&str] =
        &["__pycache__", "test", "idlelib", "turtledemo", "tkinter", "site-packages", "dist-packages"];
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    !LEFT_OUT.contains(&name) && !name.starts_with("config-3.") && !name.ends_with(".a") && !name.ends_with(".pod")
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs_err::read_dir(directory)
        .map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
        .unwrap_or_default();
    paths.sort();
    paths
}

fn find_program(name: &str, search_path: &[PathBuf]) -> Option<PathBuf> {
    let system = SYSTEM_DIRECTORIES.iter().map(PathBuf::from);
    system
        .chain(search_path.iter().filter(|path| path.is_absolute()).cloned())
        .map(|directory| directory.join(name))
        .find(|path| {
            use std::os::unix::fs::PermissionsExt;
            fs_err::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o001 != 0)
        })
}

fn config(time: SystemTime, plan: &HostPlan, layer: DiffId) -> ImageConfig {
    let mut config = ImageConfig::scratch(&Platform::host());
    config.rootfs.diff_ids = vec![layer];
    config.created = Some(rfc3339(time));
    config.config.env = vec![format!("PATH={PATH}")];
    if plan.entries.keys().any(|path| path.starts_with("usr/lib/locale")) {
        config.config.env.push("LANG=C.UTF-8".into());
    }
    config.config.cmd = Some(vec!["/bin/sh".into()]);
    config.config.labels.insert(HOST_LABEL.into(), "host".into());
    let labels = [
        ("org.opencontainers.image.title", "host"),
        (
            "org.opencontainers.image.description",
            "shell and core tools of the machine that made it; not for publishing",
        ),
    ];
    config.config.labels.extend(labels.map(|(key, value)| (key.into(), value.into())));
    config.history = vec![History {
        created: config.created.clone(),
        created_by: Some("seatrial base host".into()),
        ..History::default()
    }];
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Entry;

    fn plan_with(with: &[&str]) -> HostPlan {
        plan(&HostOptions { with: with.iter().map(|name| (*name).into()).collect(), ..HostOptions::default() }).unwrap()
    }

    #[test]
    fn a_base_has_a_shell_with_its_loader_and_the_usual_directories() {
        let plan = plan_with(&[]);
        for name in ["usr/bin/sh", "usr/bin/cat", "usr/bin/sed", "usr/bin/awk", "etc/passwd", "root"] {
            assert!(plan.has(name), "{name}");
        }
        assert_eq!(plan.entries[Path::new("tmp")], Entry::Directory(0o1777));
        assert_eq!(plan.entries[Path::new("bin")], Entry::Link("usr/bin".into()));
        assert_eq!(plan.skipped, []);
    }

    #[test]
    fn every_link_of_a_base_leads_somewhere() {
        let plan = plan_with(&["perl-base"]);
        for (name, entry) in &plan.entries {
            let Entry::Link(target) = entry else { continue };
            let target = if target.is_absolute() {
                target.clone()
            } else {
                Path::new("/").join(name.parent().unwrap()).join(target)
            };
            // `usr/lib/x86_64-linux-gnu/libc.so.6` may be named through the merged `/lib`.
            let target = target.strip_prefix("/").unwrap();
            let merged = Path::new("usr").join(target);
            assert!(
                plan.entries.contains_key(target) || plan.entries.contains_key(&merged),
                "{} -> {}",
                name.display(),
                target.display()
            );
        }
    }

    #[test]
    fn perl_brings_its_smallest_library_and_all_of_it_on_request() {
        let small = plan_with(&["perl-base"]);
        assert!(small.has("usr/bin/perl"));
        let strict = |plan: &HostPlan| plan.entries.keys().any(|path| path.ends_with("strict.pm"));
        assert!(strict(&small));
        let all = plan_with(&["perl"]);
        assert!(strict(&all) && all.entries.len() >= small.entries.len());
    }

    #[test]
    fn what_is_not_there_is_named() {
        let options = HostOptions { with: vec!["no-such-program".into()], ..HostOptions::default() };
        assert!(matches!(plan(&options), Err(HostErrorKind::NoProgram(name)) if name == "no-such-program"));
    }

    #[test]
    fn the_same_machine_gives_the_same_plan() {
        assert_eq!(plan_with(&["perl-base"]).entries, plan_with(&["perl-base"]).entries);
    }
}
