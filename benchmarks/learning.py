"""What so many steps teach: the same windows of MAESTRO in the same order and the same optimiser, beside peers.

All contestants have the same width, heads and layers and predict the last tokens of each window, as many as there are
latents; GPT-2, the transformer with full attention, has a layer in the cross-attend's place and learns from all others
too. Adam with a linear warm-up, the gradient's norm clipped at 1, no dropout, no z-loss, no augmentation. The steps are
cut into parts of equal length; each contestant works on a part, then the next one does.

Run from the checkout, in the project's environment: python -m benchmarks.learning --data maestro-v3.0.0-midi.zip
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.contest import (
    Contestant,
    Result,
    Shape,
    hold,
    plain_parser,
    positive,
    set_up_peers,
    task_of,
    use_huge_pages,
)
from benchmarks.report import heading, spread, table
from perceiver_ar.registry import user_cache
from training.data.domain import Sequences
from training.data.music import Music

SHAPE = Shape("learning", vocab=391, width=128, heads=4, layers=4, context=1024, latents=256, batch=8)
NAMES = ("ours", "ours-bfloat16", "perceiver-ar-pytorch", "gpt2")
RATE, WARMUP = 1e-3, 50
HELD_OUT = 64
"""Windows of the validation split."""

NOTES = f"""\
Width {SHAPE.width}, {SHAPE.layers} layers and the cross-attend, {SHAPE.heads} heads, {SHAPE.latents} latents, \
{SHAPE.context:,} tokens of context, {SHAPE.batch} examples a step; Adam {RATE:g} behind {WARMUP} steps of warm-up. \
Mean loss of the part's steps, and in brackets the NLL of {HELD_OUT} validation windows behind it, both nats a token \
of the last {SHAPE.latents} of each window. latents/s: median (least–greatest) of the parts."""


def drawn(pieces: Sequences, count: int) -> np.ndarray:
    """Windows of context + 1 tokens anywhere in the pieces, uint16 (count, context + 1); always the same ones.

    Raises:
        ValueError: no piece is that long.
    """
    rng, size = np.random.default_rng(0), SHAPE.context + 1
    if not any(pieces.length(number) >= size for number in range(len(pieces))):
        raise ValueError(f"no piece has {size:,} tokens: give MAESTRO's archive or one like it")
    found = []
    while len(found) < count:
        piece = pieces[pieces.draw(rng)]
        if len(piece) >= size:
            start = int(rng.integers(len(piece) - size + 1))
            found.append(piece[start : start + size].astype(np.uint16))
    return np.stack(found)


def contestants(folder: Path, options: argparse.Namespace) -> dict[str, Contestant]:
    """All that learn from the windows in the folder."""
    shared = {
        "windows": str(folder / "windows.npy"),
        "held_out": str(folder / "held_out.npy"),
        "steps": options.steps // (options.rounds + 1),
        "rate": RATE,
        "warmup": WARMUP,
    }
    return {
        name: Contestant.of(
            name,
            task_of(SHAPE, peer=name, dtype="bfloat16" if "bfloat16" in name else "float32", **shared),
            options.threads,
        )
        for name in options.contestants
    }


def row(name: str, result: Result) -> list[str]:
    """A contestant's losses and NLLs behind each part but the first, in which it warmed up, and its speed."""
    losses = [
        f"{loss:.3f} ({nll:.3f})" for loss, nll in zip(result["loss"], result["validation"], strict=True)
    ]
    return [SHAPE.name, name, *losses, spread(result["rate"]), spread(result["peak"][-1:])]


def main() -> None:
    """Measure, and print one table."""
    made = plain_parser(__doc__)
    made.add_argument("--data", type=Path, required=True, help="MAESTRO's archive or folder")
    made.add_argument(
        "--steps", type=positive, default=200, help="in a part more than there are rounds (200)"
    )
    made.add_argument("--contestants", nargs="+", default=NAMES, choices=NAMES)
    made.set_defaults(rounds=3)
    options = made.parse_args()
    if any(not name.startswith("ours") for name in options.contestants):
        set_up_peers()
    use_huge_pages()
    with tempfile.TemporaryDirectory() as folder:
        store, size = user_cache("tokens"), (options.steps, SHAPE.batch, SHAPE.context + 1)
        train, held_out = (Music().load((options.data,), split, store) for split in ("train", "validation"))
        np.save(Path(folder, "windows.npy"), drawn(train, size[0] * size[1]).reshape(size))
        np.save(Path(folder, "held_out.npy"), drawn(held_out, HELD_OUT))
        results = hold(contestants(Path(folder), options), options.rounds, SHAPE.name)
    print(heading(list(results.values()), options), end="\n\n")
    ends = [options.steps // (options.rounds + 1) * (part + 2) for part in range(options.rounds)]
    header = ["config", "contestant", *(f"to step {end}" for end in ends), "latents/s", "peak MiB"]
    print(table(header, [row(name, result) for name, result in results.items()]), end="\n\n")
    print(NOTES)


if __name__ == "__main__":
    main()
