//! What has to be said of an image, and by whom: requirements, and whether what was found meets them.

mod file;

use std::{
    collections::BTreeSet,
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use oci::Digest;
use registry::ContentCheck;

pub use file::{Exception, PolicyError, PolicyFile, read_text};

use crate::{Collected, Flaw, PublicKey, Statement, Summary, TestResult, Trusted, predicate};

/// A key with the name that a policy gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedKey {
    /// The name: what the policy says, or the file's.
    pub name: String,
    /// The key.
    pub key: PublicKey,
}

/// What an image needs.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Keys that are trusted. What others have signed does not count.
    pub keys: Vec<NamedKey>,
    /// What has to be there.
    pub require: Vec<Requirement>,
    /// What may be missing for a while.
    pub exceptions: Vec<Exception>,
}

/// One thing that has to be there, signed by a trusted key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// A signature of the image.
    Signature,
    /// A signature of the image by the key of this name.
    SignedBy(String),
    /// A statement of how it was built.
    Provenance,
    /// The same, and that it was built from this repository; `*` stands for anything.
    Source(String),
    /// The same, and from this branch or tag (`refs/heads/main`).
    Ref(String),
    /// The same, and by this builder.
    Builder(String),
    /// A list of its packages.
    Sbom,
    /// A summary that all gates of its pipeline have passed.
    Gates,
    /// That this gate has passed.
    Gate(String),
    /// That everything that the image consists of is there and has its digest.
    Content,
    /// A statement with a time, of at most this age.
    MaxAge(Duration),
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signature => f.write_str("signature"),
            Self::SignedBy(key) => write!(f, "signature by {key}"),
            Self::Provenance => f.write_str("provenance"),
            Self::Source(_) => f.write_str("provenance source"),
            Self::Ref(_) => f.write_str("provenance ref"),
            Self::Builder(_) => f.write_str("provenance builder"),
            Self::Sbom => f.write_str("sbom"),
            Self::Gates => f.write_str("gates"),
            Self::Gate(gate) => write!(f, "gate {gate}"),
            Self::Content => f.write_str("content"),
            Self::MaxAge(_) => f.write_str("age"),
        }
    }
}

/// The kinds that need nothing further, as `trust.pull` and a policy's `require` write them.
impl FromStr for Requirement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "signature" => Self::Signature,
            "provenance" => Self::Provenance,
            "sbom" => Self::Sbom,
            "gates" => Self::Gates,
            "content" => Self::Content,
            other => return Err(format!("`{other}` is not known; there are {}", Self::NAMES.join(", "))),
        })
    }
}

impl Requirement {
    /// What [`Requirement::from_str`] knows.
    pub const NAMES: [&str; 5] = ["signature", "provenance", "sbom", "gates", "content"];
}

/// Whether an image has what a policy asks for.
#[derive(Clone, Debug)]
pub struct Report {
    /// The requirements in order, and the exceptions that have expired.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether everything holds.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }

    /// What does not hold.
    pub fn missing(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.passed)
    }
}

/// One requirement and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was asked for: `signature`, `gate unit`.
    pub what: String,
    /// Whether it holds, or is excepted.
    pub passed: bool,
    /// By whom, or why not.
    pub detail: String,
}

/// The image a report is about.
#[derive(Clone, Copy, Debug)]
pub struct Sought<'a> {
    /// What was collected.
    pub collected: &'a Collected,
    /// The time that ages and exceptions are judged by.
    pub now: SystemTime,
}

impl Policy {
    /// Judges what was found.
    pub fn judge(&self, sought: Sought<'_>) -> Report {
        let keys: Vec<PublicKey> = self.keys.iter().map(|named| named.key.clone()).collect();
        let believed = Believed::new(sought.collected, &keys);
        let now = sought.now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut checks = Vec::new();
        for requirement in &self.require {
            let what = requirement.to_string();
            let (passed, detail) = match self.check(requirement, &believed, now) {
                Ok(detail) => (true, detail),
                Err(reason) => match self.exceptions.iter().find(|e| e.what == what && !e.is_over(sought.now)) {
                    Some(exception) => (true, format!("{reason}; excepted until {}", exception.until)),
                    None => (false, reason),
                },
            };
            checks.push(Check { what, passed, detail });
        }
        for exception in self.exceptions.iter().filter(|exception| exception.is_over(sought.now)) {
            let detail = format!("the exception for `{}` has expired on {}", exception.what, exception.until);
            checks.push(Check { what: "exceptions".into(), passed: false, detail });
        }
        Report { checks }
    }

