"""The copy task: its codec, what of it is scored, and that the model learns it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver_ar.codecs.copy_task import CopyCodec
from perceiver_ar.config import FIRST_DATA, SOS
from perceiver_ar.model import from_params
from training.__main__ import main
from training.config import OptimConfig, Paths, Stage
from training.data.copy_task import CopyTask
from training.data.crops import training_batch
from training.data.domain import domain_class, domain_from_dict
from training.evaluate import evaluate
from training.loop import train
from training.presets.copy_task_32 import TINY


@given(st.lists(st.integers(0, 9)))
def test_a_sequence_comes_back_with_its_mirror_image(numbers: list[int]) -> None:
    codec = CopyCodec(10)
    assert codec.decode(codec.encode(numbers)).tolist() == numbers + numbers[::-1]


def test_a_number_that_is_no_symbol_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 9"):
        CopyCodec(10).encode([3, 10])


def test_sequences_are_mirrored_and_each_split_has_its_own() -> None:
    task = CopyTask(length=8, symbols=5)
    train_set, held_out = (task.load((), split, Path()) for split in ("train", "validation"))
    for number in range(20):
        start, *rest = train_set[number].tolist()
        assert start == SOS and rest == rest[::-1] and len(rest) == 8
        assert train_set.length(number) == 9
        assert min(rest) >= FIRST_DATA and max(rest) < task.codec.vocab_size
        assert np.array_equal(train_set[number], task.load((), "train", Path())[number])
    assert any(not np.array_equal(train_set[n], held_out[n]) for n in range(5))
    with pytest.raises(IndexError):
        held_out[len(held_out)]


def test_only_the_mirror_image_is_to_be_predicted() -> None:
    config = replace(TINY, domain=CopyTask(32, 256), stages=(Stage(1.0, 32, 16),))
    sequences = config.domain.load((), "train", Path())
    for step in range(4):
        batch = training_batch(sequences, config, step)
        for tokens, positions, targets in zip(*batch, strict=True):
            shown = np.concatenate([tokens[tokens != 0], targets[-1:]])
            symbols = shown[1:]
            scored = targets[targets != 0]
            assert shown[0] == SOS and positions[-1, 0] == len(shown) - 2
            assert len(symbols) >= 16 + len(scored)
            half = symbols[:16]
            assert np.array_equal(symbols[16:], half[::-1][: len(symbols) - 16])
            assert np.array_equal(scored, symbols[-len(scored) :])


def test_the_model_learns_the_task_in_seconds(tmp_path: Path) -> None:
    """Every symbol of sequences it has not seen; a model that cannot look back scores 1 in 32."""
    task = CopyTask(32, symbols=32)
    config = replace(
        TINY,
        domain=task,
        model=replace(TINY.model, width=64, vocab_size=task.codec.vocab_size),
        stages=(Stage(1.0, 32, 32),),
        steps=300,
        optim=OptimConfig(rate=4e-3, warmup=20, decay=50),
        save_every=300,
        evaluate_every=300,
    )
    state = train(config, Paths(tmp_path))
    found = evaluate(from_params(config.model, state.params), task, task.load((), "validation", tmp_path))
    assert found["accuracy"] == 1.0 and found["tokens"] == 64 * 16
    assert found["nll"] < 0.05


def test_the_task_needs_no_data_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["copy_task_32", "--tiny", "--workdir", str(tmp_path / "run")]
    assert main([*run, "--data", str(tmp_path)]) == 2
    assert "leave --data out" in capsys.readouterr().err
    with pytest.raises(ValueError, match="even"):
        CopyTask(length=7)
    with pytest.raises(ValueError, match="no domain 'nothing'"):
        domain_class("nothing")
    assert domain_from_dict(CopyTask(8, 5).to_dict()) == CopyTask(8, 5)
    assert CopyTask.of(CopyCodec(7), context=64) == CopyTask(64, 7)
