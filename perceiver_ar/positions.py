"""Where a token stands: rotary angles, and vectors added to embeddings."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from perceiver_ar.config import ModelConfig

Rotation = tuple[Float[Array, "batch seq half"], Float[Array, "batch seq half"]]
"""Cosines and sines of each position's angles."""

SINE = (39.57223129, -76.55503082, 81.60126495, -41.34165955, 6.283185005)
"""sin(2 pi t) / t as a polynomial in t squared, highest power first, for t up to a quarter."""


def wavelengths(count: int, longest: float) -> np.ndarray:
    """`count` wavelengths in positions, geometric from 2 pi to `longest`."""
    return np.geomspace(2 * np.pi, longest, count) if count > 1 else np.full(count, 2 * np.pi)


def phases(positions: Int[Array, "..."], lengths: np.ndarray) -> Int[Array, "... count"]:
    """Where on each wavelength a position stands, in parts of 2^-32 of a turn.

    A fixed-point fraction wraps in 32 bits, so that it is as exact at position 1,000,000 as at 0: a float32 product
    would lose the fast wavelengths long before.
    """
    turns = jnp.asarray(np.round(2.0**32 / lengths).astype(np.uint32))
    return (positions[..., None].astype(jnp.uint32) * turns).astype(jnp.int32)


def sine(phase: Int[Array, "..."]) -> Float[Array, "..."]:
    """Sine of an angle in parts of 2^-32 of a turn, to 3e-7.

    XLA computes it again in everything that it turns, and so it has to be cheap: folded to a quarter turn either way,
    and then an odd polynomial (least squares of relative errors).
    """
    beyond = jnp.bitwise_xor(phase, phase << 1) < 0  # its two highest bits differ: more than a quarter turn
    turn = jnp.where(beyond, np.int32(-(2**31)) - phase, phase).astype(jnp.float32) * np.float32(2.0**-32)
    square = turn * turn
    return turn * jnp.polyval(jnp.asarray(SINE, jnp.float32), square)


def cosine(phase: Int[Array, "..."]) -> Float[Array, "..."]:
    """Cosine likewise."""
    return sine(phase + np.int32(2**30))


def rotation(config: ModelConfig, heads: int, positions: Int[Array, "batch seq axes"]) -> Rotation | None:
    """Rotary cosines and sines for heads of `width / heads` channels; None if the model rotates nothing.

    Several axes share the rotated channels equally (Su et al. 2021; fraction as in Perceiver AR, appendix).
    """
    if config.position != "rotary":
        return None
    pairs = config.rotated(config.width // heads)
    if not pairs:
        return None
    phase = phases(positions, wavelengths(pairs, config.wavelength))
    phase = phase.reshape(*positions.shape[:-1], config.axes * pairs)
    return cosine(phase), sine(phase)


def rotate(
    x: Float[Array, "batch seq heads dim"], by: Rotation | None
) -> Float[Array, "batch seq heads dim"]:
    """Turn channel pairs (i, i + half) of the first `2 half` channels by the position's angles, in float32."""
    if by is None:
        return x
    cos, sin = (part[:, :, None, :] for part in by)
    half = cos.shape[-1]
    first, second, rest = jnp.split(x.astype(jnp.float32), [half, 2 * half], axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, first * sin + second * cos, rest], axis=-1)
    return turned.astype(x.dtype)


def sinusoidal(
    config: ModelConfig, positions: Int[Array, "batch seq axes"]
) -> Float[Array, "batch seq width"]:
    """Sines and cosines of each axis, side by side (Vaswani et al. 2017), zeros in what is left of `width`."""
    waves = config.width // config.axes // 2
    phase = phases(positions, wavelengths(waves, config.wavelength))
    vector = jnp.concatenate([sine(phase), cosine(phase)], axis=-1)
    vector = vector.reshape(*positions.shape[:-1], config.axes * 2 * waves)
    return jnp.pad(vector, ((0, 0), (0, 0), (0, config.width - vector.shape[-1])))


def learned(tables: list[Array], positions: Int[Array, "batch seq axes"]) -> Float[Array, "batch seq width"]:
    """The sum over axes of one table row a position; tables are (positions of the axis, width)."""
    rows = [jnp.take(table, positions[..., axis], axis=0, mode="clip") for axis, table in enumerate(tables)]
    return jax.tree.reduce(jnp.add, rows).astype(jnp.float32)
