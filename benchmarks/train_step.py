"""A training step, forward, backward and Adam on random data: latents a second and peak memory, beside peers.

Run from the checkout, in the project's environment: python -m benchmarks.train_step
"""

import argparse
import os

from benchmarks.contest import (
    Contestant,
    Result,
    Shape,
    hold,
    parsed,
    parser,
    positive,
    set_up_peers,
    task_of,
    use_huge_pages,
)
from benchmarks.report import heading, spread, table

NAMES = ("ours", "ours-bfloat16", "ours-bfloat16-remat", "perceiver-ar-pytorch", "gpt2")

NOTES = """\
Median (least–greatest) of the rounds, each the mean over {steps} on one batch, behind one that is not counted; \
random weights, no dropout; float32 but for `ours-bfloat16` and `ours-bfloat16-remat`. `remat`: each latent layer is \
computed again in the backward pass.
- latents/s: predicted tokens a second, batch x latents a step. GPT-2, which has a layer more for the cross-attend, \
predicts its whole context; only the last tokens of each example, as many as the others have latents, count here.
- Adam: this project also clips gradients and adds a z-loss, as in the paper; the peers have torch.optim.Adam alone.
- All of them allocate in huge pages (`GLIBC_TUNABLES={tunables}`).
- peak MiB: the most that the process held, libraries and compilation included."""


def contestants(shape: Shape, options: argparse.Namespace) -> dict[str, Contestant]:
    """A config's contestants."""
    return {
        name: Contestant.of(
            name,
            task_of(
                shape,
                peer=name,
                steps=options.steps,
                dtype="bfloat16" if "bfloat16" in name else "float32",
                remat=name.endswith("remat"),
            ),
            options.threads,
        )
        for name in options.contestants
    }


def row(name: str, shape: Shape, result: Result) -> list[str]:
    """A contestant's row of the table."""
    figures = [spread(values) for values in (result["rate"], result["step"], result["peak"][-1:])]
    return [shape.name, name, str(shape.batch), *figures]


def main() -> None:
    """Measure, and print one table."""
    made = parser(__doc__, NAMES)
    made.add_argument("--steps", type=positive, default=3, help="steps of each measurement (3)")
    options = parsed(made)
    if options.quick:
        options.steps = 1
    if any(not name.startswith("ours") for name in options.contestants):
        set_up_peers()
    use_huge_pages()
    rows, everything = [], []
    for shape in options.shapes:
        results = hold(contestants(shape, options), options.rounds, shape.name)
        rows += [row(name, shape, result) for name, result in results.items()]
        everything += results.values()
    print(heading(everything, options), end="\n\n")
    print(table(["config", "contestant", "batch", "latents/s", "step, s", "peak MiB"], rows), end="\n\n")
    steps = f"{options.steps} step{'s' * (options.steps > 1)}"
    print(NOTES.format(steps=steps, tunables=os.environ["GLIBC_TUNABLES"]))


if __name__ == "__main__":
    main()
