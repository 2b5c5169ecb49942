//! `publish.git_tag`: the Git tag of what was published. Whether it can be made is asked before anything is pushed; it is made
//! after everything is.

use std::{path::Path, process::Stdio, time::Duration};

use events::Event;

use super::publish::Intention;
use crate::{Foreseen, Plan, RunContext, RunError, SkippedTag, TagFate, Values, interpolate};

/// Where tags are pushed to.
const REMOTE: &str = "origin";
/// A Git server answers sooner, or not at all.
const GIT_TIME_MAX: Duration = Duration::from_secs(120);

/// A Git tag that can be made.
pub(super) struct GitTag<'a> {
    cx: RunContext<'a>,
    plan: &'a Plan,
    root: &'a Path,
    commit: &'a str,
    name: String,
    /// It names the commit already.
    is_there: bool,
}

/// What is to become of the Git tag.
pub(super) enum Wanted<'a> {
    /// Nobody asked for one.
    None,
    /// Its template has no value.
    Skipped(SkippedTag),
    Tag(GitTag<'a>),
}

/// Whether its name has the number of the build.
pub(super) fn is_numbered(plan: &Plan) -> bool {
    let template = plan.publish.as_ref().and_then(|publish| publish.git_tag.as_deref());
    template.is_some_and(super::number::is_in)
}

/// Looks whether the tag can be made, here and at the remote.
///
/// # Errors
/// It names another commit, or it could not be pushed for another reason that shows beforehand.
pub(super) async fn look<'a>(
    cx: RunContext<'a>,
    plan: &'a Plan,
    intention: &Intention,
    values: &Values,
) -> Result<Wanted<'a>, RunError> {
    let template = plan.publish.as_ref().and_then(|publish| publish.git_tag.as_ref());
    let Some(template) = template.filter(|_| intention.is_planned || intention.is_dry) else { return Ok(Wanted::None) };
    let name = match interpolate(template, values) {
        Ok(name) => name,
        Err(error) => {
            let skipped = SkippedTag { template: format!("git_tag: {template}"), reason: error.to_string() };
            cx.events.emit(Event::TagSkipped { template: skipped.template.clone(), reason: skipped.reason.clone() });
            return Ok(Wanted::Skipped(skipped));
        }
    };
    let source = &plan.source;
    let (Some(root), Some(commit)) = (&source.root, &source.sha) else {
        return Err(refused(format!("`publish.git_tag`: there is no commit to name {name}"), "commit first"));
    };
    if source.is_dirty {
        let message = format!(
            "`publish.git_tag`: the working tree has changes, so the Git tag {name} would not say what it holds"
        );
        return Err(refused(message, "commit the changes, or publish from a clean checkout"));
    }
    let mut tag = GitTag { cx, plan, root, commit, name, is_there: false };
    tag.check().await?;
    Ok(Wanted::Tag(tag))
}

fn refused(message: String, hint: &str) -> RunError {
    RunError::Refused { message, hint: hint.into() }
}

impl GitTag<'_> {
    fn full(&self) -> String {
        format!("refs/tags/{}", self.name)
    }

    async fn check(&mut self) -> Result<(), RunError> {
        let full = self.full();
        if !self.git(&["check-ref-format", &full]).await?.success {
            let message = format!("`publish.git_tag`: `{}` cannot be the name of a Git tag", self.name);
            return Err(RunError::Usage { message, hint: Some("see `git help check-ref-format`".into()) });
        }
        let here = self.git(&["rev-parse", "--verify", "--quiet", &format!("{full}^{{commit}}")]).await?;
        let here = here.success.then(|| here.stdout.trim().to_owned());
        let there = self.at_remote().await?;
        for (found, place) in [(&here, "here"), (&there, REMOTE)] {
            if let Some(other) = found.as_ref().filter(|found| found.as_str() != self.commit) {
                let message = format!(
                    "the Git tag {} exists {} at another commit, {}: nothing was published",
                    self.name,
                    if place == REMOTE { format!("at `{REMOTE}`") } else { place.to_owned() },
                    &other[..other.len().min(SHORT)],
                );
                return Err(refused(
                    message,
                    "give the release another version, or remove the tag if it was a mistake",
                ));
            }
        }
        self.is_there = there.is_some();
        Ok(())
    }

    /// The commit that the remote's tag names; an annotated one is followed (`^{}`).
    async fn at_remote(&self) -> Result<Option<String>, RunError> {
        let full = self.full();
        let peeled = format!("{full}^{{}}");
        let answer = self.git(&["ls-remote", REMOTE, &full, &peeled]).await?;
        if !answer.success {
            let message = format!("`publish.git_tag`: cannot ask `{REMOTE}` for its tags: {}", answer.complaint());
            return Err(refused(message, "look whether `git ls-remote origin` works here"));
        }
        let lines = answer.stdout.lines().filter_map(|line| line.split_once('\t'));
        let found = |wanted: &str| lines.clone().find(|(_, name)| *name == wanted).map(|(id, _)| id.to_owned());
        Ok(found(&peeled).or_else(|| found(&full)))
    }

    /// What would become of it.
    pub(super) fn foresee(&self) -> Foreseen {
        let fate = if self.is_there { TagFate::IsThere } else { TagFate::New };
        Foreseen { reference: format!("Git tag {}", self.name), fate }
    }

    /// Makes it at the remote first: what is only here would say that something is published.
    pub(super) async fn make(self) -> Result<String, RunError> {
        if !self.is_there {
            let what = format!("{}:{}", self.commit, self.full());
            let answer = self.git(&["push", "--quiet", "--no-verify", REMOTE, &what]).await?;
            // Somebody else may have made the same one meanwhile.
            if !answer.success && self.at_remote().await?.as_deref() != Some(self.commit) {
                let message = format!(
                    "everything is published, but the Git tag {} cannot be pushed: {}",
                    self.name,
                    answer.complaint()
                );
                return Err(refused(message, &format!("push it with `git push {REMOTE} {what}`")));
            }
        }
        // The remote's counts. That this clone does not know it yet is no harm.
        let _ = self.git(&["tag", &self.name, self.commit]).await?;
        Ok(self.name)
    }

    async fn git(&self, args: &[&str]) -> Result<Answer, RunError> {
        let failed = |error| RunError::local(format!("run git {}", args[0]), error);
        let mut command = tokio::process::Command::new("git");
        // Hooks that a push would run are for those who work here, and may come from anywhere.
        command.args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-C"]).arg(self.root).args(args);
        command.env_clear().envs(crate::source::git_environment(&self.plan.values.env));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        tokio::select! {
            biased;
            output = command.output() => {
                let output = output.map_err(failed)?;
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                Ok(Answer {
                    success: output.status.success(),
                    stdout: text(&output.stdout),
                    stderr: text(&output.stderr),
                })
            }
            () = self.cx.cancel.cancelled() => Err(RunError::Cancelled),
            () = tokio::time::sleep(GIT_TIME_MAX) => {
                Err(failed(std::io::Error::new(std::io::ErrorKind::TimedOut, "the Git server does not answer")))
            }
        }
    }
}

/// Digits of a commit in messages.
const SHORT: usize = 7;

struct Answer {
    success: bool,
    stdout: String,
    stderr: String,
}

impl Answer {
    /// What Git said last, on one line.
    fn complaint(&self) -> String {
        let line = self.stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
        line.chars().filter(|c| !c.is_control()).take(300).collect()
    }
}
