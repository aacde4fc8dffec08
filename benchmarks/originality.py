"""How much of a continuation stands in the training set note for note, beside what pianists share with it.

For each continuation the longest run of notes, by pitch in the order of onset and then of pitch, that also occurs in a
training performance; and the same for as many notes of what the pianist played from the cut on. Training transposes, so
the runs are looked for up to transposition too, as runs of intervals.

The search is exact. Windows of one more note get their numbers from those of the windows one note shorter and the note
behind, and only places of the training set whose window is also one of the continuations' are kept (after Karp, Miller
& Rosenberg 1972). No hashes, nothing to verify; 7 million notes take seconds and a few hundred MB.

`benchmarks.playing --originality` prints it for the takes that it makes.
"""

from collections.abc import Sequence

import numpy as np

from benchmarks.report import table
from benchmarks.takes import Cut
from perceiver_ar.codecs.music import PITCHES, MusicCodec, Note
from training.data.domain import Pieces

NOTABLE = 20
"""Notes in a row beyond which a run is counted."""


def struck(codec: MusicCodec, tokens: np.ndarray) -> np.ndarray:
    """Pitches of all note-ons in the order of onset and then of pitch, int32 (notes,)."""
    on = (tokens >= codec.note_on) & (tokens < codec.note_off)
    pitches = tokens[on].astype(np.int32) - codec.note_on
    return pitches[np.lexsort((pitches, codec.elapsed(tokens)[on]))]


def intervals(pitches: np.ndarray) -> np.ndarray:
    """Steps from note to note, from 0 on: what is left of pitches when they may be transposed."""
    return np.diff(pitches) + PITCHES - 1


def end_to_end(lines: Sequence[np.ndarray], end: int) -> np.ndarray:
    """Lines of numbers as one, int32, with the number `end` behind each."""
    return np.concatenate([part for line in lines for part in (line, [end])]).astype(np.int32)


def longest_runs(corpus: Sequence[np.ndarray], asked: Sequence[np.ndarray]) -> np.ndarray:
    """For each of `asked`, the length of its longest run of numbers that is also one of a line of `corpus`.

    Numbers are whole and from 0 on. No run goes beyond the end of a line.
    """
    stop = 1 + max((int(line.max()) for line in (*corpus, *asked) if len(line)), default=0)
    text, query = end_to_end(corpus, stop), end_to_end(asked, stop + 1)
    owner = np.repeat(np.arange(len(asked)), [len(line) + 1 for line in asked])
    longest = np.zeros(len(asked), int)
    at, text_at = np.arange(len(query)), np.arange(len(text), dtype=np.int32)
    number, text_number = np.zeros(len(query), np.int64), np.zeros(len(text), np.int32)
    length, numbers, base = 0, 1, stop + 2
    while len(at):
        # A window that the corpus has ends before its line's `stop`, so that none looks beyond the arrays.
        inside = query[at + length] <= stop
        at, number = at[inside], number[inside]
        keys, number = np.unique(number * base + query[at + length], return_inverse=True)
        names = np.full(numbers * base, -1, np.int32)
        names[keys] = np.arange(len(keys))
        text_number = names[text_number.astype(np.int64) * base + text[text_at + length]]
        kept = text_number >= 0
        text_at, text_number = text_at[kept], text_number[kept]
        there = np.zeros(len(keys), bool)
        there[text_number] = True
        at, number = at[there[number]], number[there[number]]
        length, numbers = length + 1, len(keys)
        longest[owner[at]] = length
    return longest


def training_pitches(codec: MusicCodec, sources: Pieces) -> list[np.ndarray]:
    """`struck` of every piece."""
    return [struck(codec, sources[number]) for number in range(len(sources))]


def same_notes(codec: MusicCodec, cut: Cut, count: int) -> np.ndarray:
    """`count` of the pianist's notes from the cut on, or the piece's last ones where there are fewer."""
    every, after = struck(codec, cut.tokens), struck(codec, cut.rest)
    begin = min(len(every) - len(after), max(len(every) - count, 0))
    return every[begin : begin + count]


def row(name: str, runs: np.ndarray) -> list[str]:
    """Median, 95th percentile, maximum, and the share of the notable, as text."""
    middle, high = np.percentile(runs, [50, 95])
    return [name, f"{middle:.0f}", f"{high:.0f}", f"{runs.max()}", f"{(runs > NOTABLE).mean():.0%}"]


def originality(
    codec: MusicCodec, chosen: Sequence[Cut], made: Sequence[Sequence[Note]], corpus: Sequence[np.ndarray]
) -> str:
    """A table of the longest runs of the continuations `made` from the cuts, and of as many of the pianists' notes.

    Args:
        corpus: `training_pitches` of what the model was trained on.
    """
    own = [np.array([note.pitch for note in notes], np.int32) for notes in made]
    real = [same_notes(codec, cut, len(one)) for cut, one in zip(chosen, own, strict=True)]
    runs = longest_runs(corpus, own + real)
    moved = 1 + longest_runs([intervals(line) for line in corpus], [intervals(line) for line in own + real])
    rows = [
        row("continuations", runs[: len(own)]),
        row("pianists", runs[len(own) :]),
        row("continuations, transposed or not", moved[: len(own)]),
        row("pianists, transposed or not", moved[len(own) :]),
    ]
    header = [
        "longest run in the training set, notes",
        "median",
        "95th percentile",
        "most",
        f"over {NOTABLE}",
    ]
    return (
        f"{table(header, rows)}\n\n{len(own)} takes, {sum(map(len, own)):,} notes, and as many notes of the pianists; "
        f"{sum(map(len, corpus)):,} notes in {len(corpus):,} training performances."
    )
