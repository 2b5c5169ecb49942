//! Real repositories in temporary directories.

use super::*;

fn env() -> BTreeMap<String, String> {
    let path = std::env::var("PATH").unwrap_or_default();
    [("PATH", path.as_str()), ("HOME", "/nonexistent")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

fn git(dir: &Path, args: &[&str]) {
    let output = Command::new("git")
        .arg("-C")
        .arg(dir)
        .args([
            "-c",
            "user.name=T",
            "-c",
            "user.email=t@example",
            "-c",
            "init.defaultBranch=master",
            "-c",
            "commit.gpgsign=false",
        ])
        .args(args)
        .env_clear()
        .envs(env())
        .env("GIT_COMMITTER_DATE", "2024-05-06T07:08:09Z")
        .output()
        .expect("git is part of the development machine");
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn repository() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    git(dir.path(), &["init", "-q"]);
    commit(dir.path(), "a.txt", "one");
    dir
}

fn commit(dir: &Path, name: &str, text: &str) {
    fs_err::create_dir_all(dir.join(name).parent().expect("a parent")).expect("made");
    fs_err::write(dir.join(name), text).expect("written");
    git(dir, &["add", "-A"]);
    git(dir, &["commit", "-q", "-m", "change"]);
}

#[test]
fn a_branch_is_described() {
    let dir = repository();
    let source = read_source(dir.path(), &env());
    assert_eq!(source.warnings, Vec::<String>::new());
    assert_eq!(source.branch.as_deref(), Some("master"));
    assert_eq!(source.sha.as_ref().map(String::len), Some(40));
    assert!(
        source
            .sha
            .as_ref()
            .zip(source.short.as_ref())
            .is_some_and(|(sha, short)| sha.starts_with(short.as_str()) && short.len() == 7)
    );
    assert_eq!(source.tag, None);
    assert_eq!(source.describe, source.short);
    assert_eq!(source.event, SourceEvent::Push);
    assert!(!source.is_dirty);
    assert_eq!(source.commit_time, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_714_979_289)));
    assert_eq!(source.root, Some(dir.path().canonicalize().expect("it exists")));
}

#[test]
fn tags_and_describe() {
    let dir = repository();
    for tag in ["v1.9.0", "v1.10.0", "nightly"] {
        git(dir.path(), &["tag", tag]);
    }
    let source = read_source(dir.path(), &env());
    assert_eq!(source.tag.as_deref(), Some("v1.10.0"), "the highest version");
    assert_eq!(source.event, SourceEvent::Tag);
    commit(dir.path(), "b.txt", "two");
    git(dir.path(), &["tag", "-d", "nightly"]);
    let source = read_source(dir.path(), &env());
    assert_eq!(source.tag, None);
    let describe = source.describe.unwrap_or_default();
    assert!(describe.starts_with("v1.") && describe.contains("-1-g"), "{describe}");
}

#[test]
fn dirty_means_tracked_files() {
    let dir = repository();
    fs_err::write(dir.path().join("untracked"), "x").expect("written");
    assert!(!read_source(dir.path(), &env()).is_dirty);
    fs_err::write(dir.path().join("a.txt"), "changed").expect("written");
    let source = read_source(dir.path(), &env());
    assert!(source.is_dirty);
    assert!(source.describe.is_some_and(|describe| describe.ends_with("-dirty")));
}

#[test]
fn odd_branch_names_come_through_and_subdirectories_find_the_root() {
    let dir = repository();
    git(dir.path(), &["checkout", "-q", "-b", "feature/$(rm -rf)x,ü".replace(' ', "_").as_str()]);
    commit(dir.path(), "deep/er/c.txt", "three");
    let source = read_source(&dir.path().join("deep/er"), &env());
    assert_eq!(source.branch.as_deref(), Some("feature/$(rm_-rf)x,ü"));
    assert_eq!(source.root, Some(dir.path().canonicalize().expect("it exists")));
    assert_eq!(changed_paths(dir.path(), &env(), &mut Source::default()), Some(vec!["deep/er/c.txt".to_owned()]));
}

#[test]
fn the_first_commit_changed_everything_in_it() {
    let dir = repository();
    assert_eq!(changed_paths(dir.path(), &env(), &mut Source::default()), Some(vec!["a.txt".to_owned()]));
}

