//! A shell and tools for images that have none: a directory that is mounted read-only at [`TOOLBOX`], outside of the
//! image's own paths, and works without any file of the image.
//!
//! A static busybox of this machine is best. Without one it is made of this machine's own tools: copies that are told of
//! the loader and libraries beside them.

use std::{
    collections::BTreeMap,
    io,
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use oci::Digest;

use crate::{
    elf::{Elf, ElfError},
    host::{SYSTEM_DIRECTORIES, TOOLS},
    plan::{Entry, HostPlan},
};

/// Where the toolbox is mounted. Short, because names of the loader are replaced by names below it.
pub const TOOLBOX: &str = "/.seatrial";

/// Where distributions put a static busybox besides PATH.
const BUSYBOX_PLACES: &[&str] = &["/usr/lib/initramfs-tools/bin", "/usr/lib/busybox", "/bin/static", "/usr/libexec"];
/// Names of a static busybox.
const BUSYBOX_NAMES: &[&str] = &["busybox", "busybox-static", "busybox.static"];
/// Raised when toolboxes are made differently.
const LAYOUT: &str = "1";
/// A busybox has some 400 applets; more is no list of applets.
const APPLETS_MAX: usize = 2000;
/// No shell lasts so long in a toolbox that was replaced.
const OLD: Duration = Duration::from_secs(7 * 24 * 3600);

/// A toolbox on this machine's disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolbox {
    /// The directory to mount.
    pub path: PathBuf,
    /// Its programs, as seen inside: goes at the end of PATH.
    pub bin: String,
    /// Its shell, as seen inside.
    pub shell: String,
    /// What it is made of, for people.
    pub made_of: String,
}

