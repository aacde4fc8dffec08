"""Saving and resuming a run, by orbax."""

import gc
import io
import json
import logging
import math
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from orbax.checkpoint import checkpoint_managers as policies

from perceiver_ar.checkpoint import CODEC, CONFIG
from perceiver_ar.config import ModelConfig
from perceiver_ar.files import whole
from training.config import Paths, TrainConfig
from training.step import State, placed_shapes, placed_state

CHECKPOINTS = "checkpoints"
"""Folder in a run's workdir."""
BEFORE = "before"
"""Field of a run's `config.json`: what it did before it went on in another way, oldest first."""
VALIDATION = "validation_nll"
WHILE_READING = 1.0
"""Seconds without a word, after which all that was still read of a damaged checkpoint has failed."""
BYTES = 4
"""Of a number in a checkpoint."""


def _merit(metrics: dict[str, float]) -> float:
    return -metrics[VALIDATION]


class Checkpoints:
    """The checkpoints of a run: the newest two, and the one with the lowest validation NLL. Each is whole or absent."""

    def __init__(self, workdir: Path) -> None:
        best = policies.BestN(get_metric_fn=_merit, n=1)
        options = ocp.CheckpointManagerOptions(
            best_fn=_merit,
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(2), best]),
            create=False,  # but when something is saved
        )
        self._folder = (workdir / CHECKPOINTS).resolve()
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    @property
    def newest(self) -> int | None:
        """The step of the newest one."""
        return self._manager.latest_step()

    def save(self, state: State, nll: float = math.inf) -> None:
        """Begin to write `state` under its step, with its validation NLL if that is known; training may go on.

        Raises:
            OSError: this one, or the one before, could not be written.
        """
        args = ocp.args.StandardSave(state._asdict())
        with self._writing():
            self._folder.mkdir(parents=True, exist_ok=True)
            # Before writing, since an array that no longer fits fails in threads of its own, with stacks of their own.
            if shutil.disk_usage(self._folder).free < optax.tree.size(state) * BYTES:
                raise OSError("No space left")
            self._manager.save(int(state.step), args=args, metrics={VALIDATION: nll})

    def close(self) -> None:
        """Wait until everything is written; OSError as in `save`."""
        with self._writing():
            self._manager.wait_until_finished()

    def kept(self) -> str:
        """In words: which there are, when everything is written, and what to do if the newest is no good."""
        self.close()
        steps = sorted(self._manager.all_steps())
        if not steps:
            return "there is no checkpoint yet"
        measured = {step: (self._manager.metrics(step) or {}).get(VALIDATION, math.inf) for step in steps}
        best = min(steps, key=measured.__getitem__)
        lowest = f", with the lowest validation NLL at step {best}" if measured[best] < math.inf else ""
        return (
            f"there are checkpoints of steps {', '.join(map(str, steps))}{lowest}: the same command goes on from the "
            "newest, so delete those that are no good"
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            full = "No space left" in str(error)
            raise OSError(
                f"a checkpoint could not be written to {self._folder}, {'the disk is full' if full else error}; those "
                "that were written before are whole: make room and run the same command again"
            ) from error

    def preempted(self, step: int) -> bool:
        """Whether the machines are about to be taken away; only a run on several processes is told so this way."""
        return jax.process_count() > 1 and self._manager.reached_preemption(step)

    def read(self, config: TrainConfig, mesh: Mesh, *, best: bool = False, fresh: bool = True) -> State:
        """The newest state, or the best one, on the mesh's devices; where there is none a new one if it may be `fresh`.

        Raises:
            ValueError: there is none, or it is damaged, if the run is one that `config` fits (`check_run`).
        """
        step = self._manager.best_step() if best else self.newest
        wanted = placed_shapes(config, mesh)
        if step is None and not fresh:
            raise ValueError(f"{self._folder.parent} has no checkpoint yet: train for longer")
        if step is None:
            return placed_state(config, mesh)
        if restored := self._restored(step, wanted):
            return restored
        raise ValueError(
            f"the checkpoint of step {step} is damaged: delete {self._folder / str(step)}, to go on from the one before"
        )

    def _restored(self, step: int, wanted: State) -> State | None:
        """The state that was saved at `step`; None if it is another one than `wanted`, or damaged."""
        with redirect_stderr(io.StringIO()) as printed, _disabled(logging.getLogger("asyncio")):
            try:
                return State(**self._manager.restore(step, args=ocp.args.StandardRestore(wanted._asdict())))
            except (MemoryError, jax.errors.JaxRuntimeError):
                raise
            except Exception:  # which orbax raises of damage
                pass
            # What orbax was reading beside it fails in threads of its own, and prints a stack for each.
            lines = -1
            while printed.tell() > lines:
                lines = printed.tell()
                time.sleep(WHILE_READING)
                gc.collect()
        return None


@contextmanager
def _disabled(logger: logging.Logger) -> Iterator[None]:
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


class Start(NamedTuple):
    """How a run began, or went on from a step in another way than before."""

    step: int
    """The number of steps that were done."""
    config: TrainConfig
    data: tuple[str, ...] | None
    """As `Paths` has them; None: not known, of a run from before this was kept."""
    init: str | None
    """The model whose weights the run began with, if not with new ones."""

    def to_dict(self) -> dict[str, Any]:
        """A plain dict that JSON can hold."""
        return self.config.to_dict() | {"from_step": self.step, "data": self.data, "init": self.init}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Start":
        """What `to_dict` wrote."""
        fields = dict(values)
        step, data, init = fields.pop("from_step", 0), fields.pop("data", None), fields.pop("init", None)
        return cls(step, TrainConfig.from_dict(fields), None if data is None else tuple(data), init)


def read_starts(workdir: Path, step: int) -> list[Start]:
    """What made the first `step` steps of a run, oldest first; ValueError if the folder holds none."""
    try:
        now = json.loads((workdir / CONFIG).read_text())
        starts = [Start.from_dict(one) for one in [*now.pop(BEFORE, []), now]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{workdir} holds no training run: {error}") from error
    return [one for one in starts if one.step < step]


def read_config(workdir: Path) -> TrainConfig:
    """The newest config of a run; ValueError as in `read_starts` and `check_codec`."""
    config = read_starts(workdir, sys.maxsize)[-1].config
    check_codec(config, workdir)
    return config


def write_config(config: TrainConfig, paths: Paths, first: int = 0) -> None:
    """What a run does from the step `first` on as `config.json`, with all that it did before, and what makes its tokens
    as `codec.json`, beside the checkpoints.
    """
    starts = read_starts(paths.workdir, first) if first else []
    init = starts[-1].init if starts else paths.init and str(paths.init)
    now = Start(first, config, tuple(map(str, paths.data)), init)
    if not starts or starts[-1]._replace(step=first) != now:
        starts.append(now)
    *before, last = [one.to_dict() for one in starts]
    paths.workdir.mkdir(parents=True, exist_ok=True)
    for name, values in ((CONFIG, last | {BEFORE: before}), (CODEC, config.domain.codec.to_dict())):
        with whole(paths.workdir / name) as file:  # a crash or a full disk must not take what is there
            file.write((json.dumps(values, indent=1) + "\n").encode())


def check_run(config: TrainConfig, workdir: Path) -> None:
    """Refuse to go on with a model that computes something else from the same parameters, or with an optimiser that
    keeps something else.

    Raises:
        ValueError: the run in this folder has another model or optimiser than `config` describes, or has lost its
            config.
    """
    before = read_config(workdir)
    if not same_function(before.model, config.model):
        raise ValueError(
            f"the run in {workdir} has another model: give the same --model options as it began with, or another "
            "--workdir"
        )
    was, now = before.optim, config.optim
    if (was.name == "muon") != (now.name == "muon") or bool(was.average) != bool(now.average):
        raise ValueError(
            f"the run in {workdir} has --optim.name {was.name} and --optim.average {was.average:g}, and cannot go on "
            f"with {now.name} and {now.average:g}: give these options as it began with, or another --workdir"
        )


def same_function(one: ModelConfig, other: ModelConfig) -> bool:
    """Whether two models compute the same from the same parameters, up to rounding and for as many latents."""
    free = ["latents", "dtype", "cache_dtype", "remat", "dropout", "cross_attend_dropout"]
    if other.position != "learned":
        free.append("position_shape")  # lengths of tables that there are none of
    return one.axes == other.axes and replace(one, **{name: getattr(other, name) for name in free}) == other


def check_codec(config: TrainConfig, workdir: Path) -> None:
    """Refuse to go on with tokens that mean something else, such as those of subwords learned again.

    Raises:
        ValueError: the run in this folder has another codec than `config` describes.
    """
    path = workdir / CODEC
    codec = json.dumps(config.domain.codec.to_dict(), indent=1) + "\n"
    if path.is_file() and path.read_text() != codec:
        raise ValueError(
            f"the run in {workdir} has tokens of another kind ({path}): give the same --domain options and files as "
            "it began with, or another --workdir"
        )
