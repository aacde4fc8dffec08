"""Sequences that need no files: they are made as they are needed."""

import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

ENDLESS = 2**31
"""Sequences of the split `train`."""
SPLITS = "train", "validation", "test"
HELD_OUT = 64
"""Sequences of every split but `train`, which never ends."""


class Made(NamedTuple):
    """What `make` draws: another sequence for each number, and each split."""

    make: Callable[[np.random.Generator], np.ndarray]
    """Gives int32 tokens (n,), from SOS on."""
    split: str

    @classmethod
    def of(cls, make: Callable[[np.random.Generator], np.ndarray], split: str) -> "Made":
        """The sequences of a split; ValueError if there is none of that name."""
        if split not in SPLITS:
            raise ValueError(f"data that are made have the splits {', '.join(SPLITS)}, and no {split!r}")
        return cls(make, split)

    def __len__(self) -> int:
        return ENDLESS if self.split == "train" else HELD_OUT

    def __getitem__(self, number: int) -> np.ndarray:
        if not 0 <= number < len(self):
            raise IndexError(number)
        rng = np.random.default_rng((zlib.crc32(self.split.encode()), number))
        return self.make(rng)

    def length(self, number: int) -> int:
        return len(self[number])

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(0, len(self)))
