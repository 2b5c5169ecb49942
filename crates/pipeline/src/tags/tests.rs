//! The table of tags: source, rules, and what comes out.

use super::*;
use crate::{SourceEvent, Version};

fn source(text: &str) -> Source {
    let mut source = Source {
        sha: Some("3f2a91c0d4e5f60718293a4b5c6d7e8f90a1b2c3".into()),
        short: Some("3f2a91c".into()),
        ..Source::default()
    };
    for word in text.split_whitespace() {
        match word.split_once('=') {
            Some(("branch", branch)) => source.branch = Some(branch.into()),
            Some(("tag", tag)) => source.tag = Some(tag.into()),
            Some(("changed", paths)) => source.changed = Some(paths.split(',').map(str::to_owned).collect()),
            _ => match word {
                "push" => source.event = SourceEvent::Push,
                "tagged" => source.event = SourceEvent::Tag,
                "request" => source.event = SourceEvent::PullRequest,
                "nogit" => (source.sha, source.short) = (None, None),
                other => panic!("unknown word {other}"),
            },
        }
    }
    source
}

fn rule(text: &str) -> TagRule {
    let (tag, conditions) = text.split_once(" if ").unwrap_or((text, ""));
    let when = conditions.split(" or ").filter(|condition| !condition.is_empty()).map(when).collect();
    TagRule { tag: tag.into(), when, shorthand: None }
}

fn when(text: &str) -> When {
    let mut when = When::default();
    for word in text.split_whitespace() {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let list = || value.split(',').map(str::to_owned).collect();
        match key {
            "branch" => when.branch = list(),
            "event" => when.event = list(),
            "tag" => when.tag = list(),
            "path" => when.path = list(),
            name => drop(when.env.insert(name.into(), (!value.is_empty()).then(|| value.into()))),
        }
    }
    when
}

