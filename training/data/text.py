"""Text: archives of plain text files as token files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from perceiver_ar.codecs.text import TextCodec
from training.data.domain import Domain, Pieces, Sequences
from training.data.store import contents, names_of_split, prepared, read_pieces, save_pieces

SUFFIXES = (".txt", ".tokens", ".raw")


@dataclass(frozen=True)
class Text(Domain):
    """Plain text in UTF-8, a sequence a file, in folders or files named after their split."""

    @property
    def codec(self) -> TextCodec:
        return TextCodec()

    def load(self, sources: tuple[Path, ...], split: str, store: Path) -> Pieces:
        if not sources:
            raise ValueError("say where the texts are: --data and a folder, a zip or a tar of .txt files")
        return Pieces.join([self._load_source(source, split, store) for source in sources])

    def _load_source(self, source: Path, split: str, store: Path) -> Pieces:
        names = names_of_split(source, split, SUFFIXES)

        def make(path: Path) -> dict[str, int]:
            texts = track(
                contents(source, names), f"{source.stem} {split}", len(names), console=Console(stderr=True)
            )
            return save_pieces(path, (self.codec.encode(text.decode("utf-8")) for text in texts))

        facts = {"files": names, "codec": self.codec.to_dict()}
        return read_pieces(prepared(store, source, split, facts, make, ".npz"))

    def figures(self, nll: float, tokens: int, sequences: Sequences) -> dict[str, float]:
        """Bits a byte, and the perplexity of a word, for which the end of a line is a word too.

        That is how the perplexity of WikiText is stated whatever the tokens are: all nats over the words of the text.
        """
        size = words = 0
        for number in range(len(sequences)):
            text = self.codec.decode(sequences[number])
            size += len(text.encode("utf-8"))
            words += len(text.split()) + text.count("\n")
        return {
            "bits_per_byte": nll * tokens / size / float(np.log(2)),
            "word_perplexity": float(np.exp(nll * tokens / words)),
        }


DOMAIN = Text