    fn check(&self, requirement: &Requirement, believed: &Believed<'_>, now: u64) -> Result<String, String> {
        match requirement {
            Requirement::Signature => self.find(believed, "no signature", |s| is(s, predicate::SIGNATURE)),
            Requirement::SignedBy(name) => {
                let Some(named) = self.keys.iter().find(|named| named.name == *name) else {
                    return Err(format!("the policy has no key `{name}`"));
                };
                let reason = format!("no signature by {name} ({})", named.key.fingerprint());
                believed.everywhere(&reason, |piece| {
                    (is(piece.statement, predicate::SIGNATURE) && *piece.key == named.key).then(|| self.by(piece))
                })
            }
            Requirement::Provenance => self.find(believed, "no provenance", Statement::is_provenance),
            Requirement::Source(wanted) => self.provenance(believed, "source", wanted, source),
            Requirement::Ref(wanted) => self.provenance(believed, "ref", wanted, reference),
            Requirement::Builder(wanted) => self.provenance(believed, "builder", wanted, builder),
            Requirement::Sbom => self.find(believed, "no list of packages", |s| {
                is(s, predicate::SPDX)
                    || is(s, predicate::CYCLONEDX)
                    || s.predicate_type.starts_with(predicate::CYCLONEDX)
            }),
            Requirement::Gates => self
                .find(believed, "no summary that the gates have passed", |s| Summary::passed_definition(s).is_some()),
            Requirement::Gate(gate) => {
                let failed = believed.any(|piece| TestResult::failed_gates(piece.statement).contains(&gate.as_str()));
                let reason =
                    if failed { format!("gate {gate} has failed") } else { format!("no result of gate {gate}") };
                self.find(believed, &reason, |s| TestResult::passed_gates(s).contains(&gate.as_str()))
            }
            Requirement::Content => content(believed.content),
            Requirement::MaxAge(limit) => {
                let days = |seconds: u64| seconds / (24 * 60 * 60);
                let newest = believed.newest();
                let reason = newest.map_or("no statement tells its time".to_owned(), |newest| {
                    let (age, limit) = (now.saturating_sub(newest), limit.as_secs());
                    format!("the newest statement is {} old, more than {}", human(age), human(limit))
                });
                believed.everywhere(&reason, |piece| {
                    let time = piece.statement.time()?;
                    // What is dated in the future is not young.
                    let age =
                        now.checked_add(CLOCK_SKEW.as_secs())?.checked_sub(time)?.saturating_sub(CLOCK_SKEW.as_secs());
                    (age <= limit.as_secs()).then(|| format!("{} days old", days(age)))
                })
            }
        }
    }

    /// A statement that fits, about the image itself or about each image of the index.
    fn find(
        &self,
        believed: &Believed<'_>,
        missing: &str,
        fits: impl Fn(&Statement) -> bool,
    ) -> Result<String, String> {
        believed.everywhere(missing, |piece| fits(piece.statement).then(|| self.by(piece)))
    }

    fn provenance(
        &self,
        believed: &Believed<'_>,
        what: &str,
        wanted: &str,
        read: impl Fn(&Statement) -> Option<&str>,
    ) -> Result<String, String> {
        let told: BTreeSet<&str> = believed.all().filter_map(|piece| provenance_of(piece.statement, &read)).collect();
        let reason = if told.is_empty() {
            format!("no provenance tells the {what}")
        } else {
            format!("the {what} is {}, not {wanted}", told.into_iter().collect::<Vec<_>>().join(" or "))
        };
        believed.everywhere(&reason, |piece| {
            provenance_of(piece.statement, &read).filter(|told| matches(wanted, told)).map(str::to_owned)
        })
    }

    fn by(&self, piece: &Trusted<'_>) -> String {
        let name = self.keys.iter().find(|named| named.key == *piece.key).map(|named| named.name.as_str());
        format!("by {}", name.unwrap_or("a trusted key"))
    }
}

/// Clocks of two machines differ by so much without anybody noticing.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// What reading the image has shown.
fn content(check: Option<&ContentCheck>) -> Result<String, String> {
    let check = check.ok_or("the content was not read")?;
    if check.wrong.is_empty() {
        return Ok(format!("{} parts, {} bytes", check.blobs, check.size_bytes));
    }
    let parts = check.wrong.iter().map(|part| format!("{} {}: {}", part.kind, part.digest.short(), part.reason));
    Err(parts.collect::<Vec<_>>().join(", "))
}

fn is(statement: &Statement, kind: &str) -> bool {
    statement.predicate_type == kind
}

