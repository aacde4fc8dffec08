"""How many tokens a fill of the latents hears, computes again, and has room for."""

import numpy as np

from perceiver_ar.config import ModelConfig

WORK = 1 << 32
"""Multiplications with weights in one piece of the next refill, which is computed once its tokens are there."""


def primer_limit(config: ModelConfig) -> int:
    """Tokens of a long primer that are used: the context, less the room for new tokens up to the first refill."""
    return config.context - refill_room(config)


def heard(config: ModelConfig, primer: np.ndarray) -> np.ndarray:
    """What of a primer (n,) the model hears: its last `primer_limit` tokens.

    With absolute positions it is all that fits the context. They say where in a whole a token stands, in an image or
    a sequence with an end, which must not move before the context is full.
    """
    whole = config.position != "rotary" and len(primer) <= config.context
    return primer if whole else primer[-primer_limit(config) :]


def refilled(config: ModelConfig) -> int:
    """Latents a fill recomputes: half of them, so that no more than the new tokens are computed again."""
    return config.latents // 2


def refill_room(config: ModelConfig) -> int:
    """New tokens between two refills."""
    return config.latents - refilled(config)


def piece_of(config: ModelConfig, rows: int) -> int:
    """Tokens a row of a piece of a refill: a half, a quarter ... of it, whichever is no more than `WORK`."""
    # Four matrices of attention, and two that are four times as large; of the last layer two are all that is needed.
    weights = (12 * (config.layers - 1) + 2) * config.width**2
    piece = refilled(config)
    while piece > 1 and piece * rows * weights > WORK:
        piece = (piece + 1) // 2
    return piece


def bucket(count: int, smallest: int, limit: int) -> int:
    """The least of `smallest` x 1, 1.5, 2, 3, 4, 6 ... that holds `count`, at most `limit`."""
    size = smallest
    while 2 * size < count:
        size *= 2
    return min(limit, next(fits for fits in (size, size * 3 // 2, 2 * size) if fits >= count))
