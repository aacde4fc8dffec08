"""The benchmarks run, on a tiny model and without the peers; their figures are nobody's business here."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest
from flax import nnx

from benchmarks.contest import TINY, S
from benchmarks.machine import need_of_ours, weights
from benchmarks.ours import config_of
from perceiver_ar.model import PerceiverAR

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


def test_a_token_needs_the_models_weights_and_a_refills_share() -> None:
    model = jax.eval_shape(lambda: nnx.state(PerceiverAR(config_of(TINY), jax.random.key(0)).unrolled()))
    matrices = sum(x.size for x in jax.tree.leaves(model) if x.ndim == 2)
    assert weights(TINY) == matrices - TINY.vocab * TINY.width, "all but the embedding"

    one, four = (need_of_ours(S, takes, "float16", 0, 256) for takes in (1, 4))
    pair = 2 * 2 * S.width
    own = pair * (256 + 1) / 2 + S.layers * pair * (256 + (256 + 1) / 2)
    assert one.bytes == 2 * weights(S) + pair * S.primer + own
    assert four.bytes - own == (one.bytes - own) / 4, "what takes have in common"
    assert four.operations == one.operations > 2 * 2 * weights(S) * 0.8, "a token is computed nearly twice"
