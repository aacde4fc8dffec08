"""Make the piano's samples from Debian's package musescore-general-soundfont-small (see README.md).

    python assets/soundbank/make_soundbank.py [SOUNDFONT]

Takes every second root key of both dynamic layers of its grand piano, the left channel alone, at 32 kHz, and
writes them one after the other into piano.ogg, with index.json saying where each lies and how it is played.
"""

import io
import json
import struct
import sys
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from scipy.signal import resample_poly

SOURCE = "/usr/share/sounds/sf3/MuseScore_General_Lite.sf3"
HERE = Path(__file__).parent
RATE = 32_000
LAYERS = ("Piano MF", "Piano FF")
SPLIT = 96  # the lowest velocity of the second layer
QUALITY = 0.9  # Vorbis compression, 0 the best
PEAK = 0.9
SHARP = {101: 12, 105: 32}  # cents by which these keys exceed a piano's stretched tuning, measured
GAP = 256  # frames of silence behind a sample, so that the next one's attack does not smear into it
HOLD, DECAY, ATTENUATION, SAMPLE = 35, 36, 48, 53  # generators of SoundFont 2.01, section 8.1


class Zone(NamedTuple):
    """A sample as the source plays it; loop in its own frames, hold and decay in seconds, attenuation in dB."""

    samples: np.ndarray
    rate: int
    root: int
    cents: int
    loop: tuple[int, int]
    hold: float
    decay: float
    attenuation: float


def chunks(data: bytes, start: int, end: int) -> dict[bytes, bytes]:
    """Bodies of RIFF chunks; lists are opened. The source pads none of them to even lengths."""
    found = {}
    while start + 8 <= end:
        kind, size = struct.unpack_from("<4sI", data, start)
        if kind == b"LIST":
            found |= chunks(data, start + 12, start + 8 + size)
        else:
            found[kind] = data[start + 8 : start + 8 + size]
        start += 8 + size
    return found


def zones(data: bytes, layer: str) -> Iterator[Zone]:
    """The left samples of a layer, one for each root key, upwards."""
    parts = chunks(data, 12, len(data))
    bags = [bag[0] for bag in struct.iter_unpack("<HH", parts[b"ibag"])]
    generators = list(struct.iter_unpack("<HH", parts[b"igen"]))
    headers = list(struct.iter_unpack("<20sIIIIIBbHH", parts[b"shdr"]))
    common, found = {}, {}
    for first, last in pairwise(bags):
        zone = dict(generators[first:last])
        if SAMPLE not in zone:
            common = zone  # the first of an instrument, in force where the others say nothing
            continue
        name, start, end, *loop, rate, root, cents, _, _ = headers[zone[SAMPLE]]
        name = name.rstrip(b"\0").decode("latin-1")
        if not name.startswith(layer) or not name.endswith("(L)") or root in found:
            continue
        samples, rate = soundfile.read(io.BytesIO(parts[b"smpl"][start:end]))
        hold, decay = (2 ** (signed(zone[key]) / 1200) for key in (HOLD, DECAY))
        loudness = 0.4 * (common | zone).get(ATTENUATION, 0) / 10  # synthesizers take 0.4 of what it says
        found[root] = Zone(samples, rate, root, cents, (loop[0], loop[1]), hold, decay, loudness)
    yield from (found[root] for root in sorted(found))


def signed(value: int) -> int:
    """A 16-bit word as a signed number."""
    return value - 0x10000 if value & 0x8000 else value


def resampled(zone: Zone) -> tuple[np.ndarray, tuple[int, int]]:
    """Samples at our rate up to the loop's end, and the loop's frames."""
    ratio = Fraction(RATE, zone.rate)
    samples = resample_poly(zone.samples, ratio.numerator, ratio.denominator)
    start, end = (round(frame * ratio) for frame in zone.loop)
    return samples[: end + GAP], (start, end)


def ranges(roots: list[int]) -> list[list[int]]:
    """Lowest and highest key of each sample: half the way to its neighbours."""
    tops = [(low + high) // 2 for low, high in pairwise(roots)]
    return [[low, high] for low, high in zip([0, *(top + 1 for top in tops)], [*tops, 127], strict=True)]


def main() -> None:
    """Write both files."""
    data = Path(sys.argv[1] if len(sys.argv) > 1 else SOURCE).read_bytes()
    audio, index, position = [], [], 0
    soft, loud = (list(zones(data, layer))[::2] for layer in LAYERS)
    for kept, velocities in ((soft, [1, SPLIT - 1]), (loud, [SPLIT, 127])):
        for zone, keys in zip(kept, ranges([zone.root for zone in kept]), strict=True):
            samples, loop = resampled(zone)
            gain = PEAK / np.abs(samples).max()
            audio.append(np.pad(samples * gain, (0, GAP)))
            index.append(
                {
                    "start": position,
                    "frames": len(samples),
                    "loop": loop,
                    "root": zone.root,
                    "cents": zone.cents - SHARP.get(zone.root, 0),
                    "keys": keys,
                    "velocities": velocities,
                    "decibels": round(-zone.attenuation - 20 * float(np.log10(gain)), 2),
                    "hold": round(zone.hold, 3),
                    "decay": round(zone.decay, 3),
                }
            )
            position += len(audio[-1])
    # The loud layer ends earlier; above it the soft one plays every velocity.
    above = [entry for entry in index[: len(soft)] if entry["root"] > loud[-1].root]
    index[-1]["keys"][1] = above[0]["keys"][0] - 1
    for entry in above:
        entry["velocities"] = [1, 127]
    write(np.concatenate(audio))
    lines = ",\n".join("  " + json.dumps(entry) for entry in index)
    (HERE / "index.json").write_text(
        f'{{"file": "piano.ogg", "rate": {RATE}, "samples": [\n{lines}\n]}}\n', encoding="utf-8"
    )


def write(audio: np.ndarray) -> None:
    """Write piano.ogg a second at a time: libsndfile crashes on long Vorbis blocks."""
    with soundfile.SoundFile(
        HERE / "piano.ogg", "w", RATE, 1, format="OGG", subtype="VORBIS", compression_level=QUALITY
    ) as file:
        for start in range(0, len(audio), RATE):
            file.write(audio[start : start + RATE])


if __name__ == "__main__":
    main()
