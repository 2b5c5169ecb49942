//! Contexts as web pages and Git repositories of this machine, for ADD and named contexts that come from elsewhere.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
};

/// A web server and a Git server over one directory, until the test program ends.
pub(crate) struct Served {
    directory: PathBuf,
    web: SocketAddr,
    git: SocketAddr,
}

impl Served {
    pub(crate) fn start(directory: &Path) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let web = listener.local_addr().expect("a bound socket has an address");
        let root = directory.to_owned();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let root = root.clone();
                // A client that goes away in the middle is no matter of the server's.
                std::thread::spawn(move || drop(answer(&root, connection)));
            }
        });
        Self { directory: directory.to_owned(), web, git: testkit::serve_repositories(directory) }
    }

    /// A text with `{context}`, `{web}` and `{git}` set to where the context lies.
    pub(crate) fn place(&self, text: &str, context: &Path) -> String {
        let below = context.strip_prefix(&self.directory).expect("contexts lie in the world's directory").display();
        text.replace("{context}", &context.display().to_string())
            .replace("{web}", &format!("http://{}/{below}", self.web))
            .replace("{git}", &format!("git://{}/{below}", self.git))
    }
}

/// Gives the file that is asked for. Its headers are those in the file `NAME.headers`, if there is one.
fn answer(root: &Path, mut connection: TcpStream) -> io::Result<()> {
    let mut request = String::new();
    let mut reader = BufReader::new(connection.try_clone()?);
    while !request.ends_with("\r\n\r\n") {
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
    }
    let method = request.split(' ').next().unwrap_or_default();
    let target = request.split(' ').nth(1).unwrap_or_default();
    let path = root.join(target.split('?').next().unwrap_or_default().trim_start_matches('/'));
    let headers = path.with_file_name(format!("{}.headers", path.file_name().unwrap_or_default().to_string_lossy()));
    let headers = fs::read_to_string(headers).unwrap_or_default().replace('\n', "\r\n");
    let (status, body) = match fs::read(&path) {
        _ if headers.contains("Location: ") => ("302 Found", Vec::new()),
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    write!(connection, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len())?;
    if method == "HEAD" { Ok(()) } else { connection.write_all(&body) }
}
