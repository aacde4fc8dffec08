"""MIDI bytes for tests, built without the code under test: by hand, at random, from ../shared/data."""

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

DATA = Path(__file__).parents[2] / "shared" / "data"

Message = tuple[int, bytes]  # delta time in ticks, message bytes (without status byte where running)
END = b"\xff\x2f\x00"


def delta(ticks: int) -> bytes:
    """A variable-length quantity."""
    groups = [ticks & 0x7F]
    while ticks := ticks >> 7:
        groups.insert(0, ticks & 0x7F | 0x80)
    return bytes(groups)


def chunk(kind: bytes, body: bytes) -> bytes:
    return kind + len(body).to_bytes(4, "big") + body


def track(*messages: Message, end: int | None = 0) -> bytes:
    """A track chunk; End of Track comes `end` ticks after the last message, or not at all (None)."""
    body = b"".join(delta(ticks) + message for ticks, message in messages)
    return chunk(b"MTrk", body if end is None else body + delta(end) + END)


def header(form: int, tracks: int, division: int = 480) -> bytes:
    return chunk(b"MThd", b"".join(value.to_bytes(2, "big") for value in (form, tracks, division)))


def midi(*chunks: bytes, form: int = 1, division: int = 480, declared: int | None = None) -> bytes:
    """A file of finished chunks; `declared` is what the header says instead of the number of tracks."""
    tracks = sum(chunk.startswith(b"MTrk") for chunk in chunks)
    return header(form, tracks if declared is None else declared, division) + b"".join(chunks)


def on(pitch: int, velocity: int = 80, channel: int = 0) -> bytes:
    return bytes([0x90 | channel, pitch, velocity])


def off(pitch: int, channel: int = 0) -> bytes:
    return bytes([0x80 | channel, pitch, 64])


def control(number: int, value: int, channel: int = 0) -> bytes:
    return bytes([0xB0 | channel, number, value])


def program(number: int, channel: int = 0) -> bytes:
    return bytes([0xC0 | channel, number])


def meta(kind: int, payload: bytes) -> bytes:
    return bytes([0xFF, kind]) + delta(len(payload)) + payload


def tempo(bpm: float) -> bytes:
    return meta(0x51, round(6e7 / bpm).to_bytes(3, "big"))


def melody(pitches: Iterable[int] = (60, 62, 64, 65), length: int = 480, channel: int = 0) -> list[Message]:
    """Notes one after the other, `length` ticks each: half a second at the default division and tempo."""
    return [
        message
        for pitch in pitches
        for message in ((0, on(pitch, channel=channel)), (length, off(pitch, channel)))
    ]


@st.composite
def midi_files(draw) -> bytes:
    """Type 0 and 1 files of one to three tracks: notes, pedals, tempo changes, some running status."""
    tracks = []
    for number in range(draw(st.integers(1, 3))):
        messages: list[Message] = [
            (0, on(50 + number, channel=number)),
            (200, off(50 + number, number)),
        ]
        for _ in range(draw(st.integers(1, 25))):
            ticks, pitch = draw(st.integers(0, 2000)), draw(st.integers(58, 63))
            kind = draw(st.integers(0, 5))
            if kind <= 1:
                messages.append((ticks, on(pitch, draw(st.integers(0, 127)), number)))
            elif kind == 2:
                messages.append((ticks, off(pitch, number)))
            elif kind == 3:
                messages.append((ticks, control(64, draw(st.integers(0, 127)), number)))
            elif kind == 4:
                messages.append((ticks, meta(1, b"words")))
            elif number == 0:
                messages.append((ticks, tempo(draw(st.integers(20, 400)))))
        if draw(st.booleans()):
            messages += [(10, on(61, channel=number)), (10, b"\x3d\x00"), (10, b"\x3e\x50")]
        tracks.append(track(*messages, end=draw(st.integers(0, 500))))
    return midi(*tracks, form=int(len(tracks) > 1), division=draw(st.sampled_from([96, 384, 480, 1000])))


def performances(archive: str, count: int) -> list[tuple[str, bytes]]:
    """Names and bytes of some `count` MIDI files of an archive in ../shared/data, from its smaller half."""
    path = DATA / archive
    if not path.exists():
        pytest.skip(f"{archive} is not in ../shared/data, and no part of the repository")
    with zipfile.ZipFile(path) as files:
        infos = [info for info in files.infolist() if info.filename.lower().endswith((".mid", ".midi"))]
        infos = sorted(infos, key=lambda info: info.file_size)[: len(infos) // 2]
        return [(info.filename, files.read(info)) for info in infos[:: max(1, len(infos) // count)]]


def piece(*, form: int = 1, notes: int = 24) -> bytes:
    """A scale in eighths at 120 a minute, with words beside it."""
    messages = [(0, meta(1, b"words")), (0, tempo(120))]
    for number in range(notes):
        pitch = 60 + number % 12
        messages += [(0, on(pitch)), (240, off(pitch))]
    return midi(track(*messages), form=form)


def performance(seed: int, notes: int = 60) -> bytes:
    """Notes at random, one after the other."""
    rng = np.random.default_rng(seed)
    messages = []
    for pitch in rng.integers(40, 80, notes).tolist():
        messages += [(int(rng.integers(1, 200)), on(pitch)), (120, off(pitch))]
    return midi(track(*messages))


SCALE = piece()
HOURS = midi(track((0, tempo(20)), *[(9_000_000, on(60)), (480, off(60))]), division=24)
BAD = {
    "empty": (b"", "empty"),
    "truncated": (SCALE[: len(SCALE) // 2], ""),
    "random": (bytes(range(7, 256)) * 40, "not a MIDI"),
    "no notes": (midi(track((0, tempo(100)))), "no notes"),
    "drums": (midi(track((0, on(36, channel=9)), (9, off(36, channel=9)))), "drums"),
    "hours": (HOURS, "hours"),
    "ticks": (midi(track((0, on(60)), (2**28 - 1, off(60)))), "ticks"),
    "type 2": (piece(form=2), "type 2"),
}
GOOD = {
    "type 0": piece(form=0),
    "type 1": piece(form=1),
    "running status": midi(track((0, on(60)), (240, b"\x3c\x00"), (0, b"\x3e\x50"), (240, b"\x3e\x00"))),
    "overlapping": midi(track((0, on(60)), (240, on(60)), (240, off(60)), (240, off(60)))),
    "silence": midi(track((0, on(60)), (480, off(60)), (2_000_000, on(64)), (480, off(64)))),
}
