"""The training loop: batches in, checkpoints and metrics out; run it again to go on."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from perceiver_ar.checkpoint import load
from perceiver_ar.model import to_params
from training.config import Paths, TrainConfig
from training.data.crops import batches
from training.data.domain import Sequences
from training.evaluate import score, spread, windows
from training.state import Checkpoints, write_config
from training.step import State, make_step


class Diverged(RuntimeError):
    """The loss is no longer a number; the last good checkpoint was kept."""


def train(config: TrainConfig, paths: Paths) -> State:
    """Train to `config.steps`, from the newest checkpoint in the workdir if there is one.

    Raises:
        Diverged: the loss became NaN or infinite.
        ValueError: data or checkpoint that do not fit.
    """
    console = Console(stderr=True)
    store = paths.workdir / "data"
    sequences = config.domain.load(paths.data, "train", store)
    held_out = config.domain.load(paths.data[:1], "validation", store)
    write_config(config, paths.workdir)
    checkpoints = Checkpoints(paths.workdir)
    state = checkpoints.latest(config)
    if paths.init and int(state.step) == 0:
        state = _begin_with(state, config, paths.init)
    first = int(state.step)
    size = sum(x.size for x in jax.tree.leaves(state.params))
    console.print(f"{size:,} parameters, {len(sequences):,} sequences, from step {first}")
    step = make_step(config)
    losses: list[float] = []
    began, latents_done = time.monotonic(), 0
    with _progress(console) as progress, (paths.workdir / "metrics.jsonl").open("a") as metrics:
        bar = progress.add_task("", total=config.steps, completed=first)
        for number, batch in enumerate(batches(sequences, config, first), first + 1):
            state, loss = step(state, *batch)
            losses.append(float(loss))
            latents_done += batch.targets.size
            if not np.isfinite(losses[-1]):
                raise Diverged(f"the loss became {losses[-1]} at step {number}; the last checkpoint is good")
            rate = latents_done / (time.monotonic() - began)
            text = f"step {number}  loss {np.mean(losses[-50:]):.3f} nats/token  {rate:,.0f} tokens/s"
            progress.update(bar, completed=number, description=text)
            last = number == config.steps
            if number % 50 == 0 or last:
                _write(metrics, step=number, loss=float(np.mean(losses[-50:])), tokens_per_second=rate)
            if number % config.save_every == 0 or last:
                checkpoints.save(state)
            if number % config.evaluate_every == 0 or last:
                nll = _look(config, state, held_out)
                _write(metrics, step=number, validation_nll=nll)
                progress.console.print(
                    f"step {number}: validation {nll:.4f} nats/token (a sample of windows)"
                )
    return state


def _begin_with(state: State, config: TrainConfig, folder: Path) -> State:
    """The state with the weights of a shipped model, which must compute what the run's model does."""
    found = load(folder)
    free = {
        name: getattr(config.model, name) for name in ("dtype", "remat", "dropout", "cross_attend_dropout")
    }
    if replace(found.config, **free) != config.model:
        raise ValueError(f"{folder} is a model of another config than the run's")
    return state._replace(params=to_params(found.model))


def _look(config: TrainConfig, state: State, held_out: Sequences) -> float:
    """Mean NLL of a fixed sample of held-out windows, at the context of the current stage."""
    context = config.stage(max(int(state.step) - 1, 0)).context
    chosen = spread(windows(config.domain, held_out, config.model.latents), config.evaluate_windows)
    scores = score(config.model, state.params, config.domain.codec, held_out, chosen, context=context)
    sums = np.array([(found.nll, found.tokens) for found in scores])
    return float(sums[:, 0].sum() / sums[:, 1].sum())


def _write(file: Any, **values: float) -> None:
    file.write(json.dumps({"time": round(time.time(), 1)} | values) + "\n")
    file.flush()


def _progress(console: Console) -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=console)


def read_metrics(workdir: Path) -> list[dict[str, float]]:
    """The metrics a run has written so far."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
