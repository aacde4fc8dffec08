"""Text as the bytes of its UTF-8 encoding, or as subwords of a vocabulary that was learned."""

from base64 import b64decode
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from perceiver_ar.codecs.base import every_token, steps
from perceiver_ar.config import FIRST_DATA

BYTES = 256
SPACE = "\u2581"


@dataclass(frozen=True)
class TextCodec:
    """A token for each byte, or for each piece of a SentencePiece model (Kudo & Richardson 2018)."""

    subwords: str = ""
    """The model in base64, so that a checkpoint needs no other file; empty: bytes."""

    name = "text"

    @property
    def vocab_size(self) -> int:
        return FIRST_DATA + (_pieces(self.subwords).vocab_size() if self.subwords else BYTES)

    @property
    def legal(self) -> np.ndarray:
        """Boolean (1, vocab_size): anything may follow anything, but for the piece that stands for no text."""
        legal = every_token(self.vocab_size)
        if self.subwords:
            legal[:, FIRST_DATA + _pieces(self.subwords).unk_id()] = False
        return legal

    def encode(self, source: "str | Path") -> np.ndarray:
        """Tokens (n,) of a text, or of the file at a path.

        Subwords of a model by `training.data.text.learn_subwords` lose nothing of a text, since what is no piece is
        spelled in bytes.
        """
        raw = source.read_bytes() if isinstance(source, Path) else source.encode("utf-8")
        if self.subwords:
            return np.array(_spelled(_pieces(self.subwords), raw.decode("utf-8")), np.int32) + FIRST_DATA
        return np.frombuffer(raw, np.uint8).astype(np.int32) + FIRST_DATA

    def decode(self, tokens: np.ndarray) -> str:
        """The text; bytes that are no UTF-8 become the replacement character."""
        tokens = np.asarray(tokens)
        data = tokens[tokens >= FIRST_DATA] - FIRST_DATA
        if self.subwords:
            return _pieces(self.subwords).decode(data.tolist())
        return bytes(data.astype(np.uint8)).decode("utf-8", "replace")

    def positions(self, start: int, count: int) -> np.ndarray:
        """Int32 of shape (count, 1)."""
        return steps(start, count)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name} | asdict(self)


def _spelled(pieces: Any, text: str) -> list[int]:
    """Pieces of a text; SentencePiece's sign for a space, which would come back as one, is spelled in bytes."""
    first, *others = text.split(SPACE)
    sign = [pieces.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE.encode("utf-8")]
    spelled = pieces.encode(first)
    for part in others:
        spelled += sign + pieces.encode(part)
    return spelled


@cache
def _pieces(model: str) -> Any:
    """SentencePiece's processor of a model in base64; ValueError if there is none in it, or no SentencePiece."""
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise ValueError("the model reads subwords: pip install sentencepiece") from error
    try:
        return SentencePieceProcessor(model_proto=b64decode(model, validate=True))
    except (ValueError, RuntimeError) as error:
        raise ValueError("the subwords are no SentencePiece model") from error


CODEC = TextCodec
