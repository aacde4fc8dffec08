"""Text: archives of plain text files as token files, and the subwords that they are made of."""

import hashlib
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from perceiver_ar.codecs.base import Codec
from perceiver_ar.codecs.text import TextCodec
from training.data.domain import Domain, Pieces, Sequences, Unit
from training.data.sources import label, names_of_split, read
from training.data.store import Notes, Recipe, framed, in_order, manifest_of, prepare_all, read_pieces

SUFFIXES = (".txt", ".tokens", ".raw")
LINES, LONGEST = 200_000, 1_000
"""Most lines, drawn from all, that a vocabulary is learned from, and characters of each: learning takes 21 bytes of
memory for one, 4 GB at most."""
COUNTED = ("bytes", "words", "lines")
"""What a manifest tells of a split's texts: bytes of UTF-8, words between white space, and ends of lines."""
PROBE = " \tA  b\r\n\n\u2581\u00e9\U0001f3b9 "
"""What subwords that keep a text as it is must give back."""


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
        return Pieces.join([_counted(path) for path in prepare_all(self.recipe, sources, split, store)])

    def texts(self, source: Path, split: str) -> Iterator[str]:
        """The texts of a split, one a sequence: together all that its files hold, but for those that are blank.

        Raises:
            ValueError: there are none, or a file is not UTF-8.
        """
        yield from self._cut(read(source, self._names(source, split)))

    def _names(self, source: Path, split: str) -> list[str]:
        return names_of_split(source, split, SUFFIXES, "lines" if self.title else "text")

    def _cut(self, files: Iterator[tuple[str, bytes]]) -> Iterator[str]:
        for name, file in files:
            text: list[str] = []
            for line in _lines(name, file) if self.title else [_decoded(name, file)]:
                # What is blank before a file's first title goes with it.
                if self.title and re.match(self.title, line) and any(map(str.strip, text)):
                    yield "".join(text)
                    text = []
                text.append(line)
            if any(map(str.strip, text)):
                yield "".join(text)

    def recipe(self, source: Path, split: str) -> Recipe:
        names = self._names(source, split)
        digest = hashlib.sha256(self.codec.subwords.encode()).hexdigest()
        facts = {"files": names, "subwords_sha256": digest, "title": self.title}
        return Recipe(source, split, names, facts, self._encode, told={"codec": self.codec.to_dict()})

    def _encode(self, files: Iterator[tuple[str, bytes]], notes: Notes) -> Iterator[np.ndarray]:
        codec = self.codec

        def counted() -> Iterator[str]:
            for text in self._cut(files):
                found = len(text.encode("utf-8")), len(text.split()), text.count("\n")
                notes.counts.update(dict(zip(COUNTED, found, strict=True)))
                yield text

        with ThreadPoolExecutor() as pool:  # SentencePiece lets go of Python's lock
            for tokens in in_order(pool, codec.encode, counted()):
                yield framed(tokens, codec.vocab_size)

    @property
    def unit(self) -> Unit:
        return Unit() if self.subwords else Unit("bits/byte", 1 / float(np.log(2)))

    def figures(self, nll: float, tokens: int, sequences: Sequences) -> dict[str, float]:
        """Bits a byte of UTF-8, and perplexities of a word: e to the power of all nats over the words of the text.

        All nats are those of every token, ends of sequences included, whatever the tokens are; the words are those of
        the files as they come, so that figures of different tokens can be compared.

        `word_perplexity` counts what stands between white space, and each end of a line as a word `<eos>`: what
        WikiText's perplexity is stated in (Merity et al. 2017; Dai et al. 2019), and 217,646 words for its validation
        split. `word_perplexity_pg19` counts only what stands between white space (Rae et al. 2020).
        """
        assert isinstance(sequences, Pieces)
        size, words, lines = (sequences.counts[name] for name in COUNTED)
        nats = nll * tokens
        return {
            "bits_per_byte": nats / size / float(np.log(2)),
            "word_perplexity": float(np.exp(nats / (words + lines))),
            "word_perplexity_pg19": float(np.exp(nats / words)),
        }


def _counted(path: Path) -> Pieces:
    """A token file with its manifest's counts."""
    pieces, manifest = read_pieces(path), manifest_of(path)
    return Pieces(pieces.tokens, pieces.offsets, {name: manifest[name] for name in COUNTED})


def train_lines(sources: Iterable[Path]) -> Iterator[str]:
    """Every line of the train split of all sources, with a bar that counts files; ValueError as in `Text.texts`."""
    for source in sources:
        names = names_of_split(source, "train", SUFFIXES, "text")
        bar = partial(track, description=f"{label(source)} train", console=Console(stderr=True))
        for name, file in bar(read(source, names), total=len(names)):
            yield from _lines(name, file)


def _lines(name: str, file: bytes) -> Iterator[str]:
    return (_decoded(name, line) for line in BytesIO(file))


def _decoded(name: str, text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not text in UTF-8: convert it, or leave it out") from None


@cache
def _model(subwords: str) -> str:
    """A codec's subwords: what the file holds in base64; what is in base64 already stays as it is."""
    if not subwords or len(subwords) > 4096:  # longer than any path
        return subwords
    try:
        model = b64encode(Path(subwords).read_bytes()).decode("ascii")
    except OSError as error:
        raise ValueError(
            f"cannot read the subwords {subwords} ({error.strerror}): `python -m training vocabulary` makes them"
        ) from None
    codec = TextCodec(model)
    if codec.decode(codec.encode(PROBE)) != PROBE:
        raise ValueError(
            f"the subwords {subwords} lose a part of some texts: take those that `python -m training vocabulary` makes"
        )
    return model


def learn_subwords(lines: Iterable[str], size: int) -> bytes:
    """A SentencePiece model of `size` pieces: a unigram model (Kudo 2018) that keeps every space and line as it is.

    The same lines give the same model. The end of a line is no piece: it is spelled as a byte.

    Raises:
        ValueError: the texts are too few for so many pieces, or the pieces for all bytes and letters.
    """
    from sentencepiece import SentencePieceTrainer

    model = BytesIO()
    cut = (line[at : at + LONGEST] for line in lines for at in range(0, len(line), LONGEST))
    try:
        SentencePieceTrainer.train(
            sentence_iterator=filter(None, (part.strip("\r\n") for part in cut)),
            model_writer=model,
            vocab_size=size,
            character_coverage=0.9995,  # rarer letters are spelled in bytes
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            split_digits=True,
            input_sentence_size=LINES,
            max_sentence_length=4 * LONGEST,  # in bytes
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        least, most = (re.search(bound, str(error)) for bound in (r"vs (\d+)\.", r"<= (\d+)\."))
        reason = f"set --size to at least {least[1]}" if least else "they are empty"
        reason = f"set --size to at most {most[1]}" if most else reason
        raise ValueError(f"{size} subwords cannot be learned from these texts: {reason}") from None
    return model.getvalue()


DOMAIN = Text
