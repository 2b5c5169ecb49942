//! Files of the web through the real client: what is asked, what comes into the image, what is refused.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use dockerfile::Diagnostic;
use engine::{BuildError, Built, NamedContext, RemoteSource};
use engine_embedded::FetchError;
use oci::Digest;

use crate::World;

const MODIFIED: &str = "Last-Modified: Sat, 01 Jan 2022 00:00:00 GMT";
const MODIFIED_SECONDS: i64 = 1_640_995_200;

/// One answer.
#[derive(Clone, Default)]
struct Page {
    status: u16,
    headers: Vec<String>,
    body: Vec<u8>,
    /// The connection ends before the last bytes.
    is_cut: bool,
    /// Entity tags in requests are not looked at.
    ignores_tags: bool,
}

impl Page {
    fn of(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    fn header(mut self, line: impl Into<String>) -> Self {
        self.headers.push(line.into());
        self
    }
}

/// A server on this machine; requests are kept.
#[derive(Clone)]
struct Web {
    address: SocketAddr,
    pages: Arc<Mutex<HashMap<String, Page>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Web {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let web = Self { address: listener.local_addr().unwrap(), pages: Arc::default(), requests: Arc::default() };
        let server = web.clone();
        // Ends with the test program.
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let server = server.clone();
                // A client that goes away in the middle is no matter of the server's.
                std::thread::spawn(move || drop(server.answer(connection.unwrap())));
            }
        });
        web
    }

    fn answer(&self, connection: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(connection.try_clone()?);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        self.requests.lock().unwrap().push(head.clone());
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let page = self.pages.lock().unwrap().get(&path).cloned().unwrap_or_else(|| Page::status(404));
        let asked =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("if-none-match: ").map(str::to_owned));
        let has = page.headers.iter().find_map(|line| line.strip_prefix("ETag: "));
        let is_same = !page.ignores_tags && asked.is_some() && asked.as_deref() == has;
        let mut connection = connection;
        if is_same {
            return write!(connection, "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n");
        }
        write!(
            connection,
            "HTTP/1.1 {} X\r\nConnection: close\r\nContent-Length: {}\r\n",
            page.status,
            page.body.len()
        )?;
        page.headers.iter().try_for_each(|line| write!(connection, "{line}\r\n"))?;
        connection.write_all(b"\r\n")?;
        let end = if page.is_cut { page.body.len() / 2 } else { page.body.len() };
        connection.write_all(&page.body[..end])
    }

    fn put(&self, path: &str, page: Page) -> String {
        self.pages.lock().unwrap().insert(path.to_owned(), page);
        format!("http://{}{path}", self.address)
    }

    fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }
}

fn build(world: &World, dockerfile: &str) -> Result<Built, BuildError> {
    world.engine.build_blocking(&world.request(dockerfile), &world.events)
}

fn diagnostic(error: BuildError) -> Diagnostic {
    match error {
        BuildError::Invalid { mut diagnostics, .. } => diagnostics.remove(0),
        other => panic!("{other:?}"),
    }
}

fn file(world: &World, built: &Built, path: &str) -> PathBuf {
    let found = built.layers.iter().rev().map(|layer| world.store.snapshot_fs(layer).join(path));
    found.into_iter().find(|path| path.exists()).unwrap_or_else(|| panic!("{path} is not in the image"))
}

