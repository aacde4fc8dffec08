"""The copy task's sequences, made as they are needed."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from perceiver_ar.codecs.base import Codec
from perceiver_ar.codecs.copy_task import CopyCodec
from perceiver_ar.config import SOS
from training.data.domain import Domain

HELD_OUT = 64
"""Sequences of every split but `train`."""


class Mirrored(NamedTuple):
    """SOS, `size / 2` random symbols and their mirror image: another sequence for each number, and each split."""

    codec: CopyCodec
    size: int
    split: str
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> np.ndarray:
        if not 0 <= number < self.count:
            raise IndexError(number)
        rng = np.random.default_rng((zlib.crc32(self.split.encode()), number))
        half = rng.integers(0, self.codec.symbols, self.size // 2)
        return np.concatenate([np.array([SOS], np.int32), self.codec.encode(half)])

    def length(self, number: int) -> int:
        return 1 + self.size

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(0, self.count))


@dataclass(frozen=True)
class CopyTask(Domain):
    """Only the mirror image is learned and scored: what it is drawn from is noise.

    Raises:
        ValueError: a length that is odd or less than 2.
    """

    length: int = 32
    """Symbols of a sequence, both halves together."""
    symbols: int = 256

    def __post_init__(self) -> None:
        if self.length < 2 or self.length % 2:
            raise ValueError(f"the copy task's length must be even, and at least 2, not {self.length}")

    @property
    def codec(self) -> CopyCodec:
        return CopyCodec(self.symbols)

    def load(self, sources: tuple[Path, ...], split: str, store: Path) -> Mirrored:
        if sources:
            raise ValueError("the copy task makes its own data: leave --data out")
        return Mirrored(self.codec, self.length, split, 2**31 if split == "train" else HELD_OUT)

    @classmethod
    def of(cls, codec: Codec, context: int) -> "CopyTask":
        assert isinstance(codec, CopyCodec)
        return cls(context, codec.symbols)

    def first_scored(self, length: int) -> int:
        """All but SOS and the random half."""
        return 1 + self.length // 2


DOMAIN = CopyTask
