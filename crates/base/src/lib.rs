//! Base images where no registry can be reached: [`host`] takes this machine's own shell and core tools,
//! [`debian`] lets mmdebstrap install a suite from a Debian mirror. [`toolbox`] lends a shell to images that have none.
//!
//! Knows nothing of Dockerfiles, registries or pipelines. Both leave an image in the store and tag it.
//! What `host` copies is this machine's, so its image carries the label [`HOST_LABEL`], by which `publish` refuses it.

mod debian;
mod elf;
mod host;
mod libraries;
mod plan;
mod sources;
mod toolbox;
mod write;

pub use debian::{DebianBase, DebianError, DebianErrorKind, DebianOptions, Variant, debian};
pub use elf::{Elf, ElfError};
pub use host::{HOST_REFERENCE, HostBase, HostError, HostErrorKind, HostOptions, host};
pub use plan::{Entry, HostPlan, PlanError, Skipped};
pub use toolbox::{TOOLBOX, Toolbox, ToolboxError, toolbox};

/// Label of an image that holds this machine's own files; its value is `host`.
/// Inherited by every image built on it, which is how `publish` knows what to refuse.
pub const HOST_LABEL: &str = "io.seatrial.base";

/// The search path that docker's own base images set.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whole seconds as RFC 3339, as an image config wants its time of creation.
fn rfc3339(time: std::time::SystemTime) -> String {
    let seconds = time.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seconds = i64::try_from(seconds).unwrap_or_default();
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}
