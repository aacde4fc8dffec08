"""The training loop: batches in, checkpoints and metrics out; run it again to go on."""

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import Mesh
from rich.console import Console

from perceiver_ar.checkpoint import load
from perceiver_ar.model import Params, to_params
from training import devices
from training.config import Paths, TrainConfig
from training.cost import Meter
from training.data.crops import batches
from training.data.domain import Sequences
from training.evaluate import score, spread, windows
from training.metrics import Live, Metrics
from training.state import VALIDATION, Checkpoints, write_config
from training.step import State, make_step

EVERY = 50
"""Steps between lines of metrics, each the mean of so many losses."""


class Diverged(RuntimeError):
    """The loss is no longer a number; the last good checkpoint was kept."""


class Stopped(RuntimeError):
    """The run was told to stop, and saved what it had."""


def train(config: TrainConfig, paths: Paths) -> State:
    """Train to `config.steps`, from the newest checkpoint in the workdir if there is one.

    Raises:
        Diverged: the loss became NaN or infinite.
        Stopped: SIGINT or SIGTERM came; everything up to then is in a checkpoint.
        ValueError: data or checkpoint that do not fit.
    """
    first_process = jax.process_index() == 0
    console, mesh = Console(stderr=True, quiet=not first_process), devices.mesh()
    with devices.first_alone():
        sequences = config.domain.load(paths.data, "train", paths.workdir / "data")
        held_out = config.domain.load(paths.data[:1], "validation", paths.workdir / "data")
        write_config(config, paths.workdir)
    checkpoints = Checkpoints(paths.workdir)
    state = checkpoints.read(config, mesh)
    if paths.init and int(state.step) == 0:
        state = _begin_with(state, config, paths.init, mesh)
    first = int(state.step)
    size = optax.tree.size(state.params)
    console.print(f"{size:,} parameters, {len(sequences):,} sequences, from step {first}")
    step, losses = make_step(config, mesh), []
    meter = Meter(config)
    live = Live(console, config, meter, first)
    with Metrics(paths, config, first) as metrics, live.progress, _asked_to_stop() as asked:
        for number, batch in enumerate(batches(sequences, config, first), first + 1):
            state, loss = step(state, *devices.spread(batch, mesh))
            losses.append(_good(loss, number))
            meter.count(number - 1)
            live.show(number, losses[-EVERY:])
            last, stop = number == config.steps, asked() or checkpoints.preempted(number)
            if number % EVERY == 0 or last:
                rates = {"tokens_per_second": meter.tokens_per_second, "utilisation": meter.utilisation}
                metrics.write(number, loss=float(np.mean(losses[-EVERY:])), **rates)
            nll = math.inf
            if number % config.evaluate_every == 0 or last:
                nll = _look(config, devices.gathered(state.weights, mesh), held_out, number)
                metrics.write(number, **{VALIDATION: nll})
                shown = f"{nll * config.domain.unit.factor:.4f} {config.domain.unit.name}"
                live.progress.console.print(f"step {number}: validation {shown} (a sample of windows)")
            if number % config.save_every == 0 or nll < math.inf or stop:
                checkpoints.save(state, nll)
            if stop and not last:
                checkpoints.finish()
                raise Stopped(f"stopped at step {number} and saved it: run the same command again to go on")
    checkpoints.finish()
    return state


def _good(loss: jax.Array, number: int) -> float:
    value = float(loss)
    if not np.isfinite(value):
        raise Diverged(f"the loss became {value} at step {number}; the last checkpoint is good")
    return value


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM has come, which then waits for the step's end; a second one does not wait.

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


def _begin_with(state: State, config: TrainConfig, folder: Path, mesh: Mesh) -> State:
    """The state with the weights of a shipped model, which must compute what the run's model does."""
    found = load(folder)
    names = "latents", "dtype", "remat", "dropout", "cross_attend_dropout"  # which change no parameter
    if replace(found.config, **{name: getattr(config.model, name) for name in names}) != config.model:
        raise ValueError(f"{folder} is a model of another config than the run's")
    params = to_params(found.model)
    params = jax.device_put(params, devices.placed(params, mesh, config.shard))
    return state._replace(params=params, average=state.average and jax.tree.map(jnp.copy, params))


def _look(config: TrainConfig, weights: Params, held_out: Sequences, step: int) -> float:
    """Mean NLL of a fixed sample of held-out windows, at the context of the current stage; processes share the work."""
    context = config.stage(step - 1).context
    chosen = spread(windows(config.domain, held_out, config.model.latents), config.evaluate_windows)
    mine = chosen[jax.process_index() :: jax.process_count()]
    latents = min(config.model.latents, context)
    scores = score(
        config.model, weights, config.domain.codec, held_out, mine, context=context, latents=latents
    )
    sums = np.array([(found.nll, found.tokens) for found in scores]).reshape(-1, 2).sum(axis=0)
    nll, tokens = process_allgather(sums).reshape(-1, 2).sum(axis=0)
    return float(nll / tokens)
