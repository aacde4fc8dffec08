"""What the events of a track sound like: its notes, and what a synthesizer would still hold at some tick."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from perceiver_ar.codecs.smf import CONTROL, NOTE_OFF, NOTE_ON, Events

SUSTAIN, SOSTENUTO, HOLD_2 = 64, 66, 69
DRUM_CHANNEL = 9


class Played(NamedTuple):
    """A note in ticks; `released` is False where the file never ends it."""

    channel: int
    pitch: int
    velocity: int
    start: int
    end: int
    released: bool


class Pedal(NamedTuple):
    """A move of the sustain pedal in ticks; from 64 on it is down."""

    channel: int
    tick: int
    value: int


class _Open(NamedTuple):
    start: int
    velocity: int
    struck_again: bool


def notes(track: Events, end: int) -> list[Played]:
    """The notes of a track in the order they end.

    A key struck again ends the note before. A note-off on the tick of its note-on belongs to the note before if
    there was one, else the note has no length and is none. Notes never released last until
    the tick `end`, behind all events.
    """
    found: list[Played] = []
    sounding: dict[tuple[int, int], _Open] = {}
    for tick, status, pitch, velocity in track.rows(NOTE_ON, NOTE_OFF):
        key = status & 0x0F, pitch
        before = sounding.get(key)
        if status & 0xF0 == NOTE_ON and velocity:
            if before is not None and before.start == tick:
                sounding[key] = before._replace(velocity=max(before.velocity, velocity))
                continue
            if before is not None:
                found.append(Played(*key, before.velocity, before.start, tick, True))
            sounding[key] = _Open(tick, velocity, before is not None)
        elif before is not None:
            if before.start == tick and before.struck_again:
                sounding[key] = before._replace(struck_again=False)
                continue
            del sounding[key]
            if before.start < tick:
                found.append(Played(*key, before.velocity, before.start, tick, True))
    found += [Played(*key, o.velocity, o.start, end, False) for key, o in sounding.items()]
    return found


def pedals(tracks: Sequence[Events]) -> list[Pedal]:
    """The moves of the sustain pedal that put it down or lift it, and the last of all, in order of time.

    It goes by note-seq's rule: of several moves on one tick, those that lift the pedal come last.
    """
    columns = []
    for track in tracks:
        mask = ((track.status & 0xF0) == CONTROL) & (track.data1 == SUSTAIN)
        columns.append((track.status[mask] & 0x0F, track.ticks[mask], track.data2[mask]))
    channel, tick, value = (np.concatenate(column) for column in zip(*columns, strict=True))
    order = np.lexsort((value < 64, tick))
    channel, tick, value = channel[order], tick[order], value[order]
    keep = np.arange(len(order)) == len(order) - 1
    for each in np.unique(channel):
        (at,) = np.nonzero(channel == each)
        keep[at] |= np.diff(value[at] >= 64, prepend=value[at[:1]] < 64)
    return [
        Pedal(*move)
        for move in zip(channel[keep].tolist(), tick[keep].tolist(), value[keep].tolist(), strict=True)
    ]


def lifted(moves: Sequence[Pedal], limit: int) -> list[Pedal]:
    """The same moves, but that a pedal which moves later than the tick `limit` is lifted there for good."""
    kept = [move for move in moves if move.tick <= limit]
    late = sorted({move.channel for move in moves if move.tick > limit})
    return kept + [Pedal(channel, limit, 0) for channel in late]


def last_sound(played: Sequence[Played], moves: Sequence[Pedal]) -> int:
    """The tick at which the last note ends, with the sustain pedal; one never lifted ends with the last event."""
    last = max([note.end for note in played] + [move.tick for move in moves])
    ends: dict[int, list[int]] = defaultdict(list)
    for note in played:
        ends[note.channel].append(note.end)
    latest = 0
    for channel, ticks in ends.items():
        down: dict[int, bool] = {}
        for move in moves:
            if move.channel == channel:
                down[move.tick] = move.value >= 64
        at = np.array(list(down), np.int64)
        lifted = np.array([tick for tick, held in down.items() if not held] + [last], np.int64)
        released = np.array(ticks, np.int64)
        before = np.searchsorted(at, released, side="right") - 1
        held = np.array([*down.values(), False])[before]  # -1, no move before, finds the False
        until = lifted[np.minimum(np.searchsorted(lifted, released, side="right"), len(lifted) - 1)]
        latest = max(latest, int(np.max(np.where(held, until, released))))
    return latest


def closings(track: Events) -> list[bytes]:
    """Messages that silence what a synthesizer still holds after these events.

    Synthesizers that count want a note-off for every note-on; one too many does no harm.
    """
    keys: dict[tuple[int, int], int] = defaultdict(int)
    controls: dict[tuple[int, int], int] = {}
    for _, status, first, second in track.rows(NOTE_ON, NOTE_OFF, CONTROL):
        kind, channel = status & 0xF0, status & 0x0F
        if kind == CONTROL:
            if first in (SUSTAIN, SOSTENUTO, HOLD_2):
                controls[channel, first] = second
        elif kind == NOTE_ON and second:
            keys[channel, first] += 1
        elif keys[channel, first]:
            keys[channel, first] -= 1
    offs = [
        bytes([NOTE_OFF | channel, pitch, 0])
        for (channel, pitch), count in keys.items()
        for _ in range(count)
    ]
    ups = [bytes([CONTROL | channel, control, 0]) for (channel, control), value in controls.items() if value]
    return offs + ups
