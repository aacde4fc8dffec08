"""Saving and resuming a run, by orbax."""

import json
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from training.config import TrainConfig
from training.step import State, new_state


class Checkpoints:
    """The checkpoints of a run, newest two kept, each complete or absent."""

    def __init__(self, workdir: Path) -> None:
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager((workdir / "checkpoints").resolve(), options=options)

    def save(self, state: State) -> None:
        """Write `state` under its step."""
        self._manager.save(int(state.step), args=ocp.args.StandardSave(state._asdict()))
        self._manager.wait_until_finished()

    def latest(self, config: TrainConfig) -> State:
        """The newest state, or a fresh one where there is none.

        Raises:
            ValueError: the checkpoint is of another model or optimiser than `config` describes.
        """
        step = self._manager.latest_step()
        if step is None:
            return new_state(config)
        shapes = jax.eval_shape(lambda: new_state(config))
        try:
            restored = self._manager.restore(step, args=ocp.args.StandardRestore(shapes._asdict()))
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"the checkpoint of step {step} was made with another model or optimiser"
            ) from error
        return State(**restored)


def read_config(workdir: Path) -> TrainConfig:
    """The config of a run; ValueError if the folder holds none."""
    try:
        return TrainConfig.from_dict(json.loads((workdir / "config.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{workdir} holds no training run: {error}") from error


def write_config(config: TrainConfig, workdir: Path) -> None:
    """The resolved config as `config.json`, beside the checkpoints."""
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "config.json").write_text(json.dumps(config.to_dict(), indent=1) + "\n")
