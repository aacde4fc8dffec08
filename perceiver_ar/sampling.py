"""Logits to tokens. Knows no modality: what may stand where is a table the codec gives."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from perceiver_ar.attention import MASKED


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

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 10:
            raise ValueError(f"temperature must lie between 0 and 10, not {self.temperature:g}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top-p must be above 0 and at most 1, not {self.top_p:g}")
        if self.top_k < 0:
            raise ValueError(f"top-k must be 0 (all tokens) or more, not {self.top_k}")
        if not 0 <= self.min_p < 1:
            raise ValueError(f"min-p must be at least 0 and below 1, not {self.min_p:g}")

    def array(self) -> Float[Array, "7"]:
        """The values as one array, so that a new temperature compiles nothing."""
        values = self.temperature, self.top_p, self.top_k, self.min_p, *self.rest, self.rests
        return jnp.array(values, jnp.float32)

    def rested(self, tokens: Int[np.ndarray, "rows seq"]) -> Int[np.ndarray, "rows"]:
        """How many tokens of `rest` each row ends with."""
        other = (tokens < self.rest[0]) | (tokens >= self.rest[1])
        return np.where(other.any(axis=1), other[:, ::-1].argmax(axis=1), tokens.shape[1])


def allowed(
    logits: Float[Array, "rows vocab"], legal: Bool[Array, "rows vocab"], values: Float[Array, "7"]
) -> Float[Array, "rows vocab"]:
    """Logits over temperature, with every token that may not be drawn masked. `values` is `Sampling.array()`.

    Top-k, top-p and min-p each look at the legal tokens' probabilities at that temperature; ties at the border
    stay in.
    """
    temperature, top_p, top_k, min_p = values[:4]
    scaled = jnp.where(legal, logits / jnp.maximum(temperature, 1e-6), MASKED)
    ranked = -jnp.sort(-scaled, axis=-1)
    chances = jax.nn.softmax(ranked, axis=-1)
    before = jnp.cumsum(chances, axis=-1) - chances
    kept = ((top_p >= 1) | (before < top_p)) & (chances >= min_p * chances[:, :1])
    kept &= (top_k == 0) | (jnp.arange(ranked.shape[-1]) < top_k)
    kept = kept.at[:, 0].set(True)
    least = jnp.min(jnp.where(kept, ranked, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(scaled >= least, scaled, MASKED)


def sample(
    logits: Float[Array, "rows vocab"],
    legal: Bool[Array, "rows vocab"],
    values: Float[Array, "7"],
    noise: Float[Array, "rows vocab"],
) -> Int[Array, "rows"]:
    """One token a row, drawn by `noise` (the Gumbel-max trick; see `gumbel`)."""
    masked = allowed(logits, legal, values)
    return jnp.argmax(jnp.where(values[0] > 0, masked + noise, masked), axis=-1).astype(jnp.int32)


def resting(values: Float[Array, "7"], tokens: Int[Array, "..."]) -> Bool[Array, "..."]:
    """Whether tokens are of `Sampling.rest`."""
    return (tokens >= values[4]) & (tokens < values[5])


def gumbel(
    keys: Key[Array, "rows"], numbers: Int[Array, "rows steps"], vocab: int
) -> Float[Array, "rows steps vocab"]:
    """Noise for the tokens of these numbers, from each row's own key: a row does not depend on the rows beside it."""

    def one(key: Array, number: Array) -> Array:
        return jax.random.gumbel(jax.random.fold_in(key, number), (vocab,))

    return jax.vmap(jax.vmap(one, (None, 0)))(keys, numbers)