/// Tags, then `!reason` for each skipped one.
fn choose(source_text: &str, rules: &[&str]) -> String {
    let source = source(source_text);
    let env = [("RELEASE", "yes"), ("EMPTY", ""), ("NAME", "beta")].map(|(k, v)| (k.into(), v.into())).into();
    let mut values = Values::of(&source, Some(42), env);
    if let Some(tag) = &source.tag {
        values.version = Version::Known(crate::version::of_tag(tag).to_owned());
    }
    let rules: Vec<TagRule> = rules.iter().map(|text| rule(text)).collect();
    let chosen = choose_tags(&rules, &source, &values);
    assert!(chosen.tags.iter().all(|tag| oci::is_valid_tag(tag)), "{:?}", chosen.tags);
    let skipped = chosen.skipped.iter().map(|skipped| format!("!{}", skipped.reason));
    chosen.tags.iter().cloned().chain(skipped).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_table_of_tags() {
    let long = format!("branch={}", "x".repeat(200));
    let long_tag = "x".repeat(128);
    let table: &[(&str, &[&str], &str)] = &[
        // Templates.
        ("branch=master", &["${git.short}"], "3f2a91c"),
        ("branch=master", &["${git.sha}"], "3f2a91c0d4e5f60718293a4b5c6d7e8f90a1b2c3"),
        ("branch=master", &["${git.branch}"], "master"),
        ("branch=master", &["${git.short}", "${git.branch}"], "3f2a91c master"),
        ("branch=master", &["build-${run.number}"], "build-42"),
        ("branch=master", &["${NAME}"], "beta"),
        ("branch=master", &["${NAME}-${git.short}"], "beta-3f2a91c"),
        ("branch=master", &["${OTHER:-none}"], "none"),
        ("branch=master", &["sha-${git.short}"], "sha-3f2a91c"),
        ("branch=master tag=v1.4.2 tagged", &["${version}"], "1.4.2"),
        ("branch=master tag=v1.4.2 tagged", &["${git.tag}"], "v1.4.2"),
        ("tag=v1.4.2 tagged", &["base-${version}", "latest"], "base-1.4.2 latest"),
        ("tag=nightly tagged", &["${version}"], "nightly"),
        // Absent values.
        ("branch=master", &["${git.tag}"], "!the commit has no Git tag"),
        ("branch=master", &["${version}"], "!the pipeline file has no `version`"),
        ("", &["${git.branch}"], "!HEAD is on no branch"),
        ("nogit", &["${git.short}"], "!there is no Git commit"),
        ("branch=master", &["${OTHER}"], "!`OTHER` is not set"),
        ("branch=master", &["${OTHER:?say OTHER}"], "!say OTHER"),
        ("branch=master", &["${EMPTY}"], "!nothing of it is legal in a tag"),
        ("branch=master", &["x-${git.tag}", "y"], "y !the commit has no Git tag"),
        ("branch=master", &["${git.tag:-${git.branch}}"], "master"),
        // Legal names.
        ("branch=feature/x", &["${git.branch}"], "feature-x"),
        ("branch=feature/even/more", &["${git.branch}"], "feature-even-more"),
        ("branch=-dash", &["${git.branch}"], "dash"),
        ("branch=.dot", &["${git.branch}"], "dot"),
        ("branch=-.-.x", &["${git.branch}"], "x"),
        ("branch=ümlaut", &["${git.branch}"], "mlaut"),
        ("branch=a+b@c", &["${git.branch}"], "a-b-c"),
        ("branch=_x", &["${git.branch}"], "_x"),
        ("branch=UPPER", &["${git.branch}"], "UPPER"),
        ("branch=$(rm)", &["${git.branch}"], "rm-"),
        ("branch=a;b", &["x-${git.branch}"], "x-a-b"),
        ("branch=---", &["${git.branch}"], "!nothing of it is legal in a tag"),
        ("branch=日本", &["${git.branch}"], "!nothing of it is legal in a tag"),
        (&long, &["${git.branch}"], &long_tag),
        ("tag=1.0+build5 tagged", &["${version}"], "1.0-build5"),
        // Duplicates.
        ("branch=master", &["${git.branch}", "master"], "master"),
        ("branch=feature/x", &["feature-x", "${git.branch}"], "feature-x"),
        ("branch=master", &["a", "a", "b"], "a b"),
        // Conditions.
        ("branch=master", &["latest if branch=master"], "latest"),
        ("branch=develop", &["latest if branch=master"], "!branch is not master"),
        ("branch=develop", &["latest if branch=master,develop"], "latest"),
        ("branch=x", &["latest if branch=master,develop"], "!branch is not master or develop"),
        ("", &["latest if branch=master"], "!HEAD is on no branch"),
        ("branch=release/1", &["r if branch=release/*"], "r"),
        ("branch=release/1/2", &["r if branch=release/*"], "!branch is not release/*"),
        ("branch=release/1/2", &["r if branch=release/**"], "r"),
        ("branch=release", &["r if branch=rel*"], "r"),
        ("branch=v1", &["r if branch=v[0-9]"], "r"),
        ("branch=main", &["r if branch={main,master}"], "!branch is not {main or master}"),
        ("branch=master", &["latest if event=tag"], "!event is not tag"),
        ("branch=master push", &["edge if event=push"], "edge"),
        ("branch=master tag=v1 tagged", &["latest if event=tag"], "latest"),
        ("branch=x request", &["pr if event=pull_request"], "pr"),
        ("tag=v1.2.3 tagged", &["r if tag=v*"], "r"),
        ("tag=x1.2.3 tagged", &["r if tag=v*"], "!Git tag is not v*"),
        ("branch=master", &["r if tag=v*"], "!the commit has no Git tag"),
        ("branch=master", &["r if RELEASE=yes"], "r"),
        ("branch=master", &["r if RELEASE=no"], "!`RELEASE` is not no"),
        ("branch=master", &["r if RELEASE="], "r"),
        ("branch=master", &["r if EMPTY="], "!`EMPTY` is not set"),
        ("branch=master", &["r if ABSENT=x"], "!`ABSENT` is not set"),
        ("changed=src/a.rs,Dockerfile.base", &["r if path=Dockerfile.base"], "r"),
        ("changed=src/a.rs", &["r if path=Dockerfile.base"], "!the commit does not change Dockerfile.base"),
        ("changed=src/deep/a.rs", &["r if path=src/**"], "r"),
        ("changed=src/deep/a.rs", &["r if path=src/*"], "!the commit does not change src/*"),
        ("", &["r if path=x"], "!the changed files are not known"),
        // Keys mean and, lists mean or.
        ("branch=master push", &["r if branch=master event=tag"], "!event is not tag"),
        ("branch=master tag=v1 tagged", &["r if branch=master event=tag"], "r"),
        ("branch=x push", &["r if branch=master or event=tag"], "!branch is not master and event is not tag"),
        ("branch=master push", &["r if branch=master or event=tag"], "r"),
        ("tag=v1 tagged", &["r if branch=master or event=tag"], "r"),
        ("branch=x", &["r if branch=a or branch=a"], "!branch is not a"),
        // The Number API.
        (
            "branch=master",
            &["${git.tag}", "latest if event=tag", "master if branch=master"],
            "master !the commit has no Git tag !event is not tag",
        ),
        (
            "branch=master tag=v2.0 tagged",
            &["${git.tag}", "latest if event=tag", "master if branch=master"],
            "v2.0 latest master",
        ),
        (
            "tag=v2.0 tagged",
            &["${git.tag}", "latest if event=tag", "master if branch=master"],
            "v2.0 latest !HEAD is on no branch",
        ),
    ];
    assert!(table.len() >= 60, "{}", table.len());
    for (source, rules, expected) in table {
        // The helper splits lists at commas, also within braces; expectations are written accordingly.
        assert_eq!(&choose(source, rules), expected, "{source}: {rules:?}");
    }
}

#[test]
fn conditions_of_publishing_give_their_reasons() {
    let env = BTreeMap::new();
    assert_eq!(holds(&[], &source(""), &env), Ok(()));
    assert_eq!(holds(&[when("branch=master")], &source("branch=x"), &env), Err("branch is not master".into()));
}

/// One line of `cases.txt` through the pipeline file's own reader.
fn case(directory: &std::path::Path, line: &str) -> (String, String) {
    let [event, version, rules, expected] = line.split(" |").map(str::trim).collect::<Vec<_>>()[..] else {
        panic!("four columns: {line}");
    };
    let (mut tags, mut flavor) = (String::new(), String::new());
    for rule in rules.split("; ").map(str::trim) {
        let quoted = |text: &str| {
            if text.starts_with('{') { text.to_owned() } else { format!("'{}'", text.replace('\'', "''")) }
        };
        match rule.strip_prefix("flavor ") {
            Some(given) => flavor = format!("  flavor: {}\n", quoted(given)),
            None => tags.push_str(&format!("    - {}\n", quoted(rule))),
        }
    }
    let version = if version == "-" { String::new() } else { format!("version: '{version}'\n") };
    let text = format!("image: registry.example/app\n{version}publish:\n{flavor}  tags:\n{tags}");
    let (file, findings) = crate::file::parse(&text);
    assert!(findings.is_empty(), "{line}: {findings:?}");

    let mut source = source("");
    let seconds = std::time::Duration::from_secs;
    source.commit_time = Some(SystemTime::UNIX_EPOCH + seconds(1_767_323_045));
    source.default_branch = Some("main".into());
    match event.split(' ').collect::<Vec<_>>()[..] {
        ["push", branch] => source.branch = Some(branch.into()),
        ["schedule", branch] => (source.event, source.branch) = (SourceEvent::Schedule, Some(branch.into())),
        ["tag", tag] => (source.event, source.tag) = (SourceEvent::Tag, Some(tag.into())),
        ["request", number, branch] => {
            (source.event, source.branch) = (SourceEvent::PullRequest, Some(branch.into()));
            (source.request, source.request_base) = (Some(number.into()), Some("main".into()));
        }
        _ => panic!("{line}"),
    }
    let env = BTreeMap::from([("NAME".to_owned(), "beta".to_owned())]);
    let inputs = crate::PlanInputs {
        file: &file,
        text: None,
        base: directory,
        source: &source,
        env: &env,
        run_number: Some(42),
    };
    let (plan, findings) = crate::plan(inputs);
    assert!(findings.iter().all(|finding| !finding.is_error()), "{line}: {findings:?}");
    let publish = plan.publish.expect("there is one");
    let now = Some(SystemTime::UNIX_EPOCH + seconds(1_770_091_506));
    let inputs =
        TagInputs { rules: &publish.tags, flavor: &publish.flavor, source: &source, values: &plan.values, now };
    let chosen = choose_tags_by(inputs);
    assert!(chosen.tags.iter().all(|tag| oci::is_valid_tag(tag)), "{line}: {:?}", chosen.tags);
    let skipped = chosen.skipped.iter().map(|skipped| format!("!{}", skipped.reason));
    let found = chosen.tags.iter().cloned().chain(skipped).collect::<Vec<_>>().join(" ");
    (found, expected.to_owned())
}

#[test]
fn the_table_of_well_known_tags() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs_err::write(directory.path().join("Dockerfile"), "FROM scratch\n").expect("written");
    let lines = include_str!("cases.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let cases: Vec<&str> = lines.collect();
    assert!(cases.len() >= 100, "{}", cases.len());
    let wrong = cases.iter().filter_map(|line| {
        let (found, expected) = case(directory.path(), line);
        (found != expected).then(|| format!("{line}\n    gives {found}"))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// As it stands in a workflow of GitHub.
#[test]
fn a_block_of_lines_is_a_list_of_tags() {
    let text = "image: registry.example/app\npublish:\n  tags: |\n    # of the branch\n    type=ref,event=branch\n\n    \
                type=sha\n    ${git.branch}\n  flavor: |\n    latest=false\n    suffix=-alpine,onlatest=true\n";
    let (file, findings) = crate::file::parse(text);
    assert!(findings.is_empty(), "{findings:?}");
    let publish = file.publish.expect("there is one");
    let told =
        |tag: &crate::file::Tag| [&tag.kind, &tag.tag].into_iter().flatten().map(|at| at.value.clone()).collect();
    let tags: Vec<String> = publish.tags.expect("given").iter().map(told).collect();
    assert_eq!(tags, ["ref", "sha", "${git.branch}"]);
    let flavor = publish.flavor.expect("given");
    assert_eq!(flavor.latest.expect("given").value, "false");
    assert!(flavor.suffix_latest);
}
