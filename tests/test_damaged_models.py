"""A model's folder that is damaged, or whose files do not fit each other: which file it is, in a sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from perceiver_ar.checkpoint import CARD, CODEC, CONFIG, WEIGHTS, CheckpointError, load


def changed(name: str, **values: Any) -> Callable[[Path], None]:
    """Writes other values into a JSON file of the folder."""

    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def filled(name: str, data: bytes) -> Callable[[Path], object]:
    """Writes something else in place of a file of the folder."""
    return lambda folder: (folder / name).write_bytes(data)


def weights(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    """Changes the arrays of the folder."""

    def save(folder: Path) -> None:
        arrays = load_file(folder / WEIGHTS)
        change(arrays)
        save_file(arrays, folder / WEIGHTS)

    return save


def put(value: float, kind: type = np.float16) -> Callable[[Path], None]:
    """One number of the weights is another."""

    def change(arrays: dict[str, np.ndarray]) -> None:
        name = next(iter(arrays))
        arrays[name] = arrays[name].astype(kind)
        arrays[name].flat[3] = value

    return weights(change)


def within(arrays: dict[str, np.ndarray]) -> None:
    """One array has a name that lies within another's."""
    arrays[next(iter(arrays)) + ".x"] = np.zeros(3, np.float16)


WRONG = {
    "no time": (changed(CODEC, steps_per_second=0), CODEC),
    "time backwards": (changed(CODEC, steps_per_second=-100), CODEC),
    "time in words": (changed(CODEC, steps_per_second="a"), CODEC),
    "no shift": (changed(CODEC, max_shift_steps=0, velocity_bins=132), CODEC),
    "more bins than velocities": (changed(CODEC, velocity_bins=131, max_shift_steps=1), CODEC),
    "part of a bin": (changed(CODEC, velocity_bins=32.0), CODEC),
    "width with a point": (changed(CONFIG, width=32.0), CONFIG),
    "endless waves": (changed(CONFIG, longest_wavelength=float("inf")), CONFIG),
    "nested": (filled(CONFIG, b"[" * 100_000), CONFIG),
    "two axes": (changed(CONFIG, position_shape=[64, 64]), "1 axes of positions, the model 2"),
    "card": (filled(CARD, b"\xff\xfe\x00"), CARD),
    "names": (weights(within), WEIGHTS),
    "NaN": (put(np.nan), WEIGHTS),
    "negative NaN": (put(-np.nan), WEIGHTS),
    "infinite": (put(np.inf), WEIGHTS),
    "negative infinite": (put(-np.inf), WEIGHTS),
    "NaN in float32": (put(np.nan, np.float32), WEIGHTS),
}


@pytest.mark.parametrize(("damage", "named"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(
    small_model: Path, tmp_path: Path, damage: Callable[[Path], object], named: str
) -> None:
    folder = shutil.copytree(small_model, tmp_path / "model")
    damage(folder)
    with pytest.raises(CheckpointError) as refused:
        load(folder)
    assert named in str(refused.value)


@pytest.mark.parametrize("value", [np.finfo(np.float16).max, np.finfo(np.float16).min, -0.0])
def test_whatever_is_a_number_may_be_a_weight(small_model: Path, tmp_path: Path, value: float) -> None:
    folder = shutil.copytree(small_model, tmp_path / "model")
    put(value)(folder)
    load(folder)
