"""The engines that are compared: Seatrial, and whatever peer is installed, each with a storage of its own."""

import json
import os
import pwd
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

BASE = "localhost/bench-python:1"


class Measured:
    """Times and peak memory of one command in each round."""

    def __init__(self):
        self.seconds = []
        self.peak_kb = 0

    def median(self):
        return statistics.median(self.seconds)


class Bench:
    """Runs commands in the benchmark's own directory and keeps what they took."""

    def __init__(self, arguments, scratch, log, stack):
        self.arguments, self.scratch, self.log, self.stack = arguments, scratch, log, stack
        self.results = {}
        self.environment = dict(os.environ, SOURCE_DATE_EPOCH="1700000000")
        for name in ("PIP_FIND_LINKS", "SEATRIAL_HOME"):
            self.environment.pop(name, None)
        self.serial = 0

    def run(self, command, cwd=None, env=None, user=None, output=None):
        """Runs a command that must succeed; gives wall time and peak memory."""
        self.log.write(f"\n$ {' '.join(map(str, command))}\n")
        self.log.flush()
        who = {}
        if user is not None:
            who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        start = time.perf_counter()
        child = subprocess.Popen(
            [str(word) for word in command], cwd=cwd or self.scratch, env={**self.environment, **(env or {})},
            stdin=subprocess.DEVNULL, stdout=output or self.log, stderr=output or self.log, **who,
        )
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            raise RuntimeError(f"`{' '.join(map(str, command))}` ended with {child.returncode}; see {self.log.name}")
        return seconds, usage.ru_maxrss

    def keep(self, row, engine, seconds, peak_kb=0):
        measured = self.results.setdefault(row, {}).setdefault(engine, Measured())
        measured.seconds.append(seconds)
        measured.peak_kb = max(measured.peak_kb, peak_kb)

    def settle(self):
        """Writes out what earlier commands left in memory, so that no sync of the next one pays for it."""
        os.sync()

    def measure(self, row, engine, command, **how):
        """Runs a command as an engine runs it, and keeps what it took."""
        self.keep(row, engine.name, *self.run(command, **engine.how, **how))

    def memory_of(self, command, count, env=None, user=None):
        """The most memory in MB (proportional set size) that a command's processes, and those of servers and monitors that
        work for it, hold at one moment while `count` times `sleep` runs in it."""
        before = sum(map(proportional_kb, family(naming(self.scratch))))
        who = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        child = subprocess.Popen(
            [str(word) for word in command], cwd=self.scratch, env={**self.environment, **(env or {})},
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, **who,
        )
        most = 0
        while child.poll() is None:
            members = family([child.pid, *naming(self.scratch)])
            if sum(is_sleeping(pid) for pid in members) >= count:
                most = max(most, sum(map(proportional_kb, members)))
            time.sleep(0.1)
        if child.returncode != 0 or most == 0:
            raise RuntimeError(f"`{' '.join(map(str, command))}` ended with {child.returncode}; see {self.log.name}")
        # Servers that are there anyway, such as dockerd, count with what they need more.
        return (most - before) / 1024

    def next(self):
        self.serial += 1
        return self.serial


