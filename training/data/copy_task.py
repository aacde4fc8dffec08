"""The copy task's sequences, made as they are needed."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perceiver_ar.codecs.base import Codec
from perceiver_ar.codecs.copy_task import CopyCodec
from training.data.domain import Domain
from training.data.made import Made


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

    def load(self, sources: tuple[Path, ...], split: str, store: Path) -> Made:
        if sources:
            raise ValueError("the copy task makes its own data: leave --data out")
        return Made(self._mirrored, self.length, split)

    def _mirrored(self, rng: np.random.Generator) -> np.ndarray:
        """Tokens (length,) of random symbols and their mirror image."""
        return self.codec.encode(rng.integers(0, self.symbols, self.length // 2))

    @classmethod
    def of(cls, codec: Codec, context: int) -> "CopyTask":
        assert isinstance(codec, CopyCodec)
        return cls(context, codec.symbols)

    def first_scored(self, length: int) -> int:
        """All but SOS and the random half."""
        return 1 + self.length // 2


DOMAIN = CopyTask
