"""Music: MIDI archives to token files, once, in parallel, and kept beside a manifest; augmentation."""

import csv
import io
import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from perceiver_ar.codecs.music import PITCHES, MusicCodec
from perceiver_ar.config import FIRST_DATA
from training.data.domain import Domain, Pieces
from training.data.store import contents, names_in, prepared, read_pieces, save_pieces


@dataclass(frozen=True)
class Music(Domain):
    """Performances as MIDI, in the layout of MAESTRO; changes that leave a performance a performance."""

    transpose: int = 6
    """Largest transposition, in semitones either way."""
    stretch: float = 0.1
    """Largest change of tempo, as a part."""

    @property
    def codec(self) -> MusicCodec:
        return MusicCodec()

    def load(self, sources: tuple[Path, ...], split: str, store: Path) -> Pieces:
        """As any domain; a source is a zip, a tar or a folder in the layout of MAESTRO.

        That is MIDI files, and a csv with the columns `midi_filename` and `split`.
        """
        if not sources:
            raise ValueError("say where the performances are: --data MAESTRO.zip, or its folder")
        return Pieces.join([_load_source(source, split, store) for source in sources])

    def augment(self, tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The same music transposed and at another tempo, both drawn evenly from what the fields allow."""
        semitones = int(rng.integers(-self.transpose, self.transpose + 1))
        factor = 1 + float(rng.uniform(-self.stretch, self.stretch))
        return stretched(transposed(tokens, semitones), factor)


def _load_source(source: Path, split: str, store: Path) -> Pieces:
    rows = [row for row in _rows(source) if row["split"] == split]
    if not rows:
        raise ValueError(f"{source} has no pieces in its {split!r} split")
    codec = MusicCodec()
    names = [row["midi_filename"] for row in rows]

    def make(path: Path) -> dict[str, int]:
        return save_pieces(path, _encode_all(source, names, f"{source.stem} {split}"))

    facts = {"files": names, "codec": codec.to_dict()}
    return read_pieces(prepared(store, source, split, facts, make, ".npz"))


def _rows(source: Path) -> list[dict[str, str]]:
    """The table of a source: what MAESTRO calls its performances, and the split of each."""
    names = [name for name in names_in(source) if name.endswith(".csv")]
    tables = contents(source, names)
    for table in tables:
        rows = list(csv.DictReader(io.StringIO(table.decode("utf-8"))))
        if rows and {"midi_filename", "split"} <= set(rows[0]):
            return rows
    raise ValueError(f"{source} has no csv with the columns midi_filename and split, as MAESTRO has")


def _encode_all(source: Path, names: list[str], title: str) -> Iterator[np.ndarray]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=context) as pool:
        encoded = pool.map(partial(_encode, source), names, chunksize=4)
        yield from track(encoded, f"Tokens of {title}", total=len(names), console=Console(stderr=True))


def _encode(source: Path, name: str) -> np.ndarray:
    """Tokens of one performance; the archive's csv names files relative to itself."""
    full = next(path for path in names_in(source) if path.endswith("/" + name) or path == name)
    with tempfile.NamedTemporaryFile(suffix=".mid") as file:
        file.writelines(contents(source, [full]))
        file.flush()
        return MusicCodec().encode(file.name)


def transposed(tokens: np.ndarray, semitones: int) -> np.ndarray:
    """Tokens with every pitch moved, or unchanged where a pitch would leave MIDI's range."""
    notes = (tokens >= FIRST_DATA) & (tokens < FIRST_DATA + 2 * PITCHES)
    pitches = (tokens[notes] - FIRST_DATA) % PITCHES + semitones
    if pitches.size and not 0 <= pitches.min() <= pitches.max() < PITCHES:
        return tokens
    moved = tokens.copy()
    moved[notes] += semitones
    return moved


def stretched(tokens: np.ndarray, factor: float) -> np.ndarray:
    """Tokens with all times multiplied, rounded to steps as absolute times so that no error adds up."""
    codec = MusicCodec()
    shifts = (tokens >= codec.time_shift) & (tokens < codec.velocity)
    events = ~shifts
    times = np.rint(codec.elapsed(tokens)[events] * factor).astype(np.int64)
    gaps = np.diff(times, prepend=0)
    whole, rest = np.divmod(gaps, codec.max_shift_steps)
    counts = whole + (rest > 0) + 1
    out = np.full(counts.sum(), codec.time_shift + codec.max_shift_steps - 1, np.int32)
    at = np.cumsum(counts) - 1
    out[at] = tokens[events]
    with_rest = rest > 0
    out[at[with_rest] - 1] = codec.time_shift + rest[with_rest] - 1
    return out


DOMAIN = Music
