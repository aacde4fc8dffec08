"""Preparation on any of Beam's runners: all cores of a machine, or a cluster."""

import logging
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress

from training.data.store import Make, Part, Runner

if TYPE_CHECKING:
    from apache_beam.runners.runner import PipelineRunner

LOCAL = "local"
"""The runner by default: this machine's cores. Beam's `DirectRunner` uses one, and looks for a program to download."""
SECOND = 1.0
"""Between looks at which parts are there."""
RAISED = re.compile(r"^[\w.]*(?:Error|Exception): (.+?)(?: \[while running .*)?$", re.MULTILINE)
"""What an exception said, in the traceback that a worker sends."""


def by_beam(name: str, options: Sequence[str]) -> Runner:
    """What makes parts on a runner of Beam's.

    Its workers read the source and write the parts, so both are where all of them see them; they import this checkout.

    Args:
        name: as Beam knows it, such as `FlinkRunner`, or `LOCAL`.
        options: Beam's own and the runner's, such as `--flink_master=HOST:PORT`.

    Raises:
        ValueError: Beam is not installed, or has no such runner.
    """
    try:
        with _quiet():
            import apache_beam as beam
            from apache_beam.options.pipeline_options import PipelineOptions
            from apache_beam.runners.runner import create_runner
    except ImportError:
        raise ValueError(
            "this is done by Apache Beam, which is missing: install perceiver-ar[beam]"
        ) from None
    try:
        runner = _cores() if name == LOCAL else create_runner(name)
    except (ValueError, ImportError, AttributeError) as error:
        raise ValueError(f"Beam has no runner {name!r}: {error}") from None

    def run(make: Make, parts: list[Part], title: str) -> None:
        given = PipelineOptions(["--direct_num_workers=0", *options])
        pipeline = beam.Pipeline(runner, given)
        _ = pipeline | beam.Create(parts) | beam.Reshuffle() | beam.Map(make)
        with _watched(parts, title), _quiet() if name == LOCAL else nullcontext():
            try:
                pipeline.run().wait_until_finish()
            except RuntimeError as error:
                said = (
                    RAISED.findall(str(error)) or str(error).strip().splitlines() or ["it does not say why"]
                )
                raise ValueError(f"Beam could not prepare {title}: {said[-1]}") from error
        if missing := [part.path for part in parts if not part.path.exists()]:
            raise ValueError(f"{missing[0]} is not there: Beam's workers must write where this machine reads")

    return run


def _cores() -> "PipelineRunner":
    """A process a core, which keep what they log to themselves: what goes wrong reaches this process all the same."""
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    command = f"exec '{sys.executable}' -m apache_beam.runners.worker.sdk_worker_main 2>/dev/null"
    return FnApiRunner(SubprocessSDKEnvironment.from_command_string(command))


@contextmanager
def _quiet() -> Iterator[None]:
    """Beam logs warnings that concern nobody here, and tracebacks of what becomes a sentence."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _watched(parts: list[Part], title: str) -> Iterator[None]:
    """A bar that counts the parts that are there, whoever makes them."""
    done = threading.Event()
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"Preparing {title}", total=len(parts))

        def look() -> None:
            while not done.wait(SECOND):
                progress.update(bar, completed=sum(part.path.exists() for part in parts))

        looking = threading.Thread(target=look)
        looking.start()
        try:
            yield
            progress.update(bar, completed=len(parts))
        finally:
            done.set()
            looking.join()
