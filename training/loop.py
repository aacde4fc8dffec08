"""The training loop: batches in, checkpoints and metrics out; run it again to go on."""

import math
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental.multihost_utils import process_allgather
from rich.console import Console

from perceiver_ar.checkpoint import load
from perceiver_ar.model import Params, to_params
from training import devices
from training.config import Paths, TrainConfig
from training.cost import Meter
from training.data.crops import batches
from training.data.domain import Sequences
from training.data.splits import first_with_split
from training.evaluate import score, spread, windows
from training.metrics import Live, Metrics, check_wandb
from training.state import VALIDATION, Checkpoints, check_codec, check_run, same_function, write_config
from training.step import State, Steps

EVERY = 50
"""Steps between lines of metrics, each the mean of so many losses."""
MARGIN = 1.0
"""Nats by which a loss has to be worse than guessing to be given up: regularisers are no part of it, rounding is."""


class Diverged(RuntimeError):
    """The loss is no longer a number, or worse than guessing; which checkpoints there are is said."""


class Stopped(RuntimeError):
    """The run was told to stop, and saved what it had."""


def train(config: TrainConfig, paths: Paths) -> State:
    """Train to `config.steps`, from the newest checkpoint in the workdir if there is one.

    Raises:
        Diverged: the loss became NaN or infinite, or worse than guessing.
        Stopped: SIGINT or SIGTERM came; everything up to then is in a checkpoint.
        ValueError: data or checkpoint that do not fit.
    """
    first_process = jax.process_index() == 0
    console, store = Console(stderr=True, quiet=not first_process), paths.workdir / "data"
    checkpoints = Checkpoints(paths.workdir)
    first = checkpoints.newest or 0
    initial = _checked(config, paths, first)
    with devices.first_alone():
        sequences = config.domain.load(paths.data, "train", store)
        held_out = first_with_split(paths.data, lambda one: config.domain.load(one, "validation", store))
    mesh = devices.mesh()
    state = checkpoints.read(config, mesh)
    if initial:
        state = _begin_with(state, jax.device_put(initial, devices.placed(initial, mesh, config.shard)))
    if first_process:  # not before all that may be refused, so that a refused attempt leaves a run as it was
        write_config(config, paths, first)
    size = optax.tree.size(state.params)
    console.print(f"{size:,} parameters, {len(sequences):,} sequences, from step {first}")
    losses, meter = _Losses(config, checkpoints), Meter(config)
    live = Live(console, config, meter, first)
    with (
        Metrics(paths, config, first) as metrics,
        live.progress,
        _asked_to_stop() as asked,
        closing(Steps(config, mesh, first)) as steps,
        closing(checkpoints),
    ):
        for number, batch in enumerate(batches(sequences, config, first), first + 1):
            state, loss = steps(state, *devices.spread(batch, mesh))
            losses.add(loss, number)
            last, stop = number == config.steps, asked() or checkpoints.preempted(number)
            looks, saves = (number % every == 0 for every in (config.evaluate_every, config.save_every))
            if last or stop or looks or saves or number % EVERY == 0:
                losses.settle()
            meter.count(number - 1)
            live.show(number, losses.recent, told=number % EVERY == 0)
            if number % EVERY == 0 or last:
                rates = {"tokens_per_second": meter.tokens_per_second, "utilisation": meter.utilisation}
                metrics.write(number, loss=float(np.mean(losses.recent)), **rates)
            nll = math.inf
            if looks or last:
                nll, accuracy = _look(config, devices.gathered(state.weights, mesh), held_out, number)
                metrics.write(number, **{VALIDATION: nll, "validation_accuracy": accuracy})
                shown = f"{nll * config.domain.unit.factor:.4f} {config.domain.unit.name}"
                live.progress.console.print(f"step {number}: validation {shown} (a sample of windows)")
            if saves or nll < math.inf or stop:
                checkpoints.save(state, nll)
            if stop and not last:
                raise Stopped(f"stopped at step {number} and saved it: run the same command again to go on")
    return state


