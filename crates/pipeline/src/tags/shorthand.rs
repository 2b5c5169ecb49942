//! Tags in the words of docker/metadata-action (`type: semver`, `type: sha`, …), each turned into names for one source.

use regex::RegexBuilder;
use serde::Serialize;

use super::{
    dates,
    expression::{self, Expressions},
};
use crate::{Source, SourceEvent, Version, plan::NO_VERSION, version, version::Ordered};

/// What a tag is made of; [`Shorthand::kind`] says which of the other values mean something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shorthand {
    /// `type`.
    #[serde(rename = "type")]
    pub kind: TagKind,
    /// Patterns of `schedule`, `semver`, `pep440`; the regular expression of `match`. Empty: the kind's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pattern: Vec<String>,
    /// What is used instead of Git tag or version; of `raw` the tag itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Of `ref`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<RefEvent>,
    /// Of `edge`; else the default branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Of `sha`: the whole commit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub long: bool,
    /// Of `date`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Of `date`: a zone of the IANA database, or an offset such as `+02:00`. Default: UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tz: Option<String>,
    /// Of `date`: the run's time rather than the commit's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub of_run: bool,
    /// Of `semver` and `pep440`: a regular expression whose first group (else all of it) is the version in the Git tag or value.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// Of `match`: the group that is the tag.
    pub group: usize,
    /// Of `semver` and `pep440` without a pattern: `0` for 0.1.2 as well.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub major_zero: bool,
    /// Before the tag, instead of the kind's and the flavour's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// After the tag, instead of the flavour's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
    /// `true` or `false`, when it is filled in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable: Option<String>,
    /// Of all tags that apply, the one with the highest priority decides whether `latest` comes along.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
}

/// Kinds of tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TagKind {
    /// A text.
    #[default]
    Raw,
    /// `nightly`, in runs by the clock.
    Schedule,
    /// A SemVer version and its shorter forms.
    Semver,
    /// A PEP 440 version and its shorter forms.
    Pep440,
    /// A part of the Git tag.
    Match,
    /// The newest commit of the default branch.
    Edge,
    /// The name of the branch, Git tag or change request.
    Ref,
    /// The commit.
    Sha,
    /// A date.
    Date,
    /// The number of the run: `build-42`.
    Build,
}

/// What a `ref` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RefEvent {
    /// The branch.
    Branch,
    /// The Git tag.
    Tag,
    /// The change request.
    Pr,
}

impl TagKind {
    /// As the file writes them.
    pub const NAMES: [&str; 10] =
        ["raw", "schedule", "semver", "pep440", "match", "edge", "ref", "sha", "date", "build"];

    /// By name.
    pub fn parse(name: &str) -> Option<Self> {
        use TagKind::*;
        let kinds = [Raw, Schedule, Semver, Pep440, Match, Edge, Ref, Sha, Date, Build];
        kinds.into_iter().zip(Self::NAMES).find_map(|(kind, known)| (known == name).then_some(kind))
    }

    /// docker/metadata-action's.
    fn priority(self) -> u32 {
        match self {
            TagKind::Schedule => 1000,
            TagKind::Semver | TagKind::Pep440 => 900,
            TagKind::Match => 800,
            TagKind::Edge => 700,
            TagKind::Ref => 600,
            TagKind::Raw | TagKind::Date => 200,
            TagKind::Sha | TagKind::Build => 100,
        }
    }
}

/// Name before prefix and suffix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    /// Whether `latest` goes with it.
    pub(super) is_latest: bool,
    /// The version that the rule speaks of.
    pub(super) version: Option<String>,
}

impl Named {
    /// A name that speaks of no version.
    pub(super) fn only(name: String) -> Self {
        Self { name, is_latest: false, version: None }
    }
}

/// The names that a rule gives, or why not each of them.
pub(super) type Names = Vec<Result<Named, String>>;

impl Shorthand {
    /// Where it stands among those that decide about `latest`.
    pub(super) fn rank(&self) -> u32 {
        self.priority.unwrap_or(self.kind.priority())
    }

