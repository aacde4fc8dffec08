"""What a model makes of a long context: NLL by context on the same tokens, and of music that comes a second time.

The first table scores the same windows of the validation split with ever more context: of each, the last `--stride`
tokens, and only windows that have as many tokens before them as the longest context. The difference to the longest
context is taken window by window; its standard error counts windows as independent.

The second shows the model a performance's opening twice (start, opening, the same again) and scores it both times, and
a third time behind the opening of another piece, cut to the same length. What the second time gains over that is not
the longer context but what stands in it, an opening's length back; a model that reads only its last bars has no use for
it. Differences are taken piece by piece.

Run from the checkout, in the project's environment: python -m benchmarks.long_context --data maestro-v3.0.0-midi.zip
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.contest import positive, say
from benchmarks.report import table
from perceiver_ar.checkpoint import load
from perceiver_ar.codecs.music import MusicCodec
from perceiver_ar.config import SOS, ModelConfig
from perceiver_ar.model import Params, to_params
from perceiver_ar.registry import DEFAULT, user_cache
from training.data.domain import Pieces
from training.data.music import Music
from training.evaluate import Window, score, spread, windows

DOMAIN = Music()


class Reader(NamedTuple):
    """A model to score with, and the tokens of a window that are scored."""

    config: ModelConfig
    params: Params
    stride: int

    def nll(self, pieces: Pieces, chosen: list[Window], context: int | None = None) -> np.ndarray:
        """Nats a token of each window."""
        found = score(self.config, self.params, DOMAIN, pieces, chosen, context=context)
        return np.array([one.nll / one.tokens for one in found])

    def by_piece(self, pieces: Pieces, chosen: list[Window]) -> np.ndarray:
        """Nats a token of the windows of each piece together."""
        numbers, scored = [one.number for one in chosen], np.array([one.scored for one in chosen])
        sums = np.bincount(numbers, self.nll(pieces, chosen) * scored)
        return sums / np.bincount(numbers, scored)


def same_windows(pieces: Pieces, stride: int, longest: int, count: int) -> list[Window]:
    """`count` windows that score `stride` tokens with at least `longest` before the last of them.

    Raises:
        ValueError: no piece is that long.
    """
    found = [one for one in windows(DOMAIN, pieces, stride) if one.end > longest and one.scored == stride]
    if not found:
        raise ValueError(f"no piece has more than {longest:,} tokens: ask for shorter contexts")
    return spread(found, count)


def opening(codec: MusicCodec, piece: np.ndarray, most: int) -> np.ndarray:
    """A piece's first whole moments, without SOS: at most `most` tokens, the last of them a time shift.

    Raises:
        ValueError: there is no time shift among them.
    """
    tokens = piece[1 : most + 1]
    shifts = np.flatnonzero((tokens >= codec.time_shift) & (tokens < codec.velocity))
    if not len(shifts):
        raise ValueError(f"no moment of music has ended after {most:,} tokens: ask for longer openings")
    return tokens[: shifts[-1] + 1]


class Repeated(NamedTuple):
    """The same openings alone, twice in a row, and behind other ones: pieces, and the windows that score them."""

    once: Pieces
    first: list[Window]
    twice: Pieces
    elsewhere: Pieces
    second: list[Window]
    """Those of `first` one opening later: of `twice` and of `elsewhere`."""


def repeated(codec: MusicCodec, pieces: Pieces, size: int, count: int, stride: int) -> Repeated:
    """Openings of at most `size` tokens of `count` pieces that have twice as many.

    Raises:
        ValueError: fewer than two pieces are that long.
    """
    long = [number for number in range(len(pieces)) if pieces.length(number) > 2 * size + 1]
    if len(long) < 2:
        raise ValueError(
            f"there are not two pieces of more than {2 * size:,} tokens: ask for shorter openings"
        )
    long = [long[i] for i in np.linspace(0, len(long) - 1, min(count, len(long))).astype(int)]
    openings = [opening(codec, pieces[number], size) for number in long]
    # Half the list away, since neighbours are often the same work.
    far = [long[(place + len(long) // 2) % len(long)] for place in range(len(long))]
    others = [
        opening(codec, pieces[number], 2 * size)[-len(one) :]
        for number, one in zip(far, openings, strict=True)
    ]
    once = laid([[one] for one in openings])
    first = windows(DOMAIN, once, stride)
    return Repeated(
        once,
        first,
        laid([[one, one] for one in openings]),
        laid([[other, one] for other, one in zip(others, openings, strict=True)]),
        [one._replace(end=one.end + len(openings[one.number])) for one in first],
    )


def laid(parts: list[list[np.ndarray]]) -> Pieces:
    """A piece of each list: SOS and its parts."""
    whole = [np.concatenate([[SOS], *part]) for part in parts]
    return Pieces.join([Pieces(tokens, np.array([0, len(tokens)])) for tokens in whole])


def difference(values: np.ndarray, base: np.ndarray) -> str:
    """Mean of the paired differences and its standard error."""
    pairs = values - base
    if len(pairs) < 2:
        return f"{pairs.mean():+.4f}"
    return f"{pairs.mean():+.4f} ± {pairs.std(ddof=1) / np.sqrt(len(pairs)):.4f}"


def by_context(reader: Reader, pieces: Pieces, contexts: list[int], count: int) -> list[list[str]]:
    """Rows of the first table, the shortest context first."""
    contexts = sorted(set(contexts))
    chosen = same_windows(pieces, reader.stride, contexts[-1], count)
    found = {}
    for context in reversed(contexts):
        found[context] = reader.nll(pieces, chosen, context)
        say(f"context {context:,}: {found[context].mean():.4f} nats a token of {len(chosen)} windows")
    longest = found[contexts[-1]]
    return [
        [
            f"{context:,}",
            f"{len(chosen):,}",
            f"{values.mean():.4f}",
            "" if values is longest else difference(values, longest),
        ]
        for context, values in sorted(found.items())
    ]


def by_repetition(reader: Reader, codec: MusicCodec, pieces: Pieces, size: int, count: int) -> list[str]:
    """A row of the second table."""
    made = repeated(codec, pieces, size, count, reader.stride)
    first = reader.by_piece(made.once, made.first)
    elsewhere = reader.by_piece(made.elsewhere, made.second)
    second = reader.by_piece(made.twice, made.second)
    say(f"openings of {size:,} tokens: {first.mean():.4f}, then {second.mean():.4f} nats a token")
    means = [f"{values.mean():.4f}" for values in (first, elsewhere, second)]
    return [f"{size:,}", f"{len(first)}", *means, difference(second, first), difference(second, elsewhere)]


def parsed() -> argparse.Namespace:
    """The options; the contexts and the stride that were not given are the model's, and `model` is loaded."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, required=True, help="MAESTRO's archive or folder")
    made.add_argument("--model", default=DEFAULT)
    made.add_argument(
        "--contexts", type=positive, nargs="+", help="default: powers of two from the latents on"
    )
    made.add_argument("--windows", type=positive, default=400, help="(400)")
    made.add_argument("--latents", type=positive, help="of a window; default: the model's")
    made.add_argument("--stride", type=positive, help="tokens scored a window; default: half of the latents")
    made.add_argument(
        "--openings", type=positive, nargs="*", default=[1024, 2048, 4096], help="(1024 2048 4096)"
    )
    made.add_argument("--pieces", type=positive, default=32, help="openings of each length (32)")
    made.add_argument("--dtype", choices=["float32", "bfloat16"], help="of products; default: the model's")
    options = made.parse_args()
    options.model = load(options.model)
    config = options.model.config
    config = options.config = replace(config, latents=options.latents or config.latents)
    doubled = (config.latents << power for power in range(config.context.bit_length()))
    options.contexts = options.contexts or [size for size in doubled if size <= config.context]
    options.stride = options.stride or -(-config.latents // 2)
    if not config.latents <= min(options.contexts) <= max(options.contexts) <= config.context:
        made.error(f"contexts must lie between {config.latents:,} and {config.context:,} tokens")
    if options.stride > config.latents or 2 * max(options.openings, default=0) > config.context:
        made.error("a stride is at most the latents, and an opening at most half of the context")
    return options


def main() -> None:
    """Score, and print two tables."""
    options = parsed()
    model = options.model
    config = replace(options.config, dtype=options.dtype or model.config.dtype)
    reader = Reader(config, to_params(model.model), options.stride)
    pieces = DOMAIN.load((options.data,), "validation", user_cache("tokens"))
    rows = by_context(reader, pieces, options.contexts, options.windows)
    print(table(["context", "windows", "nats a token", "more than with the longest"], rows), end="\n\n")
    if options.openings:
        header = ["tokens of the opening", "pieces", "the first time", "behind another", "the second time"]
        header += ["second - first", "second - behind another"]
        rows = [
            by_repetition(reader, model.music, pieces, size, options.pieces)
            for size in sorted(options.openings)
        ]
        print(table(header, rows), end="\n\n")
    print(
        f"{config.latents} latents, the last {options.stride} of a window scored, {config.dtype}; nats a token, "
        "differences with their standard error."
    )


if __name__ == "__main__":
    main()
