"""Matrix products in a chosen type, summed in float32, with gradients in forms that a CPU computes fast.

On a CPU with bfloat16 instructions XLA's product of two bfloat16 matrices is twice as fast as in float32, but only
where it is asked for float32 sums and the left matrix is stored row by row. The derivative of a product gives it
neither, so this one is written out.
"""

from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float


def product(
    a: Float[Array, "*batch rows inner"], b: Float[Array, "*batch inner columns"], dtype: str
) -> Float[Array, "*batch rows columns"]:
    """`a @ b` in float32, from factors rounded to `dtype`."""
    return cast(Array, _product(a, b, dtype))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(a: Array, b: Array, dtype: str) -> Array:
    return matmul(a.astype(dtype), b.astype(dtype))


def _forward(a: Array, b: Array, dtype: str) -> tuple[Array, tuple]:
    factors = a.astype(dtype), b.astype(dtype)
    return matmul(*factors), (*factors, a[:0], b[:0])


def _backward(dtype: str, kept: tuple, gradient: Array) -> tuple[Array, Array]:
    a, b, like_a, like_b = kept
    gradient = gradient.astype(dtype)
    # Written as a product with `b.mT` this one would be computed in float32.
    left = jnp.einsum("...rc,...ic->...ri", gradient, b, preferred_element_type=jnp.float32)
    right = matmul(by_rows(a.mT), gradient)
    return left.astype(like_a.dtype), right.astype(like_b.dtype)


_product.defvjp(_forward, _backward)


def matmul(a: Array, b: Array) -> Array:
    """`a @ b` summed in float32."""
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def by_rows(x: Array) -> Array:
    """`x` with its last axis contiguous in memory; a transposed view would be read in the slow order."""
    return with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))
