//! What containers say: a file for each, bounded, with the time of every line.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use engine::{Masker, Masks, OutputSink, Secret};
use serde::{Deserialize, Serialize};
use services::{LogEnd, Logs, ServiceLog};
use tokio::sync::watch;

/// A container that speaks without an end keeps its last lines: at least so many bytes, at most twice as many.
const FILE_BYTES_MAX: u64 = 32 * 1_000_000;
/// A longer line is kept in parts, as docker does at 16 kB.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// Lines that are told of a failure.
const TAIL_LINES_MAX: usize = 40;

/// A line of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    /// The container.
    pub(crate) container: String,
    /// When it was said, in nanoseconds since 1970.
    pub(crate) at: u64,
    /// Without its end.
    pub(crate) text: String,
}

/// The logs of a project.
pub(crate) struct ProjectLogs {
    directory: PathBuf,
    files: Mutex<BTreeMap<String, Arc<ContainerLog>>>,
    /// Counts what was written, for those who follow.
    changed: watch::Sender<u64>,
}

/// The log of one container.
struct ContainerLog {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

struct Inner {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    line: Vec<u8>,
    masker: Option<Masker>,
    tail: VecDeque<String>,
    lines: u64,
}

impl ProjectLogs {
    /// Logs in a directory that is made for them.
    pub(crate) fn new(directory: PathBuf) -> std::io::Result<Self> {
        fs_err::create_dir_all(&directory)?;
        Ok(Self { directory, files: Mutex::default(), changed: watch::channel(0).0 })
    }

    /// Hears of each write.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Somebody who reads the log of a container from its beginning.
    pub(crate) fn reader(&self, container: &str) -> Reader {
        let path = self.directory.join(pipeline::file_name(container));
        Reader { container: container.to_owned(), path, open: None, is_first: true }
    }
}

impl Logs for ProjectLogs {
    fn open(&self, service: &str, _command: &str, secrets: &[Secret]) -> Result<Arc<dyn ServiceLog>, String> {
        let path = self.directory.join(pipeline::file_name(service));
        // Whoever follows a former container of this name reads its file to the end.
        let _ = std::fs::remove_file(former(&path));
        let _ = std::fs::remove_file(&path);
        let file = File::options().create_new(true).append(true).open(&path).map_err(|error| error.to_string())?;
        let log = Arc::new(ContainerLog {
            inner: Mutex::new(Inner {
                path,
                file,
                size_bytes: 0,
                line: Vec::new(),
                masker: Masks::new(secrets).map(|masks| Masker::new(Arc::new(masks))),
                tail: VecDeque::new(),
                lines: 0,
            }),
            changed: self.changed.clone(),
        });
        lock(&self.files).insert(service.to_owned(), Arc::clone(&log));
        Ok(Arc::new(Handle(log)))
    }
}

struct Handle(Arc<ContainerLog>);

impl ServiceLog for Handle {
    fn sink(&self) -> OutputSink {
        let log = Arc::clone(&self.0);
        Arc::new(move |bytes| log.take(bytes))
    }

    fn note(&self, line: &str) {
        self.0.take(format!("{line}\n").as_bytes());
    }

