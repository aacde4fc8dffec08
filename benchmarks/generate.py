"""Generation: seconds to the first token, tokens a second and peak memory, beside peers and the machine's own bound.

Run from the checkout, in the project's environment: python -m benchmarks.generate
"""

import argparse
from statistics import median

from benchmarks.contest import (
    Contestant,
    Result,
    Shape,
    hold,
    parsed,
    parser,
    set_up_peers,
    task_of,
    usable_cores,
)
from benchmarks.machine import Need, need_of_gpt2, need_of_ours
from benchmarks.report import digits, heading, spread, table

MORE, HALVES = "-4-takes", "-float16-cache"
"""Ends of names: of four continuations at once, and of the type in which shipped models keep keys and values."""
NAMES = ("ours", f"ours{MORE}", f"ours{HALVES}", f"ours{HALVES}{MORE}", "perceiver-ar-pytorch", "gpt2")
CHUNK = 32
"""Tokens that this project gives at a time: the default of `perceiver_ar.generate`."""
FEWER = 32
"""How many times fewer tokens are enough for a peer that runs the whole model for each."""
READ_MIB, QUICK_MIB = 256, 16
"""Size of the array whose reading measures the memory: several times a last-level cache, or what is quick."""

NOTES = """\
Median (least–greatest) of the rounds; float32, but for this project's weights, which are float16 as shipped ones are, \
and widened as they are read, and a cache whose name says so; random weights but for `piano`, one primer of \
context - 512 tokens.
- tokens/s: {tokens} tokens. Those of this project lie behind its first {chunk}, with what of a refill falls among \
them; four takes count together. `perceiver-ar-pytorch` makes {fewer}, since \
it runs the whole model for each, and begins with half of the latents, as this project does. GPT-2 has its cache \
(`DynamicCache`) and one layer more, for the cross-attend.
- bound: the bytes of weights, keys and values that a token must read, over the speed at which memory is read, {read}. \
What stays in the processor's caches may beat it.
- arithmetic: the operations that a token takes, what of a refill falls to it included, over those of a large product \
in a second, {computed}.
- x its bounds: how many times one take's tokens four would make if both ran at the lower of their two bounds.
- pause: by how much the longest wait for a chunk of {chunk} tokens exceeds the median, until refilled latents are \
in use.
- peak MiB: the most that the process held, libraries and compilation included. What this project compiles is kept in \
the user's cache folder, as by its command line: a first run holds more."""


def contestants(shape: Shape, options: argparse.Namespace) -> dict[str, Contestant]:
    """A config's contestants, and the readers of memory."""
    chosen = {}
    for name in options.contestants:
        task = task_of(shape, peer=name, tokens=options.tokens, chunk=CHUNK, takes=takes_of(name))
        task["cache_dtype"] = cache_of(name)
        if name == "perceiver-ar-pytorch":
            task["tokens"] = fewer(options.tokens)
        chosen[name] = Contestant.of(name, task, options.threads)
    mib = QUICK_MIB if options.quick else READ_MIB
    for cores in core_counts(options.threads):
        chosen[reader(cores)] = Contestant("benchmarks.machine", False, {"mib": mib}, cores)
    return chosen


def takes_of(name: str) -> int:
    """Continuations that a contestant makes at once."""
    return 4 if name.endswith(MORE) else 1


def cache_of(name: str) -> str:
    """Type of a contestant's keys and values."""
    return "float16" if HALVES in name else "float32"


def fewer(tokens: int) -> int:
    """Tokens of a peer without a cache."""
    return max(tokens // FEWER, 1)


def core_counts(threads: int) -> list[int]:
    """Numbers of cores that the bound is stated for: one, two, and those in use."""
    return sorted({count for count in (1, 2, threads) if count <= len(usable_cores())})


def reader(cores: int) -> str:
    """Name of the worker that reads memory with so many cores."""
    return f"{cores} core{'s' * (cores > 1)}"


def need_of(name: str, shape: Shape, tokens: int) -> Need:
    """What a token of a contestant with a cache takes."""
    if name == "gpt2":
        return need_of_gpt2(shape, tokens)
    return need_of_ours(shape, takes_of(name), cache_of(name), CHUNK, tokens)


def row(name: str, shape: Shape, results: dict[str, Result], options: argparse.Namespace) -> list[str]:
    """A contestant's row of the table."""
    result, counts = results[name], core_counts(options.threads)
    machines = {cores: results[reader(cores)] for cores in counts}
    speeds = {cores: (median(one["read"]), median(one["computed"])) for cores, one in machines.items()}
    here, ratio, apart, bounds, part = speeds[options.threads], "", "", [""] * (2 + len(counts)), ""
    if takes_of(name) > 1 and (one := name.removesuffix(MORE)) in results:
        pairs = zip(result["rate"], results[one]["rate"], strict=False)
        ratio = spread([together / alone for together, alone in pairs])
        four, single = (min(need_of(each, shape, options.tokens).bounds(*here)) for each in (name, one))
        apart = digits(four / single)
    if name != "perceiver-ar-pytorch":  # which has none: a whole call of the model is its limit
        need = need_of(name, shape, options.tokens)
        bounds = [digits(need.bounds(*speed)[0]) for speed in speeds.values()]
        bounds = [digits(need.bytes / 2**20), *bounds, digits(need.bounds(*here)[1])]
        if result.rounds:
            part = f"{median(result['rate']) / need.bounds(*here)[0]:.0%}"
    return [
        shape.name,
        name,
        spread(result["first"]),
        spread(result["rate"]),
        ratio,
        apart,
        *bounds,
        part,
        spread(result["pause"]) if name.startswith("ours") else "",
        spread(result["peak"][-1:]),
    ]


def main() -> None:
    """Measure, and print one table."""
    made = parser(__doc__, NAMES)
    made.add_argument("--tokens", type=int, default=256, help="new tokens (256)")
    options = parsed(made)
    if options.quick:
        options.tokens = 8
    if not 0 < options.tokens <= min(shape.context - shape.primer for shape in options.shapes):
        made.error("--tokens must be at least 1, and the primer leaves room for 512")
    if any(not name.startswith("ours") for name in options.contestants):
        set_up_peers()
    rows, everything = [], []
    for shape in options.shapes:
        results = hold(contestants(shape, options), options.rounds, shape.name)
        rows += [row(name, shape, results, options) for name in options.contestants]
        everything.append(results)
    counts = core_counts(options.threads)
    header = ["config", "contestant", "first token, s", "tokens/s", "x one take", "x its bounds"]
    header += ["MiB a token", *(f"bound, {reader(cores)}" for cores in counts)]
    header += [f"arithmetic, {reader(options.threads)}", f"of the bound ({reader(options.threads)})"]
    header += ["pause, s", "peak MiB"]
    print(heading([result for results in everything for result in results.values()], options), end="\n\n")
    print(table(header, rows), end="\n\n")
    stated = {"tokens": options.tokens, "chunk": CHUNK, "fewer": fewer(options.tokens)}
    for what, unit in (("read", "GB/s"), ("computed", "GFLOP/s")):
        speeds = {
            cores: [speed / 1e9 for results in everything for speed in results[reader(cores)][what]]
            for cores in counts
        }
        stated[what] = ", ".join(f"{reader(cores)} {spread(each)} {unit}" for cores, each in speeds.items())
    print(NOTES.format(**stated))


if __name__ == "__main__":
    main()
