"""What values of a run and of an evaluation are refused, and what of odd ones works."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from perceiver_ar.model import PerceiverAR, to_params
from training.__main__ import main
from training.card import model_card
from training.config import OptimConfig, Paths, Stage, TrainConfig
from training.data.copy_task import CopyTask
from training.data.music import Music
from training.devices import Cluster, mesh
from training.loop import train
from training.metrics import read_metrics
from training.optim import optimiser
from training.presets.copy_task_32 import TINY
from training.state import Checkpoints, read_config, read_starts, write_config
from training.step import new_state

ROOT = Path(__file__).parents[1]
SHORT = replace(
    TINY,
    model=replace(TINY.model, width=32, dtype="bfloat16"),
    stages=(Stage(1.0, 32, 4),),
    steps=2,
    optim=OptimConfig(warmup=0),
    evaluate_every=1,
    evaluate_windows=2,
)
"""A run on the copy task, whose cross-attend has one head."""


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: OptimConfig(rate=-1), "rate must not be below 0, as -1 is"),
        (lambda: OptimConfig(muon_rate=float("nan")), "muon_rate must not be below 0, as nan is"),
        (lambda: OptimConfig(clip=0), "clip must be above 0"),
        (lambda: OptimConfig(warmup=-3), "warmup must not be below 0, as -3 is"),
        (lambda: OptimConfig(b1=7), "b1 is a part, from 0 to below 1, and cannot be 7"),
        (lambda: OptimConfig(label_smoothing=1), "label_smoothing is a part"),
        (lambda: OptimConfig(name="adamw"), "adamw without a weight decay is adam"),
        (lambda: Stage(1.0, 0, 8), "a stage's context must be at least 1, not 0"),
        (lambda: Stage(1.0, 32, -8), "a stage's batch must be at least 1, not -8"),
        (lambda: replace(TINY, seed=-1), "seed must lie between 0 and"),
        (lambda: replace(TINY, shortest_crop=-5), "shortest_crop must be at least 1, not -5"),
        (lambda: Music(stretch=2.0), "stretch must be from 0 to below 1"),
        (lambda: CopyTask().load((), "nonsense", Path()), "train, validation, test, and no 'nonsense'"),
        (lambda: Cluster(processes=2, process=1).join(), "give --cluster.coordinator"),
    ],
)
def test_a_value_that_makes_no_run_is_refused(make: Callable, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()


def test_a_damaged_checkpoint_is_told_in_a_sentence(tmp_path: Path) -> None:
    """And by none of the stacks of what was still being read."""
    for step in (1, 2):
        kept = Checkpoints(tmp_path)
        kept.save(new_state(SHORT)._replace(step=jnp.int32(step)), nll=1 / step)
        kept.close()
    write_config(SHORT, Paths(tmp_path))
    for path in (tmp_path / "checkpoints/2/default/ocdbt.process_0/d").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    command = sys.executable, "-m", "training", "evaluate", str(tmp_path), "--split", "validation"
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("error: the checkpoint of step 2 is damaged")
    assert f": delete {tmp_path.resolve() / 'checkpoints/2'}" in line
    shutil.rmtree(tmp_path / "checkpoints/2")
    assert int(Checkpoints(tmp_path).read(SHORT, mesh(), fresh=False).step) == 1


def test_weight_decay_leaves_norms_alone() -> None:
    update = optimiser(OptimConfig(name="adamw", rate=0.1, warmup=0, weight_decay=0.5), 10)
    params = to_params(PerceiverAR(TINY.model, jax.random.key(0)))
    still = jax.tree.map(jnp.zeros_like, params)
    updates = jax.jit(update.update)(still, update.init(params), params)[0]
    after = jax.tree.leaves(optax.apply_updates(params, updates))
    for (path, before), now in zip(jax.tree_util.tree_leaves_with_path(params), after, strict=True):
        shrinks = path[-1].key not in {"scale", "offset"}
        np.testing.assert_allclose(now, before * (0.95 if shrinks else 1), rtol=1e-5, err_msg=str(path))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(SHORT, Paths(folder))
    return folder


@pytest.mark.parametrize("reach", [[], ["--latents", "4"], ["--latents", "1", "--context", "16"]], ids=str)
def test_one_window_of_one_head_is_scored_in_bfloat16(run: Path, reach: list[str]) -> None:
    assert main(["evaluate", str(run), "--json", *reach]) == 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--latents", "0"], "latents (0) must be at least 1"),
        (["--context", "0"], "at most the context (0)"),
        (["--stride", "0"], "the stride must lie between 1 and the 16 latents, not 0"),
        (["--stride", "17"], "not 17"),
        (["--baselines"], "counts the tokens of a corpus"),
        (["--samples", "out", "--sample-count", "0"], "must be at least 1"),
        (["--samples", __file__], f"{__file__}: File exists"),
        (["--split", "nonsense"], "no 'nonsense'"),
    ],
    ids=str,
)
def test_what_cannot_be_scored_is_told_before_it_is(
    run: Path, options: list[str], match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run), *options]) == 2
    said = capsys.readouterr().err
    assert match in said and "windows" not in said and "Scoring" not in said


def test_a_stage_may_be_shorter_than_the_latents(tmp_path: Path) -> None:
    train(replace(SHORT, stages=(Stage(0.5, 8, 4), Stage(1.0, 32, 4))), Paths(tmp_path))
    looks = [line for line in read_metrics(tmp_path) if "validation_nll" in line]
    assert [line["step"] for line in looks] == [1, 2]


def test_a_run_that_is_refused_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is refused before its data are looked at: the copy task has none, and says so."""
    paths = Paths(tmp_path / "run", (tmp_path / "none.zip",))
    other = Path("assets/piano-small").resolve()
    with pytest.raises(ValueError, match="another config than the run's"):
        train(SHORT, replace(paths, init=other))
    with pytest.raises(FileNotFoundError, match="no model"):
        train(SHORT, replace(paths, init=tmp_path / "none"))
    with pytest.raises(ValueError, match="pip install wandb"):
        train(SHORT, replace(paths, wandb="project"))
    with pytest.raises(ValueError, match="makes its own data"):
        train(SHORT, paths)
    monkeypatch.setattr("jax.device_count", lambda: 3)
    with pytest.raises(ValueError, match="4 examples cannot be shared evenly by 3 devices"):
        train(SHORT, paths)
    assert not paths.workdir.exists()


