"""What a single token is computed with on a CPU, against plain sums, and what there is where it does not run."""

import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import small_config, small_model

from perceiver_ar import attention, products
from perceiver_ar.attention import attend, attend_reference
from perceiver_ar.cache import EMPTY, Entries
from perceiver_ar.kernels import loops
from perceiver_ar.model import from_params, to_params
from perceiver_ar.products import product

DIM = 12
"""Eight channels, and four that are left."""
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float16"])
"""Of keys and values: float16 are widened as they are read, and the sums those of float32."""


@pytest.fixture
def kernels():
    """The kernels, which must run where the tests do."""
    found = products.kernels()
    assert found is not None
    return found


@pytest.mark.parametrize("rows", [1, 2, 4, 7, 17, 128])
@pytest.mark.parametrize(("outputs", "inputs"), [(5, 3), (64, 256), (33, 513)])
def test_float16_weights_are_multiplied_in_float32(rows: int, outputs: int, inputs: int) -> None:
    rng = np.random.default_rng(rows)
    x = rng.standard_normal((rows, inputs)).astype(np.float32)
    weight = rng.standard_normal((outputs, inputs)).astype(np.float16)
    got = jax.jit(lambda x, w: product(x, w, "float32"))(x, weight)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, x.astype(np.float64) @ weight.T.astype(np.float64), rtol=1e-5, atol=1e-4)


def test_weights_of_all_sizes_are_widened(kernels) -> None:
    """The least that float16 has, the least without a leading zero, the greatest, and zeros of both signs."""
    weight = np.array([[6e-8, 6.2e-5, 65504, 0, -0.0]], np.float16)
    for n, value in enumerate(weight[0].astype(np.float32)):
        assert float(kernels.multiply(jnp.eye(5)[n : n + 1], weight)[0, 0]) == value


@pytest.mark.parametrize(
    ("rows", "outputs", "inputs"), [(65, 1, 1), (130, 3, 5), (300, 131, 70), (128, 64, 64)]
)
def test_gradients_of_weights_are_sums_over_all_rows(rows: int, outputs: int, inputs: int) -> None:
    """Rows, outputs and inputs of whole blocks, and of parts of one."""
    rng = np.random.default_rng(rows)
    gradient, x, weight = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in ((rows, outputs), (rows, inputs), (outputs, inputs))
    )
    _, back = jax.vjp(lambda weight: product(jnp.asarray(x), weight, "float32"), jnp.asarray(weight))
    wanted = gradient.T.astype(np.float64) @ x
    np.testing.assert_allclose(back(jnp.asarray(gradient))[0], wanted, rtol=1e-5, atol=1e-4)


def entries(
    examples: int, heads: int, index: np.ndarray, seed: int, dim: int = DIM, dtype: str = "float32"
) -> Entries:
    """Random keys and values for `index` (examples, slots)."""
    rng, slots = np.random.default_rng(seed), index.shape[1]
    keys = rng.standard_normal((examples * heads, dim, slots)).astype(np.float32)
    values = rng.standard_normal((examples * heads, slots, dim)).astype(np.float32)
    return Entries(jnp.asarray(keys, dtype), jnp.asarray(values, dtype), jnp.asarray(index, jnp.int32))


