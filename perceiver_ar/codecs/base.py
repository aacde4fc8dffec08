"""What the model, training and sampling may know of a domain: four methods and a table."""

from typing import Any, Protocol

import numpy as np


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