    /// The kind's own prefix, where neither rule nor flavour has one.
    pub(super) fn own_prefix(&self) -> Option<&'static str> {
        match (self.kind, self.event) {
            (TagKind::Sha, _) => Some("sha-"),
            (TagKind::Ref, Some(RefEvent::Pr)) => Some("pr-"),
            (TagKind::Build, _) => Some("build-"),
            _ => None,
        }
    }

    /// The names for a source.
    pub(super) fn names(&self, context: &Expressions<'_>) -> Names {
        match self.all(context) {
            Ok(names) => names,
            Err(reason) => vec![Err(reason)],
        }
    }

    fn all(&self, context: &Expressions<'_>) -> Result<Names, String> {
        let Expressions { source, values, .. } = *context;
        if let Some(enable) = &self.enable {
            match context.fill(enable)?.trim() {
                "true" | "1" => {}
                "false" | "0" | "" => return Err("`enable` is false".into()),
                other => return Err(format!("`enable` is `{other}`, neither `true` nor `false`")),
            }
        }
        let one = |name: String| Ok(vec![Ok(Named::only(name))]);
        match self.kind {
            TagKind::Raw => one(context.fill(self.value.as_deref().unwrap_or_default())?),
            TagKind::Schedule if source.event != SourceEvent::Schedule => Err("event is not schedule".into()),
            TagKind::Schedule => {
                let patterns = self.pattern.iter().map(String::as_str);
                let patterns: Vec<_> = if self.pattern.is_empty() { vec!["nightly"] } else { patterns.collect() };
                let fill = |pattern: &str| Ok(Named::only(context.fill(pattern)?));
                Ok(patterns.into_iter().map(fill).collect())
            }
            TagKind::Semver | TagKind::Pep440 => self.versions(context),
            TagKind::Match => self.matching(context),
            TagKind::Edge => {
                let branch = of_branch(source)?;
                let wanted = match &self.branch {
                    Some(branch) => context.fill(branch)?,
                    None => source.default_branch.clone().ok_or("the default branch is not known")?,
                };
                if branch != wanted { Err(format!("branch is not {wanted}")) } else { one("edge".into()) }
            }
            TagKind::Ref => match self.event {
                Some(RefEvent::Tag) if source.event != SourceEvent::Tag => Err("event is not tag".into()),
                Some(RefEvent::Tag) => {
                    let tag = source.tag.clone().ok_or("the commit has no Git tag")?;
                    Ok(vec![Ok(Named { is_latest: !is_before_release(&tag), name: tag, version: None })])
                }
                Some(RefEvent::Pr) if source.event != SourceEvent::PullRequest => {
                    Err("event is not pull_request".into())
                }
                Some(RefEvent::Pr) => one(source.request.clone().ok_or("the change request's number is not known")?),
                Some(RefEvent::Branch) | None => one(of_branch(source)?.to_owned()),
            },
            TagKind::Sha => {
                let id = if self.long { &source.sha } else { &source.short };
                one(id.clone().ok_or("there is no Git commit")?)
            }
            TagKind::Date => {
                let time = if self.of_run { context.now } else { source.commit_time };
                let time = time.ok_or(if self.of_run { "the time is not known" } else { "there is no Git commit" })?;
                one(dates::format(time, self.format.as_deref().unwrap_or("YYYYMMDD"), self.tz.as_deref())?)
            }
            TagKind::Build => one(values.run_number.ok_or("there is no run")?.to_string()),
        }
    }

    /// The version that this rule speaks of, as it is written, and whether it comes from a Git tag or from the rule itself.
    fn subject(&self, context: &Expressions<'_>) -> Result<(String, bool), String> {
        if let Some(value) = &self.value {
            return Ok((context.fill(value)?, true));
        }
        let source = context.source;
        let is_tag = source.event == SourceEvent::Tag;
        if source.event == SourceEvent::PullRequest {
            return Err("event is pull_request".into());
        }
        if let (true, Some(_), Some(tag)) = (is_tag, &self.within, &source.tag) {
            return Ok((tag.clone(), true));
        }
        match &context.values.version {
            // As it was written, where the version is that of the Git tag.
            Version::Known(known) => {
                let raw = source.tag.as_deref().filter(|tag| is_tag && version::of_tag(tag) == known);
                Ok((raw.unwrap_or(known).to_owned(), is_tag))
            }
            Version::Absent(reason) if reason != NO_VERSION => Err(reason.clone()),
            _ if !is_tag => Err("event is not tag".into()),
            _ => Ok((source.tag.clone().ok_or("the commit has no Git tag")?, true)),
        }
    }

    fn versions(&self, context: &Expressions<'_>) -> Result<Names, String> {
        let (mut raw, is_named) = self.subject(context)?;
        if let Some(pattern) = &self.within {
            raw = version_within(&raw, pattern)?;
        }
        let mut parts = match self.kind {
            TagKind::Semver => Parts::semver(&raw),
            _ => Parts::pep440(&raw),
        }?;
        // What was counted up from a tag (`1.2.3+4.gabc1234`) is not the release 1.2.3.
        if !is_named && raw.contains('+') {
            parts = Parts { version: version::of_tag(&raw).to_owned(), is_release: false, ..parts };
        }
        let is_latest = is_named && parts.is_release;
        let named = |name: String| Named { name, is_latest, version: Some(raw.clone()) };
        if !self.pattern.is_empty() {
            let names = self.pattern.iter().map(|pattern| {
                // A version before its release has no shorter form: it is itself, whatever the pattern says.
                let is_raw = expression::is_only(pattern, "raw");
                if !parts.is_release && !is_raw {
                    return Ok(named(parts.version.clone()));
                }
                context.fill_version(pattern, &parts).map(named)
            });
            return Ok(names.collect());
        }
        let mut names = vec![Ok(named(parts.version.clone()))];
        if !parts.is_release {
            names.push(Err(format!("{} is no release and moves no short version", parts.version)));
            return Ok(names);
        }
        // As many numbers as the version has: 1.2 has no longer form than itself.
        if parts.numbers.len() > 2 {
            names.push(Ok(named(format!("{}.{}", parts.numbers[0], parts.numbers[1]))));
        }
        if parts.numbers.len() > 1 {
            names.push(match parts.numbers[0] {
                0 if !self.major_zero => Err("major version 0 promises nothing that `0` could stand for".into()),
                major => Ok(named(major.to_string())),
            });
        }
        Ok(names)
    }

    fn matching(&self, context: &Expressions<'_>) -> Result<Names, String> {
        let source = context.source;
        let text = match &self.value {
            Some(value) => context.fill(value)?,
            None if source.event != SourceEvent::Tag => return Err("event is not tag".into()),
            None => source.tag.clone().ok_or("the commit has no Git tag")?,
        };
        let pattern = self.pattern.first().map(String::as_str).unwrap_or_default();
        let regex = regex(pattern).map_err(|error| error.to_string())?;
        // As docker/metadata-action has it, a slash may be written as a dash.
        let found =
            regex.captures(&text).and_then(|found| found.get(self.group)).map(|found| found.as_str().to_owned());
        let dashed = text.replace('/', "-");
        let found = found.or_else(|| Some(regex.captures(&dashed)?.get(self.group)?.as_str().to_owned()));
        let name = found.ok_or_else(|| format!("`{text}` does not match `{pattern}`"))?;
        // Less than a whole version may be short for one.
        let version = Ordered::whole(&name).map(|_| name.clone());
        Ok(vec![Ok(Named { name, is_latest: !is_before_release(&text), version })])
    }
}