fn provenance_of<'a>(statement: &'a Statement, read: &impl Fn(&'a Statement) -> Option<&'a str>) -> Option<&'a str> {
    if statement.is_provenance() { read(statement) } else { None }
}

/// Seatrial's own place, and those of other well-known builders; the last is SLSA 0.2's.
fn source(statement: &Statement) -> Option<&str> {
    const PLACES: [&str; 4] = [
        "/buildDefinition/externalParameters/source/uri",
        "/buildDefinition/externalParameters/workflow/repository",
        "/buildDefinition/externalParameters/configSource/uri",
        "/invocation/configSource/uri",
    ];
    let uri = PLACES.iter().find_map(|place| statement.predicate.pointer(place)?.as_str())?;
    Some(uri.strip_prefix("git+").unwrap_or(uri))
}

fn reference(statement: &Statement) -> Option<&str> {
    const PLACES: [&str; 2] =
        ["/buildDefinition/externalParameters/source/ref", "/buildDefinition/externalParameters/workflow/ref"];
    PLACES.iter().find_map(|place| statement.predicate.pointer(place)?.as_str())
}

fn builder(statement: &Statement) -> Option<&str> {
    const PLACES: [&str; 2] = ["/runDetails/builder/id", "/builder/id"];
    PLACES.iter().find_map(|place| statement.predicate.pointer(place)?.as_str())
}

/// `*` stands for anything, also for nothing.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn human(seconds: u64) -> String {
    const DAY: u64 = 24 * 60 * 60;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / DAY),
    }
}

/// What holds, by what it speaks of.
struct Believed<'a> {
    root: &'a Digest,
    platforms: Vec<&'a Digest>,
    content: Option<&'a ContentCheck>,
    pieces: Vec<(&'a Digest, Trusted<'a>)>,
    /// Why nothing else counts, for messages.
    flaws: Vec<Flaw>,
}

impl<'a> Believed<'a> {
    fn new(collected: &'a Collected, keys: &'a [PublicKey]) -> Self {
        let platforms: Vec<&Digest> = collected.platforms.iter().map(|(digest, _)| digest).collect();
        let (mut pieces, mut flaws) = (Vec::new(), Vec::new());
        for found in &collected.found {
            let subject = &found.attached_to;
            // What a registry lists beside another image than asked for is about that one.
            if *subject != collected.root && !platforms.contains(&subject) {
                flaws.push(Flaw::Misplaced);
                continue;
            }
            match found.check(subject, keys) {
                Ok(trusted) => pieces.push((subject, trusted)),
                Err(flaw) => flaws.push(flaw),
            }
        }
        Self { root: &collected.root, platforms, content: collected.content.as_ref(), pieces, flaws }
    }

    fn all(&self) -> impl Iterator<Item = &Trusted<'a>> {
        self.pieces.iter().map(|(_, piece)| piece)
    }

    fn any(&self, fits: impl Fn(&Trusted<'a>) -> bool) -> bool {
        self.all().any(fits)
    }

    fn newest(&self) -> Option<u64> {
        self.all().filter_map(|piece| piece.statement.time()).max()
    }

    /// That it holds of what the name means, or of each image that it lists.
    fn everywhere(&self, missing: &str, fits: impl Fn(&Trusted<'a>) -> Option<String>) -> Result<String, String> {
        let of = |subject: &Digest| {
            self.pieces.iter().filter(|(about, _)| *about == subject).find_map(|(_, piece)| fits(piece))
        };
        if let Some(detail) = of(self.root) {
            return Ok(detail);
        }
        let each: Vec<Option<String>> = self.platforms.iter().map(|platform| of(platform)).collect();
        match each.iter().flatten().next() {
            Some(detail) if each.iter().all(Option::is_some) => Ok(detail.clone()),
            Some(_) => Err(format!("{missing} for some platforms")),
            None => Err(format!("{missing}{}", self.why())),
        }
    }

    /// What is there and does not count, so that nobody looks for it.
    fn why(&self) -> String {
        let count = |flaw: &Flaw| self.flaws.iter().filter(|known| *known == flaw).count();
        let unreadable = self.flaws.iter().filter(|flaw| matches!(flaw, Flaw::Unreadable(_))).count();
        let words: Vec<String> = [
            (count(&Flaw::NotSigned), "not signed at all"),
            (count(&Flaw::NotTrusted), "not signed by a trusted key, or changed since"),
            (count(&Flaw::OtherSubject), "about another image"),
            (count(&Flaw::Misplaced), "attached to another image"),
            (unreadable, "not readable"),
        ]
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, words)| format!("{number} found that {} {words}", if number == 1 { "is" } else { "are" }))
        .collect();
        if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
    }
}
