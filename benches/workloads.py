"""What is measured: each workload makes its input once and measures one engine in each round."""

import json
import os
import random
import shutil
import tempfile
import time

from engines import BASE

SERVICE = '''"""Answers with numbers."""
import random
from http.server import BaseHTTPRequestHandler, HTTPServer

import yarl


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        path = yarl.URL(self.path).path
        body = b"ok" if path == "/health" else str(random.randint(0, 100)).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
'''
DOCKERFILE = f"""FROM {BASE}
WORKDIR /app
COPY wheels /tmp/wheels
RUN pip install --break-system-packages --no-index --find-links /tmp/wheels yarl
COPY service.py .
HEALTHCHECK --interval=1s --timeout=2s CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/health')"]
CMD ["python3", "service.py"]
"""
GATES = {
    "compiles": "PYTHONPYCACHEPREFIX=/tmp/pyc python3 -m py_compile tests/test_service.py service.py",
    "tidy": "! grep -rn '[[:space:]]$' service.py tests",
    "unit": "python3 -B -m unittest discover -s tests",
}
TEST = """import unittest
import service


class Service(unittest.TestCase):
    def test_handler(self):
        self.assertTrue(hasattr(service.Handler, "do_GET"))
"""


class Workload:
    """One group of rows. `rows`: key, title, target in `unit` (as limit of the median on an idle machine of two cores) or
    none where the row is there for the next one."""

    name = ""
    rows = []
    unit = "s"

    def __init__(self, bench, registry):
        self.bench, self.registry = bench, registry
        self.context = bench.scratch / self.name
        self.context.mkdir()

    def floor(self):
        """The same work by bare programs, if there is such a thing."""

    def write(self, name, text):
        path = self.context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def tag(self, engine):
        return f"localhost/bench-{engine.name.replace(' ', '-')}:1"

    def time_floor(self, row, command):
        self.bench.keep(row, "floor", self.bench.run(["bash", "-c", command], cwd=self.context)[0])


class Service(Workload):
    name = "service"
    rows = [
        ("service-cold", "small Python service, pip from local wheels: no cache", 0.75),
        ("service-unchanged", "same, unchanged", 0.015),
        ("service-one-line", "same, one line of source changed", 0.030),
    ]

    def __init__(self, bench, registry):
        super().__init__(bench, registry)
        wheels = bench.scratch / "wheels"
        if not wheels.exists():
            pip = "pip download --quiet --disable-pip-version-check --only-binary=:all: --dest"
            bench.run([*pip.split(), wheels, "--python-version", "3.11", "yarl"])
        shutil.copytree(wheels, self.context / "wheels")
        self.write("Dockerfile", DOCKERFILE)
        self.write("service.py", SERVICE)

    def change_one_line(self):
        self.write("service.py", SERVICE.replace("randint(0, 100)", f"randint(0, {100 + self.bench.next()})"))

    def measure(self, engine):
        tag = self.tag(engine)
        self.bench.measure("service-cold", engine, engine.build(self.context, tag, True))
        self.bench.run(engine.build(self.context, tag), **engine.how)
        self.bench.measure("service-unchanged", engine, engine.build(self.context, tag))
        self.change_one_line()
        self.bench.measure("service-one-line", engine, engine.build(self.context, tag))


class Runs(Workload):
    name = "run60"
    rows = [
        ("run60-cold", "60 × `RUN true`: no cache", 0.5),
        ("echo60-cold", "60 × `RUN echo > file`: no cache", 0.6),
        ("echo60-unchanged", "same, unchanged", 0.015),
    ]

    def __init__(self, bench, registry):
        super().__init__(bench, registry)
        self.write("true", f"FROM {BASE}\n" + "RUN true\n" * 60)
        self.write("echo", f"FROM {BASE}\n" + "".join(f"RUN echo {number} > /file{number}\n" for number in range(60)))

    def measure(self, engine):
        tag = self.tag(engine)
        true, echo = (self.context / name for name in ("true", "echo"))
        self.bench.measure("run60-cold", engine, engine.build(self.context, tag, True, true))
        self.bench.measure("echo60-cold", engine, engine.build(self.context, tag, True, echo))
        self.bench.run(engine.build(self.context, tag, file=echo), **engine.how)
        self.bench.measure("echo60-unchanged", engine, engine.build(self.context, tag, file=echo))

    def floor(self):
        self.time_floor("run60-cold", "for i in $(seq 60); do unshare --mount --pid --fork --ipc --uts --net /bin/true; done")


