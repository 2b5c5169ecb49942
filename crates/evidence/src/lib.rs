//! What is known of an image, in a form that can be shown to anyone: in-toto statements about its digest, signed, kept
//! beside it as referrers.
//!
//! The crate makes and checks values. It runs nothing and knows neither pipelines nor deployments; who publishes and who
//! verifies hands it the image's layers, the verdicts and the keys.
//!
//! A [`Statement`] is signed by a [`Signer`] into a [`Bundle`], which becomes an [`Attachment`] of the image. On the other
//! side it is [`Found`], and counts where [`Found::check`] says so; a [`Policy`] says what has to be there.

mod attachment;
mod bundle;
mod collect;
mod envelope;
mod found;
mod in_index;
mod key;
mod policy;
pub mod promotion;
mod repeat;
pub mod sbom;
mod statement;
mod trust;

pub use attachment::Attachment;
pub use bundle::{BUNDLE_TYPE, Bundle};
pub use collect::{Collected, collect, collect_for, collect_kinds};
pub use envelope::{Envelope, InvalidEnvelope, STATEMENT_PAYLOAD, pre_authentication};
pub use found::{Flaw, Form, Found, Trusted, Unreadable};
pub use in_index::{images_of, in_index};
pub use key::{
    InvalidPublicKey, KeyFileError, KeyKind, KeySource, KeySourceError, NoRandomness, PROGRAM_TIME, Password,
    PublicKey, Secrets, Signer, SigningFailed, SigningFailure, SigningKey,
};
pub use policy::{Check, Exception, NamedKey, Policy, PolicyError, PolicyFile, Report, Requirement, Sought, read_text};
pub use repeat::{REPEAT_AFTER, TIMED, repeated};
pub use statement::{
    BUILD_TYPE, BUILDER_ID, GATES_LEVEL, GateResult, Invocation, Parameters, Provenance, Resource, STATEMENT_TYPE,
    Statement, Summary, TestResult, git_uri, predicate, timestamp,
};
pub use trust::{NotAdmitted, Trust, TrustRule};
