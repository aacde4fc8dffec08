"""Products with weights, in a chosen type, in the forms that a CPU computes fast.

Weights may be float16, and are multiplied as they are where there are `kernels` for it.

On a CPU with bfloat16 instructions XLA's product of two bfloat16 matrices is twice as fast as in float32, but only
where it is asked for float32 sums and the left matrix is stored row by row. The derivative of a product gives it
neither, so this one is written out.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from types import ModuleType
from typing import cast

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float

from perceiver_ar.config import ModelConfig

FEW = 64
"""Most rows for which reading the weights is a large part of a product: packed first, they would be read twice."""


@cache
def kernels() -> ModuleType | None:
    """What a CPU computes with (`kernels`); None elsewhere, where it does not run, and where devices share arrays."""
    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        return None
    try:
        from perceiver_ar import kernels

        return kernels if kernels.usable() else None
    except (ImportError, RuntimeError):  # no LLVM for this Python or CPU, or another interface of XLA's
        return None


def cache_dtype(config: ModelConfig) -> str:
    """Type of the keys and values that a cache keeps here."""
    if config.cache_dtype == "float16" and not kernels():
        return "float32"
    return config.cache_dtype or config.dtype


def helped() -> AbstractContextManager:
    """What is computed inside, and waited for, is shared with other threads where there are kernels."""
    return fast.helped() if (fast := kernels()) else nullcontext()


def product(
    x: Float[Array, "rows inputs"], weight: Float[Array, "outputs inputs"], dtype: str
) -> Float[Array, "rows outputs"]:
    """`x @ weight.T`, summed in float32, from factors rounded to `dtype`.

    For a few rows most of the time goes into reading the weights, and rounding these would only add to it: they are
    multiplied as they are.
    """
    if weight.dtype == jnp.float16 and (fast := kernels()):
        return fast.multiply(x, weight)
    if x.shape[0] > FEW:
        return cast(Array, _product(x, weight, dtype))
    if x.shape[0] == 1:
        return x @ weight.T
    # The weights on the left, and barriers that keep it so: the other way round XLA packs them anew for every token.
    barrier = jax.lax.optimization_barrier
    return barrier(matmul(weight, barrier(x.T))).T


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(x: Array, weight: Array, dtype: str) -> Array:
    return _forward(x, weight, dtype)[0]


def _forward(x: Array, weight: Array, dtype: str) -> tuple[Array, tuple]:
    rounded = x.astype(dtype), weight.astype(dtype)
    # Written as a product with the transposed weights this one would be computed in float32.
    y = jnp.einsum("ri,oi->ro", *rounded, preferred_element_type=jnp.float32)
    return y, rounded


def _backward(dtype: str, kept: tuple, gradient: Array) -> tuple[Array, Array]:
    x, weight = kept
    if dtype == "float32" and (fast := kernels()):
        towards_weight = fast.weights_gradient(gradient, x)
    else:
        towards_weight = matmul(by_rows(gradient.astype(dtype).T), x)
    return matmul(gradient.astype(dtype), weight), towards_weight


_product.defvjp(_forward, _backward)


def matmul(a: Array, b: Array) -> Array:
    """`a @ b` summed in float32."""
    if a.ndim == 3 and a.shape[0] == 1 and jax.default_backend() == "cpu":
        # Of a batch of one XLA makes a product that it does not have in bfloat16. Widened, factors lose nothing.
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def by_rows(x: Array) -> Array:
    """`x` with its last axis contiguous in memory; a CPU would read a transposed view in the slow order."""
    if jax.default_backend() != "cpu":
        return x
    return with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))