class _Losses:
    """The losses of a run, each known a step later: so a fast device never waits for its next step to be sent to it."""

    def __init__(self, config: TrainConfig, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self.recent: deque[float] = deque(maxlen=EVERY)
        self._sure = config.optim.warmup + EVERY
        self._guessing = math.log(config.model.vocab_size)
        self._waiting: tuple[jax.Array, int] | None = None

    def add(self, loss: jax.Array, number: int) -> None:
        """One more, when the one before it is known.

        Raises:
            Diverged: a loss that became known is not finite, or the last `EVERY` are worse than guessing.
        """
        self.settle()
        self._waiting = (loss, number)

    def settle(self) -> None:
        """Wait until all are known; `Diverged` as in `add`."""
        if self._waiting:
            self._know(*self._waiting)
        self._waiting = None

    def _know(self, loss: jax.Array, number: int) -> None:
        value = float(loss)
        if not np.isfinite(value):
            raise self._diverged(f"the loss became {value} at step {number}")
        self.recent.append(value)
        mean = float(np.mean(self.recent))
        if number > self._sure and len(self.recent) == EVERY and mean > self._guessing + MARGIN:
            raise self._diverged(
                f"the loss has been {mean:.2f} nats for {EVERY} steps at step {number}, and guessing has "
                f"{self._guessing:.2f}"
            )

    def _diverged(self, how: str) -> Diverged:
        return Diverged(f"{how}: give a lower rate or a longer warm-up; {self._checkpoints.kept()}")


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM has come, which then waits for the steps that were sent, two at most; a second one does
    not wait for them.

    On several processes JAX listens for SIGTERM itself and tells all of them the same step to stop at.
    """
    came: list[int] = []

    def note(number: int, _: Any) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    alone = threading.current_thread() is threading.main_thread() and jax.process_count() == 1
    handlers = {name: signal.signal(name, note) for name in (signal.SIGINT, signal.SIGTERM) if alone}
    try:
        yield lambda: bool(came)
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)


def _checked(config: TrainConfig, paths: Paths, first: int) -> Params | None:
    """The weights that a run begins with if not with new ones, when all is checked that can be without data, which may
    take hours to prepare.
    """
    if first > config.steps:
        raise ValueError(
            f"the run in {paths.workdir} has done {first} steps, more than --steps {config.steps}: give more of them, "
            "or another --workdir"
        )
    check_wandb(paths)
    for stage in config.stages_from(first):
        devices.rows(stage.batch)
    check_codec(config, paths.workdir)
    if first:
        check_run(config, paths.workdir)
    if first or not paths.init:
        return None
    found = load(paths.init)
    if not same_function(found.config, config.model):
        raise ValueError(f"{paths.init} is a model of another config than the run's")
    if found.codec.to_dict() != config.domain.codec.to_dict():
        raise ValueError(f"{paths.init} has tokens of another kind than the run's data")
    return to_params(found.model)


def _begin_with(state: State, params: Params) -> State:
    """The state with other weights, before the first step."""
    return state._replace(params=params, average=state.average and jax.tree.map(jnp.copy, params))


def _look(config: TrainConfig, weights: Params, held_out: Sequences, step: int) -> tuple[float, float]:
    """Mean NLL and accuracy on a fixed sample of held-out windows, at the current stage's context; processes share the
    work.
    """
    context = config.stage(step - 1).context
    latents = min(config.model.latents, context)
    chosen = spread(windows(config.domain, held_out, latents), config.evaluate_windows)
    mine = chosen[jax.process_index() :: jax.process_count()]
    scores = score(config.model, weights, config.domain, held_out, mine, context=context, latents=latents)
    sums = np.array(list(scores)).reshape(-1, 3).sum(axis=0)
    nll, likeliest, tokens = process_allgather(sums).reshape(-1, 3).sum(axis=0)
    return float(nll / tokens), float(likeliest / tokens)