#[test]
fn a_change_request_has_changed_what_all_its_commits_have() {
    let dir = repository();
    let path = dir.path();
    git(path, &["checkout", "-q", "-b", "feature"]);
    commit(path, "b.txt", "two");
    commit(path, "c.txt", "three");
    git(path, &["checkout", "-q", "master"]);
    commit(path, "of-master.txt", "four");
    let changed = |pairs: &[(&str, &str)]| {
        let mut env = env();
        env.extend(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let mut source = read_source(path, &env);
        (changed_paths(path, &env, &mut source).expect("git tells"), source.warnings)
    };
    let both = vec!["b.txt".to_owned(), "c.txt".to_owned()];
    let github = [("GITHUB_EVENT_NAME", "pull_request"), ("GITHUB_BASE_REF", "master")];
    git(path, &["checkout", "-q", "feature"]);
    assert_eq!(changed(&github), (both.clone(), Vec::new()));
    // GitHub checks out the request merged into its branch.
    git(path, &["checkout", "-q", "--detach", "master"]);
    git(path, &["merge", "-q", "--no-ff", "-m", "merged", "feature"]);
    assert_eq!(changed(&github).0, both);
    // GitLab names the commit; the branch need not be in the clone.
    git(path, &["checkout", "-q", "--detach", "feature"]);
    let base = lossy(&start(path, &env(), &["rev-parse", "master~1"]).expect("git starts").finish().stdout);
    git(path, &["branch", "-q", "-D", "master"]);
    let gitlab = [("CI_PIPELINE_SOURCE", "merge_request_event"), ("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "master")];
    let diff_base = ("CI_MERGE_REQUEST_DIFF_BASE_SHA", base.trim());
    assert_eq!(changed(&[gitlab[0], gitlab[1], diff_base]), (both.clone(), Vec::new()));
    // Nobody says: the remote's own branch.
    git(path, &["update-ref", "refs/remotes/origin/main", base.trim()]);
    git(path, &["symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main"]);
    assert_eq!(changed(&gitlab), (both, Vec::new()));
    git(path, &["symbolic-ref", "-d", "refs/remotes/origin/HEAD"]);
    let (last, warnings) = changed(&gitlab);
    assert_eq!(last, ["c.txt"]);
    assert!(warnings.iter().any(|warning| warning.contains("fetch the whole history")), "{warnings:?}");
    // A branch that no request is about: its last commit.
    assert_eq!(changed(&[]), (vec!["c.txt".to_owned()], Vec::new()));
}

#[test]
fn a_detached_head_takes_the_branch_from_the_ci_system() {
    let dir = repository();
    git(dir.path(), &["checkout", "-q", "--detach"]);
    assert_eq!(read_source(dir.path(), &env()).branch, None);
    let with = |pairs: &[(&str, &str)]| {
        let mut env = env();
        env.extend(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let source = read_source(dir.path(), &env);
        (source.branch.unwrap_or_default(), source.tag.unwrap_or_default(), source.event)
    };
    let none = String::new;
    for (pairs, expected) in [
        (
            vec![("GITHUB_REF_NAME", "main"), ("GITHUB_REF_TYPE", "branch"), ("GITHUB_EVENT_NAME", "push")],
            ("main".into(), none(), SourceEvent::Push),
        ),
        (
            vec![("GITHUB_REF_NAME", "v1"), ("GITHUB_REF_TYPE", "tag"), ("GITHUB_EVENT_NAME", "push")],
            (none(), "v1".into(), SourceEvent::Tag),
        ),
        (
            vec![("GITHUB_HEAD_REF", "fix"), ("GITHUB_REF_NAME", "7/merge"), ("GITHUB_EVENT_NAME", "pull_request")],
            ("fix".into(), none(), SourceEvent::PullRequest),
        ),
        (
            vec![
                ("GITHUB_EVENT_NAME", "pull_request_target"),
                ("GITHUB_REF_NAME", "main"),
                ("GITHUB_REF_TYPE", "branch"),
            ],
            ("main".into(), none(), SourceEvent::PullRequest),
        ),
        (vec![("CI_COMMIT_BRANCH", "dev"), ("CI_PIPELINE_SOURCE", "push")], ("dev".into(), none(), SourceEvent::Push)),
        (vec![("CI_COMMIT_TAG", "v2"), ("CI_PIPELINE_SOURCE", "push")], (none(), "v2".into(), SourceEvent::Tag)),
        (
            vec![("CI_PIPELINE_SOURCE", "merge_request_event"), ("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", "mr")],
            ("mr".into(), none(), SourceEvent::PullRequest),
        ),
        (vec![("JENKINS_URL", "x"), ("BRANCH_NAME", "main")], ("main".into(), none(), SourceEvent::Push)),
        (vec![("CHANGE_ID", "3")], (none(), none(), SourceEvent::PullRequest)),
        (vec![("TRAVIS_PULL_REQUEST", "false"), ("TRAVIS_BRANCH", "main")], ("main".into(), none(), SourceEvent::Push)),
        (
            vec![("TRAVIS_PULL_REQUEST", "12"), ("TRAVIS_BRANCH", "main")],
            ("main".into(), none(), SourceEvent::PullRequest),
        ),
    ] {
        assert_eq!(with(&pairs), expected, "{pairs:?}");
    }
}

#[test]
fn a_directory_without_git_is_fine() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    assert_eq!(read_source(dir.path(), &env()), Source::default());
}

#[test]
fn a_repository_without_a_commit_has_a_branch() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    git(dir.path(), &["init", "-q"]);
    let source = read_source(dir.path(), &env());
    assert_eq!((source.sha, source.branch.as_deref(), source.warnings), (None, Some("master"), vec![]));
}

#[test]
fn without_the_git_program_the_branch_is_still_known() {
    let dir = repository();
    let source = read_source(dir.path(), &[("PATH".to_owned(), "/nonexistent".to_owned())].into());
    assert_eq!(source.branch.as_deref(), Some("master"));
    assert_eq!(source.sha, None);
    assert!(source.warnings[0].starts_with("git is not installed"), "{:?}", source.warnings);
}

#[test]
fn a_hostile_configuration_runs_nothing() {
    let dir = repository();
    let mark = dir.path().join("mark");
    let script = dir.path().join("evil.sh");
    fs_err::write(&script, format!("#!/bin/sh\ntouch {}\n", mark.display())).expect("written");
    fs_err::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
    git(dir.path(), &["config", "core.fsmonitor", script.to_str().expect("a plain path")]);
    git(dir.path(), &["config", "core.hooksPath", dir.path().to_str().expect("a plain path")]);
    fs_err::copy(&script, dir.path().join("post-index-change")).expect("copied");
    fs_err::remove_file(&mark).ok();
    read_source(dir.path(), &env());
    assert!(!mark.exists());
}

#[test]
fn variables_of_a_git_hook_do_not_lead_elsewhere() {
    let (here, there) = (repository(), repository());
    commit(there.path(), "x", "y");
    let mut env = env();
    env.insert("GIT_DIR".into(), there.path().join(".git").display().to_string());
    env.insert("GIT_INDEX_FILE".into(), "/nonexistent".into());
    assert_eq!(read_source(here.path(), &env).sha, read_source(here.path(), &self::env()).sha);
}

#[test]
fn the_head_is_found_without_git_wherever_refs_are() {
    let time = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_714_979_289));
    let check = |dir: &Path, root: &Path| {
        let head = Head::find(dir).expect("a work tree");
        let source = read_source(root, &env());
        assert!(source.sha.is_some());
        assert_eq!(head.id(), source.sha.as_deref());
        assert_eq!(head.time(&env()), Ok(time));
    };
    let dir = repository();
    commit(dir.path(), "deep/er/c.txt", "two");
    check(&dir.path().join("deep/er"), dir.path());
    // Packed, and a loose ref over a packed one.
    git(dir.path(), &["pack-refs", "--all"]);
    check(dir.path(), dir.path());
    commit(dir.path(), "d.txt", "three");
    check(dir.path(), dir.path());
    // Another work tree, and one without a branch.
    let other = tempfile::tempdir().expect("a temporary directory");
    let tree = other.path().join("tree");
    git(dir.path(), &["worktree", "add", "-q", "-b", "side", tree.to_str().expect("text")]);
    check(&tree, &tree);
    commit(&tree, "e.txt", "four");
    check(&tree, &tree);
    git(dir.path(), &["checkout", "-q", "--detach", "HEAD~1"]);
    check(dir.path(), dir.path());
}

