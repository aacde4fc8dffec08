"""Make the primers: short pieces in the public domain, from their notes as text (see README.md).

    python assets/primers/make_primers.py

A voice is a line of bars between `|`. A token is a note as `f#4/3` (three steps long), a chord as `c4+e4/3`, or a rest
as `r/3`; without a length it lasts as long as the token before. Every bar must add up.
"""

import json
import re
from dataclasses import dataclass
from math import pi, sin
from pathlib import Path
from random import Random
from typing import NamedTuple

from pieces import PIECES

from perceiver_ar.codecs import smf
from perceiver_ar.codecs.midi import read_midi

HERE = Path(__file__).parent
DIVISION, TICKS = 480, 960  # ticks a quarter note, and a second at the default tempo
SUSTAIN = 64
KEYS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
SHIFTS = {"": 0, "#": 1, "b": -1}
LIFT = 0.04  # seconds between a new bass and the pedal's return
STRAIGHT = 0.97  # how much of its length a note is held
SLOWER = 0.3  # how much slower the last bar gets


class Key(NamedTuple):
    """A key as written: begin and length in steps, and how loud its voice is."""

    begin: int
    steps: int
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Piece:
    """A piece as written.

    bpm counts quarter notes; step is a step's length in quarters, bar the steps of a bar, phrase the bars of a phrase,
    pedal the steps between changes of the pedal (0: none). voices: (velocity, bars).
    """

    file: str
    title: str
    composer: str
    year: int
    style: str
    bpm: float
    step: float
    bar: int
    phrase: int
    pedal: int
    voices: tuple[tuple[int, str], ...]

    def keys(self) -> list[Key]:
        """All voices' notes; ValueError where a bar does not add up or a voice is too short."""
        found, lengths = [], set()
        for velocity, text in self.voices:
            bars = [bar.split() for bar in text.split("|")]
            lengths.add(len(bars))
            for number, bar in enumerate(bars):
                begin = number * self.bar
                steps = 0
                for token in bar:
                    names, _, length = token.partition("/")
                    steps = int(length or steps)
                    found += [
                        Key(begin, steps, pitch(name), velocity) for name in names.split("+") if name != "r"
                    ]
                    begin += steps
                if begin != (number + 1) * self.bar:
                    raise ValueError(
                        f"{self.file}: bar {number + 1} has {begin - number * self.bar} steps: {bar}"
                    )
        if len(lengths) > 1:
            raise ValueError(f"{self.file}: voices of {sorted(lengths)} bars")
        return sorted(found)


def pitch(name: str) -> int:
    """MIDI key of a name such as `eb4`; c4 is 60."""
    match = re.fullmatch(r"([a-g])([#b]?)(\d)", name)
    if match is None:
        raise ValueError(f"{name!r} is no note")
    letter, shift, octave = match.groups()
    return 12 * (int(octave) + 1) + KEYS[letter] + SHIFTS[shift]


def clock(piece: Piece, steps: int) -> list[float]:
    """Seconds of each step: phrases press on towards their middle, and the last bar slows down."""
    times, now = [], 0.3
    for step in range(steps + 1):
        times.append(now)
        through = step / (piece.bar * piece.phrase) % 1
        last = max(0.0, 1 - (steps - step) / piece.bar)
        now += piece.step * 60 / piece.bpm * (1.04 - 0.06 * sin(pi * through) + SLOWER * last)
    return times


def perform(piece: Piece) -> bytes:
    """A MIDI file of the piece, played with some feeling, and always the same."""
    random = Random(piece.file)
    keys = piece.keys()
    total = max(key.begin + key.steps for key in keys)
    times = clock(piece, total)
    messages: list[tuple[int, int, bytes]] = []
    beat = round(1 / piece.step)
    for key in keys:
        through = key.begin / (piece.bar * piece.phrase) % 1
        accent = 6 if key.begin % piece.bar == 0 else 2 if key.begin % beat == 0 else -2
        velocity = key.velocity + accent + 10 * (sin(pi * through) - 0.5) + random.uniform(-3, 3)
        start = times[key.begin] + random.uniform(0, 0.012)
        end = start + STRAIGHT * (times[key.begin + key.steps] - times[key.begin])
        messages.append((tick(start), 2, bytes((smf.NOTE_ON, key.pitch, round(velocity)))))
        messages.append((tick(end), 0, bytes((smf.NOTE_OFF, key.pitch, 64))))
    for step in range(0, total if piece.pedal else 0, piece.pedal or 1):
        release = times[min(step + piece.pedal, total)]
        messages.append((tick(times[step] + LIFT), 3, bytes((smf.CONTROL, SUSTAIN, 127))))
        messages.append((tick(release), 1, bytes((smf.CONTROL, SUSTAIN, 0))))
    name = smf.meta(smf.TRACK_NAME, piece.title.encode())
    body = [(0, name), *((at, message) for at, _, message in sorted(messages))]
    body.append((body[-1][0], smf.meta(smf.END_OF_TRACK)))
    fields = b"".join(value.to_bytes(2) for value in (0, 1, DIVISION))
    return smf.HEADER + len(fields).to_bytes(4) + fields + smf.track_chunk(smf.lay(body))


def tick(seconds: float) -> int:
    """The nearest tick."""
    return round(seconds * TICKS)


def files() -> dict[str, bytes]:
    """Name and bytes of every file: the pieces and their index."""
    made, index = {}, []
    for fields in PIECES:
        piece = Piece(**fields)
        made[piece.file] = data = perform(piece)
        about = {name: fields[name] for name in ("file", "title", "composer", "year", "style")}
        index.append(about | {"seconds": round(read_midi(data).seconds, 2)})
    lines = ",\n".join("  " + json.dumps(entry, ensure_ascii=False) for entry in index)
    return made | {"index.json": f"[\n{lines}\n]\n".encode()}


if __name__ == "__main__":
    for name, data in files().items():
        (HERE / name).write_bytes(data)
