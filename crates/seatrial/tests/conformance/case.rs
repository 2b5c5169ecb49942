//! One case: a text file with a Dockerfile, the files of its context, and the answer that it must get.
//!
//! ```text
//! title: COPY makes the directory that a trailing slash names
//! rule: COPY, "Destination"
//! flags: --build-arg A=1
//! == Dockerfile
//! FROM base
//! COPY a /x/
//! == file a 600
//! content
//! == setup
//! ln a b
//! == answer docker 28.5.2
//! ok
//! d755 0:0 new /x
//! -600 0:0 1600000000 /x/a "content\n"
//! ```

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// Time of every file of a context, in seconds, unless its case says `times: kept`.
const CONTEXT_TIME: u64 = 1_600_000_000;

/// Time of every commit that a setup makes.
const GIT_DATE: &str = "1600000000 +0000";

/// A case as it stands in its file.
#[derive(Default)]
pub(crate) struct Case {
    /// `topic/name`.
    pub(crate) name: String,
    path: PathBuf,
    /// `key: value` lines above the first section.
    headers: Vec<(String, String)>,
    sections: Vec<Section>,
}

struct Section {
    /// Words after `==`.
    title: Vec<String>,
    body: String,
}

/// A machine-written section.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Answer {
    /// What the peer gave.
    Peer,
    /// What Seatrial gives where the difference is wanted.
    Seatrial,
}

impl Answer {
    fn title(self) -> &'static str {
        match self {
            Answer::Peer => "answer",
            Answer::Seatrial => "seatrial",
        }
    }
}

impl Case {
    /// All cases below a directory, by name.
    pub(crate) fn read_all(directory: &Path) -> Vec<Case> {
        let mut cases = Vec::new();
        for topic in fs::read_dir(directory).expect("the cases' directory") {
            let topic = topic.expect("an entry").path();
            for file in fs::read_dir(&topic).expect("topics are directories") {
                let path = file.expect("an entry").path();
                let name = format!("{}/{}", last(&topic), last(&path).trim_end_matches(".case"));
                cases.push(Case::parse(name, &path));
            }
        }
        cases.sort_by(|left, right| left.name.cmp(&right.name));
        cases
    }

    fn parse(name: String, path: &Path) -> Case {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut case = Case { name, path: path.to_owned(), ..Case::default() };
        for line in text.split_inclusive('\n') {
            if let Some(title) = line.strip_prefix("== ") {
                let title = title.split_whitespace().map(str::to_owned).collect();
                case.sections.push(Section { title, body: String::new() });
            } else if let Some(section) = case.sections.last_mut() {
                section.body.push_str(line);
            } else {
                let header = line.trim_end().split_once(": ").map(|(key, value)| (key.to_owned(), value.to_owned()));
                case.headers.push(header.unwrap_or_else(|| panic!("{}: not a header: {line}", case.name)));
            }
        }
        let known = ["title", "rule", "flags", "times", "needs", "error", "agrees", "pending"];
        for (key, _) in &case.headers {
            assert!(known.contains(&key.as_str()), "{}: unknown header `{key}`", case.name);
        }
        assert!(case.header("title").is_some() && case.header("rule").is_some(), "{}: no title or rule", case.name);
        case
    }

