"""Held-out performances cut in two, and the model's own ways on from the cut: what several benchmarks listen to."""

import argparse
from collections.abc import Iterator
from contextlib import closing
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.contest import positive, say
from perceiver_ar.checkpoint import Pretrained
from perceiver_ar.codecs.music import MusicCodec, Note, NoteStream
from perceiver_ar.continuation import MOST_TOKENS_A_SECOND, Request, musical, take_stream
from perceiver_ar.generate import generate
from perceiver_ar.registry import DEFAULT
from perceiver_ar.sampling import Sampling
from training.data.domain import Pieces


class Cut(NamedTuple):
    """A performance, int32 tokens without EOS, cut at the index `at`; the last seconds before begin at `before`."""

    tokens: np.ndarray
    before: int
    at: int

    @property
    def primer(self) -> np.ndarray:
        """What the model hears, from SOS on."""
        return self.tokens[: self.at]

    @property
    def rest(self) -> np.ndarray:
        """What the pianist went on with."""
        return self.tokens[self.at :]


class Take(NamedTuple):
    """A continuation: its notes, cut at its length, and the model's NLL of its tokens in nats a token.

    The NLL is that of the untempered distributions which the tokens were drawn from, the last chunk's included.
    """

    notes: list[Note]
    nll: float


def cuts(codec: MusicCodec, pieces: Pieces, count: int, least: int, seconds: float) -> list[Cut]:
    """Cuts with `least` tokens or more before, and at least `seconds` on both sides.

    They are one a piece, anywhere in it, and evenly spread over the pieces that are long enough.

    Raises:
        ValueError: fewer pieces than that are long enough.
    """
    steps = ceil(seconds * codec.steps_per_second)
    found = []
    rng = np.random.default_rng(0)
    for number in range(len(pieces)):
        tokens = pieces[number][:-1].astype(np.int32)
        elapsed = codec.elapsed(tokens)
        first = max(least, int(np.searchsorted(elapsed, steps)) + 1)
        last = int(np.searchsorted(elapsed, elapsed[-1] - steps, side="right"))
        if first <= last:
            at = int(rng.integers(first, last + 1))
            before = int(np.searchsorted(elapsed, elapsed[at - 1] - steps, side="right"))
            found.append(Cut(tokens, before, at))
    if len(found) < count:
        raise ValueError(
            f"only {len(found)} pieces have {least:,} tokens before a cut and {seconds:g} s on both sides: "
            "ask for fewer or shorter ones"
        )
    return [found[i] for i in np.linspace(0, len(found) - 1, count).astype(int)]


def played(codec: MusicCodec, before: np.ndarray, tokens: np.ndarray, seconds: float) -> list[Note]:
    """Notes of the first `seconds` of a pianist's `tokens`, after those `before`."""
    stream = NoteStream(codec, before)
    stream.feed(tokens)
    return stream.all(limit=seconds)


def continued(
    model: Pretrained, primer: np.ndarray, sampling: Sampling, seconds: float, seed: int, takes: int = 1
) -> list[Take]:
    """Takes of `seconds` of a primer: what `perceiver-ar continue` makes of the same primer, sampling and seed."""
    streams = [take_stream(model.music, primer) for _ in range(takes)]
    nll, counted, made = np.zeros(takes), np.zeros(takes, int), 0
    sampling = musical(model.music, sampling)
    chunks = generate(model.model, model.codec, [primer], takes=takes, sampling=sampling, seed=seed)
    with closing(chunks):
        while made < ceil(MOST_TOKENS_A_SECOND * seconds) and any(one.time < seconds for one in streams):
            tokens, logits = next(chunks)
            made += tokens.shape[1]
            chosen = np.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
            surprise = (np.logaddexp.reduce(logits, axis=-1) - chosen).sum(axis=1)
            for row, stream in enumerate(streams):
                if stream.time < seconds:
                    stream.feed(tokens[row])
                    nll[row] += surprise[row]
                    counted[row] += tokens.shape[1]
    return [
        Take(stream.all(limit=seconds), float(mean))
        for stream, mean in zip(streams, nll / counted, strict=True)
    ]


def takes(
    model: Pretrained, chosen: list[Cut], sampling: Sampling, options: argparse.Namespace
) -> Iterator[Take]:
    """The model's ways on from each cut, `options.takes` of them, with the cut's number as the seed."""
    for number, cut in enumerate(chosen):
        yield from continued(model, cut.primer, sampling, options.seconds, number, options.takes)
        say(f"{named(sampling)}: {number + 1} of {len(chosen)} pieces")


def setting(text: str) -> Sampling:
    """`temperature,top-p,min-p` as a way to draw tokens."""
    try:
        temperature, top_p, min_p = map(float, text.split(","))
        return Sampling(temperature=temperature, top_p=top_p, min_p=min_p)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"give temperature,top-p,min-p ({error})") from None


def named(sampling: Sampling) -> str:
    """The way to draw tokens as `setting` reads it."""
    return f"{sampling.temperature:g},{sampling.top_p:g},{sampling.min_p:g}"


RECOMMENDED = named(Request().sampling())
"""How tokens are drawn where nothing else is asked for."""


def parser(doc: str | None, pieces: int) -> argparse.ArgumentParser:
    """The options of every benchmark that listens to takes; the script's docstring is its help."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--data",
        type=Path,
        nargs="+",
        required=True,
        help="archives or folders; the first has what is held out",
    )
    made.add_argument("--model", default=DEFAULT)
    made.add_argument("--pieces", type=positive, default=pieces, help="one cut in each (%(default)s)")
    made.add_argument("--takes", type=positive, default=1, help="from each cut (%(default)s)")
    made.add_argument("--seconds", type=float, default=60.0, help="length of a take (%(default)g)")
    made.add_argument("--primer", type=int, default=2048, help="least tokens before the cut (%(default)s)")
    return made
