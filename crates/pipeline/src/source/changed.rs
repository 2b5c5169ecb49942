//! Which files a commit, or a change request as a whole, has changed.

use std::{collections::BTreeMap, path::Path};

use super::{Source, SourceEvent, ci, lossy, start};

/// Files that differ, relative to the root: of a change request since it left the branch that it is for, else from the commit's
/// first parent. Some Git processes; asked only when a rule has `path`. Where a change request's beginning is not in the
/// clone, the source gets a warning.
pub fn changed_paths(root: &Path, env: &BTreeMap<String, String>, source: &mut Source) -> Option<Vec<String>> {
    if source.event == SourceEvent::PullRequest {
        if let Some(base) = merge_base(root, env, source) {
            return names(
                root,
                env,
                &["diff", "--name-only", "--no-renames", "--no-ext-diff", "-z", &base, "HEAD", "--"],
            );
        }
        source.warnings.push(
            "where this change request begins is not in this clone, so `when.path` sees its last commit only (fetch the \
             whole history: `fetch-depth: 0` of actions/checkout, `GIT_DEPTH: 0` of GitLab)"
                .into(),
        );
    }
    let flags = ["--root", "--no-commit-id", "--name-only", "--no-renames", "-r", "-z", "-m", "--first-parent", "HEAD"];
    let args: Vec<&str> = ["diff-tree"].into_iter().chain(flags).collect();
    names(root, env, &args)
}

/// The commit from which the change request and its branch went apart.
fn merge_base(root: &Path, env: &BTreeMap<String, String>, source: &Source) -> Option<String> {
    let mut candidates = Vec::new();
    if let Some(branch) = &source.request_base {
        let branch = branch.strip_prefix("refs/heads/").unwrap_or(branch);
        candidates.extend([format!("refs/remotes/origin/{branch}"), format!("refs/heads/{branch}")]);
    }
    // The branch's tip when the change request ran; of GitLab the very commit that is looked for.
    candidates.extend(ci::request_base_commit(env));
    candidates.extend(["refs/remotes/origin/HEAD", "@{upstream}"].map(str::to_owned));
    candidates.iter().find_map(|candidate| {
        let commit = one_line(root, env, &["rev-parse", "--verify", "--quiet", &format!("{candidate}^{{commit}}")])?;
        one_line(root, env, &["merge-base", "HEAD", &commit])
    })
}

fn one_line(root: &Path, env: &BTreeMap<String, String>, args: &[&str]) -> Option<String> {
    let answer = start(root, env, args).ok()?.finish();
    let line = lossy(&answer.stdout).lines().next().map(str::to_owned);
    line.filter(|line| answer.success && !line.is_empty())
}

fn names(root: &Path, env: &BTreeMap<String, String>, args: &[&str]) -> Option<Vec<String>> {
    let answer = start(root, env, args).ok()?.finish();
    answer.success.then(|| answer.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty()).map(lossy).collect())
}
