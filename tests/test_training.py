"""Training: what a batch shows, that stopping changes nothing, what is scored, what is exported."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from perceiver_ar import checkpoint
from perceiver_ar.codecs.music import MusicCodec
from perceiver_ar.config import EOS, PAD, SOS, ModelConfig
from perceiver_ar.model import PerceiverAR, to_params
from training.__main__ import main
from training.config import OptimConfig, Paths, Stage, TrainConfig
from training.data import crops
from training.data.domain import Pieces
from training.data.music import Music
from training.devices import mesh
from training.evaluate import baselines, evaluate, score, spread, window_batch, windows
from training.loop import Diverged, Stopped, train
from training.loss import token_nll, training_loss
from training.metrics import read_metrics
from training.optim import optimiser, schedule
from training.state import Checkpoints, read_config, same_function
from training.step import new_state

CODEC = MusicCodec()
MODEL = ModelConfig(
    CODEC.vocab_size, context=64, latents=16, width=16, layers=2, heads=2, cross_heads=2, dropout=0.1
)
CONFIG = TrainConfig(
    domain=Music(),
    model=MODEL,
    stages=(Stage(0.5, 32, 2), Stage(1.0, 64, 2)),
    steps=6,
    optim=OptimConfig(warmup=2, decay=2),
    save_every=3,
    evaluate_every=6,
    evaluate_windows=4,
)
ONE_STAGE = replace(CONFIG, stages=(Stage(1.0, 64, 2),))
"""For what needs no second shape of batch, since compiling a step is most of a run's time."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def pieces(archive: Path, store: Path) -> Pieces:
    return Music().load((archive,), "train", store)


def test_pieces_are_whole_performances_between_start_and_end(
    archive: Path, store: Path, pieces: Pieces
) -> None:
    assert len(pieces) == 3
    for number in range(3):
        piece = pieces[number]
        assert piece[0] == SOS and piece[-1] == EOS
        notes = CODEC.decode(piece[1:-1].astype(np.int32))
        assert len(notes) == 60
    again = Music().load((archive,), "train", store)
    assert np.array_equal(again.tokens[:], pieces.tokens[:])
    manifest = json.loads(next(store.glob("tiny-train-*.json")).read_text())
    assert manifest["tokens"] == len(pieces.tokens) and manifest["pieces"] == 3


def test_an_archive_of_another_layout_is_refused(tmp_path: Path, archive: Path, store: Path) -> None:
    with pytest.raises(ValueError, match="there is no file or folder"):
        Music().load((tmp_path / "none.zip",), "train", store)
    with pytest.raises(ValueError, match="no csv"):
        Music().load((tmp_path,), "train", store)
    with pytest.raises(ValueError, match="'test'"):
        Music().load((archive,), "test", store)


def test_a_batch_shows_the_tokens_before_each_target(pieces: Pieces) -> None:
    for step in range(CONFIG.steps):
        batch = crops.training_batch(pieces, CONFIG, step)
        context = CONFIG.stage(step).context
        assert batch.tokens.shape == (2, context) and batch.targets.shape == (2, MODEL.latents)
        before, targets = batch.tokens[:, -MODEL.latents + 1 :], batch.targets[:, :-1]
        scored = targets != PAD
        assert scored.any() and np.array_equal(before[scored], targets[scored])


def test_first_and_last_tokens_are_learned_as_often_as_others() -> None:
    tokens = np.arange(100, 200)
    one = Pieces(np.concatenate([[SOS], tokens]), np.array([0, 101]))
    config = replace(CONFIG, domain=Music(0, 0.0, 0), stages=(Stage(1.0, 64, 64),))
    seen = np.concatenate([crops.training_batch(one, config, step).targets.ravel() for step in range(40)])
    counts = np.bincount(seen[seen != PAD], minlength=200)[100:]
    # Of 115 ends 16 have a token among their targets, and those near the edges up to twice as many.
    expected = 40 * 64 * 16 / 115
    assert counts.min() > 0.8 * expected and counts.max() < 2.4 * expected


def test_a_batch_depends_on_seed_and_step_alone(pieces: Pieces) -> None:
    first = crops.training_batch(pieces, CONFIG, 4)
    again = next(crops.batches(pieces, CONFIG, 4))
    other = crops.training_batch(pieces, CONFIG, 5)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.targets, other.targets)


def test_first_tokens_are_predicted_too() -> None:
    crop = np.array([SOS, 7, 8, 9], np.int32)
    batch = crops.batch_of([crops.Crop(crop, 3)], CODEC, context=8, latents=4)
    assert batch.tokens.tolist() == [[PAD] * 5 + [SOS, 7, 8]]
    assert batch.positions[0, :, 0].tolist() == [0, 0, 0, 0, 0, 0, 1, 2]
    assert batch.targets.tolist() == [[PAD, 7, 8, 9]]


