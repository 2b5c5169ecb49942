//! Control groups: bounds on memory, time and processes, by v2, v1 or a mixture of both.
//!
//! A container's groups lie below the caller's own and are called `seatrial-<id>`, so that [`sweep`] finds them again.
//! Where groups may not be made the container runs without, and says so if a bound was asked for.

use crate::sys;
use std::{
    io::{self, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

/// Bounds as they stand in the bundle.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) memory_bytes: Option<u64>,
    /// Microseconds of processor time in each [`CPU_PERIOD_US`].
    pub(crate) cpu_quota_us: Option<u64>,
    pub(crate) pids: Option<u64>,
    /// Rules as version 1 writes them: `c 1:3 w`.
    pub(crate) denied_devices: Vec<String>,
}

/// Processes and threads of a container that nobody bounded: more than any build needs at once, far fewer than the
/// kernel's ids (`pid_max` is 32,768 on small machines), so that a fork bomb hurts nobody but its own container.
pub(crate) const PIDS_DEFAULT: u64 = 16_384;

/// The period that quotas refer to; the kernel's default.
pub(crate) const CPU_PERIOD_US: u64 = 100_000;

/// The groups of one container.
#[derive(Debug, Default)]
pub(crate) struct Cgroup {
    dirs: Vec<PathBuf>,
    memory: Option<PathBuf>,
    pids: Option<PathBuf>,
}

impl Cgroup {
    /// Makes the groups that the bounds need, and one for pids in any case, which also keeps [`PIDS_DEFAULT`]. What
    /// cannot be had becomes a warning.
    pub(crate) fn create(id: &str, bounds: &Bounds, parent: Option<&str>, warnings: &mut Vec<String>) -> Cgroup {
        let mut cgroup = Cgroup::default();
        let moved;
        let hierarchies = match parent {
            None => hierarchies(),
            Some(parent) => {
                moved = Hierarchies::find().below(parent, warnings);
                &moved
            }
        };
        let name = group_name(id);
        // A parent bounds by all its controllers.
        let wanted = [
            (Controller::Memory, bounds.memory_bytes.is_some() || parent.is_some()),
            (Controller::Cpu, bounds.cpu_quota_us.is_some() || parent.is_some()),
            (Controller::Pids, bounds.pids.is_some() || parent.is_some()),
            (Controller::Devices, !bounds.denied_devices.is_empty()),
        ];
        // All v2 controllers live in one group, v1 controllers in one group each.
        let needed: Vec<Controller> = wanted
            .iter()
            .filter(|(controller, asked)| {
                (*asked || *controller == Controller::Pids) && !hierarchies.has_v1(*controller)
            })
            .map(|(controller, _)| *controller)
            .collect();
        let unified = hierarchies.make_unified(&name, &needed);

        for (controller, asked) in wanted {
            if !asked && controller != Controller::Pids {
                continue;
            }
            let made = match hierarchies.v1_dir(controller) {
                Some(parent) => make_group(&parent.join(&name)).map(|dir| (dir, false)),
                None => match &unified {
                    Some((dir, controllers)) if controllers.contains(&controller) => Ok((dir.clone(), true)),
                    _ => Err(io::Error::from_raw_os_error(libc::ENOTSUP)),
                },
            };
            let set = made.and_then(|(dir, is_unified)| {
                if !cgroup.dirs.contains(&dir) {
                    cgroup.dirs.push(dir.clone());
                }
                controller.bound(&dir, is_unified, bounds)?;
                match controller {
                    Controller::Memory => cgroup.memory = Some(dir),
                    Controller::Pids => cgroup.pids = Some(dir),
                    Controller::Cpu | Controller::Devices => {}
                }
                Ok(())
            });
            if let (Err(error), true) = (set, asked) {
                warnings.push(format!("the {} limit is not applied: {error}", controller.name()));
            }
        }
        if let Some((dir, _)) = unified
            && !cgroup.dirs.contains(&dir)
        {
            cgroup.dirs.push(dir);
        }
        cgroup
    }

    /// For a process that is to enter by itself, after a fork: see [`Entrances`].
    pub(crate) fn entrances(&self, born_in_unified: bool) -> Entrances {
        let is_left = |dir: &&PathBuf| !born_in_unified || dir.join(TASKS).exists();
        Entrances::open(self.dirs.iter().filter(is_left))
    }

    /// The v2 group, if there is one, for `CLONE_INTO_CGROUP`.
    pub(crate) fn unified(&self) -> Option<OwnedFd> {
        let dir = self.dirs.iter().find(|dir| !dir.join(TASKS).exists())?;
        Some(std::fs::File::open(dir).ok()?.into())
    }

    /// Where they are.
    pub(crate) fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// Whether a group counts its processes.
    pub(crate) fn bounds_pids(&self) -> bool {
        self.pids.is_some()
    }

    /// Whether the memory limit killed something.
    pub(crate) fn killed_for_memory(&self) -> bool {
        let count = |file: &str| self.memory.as_ref().is_some_and(|dir| counter(&dir.join(file), "oom_kill") > 0);
        count("memory.events") || count("memory.oom_control")
    }

    /// Whether a process could not be made because of the limit.
    pub(crate) fn hit_pids_limit(&self) -> bool {
        self.pids.as_ref().is_some_and(|dir| counter(&dir.join("pids.events"), "max") > 0)
    }

    /// Removes the groups; everything in them has ended.
    pub(crate) fn remove(&self) {
        for dir in &self.dirs {
            remove_group(dir);
        }
    }
}

/// Opened control files through which a single-threaded process enters groups.
///
/// Moving another process takes a lock that waits for all processors (15 ms and more on a busy machine). A single thread
/// that moves itself does not need it, and may do so with descriptors that somebody with more rights has opened.
pub(crate) struct Entrances(Vec<(PathBuf, io::Result<std::fs::File>)>);

/// The v1 file that moves one thread; v2 groups have none of this name.
const TASKS: &str = "tasks";

impl Entrances {
    pub(crate) fn open<'a>(dirs: impl IntoIterator<Item = &'a PathBuf>) -> Entrances {
        let open = |dir: &PathBuf| {
            let write = |name| std::fs::OpenOptions::new().write(true).open(dir.join(name));
            (dir.clone(), write(TASKS).or_else(|_| write("cgroup.procs")))
        };
        Entrances(dirs.into_iter().map(open).collect())
    }

    /// Moves the caller, and with it all that it will start.
    pub(crate) fn enter(&mut self, warnings: &mut Vec<String>) {
        for (dir, file) in &mut self.0 {
            let entered = match file {
                Ok(file) => file.write_all(b"0"),
                Err(error) => Err(io::Error::from(error.kind())),
            };
            if let Err(error) = entered {
                // A real-time process cannot enter a v1 cpu group, for one.
                warnings.push(format!("cannot enter the control group {}: {error}", dir.display()));
            }
        }
    }
}

