"""Strided negative log-likelihood of whole pieces: every token is scored, once."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from perceiver_ar.config import PAD, ModelConfig
from perceiver_ar.model import Params
from training.data.crops import Batch, batch_of
from training.data.midi import Pieces
from training.step import make_score


class Window(NamedTuple):
    """One call of the model: piece `number`, whose tokens up to `end` are shown, the last `scored` as targets."""

    number: int
    end: int
    scored: int


def windows(pieces: Pieces, stride: int) -> list[Window]:
    """Windows that score every token after a piece's first exactly once."""
    found = []
    for number in range(len(pieces)):
        length = len(pieces[number])
        for begin in range(1, length, stride):
            end = min(begin + stride, length)
            found.append(Window(number, end, end - begin))
    return found


def window_batch(pieces: Pieces, window: Window, context: int, latents: int) -> Batch:
    """The window as a batch of one, padded to a power of two of tokens so that few shapes are compiled.

    Targets before the window's own are padding: they were scored by the window before.
    """
    crop = pieces[window.number][max(0, window.end - context - 1) : window.end].astype(np.int32)
    seq = min(context, max(latents, 1 << (len(crop) - 2).bit_length()))
    batch = batch_of([crop], seq, latents)
    batch.targets[:, : latents - window.scored] = PAD
    return batch


def score(
    config: ModelConfig,
    params: Params,
    pieces: Pieces,
    chosen: list[Window],
    *,
    context: int | None = None,
    latents: int | None = None,
) -> Iterator[tuple[float, int]]:
    """Sum of NLL in nats and number of tokens of each window, with at least `context - stride` tokens before each."""
    context, latents = context or config.context, latents or config.latents
    run = make_score(config)
    for window in chosen:
        batch = window_batch(pieces, window, context, latents)
        yield float(run(params, *batch).sum()), window.scored


def spread(chosen: list[Window], count: int) -> list[Window]:
    """`count` of the windows, evenly spaced."""
    return (
        chosen
        if count >= len(chosen)
        else [chosen[i] for i in np.linspace(0, len(chosen) - 1, count).astype(int)]
    )
