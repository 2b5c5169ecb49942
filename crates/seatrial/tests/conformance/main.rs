//! The conformance table: every case is built by Seatrial, and the image compared with what a peer gave for it.
//!
//! A case is a file below `cases/` (see [`case`]). The peers' answers are recorded in it, so that the whole table is checked
//! without them; where a peer is installed, some cases are put to it again. `README.md` beside this file says how to add a
//! case, record answers and print the table.
#![expect(clippy::print_stderr, reason = "a table that is printed on request")]

mod base;
mod case;
mod image;
mod peers;
mod served;
mod user;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use case::{Answer, Case};
use image::{EPOCH, Image, Tree};
use peers::Peer;
use served::Served;
use testkit::World;

const PROGRAM: &str = env!("CARGO_BIN_EXE_seatrial");

/// Of the recorded answers that an installed peer agreed with, one in so many is asked for again.
const LIVE_ONE_IN: usize = 6;

#[test]
fn every_case_gets_its_answer() {
    let table = Table::new();
    if let Some(peer) = setting("RECORD").filter(|peer| peer != "seatrial") {
        let peer = table.peer(&peer).unwrap_or_else(|missing| panic!("no peer to record from: {missing}"));
        table.each(|case| table.record(case, &peer));
        return;
    }
    let failures = table.each(|case| table.check(case));
    assert!(failures.is_empty(), "{}\n{} of {} cases fail", failures.join("\n"), failures.len(), table.cases.len());
}

#[test]
fn installed_peers_still_agree() {
    for kind in ["docker", "buildah"] {
        let table = Table::new();
        let peer = match table.peer(kind) {
            Ok(peer) => peer,
            Err(missing) => {
                testkit::skip(&missing);
                continue;
            }
        };
        let agreed = |case: &&Mutex<Case>| {
            let case = case.lock().expect("no case panics with its lock");
            // What fails may fail for another reason than was meant.
            let is_image = case.answer(Answer::Peer).is_some_and(|answer| answer.starts_with("ok"));
            is_image && (case.answered_by() == peer.name || case.agrees(peer.series()))
        };
        let chosen: Vec<&Mutex<Case>> = table.cases.iter().filter(agreed).step_by(LIVE_ONE_IN).collect();
        if chosen.is_empty() {
            testkit::skip(format_args!("no answers of {} are on record", peer.name));
        }
        let failures = each_of(&chosen, |case| {
            let live = table.ask(&peer, case);
            compare(case.answer(Answer::Peer).unwrap_or_default(), &live.unwrap_or_else(|said| refused(&said)))
        });
        assert!(failures.is_empty(), "{} gives another answer than was recorded:\n{}", peer.name, failures.join("\n"));
    }
}

/// Everything that cases need: the base image on both sides, and where differences are wanted.
struct Table {
    world: World,
    served: Served,
    base: Tree,
    cases: Vec<Mutex<Case>>,
    /// Case to reason.
    differences: BTreeMap<String, String>,
}

impl Table {
    fn new() -> Self {
        let directory = directory();
        let world = World::new(setting("PROGRAM").as_deref().unwrap_or(PROGRAM));
        base::write(&world.path("base.tar"));
        world.seatrial(["load"]).arg(world.path("base.tar")).run().exits(0);
        let base = Image::read_all(&world.path("base.tar")).remove(0).tree;
        let mut cases = Case::read_all(&directory.join("cases"));
        let differences = read_differences(&directory.join("differences.txt"));
        for name in differences.keys() {
            assert!(cases.iter().any(|case| case.name == *name), "differences.txt names `{name}`, which is no case");
        }
        if let Some(parts) = setting("CASE") {
            cases.retain(|case| parts.split(',').any(|part| case.name.contains(part)));
        }
        if let Some(one_in) = setting("ONE_IN") {
            cases = cases.into_iter().step_by(one_in.parse().expect("ONE_IN is a number")).collect();
        }
        let served = Served::start(&world.path(""));
        Self { world, served, base, cases: cases.into_iter().map(Mutex::new).collect(), differences }
    }

    fn peer(&self, kind: &str) -> Result<Peer, String> {
        Peer::start(kind, setting("PEER_BIN").map(PathBuf::from).as_deref(), &self.world.path("base.tar"))
    }

