//! Which Debian mirrors this machine uses (sources.list(5)): where only a local mirror can be reached, it is named there.

use std::path::PathBuf;

/// Where packages come from when neither the user nor this machine says.
const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";
const DEFAULT_SECURITY: &str = "http://deb.debian.org/debian-security";

/// One source of packages, as a line of sources.list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) uri: String,
    pub(crate) suite: String,
    pub(crate) components: Vec<String>,
    /// `trusted=yes`: the machine's administrator vouches for an unsigned mirror.
    pub(crate) is_trusted: bool,
}

impl Source {
    /// The one-line form.
    pub(crate) fn line(&self) -> String {
        let options = if self.is_trusted { "[trusted=yes] " } else { "" };
        format!("deb {options}{} {} {}", self.uri, self.suite, self.components.join(" "))
    }

    /// Where its signed table of contents lies, newest form first.
    pub(crate) fn release_uris(&self) -> [String; 2] {
        let base = self.uri.trim_end_matches('/');
        ["InRelease", "Release"].map(|name| format!("{base}/dists/{}/{name}", self.suite))
    }

    fn main(uri: &str, suite: &str) -> Self {
        Self { uri: uri.into(), suite: suite.into(), components: vec!["main".into()], is_trusted: false }
    }
}

/// The sources of `suite`: the mirror that the user names, else those of this machine, else Debian's own.
pub(crate) fn sources_for(suite: &str, mirror: Option<&str>, machine: &[Source]) -> Vec<Source> {
    if let Some(mirror) = mirror {
        return vec![Source::main(mirror, suite)];
    }
    let belongs = |source: &&Source| {
        let rest = source.suite.strip_prefix(suite);
        rest.is_some_and(|rest| ["", "-updates", "-security", "/updates"].contains(&rest))
            && source.components.iter().any(|component| component == "main")
    };
    let own: Vec<Source> = machine.iter().filter(belongs).cloned().collect();
    if own.iter().any(|source| source.suite == suite) {
        return own;
    }
    let debian = machine.iter().find(|source| source.uri.trim_end_matches('/').ends_with("/debian"));
    if let Some(debian) = debian {
        return vec![Source { is_trusted: debian.is_trusted, ..Source::main(&debian.uri, suite) }];
    }
    let mut sources = vec![Source::main(DEFAULT_MIRROR, suite)];
    // The rolling suites have neither updates nor security.
    if !["sid", "unstable", "experimental"].contains(&suite) {
        sources.push(Source::main(DEFAULT_MIRROR, &format!("{suite}-updates")));
        sources.push(Source::main(DEFAULT_SECURITY, &format!("{suite}-security")));
    }
    sources
}

/// What this machine's own apt uses. Files that cannot be read count as absent, as for apt without them.
pub(crate) fn sources_of_this_machine() -> Vec<Source> {
    let mut sources = Vec::new();
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs_err::read_dir("/etc/apt/sources.list.d") {
        let mut more: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        more.sort();
        files.extend(more);
    }
    for file in files {
        let Ok(text) = fs_err::read_to_string(&file) else { continue };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(text.lines().filter_map(one_line)),
            Some("sources") => sources.extend(stanzas(&text)),
            _ => {}
        }
    }
    sources
}

fn one_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source {
        uri: words.next()?,
        suite: words.next()?,
        components: words.collect(),
        is_trusted: options.split_whitespace().any(|option| option == "trusted=yes"),
    })
}

fn stanzas(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in lines.split(|line| line.trim().is_empty()) {
        let field = |name: &str| -> Vec<String> {
            let mut words = Vec::new();
            let mut is_inside = false;
            for line in stanza {
                if line.starts_with([' ', '\t']) {
                    if is_inside {
                        words.extend(line.split_whitespace().map(str::to_owned));
                    }
                } else {
                    is_inside = line.split_once(':').is_some_and(|(key, value)| {
                        let is_it = key.trim().eq_ignore_ascii_case(name);
                        if is_it {
                            words.extend(value.split_whitespace().map(str::to_owned));
                        }
                        is_it
                    });
                }
            }
            words
        };
        let is_off = field("Enabled").first().is_some_and(|value| value == "no");
        if is_off || !field("Types").iter().any(|kind| kind == "deb") {
            continue;
        }
        for uri in field("URIs") {
            for suite in field("Suites") {
                sources.push(Source {
                    uri: uri.clone(),
                    suite,
                    components: field("Components"),
                    is_trusted: field("Trusted").first().is_some_and(|value| value == "yes"),
                });
            }
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(sources: &[Source]) -> Vec<String> {
        sources.iter().map(Source::line).collect()
    }

    const DEB822: &str = "Types: deb\n# a comment\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n\
                          Components: main contrib\n\nTypes: deb deb-src\nURIs:\n http://mirror.example/security\n\
                          Suites: bookworm-security\nComponents: main\nTrusted: yes\n\nEnabled: no\nTypes: deb\n\
                          URIs: http://off.example\nSuites: bookworm\nComponents: main\n";

    #[test]
    fn the_machines_own_mirror_is_used() {
        let machine = stanzas(DEB822);
        assert_eq!(
            lines(&sources_for("bookworm", None, &machine)),
            [
                "deb http://mirror.example/debian bookworm main contrib",
                "deb http://mirror.example/debian bookworm-updates main contrib",
                "deb [trusted=yes] http://mirror.example/security bookworm-security main",
            ]
        );
        let other = lines(&sources_for("trixie", None, &machine));
        assert_eq!(other, ["deb http://mirror.example/debian trixie main"]);
    }

    #[test]
    fn one_line_sources_are_read() {
        let line = "deb [ arch=amd64 trusted=yes ] file:/srv/debian bookworm main # here";
        assert_eq!(one_line(line).unwrap().line(), "deb [trusted=yes] file:/srv/debian bookworm main");
        for line in ["", "# deb http://x y main", "deb-src http://x y main", "deb http://x", "debx a b"] {
            assert_eq!(one_line(line), None, "{line}");
        }
    }

    #[test]
    fn without_any_debian_its_own_mirror_is_used() {
        let ubuntu = Source::main("http://archive.ubuntu.com/ubuntu", "noble");
        let found = lines(&sources_for("bookworm", None, &[ubuntu]));
        assert_eq!(found.len(), 3);
        assert!(found[2].contains("debian-security bookworm-security main"));
        assert_eq!(sources_for("sid", None, &[]).len(), 1);
    }

    #[test]
    fn a_named_mirror_is_the_only_one() {
        let found = lines(&sources_for("bookworm", Some("http://x.example/d"), &stanzas(DEB822)));
        assert_eq!(found, ["deb http://x.example/d bookworm main"]);
    }

    #[test]
    fn release_files_lie_below_dists() {
        let source = Source::main("http://x.example/debian/", "bookworm");
        assert_eq!(source.release_uris()[0], "http://x.example/debian/dists/bookworm/InRelease");
        assert!(source.release_uris()[1].ends_with("/Release"));
    }
}