@DTYPES
def test_one_query_attends_to_what_is_there(dtype: str) -> None:
    """A padded prefix that two takes share, and a ring of each of them that has wrapped, with a slot that is empty."""
    examples, takes, heads = 3, 2, 2
    prefix = np.stack([np.where(np.arange(70) < pad, EMPTY, np.arange(70)) for pad in (0, 5, 69)])
    ring = np.tile([90, 91, EMPTY, 73, 74, 75, 99, 77, 78], (examples * takes, 1))
    stores = [
        entries(examples, heads, prefix, 0, dtype=dtype),
        entries(examples * takes, heads, ring, 1, dtype=dtype),
    ]
    rng = np.random.default_rng(2)
    queries = jnp.asarray(rng.standard_normal((examples * takes * heads, 1, DIM)), jnp.float32)
    for start, index in ((0, 95), (8, 91), (80, 99)):
        got = jax.jit(attend)(queries, stores, jnp.array([index]), start)
        for row in range(len(queries)):
            take, head = divmod(row, heads)
            mine = [store.keys.shape[0] // heads * take // (examples * takes) for store in stores]
            keys = [store.keys[n * heads + head] for n, store in zip(mine, stores, strict=True)]
            values = [store.values[n * heads + head] for n, store in zip(mine, stores, strict=True)]
            slots = [store.index[n] for n, store in zip(mine, stores, strict=True)]
            whole = Entries(
                jnp.concatenate(keys, 1)[None], jnp.concatenate(values)[None], jnp.concatenate(slots)[None]
            )
            wanted = attend_reference(queries[row][None], whole, jnp.array([index]), start)[0]
            np.testing.assert_allclose(got[row], wanted, atol=2e-6, err_msg=f"row {row} from {start}")


@DTYPES
@pytest.mark.parametrize(("dim", "slots", "count"), [(1, 1, 1), (64, 513, 7), (130, 1100, 6), (33, 512, 512)])
def test_many_queries_attend_to_slots_before_and_behind_a_block(
    kernels, dim: int, slots: int, count: int, dtype: str
) -> None:
    """Heads as wide as several vectors and a part of one; blocks that end with the slots, and do not."""
    store = entries(1, 2, np.arange(slots)[None], 10, dim, dtype)
    queries = np.random.default_rng(11).standard_normal((2, count, dim)) / np.sqrt(dim)
    queries, index = jnp.asarray(queries, jnp.float32), jnp.arange(slots - count, slots)
    got = kernels.attend(queries, [store], index, 0)
    np.testing.assert_allclose(got, attend_reference(queries, store, index), atol=2e-6)


@DTYPES
def test_slots_that_takes_have_alike_are_read_of_the_first(kernels, dtype: str) -> None:
    """Of the others they are not even looked at, though the slots behind them are."""
    takes, heads, slots, alike = 3, 2, 21, 10
    index = np.tile(np.where(np.arange(slots) < 2, EMPTY, np.arange(slots)), (takes, 1))
    store = entries(takes, heads, index, 3, dtype=dtype)
    first = store.keys[:heads], store.values[:heads]
    same = store._replace(
        keys=store.keys.at[:, :, :alike].set(jnp.tile(first[0], (takes, 1, 1))[:, :, :alike]),
        values=store.values.at[:, :alike].set(jnp.tile(first[1], (takes, 1, 1))[:, :alike]),
    )
    queries = jnp.asarray(np.random.default_rng(4).standard_normal((takes * heads, 1, DIM)), jnp.float32)
    wanted = attend_reference(queries, same, jnp.array([17]), 1)[:, 0]
    for given, shared in ((same, (1, 0)), (same, (takes, alike)), (store, (takes, alike))):
        got = kernels.attend(queries, [given], jnp.array([17]), 1, shared)[:, 0]
        np.testing.assert_allclose(got, wanted, atol=2e-6)


def test_a_query_that_sees_nothing_gets_zeros(kernels) -> None:
    store = entries(1, 2, np.full((1, 9), EMPTY), 5)
    assert not np.asarray(kernels.attend(jnp.ones((2, 1, DIM)), [store], jnp.array([4]), 0)).any()


def test_scores_far_apart_stay_finite(kernels) -> None:
    store = entries(1, 1, np.arange(3)[None], 6)
    far = store._replace(keys=jnp.zeros_like(store.keys).at[0, 0].set(jnp.array([-1e4, 0.0, 1e4])))
    got = kernels.attend(jnp.eye(DIM)[:1, None], [far], jnp.array([2]), 0)
    np.testing.assert_allclose(got[0, 0], store.values[0, 2], atol=1e-6)


def test_two_runs_that_are_helped_at_once_get_what_each_gets_alone(kernels) -> None:
    """Products and attention of many parts; a helper that were lost, or shared wrongly, would hang or mix them up."""
    rng = np.random.default_rng(8)
    weight = jnp.asarray(rng.standard_normal((1024, 256)), jnp.float16)
    index = np.tile(np.arange(300), (3, 1))
    store = entries(3, 4, index, 9)

    @jax.jit
    def compute(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        def step(_, carry: tuple) -> tuple:
            x, queries = carry
            y = kernels.multiply(x, weight)
            attended = kernels.attend(queries, [store], jnp.array([250]), 3)
            return x + 1e-3 * y[:, :256], queries + attended

        return jax.lax.fori_loop(0, 200, step, (x, x[:, :144].reshape(12, 1, DIM)))

    assert weight.size >= 2 * loops.WEIGHTS
    given = [jnp.asarray(rng.standard_normal((1, 256)), jnp.float32) for _ in range(2)]
    alone = [jax.tree.map(np.asarray, compute(x)) for x in given]

    def helped(x: jax.Array) -> list[tuple]:
        found = []
        for _ in range(10):
            with kernels.helped():
                found.append(jax.tree.map(np.asarray, compute(x)))
        return found

    with ThreadPoolExecutor(2) as pool:
        for wanted, found in zip(alone, pool.map(helped, given), strict=True):
            for got in found:
                jax.tree.map(np.testing.assert_array_equal, got, wanted)


def test_a_helper_goes_home_when_what_it_helped_failed(kernels) -> None:
    with pytest.raises(ZeroDivisionError), kernels.helped():
        _ = 1 / 0
    if kernels._helpers():
        kernels._pool().submit(int).result(timeout=60)


def test_only_matrices_stay_float16() -> None:
    config = small_config()
    halves = jax.tree.map(lambda x: np.asarray(x, np.float16), to_params(small_model(config)))
    params = jax.tree_util.tree_leaves_with_path(from_params(config, halves, unrolled=True))
    assert {x.dtype for _, x in params if x.ndim == 1} == {jnp.dtype(jnp.float32)}
    assert {x.dtype for _, x in params if x.ndim == 2} == {jnp.dtype(jnp.float16)}


def test_where_the_kernels_do_not_run_all_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (products, attention, sys.modules["perceiver_ar.model"]):
        monkeypatch.setattr(module, "kernels", lambda: None)
    config = small_config(width=40, heads=5)  # of a shape that no other test has compiled
    halves = jax.tree.map(lambda x: np.asarray(x, np.float16), to_params(small_model(config)))
    model = from_params(config, halves, unrolled=True)
    assert {x.dtype for x in jax.tree.leaves(model)} == {jnp.dtype(jnp.float32)}
    weight = jnp.ones((4, 3), jnp.float16)
    assert np.asarray(product(jnp.ones((2, 3)), weight, "float32")).tolist() == [[3.0] * 4] * 2
    store = entries(1, 2, np.arange(5)[None], 7)
    queries = jnp.ones((2, 1, DIM))
    np.testing.assert_allclose(
        attend(queries, [store], jnp.array([3])),
        attend_reference(queries, store, jnp.array([3])),
        atol=2e-6,
    )


def test_a_cpu_that_does_not_widen_float16_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """There LLVM would end the process."""
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", dict)
    monkeypatch.delitem(sys.modules, "perceiver_ar.kernels.vectors", raising=False)
    with pytest.raises(ImportError, match="float16"):
        import_module("perceiver_ar.kernels.vectors")


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError("INVALID_ARGUMENT: FFI handler was compiled with another version"),
        ImportError("without /proc nothing says which CPU this is"),
    ],
)
def test_kernels_that_fail_are_not_used(kernels, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise error

    assert products.kernels.__wrapped__() is kernels
    monkeypatch.setattr(kernels, "multiply", refuse)
    assert products.kernels.__wrapped__() is None