/// There is no toolbox.
#[derive(Debug, thiserror::Error)]
pub enum ToolboxError {
    /// Neither a static busybox nor tools that can be moved.
    #[error("this machine has neither a static busybox nor a shell that works elsewhere")]
    Nothing,
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A program of this machine could not be read.
    #[error(transparent)]
    Elf(#[from] ElfError),
}

/// The toolbox of this machine, made in a directory below `home` when it is not there yet.
///
/// # Errors
/// This machine has nothing to make it of, or it cannot be written.
pub fn toolbox(home: &Path) -> Result<Toolbox, ToolboxError> {
    match busybox()? {
        Some(busybox) => of_busybox(home, &busybox),
        None => of_host(home),
    }
}

/// A busybox that needs neither loader nor libraries.
fn busybox() -> Result<Option<PathBuf>, ToolboxError> {
    let own = Elf::read(Path::new("/proc/self/exe"))?.map(|elf| elf.machine);
    for directory in SYSTEM_DIRECTORIES.iter().chain(BUSYBOX_PLACES) {
        for name in BUSYBOX_NAMES {
            let path = Path::new(directory).join(name);
            if !path.is_file() {
                continue;
            }
            // What cannot be read is not taken.
            let Ok(Some(elf)) = Elf::read(&path) else { continue };
            if elf.interpreter.is_none() && elf.needed.is_empty() && Some(elf.machine) == own {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

fn of_busybox(home: &Path, busybox: &Path) -> Result<Toolbox, ToolboxError> {
    let key = key_of([busybox])?;
    let path = made(home, &key, |directory| {
        let bin = directory.join("bin");
        fs_err::create_dir(&bin)?;
        copy(busybox, &bin.join("busybox"))?;
        let output = Command::new(busybox).arg("--list").env_clear().output()?;
        let names = String::from_utf8_lossy(&output.stdout).into_owned();
        let is_name = |name: &&str| !name.is_empty() && !name.contains('/') && *name != "busybox";
        for name in names.lines().filter(is_name).take(APPLETS_MAX).chain(["sh"]) {
            match symlink("busybox", bin.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    })?;
    Ok(Toolbox::new(path, format!("this machine's static {}", busybox.display())))
}

fn of_host(home: &Path) -> Result<Toolbox, ToolboxError> {
    let mut plan = HostPlan::new();
    let mut tools = BTreeMap::new();
    for tool in TOOLS {
        let found =
            SYSTEM_DIRECTORIES.iter().map(|directory| Path::new(directory).join(tool)).find(|path| path.is_file());
        // A tool that cannot be taken is left out.
        if let Some(Ok(real)) = found.map(|path| plan.file(&path)) {
            tools.insert((*tool).to_owned(), real);
        }
    }
    let sources = plan.entries.values().filter_map(|entry| match entry {
        Entry::Copy(from, _) => Some(from.as_path()),
        _ => None,
    });
    let key = key_of(sources)?;
    let path = made(home, &key, |directory| write_host(directory, &plan, &tools))?;
    Ok(Toolbox::new(path, "this machine's own tools".into()))
}

/// Loader and libraries at the top, programs in `bin`.
fn write_host(directory: &Path, plan: &HostPlan, tools: &BTreeMap<String, PathBuf>) -> Result<(), ToolboxError> {
    let bin = directory.join("bin");
    fs_err::create_dir(&bin)?;
    let source = |place: &Path| match plan.entries.get(place) {
        Some(Entry::Copy(from, _)) => Some(from.clone()),
        _ => None,
    };
    let mut loader: Option<PathBuf> = None;
    for (tool, place) in tools {
        let Some(from) = source(place) else { continue };
        let Some(elf) = Elf::read(&from)? else { continue };
        let Some(own_loader) = &elf.interpreter else { continue };
        let own_loader = fs_err::canonicalize(own_loader)?;
        // One loader for all; a program of another C library stays behind.
        if loader.as_ref().is_some_and(|loader| *loader != own_loader) {
            continue;
        }
        let name = from.file_name().unwrap_or_default();
        let program = bin.join(name);
        if !program.exists() {
            let mut bytes = fs_err::read(&from)?;
            if !elf.move_to(&mut bytes, &format!("{TOOLBOX}/ld"), TOOLBOX) {
                continue;
            }
            fs_err::write(&program, bytes)?;
            make_executable(&program)?;
        }
        if name != tool.as_str() {
            symlink(name, bin.join(tool))?;
        }
        loader = Some(own_loader);
    }
    let Some(loader) = loader.filter(|_| bin.join("sh").exists()) else { return Err(ToolboxError::Nothing) };
    copy(&loader, &directory.join("ld"))?;
    for (place, entry) in &plan.entries {
        let is_library = place.file_name().is_some_and(|name| name.to_string_lossy().contains(".so"));
        let Some(name) = place.file_name().filter(|_| is_library) else { continue };
        let path = directory.join(name);
        match entry {
            Entry::Copy(from, _) if !path.exists() => copy(from, &path)?,
            Entry::Link(target) => match target.file_name() {
                Some(target) if target != name => drop(symlink(target, &path)),
                _ => {}
            },
            _ => {}
        }
    }
    Ok(())
}

/// What a toolbox is made of, by size and time.
fn key_of<'a>(sources: impl IntoIterator<Item = &'a Path>) -> Result<String, ToolboxError> {
    let mut text = format!("layout {LAYOUT}\n");
    for source in sources {
        let metadata = fs_err::metadata(source)?;
        text.push_str(&format!("{} {} {}\n", source.display(), metadata.len(), metadata.mtime()));
    }
    Ok(Digest::of(text.as_bytes()).hex()[..16].to_owned())
}

/// The directory of this key, filled beside its place and renamed if it is not there.
fn made(home: &Path, key: &str, fill: impl FnOnce(&Path) -> Result<(), ToolboxError>) -> Result<PathBuf, ToolboxError> {
    let all = home.join("toolbox");
    let path = all.join(key);
    if path.is_dir() {
        return Ok(path);
    }
    fs_err::create_dir_all(&all)?;
    remove_old(&all);
    let temporary = all.join(format!(".{key}.{}", std::process::id()));
    match fs_err::remove_dir_all(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => fs_err::create_dir(&temporary)?,
    }
    let filled = fill(&temporary).and_then(|()| {
        make_executable(&temporary)?;
        make_executable(&temporary.join("bin"))?;
        match fs_err::rename(&temporary, &path) {
            // Another process was quicker.
            Err(_) if path.is_dir() => Ok(()),
            other => Ok(other?),
        }
    });
    if path.is_dir() || filled.is_err() {
        let _ = fs_err::remove_dir_all(&temporary);
    }
    filled?;
    Ok(path)
}

/// Toolboxes of former states of this machine. One that stays costs some megabytes.
fn remove_old(all: &Path) {
    let Ok(entries) = fs_err::read_dir(all) else { return };
    for entry in entries.filter_map(Result::ok) {
        let time = entry.metadata().and_then(|metadata| metadata.modified());
        if time.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age > OLD)) {
            let _ = fs_err::remove_dir_all(entry.path());
        }
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs_err::copy(from, to)?;
    make_executable(to)
}

fn make_executable(path: &Path) -> io::Result<()> {
    fs_err::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
}

impl Toolbox {
    fn new(path: PathBuf, made_of: String) -> Self {
        Self { path, bin: format!("{TOOLBOX}/bin"), shell: format!("{TOOLBOX}/bin/sh"), made_of }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a script in a root that holds nothing but the toolbox.
    fn check(toolbox: &Toolbox) {
        if !Command::new("unshare").args(["-r", "true"]).status().is_ok_and(|status| status.success()) {
            return testkit::skip("`unshare -r` is not allowed here, so that no root can be changed");
        }
        let root = tempfile::tempdir().unwrap();
        let inside = root.path().join(TOOLBOX.trim_start_matches('/'));
        assert!(Command::new("cp").arg("-a").arg(&toolbox.path).arg(&inside).status().unwrap().success());
        let script = format!("PATH={}; export PATH\n{SCRIPT}", toolbox.bin);
        let output = Command::new("unshare")
            .args(["-r", "chroot"])
            .arg(root.path())
            .args([&toolbox.shell, "-c", &script])
            .env_clear()
            .env("PATH", crate::PATH)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "2\n1\n0\nc\n");
    }

    const SCRIPT: &str = "set -e; ls /; echo 1 2 | awk '{print $2}'; echo x | grep -c x; id -u; echo b | sed s/b/c/";

    #[test]
    fn tools_of_this_machine_work_in_an_empty_root() {
        let home = tempfile::tempdir().unwrap();
        let toolbox = of_host(home.path()).unwrap();
        check(&toolbox);
        let made = fs_err::metadata(&toolbox.path).unwrap().ino();
        assert_eq!(of_host(home.path()).unwrap(), toolbox);
        assert_eq!(fs_err::metadata(&toolbox.path).unwrap().ino(), made, "it is made once");
        assert_eq!(fs_err::read_dir(home.path().join("toolbox")).unwrap().count(), 1);
    }

    #[test]
    fn a_static_busybox_is_taken_where_there_is_one() {
        let Some(busybox) = busybox().unwrap() else {
            return testkit::skip("this machine has no static busybox");
        };
        let home = tempfile::tempdir().unwrap();
        let toolbox = of_busybox(home.path(), &busybox).unwrap();
        check(&toolbox);
        assert!(toolbox.path.join("bin/vi").exists(), "its applets have names");
    }
}
