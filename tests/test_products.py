"""Matrix products in a chosen type: values and gradients against the plain product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_ar.products import product


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.1)])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_product_and_its_gradients(dtype: str, tolerance: float, batch: tuple[int, ...]) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    a = jax.random.normal(keys[0], (*batch, 5, 7))
    b = jax.random.normal(keys[1], (*batch, 7, 4))
    weight = jax.random.normal(keys[2], (*batch, 5, 4))
    got = jax.jit(jax.value_and_grad(lambda a, b: (weight * product(a, b, dtype)).sum(), argnums=(0, 1)))
    wanted = jax.value_and_grad(lambda a, b: (weight * (a @ b)).sum(), argnums=(0, 1))
    for mine, plain in zip(jax.tree.leaves(got(a, b)), jax.tree.leaves(wanted(a, b)), strict=True):
        assert mine.dtype == jnp.float32
        np.testing.assert_allclose(mine, plain, atol=tolerance, rtol=tolerance)


def test_factors_are_rounded_and_sums_are_not() -> None:
    """1 + 2^-9 is 1 in bfloat16; 512 times 1 is 512 however it is summed, 513 only in more than 8 bits."""
    assert float(product(jnp.full((1, 1), 1 + 2**-9), jnp.ones((1, 1)), "bfloat16")[0, 0]) == 1
    assert float(product(jnp.ones((1, 513)), jnp.ones((513, 1)), "bfloat16")[0, 0]) == 513
