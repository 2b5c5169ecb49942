//! The audit log: a line of JSON for each thing that was done or refused. It never holds passwords, tokens or names that
//! nobody has, because people type passwords into the field for the name.

use std::{
    fmt,
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use fs_err as fs;
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use tokio::sync::{mpsc, oneshot};

use crate::server::Notices;

/// Lines that wait to be written. When the disk is slower than the requests, the requests wait.
const WAITING_MAX: usize = 4096;
/// Lines written between two looks at the file.
const BATCH_MAX: usize = 256;

/// Where the log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditOptions {
    /// The file; lines are appended. When it is moved away a new one is begun.
    pub path: PathBuf,
    /// Beyond this size, in bytes, it is moved to `<path>.1`, and that one to `<path>.2` and so on; `None`: never.
    pub bytes_max: Option<u64>,
    /// So many of those are kept.
    pub keep: usize,
}

/// What was done, or what was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Deed {
    /// A token was asked for, or anything without a right to a repository.
    Login,
    Catalog,
    /// Whether something is there.
    Look,
    Pull,
    List,
    Push,
    Mount,
    Delete,
}

/// One line.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Entry {
    #[serde(serialize_with = "rfc3339")]
    pub(super) time: Timestamp,
    /// `null` without a login, and with one that failed for a name that nobody has.
    pub(super) user: Option<Arc<str>>,
    pub(super) address: IpAddr,
    pub(super) action: Deed,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) repository: Option<String>,
    /// Tag, or digest, as it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<String>,
    pub(super) status: u16,
    /// `ok`, or the error's code (distribution-spec, "Error Codes").
    pub(super) result: &'static str,
}

fn rfc3339<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

/// The running log.
pub(super) struct Audit {
    lines: mpsc::Sender<Message>,
}

enum Message {
    Line(Box<Entry>),
    /// Begins the file anew by its name.
    Reopen,
    /// Answered when all lines before it are written.
    Flush(oneshot::Sender<()>),
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Audit")
    }
}

impl Audit {
    /// Opens the file. Its lines are written by a thread of their own, which ends with the log.
    pub(super) fn open(options: AuditOptions, notices: Notices) -> io::Result<Self> {
        let writer = Writer::open(options)?;
        let (lines, waiting) = mpsc::channel(WAITING_MAX);
        std::thread::Builder::new().name("audit".into()).spawn(move || write_all(writer, waiting, &notices))?;
        Ok(Self { lines })
    }

    pub(super) async fn note(&self, entry: Entry) {
        self.send(Message::Line(Box::new(entry))).await;
    }

    pub(super) async fn reopen(&self) {
        self.send(Message::Reopen).await;
    }

    /// Returns when all is written.
    pub(super) async fn flush(&self) {
        let (done, is_done) = oneshot::channel();
        self.send(Message::Flush(done)).await;
        let _ = is_done.await;
    }

    async fn send(&self, message: Message) {
        // The thread lives as long as this sender.
        let _ = self.lines.send(message).await;
    }
}

fn write_all(mut writer: Writer, mut waiting: mpsc::Receiver<Message>, notices: &Notices) {
    let mut messages = Vec::with_capacity(BATCH_MAX);
    let mut lost: u64 = 0;
    while waiting.blocking_recv_many(&mut messages, BATCH_MAX) > 0 {
        let (mut bytes, mut count, mut asked) = (Vec::new(), 0, Vec::new());
        for message in messages.drain(..) {
            match message {
                Message::Line(entry) => {
                    serde_json::to_writer(&mut bytes, &entry).expect("an entry is plain data");
                    bytes.push(b'\n');
                    count += 1;
                }
                Message::Reopen => writer.file = None,
                Message::Flush(done) => asked.push(done),
            }
        }
        match writer.write(&bytes) {
            Ok(()) if lost > 0 => {
                notices.say(&format!("the audit log is written again; {lost} lines are lost"));
                lost = 0;
            }
            Ok(()) => {}
            Err(error) => {
                // Once, not with each line.
                if lost == 0 {
                    notices.say(&format!("the audit log cannot be written: {error}"));
                }
                lost += count;
            }
        }
        for done in asked {
            let _ = done.send(());
        }
    }
}