class Start(Workload):
    name = "start"
    rows = [
        ("start-none", "a container of `true`, no network", 0.010),
        ("start-host", "same, the host's network", 0.010),
    ]

    def measure(self, engine):
        for network in ("none", "host"):
            if engine.start(network):
                for _ in range(5):
                    self.bench.measure(f"start-{network}", engine, engine.start(network))

    def floor(self):
        self.time_floor("start-none", "exec unshare --mount --pid --fork --ipc --uts --net /bin/true")


class Inside(Workload):
    """Containers one after another within one process: what the start of the program and of its store hides."""

    name = "inside"
    rows = [
        ("inside-none", "a gate of `true` within a run, no network", 0.010),
        ("inside-private", "same, in a private network", 0.025),
    ]
    COUNT = 20

    def __init__(self, bench, registry):
        super().__init__(bench, registry)
        for network in ("none", "default"):
            gates = "".join(f"    gate{at}: 'true'\n" for at in range(self.COUNT))
            self.write(f"{network}/Dockerfile", f"FROM {BASE}\n")
            self.write(f"{network}/seatrial.yaml", f"test:\n  network: {network}\n  gates:\n{gates}health: false\n")

    def measure(self, engine):
        if not hasattr(engine, "gates"):
            return
        for row, network in (("inside-none", "none"), ("inside-private", "default")):
            records = engine.events_of(engine.gates(self.context / network, "--jobs=1"))
            ends = [record["at_ms"] for record in records if record["event"] == "gate.finished"]
            # From the first end to the last: the network is made before the first.
            self.bench.keep(row, engine.name, (ends[-1] - ends[0]) / 1000 / (len(ends) - 1))


class Private(Workload):
    """A private network and names in it, for one container and for three."""

    name = "private"
    rows = [
        ("private-true", "a container of `true` in a private network", 0.025),
        ("private-three", "two services and one that uses them, in a private network", None),
        ("private-three-none", "the same without a network", None),
        ("private-three-over", "the network's share of it", 0.060),
    ]
    TELL = "echo up; exec sleep 60"

    def __init__(self, bench, registry):
        super().__init__(bench, registry)
        for network in ("none", "default"):
            mode = "network_mode: none, " if network == "none" else ""
            rest = f"{mode}stop_signal: SIGKILL, ready: {{log: up}}"
            services = "".join(f"  {name}: {{image: {BASE}, command: [sh, -c, '{self.TELL}'], {rest}}}\n" for name in "ab")
            gate = "test:\n  gates:\n    use: {services: [a, b], network: %s, run: 'true'}\nhealth: false\n" % network
            self.write(f"{network}/Dockerfile", f"FROM {BASE}\n")
            self.write(f"{network}/seatrial.yaml", f"services:\n{services}{gate}")

    def measure(self, engine):
        command = engine.start("private")
        if command is None:
            return
        for _ in range(3):
            self.bench.measure("private-true", engine, command)
        for _ in range(3):
            taken = {}
            for row, network in (("private-three", "default"), ("private-three-none", "none")):
                taken[network] = self.bench.run(self.three(engine, network), **engine.how)[0]
                self.bench.keep(row, engine.name, taken[network])
            self.bench.keep("private-three-over", engine.name, taken["default"] - taken["none"])

    def three(self, engine, network):
        if hasattr(engine, "gates"):
            return [*engine.gates(self.context / network), "--progress=quiet"]
        words, limits = " ".join(map(str, engine.words)), " ".join(engine.limits())
        begin = f"net=bench-$$; {words} network create $net >/dev/null" if network == "default" else "net=none"
        end = f"{words} network rm $net" if network == "default" else "true"
        run = f"{words} run --network=$net {limits}"
        services = "; ".join(f"{name}=$({run} -d --name {name}-$$ {BASE} sh -c '{self.TELL}')" for name in "ab")
        return ["bash", "-ec", f"{begin}; {services}; {run} --rm {BASE} true; {words} rm -f $a $b; {end}"]


class Memory(Workload):
    """Ten gates side by side: what all processes hold beyond the same ten without an engine."""

    name = "memory"
    unit = "MB"
    rows = [("memory-ten", "ten containers side by side: memory beyond ten bare processes", 30)]
    COUNT, SLEEP = 10, "sleep 5; true"

    def __init__(self, bench, registry):
        super().__init__(bench, registry)
        gates = "".join(f"    gate{at}: '{self.SLEEP}'\n" for at in range(self.COUNT))
        self.write("Dockerfile", f"FROM {BASE}\n")
        self.write("seatrial.yaml", f"test:\n  network: none\n  gates:\n{gates}health: false\n")
        self.bare = 0

    def floor(self):
        one = f"unshare --mount --pid --fork --ipc --uts --net sh -ec '{self.SLEEP}'"
        command = ["bash", "-c", f"for i in $(seq {self.COUNT}); do {one} & done; wait"]
        self.bare = self.bench.memory_of(command, self.COUNT)

    def measure(self, engine):
        if hasattr(engine, "gates"):
            command = [*engine.gates(self.context, f"--jobs={self.COUNT}"), "--progress=quiet"]
        elif engine.start("none"):
            run = " ".join(map(str, engine.start("none")[:-1]))
            command = ["bash", "-c", f"for i in $(seq {self.COUNT}); do {run} sh -ec '{self.SLEEP}' & done; wait"]
        else:
            return
        whole = self.bench.memory_of(command, self.COUNT, **engine.how)
        self.bench.keep("memory-ten", engine.name, whole - self.bare)


