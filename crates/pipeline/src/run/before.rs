//! What is made of the source before the image is built: a wheel, a jar, a bundle.
//!
//! Every entry works on a copy of the build context, and only its output is added to what the build sees: the user's tree
//! stays as it is. In an image the commands are the steps of a small Dockerfile, so that they are cached as a build's are.

mod copy;
mod on_host;
mod text;

pub(super) use on_host::refuse as refuse_on_host;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use engine::{BuildContext, BuildError, BuildRequest, DockerfileSource, FailedStep, NetworkMode};
use events::Verdict;
use globset::{GlobBuilder, GlobMatcher};
use oci::Platform;

use super::words::{self, Stage};
use crate::{BeforePlan, Plan, RunContext, RunError, RunOptions};

/// The stage's id.
pub(super) const STAGE: &str = "before";

/// What the build reads: the context, or the context with what was made; or the command that failed.
pub(super) async fn prepare(
    cx: RunContext<'_>,
    plan: &Plan,
    options: &RunOptions,
) -> Result<Result<BuildContext, FailedStep>, RunError> {
    let base = plan.build.context.clone();
    if plan.before.is_empty() {
        return Ok(Ok(BuildContext::Directory(base)));
    }
    let stage = Stage::start(cx.events, &plan.stage(STAGE));
    let work = Work { cx, plan, options, base: &base, over: output_dir(cx, plan) };
    let made = async {
        fs_err::create_dir_all(&work.over).map_err(|error| RunError::local("prepare `before`", error))?;
        for (index, entry) in plan.before.iter().enumerate() {
            if let Err(failed) = work.make(index, entry).await? {
                return Ok(Err(failed));
            }
        }
        Ok(Ok(()))
    };
    match made.await {
        Ok(Ok(())) => {
            let files = copy::count_files(&work.over);
            stage.finish(Verdict::Passed, format!("{} added to the build context", words::count(files, "file")));
            Ok(Ok(BuildContext::Layered { base: base.clone(), over: work.over }))
        }
        Ok(Err(failed)) => {
            stage.finish(Verdict::Failed, format!("exited {}", failed.exit.code));
            Ok(Err(failed))
        }
        Err(error) => {
            let verdict = if matches!(error, RunError::Cancelled) { Verdict::Skipped } else { Verdict::Failed };
            stage.finish(verdict, words::reason(&error));
            Err(error)
        }
    }
}

/// Where all that `before` made is.
pub(super) fn output_dir(cx: RunContext<'_>, plan: &Plan) -> PathBuf {
    cx.run.path.join("work").join(words::file_name(&plan.stage(STAGE)))
}

struct Work<'a> {
    cx: RunContext<'a>,
    plan: &'a Plan,
    options: &'a RunOptions,
    base: &'a Path,
    /// What was made so far, to lie over the context.
    over: PathBuf,
}

impl Work<'_> {
    /// Name of an entry's files.
    fn name(&self, index: usize) -> String {
        words::file_name(&self.plan.stage(&format!("{STAGE}-{index}")))
    }

    async fn make(&self, index: usize, entry: &BeforePlan) -> Result<Result<(), FailedStep>, RunError> {
        let out = self.cx.run.path.join("work").join(self.name(index));
        let done = match &entry.image {
            Some(image) => self.in_image(index, entry, image, &out).await?,
            None => on_host::run(self, entry, &out).await?,
        };
        if let Err(failed) = done {
            return Ok(Err(failed));
        }
        let patterns = entry.output.clone();
        let over = self.over.clone();
        let from = out.clone();
        let missing = tokio::task::spawn_blocking(move || {
            let missing = copy::take_output(&from, &over, &matchers(&patterns));
            drop(fs_err::remove_dir_all(&from));
            missing
        });
        let missing = missing
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
            .map_err(|error| RunError::local("take over what `before` made", error))?;
        match missing.first() {
            None => Ok(Ok(())),
            Some(index) => {
                Err(text::nothing_matches(&entry.output[*index], self.cx.run.number, &self.plan.stage(STAGE)))
            }
        }
    }

    /// The commands as steps of a Dockerfile.
    async fn in_image(
        &self,
        index: usize,
        entry: &BeforePlan,
        image: &str,
        out: &Path,
    ) -> Result<Result<(), FailedStep>, RunError> {
        let prepare = |error| RunError::local("prepare `before`", error);
        // An ignore file of its own: the image's may hide all but the output.
        let dockerfile = self.cx.run.path.join("work").join(format!("{}.dockerfile", self.name(index)));
        let ignored = text::ignore_file(&self.ignored_by_git().await);
        fs_err::write(dockerfile.with_extension("dockerfile.dockerignore"), ignored).map_err(prepare)?;
        let text = text::dockerfile(image, entry);
        let context = match index {
            0 => BuildContext::Directory(self.base.to_owned()),
            _ => BuildContext::Layered { base: self.base.to_owned(), over: self.over.clone() },
        };
        let request = BuildRequest {
            stage: self.plan.stage(STAGE),
            context,
            dockerfile: DockerfileSource { name: STAGE.into(), path: Some(dockerfile), text: text.text },
            build_contexts: Default::default(),
            target: None,
            build_args: Default::default(),
            labels: Default::default(),
            platform: Platform::host(),
            network: NetworkMode::Default,
            extra_hosts: Vec::new(),
            run: engine::RunSettings::default(),
            no_cache: self.options.no_cache,
            no_cache_filter: Vec::new(),
            pull: self.options.pull,
            epoch: super::build::epoch(self.plan),
            keep_failed: self.options.keep_failed.unwrap_or(self.plan.keep.failed),
            cancel: self.cx.cancel.clone(),
        };
        let events = text::AsWritten::sink(self.cx.events, entry, &text.lines);
        let built = match self.cx.engine.build(request, &events).await {
            Ok(built) => built,
            Err(BuildError::Step(failed)) => return Ok(Err(text::as_written(*failed, entry, &text.lines))),
            Err(error) => {
                let (number, stage) = (self.cx.run.number, self.plan.stage(STAGE));
                return Err(text::error_as_written(error, entry, number, &stage));
            }
        };
        fs_err::create_dir_all(out).map_err(prepare)?;
        let (store, out, top) = (self.cx.store.clone(), out.to_owned(), built.layers.last().cloned());
        let export = tokio::task::spawn_blocking(move || match top {
            Some(top) => store.export_snapshot(&top, &out, store::Stop::NEVER).map(drop),
            None => Ok(()),
        });
        let exported = export.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        exported.map_err(|error| RunError::local("take what `before` made out of its image", error))?;
        Ok(Ok(()))
    }

    /// Paths in the context that Git ignores: results of earlier work, not the source.
    async fn ignored_by_git(&self) -> Vec<String> {
        let (base, env) = (self.base.to_owned(), self.plan.values.env.clone());
        let listed = tokio::task::spawn_blocking(move || crate::source::ignored(&base, &env)).await;
        listed.unwrap_or_default()
    }
}

fn matchers(patterns: &[String]) -> Vec<GlobMatcher> {
    // The plan has read them before.
    let read = |pattern: &String| GlobBuilder::new(pattern).literal_separator(true).build().ok();
    patterns.iter().filter_map(read).map(|glob| glob.compile_matcher()).collect()
}

/// A command that runs on this machine has this long to end after SIGTERM.
const STOP_GRACE: Duration = Duration::from_secs(10);
