//! Images of real services, made of this machine's Debian packages: PostgreSQL, Redis, RabbitMQ.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use crate::{World, image};

/// Name of the PostgreSQL image: user `postgres` without a password, database `postgres`, port 5432, data in a VOLUME;
/// SQL files in `/docker-entrypoint-initdb.d` are run while it initialises.
pub const POSTGRES: &str = "localhost/postgres:15";
/// Name of the Redis image: port 6379.
pub const REDIS: &str = "localhost/redis:7";

/// Name of the RabbitMQ image: port 5672, user `guest` from everywhere.
pub const RABBITMQ: &str = "localhost/rabbitmq:3";

/// Starts as the official image does: initialises an empty data directory first.
const POSTGRES_START: &str = "\
#!/bin/sh
set -e
if [ ! -s \"$PGDATA/PG_VERSION\" ]; then
    initdb -D \"$PGDATA\" -U postgres --auth=trust --no-locale -E UTF8
    echo 'host all all all trust' >> \"$PGDATA/pg_hba.conf\"
    for file in /docker-entrypoint-initdb.d/*.sql; do
        if [ -f \"$file\" ]; then
            echo \"seeding from $file\"
            postgres --single -j -D \"$PGDATA\" postgres < \"$file\"
        fi
    done
fi
exec postgres -D \"$PGDATA\" -c listen_addresses='*' -k /tmp
";

const POSTGRES_DOCKERFILE: &str = "\
FROM postgres-root:1
ENV PATH=/usr/lib/postgresql/15/bin:/bin PGDATA=/var/lib/postgresql/data
VOLUME /var/lib/postgresql/data
EXPOSE 5432
STOPSIGNAL SIGINT
USER postgres
WORKDIR /var/lib/postgresql
CMD [\"start-postgres\"]
";

const REDIS_DOCKERFILE: &str = "\
FROM redis-root:1
ENV PATH=/usr/bin:/bin
EXPOSE 6379
CMD [\"redis-server\", \"--bind\", \"0.0.0.0\", \"--protected-mode\", \"no\", \"--save\", \"\"]
";

/// Its scripts want the usual tools, and are started where they lie: Debian's links to them are files in this image.
const RABBITMQ_DOCKERFILE: &str = "\
FROM rabbitmq-root:1
RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]
ENV PATH=/usr/lib/erlang/bin:/bin HOME=/data LC_ALL=C.UTF-8
ENV RABBITMQ_NODENAME=rabbit@localhost RABBITMQ_MNESIA_BASE=/data/mnesia RABBITMQ_LOGS=- RABBITMQ_LOG_BASE=/data
ENV RABBITMQ_ENABLED_PLUGINS_FILE=/data/enabled_plugins
EXPOSE 5672
WORKDIR /data
CMD [\"sh\", \"-c\", \"exec /usr/lib/rabbitmq/lib/*/sbin/rabbitmq-server\"]
";

impl World {
    /// Puts the image [`POSTGRES`] into the store. False, with the reason said, where the machine has no PostgreSQL 15.
    ///
    /// # Panics
    /// When the image cannot be made.
    pub fn add_postgres(&self) -> bool {
        let programs = Path::new("/usr/lib/postgresql/15/bin");
        if !programs.join("postgres").is_file() {
            crate::skip("there is no PostgreSQL 15 (Debian package postgresql-15)");
            return false;
        }
        let mut root = Root::default();
        for name in ["postgres", "initdb", "psql", "pg_isready"] {
            root.program(&programs.join(name));
        }
        // What `initdb` needs; the compiler of queries is large and not among it.
        for name in ["dict_snowball.so", "plpgsql.so"] {
            root.program(&Path::new("/usr/lib/postgresql/15/lib").join(name));
        }
        root.directory(Path::new("/usr/share/postgresql/15"));
        for name in ["UTC", "GMT", "Etc/UTC"] {
            root.file(&Path::new("/usr/share/zoneinfo").join(name));
        }
        root.text("/bin/start-postgres", 0o755, POSTGRES_START);
        root.owned("/var/lib/postgresql/data", 70);
        root.owned("/docker-entrypoint-initdb.d", 70);
        self.add_image(root, "postgres-root:1", POSTGRES, POSTGRES_DOCKERFILE);
        true
    }

    /// Puts the image [`REDIS`] into the store. False, with the reason said, where the machine has no Redis.
    ///
    /// # Panics
    /// When the image cannot be made.
    pub fn add_redis(&self) -> bool {
        let server = Path::new("/usr/bin/redis-server");
        if !server.is_file() {
            crate::skip("there is no Redis (Debian package redis-server)");
            return false;
        }
        let mut root = Root::default();
        root.program(server);
        root.program(Path::new("/usr/bin/redis-cli"));
        self.add_image(root, "redis-root:1", REDIS, REDIS_DOCKERFILE);
        true
    }

    /// Puts the image [`RABBITMQ`] into the store. False, with the reason said, where the machine lacks what it is made of.
    ///
    /// # Panics
    /// When the image cannot be made.
    pub fn add_rabbitmq(&self) -> bool {
        let [server, erlang] = ["/usr/lib/rabbitmq", "/usr/lib/erlang"].map(Path::new);
        if !server.join("bin/rabbitmq-server").is_file() || image::busybox().is_none() {
            crate::skip("there is no RabbitMQ, or no static busybox (Debian packages rabbitmq-server, busybox-static)");
            return false;
        }
        let mut root = Root::default();
        root.directory(server);
        root.directory(erlang);
        let programs = root.files.keys().filter(|path| path.components().any(|part| part.as_os_str() == "bin"));
        let native = root.files.keys().filter(|path| path.extension().is_some_and(|extension| extension == "so"));
        for path in programs.chain(native).cloned().collect::<Vec<_>>() {
            root.program(&path);
        }
        root.text("/etc/rabbitmq/rabbitmq.conf", 0o644, "loopback_users = none\n");
        root.owned("/data", 0);
        self.add_image(root, "rabbitmq-root:1", RABBITMQ, RABBITMQ_DOCKERFILE);
        true
    }

    fn add_image(&self, root: Root, root_name: &str, name: &str, dockerfile: &str) {
        let tar = self.path(format!("{}.tar", root_name.split(':').next().unwrap_or_default()));
        root.write(&tar);
        self.seatrial(["load", "--name", root_name]).arg(&tar).run().exits(0);
        self.seatrial(["build", "--progress", "none", "-t", name, "-"]).stdin(dockerfile).run().exits(0);
        fs::remove_file(tar).expect("the tar can be removed");
    }
}

/// Files of this machine for a root filesystem, at the same paths.
#[derive(Default)]
struct Root {
    /// Path inside, to path on this machine.
    files: BTreeMap<PathBuf, PathBuf>,
    texts: Vec<(&'static str, u32, &'static str)>,
    /// Directories of a user.
    owned: Vec<(&'static str, u64)>,
}

impl Root {
    /// A program or library with all libraries that it loads.
    fn program(&mut self, path: &Path) {
        self.file(path);
        for library in image::libraries(path) {
            self.file(&library);
        }
    }

    fn file(&mut self, path: &Path) {
        // Links are taken as what they name, so that no chain of them has to be followed.
        if path.is_file() {
            self.files.insert(path.to_owned(), path.to_owned());
        }
    }

    fn directory(&mut self, path: &Path) {
        for entry in fs::read_dir(path).expect("the package has it").flatten() {
            let path = entry.path();
            // Manual pages and translations are for people.
            if path.is_dir() && !["man", "locale"].iter().any(|name| path.ends_with(name)) {
                self.directory(&path);
            } else {
                self.file(&path);
            }
        }
    }

    fn text(&mut self, path: &'static str, mode: u32, text: &'static str) {
        self.texts.push((path, mode, text));
    }

    fn owned(&mut self, path: &'static str, user: u64) {
        self.owned.push((path, user));
    }

    fn write(&self, tar: &Path) {
        let mut builder = tar::Builder::new(io::BufWriter::new(fs::File::create(tar).expect("the tar can be written")));
        image::write_tiny(&mut builder, "postgres:x:70:70::/var/lib/postgresql:/bin/sh\n", "postgres:x:70:\n");
        let mut made: BTreeSet<PathBuf> = ["bin", "etc", "tmp", "usr", "usr/bin"].map(PathBuf::from).into();
        let owned = self.owned.iter().map(|(path, _)| path.trim_start_matches('/'));
        let texts = self.texts.iter().map(|(path, ..)| path.trim_start_matches('/'));
        let files = self.files.keys().map(|path| path.strip_prefix("/").expect("paths of programs are absolute"));
        for path in files.chain(owned.chain(texts).map(Path::new)) {
            let parents: Vec<&Path> = path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
            for parent in parents.into_iter().rev() {
                if made.insert(parent.to_owned()) {
                    image::add(&mut builder, &parent.to_string_lossy(), tar::EntryType::Directory, 0o755, &[]);
                }
            }
        }
        for (inside, outside) in &self.files {
            let name = inside.strip_prefix("/").expect("paths of programs are absolute").to_string_lossy();
            let content = fs::read(outside).expect("files of packages can be read");
            image::add(&mut builder, &name, tar::EntryType::Regular, 0o755, &content);
        }
        for (path, mode, text) in &self.texts {
            image::add(&mut builder, path.trim_start_matches('/'), tar::EntryType::Regular, *mode, text.as_bytes());
        }
        for (path, user) in &self.owned {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o700);
            header.set_uid(*user);
            header.set_gid(*user);
            header.set_size(0);
            builder
                .append_data(&mut header, path.trim_start_matches('/'), io::empty())
                .expect("the tar can be written");
        }
        builder.finish().expect("the tar can be finished");
    }
}