class Stages(Workload):
    name = "stages"
    rows = [("stages", "ten independent stages of 1 s, joined: no cache", 1.1)]

    def __init__(self, bench, registry):
        super().__init__(bench, registry)
        stages = "".join(f"FROM {BASE} AS s{at}\nRUN sleep 1; echo {at} > /s{at}\n" for at in range(10))
        self.write("Dockerfile", f"{stages}FROM {BASE}\n" + "".join(f"COPY --from=s{at} /s{at} /\n" for at in range(10)))

    def measure(self, engine):
        self.bench.measure("stages", engine, engine.build(self.context, self.tag(engine), True))

    def floor(self):
        self.time_floor("stages", "sleep 1")


class Files(Workload):
    name = "files"
    rows = [
        ("files-first", "`COPY .` of 20,000 files, 372 MB: first", 2.5),
        ("files-unchanged", "same, unchanged", 0.12),
        ("files-one-gates", "same, one file changed: gates can start", 0.3),
        ("files-one-sealed", "same: image sealed", 1.2),
    ]
    COUNT, BYTES = 20_000, 372_000_000

    def __init__(self, bench, registry):
        super().__init__(bench, registry)
        self.write("Dockerfile", "FROM scratch\nCOPY files /app\n")
        make_files(self.context / "files", self.COUNT, self.BYTES)

    def measure(self, engine):
        tag = self.tag(engine)
        if hasattr(engine, "fresh"):
            how = engine.fresh()
            self.bench.keep("files-first", engine.name, *self.bench.run(engine.build(self.context, tag), **how))
        else:
            if engine.name == "docker-bk":
                # BuildKit keeps the context as well.
                self.bench.run([*engine.words, "builder", "prune", "-af"], **engine.how)
            how = engine.how
            self.bench.measure("files-first", engine, engine.build(self.context, tag, True))
            self.bench.run(engine.build(self.context, tag), **how)
        self.bench.keep("files-unchanged", engine.name, *self.bench.run(engine.build(self.context, tag), **how))
        with open(self.context / "files/d03/s04/f01600.py", "a") as file:
            file.write(f"# {self.bench.next()}\n")
        if not hasattr(engine, "fresh"):
            seconds, peak_kb = self.bench.run(engine.build(self.context, tag), **how)
            self.bench.keep("files-one-gates", engine.name, seconds)
            return self.bench.keep("files-one-sealed", engine.name, seconds, peak_kb)
        # The last step's event is where gates may start; the image's id comes with the end.
        with open(self.bench.scratch / "events", "w+") as events:
            seconds, peak_kb = self.bench.run(engine.build(self.context, tag, flags=["--progress=json"]), output=events, **how)
            events.seek(0)
            records = [json.loads(line) for line in events if line.startswith("{")]
        ready, end = ([record["at_ms"] for record in records if record["event"] == name][-1] for name in ("step.finished", "run.finished"))
        self.bench.keep("files-one-gates", engine.name, seconds - (end - ready) / 1000)
        self.bench.keep("files-one-sealed", engine.name, seconds, peak_kb)

    def floor(self):
        # Into a new directory, and nothing is removed: ext4 is slow to make files where some were just removed.
        self.time_floor("files-first", f"cp -r files {self.bench.scratch}/copy-{self.bench.next()}")
        self.time_floor("files-unchanged", "find files -printf '%i %s %T@\\n' > /dev/null")
        self.time_floor("files-one-gates", "find files -printf '%i %s %T@\\n' > /dev/null")
        self.time_floor("files-one-sealed", "tar --sort=name -c files | sha256sum")


