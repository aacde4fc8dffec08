"""Listening examples: the shipped primers as the model continues them, chosen by their seeds and not by ear.

Each file is what `perceiver-ar continue` writes for a primer and a seed, the primer's bytes and a new track, and
`index.json` says which command that is, where the music goes on, how dense it is and how likely the model found it.
Example number n has the seed n; the primers take turns. The same model makes the same files on the same machine.

Run from the checkout, in the project's environment: python -m benchmarks.examples --output assets/examples
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.contest import positive, say
from benchmarks.report import table
from benchmarks.takes import continued
from perceiver_ar.checkpoint import Pretrained, load, weights_sha256
from perceiver_ar.codecs.midi import continuation_bytes, read_midi
from perceiver_ar.continuation import Request, keep_compiled_programs, musical, prime
from perceiver_ar.registry import DEFAULT, asset, resolve


def example(model: Pretrained, primer: Path, request: Request, name: str) -> tuple[bytes, dict[str, Any]]:
    """The file called `name` and its entry in the index; NLL in nats a token, times in seconds."""
    midi = read_midi(primer)
    cut = midi.primer(model.music)
    heard = prime(model.config, model.music, cut.tokens).tokens
    (take,) = continued(model, heard, request.sampling(), request.seconds, request.seed)
    command = f"perceiver-ar continue assets/primers/{primer.name} -o {name} --seconds {request.seconds:g}"
    command += f" --seed {request.seed}" + (f" --model {model.name}" if model.name != DEFAULT else "")
    about = {
        "file": name,
        "primer": primer.name,
        "seed": request.seed,
        "begins": round(cut.start, 2),
        "seconds": request.seconds,
        "notes_per_second": round(len(take.notes) / request.seconds, 2),
        "nll": round(take.nll, 4),
        "command": command,
    }
    return continuation_bytes(midi, take.notes, cut.start), about


def write(model: Pretrained, folder: Path, output: Path, count: int, seconds: float) -> list[dict[str, Any]]:
    """Write `count` examples and their index into the folder `output`; the entries of the index.

    Args:
        folder: the model's, whose weights the index names by their SHA-256.
    """
    primers = [
        asset("primers", one["file"]) for one in json.loads(asset("primers", "index.json").read_text("utf-8"))
    ]
    output.mkdir(parents=True, exist_ok=True)
    entries = []
    for seed in range(1, count + 1):
        primer = primers[(seed - 1) % len(primers)]
        name = f"{seed:02}-{primer.stem}.mid"
        data, about = example(model, primer, Request(seconds=seconds, seed=seed), name)
        (output / name).write_bytes(data)
        entries.append(about)
        say(f"{name}: {about['notes_per_second']} notes a second, {about['nll']} nats a token")
    index = {
        "model": model.name,
        "weights_sha256": weights_sha256(folder),
        "sampling": asdict(musical(model.music, Request().sampling())),
        "examples": entries,
    }
    (output / "index.json").write_text(
        json.dumps(index, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return entries


def main() -> None:
    """Write the files, and print one table."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", default=DEFAULT)
    made.add_argument("--output", type=Path, required=True, help="the folder to write")
    made.add_argument("--count", type=positive, default=12, help="(12)")
    made.add_argument("--seconds", type=float, default=60.0, help="length of a continuation (60)")
    options = made.parse_args()
    keep_compiled_programs()
    entries = write(
        load(options.model), resolve(options.model), options.output, options.count, options.seconds
    )
    shown = ("file", "primer", "seed", "begins", "seconds", "notes_per_second", "nll")
    rows = [[f"{entry[name]}" for name in shown] for entry in entries]
    print(table([name.replace("_", " ") for name in shown], rows))


if __name__ == "__main__":
    main()
