"""Text as the bytes of its UTF-8 encoding."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perceiver_ar.codecs.base import every_token, steps
from perceiver_ar.config import FIRST_DATA

BYTES = 256


@dataclass(frozen=True)
class TextCodec:
    """A token for each byte."""

    name = "text"

    @property
    def vocab_size(self) -> int:
        return FIRST_DATA + BYTES

    @property
    def legal(self) -> np.ndarray:
        """Boolean (1, vocab_size): any byte may follow any other."""
        return every_token(self.vocab_size)

    def encode(self, source: "str | Path") -> np.ndarray:
        """Tokens (n,) of a text, or of the file at a path."""
        raw = source.read_bytes() if isinstance(source, Path) else source.encode("utf-8")
        return np.frombuffer(raw, np.uint8).astype(np.int32) + FIRST_DATA

    def decode(self, tokens: np.ndarray) -> str:
        """The text; bytes that are no UTF-8 become the replacement character."""
        tokens = np.asarray(tokens)
        return bytes((tokens[tokens >= FIRST_DATA] - FIRST_DATA).astype(np.uint8)).decode("utf-8", "replace")

    def positions(self, start: int, count: int) -> np.ndarray:
        """Int32 of shape (count, 1)."""
        return steps(start, count)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name}


CODEC = TextCodec
