"""How near continuations come to how the pianist went on, for several ways to draw tokens.

Held-out performances are cut; the model plays on from there, and so did the pianist. Each continuation becomes a few
numbers, and for each number the model's distribution over all pieces is laid over the pianist's: the area that both
share is 1 where they agree (Yang & Lerch 2020). The gaps between onsets are compared as a histogram over all of them
too, since a median says nothing of its shape. What the pianists share with themselves as they played just before the
cut is the ceiling: other real music, of as many takes, from the same pieces.

A take has collapsed if it is `silent` or `stuck`, with limits that no validation performance of MAESTRO exceeds. What
bounds every continuation (`perceiver_ar.continuation.musical`) lies below those of `stuck`, which counts where it
fails.

Run from the checkout, in the project's environment: python -m benchmarks.playing --data maestro-v3.0.0-midi.zip
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.originality import originality, training_pitches
from benchmarks.report import table
from benchmarks.takes import RECOMMENDED, cuts, named, parser, played, setting, takes
from perceiver_ar.checkpoint import load
from perceiver_ar.codecs.music import Note
from perceiver_ar.continuation import keep_compiled_programs
from perceiver_ar.registry import user_cache
from training.data.music import Music

FEATURES = (
    "notes a second",
    "notes at once",
    "pitch range",
    "pitch spread",
    "pitch-class entropy",
    "velocity spread",
    "onset gap, median",
    "note length, median",
    "longest silence",
    "longest repetition",
)
GAP_EDGES = 0.0095 * 2 ** (np.arange(23) / 2)
"""Borders of the histogram of gaps between onsets, seconds: half octaves from 10 ms to 19 s, none on a whole step."""
SILENCE = 3.0
"""Seconds without any sounding note that are counted as a silence."""
NOTHING_SOUNDS, NOTHING_STRUCK = 10.0, 21.0
"""Seconds after which a take is silent. Tokens shorten a performance's silences to 10 s; the longest that a pianist
let a chord sound is 19.5 s in MAESTRO's validation split and 20.6 s in its train split."""
STUCK = {1: 25, 2: 100, 4: 120, 8: 340}
"""Different pitches, and the most notes in a row that may be made of so few. In whole performances the longest such
rows have 17, 83, 100 and 126 notes in the validation split; 2 of the 962 of the train split go beyond a limit."""


class Heard(NamedTuple):
    """Takes of one kind: a row of `FEATURES` each, all gaps between onsets, and how many fell silent or got stuck."""

    features: np.ndarray
    gaps: np.ndarray
    silences: int
    silent: int
    stuck: int


def heard(played: Sequence[Sequence[Note]], seconds: float) -> Heard:
    """What is compared of several takes of `seconds`."""
    found = np.array([features(notes, seconds) for notes in played])
    return Heard(
        features=found,
        gaps=np.concatenate([np.diff(onsets(notes)) for notes in played]),
        silences=int((found[:, FEATURES.index("longest silence")] > SILENCE).sum()),
        silent=sum(silent(notes, seconds) for notes in played),
        stuck=sum(stuck([note.pitch for note in notes]) for notes in played),
    )


def features(notes: Sequence[Note], seconds: float) -> list[float]:
    """The numbers of `FEATURES`: MIDI pitches, nats, seconds, and a count of equal notes in a row."""
    if not notes:
        return [0.0] * 6 + [seconds, 0.0, seconds, 0.0]
    pitch, velocity, start, end = (np.array(column, float) for column in zip(*notes, strict=True))
    lengths, gaps = end - start, np.diff(onsets(notes))
    classes = np.bincount(pitch.astype(int) % 12, minlength=12) / len(notes)
    entropy = -(classes[classes > 0] * np.log(classes[classes > 0])).sum()
    return [
        len(notes) / seconds,
        lengths.sum() / seconds,
        np.ptp(pitch),
        pitch.std(),
        entropy,
        velocity.std(),
        float(np.median(gaps)) if len(gaps) else seconds,
        float(np.median(lengths)),
        silence(start, end, seconds),
        repetition(pitch),
    ]


def onsets(notes: Sequence[Note]) -> np.ndarray:
    """Times at which something is struck, seconds, rising; a chord counts once where it falls on one step."""
    return np.unique([note.start for note in notes])


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


