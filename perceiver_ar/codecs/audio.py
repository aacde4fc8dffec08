"""Audio as the codes of a residual vector quantizer, frame by frame (Perceiver AR, its music generation on audio).

Source of the codes: SoundStream, Zeghidour et al. (2021). Each codebook of a frame codes what those before it left.
"""

from dataclasses import asdict, dataclass
from math import log2
from typing import Any

import numpy as np

from perceiver_ar.codecs.base import steps
from perceiver_ar.config import FIRST_DATA


@dataclass(frozen=True)
class AudioCodec:
    """A token for each code, the codebooks of a frame one after the other, and each codebook with its own tokens.

    Code c of codebook b is the token `FIRST_DATA + b * codes + c`: a token alone says whose turn comes next.

    Raises:
        ValueError: no codebook, fewer than two codes, or no frames a second.
    """

    codebooks: int = 24
    """Codes a frame; 24, 36 and 44 are the paper's 12, 18 and 22 kbit/s."""
    codes: int = 1024
    """Entries of a codebook."""
    frames_per_second: float = 50.0

    name = "audio"

    def __post_init__(self) -> None:
        if self.codebooks < 1 or self.codes < 2 or self.frames_per_second <= 0:
            raise ValueError(
                "audio needs a codebook, two codes and some frames a second, not "
                f"{self.codebooks} of {self.codes} codes at {self.frames_per_second:g} a second"
            )

    @property
    def vocab_size(self) -> int:
        return FIRST_DATA + self.codebooks * self.codes

    @property
    def legal(self) -> np.ndarray:
        """Boolean (codebooks, vocab_size): the codebooks take turns. So a primer begins with a frame's first code."""
        return (np.arange(self.vocab_size) - FIRST_DATA) // self.codes == np.arange(self.codebooks)[:, None]

    @property
    def kbps(self) -> float:
        """Kilobits a second of the codes as they are."""
        return self.codebooks * log2(self.codes) * self.frames_per_second / 1000

    def encode(self, source: Any) -> np.ndarray:
        """Tokens (frames * codebooks,) of whole numbers (frames, codebooks).

        Raises:
            ValueError: an array of another shape, or a number that is no code.
        """
        codes = np.asarray(source)
        if codes.ndim != 2 or codes.shape[1] != self.codebooks:
            raise ValueError(f"codes must have the shape (frames, {self.codebooks}), not {codes.shape}")
        if codes.dtype.kind not in "iu" or (codes.size and not 0 <= codes.min() <= codes.max() < self.codes):
            raise ValueError(f"codes must be whole numbers between 0 and {self.codes - 1}")
        first = FIRST_DATA + self.codes * np.arange(self.codebooks, dtype=np.int32)
        return (codes.astype(np.int32) + first).reshape(-1)

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Codes of the whole frames, int32 (frames, codebooks); what is no part of one is passed over."""
        tokens = np.asarray(tokens, np.int32)
        data = tokens[(tokens >= FIRST_DATA) & (tokens < self.vocab_size)] - FIRST_DATA
        places = np.arange(self.codebooks)
        if len(data) < self.codebooks:
            return np.zeros((0, self.codebooks), np.int32)
        turns, codes = np.divmod(data, self.codes)
        whole = (np.lib.stride_tricks.sliding_window_view(turns, self.codebooks) == places).all(axis=1)
        return codes[np.flatnonzero(whole)[:, None] + places]

    def positions(self, start: int, count: int) -> np.ndarray:
        """Int32 of shape (count, 1)."""
        return steps(start, count)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name} | asdict(self)


CODEC = AudioCodec
