//! The tiny image: a static busybox where the machine has one, else this machine's shell and a few tools with their
//! libraries. It is a plain root filesystem, so `load` and the rest see what a user might bring.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// Tools that tests may use inside.
const TOOLS: [&str; 12] = ["sh", "cat", "echo", "ls", "sleep", "true", "false", "mkdir", "id", "env", "rm", "touch"];

/// Writes the root filesystem as a tar.
pub(crate) fn write_tiny_tar(tar: &Path) {
    let mut builder = tar::Builder::new(io::BufWriter::new(fs::File::create(tar).expect("the tar can be written")));
    write_tiny(&mut builder, "", "");
    builder.finish().expect("the tar can be finished");
}

/// Writes the files of the tiny image, with further lines of `/etc/passwd` and `/etc/group`.
pub(crate) fn write_tiny(builder: &mut tar::Builder<impl io::Write>, users: &str, groups: &str) {
    for directory in ["bin", "etc", "tmp", "root", "usr", "usr/bin"] {
        add(builder, directory, tar::EntryType::Directory, if directory == "tmp" { 0o1777 } else { 0o755 }, &[]);
    }
    let passwd = format!("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/tmp:/bin/sh\n{users}");
    let group = format!("root:x:0:\napp:x:1000:\n{groups}");
    add(builder, "etc/passwd", tar::EntryType::Regular, 0o644, passwd.as_bytes());
    add(builder, "etc/group", tar::EntryType::Regular, 0o644, group.as_bytes());
    match busybox() {
        Some(busybox) => {
            let content = fs::read(&busybox).expect("busybox can be read");
            add(builder, "bin/busybox", tar::EntryType::Regular, 0o755, &content);
            for tool in TOOLS {
                link(builder, &format!("bin/{tool}"), "busybox");
            }
        }
        None => host_tools(builder),
    }
}

/// A busybox that needs no libraries.
pub(crate) fn busybox() -> Option<PathBuf> {
    let path = PathBuf::from("/usr/bin/busybox");
    let path = if path.is_file() { path } else { PathBuf::from("/bin/busybox") };
    (path.is_file() && libraries(&path).is_empty()).then_some(path)
}

/// This machine's tools with all libraries that `ldd` names, at the same paths.
fn host_tools(builder: &mut tar::Builder<impl io::Write>) {
    let mut files: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for tool in TOOLS {
        let Some(path) = ["/bin", "/usr/bin"].iter().map(|d| Path::new(d).join(tool)).find(|p| p.is_file()) else {
            continue;
        };
        for library in libraries(&path) {
            files.insert(library.clone(), library);
        }
        files.insert(Path::new("/bin").join(tool), path);
    }
    let mut made = Vec::new();
    for (inside, outside) in files {
        let inside = inside.strip_prefix("/").expect("paths of programs are absolute").to_owned();
        for directory in
            inside.ancestors().skip(1).filter(|d| !d.as_os_str().is_empty()).collect::<Vec<_>>().into_iter().rev()
        {
            if !made.contains(&directory.to_owned()) {
                made.push(directory.to_owned());
                add(builder, &directory.to_string_lossy(), tar::EntryType::Directory, 0o755, &[]);
            }
        }
        let content = fs::read(&outside).expect("tools can be read");
        add(builder, &inside.to_string_lossy(), tar::EntryType::Regular, 0o755, &content);
    }
}

pub(crate) fn libraries(program: &Path) -> Vec<PathBuf> {
    let Ok(output) = Command::new("ldd").arg(program).output() else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
        .map(PathBuf::from)
        .filter(|path| path.is_file())
        .collect()
}

pub(crate) fn add(
    builder: &mut tar::Builder<impl io::Write>,
    name: &str,
    kind: tar::EntryType,
    mode: u32,
    content: &[u8],
) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    builder.append_data(&mut header, name, content).expect("the tar can be written");
}

fn link(builder: &mut tar::Builder<impl io::Write>, name: &str, target: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_mode(0o777);
    header.set_size(0);
    builder.append_link(&mut header, name, target).expect("the tar can be written");
}
