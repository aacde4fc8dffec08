"""Audio: archives of residual-VQ codes as token files, or made-up codes where there are none."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from perceiver_ar.codecs.audio import AudioCodec
from perceiver_ar.codecs.base import Codec
from perceiver_ar.config import SOS
from training.data.domain import Domain, Pieces, Sequences
from training.data.made import Made
from training.data.sources import names_of_split
from training.data.store import Notes, Recipe, framed, prepare_all, read_pieces

STATES = 8
"""Codes of a codebook that are made up: few, so that a small model finds out how they follow each other."""
JUMP = 0.1
"""Part of the made-up codes that do not follow from the one before."""


@dataclass(frozen=True)
class Audio(Domain):
    """Codes (frames, codebooks) as .npy files, a recording each, in folders or files named after their split.

    Of a recording with more codebooks the first ones are read: the same recording at a lower bitrate.

    Raises:
        ValueError: what no codec can be, or a made-up recording without a frame.
    """

    codebooks: int = 24
    """Codes a frame; the model's vocab_size is 3 more than codebooks times codes."""
    codes: int = 1024
    """Entries of a codebook."""
    frames_per_second: float = 50.0
    frames: int = 500
    """Length of a made-up recording: without --data there is nothing else to learn from."""

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ValueError(f"a recording has at least one frame, not {self.frames}")
        _ = self.codec  # which says what is wrong with the other fields

    @property
    def codec(self) -> AudioCodec:
        return AudioCodec(self.codebooks, self.codes, self.frames_per_second)

    @classmethod
    def of(cls, codec: Codec, context: int) -> "Audio":
        assert isinstance(codec, AudioCodec)
        frames = max(1, context // codec.codebooks)
        return cls(codec.codebooks, codec.codes, codec.frames_per_second, frames)

    def load(self, sources: tuple[Path, ...], split: str, store: Path) -> Sequences:
        if sources:
            return Pieces.join([*map(read_pieces, prepare_all(self.recipe, sources, split, store))])
        print(f"no --data: the {split} split is made up, to try things out with", file=sys.stderr)
        return Made.of(self._made_up, split)

    def recipe(self, source: Path, split: str) -> Recipe:
        names = names_of_split(source, split, (".npy",))
        return Recipe(source, split, names, {"files": names, "codec": self.codec.to_dict()}, self._encode)

    def _encode(self, files: Iterator[tuple[str, bytes]], notes: Notes) -> Iterator[np.ndarray]:
        return (framed(self._tokens(*file), self.codec.vocab_size) for file in files)

    def _tokens(self, name: str, file: bytes) -> np.ndarray:
        try:
            codes = np.lib.format.read_array(BytesIO(file), allow_pickle=False)
            if codes.ndim == 2:
                codes = self._first_codebooks(codes)
            return self.codec.encode(codes)
        except ValueError as error:
            raise ValueError(f"{name} cannot be used: {error}") from error

    def _first_codebooks(self, codes: np.ndarray) -> np.ndarray:
        frames, found = codes.shape
        if found < self.codebooks:
            raise ValueError(
                f"it has {found} codebooks, and this domain {self.codebooks}: "
                "set --domain.codebooks, and --model.vocab-size with it"
            )
        if found > max(frames, self.codebooks):  # many tools write (codebooks, frames)
            raise ValueError(f"{codes.shape} does not look like (frames, codebooks): transpose it")
        return codes[:, : self.codebooks]

    def _made_up(self, rng: np.random.Generator) -> np.ndarray:
        """SOS and tokens in which every codebook counts through a few codes at its own pace, and jumps now and then."""
        shape = self.frames, self.codebooks
        states, frame = min(STATES, self.codes), np.arange(self.frames)[:, None]
        jumps = rng.random(shape) < JUMP
        since = np.maximum.accumulate(np.where(jumps, frame, 0))
        begun = np.take_along_axis(rng.integers(0, states, shape), since, axis=0)
        pace = 1 + np.arange(self.codebooks) % (states - 1)
        tokens = self.codec.encode((begun + pace * frame) % states * (self.codes // states))
        return np.concatenate([np.array([SOS], np.int32), tokens])

    def figures(self, nll: float, tokens: int, sequences: Sequences) -> dict[str, float]:
        """Nats a frame, and kilobits a second that the codes take when this model codes them."""
        codec = self.codec
        return {
            "nats_per_frame": nll * codec.codebooks,
            "kbps": nll / float(np.log(codec.codes)) * codec.kbps,
        }


DOMAIN = Audio
