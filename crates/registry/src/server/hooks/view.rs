//! What waits and what failed, from the files: also while no server runs.

use std::{io, path::Path};

use fs_err as fs;
use serde::Serialize;

use super::queue::{Delivery, Sync, ids_in, now_ms, read, write_whole};
use crate::server::{ServerError, control, directory::names_in};

/// Deliveries of one webhook.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HookState {
    /// The webhook's name.
    pub name: String,
    /// Those that wait, the oldest first.
    pub pending: Vec<Delivery>,
    /// Those that were given up, the oldest first.
    pub failed: Vec<Delivery>,
    /// The last one that was taken.
    pub last: Option<Delivery>,
}

/// The webhooks of the registry in a directory that were ever told anything.
///
/// # Errors
/// The directory cannot be read.
pub fn webhooks(directory: &Path) -> Result<Vec<HookState>, ServerError> {
    list(directory).map_err(ServerError::Storage)
}

pub(in super::super) fn list(directory: &Path) -> io::Result<Vec<HookState>> {
    let root = directory.join("webhooks");
    let mut states = Vec::new();
    for name in names_in(&root)? {
        let directory = root.join(&name);
        let last = read(&directory.join("last.json"))?;
        let (pending, failed) = (deliveries(&directory.join("pending"))?, deliveries(&directory.join("failed"))?);
        states.push(HookState { name, pending, failed, last });
    }
    Ok(states)
}

/// Sends failed deliveries again, one by its id or all of them, and does not wait any longer with those that wait. A server
/// that runs does so at once, another at its start. Gives how many had failed.
///
/// # Errors
/// The directory cannot be read or written; no delivery has this id.
pub fn redeliver(directory: &Path, id: Option<&str>) -> Result<usize, ServerError> {
    let again = || -> io::Result<usize> {
        let mut count = 0;
        let mut is_known = id.is_none();
        for state in list(directory)? {
            is_known |= state.pending.iter().any(|delivery| Some(delivery.id.as_str()) == id);
            for delivery in state.failed {
                if id.is_some_and(|id| id != delivery.id) {
                    continue;
                }
                let root = directory.join("webhooks").join(&state.name);
                let name = format!("{}.json", delivery.id);
                let anew = Delivery { since_ms: now_ms(), next_ms: now_ms(), ..delivery };
                write_whole(&root.join("pending").join(&name), &serde_json::to_vec(&anew)?, Sync::Now)?;
                fs::remove_file(root.join("failed").join(&name))?;
                (count, is_known) = (count + 1, true);
            }
        }
        if is_known { Ok(count) } else { Err(io::Error::new(io::ErrorKind::NotFound, "no delivery has this id")) }
    };
    let count = again().map_err(ServerError::Storage)?;
    control::look_at_webhooks(directory)?;
    Ok(count)
}

fn deliveries(directory: &Path) -> io::Result<Vec<Delivery>> {
    let mut found = Vec::new();
    for id in ids_in(directory)? {
        found.extend(read(&directory.join(format!("{id}.json")))?);
    }
    Ok(found)
}
