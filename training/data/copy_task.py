"""The copy task's sequences, made as they are needed."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perceiver_ar.codecs.base import Codec
from perceiver_ar.codecs.copy_task import CopyCodec
from perceiver_ar.config import PAD, SOS
from training.data.domain import Domain
from training.data.made import Made


@dataclass(frozen=True)
class CopyTask(Domain):
    """Only the mirror image is learned and scored: what it is drawn from is noise.

    Raises:
        ValueError: a length that is odd or less than 2, or a shortest that no sequence can have.
    """

    length: int = 32
    """Symbols of a sequence, both halves together."""
    symbols: int = 256
    shortest: int | None = None
    """Training sequences have `length`, a half of it, a fourth, and so on down to this, each 1.4 times as often as the
    one twice as long; None: all have `length`. Shorter ones keep the positions around the middle and are empty before,
    so that what is learned from few symbols, which is easy, holds for more. Held-out sequences have `length`."""

    def __post_init__(self) -> None:
        if self.length < 2 or self.length % 2:
            raise ValueError(f"the copy task's length must be even, and at least 2, not {self.length}")
        if self.shortest is not None and not 2 <= self.shortest <= self.length:
            raise ValueError(
                f"the shortest sequence must have 2 to {self.length} symbols, not {self.shortest}"
            )

    @property
    def codec(self) -> CopyCodec:
        return CopyCodec(self.symbols)

    def load(self, sources: tuple[Path, ...], split: str, store: Path) -> Made:
        if sources:
            raise ValueError("the copy task makes its own data: leave --data out")
        return Made.of(self._any_length if self.shortest and split == "train" else self._whole, split)

    def _whole(self, rng: np.random.Generator) -> np.ndarray:
        """Tokens (1 + length,): SOS, random symbols and their mirror image."""
        return self._mirrored(rng, self.length // 2)

    def _any_length(self, rng: np.random.Generator) -> np.ndarray:
        """Tokens (1 + length / 2 + n,): padding, and SOS and 2n symbols at the end."""
        assert self.shortest
        often = 2.0 ** (np.arange(int(np.log2(self.length / self.shortest)) + 1) / 2)
        halvings = int(rng.choice(len(often), p=often / often.sum()))
        half = self.length // 2 >> halvings
        return np.pad(self._mirrored(rng, half), (self.length // 2 - half, 0), constant_values=PAD)

    def _mirrored(self, rng: np.random.Generator, half: int) -> np.ndarray:
        symbols = self.codec.encode(rng.integers(0, self.symbols, half))
        return np.concatenate([np.array([SOS], np.int32), symbols])

    @classmethod
    def of(cls, codec: Codec, context: int) -> "CopyTask":
        assert isinstance(codec, CopyCodec)
        return cls(context, codec.symbols)

    @property
    def placed(self) -> bool:
        return True

    def first_scored(self, length: int) -> int:
        """All but SOS and the random half."""
        return 1 + self.length // 2


DOMAIN = CopyTask
