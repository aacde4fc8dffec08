"""The shipped piano samples as a SoundFont in memory.

Source: SoundFont Technical Specification 2.01, sections 5 to 8.
"""

import json
import struct
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from math import log2
from typing import Any

import numpy as np

from perceiver_ar.registry import asset

# Generators of section 8.1.2.
FILTER, PAN, HOLD, DECAY, SUSTAIN, RELEASE = 8, 17, 35, 36, 37, 38
INSTRUMENT, KEYS, VELOCITIES, ATTENUATION, SAMPLE, LOOP, ROOT = 41, 43, 44, 48, 53, 54, 58
GUARD = 46  # frames of silence behind each sample, section 7.10
LOWEST_CUTOFF, HIGHEST_CUTOFF = 500.0, 16_000.0
SOFTER = (16, 32, 48, 64, 80)
"""From these velocities on the soft layer opens its filter further: a softer blow excites fewer partials."""
RELEASE_SECONDS = 0.45
UNDAMPED_KEY, UNDAMPED_SECONDS = 89, 4.0  # the highest strings have no dampers
WIDTH = 5  # thousandths that a key stands to the right of the one below it


@cache
def soundfont() -> bytes:
    """The piano as a SoundFont 2.01 file with one preset, bank 0 program 0."""
    import soundfile

    folder = asset("soundbank")
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    audio, _ = soundfile.read(folder / index["file"], dtype="int16")
    pieces: list[np.ndarray] = []
    headers, zones, position = [], [], 0
    for number, entry in enumerate(index["samples"]):
        part = audio[entry["start"] : entry["start"] + entry["frames"]]
        pieces += [part, np.zeros(GUARD, np.int16)]
        loop = [position + frame for frame in entry["loop"]]
        headers.append(
            struct.pack(
                "<20sIIIIIBbHH",
                f"piano {number}".encode(),
                position,
                position + len(part),
                *loop,
                index["rate"],
                entry["root"],
                entry["cents"],
                0,
                1,
            )
        )
        zones += _zones(entry, number)
        position += len(part) + GUARD
    return _file(np.concatenate(pieces).astype("<i2").tobytes(), headers, zones)


def _zones(entry: dict[str, Any], sample: int) -> Iterable[bytes]:
    """Generators of a sample's zones: one for each band of velocities, with a darker tone for softer ones."""
    low, high = entry["velocities"]
    root = 440.0 * 2 ** ((entry["root"] - 69) / 12)
    release = UNDAMPED_SECONDS if entry["keys"][0] >= UNDAMPED_KEY else RELEASE_SECONDS
    edges = [low, *(edge for edge in SOFTER if edge > low), high + 1]
    for first, after in pairwise(edges):
        brightness = min(1.0, after / SOFTER[-1])
        cutoff = HIGHEST_CUTOFF if brightness == 1 else max(LOWEST_CUTOFF, 5 * root) * 16**brightness / 4
        values = {
            KEYS: entry["keys"][0] | entry["keys"][1] << 8,
            VELOCITIES: first | (after - 1) << 8,
            FILTER: _cents(min(cutoff, HIGHEST_CUTOFF) / 8.176),
            PAN: WIDTH * (entry["root"] - 64),
            HOLD: _cents(entry["hold"]),
            DECAY: _cents(entry["decay"]),
            SUSTAIN: 1000,
            RELEASE: _cents(release),
            # Players take 0.4 of the attenuation that a file gives, as the first sound cards did.
            ATTENUATION: round(-entry["decibels"] * 10 / 0.4),
            LOOP: 1,
            ROOT: entry["root"],
            SAMPLE: sample,
        }
        yield b"".join(struct.pack("<HH", key, value & 0xFFFF) for key, value in values.items())


def _cents(ratio: float) -> int:
    return round(1200 * log2(ratio))


def _file(samples: bytes, headers: list[bytes], zones: list[bytes]) -> bytes:
    """A SoundFont of 16-bit samples, their headers, and the zones of its one instrument."""
    starts = np.cumsum([0, *(len(zone) // 4 for zone in zones)])
    bag = struct.Struct("<HH")
    preset = struct.Struct("<20sHHHIII")
    pdta = {
        b"phdr": preset.pack(b"Piano", 0, 0, 0, 0, 0, 0) + preset.pack(b"EOP", 0, 0, 1, 0, 0, 0),
        b"pbag": bag.pack(0, 0) + bag.pack(1, 0),
        b"pmod": bytes(10),
        b"pgen": bag.pack(INSTRUMENT, 0) + bytes(4),
        b"inst": struct.pack("<20sH", b"Piano", 0) + struct.pack("<20sH", b"EOI", len(zones)),
        b"ibag": b"".join(bag.pack(start, 0) for start in starts.tolist()),
        b"imod": bytes(10),
        b"igen": b"".join(zones) + bytes(4),
        b"shdr": b"".join(headers) + struct.pack("<20s26x", b"EOS"),
    }
    info = {b"ifil": bag.pack(2, 1), b"isng": b"EMU8000\0", b"INAM": b"Piano\0"}
    lists = [(b"INFO", info), (b"sdta", {b"smpl": samples}), (b"pdta", pdta)]
    body = b"".join(
        _chunk(b"LIST", kind + b"".join(_chunk(name, data) for name, data in parts.items()))
        for kind, parts in lists
    )
    return _chunk(b"RIFF", b"sfbk" + body)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + len(body).to_bytes(4, "little") + body + bytes(len(body) % 2)