    fn each(&self, check: impl Fn(&mut Case) -> Result<(), String> + Sync) -> Vec<String> {
        each_of(&self.cases.iter().collect::<Vec<_>>(), check)
    }

    /// Puts the case to a peer and writes down what it gave, or that it agrees with what is there.
    fn record(&self, case: &mut Case, peer: &Peer) -> Result<(), String> {
        if case.expected().is_some() {
            return Ok(());
        }
        let answer = self.ask(peer, case).unwrap_or_else(|said| refused(&said));
        let is_first = case.answer(Answer::Peer).is_none()
            || case.answered_by() == peer.name
            || setting("AS").as_deref() == Some("answer");
        if is_first {
            case.set_answer(Answer::Peer, &peer.name, &answer);
        } else {
            let is_same = compare(case.answer(Answer::Peer).unwrap_or_default(), &answer).is_ok();
            case.set_agrees(peer.series(), is_same);
        }
        case.save();
        Ok(())
    }

    /// The peer's answer, or its messages.
    fn ask(&self, peer: &Peer, case: &Case) -> Result<String, String> {
        let directory = self.fresh_context(case);
        for (name, dockerfile) in case.images() {
            let file = directory.path().join("image.Dockerfile");
            fs::write(&file, dockerfile).expect("files can be written");
            peer.build(&case.context(directory.path()), &file, Some(name), &[])?;
        }
        let context = case.context(directory.path());
        let flags = self.flags(case, &context);
        Ok(self.show(&peer.build(&context, &context.join("Dockerfile"), None, &flags)?))
    }

    /// Builds with Seatrial and compares with the answer on record.
    fn check(&self, case: &mut Case) -> Result<(), String> {
        let verdict = match (self.verdict(case), case.header("pending")) {
            (verdict, None) => verdict,
            (Ok(()), Some(what)) => {
                Err(format!("passes, and is marked as waiting for {what}: remove the header `pending`"))
            }
            (Err(_), Some(_)) => Ok(()),
        };
        if setting("TABLE").is_some() {
            let result = match &verdict {
                Ok(()) if case.header("pending").is_some() => "pending",
                Ok(()) if self.differences.contains_key(&case.name) => "differs, as wanted",
                Ok(()) => "same",
                Err(_) => "FAILED",
            };
            eprintln!("{:<48} {:<20} {result}", case.name, case.answered_by());
        }
        verdict
    }

    fn verdict(&self, case: &mut Case) -> Result<(), String> {
        if case.header("needs") == Some("root") && !testkit::is_root() {
            testkit::skip(format_args!("{}: only root can make its context", case.name));
            return Ok(());
        }
        let (ours, messages) = self.build(case)?;
        if let Some(text) = case.header("error")
            && ours != "error\n"
        {
            return Err(format!("does not fail with `{text}`:\n{ours}"));
        }
        if let Some(text) = case.header("error")
            && !messages.contains(text)
        {
            return Err(format!("`{text}` is missing in:\n{messages}"));
        }
        if ours == "error\n" && case.header("error").is_none() {
            return Err(format!("fails without a header `error`:\n{messages}"));
        }
        let theirs = case.expected().or(case.answer(Answer::Peer)).ok_or("no answer is recorded")?;
        let same = compare(theirs, &ours).map_err(|changes| format!("{changes}{messages}"));
        match (self.differences.get(&case.name), same) {
            (None, same) => same,
            (Some(_), Ok(())) => Err("is listed in differences.txt, and does not differ".into()),
            (Some(_), Err(_)) if setting("RECORD").is_some() => {
                case.set_answer(Answer::Seatrial, "", &ours);
                case.save();
                Ok(())
            }
            (Some(_), Err(_)) => compare(case.answer(Answer::Seatrial).unwrap_or_default(), &ours)
                .map_err(|changes| format!("differs in another way than wanted:\n{changes}{messages}")),
        }
    }

