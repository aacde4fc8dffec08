"""Logits to tokens. Knows no modality: what may stand where is a table the codec gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from perceiver_ar.attention import MASKED


class Values(NamedTuple):
    """`Sampling` as arrays, so that a new temperature compiles nothing."""

    temperature: Float[Array, ""]
    top_p: Float[Array, ""]
    top_k: Int[Array, ""]
    min_p: Float[Array, ""]
    rest: Int[Array, "2"]
    rests: Int[Array, ""]
    event: Int[Array, "2"]
    alike: Int[Array, "limits 2"]


class Lately(NamedTuple):
    """What came before in each row, as far as it decides what may not follow."""

    rests: Int[Array, "rows"]
    """Tokens of `Sampling.rest` that it ends with."""
    events: Int[Array, "rows"]
    """Tokens of `Sampling.event` so far."""
    latest: Int[Array, "rows vocab"]
    """Which of them each token last was, counted from 1; 0: none."""


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn.

    Raises:
        ValueError: a value out of its range.
    """

    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token."""
    top_p: float = 1.0
    """Least probability mass kept, likeliest tokens first (Holtzman et al. 2020)."""
    top_k: int = 0
    """Most tokens kept; 0: all."""
    min_p: float = 0.0
    """Least probability kept, relative to the likeliest token (Nguyen et al. 2024)."""
    rest: tuple[int, int] = (0, 0)
    """First token, and the one behind the last, of those that let nothing happen."""
    rests: int = 0
    """Most of them in a row."""
    event: tuple[int, int] = (0, 0)
    """First token, and the one behind the last, of those that make something happen."""
    alike: tuple[tuple[int, int], ...] = ()
    """(kinds, most): no more than `most` events in a row are of `kinds` or fewer different tokens; tokens that are no
    events, and come between them, do not count."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 10:
            raise ValueError(f"temperature must lie between 0 and 10, not {self.temperature:g}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top-p must be above 0 and at most 1, not {self.top_p:g}")
        if self.top_k < 0:
            raise ValueError(f"top-k must be 0 (all tokens) or more, not {self.top_k}")
        if not 0 <= self.min_p < 1:
            raise ValueError(f"min-p must be at least 0 and below 1, not {self.min_p:g}")

    def values(self) -> Values:
        """What the functions of this module take."""
        real, whole = jnp.float32, jnp.int32
        return Values(
            jnp.asarray(self.temperature, real),
            jnp.asarray(self.top_p, real),
            jnp.asarray(self.top_k, whole),
            jnp.asarray(self.min_p, real),
            jnp.asarray(self.rest, whole),
            jnp.asarray(self.rests, whole),
            jnp.asarray(self.event, whole),
            jnp.asarray(self.alike, whole).reshape(-1, 2),
        )

    def lately(self, rows: Sequence[np.ndarray], vocab: int) -> Lately:
        """What the tokens of each row so far, int (n,), mean for the next one."""
        rests, events = np.zeros((2, len(rows)), np.int32)
        latest = np.zeros((len(rows), vocab), np.int32)
        for row, tokens in enumerate(rows):
            other = np.flatnonzero((tokens < self.rest[0]) | (tokens >= self.rest[1]))
            rests[row] = len(tokens) - (other[-1] + 1 if len(other) else 0)
            drawn = tokens[(tokens >= self.event[0]) & (tokens < self.event[1])]
            events[row] = len(drawn)
            np.maximum.at(latest[row], drawn, np.arange(1, len(drawn) + 1))
        return Lately(jnp.asarray(rests), jnp.asarray(events), jnp.asarray(latest))


def refused(values: Values, lately: Lately) -> Bool[Array, "rows vocab"]:
    """Tokens that may not follow: one rest too many, or one more event of too few kinds."""
    tokens = jnp.arange(lately.latest.shape[1])
    tired = (lately.rests >= values.rests)[:, None] & _within(values.rest, tokens)
    kinds, most = values.alike.T
    # With fewer events than a limit looks back on, every token of the vocabulary counts as one of its kinds.
    since = lately.latest[:, None] > (lately.events[:, None] - most)[..., None]
    stuck = since & (since.sum(axis=-1) <= kinds)[..., None]
    return tired | stuck.any(axis=1)


def after(values: Values, lately: Lately, token: Int[Array, "rows"]) -> Lately:
    """What came before, with one more token in each row."""
    event = _within(values.event, token)
    events = lately.events + event
    mine = event[:, None] & (token[:, None] == jnp.arange(lately.latest.shape[1]))
    return Lately(
        rests=jnp.where(_within(values.rest, token), lately.rests + 1, 0),
        events=events,
        latest=jnp.where(mine, events[:, None], lately.latest),
    )


def _within(span: Int[Array, "2"], tokens: Int[Array, "..."]) -> Bool[Array, "..."]:
    return (tokens >= span[0]) & (tokens < span[1])


def allowed(
    logits: Float[Array, "rows vocab"], legal: Bool[Array, "rows vocab"], values: Values
) -> Float[Array, "rows vocab"]:
    """Logits over temperature, with every token that may not be drawn masked.

    Top-k, top-p and min-p each look at the legal tokens' probabilities at that temperature; ties at the border
    stay in.
    """
    scaled = jnp.where(legal, logits / jnp.maximum(values.temperature, 1e-6), MASKED)
    peak = scaled.max(axis=-1, keepdims=True)
    # Sorting takes as long as a layer of a small model, and by default nobody needs it.
    ranking = (values.top_p < 1) | (values.top_k > 0)
    least = jax.lax.cond(ranking, _least_ranked, lambda *_: jnp.full_like(peak, -jnp.inf), scaled, values)
    return jnp.where(scaled >= jnp.maximum(least, peak + jnp.log(values.min_p)), scaled, MASKED)


def _least_ranked(scaled: Float[Array, "rows vocab"], values: Values) -> Float[Array, "rows 1"]:
    """The least of the logits that top-k and top-p keep."""
    ranked = -jnp.sort(-scaled, axis=-1)
    chances = jax.nn.softmax(ranked, axis=-1)
    before = jnp.cumsum(chances, axis=-1) - chances
    kept = (values.top_p >= 1) | (before < values.top_p)
    kept &= (values.top_k == 0) | (jnp.arange(ranked.shape[-1]) < values.top_k)
    kept = kept.at[:, 0].set(True)
    return jnp.min(jnp.where(kept, ranked, jnp.inf), axis=-1, keepdims=True)


def sample(
    logits: Float[Array, "rows vocab"],
    legal: Bool[Array, "rows vocab"],
    values: Values,
    noise: Float[Array, "rows vocab"],
) -> Int[Array, "rows"]:
    """One token a row, drawn by `noise` (the Gumbel-max trick; see `gumbel`)."""
    masked = allowed(logits, legal, values)
    return jnp.argmax(jnp.where(values.temperature > 0, masked + noise, masked), axis=-1).astype(jnp.int32)


def gumbel(
    keys: Key[Array, "rows"], numbers: Int[Array, "rows steps"], vocab: int
) -> Float[Array, "rows steps vocab"]:
    """Noise for the tokens of these numbers, from each row's own key: a row does not depend on the rows beside it."""

    def one(key: Array, number: Array) -> Array:
        return jax.random.gumbel(jax.random.fold_in(key, number), (vocab,))

    return jax.vmap(jax.vmap(one, (None, 0)))(keys, numbers)
