"""What the model, training and sampling may know of a domain: four methods and a table."""

from typing import Any, Protocol

import numpy as np

from perceiver_ar.config import FIRST_DATA


class Codec(Protocol):
    """Data to tokens and back.

    `legal` has shape (period, vocab_size): row `i % period` says which tokens may stand at step `i`.
    """

    @property
    def name(self) -> str: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def legal(self) -> np.ndarray: ...

    def encode(self, source: Any) -> np.ndarray:
        """Tokens of one example, int32 of shape (n,), without SOS and EOS."""
        ...

    def decode(self, tokens: np.ndarray) -> Any:
        """The data that `tokens` (n,) stand for; special tokens are passed over."""
        ...

    def positions(self, start: int, count: int) -> np.ndarray:
        """Positions of steps `start` to `start + count`, int32 of shape (count, axes)."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """What `codec.json` of a checkpoint holds."""
        ...


def every_token(vocab_size: int) -> np.ndarray:
    """Boolean (1, vocab_size), a `legal` by which any data token may stand anywhere."""
    return (np.arange(vocab_size) >= FIRST_DATA)[None]


def steps(start: int, count: int) -> np.ndarray:
    """Int32 (count, 1), the `positions` of a sequence along one axis."""
    return np.arange(start, start + count, dtype=np.int32)[:, None]
