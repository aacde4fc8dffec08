"""A run's figures: JSON lines, TensorBoard, Weights & Biases if asked, and one live line on the terminal."""

import importlib.util
import json
import os
import time
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

from training.config import Paths, TrainConfig
from training.cost import Meter

FILE = "metrics.jsonl"


class Metrics:
    """Where figures of a run are written, beside its checkpoints; closed at the end of a `with`."""

    def __init__(self, paths: Paths, config: TrainConfig, first: int) -> None:
        self._first_process = jax.process_index() == 0
        if not self._first_process:
            return
        path = paths.workdir / FILE
        if path.exists():  # a line that a crash has cut would have the next one behind it
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
        self._lines = path.open("a")
        self._board = SummaryWriter(str(paths.workdir / "tensorboard"), purge_step=first + 1)
        self._run = _wandb(paths, config) if paths.wandb else None

    def write(self, step: int, **values: float) -> None:
        """Figures of a step, everywhere; of the first process's alone."""
        if not self._first_process:
            return
        self._lines.write(json.dumps({"time": round(time.time(), 1), "step": step} | values) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        if self._run:
            self._run.log(values, step=step)

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *_: Any) -> None:
        if not self._first_process:
            return
        self._lines.close()
        self._board.close()
        if self._run:
            self._run.finish()


def check_wandb(paths: Paths) -> None:
    """ValueError if wandb is asked for and is not installed."""
    if paths.wandb and importlib.util.find_spec("wandb") is None:
        raise ValueError("--wandb needs Weights & Biases: pip install wandb, or leave it out")


def _wandb(paths: Paths, config: TrainConfig) -> Any:
    import wandb  # pyright: ignore[reportMissingImports]

    name = paths.workdir / "wandb.id"  # so that a run that goes on is one run there as well
    if not name.exists():
        name.write_text(uuid.uuid4().hex)
    return wandb.init(
        project=paths.wandb,
        id=name.read_text(),
        dir=str(paths.workdir),
        config=config.to_dict(),
        resume="allow",
    )


class Live:
    """One line on the terminal: step, loss in the domain's unit, tokens a second, use of the machine, time left."""

    def __init__(self, console: Console, config: TrainConfig, meter: Meter, first: int) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
        # A step may take minutes: of no speed in its usual 30 seconds rich would show no time left.
        self.progress = Progress(*columns, console=console, speed_estimate_period=600)
        self._meter, self._unit = meter, config.domain.unit
        self._bar = self.progress.add_task("", total=config.steps, completed=first)

    def show(self, step: int, losses: Collection[float], *, told: bool) -> None:
        """The mean of the losses given, if there are any, and the rates since the run began or went on.

        Args:
            told: print them where there is no terminal.
        """
        loss = f"{sum(losses) / len(losses) * self._unit.factor:.3f}" if losses else "-"
        rates = f"{self._meter.tokens_per_second:,.0f} tokens/s  {self._meter.utilisation:.0%} of peak"
        line = f"step {step}  loss {loss} {self._unit.name}  {rates}"
        self.progress.update(self._bar, completed=step, description=line)
        if told and not self.progress.console.is_terminal:
            self.progress.console.print(line)


def read_metrics(workdir: Path) -> list[dict[str, float]]:
    """The figures a run has written so far."""
    lines = (workdir / FILE).read_text().split("\n")[:-1]  # behind the last newline is what a crash has cut
    return [json.loads(line) for line in lines]
