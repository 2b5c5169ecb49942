//! Codes of findings in the pipeline file, for `seatrial explain CODE`. Those that Compose files have too are in
//! [`compose::codes`].

/// Code, title, explanation.
pub const ALL: &[(&str, &str, &str)] = &[
    (
        NOT_YAML,
        "the file is not YAML",
        "The pipeline file follows YAML 1.2: indentation by spaces, `key: value` with a space after the colon, and texts with \
         `: `, ` #`, `{`, `[`, `*`, `&`, `!`, `%` or `@` at a risky place in quotes. One document per file; tags other than \
         the standard `!!str`, `!!int` and so on mean nothing here.",
    ),
    (
        TOO_LARGE,
        "the file is too large",
        "A pipeline file may have 1 MiB, 20,000 values after anchors are expanded, and 64 levels. Larger ones are refused so \
         that a hostile file of a change request cannot exhaust memory.",
    ),
    (
        UNKNOWN_KEY,
        "the key does not exist",
        "Keys are checked, because a misspelt key that is ignored silently switches a check off. Keys that begin with `x-` \
         are yours: they are ignored everywhere, and are the place for anchors.",
    ),
    (
        NOT_YET,
        "the key is not supported yet",
        "The key belongs to the pipeline file, but this version of seatrial does not act on it. It is refused rather than \
         ignored: a pipeline that seems to do something and does not is worse than one that says so.",
    ),
    (
        DUPLICATE_KEY,
        "the key is given twice",
        "Two values for one key contradict each other, and which one wins depends on the reader. Remove one of them. A key \
         beside a merge key (`<<`) is no duplicate: it wins over the merged one.",
    ),
    (
        WRONG_TYPE,
        "the value has another type",
        "The key expects another kind of value, such as a text, a list, a map, a number or `true`/`false`. `seatrial schema` \
         prints what each key takes.",
    ),
    (
        INVALID_VALUE,
        "the value is not allowed",
        "The value has the right type, but not a meaning: a duration without a unit (write `2s`), an image name with capital \
         letters, a gate named like a stage, and so on.",
    ),
    (
        MISSING_KEY,
        "a key is missing",
        "The map needs one more key to mean something; a gate, for example, needs `run`.",
    ),
    (UNKNOWN_GATE, "the gate does not exist", "`needs` names a gate that is not in `test.gates`."),
    (
        NEEDS_CYCLE,
        "gates wait for each other",
        "A gate needs, perhaps through others, itself, so none of them could ever start. Remove one of the `needs`.",
    ),
    (
        NO_SUCH_PATH,
        "the path does not exist",
        "Paths are relative to the pipeline file. What is mounted has to exist before the run.",
    ),
    (
        LEAVES_REPOSITORY,
        "the path leaves the repository",
        "A pipeline may show its gates only files of its own repository, also through symbolic links: the file may come from \
         a change request of a stranger.",
    ),
    (
        BAD_TEMPLATE,
        "the template is not valid",
        "Templates are `${git.sha}`, `${git.short}`, `${git.branch}`, `${git.tag}`, `${version}`, `${run.number}`, \
         `${VARIABLE}` and `${VARIABLE:-default}`; `$$` is a dollar sign. Commands are not templates: they read \
         `SEATRIAL_GIT_SHA`, `SEATRIAL_VERSION` and so on from their environment.",
    ),
    (
        ABSENT_VALUE,
        "the template has no value",
        "What the template names is not there: no Git tag at this commit, no such environment variable. A tag with such a \
         template is skipped; elsewhere it is an error. `${VARIABLE:-default}` gives a value for that case.",
    ),
    (
        UNKNOWN_IMAGE,
        "the image is not built in this run",
        "`image:NAME` in `additional_contexts` and in `image` of a service, `from` of a service, and `in` of a gate name an \
         image that the same run builds: an entry of `images:`, or the only image by its own name.",
    ),
    (
        IMAGE_CYCLE,
        "images wait for each other",
        "An image is built when those that it is built on (`image:NAME` in `additional_contexts`) have passed, and it passes \
         when its gates have, which may use other images as services. One that waits for itself in this way would wait for ever. \
         Move the gate that uses both images to the top level.",
    ),
    (
        SAME_NAME,
        "two images have the same name",
        "Images of one run may share a repository as long as their tags differ. Where two would get the same tag, the second \
         would hide the first, so that nothing is built. Give each an `image` of its own, or tags such as `base-${version}`.",
    ),
    (
        BUILT_TWICE,
        "a service is built beside the image of its name",
        "A service with the name of an entry of `images:` is that image if its `build` says the same: context, Dockerfile, \
         target and arguments. Here they differ, so that what the gates see is not what is published. Make them equal, or \
         write `from: NAME` in the service.",
    ),
];

