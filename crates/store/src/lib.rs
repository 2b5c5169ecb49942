//! Content store: blobs by digest, snapshots, cache records, image names, scopes of running work.
//!
//! Knows nothing of Dockerfiles, pipelines or registries. Start at [`Store::open`]. Everything is a file below one
//! directory that many processes use at once:
//!
//! | Below the root | What |
//! |---|---|
//! | `blobs/sha256/<hex>` | layers, configs, manifests; named by their digest |
//! | `snapshots/<id>/{fs,meta.json,note}` | one layer's directory each (or what it has over another's); `tmp.<scope>.<n>` while in the making |
//! | `chains/<hex>` | which snapshot an image's chain of layers is |
//! | `layers/<diff id>.json` | which blobs hold a layer |
//! | `images/<id>.json`, `manifests/<hex>.json`, `names/…` | images, by config digest, manifest digest, name |
//! | `cache/…`, `memo/…` | results of steps, remembered values |
//! | `runs/<n>` | records of runs |
//! | `kept/<snapshot>` | roots of failed steps, with the time until which they stay |
//! | `scopes/<id>` | work in progress, with a lock that the kernel frees at death |
//! | `synced/<boot>`, `dirty`, `boot` | what is safe against power loss |
//! | `trash` | what is being removed, and corrupt blobs |

mod archive;
mod arrivals;
mod blob;
mod cache;
mod compare;
mod copy;
mod diff;
mod durable;
mod error;
mod export;
mod files;
mod flush;
mod image;
mod kept;
mod layer;
mod limit;
mod load;
mod look;
mod names;
mod options;
mod pack;
mod partial;
mod platforms;
mod prune;
mod run;
mod save;
mod scope;
mod seal;
mod snapshot;
mod store;
mod tree;
mod unpack;

pub use arrivals::Arrivals;
pub use blob::BlobWriter;
pub use cache::{CacheRecord, MemoSubject};
pub use compare::{FileDifference, FileFacts};
pub use copy::{copy_file, copy_tree};
pub use error::StoreError;
pub use export::ExportReport;
pub use files::{ImageFiles, LayerFile};
pub use image::{Image, ImportError, SealedManifest};
pub use layer::{ApplyError, ApplyErrorKind};
pub use load::LoadSource;
pub use names::NamedImage;
pub use options::{LayerOptions, ManifestOptions, Stop};
pub use partial::PartialBlob;
pub use platforms::{Beside, KeptBeside, SealedIndex};
pub use prune::{PruneOptions, PruneReport, Usage};
pub use run::RunDir;
pub use save::{ArchiveFormat, SaveOptions};
pub use scope::{JournalEntry, Scope};
pub use seal::Compression;
pub use snapshot::{ActiveSnapshot, InvalidSnapshotId, Skipped, SnapshotId, SnapshotMeta};
pub use store::{Store, StoreOptions};
pub use unpack::{EntryError, EntryErrorKind};