pub(crate) async fn files_of_the_web_are_added(world: World) {
    let web = Web::start();
    let url = web.put("/a/f%20x.txt?v=1", Page::of("F").header(MODIFIED));
    let unnamed = web.put("/", Page::of("U").header("Content-Disposition: attachment; filename=\"other\""));
    let archive = {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        builder.append_data(&mut header, "in", b"I".as_slice()).unwrap();
        web.put("/a.tar", Page::of(builder.into_inner().unwrap()))
    };
    let dockerfile = format!(
        "FROM scratch\nADD {url} {unnamed} /d/\nADD --chmod=u+x,go=r {url} /new\nADD {archive} /kept\nADD --unpack {archive} /un\n\
         ADD --unpack=true {url} /plain\nADD --chown=7:8 {url} /owned\n"
    );
    let built = build(&world, &dockerfile).unwrap();
    let look = |path: &str| {
        let path = file(&world, &built, path);
        let metadata = fs::metadata(&path).unwrap();
        (fs::read(&path).unwrap().len(), metadata.mode() & 0o7777, metadata.mtime())
    };
    assert_eq!(look("d/f x.txt"), (1, 0o600, MODIFIED_SECONDS));
    // As BuildKit: no time is as old as can be, no name is this one.
    assert_eq!(look("d/__unnamed__"), (1, 0o600, 0));
    assert_eq!(look("new"), (1, 0o744, MODIFIED_SECONDS));
    assert_eq!(look("kept").0, 2048);
    assert_eq!(look("un/in").0, 1);
    assert_eq!(look("plain"), (1, 0o600, MODIFIED_SECONDS));
    if world.has_owners() {
        assert_eq!(fs::metadata(file(&world, &built, "owned")).unwrap().uid(), 7);
    }
    // Each file once, however often it is named.
    assert_eq!(web.take_requests().len(), 3);
}

pub(crate) async fn unchanged_files_are_not_fetched_again(world: World) {
    let web = Web::start();
    let url = web.put("/f", Page::of("one").header("ETag: \"1\""));
    let dockerfile = format!("FROM scratch\nADD {url} /f\n");
    let content = |built: &Built| fs::read_to_string(file(&world, built, "f")).unwrap();
    assert_eq!(content(&build(&world, &dockerfile).unwrap()), "one");
    let steps = world.made_steps();
    build(&world, &dockerfile).unwrap();
    assert_eq!(world.made_steps(), steps);
    let asked = web.take_requests();
    assert!(asked[1].to_ascii_lowercase().contains("if-none-match: \"1\""), "{asked:?}");
    // A server that does not look at what it is asked, and one whose file is another.
    web.put("/f", Page { ignores_tags: true, ..Page::of("one").header("ETag: W/\"1\"") });
    build(&world, &dockerfile).unwrap();
    assert_eq!(world.made_steps(), steps);
    web.put("/f", Page::of("two").header("ETag: \"2\""));
    assert_eq!(content(&build(&world, &dockerfile).unwrap()), "two");
    assert_eq!(world.made_steps(), steps + 1);
    // The same content under another time is another file.
    web.put("/f", Page::of("two").header(MODIFIED));
    build(&world, &dockerfile).unwrap();
    assert_eq!(world.made_steps(), steps + 2);
}

pub(crate) async fn checksums_are_verified(world: World) {
    let web = Web::start();
    let url = web.put("/f", Page::of("F"));
    let (right, wrong) = (Digest::of(b"F"), Digest::of(b"G"));
    let dockerfile = format!("FROM scratch\nADD --checksum={right} {url} /\n");
    build(&world, &dockerfile).unwrap();
    assert_eq!(web.take_requests().len(), 1);
    // What is known by its digest is asked of nobody, also at another place.
    build(&world, &dockerfile).unwrap();
    build(&world, &format!("FROM scratch\nADD --checksum={right} {url} /other\n")).unwrap();
    assert_eq!(web.take_requests().len(), 0);
    let error = build(&world, &format!("FROM scratch\nADD --checksum={wrong} {url} /\n")).unwrap_err();
    let diagnostic = diagnostic(error);
    assert_eq!(diagnostic.code, "ST129");
    let notes = diagnostic.notes.join(" ");
    assert!(notes.contains(right.hex()) && notes.contains(wrong.hex()), "{notes}");
}