/// Ends what is left in the groups of container `id`, and removes them. Idempotent.
pub(crate) fn sweep(id: &str) {
    let name = group_name(id);
    for root in Hierarchies::find().mount_points() {
        let mut found = Vec::new();
        find_groups(&root, &name, &mut found, &mut 0, 0);
        for dir in found {
            kill_group(&dir);
            remove_group(&dir);
        }
    }
}

/// Whether this process may make a group below its own: which version, or why not.
pub(crate) fn probe() -> Result<&'static str, io::Error> {
    let hierarchies = Hierarchies::find();
    let name = group_name(&format!("probe-{}", std::process::id()));
    if let Some(parent) = hierarchies.v1_dir(Controller::Memory) {
        let dir = make_group(&parent.join(&name))?;
        remove_group(&dir);
        return Ok("version 1");
    }
    match hierarchies.make_unified(&name, &[Controller::Memory, Controller::Pids]) {
        Some((dir, controllers)) => {
            remove_group(&dir);
            if controllers.contains(&Controller::Memory) {
                Ok("version 2")
            } else {
                Err(io::Error::other("the memory controller is not delegated to this control group"))
            }
        }
        None => Err(io::Error::from_raw_os_error(libc::EACCES)),
    }
}

/// Where this process was when it was first asked; its forks need not look again.
pub(crate) fn hierarchies() -> &'static Hierarchies {
    static FOUND: std::sync::OnceLock<Hierarchies> = std::sync::OnceLock::new();
    FOUND.get_or_init(Hierarchies::find)
}