#[test]
fn a_work_tree_without_a_commit_has_no_time() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    assert_eq!(Head::find(dir.path()), None);
    git(dir.path(), &["init", "-q"]);
    let head = Head::find(dir.path()).expect("a work tree");
    assert_eq!((head.id(), head.time(&env())), (None, Ok(None)));
    // What is no repository at all is nothing to warn about.
    fs_err::remove_dir_all(dir.path().join(".git")).expect("removed");
    fs_err::write(dir.path().join(".git"), "gitdir: ../nowhere\n").expect("written");
    assert_eq!(Head::find(dir.path()), None);
}

#[test]
fn a_strangers_repository_runs_nothing() {
    let dir = repository();
    let marker = dir.path().join("ran");
    let program = dir.path().join("program");
    fs_err::write(&program, format!("#!/bin/sh\n: > {}\n", marker.display())).expect("written");
    fs_err::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
    let program = program.to_str().expect("text");
    // A commit that is not here is fetched by what the configuration says, in a partial clone.
    for (name, value) in [
        ("core.repositoryformatversion", "1"),
        ("extensions.partialClone", "origin"),
        ("remote.origin.promisor", "true"),
        ("remote.origin.url", "file:///nonexistent"),
        ("remote.origin.uploadpack", program),
        ("core.fsmonitor", program),
        ("core.pager", program),
        ("core.sshCommand", program),
    ] {
        git(dir.path(), &["config", name, value]);
    }
    let lost = "1234567890123456789012345678901234567890";
    fs_err::write(dir.path().join(".git/refs/heads/master"), format!("{lost}\n")).expect("written");
    let head = Head::find(dir.path()).expect("a work tree");
    assert_eq!(head.id(), Some(lost));
    assert!(head.time(&env()).is_err());
    let source = read_source(dir.path(), &env());
    assert_eq!(source.commit_time, None);
    assert!(!marker.exists());
}

