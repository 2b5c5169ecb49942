//! Roots of failed steps, kept for inspection: `kept/<snapshot>` says until when, and how large they are. Every command
//! drops what is over, so that nobody has to clean up after failures.

use std::time::SystemTime;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::{SnapshotId, Store, StoreError, seal::seconds, store::names_in, tree};

/// Older ones go: nobody looks into the failures of so many runs.
const ROOTS_MAX: usize = 20;
/// What all of them may take. The latest stays, whatever its size.
const BYTES_MAX: u64 = 10_000_000_000;

/// What is noted of a kept root.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Note {
    /// Seconds since 1970.
    kept_s: i64,
    until_s: i64,
    bytes: u64,
}

impl Store {
    /// Notes that a snapshot is kept until then. It is leased by whoever keeps it.
    pub(crate) fn note_kept(&self, id: &SnapshotId, until: SystemTime) -> Result<(), StoreError> {
        let bytes = tree::size_of(&self.snapshot_dir(id));
        let note = Note { kept_s: seconds(SystemTime::now()), until_s: seconds(until), bytes };
        fs::create_dir_all(self.path("kept"))?;
        self.put_record(&self.path("kept").join(id.as_str()), &note)?;
        self.drop_expired()
    }

    /// Whether a root that was kept for inspection is still there, and its time is not over.
    pub fn is_kept(&self, id: &SnapshotId) -> bool {
        self.get_record::<Note>(&self.path("kept").join(id.as_str())).is_some_and(|note| !is_over(&note))
            && self.snapshot_dir(id).is_dir()
    }

    /// Removes kept roots whose time is over, and the oldest of too many. Those in use stay.
    pub fn drop_expired(&self) -> Result<(), StoreError> {
        let directory = self.path("kept");
        // Nothing was ever kept, most of the time.
        let Ok(mut entries) = std::fs::read_dir(&directory) else { return Ok(()) };
        if entries.next().is_none() {
            return Ok(());
        }
        let mut notes = Vec::new();
        for name in names_in(&directory)? {
            let Ok(id) = SnapshotId::try_from(name.clone()) else { continue };
            let note = self.get_record::<Note>(&directory.join(&name));
            match note.filter(|_| self.snapshot_dir(&id).is_dir()) {
                Some(note) => notes.push((id, note)),
                // Torn, or removed by prune.
                None => fs::remove_file(directory.join(name))?,
            }
        }
        notes.sort_by_key(|(_, note)| std::cmp::Reverse(note.kept_s));
        let mut bytes = 0;
        let mut over = Vec::new();
        for (place, (id, note)) in notes.into_iter().enumerate() {
            bytes += note.bytes;
            if is_over(&note) || place >= ROOTS_MAX || (place > 0 && bytes > BYTES_MAX) {
                over.push(id.as_str().to_owned());
            }
        }
        if over.is_empty() {
            return Ok(());
        }
        for moved in self.move_to_trash(&self.path("snapshots"), &over, None)? {
            tree::remove(&moved)?;
        }
        // The note of one that is in use stays, so that it is looked at again.
        for name in over {
            if SnapshotId::try_from(name.clone()).is_ok_and(|id| !self.snapshot_dir(&id).exists()) {
                fs::remove_file(directory.join(name))?;
            }
        }
        Ok(())
    }
}

fn is_over(note: &Note) -> bool {
    note.until_s <= seconds(SystemTime::now())
}