def test_a_refused_attempt_leaves_a_run_as_it_was(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths(shutil.copytree(run, tmp_path / "run"))
    longer = replace(SHORT, steps=4)

    def refused(config: TrainConfig, match: str, *data: Path) -> None:
        with pytest.raises(ValueError, match=match):
            train(config, replace(paths, data=data))
        assert files(paths.workdir) == files(run)

    none = tmp_path / "none.zip"
    with monkeypatch.context() as patch:
        patch.setattr("jax.device_count", lambda: 3)
        refused(longer, "cannot be shared evenly by 3 devices", none)
    refused(replace(longer, model=replace(SHORT.model, heads=1)), "another model", none)
    refused(replace(SHORT, steps=1), "has done 2 steps, more than --steps 1", none)
    refused(longer, "makes its own data", none)
    for optim in (OptimConfig(name="muon", warmup=2), OptimConfig(warmup=2, average=0.5)):
        found = f"has --optim.name adam and --optim.average 0, and cannot go on with {optim.name} and {optim.average:g}"
        refused(replace(longer, optim=optim), found, none)


def test_a_run_keeps_what_it_did_before(tmp_path: Path) -> None:
    """Its card counts with the batches that each step had, and lists the data that it read."""
    first = Paths(tmp_path, (Path("here/one.zip"), Path("hf:some/texts")), init=Path("models/parent"))
    then = replace(SHORT, steps=6, stages=(Stage(1.0, 8, 1),))
    again = Paths(tmp_path, (Path("two.zip"),))
    write_config(SHORT, first)
    write_config(SHORT, first, first=1)
    write_config(then, again, first=2)
    write_config(then, again, first=3)
    assert read_config(tmp_path) == then
    assert [(one.step, one.config) for one in read_starts(tmp_path, 6)] == [(0, SHORT), (2, then)]
    (tmp_path / "data").mkdir()
    for source in ("one.zip", "hf:some/texts", "two.zip", "three.zip"):
        manifest = {"source": source, "split": "train", "pieces": 7}
        (tmp_path / "data" / f"{source.replace('/', '-')}.json").write_text(json.dumps(manifest))
    (tmp_path / "metrics.jsonl").write_text('{"step": 2, "validation_nll": 1.5}\n')
    card = model_card("Child", "CC0-1.0", tmp_path, 5, {})
    assert f"5 steps, {2 * 4 * 16 + 3 * 8} predicted tokens at most" in card
    assert "those of `models/parent`" in card and "windows of 32 tokens, at step 2" in card
    assert [name in card for name in ("one.zip", "hf:some/texts", "two.zip", "three.zip")] == [True] * 3 + [
        False
    ]
    earlier = model_card("Child", "CC0-1.0", tmp_path, 2, {})
    assert f"{2 * 4 * 16} predicted" in earlier and "two.zip" not in earlier
    # A run that begins again has done nothing before.
    write_config(then, again)
    assert [(one.step, one.init) for one in read_starts(tmp_path, 6)] == [(0, None)]


def test_a_config_of_a_run_from_before_it_had_a_past_is_read(tmp_path: Path) -> None:
    write_config(SHORT, Paths(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(SHORT.to_dict()))
    write_config(SHORT, Paths(tmp_path), first=2)
    assert [(one.step, one.data) for one in read_starts(tmp_path, 6)] == [(0, None), (2, ())]


def test_a_run_that_diverged_says_which_checkpoints_there_are(run: Path) -> None:
    looks = {line["step"]: line["validation_nll"] for line in read_metrics(run) if "validation_nll" in line}
    best = int(min(looks, key=looks.__getitem__))
    said = Checkpoints(run).kept()
    assert said.startswith(
        f"there are checkpoints of steps 1, 2, with the lowest validation NLL at step {best}: "
    )


def files(folder: Path) -> dict[Path, bytes]:
    """What a folder holds."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_licence_does_not_replace_a_card_unsaid(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = ["export", str(run), str(tmp_path), "--licence", "CC0-1.0"]
    assert main(export) == 0
    assert main(export) == 2
    assert "is kept, with the licence it has" in capsys.readouterr().err
    assert main(export[:3]) == 0