    pub(crate) fn header(&self, key: &str) -> Option<&str> {
        self.headers.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Whether a peer, named as `docker 20.10`, gave the answer on record too.
    pub(crate) fn agrees(&self, peer: &str) -> bool {
        self.header("agrees").is_some_and(|peers| peers.split(", ").any(|name| name == peer))
    }

    /// Notes that a peer agrees, or that it does not.
    pub(crate) fn set_agrees(&mut self, peer: &str, is_same: bool) {
        let peers = self.header("agrees").unwrap_or_default().to_owned();
        let mut peers: Vec<&str> = peers.split(", ").filter(|name| !name.is_empty() && *name != peer).collect();
        peers.extend(is_same.then_some(peer));
        peers.sort_unstable();
        self.headers.retain(|(name, _)| name != "agrees");
        if !peers.is_empty() {
            self.headers.push(("agrees".into(), peers.join(", ")));
        }
    }

    /// Flags of `build`, the same for everybody.
    pub(crate) fn flags(&self) -> Vec<String> {
        self.header("flags").unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    }

    /// Images to be built first, with their Dockerfiles.
    pub(crate) fn images(&self) -> Vec<(&str, &str)> {
        let images = self.sections.iter().filter(|section| section.title[0] == "image");
        images.map(|section| (section.title[1].as_str(), section.body.as_str())).collect()
    }

    /// The answer in words of the case's author, where no peer can give one.
    pub(crate) fn expected(&self) -> Option<&str> {
        self.section("expected").map(|section| section.body.as_str())
    }

    pub(crate) fn answer(&self, which: Answer) -> Option<&str> {
        self.section(which.title()).map(|section| section.body.as_str())
    }

    /// Name and version of who gave the answer.
    pub(crate) fn answered_by(&self) -> String {
        match self.section("answer") {
            Some(section) => section.title[1..].join(" "),
            None if self.expected().is_some() => "the reference".into(),
            None => "nobody".into(),
        }
    }

    pub(crate) fn set_answer(&mut self, which: Answer, by: &str, body: &str) {
        self.drop_answer(which);
        let title = [which.title()].into_iter().chain(by.split_whitespace()).map(str::to_owned).collect();
        self.sections.push(Section { title, body: body.into() });
        // The peer's before ours.
        self.sections.sort_by_key(|section| match section.title[0].as_str() {
            "answer" => 1,
            "seatrial" => 2,
            _ => 0,
        });
    }

    pub(crate) fn drop_answer(&mut self, which: Answer) {
        self.sections.retain(|section| section.title[0] != which.title());
    }

    /// Writes the file again.
    pub(crate) fn save(&self) {
        let mut text = String::new();
        for (key, value) in &self.headers {
            text.push_str(&format!("{key}: {value}\n"));
        }
        for section in &self.sections {
            text.push_str(&format!("== {}\n{}", section.title.join(" "), section.body));
        }
        fs::write(&self.path, text).expect("a case can be written");
    }

    /// Where the context lies below a directory. BuildKit takes files of one size and time in directories of one name for
    /// the same, so each case has its own name.
    pub(crate) fn context(&self, directory: &Path) -> PathBuf {
        directory.join(self.name.replace('/', "-"))
    }

    /// Lays out the context in an empty directory. `place` says where things are to whom the text asks.
    pub(crate) fn write_context(&self, directory: &Path, place: impl Fn(&str) -> String) {
        for section in &self.sections {
            let title: Vec<&str> = section.title.iter().map(String::as_str).collect();
            match title[..] {
                ["Dockerfile"] => write(&directory.join("Dockerfile"), &place(&section.body), 0o644),
                ["file", name] => write(&directory.join(name), &place(&section.body), 0o644),
                ["file", name, mode] => {
                    let mode = u32::from_str_radix(mode, 8).unwrap_or_else(|_| panic!("{}: mode {mode}", self.name));
                    write(&directory.join(name), &place(&section.body), mode);
                }
                ["setup"] => self.set_up(directory, &section.body),
                ["image", _] | ["expected"] | ["answer", ..] | ["seatrial"] => {}
                _ => panic!("{}: unknown section `{}`", self.name, title.join(" ")),
            }
        }
        if self.header("times") != Some("kept") {
            let touched = Command::new("find")
                .arg(directory)
                .args(["-exec", "touch", "--no-dereference", "--date", &format!("@{CONTEXT_TIME}"), "{}", "+"])
                .status();
            assert!(touched.expect("find and touch are everywhere").success(), "{}", self.name);
        }
    }

    fn set_up(&self, directory: &Path, script: &str) {
        let script = format!("umask 022; set -e\n{script}");
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).current_dir(directory);
        // The same commits for everybody, whatever the settings of whoever runs this.
        for (name, value) in [
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_AUTHOR_NAME", "Ann"),
            ("GIT_AUTHOR_EMAIL", "ann@localhost"),
            ("GIT_AUTHOR_DATE", GIT_DATE),
            ("GIT_COMMITTER_NAME", "Ann"),
            ("GIT_COMMITTER_EMAIL", "ann@localhost"),
            ("GIT_COMMITTER_DATE", GIT_DATE),
        ] {
            bash.env(name, value);
        }
        let status = bash.status().expect("bash");
        assert!(status.success(), "{}: the setup failed", self.name);
    }

    fn section(&self, title: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.title[0] == title)
    }
}

fn write(path: &Path, content: &str, mode: u32) {
    for directory in path.parent().expect("files have directories").ancestors().collect::<Vec<_>>().into_iter().rev() {
        if !directory.exists() {
            fs::create_dir(directory).expect("directories can be made");
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("modes can be set");
        }
    }
    fs::write(path, content).expect("files can be written");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("modes can be set");
}

fn last(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}
