//! Wheels and source distributions, to pypiserver and by pip back.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use packages::{Package, State, Target};

use crate::support::{login, look, publish, tar_gz, words, zip};

const WORD: &str = "pypi-AgEIcHlwaS5vcmc";

/// pypiserver on a port that the kernel chose, which asks for our password.
struct Pypiserver {
    child: Child,
    python: PathBuf,
    port: u16,
}

impl Pypiserver {
    fn start(directory: &Path) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/pypiserver/bin");
        let found = std::env::split_paths(&path).chain([own]).find(|at| at.join("pypi-server").is_file());
        let Some(bin) = found else {
            testkit::skip("`pypi-server` is not installed (PyPI: pypiserver)");
            return None;
        };
        let code = format!(
            "import pypiserver, sys\n\
             from wsgiref.simple_server import make_server\n\
             app = pypiserver.app(roots=[sys.argv[1]], auther=lambda *login: login == ('__token__', '{WORD}'), authenticate=['update'])\n\
             server = make_server('127.0.0.1', 0, app)\n\
             print(server.server_port, flush=True)\n\
             server.serve_forever()"
        );
        let python = bin.join("python");
        let mut command = Command::new(&python);
        command.arg("-c").arg(code).arg(directory).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("python starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Some(Self { child, python, port: line.trim().parse().expect("pypiserver listens") })
    }

    fn url(&self, path: &str) -> String {
        format!("pypi:http://127.0.0.1:{}{path}", self.port)
    }
}

impl Drop for Pypiserver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wheel(directory: &Path, text: &str) -> PathBuf {
    zip(
        &directory.join("Number_API-1.0.post1-py3-none-any.whl"),
        &[
            ("number_api.py", text),
            (
                "Number_API-1.0.post1.dist-info/METADATA",
                "Metadata-Version: 2.1\nName: Number.API\nVersion: 1.0.post1\nSummary: \u{fc}ber numbers\nClassifier: A :: B\n\nText.\n",
            ),
            (
                "Number_API-1.0.post1.dist-info/WHEEL",
                "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            ),
            ("Number_API-1.0.post1.dist-info/RECORD", "number_api.py,,\n"),
        ],
    )
}

#[tokio::test]
async fn a_wheel_goes_to_pypiserver_and_comes_back_by_pip() {
    let directory = tempfile::tempdir().unwrap();
    let [kept, made, installed] = ["kept", "made", "installed"].map(|name| directory.path().join(name));
    [&kept, &made].into_iter().for_each(|path| fs_err::create_dir(path).unwrap());
    let Some(server) = Pypiserver::start(&kept) else { return };
    let file = wheel(&made, "VALUE = 42\n");

    // What is missing there is elsewhere, says pypiserver: that is none of its own files.
    let (target, good) = (server.url("/simple"), login(None, WORD));
    assert_eq!(look(&target, Some(&good), &file).await.unwrap(), State::Absent);
    let wrong = login(None, "wrong-word");
    for login in [None, Some(&wrong)] {
        let error = publish(&target, login, &file).await.expect_err("a password is asked for");
        assert!(error.is_auth() && !words(&error).contains("wrong-word"), "{}", words(&error));
    }
    assert_eq!(publish(&target, Some(&good), &file).await.unwrap(), State::Sent);
    assert_eq!(publish(&server.url("/"), Some(&good), &file).await.unwrap(), State::WasThere);
    assert_eq!(look(&target, None, &file).await.unwrap(), State::WasThere);
    let stored = kept.join(file.file_name().unwrap());
    assert!(fs_err::read(stored).unwrap() == fs_err::read(&file).unwrap(), "every byte is there");

    let other = directory.path().join("other");
    fs_err::create_dir(&other).unwrap();
    let error = publish(&target, Some(&good), &wheel(&other, "VALUE = 43\n")).await.expect_err("it is another file");
    assert!(error.is_taken() && words(&error).contains("other content under this name"), "{}", words(&error));

    let sdist = tar_gz(
        &made.join("number_api-1.0.post1.tar.gz"),
        &[("number_api-1.0.post1/PKG-INFO", "Metadata-Version: 2.1\nName: number-api\nVersion: 1.0.post1\n")],
    );
    assert_eq!(publish(&target, Some(&good), &sdist).await.unwrap(), State::Sent);

    let mut pip = Command::new(&server.python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--isolated",
        "--disable-pip-version-check",
        "--no-cache-dir",
    ]);
    pip.args(["--only-binary", ":all:", "--index-url"]).arg(server.url("/simple").trim_start_matches("pypi:"));
    let status = pip.arg("--target").arg(&installed).arg("number-api==1.0.post1").status().unwrap();
    assert!(status.success());
    assert_eq!(fs_err::read_to_string(installed.join("number_api.py")).unwrap(), "VALUE = 42\n");
}

#[test]
fn what_is_no_package_of_python_is_refused_before_anything_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let target: Target = "pypi:https://pypi.example".parse().unwrap();
    let none = "Metadata-Version: 2.1\nName: other\nVersion: 1\n";
    for (file, reason) in [
        (zip(&at("a-1-py3-none-any.whl"), &[("a-1.dist-info/METADATA", none)]), "its metadata speaks of other 1"),
        (zip(&at("a-2-py3-none-any.whl"), &[("a.py", "")]), "it lacks its metadata"),
        (zip(&at("a.whl"), &[]), "a wheel's name is"),
        (tar_gz(&at("b-2-py3-none-any.whl"), &[("x", "")]), "it is no zip"),
        (zip(&at("a-1.tar.gz"), &[]), "it is no tar in gzip"),
        (zip(&at("a-1.egg"), &[]), "takes wheels"),
        (at("absent-1-py3-none-any.whl"), "No such file"),
    ] {
        let error = Package::read(&file, &target).expect_err(reason).to_string();
        assert!(error.contains(reason), "{error}");
    }
}