def test_the_loss_is_the_mean_over_scored_targets() -> None:
    logits = jnp.log(jnp.array([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]]))
    targets = jnp.array([[2, PAD]])
    nll, _ = token_nll(logits, targets)
    assert np.allclose(nll, [[np.log(4), 0]], atol=1e-6)
    with_z, mean = training_loss(logits + 3.0, targets, jnp.array(1), z_loss=0.5)
    assert np.isclose(mean, np.log(4), atol=1e-6)
    assert np.isclose(with_z, np.log(4) + 0.5 * 9.0, atol=1e-5)
    smoothed, _ = training_loss(logits, targets, jnp.array(1), z_loss=0.0, label_smoothing=0.3)
    spread_evenly = 0.7 * np.eye(3)[2] + 0.1
    assert np.isclose(smoothed, -(spread_evenly * np.log([0.5, 0.25, 0.25])).sum(), atol=1e-6)


def test_the_rate_warms_up_stays_and_decays_to_nothing() -> None:
    rate = schedule(OptimConfig(warmup=10, decay=20), 0.5, 100)
    rates = np.array([rate(step) for step in (0, 5, 10, 79, 90, 100)])
    assert rates == pytest.approx([0, 0.25, 0.5, 0.5, 0.25, 0])


@pytest.mark.parametrize("name", ["adam", "adamw", "muon"])
def test_an_optimiser_lowers_the_loss(name: Any) -> None:
    decay = 1e-3 if name == "adamw" else 0.0
    update = optimiser(OptimConfig(name=name, rate=0.01, warmup=1, weight_decay=decay), 50)
    params = to_params(PerceiverAR(MODEL, jax.random.key(0)))
    target = jax.tree.map(lambda x: x + 0.1, params)

    def distance(params: dict) -> jax.Array:
        return optax.tree.norm(optax.tree.sub(params, target), squared=True)

    @jax.jit
    def step(params: dict, state: optax.OptState) -> tuple:
        updates, state = update.update(jax.grad(distance)(params), state, params)
        return optax.apply_updates(params, updates), state

    state, before = update.init(params), distance(params)
    for _ in range(20):
        params, state = step(params, state)
    assert distance(params) < 0.5 * before


def test_muon_makes_the_update_of_a_block_matrix_orthogonal() -> None:
    update = optimiser(OptimConfig(name="muon", muon_rate=1.0, warmup=0), 10)
    params = to_params(PerceiverAR(MODEL, jax.random.key(0)))
    gradients = jax.tree.map(lambda x: jax.random.normal(jax.random.key(1), x.shape), params)
    updates: Any = jax.jit(update.update)(gradients, update.init(params), params)[0]
    for matrix in updates["layers"]["attention"]["query"]:
        values = jnp.linalg.svd(matrix, compute_uv=False)
        assert float(values.min()) > 0.5 and float(values.max()) < 1.5
    with pytest.raises(ValueError, match="adam, adamw or muon"):
        optimiser(OptimConfig(name=cast(Any, "sgd")), 10)


def test_stopping_and_resuming_changes_nothing(archive: Path, tmp_path: Path) -> None:
    whole, parts = (Paths(tmp_path / name, (archive,)) for name in ("whole", "parts"))
    config = replace(CONFIG, optim=replace(CONFIG.optim, average=0.5))
    expected = train(config, whole)

    def signalled(pieces: Pieces, config: TrainConfig, first: int, real=crops.batches):
        for number, batch in enumerate(real(pieces, config, first), first):
            if number == 3:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.loop.batches", signalled)
        with pytest.raises(Stopped, match="at step 4 and saved"):
            train(config, parts)
    assert int(Checkpoints(parts.workdir).read(config, mesh()).step) == 4
    found = train(config, parts)
    assert int(found.step) == int(expected.step) == CONFIG.steps
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert np.array_equal(a, b)
    assert read_config(whole.workdir) == config
    metrics = read_metrics(whole.workdir)
    assert metrics[-1]["step"] == CONFIG.steps and 3 < metrics[-1]["validation_nll"] < 8
    # Of a part of 1/2 the average of six steps is close to the last weights, and not the same.
    assert found.weights is found.average
    far = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), found.average, found.params)
    assert 0 < max(jax.tree.leaves(far)) < 1e-2