def silent(notes: Sequence[Note], seconds: float) -> bool:
    """Whether nothing sounds for more than 10 s, or nothing is struck for more than 21 s.

    A take in which time stands still, so that it never gets to its end, is silent from there on.
    """
    start, end = (np.array([getattr(note, name) for note in notes], float) for name in ("start", "end"))
    return silence(start, end, seconds) > NOTHING_SOUNDS or silence(start, start, seconds) > NOTHING_STRUCK


def stuck(pitches: Sequence[int]) -> bool:
    """Whether a row of notes, longer than `STUCK` allows, keeps to one pitch, a trill, a chord or a few pitches."""
    return any(longest_of(pitches, few) > most for few, most in STUCK.items())


def longest_of(pitches: Sequence[int], few: int) -> int:
    """The most notes in a row that are of at most `few` different pitches."""
    inside: Counter[int] = Counter()
    begin = longest = 0
    for end, pitch in enumerate(pitches, 1):
        inside[pitch] += 1
        while len(inside) > few:
            leaving = pitches[begin]
            inside[leaving] -= 1
            if not inside[leaving]:
                del inside[leaving]
            begin += 1
        longest = max(longest, end - begin)
    return longest


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


def shared_histogram(first: np.ndarray, second: np.ndarray) -> float:
    """Area under both of two histograms of gaps between onsets, given in seconds; 0 where one has none."""
    parts = [np.histogram(gaps, GAP_EDGES)[0] / max(len(gaps), 1) for gaps in (first, second)]
    return float(np.minimum(*parts).sum())


def row(name: str, found: Heard, pianist: Heard | None) -> list[str]:
    """A line of the table: means, and in brackets what they share with the pianist, who is compared with nobody."""
    counts = [str(found.silent), str(found.stuck), str(found.silences)]
    means = found.features.mean(axis=0)
    if pianist is None:
        return [name, "", *counts, "", *(f"{mean:.2f}" for mean in means)]
    areas = [shared_area(*columns) for columns in zip(pianist.features.T, found.features.T, strict=True)]
    gaps = shared_histogram(pianist.gaps, found.gaps)
    cells = [f"{mean:.2f} ({area:.2f})" for mean, area in zip(means, areas, strict=True)]
    return [name, f"{np.mean([*areas, gaps]):.3f}", *counts, f"{gaps:.3f}", *cells]


def main() -> None:
    """Generate, compare, and print one table."""
    made = parser(__doc__, pieces=32)
    made.add_argument(
        "--settings",
        nargs="+",
        type=setting,
        default=[setting(one) for one in ("1,1,0", "1,0.98,0", "1,1,0.005", "1,1,0.02", "0.95,1,0.005")],
        help=f"temperature,top-p,min-p, any number of them; {RECOMMENDED} is recommended now",
    )
    made.add_argument(
        "--originality",
        action="store_true",
        help="look each setting's takes up in the train splits of all --data (benchmarks/originality.py)",
    )
    options = made.parse_args()
    keep_compiled_programs()
    seconds, model, store = options.seconds, load(options.model), user_cache("tokens")
    pieces = Music().load(tuple(options.data[:1]), "validation", store)
    chosen = cuts(model.music, pieces, options.pieces, options.primer, seconds)
    pianist = heard([played(model.music, cut.primer, cut.rest, seconds) for cut in chosen], seconds)
    earlier = [
        played(model.music, cut.tokens[: cut.before], cut.tokens[cut.before : cut.at], seconds)
        for cut in chosen
    ]
    rows = [row("the pianist", pianist, None), row("just before the cut", heard(earlier, seconds), pianist)]
    corpus = []
    if options.originality:
        corpus = training_pitches(model.music, Music().load(tuple(options.data), "train", store))
    shared = []
    for sampling in options.settings:
        notes = [take.notes for take in takes(model, chosen, sampling, options)]
        rows.append(row(named(sampling), heard(notes, seconds), pianist))
        if corpus:
            behind = [cut for cut in chosen for _ in range(options.takes)]
            shared.append(f"{named(sampling)}\n\n{originality(model.music, behind, notes, corpus)}")
    counts = ["silent", "stuck", f"silence over {SILENCE:g} s"]
    print(
        table(["temperature, top-p, min-p", "shared area", *counts, "onset gaps", *FEATURES], rows),
        end="\n\n",
    )
    print(
        f"{len(chosen) * options.takes} takes of {seconds:g} s: how many fell silent, got stuck, or have a silence; "
        "what the histogram of all onset gaps shares with the pianist's; means over the takes and (the area shared "
        "with the pianist)."
    )
    for text in shared:
        print(f"\n{text}")


if __name__ == "__main__":
    main()
