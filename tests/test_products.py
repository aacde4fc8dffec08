"""Matrix products in a chosen type: values and gradients against the plain product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_ar.products import FEW, product


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.15)])
@pytest.mark.parametrize("rows", [1, 8, FEW, FEW + 1])
def test_product_and_its_gradients(dtype: str, tolerance: float, rows: int) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (rows, 7))
    weight = jax.random.normal(keys[1], (4, 7))
    towards = jax.random.normal(keys[2], (rows, 4))
    got = jax.jit(jax.value_and_grad(lambda x, w: (towards * product(x, w, dtype)).sum(), argnums=(0, 1)))
    wanted = jax.value_and_grad(lambda x, w: (towards * (x @ w.T)).sum(), argnums=(0, 1))
    for mine, plain in zip(jax.tree.leaves(got(x, weight)), jax.tree.leaves(wanted(x, weight)), strict=True):
        assert mine.dtype == jnp.float32
        np.testing.assert_allclose(mine, plain, atol=tolerance, rtol=tolerance)


def test_factors_are_rounded_and_sums_are_not() -> None:
    """1 + 2^-9 is 1 in bfloat16; 513 ones make 513 only in more than its 8 bits."""
    rows = FEW + 1
    assert (np.asarray(product(jnp.full((rows, 1), 1 + 2**-9), jnp.ones((1, 1)), "bfloat16")) == 1).all()
    assert (np.asarray(product(jnp.ones((rows, 513)), jnp.ones((1, 513)), "bfloat16")) == 513).all()
