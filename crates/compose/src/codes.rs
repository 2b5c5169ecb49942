//! Codes of findings in Compose files and in `services:`, for `seatrial explain CODE`; and those that Compose files share
//! with the pipeline file, whose texts are there.

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
/// The path does not exist.
pub const NO_SUCH_PATH: &str = "ST310";
/// The path leaves the repository.
pub const LEAVES_REPOSITORY: &str = "ST311";
/// The template is not valid.
pub const BAD_TEMPLATE: &str = "ST312";
/// The template has no value.
pub const ABSENT_VALUE: &str = "ST313";
pub(crate) const NO_EFFECT: &str = "ST340";
pub(crate) const NOT_MERGED: &str = "ST341";
pub(crate) const UNKNOWN_SERVICE: &str = "ST342";
pub(crate) const CYCLE: &str = "ST343";
pub(crate) const UNKNOWN_RESOURCE: &str = "ST344";
pub(crate) const CONTRADICTION: &str = "ST345";
pub(crate) const NO_IMAGE: &str = "ST346";
pub(crate) const TWO_DEFINITIONS: &str = "ST347";
pub(crate) const CUT_COMMAND: &str = "ST348";

/// Code, title, explanation.
pub const ALL: &[(&str, &str, &str)] = &[
    (
        NO_EFFECT,
        "the key has no effect",
        "Compose knows the key, and Seatrial does not act on it. It is named rather than ignored in silence, so that nobody relies \
         on it. Keys that begin with `x-` are never looked at.",
    ),
    (
        NOT_MERGED,
        "the values cannot be merged",
        "Two files, or a service and the one that it extends, give a key in different forms: one a list, the other a map. Write \
         both in the same form, or `!override` before the later value, which then stands alone.",
    ),
    (
        UNKNOWN_SERVICE,
        "the service does not exist",
        "`depends_on`, `links`, `extends`, `volumes_from` and `network_mode: service:…` name services of the same project. One that \
         belongs to a profile that is not active does not count; `required: false` allows a dependency to be absent.",
    ),
    (
        CYCLE,
        "services or files refer to themselves",
        "A service waits for itself through its dependencies, extends itself, or a file includes itself, perhaps through others. \
         None of them could ever come first.",
    ),
    (
        UNKNOWN_RESOURCE,
        "the network, volume, config or secret is not defined",
        "What a service uses by name is defined at the top level of the files: `networks`, `volumes`, `configs`, `secrets`. A volume \
         that is a path of the host begins with `/`, `.` or `~`.",
    ),
    (
        CONTRADICTION,
        "the keys contradict each other",
        "Two keys say the same thing differently, such as `mem_limit` and `deploy.resources.limits.memory`, or exclude each other, \
         such as `network_mode` and `networks`. Remove one of them.",
    ),
    (
        NO_IMAGE,
        "the service has no image",
        "A service is started from an image: name one with `image`, or build it with `build`.",
    ),
    (
        TWO_DEFINITIONS,
        "two files define the same thing differently",
        "An included file may not change what the including one defines (compose-spec, \"Include\"). Rename one of them, or list both \
         files as one entry of `include`, which merges them.",
    ),
    (
        CUT_COMMAND,
        "the command ends before its text does",
        "A command text is split into program and arguments without a shell, and ends at `;`, `&`, `|`, `<` or `>`, as with docker \
         compose. Write `sh -c \"…\"` or a list where a shell is meant, or put the character into quotes.",
    ),
];

/// `(code, wrong, right)`: pieces of a Compose file.
const EXAMPLES: &[(&str, &str, &str)] = &[
    (
        UNKNOWN_SERVICE,
        "services:\n  web: {image: web, depends_on: [bd]}\n  db: {image: postgres}\n",
        "services:\n  web: {image: web, depends_on: [db]}\n  db: {image: postgres}\n",
    ),
    (
        CYCLE,
        "services:\n  a: {image: a, depends_on: [b]}\n  b: {image: b, depends_on: [a]}\n",
        "services:\n  a: {image: a, depends_on: [b]}\n  b: {image: b}\n",
    ),
    (
        UNKNOWN_RESOURCE,
        "services:\n  db: {image: postgres, volumes: [\"data:/var/lib/postgresql\"]}\n",
        "services:\n  db: {image: postgres, volumes: [\"data:/var/lib/postgresql\"]}\nvolumes: {data: {}}\n",
    ),
    (
        CONTRADICTION,
        "services:\n  web: {image: web, network_mode: none, networks: [front]}\nnetworks: {front: {}}\n",
        "services:\n  web: {image: web, networks: [front]}\nnetworks: {front: {}}\n",
    ),
    (NO_IMAGE, "services:\n  db: {user: postgres}\n", "services:\n  db: {image: postgres, user: postgres}\n"),
    (
        CUT_COMMAND,
        "services:\n  web: {image: web, command: migrate && serve}\n",
        "services:\n  web: {image: web, command: [sh, -c, migrate && serve]}\n",
    ),
];

/// Something wrong and the same put right, of a code that has an example.
pub fn example(code: &str) -> Option<(&'static str, &'static str)> {
    EXAMPLES.iter().find(|(known, ..)| known.eq_ignore_ascii_case(code)).map(|&(_, wrong, right)| (wrong, right))
}