/// The version in a Git tag such as `api-v1.2.3`. Of another package's tag there is none.
fn version_within(text: &str, pattern: &str) -> Result<String, String> {
    let regex = regex(pattern).map_err(|error| error.to_string())?;
    let found = regex.captures(text).and_then(|found| found.get(1).or(found.get(0)));
    found.map(|found| found.as_str().to_owned()).ok_or_else(|| format!("`{text}` does not match `{pattern}`"))
}

/// `v(.*)`, or `/v(.*)/i` as JavaScript writes it.
pub(crate) fn regex(pattern: &str) -> Result<regex::Regex, regex::Error> {
    let slashed = pattern.strip_prefix('/').and_then(|rest| rest.rsplit_once('/'));
    let (pattern, flags) =
        slashed.filter(|(_, flags)| flags.chars().all(|c| "gimsu".contains(c))).unwrap_or((pattern, ""));
    RegexBuilder::new(pattern)
        .case_insensitive(flags.contains('i'))
        .multi_line(flags.contains('m'))
        .dot_matches_new_line(flags.contains('s'))
        .build()
}

/// `v2.0.0-rc.1`, and what stands for it.
fn is_before_release(tag: &str) -> bool {
    Ordered::parse(tag).is_some_and(|version| version.is_prerelease())
}

fn of_branch(source: &Source) -> Result<&str, String> {
    match source.event {
        SourceEvent::Tag => Err("event is not push".into()),
        SourceEvent::PullRequest => Err("event is not push".into()),
        SourceEvent::Push | SourceEvent::Schedule => {
            source.branch.as_deref().ok_or_else(|| "HEAD is on no branch".to_owned())
        }
    }
}

/// A version in parts.
pub(super) struct Parts {
    /// As it was written, with its `v`.
    pub(super) raw: String,
    /// Without `v` and build metadata.
    pub(super) version: String,
    pub(super) numbers: Vec<u64>,
    pub(super) is_release: bool,
}

impl Parts {
    fn semver(raw: &str) -> Result<Self, String> {
        let parsed = semver::Version::parse(version::of_tag(raw));
        let semver::Version { major, minor, patch, pre, .. } =
            parsed.map_err(|_| format!("`{raw}` is no SemVer version"))?;
        let suffix = if pre.is_empty() { String::new() } else { format!("-{pre}") };
        Ok(Self {
            raw: raw.to_owned(),
            version: format!("{major}.{minor}.{patch}{suffix}"),
            numbers: vec![major, minor, patch],
            is_release: pre.is_empty(),
        })
    }

    fn pep440(raw: &str) -> Result<Self, String> {
        let parsed: Result<pep440_rs::Version, _> = version::of_tag(raw).parse();
        let parsed = parsed.map_err(|_| format!("`{raw}` is no PEP 440 version"))?;
        Ok(Self {
            raw: raw.to_owned(),
            version: parsed.to_string(),
            numbers: parsed.release().to_vec(),
            is_release: !parsed.any_prerelease(),
        })
    }
}
