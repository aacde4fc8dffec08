"""How near continuations come to how the pianist went on, for several ways to draw tokens.

Held-out performances are cut; the model plays on from there, and so did the pianist. Each continuation becomes a few
numbers, and for each number the model's distribution over all pieces is laid over the pianist's: the area that both
share is 1 where they agree (Yang & Lerch 2020). What pianists share with other pianists is the ceiling.

Run from the checkout, in the project's environment: python -m benchmarks.playing --data maestro-v3.0.0-midi.zip
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.contest import say
from benchmarks.report import table
from perceiver_ar.checkpoint import Pretrained, load
from perceiver_ar.codecs.music import MusicCodec, Note, NoteStream
from perceiver_ar.generate import generate
from perceiver_ar.registry import user_cache
from perceiver_ar.sampling import Sampling
from training.data.domain import Pieces
from training.data.music import Music

FEATURES = (
    "notes a second",
    "notes at once",
    "pitch spread",
    "pitch-class entropy",
    "velocity spread",
    "onset gap, median",
    "note length, median",
    "longest silence",
    "longest repetition",
)
MOST_OF_A_PIANIST = 90
"""Tokens a second that hardly a minute of MAESTRO exceeds: what must follow a cut."""
MOST = 250
"""Tokens a second of music at which a take is cut off: no pianist needs as many for long."""


def features(notes: Sequence[Note], seconds: float) -> list[float]:
    """The numbers of `FEATURES`: MIDI pitches, nats, seconds, and a count of equal notes in a row."""
    if not notes:
        return [0.0, 0.0, 0.0, 0.0, 0.0, seconds, 0.0, seconds, 0.0]
    pitch, velocity, start, end = (np.array(column, float) for column in zip(*notes, strict=True))
    lengths, onsets = end - start, np.unique(start)
    gaps = np.diff(onsets) if len(onsets) > 1 else np.array([seconds])
    classes = np.bincount(pitch.astype(int) % 12, minlength=12) / len(notes)
    entropy = -(classes[classes > 0] * np.log(classes[classes > 0])).sum()
    return [
        len(notes) / seconds,
        lengths.sum() / seconds,
        pitch.std(),
        entropy,
        velocity.std(),
        float(np.median(gaps)),
        float(np.median(lengths)),
        silence(start, end, seconds),
        repetition(pitch),
    ]


def silence(start: np.ndarray, end: np.ndarray, seconds: float) -> float:
    """The longest time without any sounding note; `start` rises."""
    held = np.maximum.accumulate(np.concatenate([[0.0], end]))
    return float(np.maximum(np.concatenate([start, [seconds]]) - held, 0).max())


def repetition(pitch: np.ndarray) -> float:
    """The longest run of onsets that a loop of 1 to 4 pitches explains."""
    longest = 1
    for period in range(1, 5):
        run = period
        for same in pitch[period:] == pitch[:-period]:
            run = run + 1 if same else period
            longest = max(longest, run)
    return float(longest)


def shared_area(first: np.ndarray, second: np.ndarray) -> float:
    """Area under both of two distributions, given by samples: Gaussian kernels of Scott's width."""
    both = np.concatenate([first, second])
    margin = 3 * max(float(both.std()), 1e-6)
    grid = np.linspace(both.min() - margin, both.max() + margin, 1000)

    def density(samples: np.ndarray) -> np.ndarray:
        width = max(float(samples.std()), 1e-3 * margin) * len(samples) ** -0.2
        heights = np.exp(-0.5 * ((grid[:, None] - samples) / width) ** 2).sum(axis=1)
        return heights / heights.sum()

    return float(np.minimum(density(first), density(second)).sum())