def naming(directory):
    """Processes whose command line names a directory: daemons, shims and monitors, which leave the process that began them."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(directory) in line.read_bytes() and int(line.parent.name) != os.getpid():
                found.append(int(line.parent.name))
        except OSError:
            pass  # It has ended.
    return found


def family(roots):
    """Processes and all that descend from them."""
    found, waiting = set(), list(roots)
    while waiting:
        pid = waiting.pop()
        if pid in found:
            continue
        found.add(pid)
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                waiting += map(int, task.read_text().split())
            except OSError:
                pass  # It has ended.
    return found


def proportional_kb(pid):
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def is_sleeping(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "sleep"
    except OSError:
        return False


class Seatrial:
    """Seatrial as root, or as an ordinary user with a store of their own."""

    def __init__(self, bench, user=None):
        self.bench, self.program, self.user = bench, bench.arguments.seatrial, user
        self.name = "seatrial" if user is None else f"seatrial as {user.pw_name}"
        self.homes = bench.scratch / ("stores" if user is None else f"stores-{user.pw_name}")
        self.homes.mkdir()
        self.how = {"env": {"SEATRIAL_HOME": str(self.homes / "main")}}
        if user is not None:
            os.chown(self.homes, user.pw_uid, user.pw_gid)
            self.how["user"] = user
            self.how["env"] |= {"HOME": str(self.homes), "USER": user.pw_name}

    def fresh(self):
        """The same engine with a new, empty store."""
        return {**self.how, "env": {**self.how["env"], "SEATRIAL_HOME": str(self.homes / str(self.bench.next()))}}

    def build(self, context, tag, fresh=False, file=None, flags=()):
        words = [self.program, "build", "--network=none", "-t", tag, *flags]
        words += ["--progress=quiet"] if "--progress=json" not in flags else []
        words += ["-f", file] if file else []
        return [*words, *(["--no-cache"] if fresh else []), context]

    def push(self, context, reference, compression):
        """Build and push in one command, so that both run side by side."""
        flags = ["--push"] if compression == "gzip" else ["--output", f"type=registry,compression={compression}"]
        return [[self.program, "build", "--network=none", "--progress=quiet", "-t", reference, "--no-cache", *flags, context]]

    def gates(self, context, *flags):
        """The gates of a context, whatever is known of them."""
        return [self.program, "-C", context, "test", "--rerun", *flags]

    def events_of(self, command):
        """What a command tells while it runs."""
        with open(self.bench.scratch / "events", "w+") as events:
            self.bench.run([*command, "--progress=json"], output=events, **self.how)
            events.seek(0)
            return [json.loads(line) for line in events if line.startswith("{")]

    def start(self, network):
        network = "default" if network == "private" else network
        return [self.program, "shell", f"--network={network}", BASE, "--", "true"]

    def pipeline(self, context, registry, gates, fresh):
        command = [self.program, "-C", context, "run", "--publish", "--progress=quiet"]
        return command + (["--no-cache"] if fresh else [])


class Peer:
    """docker, podman or buildah: the same flags, and a script where Seatrial has one command."""

    def __init__(self, bench, name, words, env=None, network=None):
        self.bench, self.name, self.words, self.network = bench, name, words, network
        self.how = {"env": env or {}}

    def build(self, context, tag, fresh=False, file=None, flags=()):
        layers = ["--layers"] if self.name in ("podman", "buildah") else []
        if self.name == "buildah" and shutil.which("runc"):
            layers += ["--runtime", shutil.which("runc")]
        words = [*self.words, "build", *layers, "--network=none", "-q", "-t", tag]
        words += ["-f", file] if file else []
        return [*words, *(["--no-cache"] if fresh else []), context]

    def push(self, context, reference, compression):
        if compression == "zstd" and self.name not in ("podman", "buildah"):
            return None
        command = [*self.words, "push"]
        if self.name in ("podman", "buildah"):
            command += ["--tls-verify=false", "--compression-format", compression]
        return [self.build(context, reference, True), [*command, reference]]

    def limits(self):
        # podman's defaults are higher than what root may set on some machines.
        return ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"] if self.name == "podman" else []

    def start(self, network):
        network = self.network if network == "private" else network
        return None if self.name == "buildah" or network is None else [*self.words, "run", "--rm", f"--network={network}", *self.limits(), BASE, "true"]

    def pipeline(self, context, registry, gates, fresh):
        """The usual shell script around an engine: one step after the other."""
        if self.name == "buildah":
            return None
        engine = " ".join(map(str, self.words))
        image, limits = f"{registry}/bench-{self.name}", " ".join(self.limits())
        lines = ["set -e", " ".join(map(str, self.build(context, image, fresh)))]
        for gate in gates.values():
            mount = f"-v {context}/tests:/app/tests:ro"
            lines.append(f"{engine} run --rm --network=none {limits} {mount} {image} sh -c {json.dumps(gate)}")
        probe = "import urllib.request as r; r.urlopen(\\\"http://127.0.0.1:8080/health\\\")"
        push = "push --tls-verify=false" if self.name == "podman" else "push"
        lines += [
            f"id=$({engine} run -d --network=none {limits} {image})",
            f"for i in $(seq 50); do {engine} exec $id python3 -c \"{probe}\" && break; sleep 0.1; done",
            f"{engine} rm -f $id",
            f"{engine} {push} {image}",
        ]
        return ["bash", "-c", "\n".join(lines)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def started(bench, command, is_ready, env=None):
    """A server of ours, which ends with the benchmark."""
    child = subprocess.Popen(
        [str(word) for word in command], env={**bench.environment, **(env or {})},
        stdin=subprocess.DEVNULL, stdout=bench.log, stderr=bench.log, start_new_session=True,
    )

    def stop():
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    bench.stack.callback(stop)
    for _ in range(200):
        if is_ready():
            return child
        if child.poll() is not None:
            raise RuntimeError(f"{command[0]} ended at once; see {bench.log.name}")
        time.sleep(0.1)
    raise RuntimeError(f"{command[0]} does not answer; see {bench.log.name}")


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def make_own(bench):
    """Seatrial as whoever runs this, and as an ordinary user where one is named."""
    own = [Seatrial(bench)]
    if bench.arguments.as_user:
        own.append(Seatrial(bench, pwd.getpwnam(bench.arguments.as_user)))
    archive = bench.arguments.base_archive or bench.scratch / "base.tar"
    if not archive.exists():
        packages = "python3,python3-pip,ca-certificates"
        program, how = bench.arguments.seatrial, own[0].how
        bench.run([program, "base", "debian:bookworm-slim", "--include", packages, "-t", BASE], **how)
        bench.run([program, "save", "-o", archive, BASE], **how)
        archive.chmod(0o644)
    for engine in own:
        bench.run([engine.program, "load", "-i", archive], **engine.how)
    return own, archive


def make_peers(bench, archive):
    """Every engine that is installed, with the base image in it; and what has to be said about the others."""
    wanted = bench.arguments.peers.split(",")
    peers, said = [], []
    if "docker" in wanted:
        if shutil.which("dockerd") is None or os.geteuid() != 0:
            said.append("docker is left out: it needs root and dockerd")
        else:
            peers += make_docker(bench, archive, said)
    # podman takes no more than 50 characters here.
    runroot = tempfile.mkdtemp(prefix="sb-")
    bench.stack.callback(lambda: shutil.rmtree(runroot, ignore_errors=True))
    storage = ["--root", bench.scratch / "containers", "--runroot", runroot]
    for name in ("podman", "buildah"):
        if name not in wanted:
            continue
        if shutil.which(name) is None:
            said.append(f"{name} is left out: it is not installed")
            continue
        # crun refuses machines with both cgroup versions.
        runtime = ["--runtime", "runc", "--cgroup-manager", "cgroupfs"] if name == "podman" and shutil.which("runc") else []
        words = [name, *storage, *runtime]
        network = private_network(bench, words, {}) if name == "podman" else None
        if name == "podman" and network is None:
            said.append("podman has no private network here: see the log")
        peers.append(Peer(bench, name, words, network=network))
    if any(peer.name in ("podman", "buildah") for peer in peers):
        loader = "podman" if any(peer.name == "podman" for peer in peers) else "buildah"
        load = ["load", "-i", archive] if loader == "podman" else ["pull", f"docker-archive:{archive}"]
        bench.run([loader, *storage, *load])
    return peers, said


def make_docker(bench, archive, said):
    home, endpoint = bench.scratch / "docker", bench.scratch / "docker.sock"
    command = ["dockerd", "--data-root", home, "--exec-root", bench.scratch / "docker-exec", "--host", f"unix://{endpoint}",
               "--pidfile", bench.scratch / "docker.pid", "--bridge=none", "--iptables=false", "--ip6tables=false",
               "--insecure-registry", "127.0.0.0/8"]
    started(bench, command, endpoint.exists)
    clients = docker_clients()
    peers = []
    for name, buildkit in (("docker", "0"), ("docker-bk", "1")):
        client = clients.get(buildkit)
        if client is None:
            said.append(f"{name} is left out: no docker client here can ask for it (from 23.0 on it needs buildx)")
            continue
        how = {"DOCKER_HOST": f"unix://{endpoint}", "DOCKER_BUILDKIT": buildkit}
        # Both start containers alike: the network's rows have it once.
        network = private_network(bench, [client], how) if not peers else None
        peers.append(Peer(bench, name, [client], how, network))
    bench.run([peers[0].words[0], "load", "-i", archive], **peers[0].how)
    return peers


def private_network(bench, words, env):
    """Makes a network of the engine's, which goes with the benchmark; none where it cannot."""
    name = f"seatrial-bench-{os.getpid()}"

    def remove():
        try:
            bench.run([*words, "network", "rm", name], env=env)
        except RuntimeError:
            pass  # The log tells.

    try:
        bench.run([*words, "network", "create", name], env=env)
    except RuntimeError:
        return None
    bench.stack.callback(remove)
    return name


def docker_clients():
    """Clients that can ask for the classic builder and for BuildKit: older ones know it themselves, newer ones need buildx."""
    clients = {}
    for directory in os.environ.get("PATH", "").split(":"):
        client = os.path.join(directory, "docker")
        if not os.access(client, os.X_OK):
            continue
        clients.setdefault("0", client)
        version = subprocess.run([client, "--version"], capture_output=True, text=True, check=False).stdout
        major = int("".join(filter(str.isdigit, version.partition("version ")[2].partition(".")[0])) or 0)
        has_buildx = subprocess.run([client, "buildx", "version"], capture_output=True, check=False).returncode == 0
        if major < 23 or has_buildx:
            clients.setdefault("1", client)
    return clients
