//! What is known of an image, in a form that can be shown to anyone: in-toto statements about its digest, signed, kept
//! beside it as referrers.
//!
//! The crate makes and checks values. It runs nothing and knows neither pipelines nor deployments; who publishes and who
//! verifies hands it the image's layers, the verdicts and the keys.

pub mod sbom;
