//! The registry, from both ends: a client of the distribution specification and a small embedded server of it.
//!
//! Knows nothing of builds, gates or containers. Start at [`Client`] (pull, push, tags, logins) or at [`Server`].
//! Whatever passes through is checked by digest and size; nothing of a blob's size is ever held in memory.

mod client;
mod credentials;
mod error;
mod forward;
mod hosts;
mod layout;
mod order;
mod server;
mod spool;

pub use client::{
    BlobSource, BlobTarget, Client, ClientOptions, CommitError, ContentCheck, Copied, CopyOptions, CopyPlace,
    NoProgress, Progress, ResolvedManifest, TagCondition, TagsWritten, UploadOutcome, VERSION_ANNOTATION, WebAnswer,
    WebRequest, WrongPart,
};
pub use credentials::{Credential, CredentialError, Credentials, LoginPlace};
pub use error::{ErrorKind, RegistryError};
pub use forward::{ImageVersion, Judgement, TagState, higher_tag, is_moving, judge_tag};
pub use hosts::{HostFiles, HostFilesError};
pub use layout::{Layout, LayoutError, LayoutErrorKind};
pub use order::{Ordered, of_tag};
pub use server::{
    AccessOptions, AccessRule, Action, AuditOptions, Backend, ChallengeKind, CollectOptions, CollectReport, Corrupt,
    DEFAULT_ADDRESS, Delivery, GitHistory, HookAnswer, HookEvent, HookSecret, HookState, HookUrl, InvalidHookUrl,
    InvalidPattern, InvalidRate, InvalidUpstream, Limits, Notices, Pattern, Rate, ReadAt, Record, Removed,
    RepositoryRules, Retention, Rules, ScrubReport, Server, ServerError, ServerOptions, Stat, Taking, TlsError,
    TlsFiles, Upstream, UpstreamAddress, UsersError, Webhook, collect, redeliver, scrub, webhooks,
};
