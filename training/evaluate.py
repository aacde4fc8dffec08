"""Strided negative log-likelihood of whole sequences: every token is scored, once."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from perceiver_ar.config import ModelConfig
from perceiver_ar.generate import bucket
from perceiver_ar.model import Params, PerceiverAR, to_params
from training.data.crops import Batch, Crop, batch_of
from training.data.domain import Domain, Sequences
from training.data.made import ENDLESS
from training.step import make_score

WINDOWS_AT_ONCE = 2
"""Windows scored side by side: one alone leaves cores idle between its kernels."""
MOST_COUNTED = 10_000
"""Tokens of a vocabulary whose pairs are counted."""


class Window(NamedTuple):
    """One call of the model: sequence `number`, whose tokens up to `end` are shown, the last `scored` as targets."""

    number: int
    end: int
    scored: int


class Scored(NamedTuple):
    """What a window came to: the sum of its NLL in nats, how many of its tokens were the likeliest, and all of them."""

    nll: float
    likeliest: int
    tokens: int

    def add(self, other: "Scored") -> "Scored":
        """Both together."""
        return Scored(self.nll + other.nll, self.likeliest + other.likeliest, self.tokens + other.tokens)


def windows(domain: Domain, sequences: Sequences, stride: int) -> list[Window]:
    """Windows that score every token of the domain's choice exactly once; ValueError if the sequences never end."""
    if len(sequences) == ENDLESS:
        raise ValueError(
            "the train split of data that are made as they are needed never ends: choose another one"
        )
    found = []
    for number in range(len(sequences)):
        length = sequences.length(number)
        for begin in range(domain.first_scored(length), length, stride):
            end = min(begin + stride, length)
            found.append(Window(number, end, end - begin))
    return found


def window_batch(sequences: Sequences, window: Window, domain: Domain, context: int, latents: int) -> Batch:
    """The window as a batch of one, padded to one of a few lengths so that few shapes are compiled.

    Targets before the window's own are padding: they were scored by the window before.
    """
    begin = max(0, window.end - context - 1)
    tokens = sequences[window.number][begin : window.end].astype(np.int32)
    crop = Crop(tokens, window.scored, begin if domain.placed else 0)
    return batch_of([crop], domain.codec, bucket(len(tokens) - 1, latents, context), latents)


def score(
    config: ModelConfig,
    params: Params,
    domain: Domain,
    sequences: Sequences,
    chosen: list[Window],
    *,
    context: int | None = None,
    latents: int | None = None,
) -> Iterator[Scored]:
    """The score of each window, with at least `context - stride` tokens before each of its tokens."""
    shown, behind = context or config.context, latents or config.latents
    run = make_score(config)

    def one(window: Window) -> Scored:
        nll, likeliest = run(params, *window_batch(sequences, window, domain, shown, behind))
        return Scored(float(nll.sum()), int(likeliest.sum()), window.scored)

    with ThreadPoolExecutor(WINDOWS_AT_ONCE) as pool:
        yield from pool.map(one, chosen)


def reach(
    config: ModelConfig, context: int | None, latents: int | None, stride: int | None
) -> tuple[int, int, int]:
    """Context, latents and stride, those that are not given by default.

    Raises:
        ValueError: more context than the model has, more latents than context, or a stride that does not fit.
    """
    context = config.context if context is None else context
    latents = min(config.latents, context) if latents is None else latents
    stride = -(-latents // 2) if stride is None else stride
    if not 0 < latents <= context <= config.context:
        raise ValueError(
            f"latents ({latents}) must be at least 1 and at most the context ({context}), and that at most the "
            f"model's {config.context}"
        )
    if not 0 < stride <= latents:
        raise ValueError(f"the stride must lie between 1 and the {latents} latents, not {stride}")
    return context, latents, stride


def evaluate(
    model: PerceiverAR,
    domain: Domain,
    sequences: Sequences,
    *,
    context: int | None = None,
    latents: int | None = None,
    stride: int | None = None,
) -> dict[str, Any]:
    """NLL in nats a token, and in the domain's unit, over all sequences, every token to be scored once.

    Args:
        stride: tokens a window scores, at most its latents: each token then has at least `context - stride` tokens
            and `latents - stride` latents before it, or all there are. The default is half of the latents, since
            that is what `generate` has behind each new token at least.

    Raises:
        ValueError: as in `reach`, or a split that never ends.
    """
    context, latents, stride = reach(model.config, context, latents, stride)
    # No parameter depends on how many latents a call has.
    config = replace(model.config, latents=max(latents, model.config.latents))
    chosen = windows(domain, sequences, stride)
    began, total = time.monotonic(), Scored(0.0, 0, 0)
    scores = score(config, to_params(model), domain, sequences, chosen, context=context, latents=latents)
    console = Console(stderr=True)
    for number, found in enumerate(track(scores, "Scoring", len(chosen), console=console), 1):
        total = total.add(found)
        if not console.is_terminal and number % (len(chosen) // 20 + 1) == 0:
            sofar = total.nll / total.tokens
            console.print(f"{number} of {len(chosen)} windows, {sofar:.4f} nats a token so far")
    nll = total.nll / total.tokens
    return {
        "nll": nll,
        **domain.figures(nll, total.tokens, sequences),
        "accuracy": total.likeliest / total.tokens,
        "tokens": total.tokens,
        "context": context,
        "latents": latents,
        "stride": stride,
        "dtype": config.dtype,
        "seconds": round(time.monotonic() - began, 1),
    }


def check_counted(vocab_size: int) -> None:
    """ValueError if a table of all pairs of tokens would be too large."""
    if vocab_size > MOST_COUNTED:
        raise ValueError(
            f"pairs of {vocab_size:,} tokens are too many to count: at most {MOST_COUNTED:,} tokens"
        )


def baselines(train: Sequences, held_out: Sequences, vocab_size: int) -> dict[str, float]:
    """NLL in nats of `held_out` by a uniform model, and by a unigram and a bigram counted on `train`.

    Counts are smoothed: by one for the unigram, by ten tokens' worth of unigram for the bigram.

    Raises:
        ValueError: more tokens than a table of their pairs has room for.
    """
    check_counted(vocab_size)
    seen = _pairs(train, vocab_size)
    unigram = seen.sum(axis=0) + 1.0
    unigram /= unigram.sum()
    bigram = seen + 10 * unigram
    bigram /= bigram.sum(axis=1, keepdims=True)
    scored = _pairs(held_out, vocab_size)
    return {
        "uniform": float(np.log(vocab_size)),
        "unigram": float(-(scored * np.log(unigram)).sum() / scored.sum()),
        "bigram": float(-(scored * np.log(bigram)).sum() / scored.sum()),
    }


def _pairs(sequences: Sequences, vocab_size: int) -> np.ndarray:
    """How often each token (row) is followed by each other (column)."""
    counts = np.zeros(vocab_size**2, np.int64)
    for number in range(len(sequences)):
        tokens = sequences[number].astype(np.int64)
        np.add.at(counts, tokens[:-1] * vocab_size + tokens[1:], 1)
    return counts.reshape(vocab_size, vocab_size)


def spread(chosen: list[Window], count: int) -> list[Window]:
    """`count` of the windows, evenly spaced."""
    return (
        chosen
        if count >= len(chosen)
        else [chosen[i] for i in np.linspace(0, len(chosen) - 1, count).astype(int)]
    )
