"""Standard MIDI Files at the level of bytes: chunks, events with their offsets, the tempo map.

Nothing here changes what it reads. Every event knows where it lies in the file, so that a file can be cut or
added to while all that is kept stays as it was. Source: MIDI 1.0 Detailed Specification, Standard MIDI Files.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

HEADER, TRACK = b"MThd", b"MTrk"
NOTE_OFF, NOTE_ON, CONTROL, PROGRAM = 0x80, 0x90, 0xB0, 0xC0
META, TRACK_NAME, END_OF_TRACK, SET_TEMPO = 0xFF, 0x03, 0x2F, 0x51
SYSEX, ESCAPE = 0xF0, 0xF7
# Program change and channel pressure carry one data byte, the other channel messages two.
DATA_BYTES = {kind: 1 if kind in (0xC0, 0xD0) else 2 for kind in range(0x80, 0xF0, 0x10)}
MAX_TRACKS = 1000
MAX_DELTA = (1 << 28) - 1
DEFAULT_TEMPO = 500_000  # microseconds a quarter note


class MidiError(ValueError):
    """The file cannot be used; the text is one sentence that says what is wrong and what to do."""


class Chunk(NamedTuple):
    """A chunk of the file: its identifier and where its body begins and ends."""

    kind: bytes
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class Events:
    """The events of one track in columns of length n, with the track's name and tempo changes.

    offsets: where the event's delta time begins in the file. ticks: absolute time. status: status byte, with
    running status resolved. data1, data2: data bytes, 0 where there is none; data1 of a meta event is its type.
    tempos: (tick, microseconds a quarter note).
    """

    name: str
    offsets: np.ndarray
    ticks: np.ndarray
    status: np.ndarray
    data1: np.ndarray
    data2: np.ndarray
    tempos: tuple[tuple[int, int], ...]

    @property
    def ended(self) -> bool:
        """Whether the track has its End of Track."""
        return bool(len(self.status) and self.status[-1] == META and self.data1[-1] == END_OF_TRACK)

    def before(self, tick: int) -> "Events":
        """The events before a tick."""
        n = int(np.searchsorted(self.ticks, tick))
        return replace(
            self,
            offsets=self.offsets[:n],
            ticks=self.ticks[:n],
            status=self.status[:n],
            data1=self.data1[:n],
            data2=self.data2[:n],
            tempos=tuple(change for change in self.tempos if change[0] < tick),
        )

    def rows(self, *kinds: int) -> list[tuple[int, int, int, int]]:
        """(tick, status, data1, data2) of the channel messages of these kinds."""
        mask = np.isin(self.status & 0xF0, kinds)
        columns = (self.ticks, self.status, self.data1, self.data2)
        return list(zip(*(column[mask].tolist() for column in columns), strict=True))


class TempoMap:
    """Ticks to seconds and back, by the tempo changes of all tracks.

    A tempo of zero means nothing and is passed over, as players do.
    The arithmetic follows pretty_midi's step by step, so that both read the same times to the last bit.
    """

    def __init__(self, division: int, tracks: Iterable[Events] = ()) -> None:
        changes = [change for events in tracks for change in events.tempos if change[1]]
        scales = [(0, 60.0 / (6e7 / DEFAULT_TEMPO * division))]
        for tick, tempo in sorted(changes, key=lambda change: change[0]):
            scale = 60.0 / (6e7 / tempo * division)
            if tick == 0:
                scales = [(0, scale)]
            elif scale != scales[-1][1]:
                scales.append((tick, scale))
        self.division = division
        self.ticks = np.array([tick for tick, _ in scales], np.int64)
        self.scales = np.array([scale for _, scale in scales])
        self.times = np.zeros(len(scales))
        for i in range(1, len(scales)):
            self.times[i] = self.times[i - 1] + self.scales[i - 1] * (self.ticks[i] - self.ticks[i - 1])

    @property
    def changes(self) -> tuple[tuple[float, float], ...]:
        """(seconds, quarter notes a minute) wherever the tempo changes, the first at 0."""
        tempi = 60.0 / (self.scales * self.division)
        return tuple(zip(self.times.tolist(), tempi.round(3).tolist(), strict=True))

    def seconds(self, ticks: np.ndarray | int) -> np.ndarray:
        """Seconds of ticks, any shape."""
        i = np.searchsorted(self.ticks, ticks, side="right") - 1
        return self.times[i] + self.scales[i] * (ticks - self.ticks[i])

    def tick(self, seconds: float, *, up: bool = False) -> int:
        """The tick nearest to a time, or with `up` the first that is not before it."""
        i = int(np.searchsorted(self.times, seconds, side="right")) - 1
        exact = float(self.ticks[max(i, 0)] + (seconds - self.times[max(i, 0)]) / self.scales[max(i, 0)])
        # A time that came from a tick must find that tick again, whatever the last bit says.
        return max(0, int(np.ceil(exact - 1e-6)) if up else round(exact))


def chunks(data: bytes) -> tuple[int, int, int, list[Chunk], int]:
    """Format, declared number of tracks, division, the chunks after the header, and where the last one ends.

    Unknown chunks are chunks like any other. What follows the last one and is no chunk is left to the caller.
    MidiError where a track is cut off or the header is none.
    """
    if not data:
        raise MidiError("The file is empty; export it again.")
    if (
        data[:4] != HEADER
        or len(data) < 14
        or (size := int.from_bytes(data[4:8])) < 6
        or 8 + size > len(data)
    ):
        raise MidiError("The file is not a MIDI file (it has no MIDI header); choose a .mid file.")
    form, declared, division = (int.from_bytes(data[i : i + 2]) for i in (8, 10, 12))
    found: list[Chunk] = []
    tracks, position = 0, 8 + size
    while position + 8 <= len(data):
        kind = data[position : position + 4]
        end = position + 8 + int.from_bytes(data[position + 4 : position + 8])
        if kind == TRACK:
            tracks += 1
            if end > len(data):
                raise _cut_off(tracks)
        elif end > len(data) or not kind.isalnum():
            break
        found.append(Chunk(kind, position + 8, end))
        position = end
    if tracks < declared and position < len(data):
        raise _cut_off(tracks + 1)
    if tracks > MAX_TRACKS:
        raise MidiError(f"The file has {tracks:,} tracks, more than {MAX_TRACKS:,}; merge some of them.")
    return form, declared, division, found, position


def events(data: bytes, chunk: Chunk, number: int) -> Events:
    """Scan one track chunk, the `number`-th of the file; MidiError if its bytes make no sense."""
    scan = _Scan(data[chunk.start : chunk.end])
    try:
        scan.run()
    except (IndexError, ValueError):
        raise MidiError(
            f"The file is damaged inside track {number}, at byte {chunk.start + scan.begin:,}; export it again."
        ) from None
    return Events(
        name=scan.name,
        offsets=np.array(scan.offsets, np.int64) + chunk.start,
        ticks=np.array(scan.ticks, np.int64),
        status=np.array(scan.status, np.uint8),
        data1=np.array(scan.data1, np.uint8),
        data2=np.array(scan.data2, np.uint8),
        tempos=tuple(scan.tempos),
    )


def varlen(value: int) -> bytes:
    """A variable-length quantity of 0 to 2**28 - 1."""
    if not 0 <= value <= MAX_DELTA:
        raise ValueError(f"{value} does not fit a variable-length quantity")
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(value & 0x7F | 0x80)
    return bytes(reversed(out))


def meta(kind: int, payload: bytes = b"") -> bytes:
    """A meta event without its delta time."""
    return bytes([META, kind]) + varlen(len(payload)) + payload


def track_chunk(body: bytes) -> bytes:
    """A track chunk around finished events."""
    return TRACK + len(body).to_bytes(4) + body


def lay(messages: Iterable[tuple[int, bytes]], tick: int = 0) -> bytes:
    """Messages in order of their ticks, each behind its delta time; the first is counted from `tick`."""
    body = bytearray()
    for at, message in messages:
        body += varlen(at - tick) + message
        tick = at
    return bytes(body)


class _Scan:
    """One pass over a track's bytes. Running over the end is an IndexError, a senseless byte a ValueError."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.begin = self.position = 0
        self.name = ""
        self.tempos: list[tuple[int, int]] = []
        self.offsets, self.ticks = array("q"), array("q")
        self.status, self.data1, self.data2 = array("B"), array("B"), array("B")

    def run(self) -> None:
        body, tick, running = self.body, 0, 0
        while self.position < len(body):
            self.begin = self.position
            tick += self._varlen()
            status = body[self.position]
            if status >= SYSEX:
                self.position += 1
                first, second = self._system(status, tick), 0
            else:
                if status >= 0x80:
                    running = status
                    self.position += 1
                elif not running:
                    raise ValueError("a data byte where no running status is in force")
                status = running
                first, second = body[self.position], 0
                self.position += 1
                if DATA_BYTES[status & 0xF0] == 2:
                    second = body[self.position]
                    self.position += 1
                if (first | second) & 0x80:
                    raise ValueError("a status byte where data should be")
            self.offsets.append(self.begin)
            self.ticks.append(tick)
            self.status.append(status)
            self.data1.append(first)
            self.data2.append(second)
            if status == META and first == END_OF_TRACK:
                break

    def _varlen(self) -> int:
        value = 0
        for _ in range(4):
            byte = self.body[self.position]
            self.position += 1
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value
        raise ValueError("a variable-length quantity of more than four bytes")

    def _system(self, status: int, tick: int) -> int:
        """Step over a meta event or system exclusive; returns the type of a meta event, else 0."""
        kind = 0
        if status == META:
            kind = self.body[self.position]
            self.position += 1
        elif status not in (SYSEX, ESCAPE):
            raise ValueError("a message that has no place in a file")
        length = self._varlen()
        start, self.position = self.position, self.position + length
        if self.position > len(self.body):
            raise IndexError
        payload = self.body[start : self.position]
        if kind == SET_TEMPO and length == 3:
            self.tempos.append((tick, int.from_bytes(payload)))
        elif kind == TRACK_NAME and status == META and not self.name:
            self.name = _text(payload)
        return kind


def _text(payload: bytes) -> str:
    """The standard names no encoding: UTF-8 where it is that, else Latin-1."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        text = payload.decode("latin-1")
    return "".join(c for c in text[:200] if c.isprintable()).strip()


def _cut_off(track: int) -> MidiError:
    return MidiError(f"The file is cut off inside track {track}; export or download it again.")
