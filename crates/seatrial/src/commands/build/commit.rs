//! Time of the commit that a build's directory lies in: what the build makes newer gets it, as with `seatrial run`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::{BuildContext, BuildRequest};
use pipeline::Head;
use store::Store;

use crate::commands::init::environment;

/// Memo namespace: seconds since 1970 of commits, by id. An unchanged build starts no process.
const MEMO: &str = "commit-times";

/// What is known of the commit.
#[derive(Default)]
pub(super) struct CommitTime {
    pub(super) known: Option<SystemTime>,
    /// Why it is not known, where that is a surprise.
    pub(super) remark: Option<String>,
}

/// Looks for it unless the request has a time of its own, asked for or of what was fetched.
pub(super) fn time(request: &BuildRequest, store: &Store) -> CommitTime {
    let BuildContext::Directory(directory) = &request.context else { return CommitTime::default() };
    if request.epoch.is_some() {
        return CommitTime::default();
    }
    let Some(head) = Head::find(directory) else { return CommitTime::default() };
    if let Some(known) = head.id().and_then(|id| remembered(store, id)) {
        return CommitTime { known: Some(known), remark: None };
    }
    match head.time(&environment()) {
        Ok(known) => {
            if let (Some(id), Some(time)) = (head.id(), known) {
                let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                // What cannot be remembered is asked again.
                let _ = store.memo_put(MEMO, id, seconds.to_string().as_bytes());
            }
            CommitTime { known, remark: None }
        }
        Err(why) => CommitTime {
            known: None,
            remark: Some(format!(
                "{why}; the time of the newest file stands for that of the commit (or set SOURCE_DATE_EPOCH)"
            )),
        },
    }
}

fn remembered(store: &Store, id: &str) -> Option<SystemTime> {
    let seconds = String::from_utf8(store.memo_get(MEMO, id)?).ok()?.parse().ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}
