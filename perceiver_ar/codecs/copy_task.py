"""The mirrored copy task: a random sequence, then the same one backwards (Perceiver AR, section 5.1)."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from perceiver_ar.codecs.base import every_token, steps
from perceiver_ar.config import FIRST_DATA


@dataclass(frozen=True)
class CopyCodec:
    """Whole numbers below `symbols`, and behind them their mirror image."""

    symbols: int = 256

    name = "copy_task"

    @property
    def vocab_size(self) -> int:
        return FIRST_DATA + self.symbols

    @property
    def legal(self) -> np.ndarray:
        """Boolean (1, vocab_size): any symbol may follow any other."""
        return every_token(self.vocab_size)

    def encode(self, source: Any) -> np.ndarray:
        """Tokens (2n,) of a sequence (n,) of numbers.

        Raises:
            ValueError: a number that is no symbol.
        """
        numbers = np.asarray(source, np.int32)
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < self.symbols:
            raise ValueError(f"the copy task's numbers lie between 0 and {self.symbols - 1}")
        return np.concatenate([numbers, numbers[::-1]]) + np.int32(FIRST_DATA)

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """All symbols in order, the mirror image too."""
        tokens = np.asarray(tokens)
        return tokens[tokens >= FIRST_DATA] - FIRST_DATA

    def positions(self, start: int, count: int) -> np.ndarray:
        """Int32 of shape (count, 1)."""
        return steps(start, count)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name} | asdict(self)


CODEC = CopyCodec
