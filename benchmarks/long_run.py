"""Ten minutes of music by the shipped model, minute by minute: tokens a second, the longest pause, memory.

Run from the checkout, in the project's environment: python -m benchmarks.long_run
"""

import argparse
import re
import time
from pathlib import Path

from benchmarks.report import table
from perceiver_ar.checkpoint import load
from perceiver_ar.codecs.midi import read_midi
from perceiver_ar.continuation import Request, continue_music, keep_compiled_programs
from perceiver_ar.registry import asset


def resident_mib() -> float:
    """Memory that this process holds now, MiB (Linux)."""
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))
    return int(found[1]) / 1024 if found else float("nan")


def main() -> None:
    """Make the music, and print one table."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--midi", type=Path, default=asset("primers", "bach-prelude.mid"))
    made.add_argument("--minutes", type=float, default=10.0)
    options = made.parse_args()
    keep_compiled_programs()  # as the command line and the page do
    piano = load()
    primer = read_midi(options.midi).primer(piano.music)
    rows, tokens, began, pause, last = [], 0, time.monotonic(), 0.0, None
    for progress in continue_music(piano, primer.tokens, Request(seconds=60 * options.minutes, seed=0)):
        now = time.monotonic()
        pause, last = max(pause, now - last if last else 0.0), now
        if progress.seconds >= 60 * (len(rows) + 1) or progress.done:
            made_since = progress.tokens - tokens
            rate = made_since / (now - began)
            rows.append(
                [
                    str(len(rows) + 1),
                    f"{progress.seconds:.0f}",
                    f"{made_since:,}",
                    f"{rate:.0f}",
                    f"{pause:.3f}",
                    f"{resident_mib():.0f}",
                ]
            )
            tokens, began, pause = progress.tokens, now, 0.0
    header = ["minute", "to second", "tokens", "tokens/s", "longest wait for a chunk, s", "memory, MiB"]
    print(table(header, rows), end="\n\n")
    print(f"{options.midi.name}, {len(primer.tokens):,} tokens of primer; a chunk is up to 32 tokens.")


if __name__ == "__main__":
    main()
