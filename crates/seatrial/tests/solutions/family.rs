//! The processes of a session while it runs, and what is left of them afterwards.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, sleep, spawn},
    time::{Duration, Instant},
};

/// Often enough to see each container of a run; seldom enough to cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The kernel ends a container's processes soon after the one that holds them, not at the same moment.
const END_MAX: Duration = Duration::from_secs(10);

/// Watches a process and all that descends from it.
pub(crate) struct Family {
    is_over: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    watcher: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    /// Process id and time of start, which together nobody else gets.
    members: BTreeSet<(u32, String)>,
    networks: BTreeSet<PathBuf>,
}

impl Family {
    pub(crate) fn watch(head: u32) -> Self {
        let (is_over, seen) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (stop, writer): (_, Arc<Mutex<Seen>>) = (Arc::clone(&is_over), Arc::clone(&seen));
        let watcher = spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                lock(&writer).look(head);
                sleep(LOOK_EVERY);
            }
        });
        Self { is_over, seen, watcher }
    }

    /// Whether a process of it has this in its command line.
    pub(crate) fn has(&self, part: &str) -> bool {
        let names_it = |(pid, _): &(u32, String)| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(part)
        };
        lock(&self.seen).members.iter().any(names_it)
    }

    /// What outlives the session: processes of it, and others in its private networks. Empty when all is well.
    pub(crate) fn left(self) -> Vec<String> {
        self.is_over.store(true, Ordering::Relaxed);
        self.watcher.join().expect("looking does not panic");
        let seen = lock(&self.seen);
        assert!(seen.members.len() > 1, "a run has processes");
        let start = Instant::now();
        loop {
            let left = seen.left();
            if left.is_empty() || start.elapsed() > END_MAX {
                return left;
            }
            sleep(LOOK_EVERY);
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    fn look(&mut self, head: u32) {
        let mut waiting = vec![head];
        while let Some(pid) = waiting.pop() {
            let process = PathBuf::from(format!("/proc/{pid}"));
            let Some(started) = started(&process) else { continue };
            self.members.insert((pid, started));
            self.networks.extend(fs::read_link(process.join("ns/net")));
            for thread in fs::read_dir(process.join("task")).into_iter().flatten().flatten() {
                let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
                waiting.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            }
        }
    }

    fn left(&self) -> Vec<String> {
        let host = fs::read_link("/proc/self/ns/net").unwrap_or_default();
        let mut left = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let process = entry.path();
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let network = fs::read_link(process.join("ns/net")).ok();
            let is_inside = network.is_some_and(|network| network != host && self.networks.contains(&network));
            if is_inside || started(&process).is_some_and(|started| self.members.contains(&(pid, started))) {
                let line = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
                left.push(format!("process {pid} {}", line.replace('\0', " ")));
            }
        }
        left
    }
}

/// Field 22 of `/proc/PID/stat`; none when the process has ended, be it collected or not (proc(5)).
fn started(process: &Path) -> Option<String> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    (fields.next()? != "Z").then(|| fields.nth(18).map(str::to_owned))?
}