pub(crate) async fn failures_of_the_web_are_told(world: World) {
    let web = Web::start();
    let fail = |url: &str| build(&world, &format!("FROM scratch\nADD {url} /\n")).unwrap_err();
    let missing = diagnostic(fail(&format!("http://u:secret@{}/gone", web.address)));
    assert_eq!(missing.code, "ST128");
    assert!(!missing.message.contains("secret") && missing.span.is_some(), "{missing:?}");
    let remote = |error: BuildError| match error {
        BuildError::Remote { is_auth, source, place, what } => {
            assert!(place.is_some() && !what.contains("secret"));
            (is_auth, source.to_string())
        }
        other => panic!("{other:?}"),
    };
    let url = web.put("/closed", Page::status(401));
    assert_eq!(remote(fail(&url)), (true, "the server answers 401 Unauthorized".into()));
    web.take_requests();
    let url = web.put("/ill", Page::status(503));
    assert_eq!(remote(fail(&url)), (false, "the server answers 503 Service Unavailable".into()));
    assert_eq!(web.take_requests().len(), 3);
    let url = web.put("/cut", Page { is_cut: true, ..Page::of("a long text") });
    assert!(!remote(fail(&url)).0);
    let url = web.put("/circle", Page::status(302).header("Location: /circle"));
    assert!(remote(fail(&url)).1.contains("more than 10"), "{}", remote(fail(&url)).1);
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    assert!(!remote(fail(&format!("http://{nobody}/f"))).0);
    // Nothing half fetched is kept.
    assert_eq!(fs::read_dir(world.store.root().join("blobs/sha256")).map_or(0, Iterator::count), 0);
}

pub(crate) async fn credentials_stay_with_their_host(world: World) {
    let (first, second) = (Web::start(), Web::start());
    let target = second.put("/f", Page::of("F"));
    first.put("/here", Page::status(302).header("Location: /there"));
    first.put("/there", Page::status(302).header(format!("Location: {target}")));
    build(&world, &format!("FROM scratch\nADD http://u:p@{}/here /\n", first.address)).unwrap();
    let has = |request: &String| request.to_ascii_lowercase().contains("authorization: basic dtpw");
    assert_eq!(first.take_requests().iter().map(has).collect::<Vec<_>>(), [true, true]);
    assert_eq!(second.take_requests().iter().map(has).collect::<Vec<_>>(), [false]);
}

pub(crate) async fn contexts_come_from_the_web(world: World) {
    let web = Web::start();
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in [("Dockerfile", "FROM scratch\nCOPY f /f\n"), ("f", "F"), ("../escape", "E")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    let tar = builder.into_inner().unwrap();
    let archive = web.put("/ctx", Page::of(zstd::encode_all(&tar[..], 1).unwrap()));
    let plain = web.put("/Dockerfile.web", Page::of("FROM scratch\n"));
    let fetch = |url: &str| {
        let source = RemoteSource::parse(url).unwrap().unwrap();
        world.engine.fetch_context(&source, false, &engine::Cancel::new(), &world.events)
    };
    let fetched = fetch(&archive).unwrap();
    assert_eq!(fetched.file, None);
    assert_eq!(fs::read_to_string(fetched.directory.join("f")).unwrap(), "F");
    assert!(fetched.directory.join("escape").exists());
    let fetched = fetch(&plain).unwrap();
    assert_eq!(fs::read_to_string(fetched.directory.join(fetched.file.unwrap())).unwrap(), "FROM scratch\n");
    assert!(matches!(fetch(&format!("http://{}/gone", web.address)), Err(FetchError::Wrong(_))));
    // The same through stdin's way, and as a named context.
    let unpacked = world.engine.unpack_context(&mut &tar[..], &engine::Cancel::new()).unwrap().unwrap();
    assert_eq!(fs::read_to_string(unpacked.join("f")).unwrap(), "F");
    assert!(world.engine.unpack_context(&mut b"FROM scratch".as_slice(), &engine::Cancel::new()).unwrap().is_none());
    let mut request = world.request("FROM scratch\nCOPY --from=web f /g\n");
    request.build_contexts.insert("web".into(), NamedContext::Remote(RemoteSource::parse(&archive).unwrap().unwrap()));
    let built = world.engine.build_blocking(&request, &world.events).unwrap();
    assert_eq!(fs::read_to_string(file(&world, &built, "g")).unwrap(), "F");
    // All of it goes with the engine.
    let (directory, World { engine, .. }) = (unpacked, world);
    drop(engine);
    assert!(!directory.exists());
}