def test_a_run_that_diverges_stops_and_says_so(archive: Path, tmp_path: Path) -> None:
    wild = replace(ONE_STAGE, optim=OptimConfig(rate=1e30, warmup=0, clip=1e30), save_every=1)
    with pytest.raises(Diverged, match=r"became nan at step 1: .* there is no checkpoint yet"):
        train(wild, Paths(tmp_path, (archive,)))


def test_a_loss_that_is_worse_than_guessing_stops_the_run(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.loop.EVERY", 2)
    wild = replace(ONE_STAGE, optim=OptimConfig(rate=3.0, warmup=1), steps=40, evaluate_every=40)
    with pytest.raises(Diverged, match=r"guessing has 5\.97.*lower rate"):
        train(wild, Paths(tmp_path, (archive,)))


def test_a_gradient_that_is_lost_is_not_saved(archive: Path, tmp_path: Path) -> None:
    """The loss is still a number where the weights that follow from it are none."""
    wild = replace(ONE_STAGE, optim=OptimConfig(rate=float("inf"), warmup=0), save_every=1)
    with pytest.raises(Diverged, match=r"step 1: .*; there is no checkpoint yet"):
        train(wild, Paths(tmp_path, (archive,)))
    assert not (tmp_path / "checkpoints").exists()


def test_a_full_disk_stops_the_run_and_keeps_what_is_there(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(ONE_STAGE, save_every=2)
    free = iter([10**9, 10**9, 1000])
    monkeypatch.setattr("training.state.shutil.disk_usage", lambda _: SimpleNamespace(free=next(free)))
    with pytest.raises(OSError, match=r"the disk is full; those that were written before are whole"):
        train(config, Paths(tmp_path, (archive,)))
    monkeypatch.undo()
    assert int(Checkpoints(tmp_path).read(config, mesh()).step) == 4
    assert int(train(config, Paths(tmp_path, (archive,))).step) == config.steps


def test_impossible_runs_are_refused() -> None:
    fields = {name: getattr(CONFIG, name) for name in CONFIG.__dataclass_fields__}
    with pytest.raises(ValueError, match="stages"):
        TrainConfig(**{**fields, "stages": (Stage(0.5, 32, 2),)})
    with pytest.raises(ValueError, match="exceeds the model's"):
        TrainConfig(**{**fields, "stages": (Stage(1.0, 128, 2),)})
    with pytest.raises(ValueError, match=r"392 tokens and its data 391: set --model.vocab-size 391"):
        TrainConfig(**{**fields, "model": replace(MODEL, vocab_size=392)})
    with pytest.raises(ValueError, match=r"each axis of the data's positions, 1 in all, not \(8, 8\)"):
        TrainConfig(**{**fields, "model": replace(MODEL, position_shape=(8, 8))})
    with pytest.raises(ValueError, match="warm-up and decay"):
        TrainConfig(**{**fields, "steps": 3})


@pytest.mark.parametrize("stride", [5, 16])
def test_every_token_is_scored_once_with_enough_before_it(pieces: Pieces, stride: int) -> None:
    seen = [np.zeros(len(pieces[number]), int) for number in range(len(pieces))]
    for window in windows(Music(), pieces, stride):
        batch = window_batch(pieces, window, Music(), MODEL.context, MODEL.latents)
        assert np.count_nonzero(batch.targets != PAD) == window.scored
        scored = slice(window.end - window.scored, window.end)
        assert np.array_equal(
            batch.targets[0, MODEL.latents - window.scored :], pieces[window.number][scored]
        )
        seen[window.number][scored] += 1
        shown = np.count_nonzero(batch.tokens != PAD)
        assert shown == min(window.end - 1, batch.tokens.shape[1])
        assert shown - window.scored + 1 >= min(window.end - window.scored, MODEL.context - stride)
    assert all(count[0] == 0 and (count[1:] == 1).all() for count in seen)


def test_the_nll_does_not_depend_on_padding(pieces: Pieces) -> None:
    """The score of a short window, padded or shown to the model as it is."""
    model = PerceiverAR(MODEL, jax.random.key(0))
    (window, *_) = windows(Music(), pieces, 7)
    (nll, _, count), *_ = list(score(MODEL, to_params(model), Music(), pieces, [window]))
    crop = jnp.asarray(pieces[0][:8].astype(np.int32))[None]
    logits, _ = model(crop[:, :-1], jnp.arange(7)[None, :, None], 7)
    assert count == 7
    assert np.isclose(nll, float(token_nll(logits, crop[:, 1:])[0].sum()), atol=1e-3)


def test_evaluation_states_what_it_measured(pieces: Pieces) -> None:
    model = PerceiverAR(MODEL, jax.random.key(0))
    found = evaluate(model, Music(), pieces, context=32, latents=8, stride=4)
    assert found["tokens"] == len(pieces.tokens) - len(pieces)
    assert (found["context"], found["latents"], found["stride"]) == (32, 8, 4)
    assert 5 < found["nll"] < 8
    assert evaluate(model, Music(), pieces, context=8)["latents"] == 8
    more = evaluate(model, Music(), pieces, latents=32, stride=4)
    assert more["latents"] == 32 and 5 < more["nll"] < 8
    for wrong in ({"context": 128}, {"latents": 80}, {"stride": 17}, {"latents": 16, "context": 8}):
        with pytest.raises(ValueError, match=r"context|stride"):
            evaluate(model, Music(), pieces, **wrong)


def test_baselines_are_those_of_counts() -> None:
    train_set = Pieces(np.array([SOS, 3, 4, 3, 4, EOS] * 2000, np.uint16), np.arange(2001) * 6)
    held_out = Pieces(np.array([SOS, 3, 4, EOS], np.uint16), np.array([0, 4]))
    found = baselines(train_set, held_out, 8)
    assert found["uniform"] == pytest.approx(np.log(8))
    assert found["unigram"] == pytest.approx(-np.log([0.4, 0.4, 0.2]).mean(), abs=1e-3)
    assert found["bigram"] == pytest.approx(-np.log([1.0, 1.0, 0.5]).mean(), abs=1e-2)


def test_a_look_at_the_split_is_spread_over_it(pieces: Pieces) -> None:
    chosen = windows(Music(), pieces, 8)
    some = spread(chosen, 5)
    assert len(some) == 5 and some[0] == chosen[0] and some[-1] == chosen[-1]
    assert spread(chosen, 10_000) == chosen


def test_train_export_evaluate_and_begin_again(
    archive: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = train(ONE_STAGE, Paths(tmp_path / "run", (archive,)))
    folder = tmp_path / "model"
    export = ["export", str(tmp_path / "run"), str(folder)]
    assert main(export) == 2 and not folder.exists()
    assert "--licence" in capsys.readouterr().err
    assert main([*export, "--licence", "CC BY 4.0"]) == 0
    exported = checkpoint.load(folder)
    last = read_metrics(tmp_path / "run")[-1]["validation_nll"]
    for fact in (
        'license: "CC BY 4.0"',
        "6 steps, 192 predicted",
        f"{last:.4f} nats/token",
        "`tiny.zip`, train: 3 pieces",
    ):
        assert fact in exported.card
    assert exported.config == replace(MODEL, cache_dtype="float16")
    for a, b in zip(*map(jax.tree.leaves, (to_params(exported.model), state.params)), strict=True):
        assert np.allclose(a, b, rtol=1e-3, atol=1e-6)
    (folder / "README.md").write_text("my card")
    assert main(export) == 0
    assert checkpoint.load(folder).card == "my card"

    capsys.readouterr()
    evaluated = [
        "evaluate",
        str(folder),
        "--data",
        str(archive),
        "--store",
        str(store),
        "--baselines",
        "--json",
        *("--samples", str(tmp_path / "heard"), "--sample-count", "2", "--sample-tokens", "24"),
    ]
    assert main(evaluated) == 0
    assert sorted(path.name for path in (tmp_path / "heard").iterdir()) == [
        "1.mid",
        "1.wav",
        "2.mid",
        "2.wav",
    ]
    found = json.loads(capsys.readouterr().out)
    assert found["nll"] > 0 and found["uniform"] == pytest.approx(np.log(CODEC.vocab_size))
    assert found["split"] == "validation" and found["checkpoint"] == str(folder)

    # The run itself is measured like what was exported of it, but for the weights' rounding to half precision.
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), *evaluated[2:6], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nll"] == pytest.approx(found["nll"], abs=1e-2)

    start = new_state(CONFIG)
    short = replace(ONE_STAGE, optim=OptimConfig(rate=0.0, warmup=0), steps=1)
    again = train(short, Paths(tmp_path / "again", (archive,), init=folder))
    for a, b in zip(*map(jax.tree.leaves, (again.params, to_params(exported.model))), strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(again.params["embedding"], start.params["embedding"])


def test_what_leaves_a_model_the_same_function() -> None:
    more = replace(MODEL, latents=32, dtype="bfloat16", remat=True, position_shape=(128,))
    assert same_function(MODEL, more) and same_function(more, MODEL)
    assert not same_function(MODEL, replace(MODEL, rotary_fraction=1.0))
    assert not same_function(MODEL, replace(MODEL, position_shape=(8, 8)))
    tables = replace(MODEL, position="learned")
    assert not same_function(tables, replace(tables, position_shape=(128,)))
