"""The copy task: its codec, what of it is scored, and that the model learns it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver_ar.codecs.copy_task import CopyCodec
from perceiver_ar.config import FIRST_DATA, PAD, SOS
from perceiver_ar.generate import generate
from perceiver_ar.model import from_params
from perceiver_ar.sampling import Sampling
from training.__main__ import main
from training.config import OptimConfig, Paths, Stage
from training.data.copy_task import CopyTask
from training.data.crops import training_batch
from training.data.domain import domain_class, domain_from_dict
from training.evaluate import Window, evaluate, window_batch, windows
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


def test_shorter_training_sequences_keep_their_place_around_the_middle() -> None:
    task = CopyTask(length=32, symbols=50, shortest=4)
    sequences = task.load((), "train", Path())
    lengths = set()
    for number in range(60):
        start, *symbols = [token for token in sequences[number].tolist() if token != PAD]
        half = len(symbols) // 2
        assert start == SOS and symbols == symbols[::-1]
        assert sequences[number].tolist() == [PAD] * (16 - half) + [SOS, *symbols]
        assert sequences.length(number) == 17 + half
        lengths.add(len(symbols))
    assert lengths == {4, 8, 16, 32}
    held_out = task.load((), "validation", Path())
    assert {len(held_out[number]) for number in range(len(held_out))} == {33}
    assert not any(PAD in held_out[number] for number in range(len(held_out)))
    with pytest.raises(ValueError, match="2 to 32 symbols, not 64"):
        CopyTask(32, shortest=64)


@pytest.mark.parametrize("shortest", [None, 8])
def test_only_the_mirror_image_is_to_be_predicted(shortest: int | None) -> None:
    config = replace(TINY, domain=CopyTask(32, 256, shortest), stages=(Stage(1.0, 32, 16),))
    sequences = config.domain.load((), "train", Path())
    for step in range(4):
        batch = training_batch(sequences, config, step)
        for tokens, positions, targets in zip(*batch, strict=True):
            [begin] = np.flatnonzero(tokens == SOS)
            # All padding is before the first token: `attention.fused` rests on it.
            assert not tokens[:begin].any() and tokens[begin:].all()
            assert np.array_equal(np.diff(positions[begin:, 0]), np.ones(len(tokens) - 1 - begin))
            shown = dict(zip(positions[begin + 1 :, 0].tolist(), tokens[begin + 1 :].tolist(), strict=True))
            scored = targets[targets != PAD].tolist()
            places = range(int(positions[-1, 0]) + 2 - len(scored), int(positions[-1, 0]) + 2)
            assert places[0] == 17
            assert [shown[33 - place] for place in places] == scored


@pytest.mark.parametrize("name", ["training", "evaluation"])
def test_a_crop_keeps_its_place(name: str) -> None:
    """Where a symbol's mirror image lies can only be told from the middle of the whole sequence."""
    config = replace(TINY, domain=CopyTask(32, 256), stages=(Stage(1.0, 16, 8),))
    sequences = config.domain.load((), "validation", Path())
    if name == "training":
        batch = training_batch(sequences, config, 0)
    else:
        batch = window_batch(sequences, Window(0, 33, 8), config.domain, context=16, latents=8)
    whole = {tuple(sequences[number].tolist()) for number in range(len(sequences))}
    for tokens, positions in zip(batch.tokens.tolist(), batch.positions[..., 0].tolist(), strict=True):
        assert positions == list(range(positions[0], positions[0] + 16)) and positions[0] > 0
        assert any(list(one[positions[0] : positions[0] + 16]) == tokens for one in whole)


def test_a_split_that_never_ends_is_not_scored() -> None:
    with pytest.raises(ValueError, match="never ends"):
        windows(CopyTask(8), CopyTask(8).load((), "train", Path()), 4)


def test_the_model_learns_the_task_in_seconds(tmp_path: Path) -> None:
    """Every symbol of sequences it has not seen, scored and drawn; a model that cannot look back scores 1 in 32."""
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
    model, held_out = from_params(config.model, state.params), task.load((), "validation", tmp_path)
    found = evaluate(model, task, held_out)
    assert found["accuracy"] == 1.0 and found["tokens"] == 64 * 16
    assert found["nll"] < 0.05
    whole = np.stack([held_out[number] for number in range(len(held_out))])
    drawn = generate(model, task.codec, list(whole[:, :17]), sampling=Sampling(temperature=0.0), chunk=8)
    assert np.array_equal(np.concatenate([next(drawn).tokens for _ in range(2)], axis=1), whole[:, 17:])


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
