//! The table of package files: what they hold, and which version that is.

use super::*;

/// Files of a repository, the one that is asked, and the answer; of errors, how they begin.
#[test]
fn versions_are_found_in_package_files() {
    let hatch = "[project]\ndynamic=['version']\n[tool.hatch.version]\npath='src/app/__about__.py'\n";
    let table: &[(&[(&str, &str)], &str)] = &[
        (&[("package.json", r#"{"name": "a", "version": "1.2.3"}"#)], "1.2.3"),
        (&[("package.json", "{}")], "!`package.json` has no `version`"),
        (&[("package.json", "{")], "!`package.json`: EOF"),
        (&[("package.json", r#"{"version": "a b"}"#)], "!`package.json` has `a b`, which is no version"),
        (&[("VERSION", "4.5.6\n")], "4.5.6"),
        (&[("README", "not a version")], "!`README` holds more than a version alone"),
        (&[("gradle.properties", "group=x\nversion=7.8\n")], "7.8"),
        (&[("app.toml", "version='0.3'\n")], "0.3"),
        // Cargo.
        (&[("Cargo.toml", "[package]\nversion = \"0.1.0\"\n")], "0.1.0"),
        (&[("Cargo.toml", "[workspace.package]\nversion = \"0.2.0\"\n")], "0.2.0"),
        (
            &[
                ("crates/a/Cargo.toml", "[package]\nversion.workspace = true\n"),
                ("crates/Cargo.toml", "[package]\nversion = \"9.9.9\"\n"),
                ("Cargo.toml", "[workspace]\n[workspace.package]\nversion = \"0.3.0\"\n"),
            ],
            "0.3.0",
        ),
        (
            &[
                ("a/Cargo.toml", "[package]\nversion = {workspace = true}\nworkspace = '../w'\n"),
                ("w/Cargo.toml", "[workspace.package]\nversion = \"0.4.0\"\n"),
            ],
            "0.4.0",
        ),
        (&[("Cargo.toml", "[package]\nversion.workspace = true\n")], "!`Cargo.toml` has no version of its own"),
        // Python.
        (&[("pyproject.toml", "[project]\nname='x'\nversion='2.0'\n")], "2.0"),
        (&[("pyproject.toml", "[tool.poetry]\nversion='2.1'\n")], "2.1"),
        (
            &[("pyproject.toml", "[project]\ndynamic=['version']\n")],
            "!`pyproject.toml` has no `project.version`, and nothing",
        ),
        (
            &[("pyproject.toml", "[project]\ndynamic=['version']\n[tool.setuptools_scm]\n")],
            "!`pyproject.toml` takes its version from Git",
        ),
        (
            &[("pyproject.toml", "[tool.poetry]\nversion='0.0.0'\n[tool.poetry-dynamic-versioning]\nenable=true\n")],
            "!`pyproject.toml` takes its version from Git",
        ),
        (
            &[
                (
                    "pyproject.toml",
                    "[project]\ndynamic=['version']\n[tool.setuptools.dynamic]\nversion={attr='app.__version__'}\n",
                ),
                ("src/app/__init__.py", "import os\n__version__: str = \"2.2\"\n"),
            ],
            "2.2",
        ),
        (
            &[
                (
                    "pyproject.toml",
                    "[project]\ndynamic=['version']\n[tool.setuptools.dynamic]\nversion={file=['VERSION']}\n",
                ),
                ("VERSION", "2.3\n"),
            ],
            "2.3",
        ),
        (&[("pyproject.toml", hatch), ("src/app/__about__.py", "__version__ = '2.4'\n")], "2.4"),
        (&[("pyproject.toml", hatch)], "!`pyproject.toml` has no file `src/app/__about__.py` in the repository"),
        (
            &[
                (
                    "pyproject.toml",
                    "[project]\nname='my-app'\ndynamic=['version']\n[build-system]\nbuild-backend='flit_core.buildapi'\n",
                ),
                ("my_app.py", "\"\"\"It.\"\"\"\n__version__ = '2.5'\n"),
            ],
            "2.5",
        ),
        (
            &[
                ("pyproject.toml", "[project]\ndynamic=['version']\n[build-system]\nbuild-backend='maturin'\n"),
                ("Cargo.toml", "[package]\nversion='2.6.0'\n"),
            ],
            "2.6.0",
        ),
        (
            &[
                ("pyproject.toml", "[build-system]\nrequires=['setuptools']\n"),
                ("setup.cfg", "[metadata]\nversion = 2.7\n"),
            ],
            "2.7",
        ),
        (&[("setup.cfg", "[bumpversion]\nversion = 0\n[metadata]\nname = a\nversion = 3.1\n")], "3.1"),
        (&[("setup.cfg", "[metadata]\nversion = attr: a.VERSION\n"), ("a.py", "VERSION = '3.2'\n")], "3.2"),
        (&[("setup.cfg", "[metadata]\nversion = file: V\n"), ("V", "3.3")], "3.3"),
        (&[("setup.cfg", "[bdist_wheel]\nversion = 3\n")], "!`setup.cfg` has no `version =` in `[metadata]`"),
        (&[("setup.py", "from setuptools import setup\nsetup(name='a',\n  version='3.4',  # version='1'\n)\n")], "3.4"),
        (&[("setup.py", "VERSION = \"3.5\"\nsetup(version=VERSION)\n")], "3.5"),
        (&[("setup.py", "setup(version=read('VERSION'))\n")], "!`setup.py` has no `version=\"…\"` as a plain text"),
        (&[("app.py", "__version__ = '3.6'\n")], "3.6"),
        // Maven.
        (&[("pom.xml", "<project><parent><version>1</version></parent><version>4.1</version></project>")], "4.1"),
        (
            &[(
                "pom.xml",
                "<project><parent><version>4.2</version></parent><dependencies><dependency><version>9</version></dependency></dependencies></project>",
            )],
            "4.2",
        ),
        (
            &[(
                "pom.xml",
                "<project><version>${revision}${changelist}</version><properties><revision>4.3</revision><changelist>-SNAPSHOT</changelist></properties></project>",
            )],
            "4.3-SNAPSHOT",
        ),
        (
            &[
                (
                    "app/pom.xml",
                    "<project><parent><artifactId>p</artifactId><version>${revision}</version></parent></project>",
                ),
                (
                    "pom.xml",
                    "<project><artifactId>p</artifactId><version>${revision}</version><properties><revision>4.4</revision></properties></project>",
                ),
            ],
            "4.4",
        ),
        (
            &[("pom.xml", "<project><version>${a}</version><properties><a>${a}</a></properties></project>")],
            "!`pom.xml` has no property `a`",
        ),
        (&[("pom.xml", "<project/>")], "!`pom.xml` has no `<version>`"),
        (&[("pom.xml", "<project><version>1</project>")], "!`pom.xml`: "),
    ];
    for (files, expected) in table {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path().canonicalize().expect("it is there");
        for (name, text) in *files {
            let path = root.join(name);
            fs_err::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs_err::write(path, text).expect("written");
        }
        let found = from_file(&root.join(files[0].0), &root, None);
        match (expected.strip_prefix('!'), found) {
            (Some(beginning), Err(error)) => assert!(error.to_string().starts_with(beginning), "{files:?}: {error}"),
            (None, Ok(version)) => assert_eq!(version, *expected, "{files:?}"),
            (_, found) => panic!("{files:?}: {found:?} instead of {expected}"),
        }
    }
}

#[test]
fn a_pattern_finds_the_version_in_any_file() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let root = dir.path().canonicalize().expect("it is there");
    let path = root.join("CMakeLists.txt");
    fs_err::write(&path, "cmake_minimum_required(VERSION 3.20)\nproject(app\n  VERSION 5.6.7)\n").expect("written");
    for (pattern, expected) in [
        (r"project\([^)]*VERSION ([\d.]+)", Some("5.6.7")),
        (r"(project)\([^)]*VERSION (?<version>[\d.]+)", Some("5.6.7")),
        (r"\d\.\d\.\d", Some("5.6.7")),
        ("RELEASE (.+)", None),
    ] {
        let pattern = Regex::new(pattern).expect("a pattern");
        assert_eq!(from_file(&path, &root, Some(&pattern)).ok().as_deref(), expected, "{pattern}");
    }
    assert!(from_file(&root.join("absent.json"), &root, None).is_err());
}

#[test]
fn no_file_outside_of_the_repository_is_followed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let root = dir.path().canonicalize().expect("it is there").join("repo");
    fs_err::create_dir_all(&root).expect("made");
    fs_err::write(root.join("../SECRET"), "1.0").expect("written");
    for (name, text) in [
        ("setup.cfg", "[metadata]\nversion = file: ../SECRET\n"),
        ("pyproject.toml", "[tool.hatch.version]\npath = '../SECRET'\n"),
    ] {
        fs_err::write(root.join(name), text).expect("written");
        let error = from_file(&root.join(name), &root, None).expect_err(name);
        assert!(error.to_string().ends_with("in the repository"), "{error}");
    }
}