fn group_name(id: &str) -> String {
    format!("seatrial-{id}")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Controller {
    Memory,
    Cpu,
    Pids,
    /// Of version 1 only: version 2 asks programs in the kernel instead.
    Devices,
}

impl Controller {
    const ALL: [Controller; 4] = [Controller::Memory, Controller::Cpu, Controller::Pids, Controller::Devices];

    fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Cpu => "cpu",
            Controller::Pids => "pids",
            Controller::Devices => "devices",
        }
    }

    fn bound(self, dir: &Path, unified: bool, bounds: &Bounds) -> io::Result<()> {
        let write = |file: &str, value: String| std::fs::write(dir.join(file), value);
        match (self, unified) {
            (Controller::Memory, false) => {
                let Some(bytes) = bounds.memory_bytes else { return Ok(()) };
                write("memory.limit_in_bytes", bytes.to_string())?;
                // Without these, what is above the limit goes to swap instead. Kernels without swap accounting lack one.
                drop(write("memory.memsw.limit_in_bytes", bytes.to_string()));
                drop(write("memory.swappiness", "0".to_owned()));
                Ok(())
            }
            (Controller::Memory, true) => {
                let Some(bytes) = bounds.memory_bytes else { return Ok(()) };
                write("memory.max", bytes.to_string())?;
                drop(write("memory.swap.max", "0".to_owned()));
                Ok(())
            }
            (Controller::Cpu, false) => {
                let Some(quota) = bounds.cpu_quota_us else { return Ok(()) };
                write("cpu.cfs_period_us", CPU_PERIOD_US.to_string())?;
                write("cpu.cfs_quota_us", quota.to_string())
            }
            (Controller::Cpu, true) => {
                let Some(quota) = bounds.cpu_quota_us else { return Ok(()) };
                write("cpu.max", format!("{quota} {CPU_PERIOD_US}"))
            }
            (Controller::Pids, _) => write("pids.max", bounds.pids.unwrap_or(PIDS_DEFAULT).to_string()),
            (Controller::Devices, false) => {
                bounds.denied_devices.iter().try_for_each(|rule| write("devices.deny", rule.clone()))
            }
            (Controller::Devices, true) => Err(io::Error::from_raw_os_error(libc::ENOTSUP)),
        }
    }
}

/// Where this process is in the control group file systems.
#[derive(Debug, Default)]
pub(crate) struct Hierarchies {
    v1: Vec<Hierarchy>,
    v2: Option<Hierarchy>,
}

#[derive(Debug)]
struct Hierarchy {
    controllers: Vec<String>,
    mount_point: PathBuf,
    own: PathBuf,
}

impl Hierarchies {
    fn find() -> Hierarchies {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Hierarchies::parse(&mounts, &own)
    }

    /// From `mountinfo` and `cgroup` of proc(5).
    fn parse(mounts: &str, own: &str) -> Hierarchies {
        let mut found = Hierarchies::default();
        for line in mounts.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let before: Vec<&str> = before.split(' ').collect();
            let after: Vec<&str> = after.split(' ').collect();
            let (Some(&root), Some(&mount_point)) = (before.get(3), before.get(4)) else { continue };
            let (Some(&kind), Some(&options)) = (after.first(), after.get(2)) else { continue };
            if kind != "cgroup" && kind != "cgroup2" {
                continue;
            }
            let entry = own.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':');
                let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
                let is_it = if kind == "cgroup2" {
                    controllers.is_empty()
                } else {
                    !controllers.is_empty()
                        && controllers.split(',').all(|name| options.split(',').any(|option| option == name))
                };
                is_it.then_some((controllers, path))
            });
            let Some((controllers, path)) = entry else { continue };
            // A bind mount of a part of the hierarchy shows paths below that part only.
            let Ok(below) = Path::new(path).strip_prefix(if root == "/" { "/" } else { root }) else { continue };
            let hierarchy = Hierarchy {
                controllers: controllers.split(',').map(str::to_owned).collect(),
                mount_point: PathBuf::from(mount_point),
                own: Path::new(mount_point).join(below),
            };
            if kind == "cgroup2" {
                found.v2.get_or_insert(hierarchy);
            } else {
                found.v1.push(hierarchy);
            }
        }
        found
    }

    /// The same with every group below `parent`, which is made where it is missing.
    fn below(mut self, parent: &str, warnings: &mut Vec<String>) -> Hierarchies {
        let is_ours = |hierarchy: &Hierarchy| {
            Controller::ALL.iter().any(|controller| hierarchy.controllers.iter().any(|name| name == controller.name()))
        };
        let uses_v2 = self.v2.as_ref().is_some_and(|v2| v2.mount_point.join("cgroup.controllers").exists());
        for hierarchy in
            self.v1.iter_mut().filter(|hierarchy| is_ours(hierarchy)).chain(self.v2.as_mut().filter(|_| uses_v2))
        {
            let dir = match parent.strip_prefix('/') {
                Some(absolute) => hierarchy.mount_point.join(absolute.trim_start_matches('/')),
                None => hierarchy.own.join(parent),
            };
            match std::fs::create_dir_all(&dir) {
                Ok(()) => hierarchy.own = dir,
                Err(error) => warnings.push(format!("the control group {} cannot be used: {error}", dir.display())),
            }
        }
        self
    }

    fn has_v1(&self, controller: Controller) -> bool {
        self.v1_dir(controller).is_some()
    }

    fn v1_dir(&self, controller: Controller) -> Option<&Path> {
        self.v1
            .iter()
            .find(|hierarchy| hierarchy.controllers.iter().any(|name| name == controller.name()))
            .map(|hierarchy| hierarchy.own.as_path())
    }

    fn mount_points(&self) -> Vec<PathBuf> {
        self.v1
            .iter()
            .filter(|hierarchy| {
                Controller::ALL
                    .iter()
                    .any(|controller| hierarchy.controllers.iter().any(|name| name == controller.name()))
            })
            .chain(&self.v2)
            .map(|hierarchy| hierarchy.mount_point.clone())
            .collect()
    }

    /// A v2 group with the wanted controllers: below our own group, or below the nearest ancestor that can pass them on
    /// (a group with processes of its own cannot: cgroups(7), "no internal processes").
    fn make_unified(&self, name: &str, wanted: &[Controller]) -> Option<(PathBuf, Vec<Controller>)> {
        let hierarchy = self.v2.as_ref()?;
        if wanted.is_empty() {
            return None;
        }
        let mut best: Option<(PathBuf, Vec<Controller>)> = None;
        for parent in hierarchy.own.ancestors().take_while(|dir| dir.starts_with(&hierarchy.mount_point)) {
            for controller in wanted {
                drop(std::fs::write(parent.join("cgroup.subtree_control"), format!("+{}", controller.name())));
            }
            let enabled = std::fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap_or_default();
            let has: Vec<Controller> = wanted
                .iter()
                .copied()
                .filter(|controller| enabled.split_whitespace().any(|name| name == controller.name()))
                .collect();
            if best.as_ref().is_none_or(|(_, most)| has.len() > most.len()) && !has.is_empty() {
                best = Some((parent.to_owned(), has));
            }
            if best.as_ref().is_some_and(|(_, most)| most.len() == wanted.len()) {
                break;
            }
        }
        let (parent, has) = best?;
        make_group(&parent.join(name)).ok().map(|dir| (dir, has))
    }
}

