"""The benchmarks run, on a tiny model and without the peers; their figures are nobody's business here."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.playing import FEATURES, cuts, features, repetition, shared_area, silence
from perceiver_ar.codecs.music import Note
from training.data.domain import Pieces

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "columns", "figures"),
    [("generate", 10, ("tokens/s", "peak MiB")), ("train_step", 6, ("latents/s", "peak MiB"))],
)
def test_a_quick_run_gives_a_table_with_every_figure(
    module: str, columns: int, figures: tuple[str, ...]
) -> None:
    command = [sys.executable, "-m", f"benchmarks.{module}", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    header, _, row = [line for line in done.stdout.splitlines() if line.startswith("|")]
    cells = dict(zip(header.split("|"), row.split("|"), strict=True))
    found = {name.strip(): value.strip() for name, value in cells.items()}
    assert found["contestant"] == "ours" and found["config"] == "tiny" and len(found) >= columns
    for figure in figures:
        assert float(found[figure].split()[0].replace(",", "")) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "rows"),
    [
        (["context", "--contexts", "64", "--rounds", "1"], 1),
        (["long_run", "--minutes", "0.05"], 1),
    ],
    ids=["context", "long_run"],
)
def test_other_benchmarks_give_a_table(command: list[str], rows: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{command[0]}", *command[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if line.startswith("|")]) == rows + 2


def test_playing_is_measured_in_plain_numbers() -> None:
    scale = [Note(60 + pitch, 64, pitch * 0.5, pitch * 0.5 + 0.25) for pitch in range(12)]
    found = dict(zip(FEATURES, features(scale, 6.0), strict=True))
    assert found["notes a second"] == 2 and found["notes at once"] == 0.5
    assert np.isclose(found["pitch-class entropy"], np.log(12))
    assert (found["velocity spread"], found["onset gap, median"], found["longest repetition"]) == (0, 0.5, 4)
    assert features([], 6.0)[FEATURES.index("longest silence")] == 6


def test_silence_and_repetition() -> None:
    held = np.array([0.0, 1.0, 5.0]), np.array([4.0, 1.5, 6.0])  # the first note sounds over the second
    assert silence(*held, 6.0) == 1.0
    assert silence(*held, 9.0) == 3.0
    assert repetition(np.array([1, 2, 3, 1, 2, 3, 1, 2, 9])) == 8
    assert repetition(np.array([5, 5, 5, 1])) == 3


def test_shared_area_is_one_for_the_same_and_none_for_the_distant() -> None:
    sample = np.random.default_rng(0).normal(size=40)
    assert shared_area(sample, sample) == pytest.approx(1)
    assert shared_area(sample, sample + 100) < 0.01
    assert 0.2 < shared_area(sample, sample + 1) < 0.9
    assert shared_area(np.zeros(5), np.zeros(5)) == pytest.approx(1)


def test_cuts_leave_enough_on_both_sides() -> None:
    lengths = [50, 9, 80, 40]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    pieces = Pieces(np.arange(sum(lengths)).astype(np.uint16), offsets)
    found = cuts(pieces, 3, 10, 20)
    assert [len(before) + len(after) + 1 for before, after in found] == [50, 80, 40]
    assert all(len(before) >= 10 and len(after) >= 20 - 1 for before, after in found)
    with pytest.raises(ValueError, match="ask for fewer"):
        cuts(pieces, 4, 10, 20)
