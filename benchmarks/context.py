"""How time and memory grow with the context: first token, tokens a second, pause and peak memory, 1k to 131k tokens.

Run from the checkout, in the project's environment: python -m benchmarks.context
"""

import argparse
from dataclasses import replace

from benchmarks.contest import Contestant, S, hold, plain_parser, task_of
from benchmarks.report import heading, spread, table

CONTEXTS = tuple(1024 * 2**doubling for doubling in range(8))
LATENTS = 1024


def main() -> None:
    """Measure, and print one table."""
    made = plain_parser(__doc__)
    made.add_argument("--contexts", type=int, nargs="+", default=CONTEXTS)
    made.add_argument("--cache-dtype", choices=("float32", "float16"), default="float32", help="(float32)")
    options: argparse.Namespace = made.parse_args()
    rows, everything = [], []
    for context in options.contexts:
        shape = replace(S, name=f"{context:,}", context=context, latents=min(LATENTS, context // 2))
        task = task_of(shape, tokens=256, chunk=32, takes=1, cache_dtype=options.cache_dtype)
        result = hold({"ours": Contestant.of("ours", task, options.threads)}, options.rounds, shape.name)[
            "ours"
        ]
        everything.append(result)
        figures = [spread(result[name]) for name in ("first", "rate", "pause")]
        rows.append([f"{context:,}", f"{shape.latents:,}", *figures, spread(result["peak"][-1:])])
    print(heading(everything, options), end="\n\n")
    header = ["context", "latents", "first token, s", "tokens/s", "pause, s", "peak MiB"]
    print(table(header, rows), end="\n\n")
    print(
        f"Width 256, 6 layers, 4 heads, random weights, a cache in {options.cache_dtype}. "
        "A primer of context - 512 tokens (3/4 of 1,024), then 256 more."
    )


if __name__ == "__main__":
    main()
