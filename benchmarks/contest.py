"""Contestants in processes of their own, run in turns, and the figures that come of it.

The driver imports neither JAX nor torch. Each contestant is a worker process: it reads its task as one line of JSON,
warms up, says which versions it runs, and then measures once for every line that it is sent. So peak memory is its
own, the two frameworks never meet, and whatever slows the machine for a while slows all contestants alike.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "build" / "peers"
"""The peers' environment: a folder that git, pyright, ruff and the walk over this folder's sources pass by."""
PACKAGES = ("jax", "torch", "transformers", "perceiver-ar-pytorch", "numpy")
"""What a worker says the version of, where it has it."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables that tell the peers' libraries, and numpy's, how many threads to start."""

Measurement = dict[str, float]


@dataclass(frozen=True)
class Shape:
    """What contestants have in common; the cross-attend is one layer beside `layers`, and MLPs widen by 4."""

    name: str
    vocab: int
    width: int
    heads: int
    layers: int
    context: int
    latents: int
    batch: int
    """Examples of a training step."""

    @property
    def primer(self) -> int:
        """Tokens a generation begins with."""
        return self.context - min(512, self.context // 4)


S = Shape("S", vocab=390, width=256, heads=4, layers=6, context=2048, latents=512, batch=4)
L = Shape("L", vocab=390, width=512, heads=8, layers=8, context=8192, latents=1024, batch=1)
TINY = Shape("tiny", vocab=390, width=64, heads=2, layers=2, context=64, latents=16, batch=2)
NAMES = (S.name, L.name, "piano")


def shape_of(name: str) -> Shape:
    """The shape called S, L or tiny, or that of a shipped model."""
    known = {shape.name: shape for shape in (S, L, TINY)}
    if name in known:
        return known[name]
    config = json.loads((ROOT / "assets" / name / "config.json").read_text(encoding="utf-8"))
    same = {key: config[key] for key in ("width", "heads", "layers", "context", "latents")}
    return Shape(name, vocab=config["vocab_size"], batch=1, **same)


class Contestant(NamedTuple):
    """A worker's module, whether it needs the peers' environment, its task, and the threads it may use."""

    module: str
    peer: bool
    task: dict[str, Any]
    threads: int

    @classmethod
    def of(cls, name: str, task: dict[str, Any], threads: int) -> "Contestant":
        """The contestant of this name: this project, as `ours` or `ours-...`, or a peer."""
        peer = not name.startswith("ours")
        return cls("benchmarks.peers" if peer else "benchmarks.ours", peer, task, threads)


@dataclass
class Result:
    """What a contestant measured, one entry a round; no entry where it died in its warm-up."""

    rounds: list[Measurement] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> list[float]:
        return [one[name] for one in self.rounds]


class DiedError(Exception):
    """A worker ended before it answered; what it said about it is on stderr."""


class Worker:
    """A contestant's process, on the first `threads` of our cores alone; `ready` holds its versions."""

    def __init__(self, contestant: Contestant) -> None:
        cores = usable_cores()
        threads = min(contestant.threads, len(cores))
        # Before the worker's first import, since XLA starts as many threads as it may use cores: it inherits ours.
        pin(cores[:threads])
        try:
            self.process = subprocess.Popen(
                [PEERS / "bin" / "python" if contestant.peer else sys.executable, "-m", contestant.module],
                cwd=ROOT,
                env=os.environ | dict.fromkeys(THREADS, str(threads)) | {"JAX_PLATFORMS": "cpu"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        finally:
            pin(cores)
        try:
            self.ready: dict[str, str] = self.ask(contestant.task | {"threads": threads})
        except DiedError:
            self.close()
            raise

    def ask(self, request: dict[str, Any]) -> Any:
        """The answer to one line; DiedError if the process ended."""
        assert self.process.stdin and self.process.stdout
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
        except BrokenPipeError as error:
            raise DiedError from error
        if not (line := self.process.stdout.readline()):
            raise DiedError
        return json.loads(line)

    def close(self) -> None:
        """End the process, which has nothing to lose."""
        self.process.kill()
        self.process.communicate()


def serve(prepare: Callable[[dict[str, Any]], Callable[[], Measurement]]) -> None:
    """A worker's main: `prepare` makes of a task what measures once. Peak memory (MiB) is added to each answer."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a package prints must not come between the answers

    def answer(values: Measurement | dict[str, str]) -> None:
        print(json.dumps(values), file=answers, flush=True)

    measure = prepare(json.loads(sys.stdin.readline()))
    measure()  # compiles, and faults memory in
    answer(_versions())
    for _ in sys.stdin:
        answer(measure() | {"peak": peak_mib()})


def steady(step: Callable[[], None], count: int) -> float:
    """Mean seconds of so many steps behind one that is not counted.

    A step's temporary arrays are fresh memory each time. While other processes have their turn a virtual machine may
    hand what is free to its host, and then pays for all of it once more: up to half a second.
    """
    step()
    begin = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - begin) / count


def peak_mib() -> float:
    """Most memory this process ever held, MiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hold(contestants: dict[str, Contestant], rounds: int, title: str) -> dict[str, Result]:
    """All contestants in turns, `rounds` times. One that dies keeps what it measured, and the others go on."""
    results = {name: Result() for name in contestants}
    workers: dict[str, Worker] = {}

    def lost(name: str) -> None:
        say(f"{title}: {name} died")
        if worker := workers.pop(name, None):
            worker.close()

    try:
        for name, contestant in contestants.items():
            say(f"{title}: {name} warms up")
            try:
                workers[name] = Worker(contestant)
                results[name].versions = workers[name].ready
            except DiedError:
                lost(name)
        for number in range(rounds):
            for name in list(workers):
                try:
                    measured = workers[name].ask({})
                except DiedError:
                    lost(name)
                    continue
                results[name].rounds.append(measured)
                figures = ", ".join(f"{key} {value:.4g}" for key, value in measured.items())
                say(f"{title}, round {number + 1}/{rounds}: {name}: {figures}")
    finally:
        for worker in workers.values():
            worker.close()
    return results


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


def usable_cores() -> list[int]:
    """Numbers of the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def pin(cores: Sequence[int]) -> None:
    """Let this process, and those it starts from now on, use these cores alone; nothing where the system cannot."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def use_huge_pages() -> None:
    """Let workers that train allocate in huge pages, as `python -m training` does, the peers' too."""
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")


def set_up_peers() -> None:
    """Make the peers' environment, unless it was made from the same pins."""
    pins = (Path(__file__).parent / "peers.txt").read_text(encoding="utf-8")
    made = PEERS / "pins.txt"
    if made.is_file() and made.read_text(encoding="utf-8") == pins:
        return
    say(f"Setting up {PEERS.relative_to(ROOT)}, which is done once ...")
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", PEERS], check=True, stdout=sys.stderr)
        pip = [PEERS / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", Path(__file__).parent / "peers.txt"], check=True, stdout=sys.stderr)
    except subprocess.CalledProcessError:
        sys.exit(
            "The peers' packages could not be installed: see above, or leave the peers out (--contestants)."
        )
    made.write_text(pins, encoding="utf-8")


def plain_parser(doc: str | None) -> argparse.ArgumentParser:
    """The options of every contest; the script's docstring is its help."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=positive, default=5, help="measurements of each contestant (5)")
    cores = len(usable_cores())
    made.add_argument("--threads", type=int, default=cores, choices=range(1, cores + 1), help="(all cores)")
    return made


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def parser(doc: str | None, contestants: Sequence[str]) -> argparse.ArgumentParser:
    """The options of a contest with peers."""
    made = plain_parser(doc)
    made.add_argument("--configs", nargs="+", default=NAMES, choices=NAMES)
    made.add_argument("--contestants", nargs="+", default=contestants, choices=contestants)
    made.add_argument("--quick", action="store_true", help="a tiny model, this project alone, one round")
    return made


def parsed(made: argparse.ArgumentParser) -> argparse.Namespace:
    """The options, with `shapes` in place of the configs' names."""
    options = made.parse_args()
    if options.quick:
        options.configs, options.contestants, options.rounds = [TINY.name], ["ours"], 1
    options.shapes = [shape_of(name) for name in options.configs]
    return options


def task_of(shape: Shape, **more: Any) -> dict[str, Any]:
    """A worker's task."""
    return {"shape": asdict(shape), **more}
