"""Augmentation changes what it says, as much as it says, and nothing else."""

from pathlib import Path

import numpy as np
import pytest

from perceiver_ar.codecs.music import MusicCodec
from training.data.music import Music, louder, stretched, transposed

CODEC = MusicCodec()


@pytest.fixture(scope="module")
def performance(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Tokens of a piece, int32."""
    return Music().load((archive,), "train", tmp_path_factory.mktemp("store"))[0].astype(np.int32)


def test_transposition_moves_notes_and_nothing_else(performance: np.ndarray) -> None:
    tokens = performance
    moved = CODEC.decode(transposed(tokens, 5))
    plain = CODEC.decode(tokens)
    assert [note._replace(pitch=note.pitch + 5) for note in plain] == moved
    highest = np.array([CODEC.note_on + 127, CODEC.time_shift, CODEC.note_off + 127], np.int32)
    assert np.array_equal(transposed(highest, 1), highest)


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.07])
def test_a_stretch_multiplies_times_without_adding_up_errors(performance: np.ndarray, factor: float) -> None:
    tokens = performance
    slower, plain = CODEC.decode(stretched(tokens, factor)), CODEC.decode(tokens)
    assert len(slower) == len(plain)
    for new, old in zip(slower, plain, strict=True):
        assert new.pitch == old.pitch
        assert abs(new.start - old.start * factor) < 0.006
        assert abs(new.end - old.end * factor) < 0.006
    if factor == 1.0:
        assert np.array_equal(stretched(tokens, 1.0), tokens[: len(stretched(tokens, 1.0))])


@pytest.mark.parametrize("levels", [-40, -2, 0, 3])
def test_loudness_moves_velocities_within_their_range_and_nothing_else(
    performance: np.ndarray, levels: int
) -> None:
    tokens = performance
    moved, loud = louder(tokens, levels), tokens >= CODEC.velocity
    assert np.array_equal(moved[~loud], tokens[~loud])
    assert np.array_equal(moved[loud], np.clip(tokens[loud] + levels, CODEC.velocity, CODEC.vocab_size - 1))
    assert loud.any()
    assert [note[:1] + note[2:] for note in CODEC.decode(moved)] == [
        note[:1] + note[2:] for note in CODEC.decode(tokens)
    ]


def test_augmentation_can_be_turned_off(performance: np.ndarray) -> None:
    tokens = performance
    same = Music(transpose=0, stretch=0.0, loudness=0).augment(tokens, np.random.default_rng(0))
    assert np.array_equal(same, tokens)