def cuts(pieces: Pieces, count: int, before: int, after: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Primers of at least `before` tokens and what followed, at least `after`, evenly spread over the long pieces.

    Raises:
        ValueError: fewer pieces than that are long enough.
    """
    long = np.flatnonzero(np.diff(pieces.offsets) > before + after)
    if len(long) < count:
        raise ValueError(f"only {len(long)} pieces have more than {before + after} tokens: ask for fewer")
    found = []
    rng = np.random.default_rng(0)
    for number in long[np.linspace(0, len(long) - 1, count).astype(int)]:
        piece = pieces[number].astype(np.int32)
        at = int(rng.integers(before, len(piece) - after))
        found.append((piece[:at], piece[at:-1]))
    return found


def played(codec: MusicCodec, primer: np.ndarray, tokens: np.ndarray, seconds: float) -> list[Note]:
    """Notes of the first `seconds` of what a pianist played after `primer`."""
    stream = NoteStream(codec, primer)
    stream.feed(tokens)
    return beginning(stream, seconds)


def beginning(stream: NoteStream, seconds: float) -> list[Note]:
    """The stream's notes that start in its first `seconds`, cut there."""
    return [note for note in stream.all(limit=seconds) if note.start < seconds]


def continued(
    model: Pretrained, primers: list[np.ndarray], sampling: Sampling, seconds: float, together: int
) -> list[list[Note]]:
    """The model's continuations, `together` primers at a time."""
    found = []
    for first in range(0, len(primers), together):
        group = primers[first : first + together]
        streams = [NoteStream(model.music, primer) for primer in group]
        chunks, made = generate(model.model, model.codec, group, sampling=sampling, seed=first), 0
        while made < MOST * seconds and any(stream.time < seconds for stream in streams):
            tokens = next(chunks).tokens
            made += tokens.shape[1]
            for stream, row in zip(streams, tokens, strict=True):
                if stream.time < seconds:
                    stream.feed(row)
        chunks.close()
        found += [beginning(stream, seconds) for stream in streams]
        say(f"{sampling}: {len(found)} of {len(primers)} pieces")
    return found


def main() -> None:
    """Generate, compare, and print one table."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, required=True, help="MAESTRO's archive or folder")
    made.add_argument("--model", default="piano")
    made.add_argument("--pieces", type=int, default=32)
    made.add_argument("--seconds", type=float, default=60.0)
    made.add_argument("--primer", type=int, default=2048, help="least tokens before the cut (2048)")
    made.add_argument("--together", type=int, default=8, help="pieces a batch (8)")
    made.add_argument(
        "--settings", nargs="+", default=["1,1,0", "1,0.98,0", "1,0.95,0"], help="temperature,top-p,min-p"
    )
    options = made.parse_args()
    model = load(options.model)
    pieces = Music().load((options.data,), "validation", user_cache("tokens"))
    chosen = cuts(pieces, options.pieces, options.primer, int(MOST_OF_A_PIANIST * options.seconds))
    primers = [primer for primer, _ in chosen]
    real = [
        features(played(model.music, primer, rest, options.seconds), options.seconds)
        for primer, rest in chosen
    ]
    sets = {"pianist": np.array(real)}
    for setting in options.settings:
        temperature, top_p, min_p = map(float, setting.split(","))
        sampling = Sampling(temperature=temperature, top_p=top_p, min_p=min_p)
        notes = continued(model, primers, sampling, options.seconds, options.together)
        sets[setting] = np.array([features(one, options.seconds) for one in notes])
    rows = []
    pianist = sets["pianist"]
    for name, values in sets.items():
        pair = (pianist[::2], pianist[1::2]) if name == "pianist" else (pianist, values)
        areas = [shared_area(*columns) for columns in zip(pair[0].T, pair[1].T, strict=True)]
        cells = [f"{mean:.2f} ({area:.2f})" for mean, area in zip(values.mean(axis=0), areas, strict=True)]
        rows.append([name, f"{np.mean(areas):.3f}", *cells])
    print(table(["temperature, top-p, min-p", "shared area", *FEATURES], rows), end="\n\n")
    print(
        "Means over the pieces, and the area shared with the pianist; his own: every other piece with the rest."
    )


if __name__ == "__main__":
    main()