    /// Seatrial's answer and its messages.
    fn build(&self, case: &Case) -> Result<(String, String), String> {
        let directory = self.fresh_context(case);
        let context = case.context(directory.path());
        for (name, dockerfile) in case.images() {
            let file = directory.path().join("image.Dockerfile");
            fs::write(&file, dockerfile).expect("files can be written");
            let session = self.world.seatrial(["build", "-q", "-t", name, "-f"]).arg(&file).arg(&context);
            session.env("SOURCE_DATE_EPOCH", EPOCH.to_string()).run().exits(0);
        }
        let archive = directory.path().join("image.tar");
        let output = format!("type=oci,dest={}", archive.display());
        let mut session =
            self.world.seatrial(["build", "--progress=plain", "-o", &output, "-f"]).arg(context.join("Dockerfile"));
        for flag in self.flags(case, &context) {
            session = session.arg(flag);
        }
        let finished = session.arg(&context).env("SOURCE_DATE_EPOCH", EPOCH.to_string()).run();
        match finished.code() {
            0 => Ok((self.show(&archive), finished.stderr())),
            // What a Dockerfile or its commands do wrong is 1 or 2; more than that is no answer.
            1 | 2 => Ok(("error\n".into(), finished.stderr())),
            code => Err(format!("exits {code}:\n{}", finished.stderr())),
        }
    }

    fn show(&self, archive: &Path) -> String {
        let images = Image::read_all(archive);
        images.iter().fold("ok\n".into(), |text, image| text + &image.show(&self.base))
    }

    fn fresh_context(&self, case: &Case) -> tempfile::TempDir {
        let directory = tempfile::Builder::new().prefix("case-").tempdir_in(self.world.path("")).expect("a directory");
        let context = case.context(directory.path());
        fs::create_dir(&context).expect("a fresh directory takes directories");
        case.write_context(&context, |text| self.served.place(text, &context));
        directory
    }

    /// The flags of a case, with the place of its files in them.
    fn flags(&self, case: &Case, context: &Path) -> Vec<String> {
        case.flags().iter().map(|flag| self.served.place(flag, context)).collect()
    }
}

/// What a peer that fails answers: that it does, and for readers, why.
fn refused(said: &str) -> String {
    let line = said.lines().rev().find(|line| line.to_lowercase().contains("error")).unwrap_or_default();
    // Names of BuildKit's own are new each time.
    let words = line.split_whitespace().map(|word| if word.contains("::") { "…" } else { word });
    format!("error\n# {}\n", words.collect::<Vec<_>>().join(" "))
}

/// Nothing, or the lines that are only in one of two answers. Lines that begin with `#` are for readers.
fn compare(expected: &str, given: &str) -> Result<(), String> {
    let lines = |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    let (expected, given) = (lines(expected), lines(given));
    if expected == given {
        return Ok(());
    }
    let missing = expected.iter().filter(|line| !given.contains(line)).map(|line| format!("  - {line}\n"));
    let surplus = given.iter().filter(|line| !expected.contains(line)).map(|line| format!("  + {line}\n"));
    Err(missing.chain(surplus).collect())
}

/// Does the same for each case, on all processors, and gathers what fails.
fn each_of(cases: &[&Mutex<Case>], check: impl Fn(&mut Case) -> Result<(), String> + Sync) -> Vec<String> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failures = Mutex::new(BTreeMap::new());
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..processors {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let mut case = case.lock().expect("no case panics with its lock");
                    if let Err(failure) = check(&mut case) {
                        let text =
                            format!("case {}: {}\n{failure}", case.name, case.header("title").unwrap_or_default());
                        failures.lock().expect("no thread panics with the lock").insert(case.name.clone(), text);
                    }
                }
            });
        }
    });
    failures.into_inner().expect("all threads are done").into_values().collect()
}

fn read_differences(path: &Path) -> BTreeMap<String, String> {
    let mut differences = BTreeMap::new();
    let mut reason = String::new();
    for line in fs::read_to_string(path).expect("differences.txt").lines().filter(|line| !line.starts_with('#')) {
        if line.is_empty() {
            reason.clear();
        } else if let Some(name) = line.strip_prefix("    ") {
            assert!(!reason.is_empty(), "`{name}` has no reason");
            differences.insert(name.trim().to_owned(), reason.clone());
        } else {
            reason.push_str(line);
        }
    }
    differences
}

/// Where the cases lie.
fn directory() -> PathBuf {
    setting("DIRECTORY").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance"), PathBuf::from)
}

/// `SEATRIAL_CONFORMANCE_…`.
fn setting(name: &str) -> Option<String> {
    std::env::var(format!("SEATRIAL_CONFORMANCE_{name}")).ok().filter(|value| !value.is_empty())
}