struct Writer {
    options: AuditOptions,
    file: Option<fs::File>,
}

impl Writer {
    fn open(options: AuditOptions) -> io::Result<Self> {
        let file = Some(open(&options.path)?);
        Ok(Self { options, file })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.as_ref().is_some_and(|file| !is_same(file, &self.options.path)) {
            self.file = None;
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(open(&self.options.path)?),
        };
        file.write_all(bytes)?;
        let size = file.metadata()?.len();
        if self.options.bytes_max.is_some_and(|limit| size >= limit) {
            self.rotate()?;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        let numbered = |number: usize| {
            let mut name = self.options.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        let gone = |outcome: io::Result<()>| match outcome {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        if self.options.keep == 0 {
            return gone(fs::remove_file(&self.options.path));
        }
        for number in (1..self.options.keep).rev() {
            gone(fs::rename(numbered(number), numbered(number + 1)))?;
        }
        fs::rename(&self.options.path, numbered(1))
    }
}

/// Others may not read who did what.
fn open(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.create(true).append(true).options_mut().mode(0o600);
    options.open(path)
}

/// Whether a name still leads to an open file.
fn is_same(file: &fs::File, path: &Path) -> bool {
    let Ok((open, named)) = file.metadata().and_then(|open| Ok((open, fs::metadata(path)?))) else { return false };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(status: u16) -> Entry {
        Entry {
            time: Timestamp::UNIX_EPOCH,
            user: Some("ann".into()),
            address: [127, 0, 0, 1].into(),
            action: Deed::Push,
            repository: Some("a/b".into()),
            reference: Some("1\n".into()),
            digest: None,
            status,
            result: "ok",
        }
    }

    fn lines(path: &Path) -> usize {
        fs::read_to_string(path).unwrap_or_default().lines().count()
    }

    #[tokio::test]
    async fn lines_are_appended_and_files_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let moved = directory.path().join("moved");
        let options = AuditOptions { path: path.clone(), bytes_max: None, keep: 0 };
        let audit = Audit::open(options.clone(), Notices::default()).unwrap();
        audit.note(entry(201)).await;
        audit.flush().await;
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            concat!(
                r#"{"time":"1970-01-01T00:00:00Z","user":"ann","address":"127.0.0.1","action":"push","#,
                r#""repository":"a/b","reference":"1\n","status":201,"result":"ok"}"#,
                "\n"
            )
        );
        fs::rename(&path, &moved).unwrap();
        audit.note(entry(201)).await;
        audit.reopen().await;
        audit.flush().await;
        assert_eq!((lines(&moved), lines(&path)), (1, 1));
        drop(audit);
        let audit = Audit::open(options, Notices::default()).unwrap();
        audit.note(entry(201)).await;
        audit.flush().await;
        assert_eq!(lines(&path), 2);
    }

    #[tokio::test]
    async fn files_rotate_by_size() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let options = AuditOptions { path: path.clone(), bytes_max: Some(200), keep: 2 };
        let audit = Audit::open(options, Notices::default()).unwrap();
        for _ in 0..7 {
            audit.note(entry(201)).await;
            audit.flush().await;
        }
        let named = |number: usize| directory.path().join(format!("audit.log.{number}"));
        assert_eq!((lines(&path), lines(&named(1)), lines(&named(2)), named(3).exists()), (1, 2, 2, false));
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_written_is_told_of_once() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("logs");
        fs::create_dir(&below).unwrap();
        let options = AuditOptions { path: below.join("audit.log"), bytes_max: None, keep: 0 };
        let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
        let ear = Arc::clone(&heard);
        let notices = Notices::to(move |text| ear.lock().unwrap().push(text.to_owned()));
        let audit = Audit::open(options, notices).unwrap();
        fs::remove_dir_all(&below).unwrap();
        for _ in 0..3 {
            audit.note(entry(201)).await;
            audit.flush().await;
        }
        fs::create_dir(&below).unwrap();
        audit.note(entry(201)).await;
        audit.flush().await;
        let heard = heard.lock().unwrap();
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert!(heard[0].contains("cannot be written"), "{heard:?}");
        assert!(heard[1].contains("3 lines are lost"), "{heard:?}");
    }
}
