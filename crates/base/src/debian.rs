//! `seatrial base debian:SUITE`: a Debian base image through mmdebstrap, from a package mirror instead of a registry.

use std::{
    ffi::OsStr,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use oci::{Descriptor, DiffId, Digest, History, ImageConfig, Platform, Reference, media_type};
use store::{ApplyError, Image, Scope, Store, StoreError};

use crate::{
    PATH, rfc3339,
    sources::{Source, sources_for, sources_of_this_machine},
};

/// Lines of mmdebstrap's output that are kept for the error message.
const TAIL_LINES: usize = 20;
/// Namespace of remembered results in the store.
const MEMO: &str = "base-debian";
/// A signed table of contents is some 200 kB.
const RELEASE_BYTES_MAX: u64 = 16 << 20;
/// Where an administrator of a Debian machine adds certificate authorities (update-ca-certificates(8)).
const LOCAL_CERTIFICATES: &str = "/usr/local/share/ca-certificates";
/// What Debian's own slim images leave out.
const SLIM: &[&str] = &[
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/groff/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/man/*",
];

/// How apt and dpkg work in an image, as in Debian's official ones: what was downloaded and apt's tables of it stay out of
/// layers, and nothing is synced, since a layer that was not finished is thrown away. File below `/etc`, and its content.
const APT_SETTINGS: &[(&str, &str)] = &[
    (
        "apt/apt.conf.d/docker-clean",
        "DPkg::Post-Invoke { \"rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true\"; };\n\
         APT::Update::Post-Invoke { \"rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true\"; };\n\
         Dir::Cache::pkgcache \"\";\nDir::Cache::srcpkgcache \"\";\n",
    ),
    ("apt/apt.conf.d/docker-no-languages", "Acquire::Languages \"none\";\n"),
];
const DPKG_SETTING: (&str, &str) = ("dpkg/dpkg.cfg.d/docker-apt-speedup", "force-unsafe-io\n");

/// How much is installed, in mmdebstrap's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// Essential packages, apt, and what has priority required.
    #[default]
    Minbase,
    /// Essential packages and apt.
    Apt,
}

impl Variant {
    fn as_str(self) -> &'static str {
        match self {
            Self::Minbase => "minbase",
            Self::Apt => "apt",
        }
    }
}

/// What to install, from where, and how to name the result.
#[derive(Clone, Debug, Default)]
pub struct DebianOptions {
    /// `bookworm`, `trixie`, `sid`. With `-slim` at its end, manuals and translations are left out.
    pub suite: String,
    /// Further packages.
    pub include: Vec<String>,
    /// How much is installed.
    pub variant: Variant,
    /// The only mirror to use. `None`: those that this machine's apt uses for the suite, or else Debian's own.
    pub mirror: Option<String>,
    /// Names to give; empty: `debian:SUITE`.
    pub names: Vec<Reference>,
    /// Ask the mirror whether there is something newer than what was made before.
    pub refresh: bool,
    /// Trust the certificate authorities that this machine's administrator added (Debian's
    /// `/usr/local/share/ca-certificates`), for networks whose proxy signs with an authority of its own.
    pub local_certificates: bool,
    /// Newer file times are set to it. `None`: the mirror's own date, so that the same mirror gives the same image.
    pub epoch: Option<SystemTime>,
}

/// A Debian base in the store.
#[derive(Clone, Debug)]
pub struct DebianBase {
    /// The image.
    pub image: Image,
    /// Its names.
    pub names: Vec<Reference>,
    /// It was made before, and nothing was installed now.
    pub is_cached: bool,
    /// The sources of its packages, as lines of sources.list.
    pub sources: Vec<String>,
    /// Date of its packages, if the mirror could be asked for it.
    pub date: Option<SystemTime>,
}

/// There is no Debian base.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a base image of Debian {suite}")]
pub struct DebianError {
    /// The suite.
    pub suite: String,
    /// Why.
    #[source]
    pub kind: DebianErrorKind,
}

/// Why.
#[derive(Debug, thiserror::Error)]
pub enum DebianErrorKind {
    /// Not a name that can be given to mmdebstrap.
    #[error("`{0}` is not the name of a {1}")]
    BadName(String, &'static str),
    /// mmdebstrap is missing.
    #[error("mmdebstrap is not installed")]
    NotInstalled,
    /// mmdebstrap could not be run.
    #[error("cannot run mmdebstrap")]
    Run(#[source] io::Error),
    /// mmdebstrap gave up.
    #[error("mmdebstrap ended with {status}:\n{tail}")]
    Failed {
        /// How it ended.
        status: String,
        /// Its last lines.
        tail: String,
    },
    /// Its archive does not get into the store.
    #[error("cannot keep what mmdebstrap made")]
    Keep(#[source] io::Error),
    /// Its archive is no root filesystem.
    #[error("cannot take in what mmdebstrap made")]
    Apply(#[from] ApplyError),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Installs a Debian suite into a new image with mmdebstrap and names it. Made once for the same options, unless
/// `refresh` finds that the mirror has changed. `progress` hears mmdebstrap's messages.
/// Works as root, and as root of a user namespace with subordinate ids.
pub fn debian(
    store: &Store,
    scope: &Scope,
    options: &DebianOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<DebianBase, DebianError> {
    make(store, scope, options, progress).map_err(|kind| DebianError { suite: options.suite.clone(), kind })
}

fn make(
    store: &Store,
    scope: &Scope,
    options: &DebianOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<DebianBase, DebianErrorKind> {
    let recipe = Recipe::new(options, &sources_of_this_machine())?;
    let known = Known::read(store, &recipe.key());
    let known_image = match &known {
        Some(known) => store.image(&known.image)?.map(|image| (image, known)),
        None => None,
    };
    let finish = |image: Image, date, is_cached| -> Result<DebianBase, DebianErrorKind> {
        let names = name(store, &image, options, &recipe)?;
        Ok(DebianBase { image, names, is_cached, sources: recipe.lines(), date })
    };
    if let Some((image, known)) = &known_image
        && !options.refresh
    {
        return finish(image.clone(), known.date, true);
    }

    let release = fetch_release(&recipe.sources, scope.dir());
    if let (Some((image, known)), Some(release)) = (&known_image, &release)
        && known.release.as_ref() == Some(&release.digest)
    {
        return finish(image.clone(), known.date, true);
    }
    let date = release.as_ref().map(|release| release.date);
    if date.is_none() && options.epoch.is_none() {
        progress("W: the mirror gives no date, so that this image will not be the same when made again");
    }
    let epoch = options.epoch.or(date).unwrap_or_else(SystemTime::now);
    // The archive goes into the store while it is written: it is large, and read again for unpacking anyway.
    let mut tar = store.blob_writer()?;
    bootstrap(&recipe, epoch, scope.dir(), &mut tar, progress)?;
    let (digest, size) = tar.commit(None)?;
    // A layer of the store, through the same checks as anybody's.
    let layer = DiffId(digest.clone());
    let blob = Descriptor::new(media_type::LAYER, digest, size);
    let snapshot = store.apply_layer(scope, None, None, &blob, &layer)?;
    let image = store.put_image(&recipe.config(epoch, layer), &[snapshot], epoch)?;
    let known = Known { image: image.id.clone(), release: release.map(|release| release.digest), date };
    known.write(store, &recipe.key())?;
    finish(image, date, false)
}

fn name(
    store: &Store,
    image: &Image,
    options: &DebianOptions,
    recipe: &Recipe,
) -> Result<Vec<Reference>, DebianErrorKind> {
    let mut names = options.names.clone();
    if names.is_empty() {
        let name = format!("debian:{}", options.suite);
        names.push(name.parse().map_err(|_| DebianErrorKind::BadName(recipe.suite.clone(), "Debian suite"))?);
    }
    for name in &mut names {
        if let Some(tag) = name.tag_or_latest().map(str::to_owned) {
            *name = name.with_tag(&tag);
        }
        store.tag(name, &image.id)?;
    }
    Ok(names)
}

/// What decides about the content, checked.
struct Recipe {
    suite: String,
    is_slim: bool,
    include: Vec<String>,
    variant: Variant,
    sources: Vec<Source>,
    certificates: Vec<PathBuf>,
}

impl Recipe {
    fn new(options: &DebianOptions, machine: &[Source]) -> Result<Self, DebianErrorKind> {
        let (suite, is_slim) = match options.suite.strip_suffix("-slim") {
            Some(suite) => (suite, true),
            None => (options.suite.as_str(), false),
        };
        if !is_plain_name(suite, "") {
            return Err(DebianErrorKind::BadName(suite.into(), "Debian suite"));
        }
        let mut include: Vec<String> = options.include.iter().filter(|name| !name.is_empty()).cloned().collect();
        include.sort();
        include.dedup();
        if let Some(bad) = include.iter().find(|name| !is_plain_name(name, "+:=~_")) {
            return Err(DebianErrorKind::BadName(bad.clone(), "Debian package"));
        }
        if let Some(mirror) = &options.mirror
            && (mirror.starts_with('-') || mirror.contains(char::is_whitespace) || !mirror.contains(":/"))
        {
            return Err(DebianErrorKind::BadName(mirror.clone(), "mirror (such as http://deb.debian.org/debian)"));
        }
        let sources = sources_for(suite, options.mirror.as_deref(), machine);
        let certificates = if options.local_certificates { local_certificates() } else { Vec::new() };
        if !certificates.is_empty() && !include.iter().any(|name| name == "ca-certificates") {
            include.push("ca-certificates".into());
        }
        Ok(Self { suite: suite.into(), is_slim, include, variant: options.variant, sources, certificates })
    }

    fn lines(&self) -> Vec<String> {
        self.sources.iter().map(Source::line).collect()
    }

    fn key(&self) -> String {
        let certificates = self.certificates.iter().map(|path| fs_err::read_to_string(path).unwrap_or_default());
        let parts = [
            self.suite.clone(),
            self.is_slim.to_string(),
            self.variant.as_str().into(),
            self.include.join(","),
            self.lines().join("\n"),
            certificates.collect(),
            APT_SETTINGS.iter().chain([&DPKG_SETTING]).map(|(file, text)| format!("{file} {text}")).collect(),
        ];
        Digest::of(parts.join("\0").as_bytes()).to_string()
    }

    /// The archive is written to stdout, so that what hooks say must not go there.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            // Also within a user namespace: there we are root, and its ids are mapped already.
            "--mode=root".to_owned(),
            format!("--variant={}", self.variant.as_str()),
            "--format=tar".to_owned(),
        ];
        if !self.include.is_empty() {
            arguments.push(format!("--include={}", self.include.join(",")));
        }
        if self.is_slim {
            arguments.extend(SLIM.iter().map(|option| format!("--dpkgopt={option}")));
        }
        if !self.certificates.is_empty() {
            let files: Vec<String> = self.certificates.iter().map(|path| path.display().to_string()).collect();
            arguments.push(format!("--customize-hook=copy-in {} {LOCAL_CERTIFICATES}/", files.join(" ")));
            arguments.push("--customize-hook=chroot \"$1\" update-ca-certificates >&2".into());
        }
        // No text has quotes of the shell's in it.
        let write = |(file, text): &(&str, &str)| format!("printf %s '{text}' >\"$1/etc/{file}\"");
        // Before the installation, which it spares thousands of syncs: what is cut off is made again from the beginning.
        arguments.push(format!("--setup-hook=mkdir -p \"$1/etc/dpkg/dpkg.cfg.d\" && {}", write(&DPKG_SETTING)));
        // After the installation, which has no use for them. Its own tables would not be found any more for removal.
        arguments.push("--customize-hook=rm -f \"$1\"/var/cache/apt/*.bin".into());
        arguments.extend(APT_SETTINGS.iter().map(|setting| format!("--customize-hook={}", write(setting))));
        arguments.push(self.suite.clone());
        arguments.push("-".to_owned());
        arguments.extend(self.lines());
        arguments
    }

    fn config(&self, epoch: SystemTime, layer: DiffId) -> ImageConfig {
        let mut config = ImageConfig::scratch(&Platform::host());
        config.rootfs.diff_ids = vec![layer];
        config.created = Some(rfc3339(epoch));
        config.config.env = vec![format!("PATH={PATH}")];
        config.config.cmd = Some(vec!["bash".into()]);
        let include =
            if self.include.is_empty() { String::new() } else { format!(" --include {}", self.include.join(",")) };
        let slim = if self.is_slim { "-slim" } else { "" };
        config.history = vec![History {
            created: config.created.clone(),
            created_by: Some(format!("seatrial base debian:{}{slim}{include}", self.suite)),
            ..History::default()
        }];
        config
    }
}

/// Letters and digits with inner `.`, `-` and what else is allowed: never an option, a path or a list.
fn is_plain_name(name: &str, also: &str) -> bool {
    name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '.' | '-') || also.contains(char))
}

/// The administrator's certificates. Names go into a shell command, so that only plain ones are taken.
fn local_certificates() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs_err::read_dir(LOCAL_CERTIFICATES)
        .map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()).collect())
        .unwrap_or_default();
    files.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.ends_with(".crt") && is_plain_name(name, "_") && path.is_file()
    });
    files.sort();
    files
}

fn bootstrap(
    recipe: &Recipe,
    epoch: SystemTime,
    scratch: &Path,
    tar: &mut (impl Write + Send),
    progress: &mut dyn FnMut(&str),
) -> Result<(), DebianErrorKind> {
    let program = find_program("mmdebstrap").ok_or(DebianErrorKind::NotInstalled)?;
    let seconds = epoch.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Should we be killed, so is it: `setpriv` asks the kernel for that.
    let mut command = match find_program("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "TERM", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    };
    command
        .args(recipe.arguments())
        .env("SOURCE_DATE_EPOCH", seconds.to_string())
        .env("TMPDIR", scratch)
        .env("LC_ALL", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(DebianErrorKind::Run)?;
    let mut archive = child.stdout.take().expect("it was asked for");
    let output = BufReader::new(child.stderr.take().expect("it was asked for"));
    let (copied, tail) = std::thread::scope(|scope| {
        // Ends with the archive, or where it cannot be written: then the pipe closes, and mmdebstrap gives up.
        let copying = scope.spawn(move || io::copy(&mut archive, tar));
        let tail = tell(output, progress);
        (copying.join(), tail)
    });
    let status = child.wait().map_err(DebianErrorKind::Run)?;
    copied.unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map_err(DebianErrorKind::Keep)?;
    let tail = tail.map_err(DebianErrorKind::Run)?;
    if !status.success() {
        return Err(DebianErrorKind::Failed { status: status.to_string(), tail: tail.join("\n") });
    }
    Ok(())
}

/// Tells each line as it comes, and returns the last ones.
fn tell(mut output: impl BufRead, progress: &mut dyn FnMut(&str)) -> io::Result<Vec<String>> {
    let mut tail = Vec::new();
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        progress(&text);
        if tail.len() == TAIL_LINES {
            tail.remove(0);
        }
        tail.push(text);
        line.clear();
    }
    Ok(tail)
}

/// The state of all sources at one moment.
struct Release {
    digest: Digest,
    date: SystemTime,
}

/// Asks the sources for their tables of contents through apt's own downloader, which knows the machine's proxies.
/// `None` when one of them cannot be had or has no date.
fn fetch_release(sources: &[Source], scratch: &Path) -> Option<Release> {
    let mut digests = String::new();
    let mut newest = None;
    for source in sources {
        let text = source.release_uris().iter().find_map(|uri| download(uri, &scratch.join("release")))?;
        newest = newest.max(Some(release_date(&text)?));
        digests += &Digest::of(text.as_bytes()).to_string();
    }
    Some(Release { digest: Digest::of(digests.as_bytes()), date: newest? })
}

fn download(uri: &str, to: &Path) -> Option<String> {
    let helper = Path::new("/usr/lib/apt/apt-helper");
    let options = ["-oAPT::Sandbox::User=root", "-oAcquire::Retries=2", "-oAcquire::http::Timeout=20", "download-file"];
    let status = Command::new(helper)
        .args(options.map(OsStr::new))
        .args([OsStr::new(uri), to.as_os_str()])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !status.is_ok_and(|status| status.success()) {
        return None;
    }
    let size = fs_err::metadata(to).ok()?.len();
    let text = if size <= RELEASE_BYTES_MAX { fs_err::read_to_string(to).ok() } else { None };
    let _ = fs_err::remove_file(to);
    text
}

/// `Date: Sat, 17 May 2025 09:00:12 UTC` (Debian repository format, "Release files").
fn release_date(text: &str) -> Option<SystemTime> {
    let line = text.lines().find_map(|line| line.strip_prefix("Date:"))?.trim();
    let zoned = line.strip_suffix("UTC").map_or_else(|| line.to_owned(), |time| format!("{time}+0000"));
    let seconds = jiff::fmt::rfc2822::parse(&zoned).ok()?.timestamp().as_second();
    Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?))
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    system
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// What was made before from the same recipe.
struct Known {
    image: Digest,
    release: Option<Digest>,
    date: Option<SystemTime>,
}

impl Known {
    fn read(store: &Store, key: &str) -> Option<Self> {
        let text = String::from_utf8(store.memo_get(MEMO, key)?).ok()?;
        let mut words = text.split(' ');
        let image = words.next()?.parse().ok()?;
        let release = words.next().and_then(|word| word.parse().ok());
        let seconds = words.next().and_then(|word| word.parse().ok());
        Some(Self { image, release, date: seconds.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)) })
    }

    fn write(&self, store: &Store, key: &str) -> Result<(), StoreError> {
        let release = self.release.as_ref().map_or("-".to_owned(), Digest::to_string);
        let seconds = self.date.and_then(|date| date.duration_since(UNIX_EPOCH).ok());
        let seconds = seconds.map_or("-".to_owned(), |since| since.as_secs().to_string());
        store.memo_put(MEMO, key, format!("{} {release} {seconds}", self.image).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(suite: &str, include: &[&str]) -> Result<Recipe, DebianErrorKind> {
        let include = include.iter().map(|name| (*name).into()).collect();
        Recipe::new(&DebianOptions { suite: suite.into(), include, ..DebianOptions::default() }, &[])
    }

    #[test]
    fn order_of_packages_does_not_matter_and_everything_else_does() {
        let key = |suite, include: &[&str]| recipe(suite, include).unwrap().key();
        assert_eq!(key("bookworm", &["b", "a", "a"]), key("bookworm", &["a", "b"]));
        assert_ne!(key("bookworm", &["a"]), key("bookworm", &[]));
        assert_ne!(key("bookworm", &[]), key("bookworm-slim", &[]));
        assert_ne!(key("bookworm", &[]), key("trixie", &[]));
    }

    #[test]
    fn arguments_are_mmdebstraps() {
        let arguments = recipe("bookworm-slim", &["python3", "libstdc++6"]).unwrap().arguments();
        assert!(arguments.contains(&"--include=libstdc++6,python3".to_owned()));
        assert!(arguments.contains(&"--dpkgopt=path-exclude=/usr/share/man/*".to_owned()));
        assert!(arguments.iter().any(|argument| argument.ends_with(">\"$1/etc/dpkg/dpkg.cfg.d/docker-apt-speedup\"")));
        let place = arguments.iter().position(|argument| argument == "bookworm").unwrap();
        assert_eq!(arguments[place + 1], "-");
        assert!(arguments[place + 2].starts_with("deb http"));
    }

    #[test]
    fn names_that_could_be_options_or_paths_are_refused() {
        for suite in ["", "-x", "../x", "book worm", "a,b", "a;b", "bookworm\n"] {
            assert!(matches!(recipe(suite, &[]), Err(DebianErrorKind::BadName(..))), "{suite}");
        }
        for package in ["-o", "./x.deb", "/x.deb", "a b", "a,b", "?x"] {
            assert!(matches!(recipe("sid", &[package]), Err(DebianErrorKind::BadName(..))), "{package}");
        }
    }

    #[test]
    fn the_date_of_a_release_file_is_read() {
        let text = "-----BEGIN PGP SIGNED MESSAGE-----\nOrigin: Debian\nDate: Sat, 17 May 2025 09:00:12 UTC\nNo: x\n";
        assert_eq!(release_date(text), Some(UNIX_EPOCH + Duration::from_secs(1_747_472_412)));
        assert_eq!(release_date("Date: soon\n"), None);
        assert_eq!(release_date(""), None);
    }
}
