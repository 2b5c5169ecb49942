//! Codes of findings in Compose files, and those that they share with the pipeline file.

/// The file is not YAML.
pub const NOT_YAML: &str = "ST300";
/// The file is too large.
pub const TOO_LARGE: &str = "ST301";
/// The key does not exist.
pub const UNKNOWN_KEY: &str = "ST302";
/// The key is not supported yet.
pub const NOT_YET: &str = "ST303";
/// The key is given twice.
pub const DUPLICATE_KEY: &str = "ST304";
/// The value has another type.
pub const WRONG_TYPE: &str = "ST305";
/// The value is not allowed.
pub const INVALID_VALUE: &str = "ST306";
/// A key is missing.
pub const MISSING_KEY: &str = "ST307";