class Layer(Workload):
    name = "layer"
    rows = [
        ("layer-gzip", "one 500 MB layer: build and push, gzip", 3.5),
        ("layer-zstd", "same, zstd", 1.6),
        ("layer-pull", "pull it back", 1.5),
    ]
    FILES, BYTES = 50, 500_000_000

    def __init__(self, bench, registry):
        super().__init__(bench, registry)
        self.write("Dockerfile", "FROM scratch\nCOPY files /files\n")
        make_files(self.context / "files", self.FILES, self.BYTES)

    def measure(self, engine):
        for compression in ("gzip", "zstd"):
            reference = f"{self.registry}/layer-{engine.name.replace(' ', '-')}:{compression}"
            # Bytes that no registry and no store has seen.
            with open(self.context / "files/d00/s00/f00000.py", "a") as file:
                file.write(f"# {self.bench.next()}\n")
            commands = engine.push(self.context, reference, compression)
            if commands is None:
                continue
            self.bench.settle()
            try:
                seconds = [self.bench.run(command, **engine.how) for command in commands]
            except RuntimeError:
                # An engine that cannot push zstd still counts for the other rows.
                if compression == "gzip":
                    raise
                continue
            peak_kb = max(peak for _, peak in seconds)
            self.bench.keep(f"layer-{compression}", engine.name, sum(second for second, _ in seconds), peak_kb)
        reference = f"{self.registry}/layer-{engine.name.replace(' ', '-')}:gzip"
        self.pull(engine, reference)

    def pull(self, engine, reference):
        self.bench.settle()
        if hasattr(engine, "fresh"):
            self.bench.keep("layer-pull", engine.name, *self.bench.run([engine.program, "pull", "-q", reference], **engine.fresh()))
        elif engine.name.startswith("docker"):
            self.bench.run([*engine.words, "rmi", "-f", reference], **engine.how)
            self.bench.run([*engine.words, "builder", "prune", "-af"], **engine.how)
            self.bench.measure("layer-pull", engine, [*engine.words, "pull", "-q", reference])
        else:
            fresh = self.bench.scratch / f"pull-{self.bench.next()}"
            with tempfile.TemporaryDirectory(prefix="sb-") as runroot:
                command = [engine.name, "--root", fresh, "--runroot", runroot, "pull", "--tls-verify=false", "-q", reference]
                self.bench.measure("layer-pull", engine, command)

    def floor(self):
        tools = {"layer-gzip": "pigz -6", "layer-zstd": "zstd -q -3 -T0"}
        for row, tool in tools.items():
            if shutil.which(tool.split()[0]):
                self.time_floor(row, f"tar -c files | {tool} | sha256sum")
        archive = self.context.parent / "layer.tar"
        if not archive.exists():
            self.bench.run(["tar", "-cf", archive, "files"], cwd=self.context)
        target = self.context.parent / f"untar-{self.bench.next()}"
        target.mkdir()
        self.time_floor("layer-pull", f"sha256sum {archive} & tar -C {target} -xf {archive}; wait")


class Pipeline(Service):
    name = "pipeline"
    rows = [
        ("pipeline-first", "build, three gates, health, tag, push: first", 2.0),
        ("pipeline-one-line", "same, one line of source changed", 1.5),
    ]

    def __init__(self, bench, registry):
        super().__init__(bench, registry)
        self.write("tests/test_service.py", TEST)
        gates = "".join(f"    {gate}: {json.dumps(command)}\n" for gate, command in GATES.items())
        self.write(
            "seatrial.yaml",
            f"image: {registry}/bench-seatrial\nbuild: {{network: none}}\ntest:\n  workdir: /app\n  mounts: [tests]\n"
            f"  gates:\n{gates}health: {{interval: 1s, attempts: 50}}\npublish: {{tags: [latest]}}\n",
        )

    def measure(self, engine):
        for row, fresh in (("pipeline-first", True), ("pipeline-one-line", False)):
            command = engine.pipeline(self.context, self.registry, GATES, fresh)
            if command:
                self.change_one_line()
                self.bench.measure(row, engine, command)


WORKLOADS = [Service, Files, Stages, Layer, Runs, Start, Inside, Private, Memory, Pipeline]


def make_files(root, count, total_bytes):
    """Files of the sizes that source trees have, half of them text, half of them noise; with old times."""
    numbers = random.Random(7)
    noise = numbers.randbytes(1 << 20)
    words = (b"alpha beta gamma delta function return import value index self none true false 0123456789 \n" * 12000)[: 1 << 20]
    sizes = [numbers.lognormvariate(8.6, 1.3) for _ in range(count)]
    scale = total_bytes / sum(sizes)
    old = time.time() - 3600
    for number, size in enumerate(sizes):
        directory = root / f"d{number // 500:02}" / f"s{number // 25 % 20:02}"
        directory.mkdir(parents=True, exist_ok=True)
        source, left, start = (noise if number % 2 else words), int(size * scale), numbers.randrange(1 << 19)
        path = directory / f"f{number:05}.py"
        with open(path, "wb") as file:
            file.write(b"# %d\n" % number)
            while left > 0:
                part = source[start : start + left]
                file.write(part)
                left, start = left - len(part), 0
        os.utime(path, (old, old))