#[test]
fn change_requests_have_numbers_and_runs_by_the_clock_are_known() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let event = dir.path().join("event.json");
    fs_err::write(&event, r#"{"repository": {"default_branch": "trunk"}}"#).expect("written");
    let event = event.to_str().expect("text").to_owned();
    let source = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        read_source(dir.path(), &pairs.collect())
    };
    for pairs in [
        &[("GITHUB_EVENT_NAME", "pull_request"), ("GITHUB_REF", "refs/pull/12/merge"), ("GITHUB_BASE_REF", "next")][..],
        &[("CI_MERGE_REQUEST_IID", "12"), ("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "next")],
        &[("CIRCLE_PULL_REQUEST", "https://git.example/a/b/pull/12"), ("CHANGE_TARGET", "next")],
    ] {
        let source = source(pairs);
        let found = (source.event, source.request.as_deref(), source.request_base.as_deref());
        assert_eq!(found, (SourceEvent::PullRequest, Some("12"), Some("next")), "{pairs:?}");
    }
    let github = source(&[
        ("GITHUB_EVENT_NAME", "schedule"),
        ("GITHUB_REF_NAME", "trunk"),
        ("GITHUB_REF_TYPE", "branch"),
        ("GITHUB_EVENT_PATH", &event),
        ("GITHUB_SERVER_URL", "https://git.example"),
        ("GITHUB_REPOSITORY", "team/app"),
    ]);
    assert_eq!(github.event, SourceEvent::Schedule);
    assert_eq!(github.default_branch.as_deref(), Some("trunk"));
    assert_eq!(github.url.as_deref(), Some("https://git.example/team/app"));
    let gitlab =
        source(&[("CI_PIPELINE_SOURCE", "schedule"), ("CI_COMMIT_BRANCH", "main"), ("CI_DEFAULT_BRANCH", "main")]);
    assert_eq!((gitlab.event, gitlab.default_branch.as_deref()), (SourceEvent::Schedule, Some("main")));
}
