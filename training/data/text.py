"""Text: archives of plain text files as token files, and the subwords that they are made of."""

import hashlib
import re
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from perceiver_ar.codecs.base import Codec
from perceiver_ar.codecs.text import TextCodec
from training.data.domain import Domain, Pieces, Sequences, Unit
from training.data.store import contents, names_of_split, prepared, read_pieces, save_pieces

SUFFIXES = (".txt", ".tokens", ".raw")
LINES = 2_000_000
"""Most lines, drawn from all, that a vocabulary is learned from."""


@dataclass(frozen=True)
class Text(Domain):
    """Plain text in UTF-8, in folders or files named after their split."""

    subwords: str = ""
    """File of a SentencePiece model (`python -m training vocabulary` makes one), or a codec's own; empty: bytes."""
    title: str = ""
    """Pattern of the lines with which a new sequence begins; empty: a sequence a file."""

    @property
    def codec(self) -> TextCodec:
        return TextCodec(_model(self.subwords))

    @classmethod
    def of(cls, codec: Codec, context: int) -> "Text":
        assert isinstance(codec, TextCodec)
        return cls(subwords=codec.subwords)

    def load(self, sources: tuple[Path, ...], split: str, store: Path) -> Pieces:
        if not sources:
            raise ValueError("say where the texts are: --data and a folder, a zip or a tar of .txt files")
        return Pieces.join([self._load_source(source, split, store) for source in sources])

    def texts(self, source: Path, split: str) -> Iterator[str]:
        """The texts of a split, one a sequence, with a bar that counts files; ValueError if there are none."""
        names = names_of_split(source, split, SUFFIXES)
        console = Console(stderr=True)
        for file in track(contents(source, names), f"{source.stem} {split}", len(names), console=console):
            whole = file.decode("utf-8")
            begins = [found.start() for found in re.finditer(self.title, whole, re.M)] if self.title else []
            cuts = [0, *(begin for begin in begins if begin), len(whole)]
            yield from (whole[a:b] for a, b in pairwise(cuts) if whole[a:b].strip())

    def _load_source(self, source: Path, split: str, store: Path) -> Pieces:
        codec = self.codec

        def make(path: Path) -> dict[str, int]:
            return save_pieces(path, map(codec.encode, self.texts(source, split)))

        digest = hashlib.sha256(codec.subwords.encode()).hexdigest()
        facts = {
            "files": names_of_split(source, split, SUFFIXES),
            "subwords_sha256": digest,
            "title": self.title,
        }
        return read_pieces(prepared(store, source, split, facts, make, ".npz"))

    @property
    def unit(self) -> Unit:
        return Unit() if self.subwords else Unit("bits/byte", 1 / float(np.log(2)))

    def figures(self, nll: float, tokens: int, sequences: Sequences) -> dict[str, float]:
        """Bits a byte, and perplexities of a word: all nats, whatever the tokens are, over the words of the text.

        `word_perplexity` counts the end of a line as a word, as WikiText's is stated; `word_perplexity_pg19` only what
        stands between spaces (Rae et al. 2020).
        """
        size = words = lines = 0
        for number in range(len(sequences)):
            text = self.codec.decode(sequences[number])
            size, words, lines = (
                size + len(text.encode("utf-8")),
                words + len(text.split()),
                lines + text.count("\n"),
            )
        nats = nll * tokens
        return {
            "bits_per_byte": nats / size / float(np.log(2)),
            "word_perplexity": float(np.exp(nats / (words + lines))),
            "word_perplexity_pg19": float(np.exp(nats / words)),
        }


@cache
def _model(subwords: str) -> str:
    """A codec's subwords: what the file holds in base64; what is in base64 already stays as it is."""
    if not subwords or len(subwords) > 4096:  # longer than any path
        return subwords
    try:
        return b64encode(Path(subwords).read_bytes()).decode("ascii")
    except OSError as error:
        raise ValueError(
            f"cannot read the subwords {subwords} ({error.strerror}): `python -m training vocabulary` makes them"
        ) from None


def learn_subwords(texts: Iterator[str], size: int) -> bytes:
    """A SentencePiece model of `size` pieces: a unigram model (Kudo 2018) that keeps every space and line as it is.

    Raises:
        ValueError: the texts are too few for so many pieces, or the pieces for all bytes.
    """
    from sentencepiece import SentencePieceTrainer

    model = BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=(line for text in texts for line in text.splitlines() if line),
            model_writer=model,
            vocab_size=size,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            split_digits=True,
            input_sentence_size=LINES,
            max_sentence_length=1 << 16,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(f"{size} subwords cannot be learned from these texts: {error}") from None
    return model.getvalue()


DOMAIN = Text
