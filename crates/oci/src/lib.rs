//! Values of the OCI image specification: digests, descriptors, manifests, configs, references, platforms.
//!
//! Knows neither files nor the network. What is written by [`to_json`] is the same bytes for the same value,
//! because a digest names bytes.

mod config;
mod digest;
mod instruction;
mod manifest;
pub mod media_type;
mod platform;
mod reference;
pub mod signal;

pub use config::{ContainerConfig, Empty, Healthcheck, History, ImageConfig, RootFs};
pub use digest::{ChainId, DiffId, Digest, Hasher, InvalidDigest};
pub use instruction::readable_instruction;
pub use manifest::{Descriptor, Index, Manifest, ManifestOrIndex, UnknownDocument};
pub use platform::{InvalidPlatform, Platform};
pub use reference::{InvalidReference, Reference, is_valid_tag};

/// Compact JSON in field order: the canonical bytes of a manifest, index or config of ours.
pub fn to_json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("image-spec values have string keys and always serialise")
}