pub(crate) use compose::codes::{
    ABSENT_VALUE, BAD_TEMPLATE, DUPLICATE_KEY, INVALID_VALUE, LEAVES_REPOSITORY, MISSING_KEY, NO_SUCH_PATH, NOT_YAML,
    NOT_YET, TOO_LARGE, UNKNOWN_KEY, WRONG_TYPE,
};

pub(crate) const UNKNOWN_GATE: &str = "ST308";
pub(crate) const NEEDS_CYCLE: &str = "ST309";
pub(crate) const UNKNOWN_IMAGE: &str = "ST320";
pub(crate) const IMAGE_CYCLE: &str = "ST321";
pub(crate) const SAME_NAME: &str = "ST322";
pub(crate) const BUILT_TWICE: &str = "ST323";

/// `(code, wrong, right)`: pieces of a pipeline file.
const EXAMPLES: &[(&str, &str, &str)] = &[
    (NOT_YAML, "image: app\n test: {}\n", "image: app\ntest: {}\n"),
    (UNKNOWN_KEY, "tests:\n  gates: {unit: make test}\n", "test:\n  gates: {unit: make test}\n"),
    (DUPLICATE_KEY, "image: app\nimage: other\n", "image: app\n"),
    (WRONG_TYPE, "test:\n  gates: make test\n", "test:\n  gates: {unit: make test}\n"),
    (INVALID_VALUE, "health: {interval: 2}\n", "health: {interval: 2s}\n"),
    (
        MISSING_KEY,
        "test:\n  gates:\n    unit: {user: app}\n",
        "test:\n  gates:\n    unit: {user: app, run: make test}\n",
    ),
    (
        UNKNOWN_GATE,
        "test:\n  gates:\n    unit: {run: make test, needs: [lnit]}\n    lint: make lint\n",
        "test:\n  gates:\n    unit: {run: make test, needs: [lint]}\n    lint: make lint\n",
    ),
    (
        NEEDS_CYCLE,
        "test:\n  gates:\n    a: {run: make a, needs: [b]}\n    b: {run: make b, needs: [a]}\n",
        "test:\n  gates:\n    a: make a\n    b: {run: make b, needs: [a]}\n",
    ),
    (
        UNKNOWN_IMAGE,
        "images:\n  base: ./base\n  app: {build: {additional_contexts: {base: \"image:bsae\"}}}\n",
        "images:\n  base: ./base\n  app: {build: {additional_contexts: {base: \"image:base\"}}}\n",
    ),
    (
        SAME_NAME,
        "image: registry.example/app\npublish: {tags: latest}\nimages: {base: ./base, app: ./app}\n",
        "image: registry.example/app\nimages:\n  base: {build: ./base, publish: {tags: base}}\n  app: {build: ./app, publish: {tags: latest}}\n",
    ),
    (NO_SUCH_PATH, "test:\n  mounts: [test]\n", "test:\n  mounts: [tests]\n"),
    (LEAVES_REPOSITORY, "test:\n  mounts: [../shared/tests]\n", "test:\n  mounts: [tests]\n"),
    (BAD_TEMPLATE, "publish:\n  tags: [\"${git.sah}\"]\n", "publish:\n  tags: [\"${git.sha}\"]\n"),
    (ABSENT_VALUE, "build:\n  args: {V: \"${V}\"}\n", "build:\n  args: {V: \"${V:-1}\"}\n"),
];

/// Something wrong and the same put right, of a code that has an example.
pub fn example(code: &str) -> Option<(&'static str, &'static str)> {
    EXAMPLES.iter().find(|(known, ..)| known.eq_ignore_ascii_case(code)).map(|&(_, wrong, right)| (wrong, right))
}