/// A fresh group; one that a killed run left is emptied and made anew.
fn make_group(dir: &Path) -> io::Result<PathBuf> {
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            kill_group(dir);
            remove_group(dir);
            std::fs::create_dir(dir)?;
        }
        result => result?,
    }
    Ok(dir.to_owned())
}

fn kill_group(dir: &Path) {
    if std::fs::write(dir.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    // Version 1 cannot kill a group at once; a fork bomb may outrun us for a few rounds.
    for _ in 0..KILL_ROUNDS {
        let pids = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        let pids: Vec<i32> = pids.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1).collect();
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            sys::kill(pid, libc::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Rounds of killing all members; each takes about a millisecond.
const KILL_ROUNDS: usize = 100;

/// Attempts at removing a group whose last process is just being buried, a millisecond apart.
const REMOVE_ATTEMPTS: usize = 50;

fn remove_group(dir: &Path) {
    for _ in 0..REMOVE_ATTEMPTS {
        match std::fs::remove_dir(dir) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                // The container may have made groups below its own.
                if let Ok(entries) = std::fs::read_dir(dir) {
                    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                        drop(std::fs::remove_dir(entry.path()));
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            _ => return,
        }
    }
}

/// Deepest group in which [`sweep`] looks, and most groups that it looks at.
const SWEEP_DEPTH: usize = 10;
const SWEEP_GROUPS: usize = 20_000;

fn find_groups(dir: &Path, name: &str, found: &mut Vec<PathBuf>, seen: &mut usize, depth: usize) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        *seen += 1;
        if entry.file_name() == name {
            found.push(entry.path());
        } else if depth < SWEEP_DEPTH && *seen < SWEEP_GROUPS {
            find_groups(&entry.path(), name, found, seen, depth + 1);
        }
    }
}

/// A line `key number` of a control file.
fn counter(file: &Path, key: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_hierarchies_are_told_apart() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/a/b\n2:cpu,cpuacct:/\n0::/x\n";
        let found = Hierarchies::parse(mounts, own);
        assert_eq!(found.v1_dir(Controller::Memory), Some(Path::new("/sys/fs/cgroup/memory/a/b")));
        assert_eq!(found.v1_dir(Controller::Cpu), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct/")));
        assert_eq!(found.v1_dir(Controller::Pids), None);
        assert_eq!(found.v2.expect("unified").own, Path::new("/sys/fs/cgroup/unified/x"));
    }

    #[test]
    fn a_part_of_a_hierarchy_is_understood() {
        let mounts = "32 25 0:28 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let found = Hierarchies::parse(mounts, "0::/docker/abc/inner\n");
        assert_eq!(found.v2.expect("unified").own, Path::new("/sys/fs/cgroup/inner"));
    }
}
