//! Users and their passwords: a file as `htpasswd -B` writes it, read again when it changes.

use std::{
    collections::HashMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use fs_err as fs;
use ring::{digest, hmac, rand::SystemRandom};
use tokio::{
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
};

use crate::server::{Notices, watched::Stamp};

/// Some ten thousand users.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// `htpasswd -C` goes as far. One step more costs twice the time, and this one takes ten seconds.
const COST_MAX: u32 = 17;
/// Longer passwords are nobody's; bcrypt itself looks at the first 72 bytes.
const PASSWORD_BYTES_MAX: usize = 4096;
/// So many passwords are worked on at a time: each takes a processor for a tenth of a second or so.
const AT_ONCE_MAX: usize = 2;
/// A password that was right is believed for so long without asking bcrypt again.
const VERIFIED_LIFE: Duration = Duration::from_secs(300);

/// The file of users cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// It cannot be read; the cause has the path.
    #[error("users cannot be read")]
    Io(#[from] io::Error),
    /// A line of it is not what `htpasswd -B` writes.
    #[error("{}:{line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// A user with the state of their password: whoever changes the password makes all that was given for the old one void.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: Arc<str>,
    /// Tells one stored password from another, and nothing about it.
    pub(super) mark: String,
}

/// The users, as the file has them now.
pub(super) struct Users {
    path: PathBuf,
    state: RwLock<State>,
    verified: Mutex<HashMap<Arc<str>, Verified>>,
    /// What is remembered of right passwords is worth nothing to whoever reads this memory later.
    key: hmac::Key,
    turns: Arc<Semaphore>,
    notices: Notices,
}

struct State {
    stamp: Option<Stamp>,
    table: Arc<Table>,
}

#[derive(Default)]
struct Table {
    hashes: HashMap<Arc<str>, String>,
    /// The cost most in use, spent on users that do not exist: time must not tell who does.
    cost: u32,
}

/// A password that was right.
struct Verified {
    tag: hmac::Tag,
    until: Instant,
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Users {
    /// Reads the file.
    pub(super) fn open(path: &Path, notices: Notices) -> Result<Self, UsersError> {
        let stamp = Stamp::of(path)?;
        let table = Arc::new(read(path)?);
        Ok(Self {
            path: path.to_owned(),
            state: RwLock::new(State { stamp: Some(stamp), table }),
            verified: Mutex::default(),
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
                .expect("the kernel gives random bytes at any time"),
            turns: Arc::new(Semaphore::new(AT_ONCE_MAX)),
            notices,
        })
    }

    /// A user as they are now.
    pub(super) fn get(&self, name: &str) -> Option<User> {
        let table = self.current();
        let (name, hash) = table.hashes.get_key_value(name)?;
        Some(User { name: Arc::clone(name), mark: mark(hash) })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.current().hashes.contains_key(name)
    }

    /// The user if the password is theirs. `begin_try` is asked when the slow work is about to begin; its refusal is passed
    /// on, and what it gives is called when the password was right.
    pub(super) async fn verify<F: FnOnce(), E>(
        &self,
        name: &str,
        password: &str,
        begin_try: impl FnOnce() -> Result<F, E>,
    ) -> Result<Result<Option<User>, E>, JoinError> {
        let table = self.current();
        let known = table.hashes.get_key_value(name);
        if password.len() > PASSWORD_BYTES_MAX || password.contains('\0') {
            return Ok(Ok(None));
        }
        if let Some((name, hash)) = known
            && self.was_verified(name, hash, password)
        {
            return Ok(Ok(Some(User { name: Arc::clone(name), mark: mark(hash) })));
        }
        let turn = Arc::clone(&self.turns).acquire_owned().await.expect("the turns are never closed");
        // While it waited, the same password may have been found right, or too many wrong ones have come.
        if let Some((name, hash)) = known
            && self.was_verified(name, hash, password)
        {
            return Ok(Ok(Some(User { name: Arc::clone(name), mark: mark(hash) })));
        }
        let succeed = match begin_try() {
            Ok(succeed) => succeed,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let hash = known.map_or_else(|| nobodys_hash(table.cost), |(_, hash)| hash.clone());
        let text = password.to_owned();
        // The hash was looked at when it was read: an error is as good as a no.
        // A client that goes away does not end this work, so the turn is over when the work is. Kept beyond it, the next
        // one finds what was found.
        let work = spawn_blocking(move || (bcrypt::verify(text, &hash).unwrap_or(false), turn));
        let (is_right, _turn) = work.await?;
        let Some((name, hash)) = known.filter(|_| is_right) else { return Ok(Ok(None)) };
        succeed();
        let verified = Verified { tag: self.tag(hash, password), until: Instant::now() + VERIFIED_LIFE };
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(name), verified);
        Ok(Ok(Some(User { name: Arc::clone(name), mark: mark(hash) })))
    }

    fn was_verified(&self, name: &str, hash: &str, password: &str) -> bool {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = verified.get(name).filter(|entry| Instant::now() < entry.until) else { return false };
        // In constant time.
        hmac::verify(&self.key, &message(hash, password), entry.tag.as_ref()).is_ok()
    }

    fn tag(&self, hash: &str, password: &str) -> hmac::Tag {
        hmac::sign(&self.key, &message(hash, password))
    }

    /// The users, read again if the file is another one than last time. One that cannot be read leaves them as they were.
    fn current(&self) -> Arc<Table> {
        let stamp = Stamp::of(&self.path).ok();
        {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            if state.stamp == stamp {
                return Arc::clone(&state.table);
            }
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.stamp != stamp {
            state.stamp = stamp;
            match read(&self.path) {
                Ok(table) => {
                    // Who is gone is forgotten.
                    let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
                    verified.retain(|name, _| table.hashes.contains_key(name));
                    state.table = Arc::new(table);
                }
                Err(error) => self.notices.say(&format!("users stay as they were: {}", describe(&error))),
            }
        }
        Arc::clone(&state.table)
    }
}

fn describe(error: &UsersError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

/// Both parts cannot run into each other: no hash contains a zero.
fn message(hash: &str, password: &str) -> Vec<u8> {
    [hash.as_bytes(), b"\0", password.as_bytes()].concat()
}

/// A hash of a hash with a salt of its own: it cannot be guessed backwards, not even to the password's hash.
fn mark(hash: &str) -> String {
    hex(&digest::digest(&digest::SHA256, hash.as_bytes()).as_ref()[..12])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// No password has this hash, and finding that out takes as long as for any other.
fn nobodys_hash(cost: u32) -> String {
    format!("$2b${cost:02}$......................{}", ".".repeat(31))
}

fn read(path: &Path) -> Result<Table, UsersError> {
    let length = fs::metadata(path)?.len();
    if length > FILE_BYTES_MAX {
        let message = format!("{} has more than {FILE_BYTES_MAX} bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message).into());
    }
    let text = fs::read_to_string(path)?;
    parse(&text).map_err(|(line, reason)| UsersError::Line { path: path.to_owned(), line, reason })
}

fn parse(text: &str) -> Result<Table, (usize, String)> {
    let mut table = Table::default();
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, hash) = line.split_once(':').ok_or((number, "there is no `NAME:HASH`".to_owned()))?;
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err((number, "the name of the user is not legal".into()));
        }
        let cost = cost(hash).map_err(|reason| (number, format!("user `{name}`: {reason}")))?;
        if table.hashes.insert(name.into(), hash.to_owned()).is_some() {
            return Err((number, format!("user `{name}` is there twice")));
        }
        table.cost = table.cost.max(cost);
    }
    if table.hashes.is_empty() {
        // Nobody can log in, but trying takes time as elsewhere.
        table.cost = bcrypt::DEFAULT_COST;
    }
    Ok(table)
}

/// The cost of a bcrypt hash; for another one what it is.
fn cost(hash: &str) -> Result<u32, String> {
    let kind = match hash {
        _ if ["$2y$", "$2b$", "$2a$"].iter().any(|start| hash.starts_with(start)) => {
            let parsed: bcrypt::HashParts = hash.parse().map_err(|_| "the bcrypt hash is damaged".to_owned())?;
            return match parsed.get_cost() {
                cost @ 4..=COST_MAX => Ok(cost),
                cost => Err(format!("bcrypt with cost {cost} is not taken: 4 to {COST_MAX} are")),
            };
        }
        _ if hash.starts_with("$apr1$") => "an Apache MD5 hash",
        _ if hash.starts_with("{SHA}") => "a SHA-1 hash",
        _ if hash.starts_with("$5$") => "a SHA-256 crypt hash",
        _ if hash.starts_with("$6$") => "a SHA-512 crypt hash",
        _ => "no bcrypt hash",
    };
    Err(format!("this is {kind}; only bcrypt is taken, as `htpasswd -B` makes it"))
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    /// `secret`, as `htpasswd -B -C 4` writes it.
    const HASH: &str = "$2b$04$nVV95ls4w7jkoDwOvtiNseZhPgIbXWD0mI2H/jgcmrkMUqdSfxN7e";

    fn free() -> Result<fn(), Infallible> {
        Ok(|| {})
    }

    #[test]
    fn only_bcrypt_is_taken() {
        let table = parse(&format!("# people\n\nann:{HASH}\r\nbob:{}\n", HASH.replace("2b", "2y"))).ok().unwrap();
        assert_eq!((table.hashes.len(), table.cost), (2, 4));
        for (line, expected) in [
            ("ann", (1, "there is no `NAME:HASH`")),
            (":x", (1, "the name of the user is not legal")),
            ("ann:secret", (1, "user `ann`: this is no bcrypt hash; only bcrypt is taken, as `htpasswd -B` makes it")),
            (
                "\nann:$apr1$a$b",
                (2, "user `ann`: this is an Apache MD5 hash; only bcrypt is taken, as `htpasswd -B` makes it"),
            ),
            (
                "ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
                (1, "user `ann`: this is a SHA-1 hash; only bcrypt is taken, as `htpasswd -B` makes it"),
            ),
            ("ann:$2b$04$short", (1, "user `ann`: the bcrypt hash is damaged")),
            (
                &format!("ann:{}", HASH.replace("04", "31")),
                (1, "user `ann`: bcrypt with cost 31 is not taken: 4 to 17 are"),
            ),
            (&format!("ann:{HASH}\nann:{HASH}"), (2, "user `ann` is there twice")),
        ] {
            let (number, reason) = parse(line).err().unwrap();
            assert_eq!((number, reason.as_str()), expected, "{line}");
        }
    }

    #[test]
    fn a_hash_that_is_nobodys_is_worked_on() {
        assert_eq!(cost(&nobodys_hash(4)), Ok(4));
        assert!(!bcrypt::verify("", &nobodys_hash(4)).unwrap());
    }

    #[tokio::test]
    async fn a_hundred_requests_at_once_cost_as_many_passwords_as_there_are_turns() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        fs::write(&path, format!("ann:{HASH}\n")).unwrap();
        let (users, tries) = (Users::open(&path, Notices::default()).unwrap(), AtomicUsize::new(0));
        let count = || {
            tries.fetch_add(1, Ordering::Relaxed);
            free()
        };
        let work = (0..100).map(|_| users.verify("ann", "secret", count));
        let found = futures::future::join_all(work).await;
        assert!(found.into_iter().all(|user| user.unwrap().unwrap().is_some()));
        assert!((1..=AT_ONCE_MAX).contains(&tries.into_inner()));
    }

    #[tokio::test]
    async fn passwords_are_checked_once_and_again_when_they_change() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        fs::write(&path, format!("ann:{HASH}\n")).unwrap();
        let users = Users::open(&path, Notices::default()).unwrap();
        let check = async |name: &str, password: &str| users.verify(name, password, free).await.unwrap().unwrap();
        assert_eq!(check("ann", "wrong").await, None);
        assert_eq!(check("eve", "secret").await, None);
        let ann = check("ann", "secret").await.unwrap();
        // What was right needs no work, so nobody is asked whether it may be done.
        let refuse = || Err::<fn(), _>("work");
        assert_eq!(users.verify("ann", "secret", refuse).await.unwrap(), Ok(Some(ann.clone())));
        assert_eq!(users.verify("ann", "secret2", refuse).await.unwrap(), Err("work"));

        let hash = bcrypt::hash("other", 4).unwrap();
        fs::write(&path, format!("ann:{hash}\n")).unwrap();
        assert_eq!(check("ann", "secret").await, None);
        let changed = check("ann", "other").await.unwrap();
        assert_ne!(changed.mark, ann.mark);
        // A file that is damaged takes nobody away.
        fs::write(&path, "ann:x\n").unwrap();
        assert_eq!(users.get("ann"), Some(changed));
        fs::write(&path, "").unwrap();
        assert_eq!(users.get("ann"), None);
    }
}
