"""Music: MIDI archives to token files, once, in parallel, and kept beside a manifest; augmentation."""

import csv
import hashlib
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from perceiver_ar.codecs.music import PITCHES, MusicCodec, import_note_seq
from perceiver_ar.config import FIRST_DATA
from training.data.domain import Domain, Pieces, Sample
from training.data.sources import names_in, read
from training.data.splits import NoSplit, split_of
from training.data.store import Notes, Recipe, framed, prepare_all, read_pieces

ONE_IN = 50
"""Of so many files without a split one is drawn for validation, and one to test."""
HEARD = 512
"""Tokens of a primer that are heard before a sample: about a quarter of a minute."""


@dataclass(frozen=True)
class Music(Domain):
    """Performances as MIDI; changes that leave a performance a performance."""

    transpose: int = 6
    """Largest transposition, in semitones either way."""
    stretch: float = 0.1
    """Largest change of tempo, as a part."""
    loudness: int = 2
    """Largest change of loudness, in steps of the codec's velocities (4 of MIDI's) either way."""

    def __post_init__(self) -> None:
        if self.transpose < 0 or self.loudness < 0 or not 0 <= self.stretch < 1:
            raise ValueError(
                "transpose and loudness must not be below 0, and stretch must be from 0 to below 1"
            )

    @property
    def codec(self) -> MusicCodec:
        return MusicCodec()

    def load(self, sources: tuple[Path, ...], split: str, store: Path) -> Pieces:
        """As any domain; a source is a zip, a tar or a folder of MIDI files.

        Their splits are those of a csv with the columns `midi_filename` and `split`, as MAESTRO has. Without one they
        are what folders are named after, or else drawn: one file in 50 for validation, one in 50 to test.
        """
        if not sources:
            raise ValueError(
                "say where the performances are: --data and a folder, a zip or a tar of MIDI files"
            )
        return Pieces.join([*map(read_pieces, prepare_all(self.recipe, sources, split, store))])

    def recipe(self, source: Path, split: str) -> Recipe:
        files = _files_of(source, split)
        if not files:
            raise NoSplit(
                f"{source} has no pieces in its {split!r} split: name a folder so, or list them as MAESTRO's csv does"
            )
        facts = {"files": list(files), "codec": self.codec.to_dict()}
        return Recipe(source, split, list(files.values()), facts, _encode)

    def augment(self, tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The same music transposed, at another tempo and louder or softer, drawn evenly from what the fields allow."""
        semitones = int(rng.integers(-self.transpose, self.transpose + 1))
        factor = 1 + float(rng.uniform(-self.stretch, self.stretch))
        levels = int(rng.integers(-self.loudness, self.loudness + 1))
        return louder(stretched(transposed(tokens, semitones), factor), levels)

    def show(self, samples: list[Sample], folder: Path) -> list[Path]:
        """A MIDI file and a WAV each: the last tokens of the primer, and the model's from there on."""
        from perceiver_ar.codecs.splice import write_continuation
        from perceiver_ar.render import wav_bytes

        paths = []
        for number, (primer, made) in enumerate(samples, 1):
            midi, wav = (folder / f"{number}{suffix}" for suffix in (".mid", ".wav"))
            heard = np.concatenate([primer[-HEARD:], made])
            write_continuation(midi, None, self.codec.decode(heard), 0.0)
            wav.write_bytes(wav_bytes(midi.read_bytes()))
            paths += [midi, wav]
        return paths


def _files_of(source: Path, split: str) -> dict[str, str]:
    """The performances of a split: the name of each, and its path in the source."""
    names = names_in(source)
    paths = [name for name in names if name.lower().endswith((".mid", ".midi"))]
    table = _table(source, [name for name in names if name.lower().endswith(".csv")])
    if not table:
        if not paths:
            raise ValueError(
                f"{source} has no MIDI files, and no csv with the columns midi_filename and split, as MAESTRO has"
            )
        return {path: path for path, its in _splits(paths).items() if its == split}
    # A csv names files relative to the folder that it describes, which may be anywhere in the source.
    ends = {path.split("/", depth)[-1]: path for path in paths for depth in range(path.count("/") + 1)}
    wanted = [row["midi_filename"] for row in table if row["split"] == split]
    if missing := [name for name in wanted if name not in ends]:
        raise ValueError(f"{source} lacks {missing[0]}, which its csv names: get the whole of it")
    return {name: ends[name] for name in wanted}


def _table(source: Path, names: list[str]) -> list[dict[str, str]]:
    """The rows of the first csv that is laid out as MAESTRO's is, in any of its versions; none without one."""
    for _, table in sorted(read(source, names)):
        rows = list(csv.DictReader(io.StringIO(table.decode("utf-8-sig", "replace"))))
        if rows and {"midi_filename", "split"} <= set(rows[0]):
            return rows
    return []


def _splits(paths: list[str]) -> dict[str, str | None]:
    """The split of each file, as its folders' names say; drawn where no folder names one.

    A file's own name says nothing of its split, since "The Night Train" is a title.
    """
    named = {path: split_of(str(PurePosixPath(path).parent)) for path in paths}
    return named if any(named.values()) else {**_drawn(paths)}


def _drawn(paths: list[str]) -> dict[str, str]:
    """Validation for one file in `ONE_IN`, test for another, by a hash of its name, whatever else there is.

    Its folders do not count, so that files may be packed in any way. Of a few files each split still gets one.
    """
    digests = {
        path: hashlib.sha256(PurePosixPath(path).name.encode("utf-8", "surrogateescape")).digest()
        for path in paths
    }
    places = {path: int.from_bytes(digest[:8]) % ONE_IN for path, digest in digests.items()}
    splits = {path: {0: "validation", 1: "test"}.get(place, "train") for path, place in places.items()}
    for split in ("validation", "test"):
        rest = [path for path in paths if splits[path] == "train"]
        if split not in splits.values() and len(rest) > 1:
            splits[min(rest, key=lambda path: digests[path])] = split
    return splits


def _encode(files: Iterator[tuple[str, bytes]], notes: Notes) -> Iterator[np.ndarray]:
    """The tokens of each performance; one that has none is left out."""
    for name, file in files:
        found = _performance(file)
        if isinstance(found, str):
            notes.left_out.append(f"{name}: {found}")
        else:
            yield framed(found, MusicCodec().vocab_size)


def _performance(file: bytes) -> np.ndarray | str:
    """Tokens of one performance, or why it has none."""
    import_note_seq()
    with tempfile.NamedTemporaryFile(suffix=".mid") as written:
        written.write(file)
        written.flush()
        try:
            tokens = MusicCodec().encode(written.name)
        except Exception as error:  # a damaged file trips three libraries, each in ways of its own
            return f"{type(error).__name__}: {error}"
    return tokens if tokens.size else "it has no notes"


def transposed(tokens: np.ndarray, semitones: int) -> np.ndarray:
    """Tokens with every pitch moved, or unchanged where a pitch would leave MIDI's range."""
    notes = (tokens >= FIRST_DATA) & (tokens < FIRST_DATA + 2 * PITCHES)
    pitches = (tokens[notes] - FIRST_DATA) % PITCHES + semitones
    if pitches.size and not 0 <= pitches.min() <= pitches.max() < PITCHES:
        return tokens
    moved = tokens.copy()
    moved[notes] += semitones
    return moved


def louder(tokens: np.ndarray, levels: int) -> np.ndarray:
    """Tokens with every velocity moved by as many steps, as far as there are louder and softer ones."""
    codec = MusicCodec()
    moved = np.clip(tokens + levels, codec.velocity, codec.vocab_size - 1)
    return np.where(tokens >= codec.velocity, moved, tokens).astype(tokens.dtype)


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
