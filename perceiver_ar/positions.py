"""Where a token stands: rotary angles, and vectors added to embeddings."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from perceiver_ar.config import ModelConfig

Rotation = tuple[Float[Array, "batch seq half"], Float[Array, "batch seq half"]]
"""Cosines and sines of each position's angles."""


def wavelengths(count: int, longest: float) -> np.ndarray:
    """`count` wavelengths in positions, geometric from 2 pi to `longest`."""
    return np.geomspace(2 * np.pi, longest, count) if count > 1 else np.full(count, 2 * np.pi)


def angles(positions: Int[Array, "..."], lengths: np.ndarray) -> Float[Array, "... count"]:
    """Angle of each position on each wavelength, in [-pi, pi).

    The phase is a fixed-point fraction of a turn that wraps in 32 bits, so that it is as exact at position
    1,000,000 as at 0: a float32 product would lose the fast wavelengths long before.
    """
    turns = jnp.asarray(np.round(2.0**32 / lengths).astype(np.uint32))
    phase = (positions[..., None].astype(jnp.uint32) * turns).astype(jnp.int32)
    return phase.astype(jnp.float32) * np.float32(2 * np.pi / 2**32)


def rotation(config: ModelConfig, heads: int, positions: Int[Array, "batch seq axes"]) -> Rotation | None:
    """Rotary cosines and sines for heads of `width / heads` channels; None if the model rotates nothing.

    Several axes share the rotated channels equally (Su et al. 2021; fraction as in Perceiver AR, appendix).
    """
    if config.position != "rotary":
        return None
    pairs = int(config.width // heads * config.rotary_fraction) // 2 // config.axes
    if not pairs:
        return None
    theta = angles(positions, wavelengths(pairs, config.wavelength))
    theta = theta.reshape(*positions.shape[:-1], config.axes * pairs)
    # Without the barrier XLA computes sines again inside everything that they turn.
    return jax.lax.optimization_barrier((jnp.cos(theta), jnp.sin(theta)))


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
    theta = angles(positions, wavelengths(waves, config.wavelength))
    vector = jnp.concatenate([jnp.sin(theta), jnp.cos(theta)], axis=-1)
    vector = vector.reshape(*positions.shape[:-1], config.axes * 2 * waves)
    return jnp.pad(vector, ((0, 0), (0, 0), (0, config.width - vector.shape[-1])))


def learned(tables: list[Array], positions: Int[Array, "batch seq axes"]) -> Float[Array, "batch seq width"]:
    """The sum over axes of one table row a position; tables are (positions of the axis, width)."""
    rows = [jnp.take(table, positions[..., axis], axis=0, mode="clip") for axis, table in enumerate(tables)]
    return jax.tree.reduce(jnp.add, rows)