    fn finish(&self, _exit_code: i32) -> LogEnd {
        let mut inner = lock(&self.0.inner);
        let rest = inner.masker.as_mut().map(Masker::finish).unwrap_or_default();
        inner.write(&rest);
        inner.end_line();
        self.0.changed.send_modify(|count| *count = count.wrapping_add(1));
        LogEnd {
            tail: inner.tail.iter().cloned().collect(),
            earlier_lines: inner.lines.saturating_sub(inner.tail.len() as u64),
            path: inner.path.clone(),
        }
    }
}

impl ContainerLog {
    fn take(&self, bytes: &[u8]) {
        let mut inner = lock(&self.inner);
        let masked = inner.masker.as_mut().map(|masker| masker.push(bytes));
        inner.write(masked.as_deref().unwrap_or(bytes));
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Inner {
    fn write(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (content, is_whole) = match piece.strip_suffix(b"\n") {
                Some(content) => (content, true),
                None => (piece, false),
            };
            for part in content.chunks(LINE_BYTES_MAX) {
                let room = LINE_BYTES_MAX - self.line.len();
                self.line.extend_from_slice(&part[..part.len().min(room)]);
                if part.len() >= room {
                    self.end_line();
                    self.line.extend_from_slice(&part[room..]);
                }
            }
            if is_whole {
                self.put_line();
            }
        }
    }

    /// What was said without an end of line.
    fn end_line(&mut self) {
        if !self.line.is_empty() {
            self.put_line();
        }
    }

    fn put_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        if self.tail.len() == TAIL_LINES_MAX {
            self.tail.pop_front();
        }
        self.tail.push_back(String::from_utf8_lossy(line).into_owned());
        self.lines += 1;
        let mut whole = format!("{} ", now()).into_bytes();
        whole.extend_from_slice(line);
        whole.push(b'\n');
        if self.size_bytes >= FILE_BYTES_MAX {
            self.turn_over();
        }
        // A full disk costs lines, not the service.
        if self.file.write_all(&whole).is_ok() {
            self.size_bytes += whole.len() as u64;
        }
    }

    /// The file becomes the former one, and a new one begins.
    fn turn_over(&mut self) {
        if std::fs::rename(&self.path, former(&self.path)).is_ok()
            && let Ok(file) = File::options().create_new(true).append(true).open(&self.path)
        {
            self.file = file;
            self.size_bytes = 0;
        }
    }
}

fn former(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Reads a log line by line; goes on where it stopped when there is more.
pub(crate) struct Reader {
    container: String,
    path: PathBuf,
    open: Option<Open>,
    is_first: bool,
}

struct Open {
    reader: BufReader<File>,
    file: (u64, u64),
    /// A line of which the end is not written yet.
    line: Vec<u8>,
}

impl Reader {
    /// The next whole line, if there is one.
    pub(crate) fn next(&mut self) -> Option<Line> {
        loop {
            if self.open.is_none() {
                let older = former(&self.path);
                let path = if std::mem::take(&mut self.is_first) && older.exists() { older } else { self.path.clone() };
                self.open = Some(Open::new(&path)?);
            }
            let open = self.open.as_mut().expect("set above");
            if let Some(line) = open.next(&self.container) {
                return Some(line);
            }
            // The file may have been turned over, or belong to a container that is gone.
            match Open::new(&self.path) {
                Some(newer) if newer.file != open.file => self.open = Some(newer),
                _ => return None,
            }
        }
    }
}

impl Open {
    fn new(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let file = File::open(path).ok()?;
        let metadata = file.metadata().ok()?;
        Some(Self { reader: BufReader::new(file), file: (metadata.dev(), metadata.ino()), line: Vec::new() })
    }

    fn next(&mut self, container: &str) -> Option<Line> {
        /// A time, a line of at most its own bound, and the end.
        const BYTES_MAX: u64 = LINE_BYTES_MAX as u64 + 64;
        loop {
            let room = BYTES_MAX.saturating_sub(self.line.len() as u64);
            let read = self.reader.by_ref().take(room).read_until(b'\n', &mut self.line).ok()?;
            if self.line.last() != Some(&b'\n') && self.line.len() as u64 <= BYTES_MAX && read == 0 {
                return None;
            }
            if self.line.last() != Some(&b'\n') && (self.line.len() as u64) < BYTES_MAX {
                return None;
            }
            let line = std::mem::take(&mut self.line);
            let text = String::from_utf8_lossy(&line);
            // What is no line of ours was written by nobody of us.
            let Some((at, text)) = text.trim_end_matches('\n').split_once(' ') else { continue };
            let Ok(at) = at.parse() else { continue };
            return Some(Line { container: container.to_owned(), at, text: text.to_owned() });
        }
    }
}

/// A panic elsewhere is told there; what is kept here is whole all the same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
