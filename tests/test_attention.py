"""Attention by blocks and stores equals one plain softmax, and stays small."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_ar import attention
from perceiver_ar.attention import attend, attend_reference, attend_whole, fused, has_kernel, visible
from perceiver_ar.cache import EMPTY, Entries

DIM = 8


def store(rows: int, index: np.ndarray, seed: int = 1) -> Entries:
    """Random keys and values, one slot for each of `index` (examples, slots)."""
    rng = np.random.default_rng(seed)
    slots = index.shape[1]
    keys, values = rng.normal(size=(rows, DIM, slots)), rng.normal(size=(rows, slots, DIM))
    return Entries(jnp.float32(keys), jnp.float32(values), jnp.asarray(index, jnp.int32))


def queries(rows: int, count: int) -> jax.Array:
    return jnp.float32(np.random.default_rng(0).normal(size=(rows, count, DIM)))


def padded(slots: int, *pads: int) -> np.ndarray:
    """Indices 0 to `slots`, the first of each example empty."""
    return np.stack([np.where(np.arange(slots) < pad, EMPTY, np.arange(slots)) for pad in pads])


BLOCKS = ["default", "small blocks", "small blocks in turn"]


def cut(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let blocks be as they are, or so small that 300 slots need several of each kind, the last ones ragged."""
    monkeypatch.setattr(attention, "kernels", lambda: None)
    if how != "default":
        monkeypatch.setattr(attention, "BLOCK", 48)
    if how == "small blocks in turn":
        monkeypatch.setattr(attention, "SCORES", 64)


@pytest.fixture(params=["kernels", *BLOCKS])
def ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way there is."""
    if request.param != "kernels":
        cut(request.param, monkeypatch)


def jitted(q: jax.Array, stores: list[Entries], index: jax.Array, start: int = 0, *, aligned: bool = False):
    """`attend`, compiled anew each time, since the sizes of blocks are no arguments."""
    return jax.jit(lambda q, stores, index: attend(q, stores, index, start, aligned=aligned))(
        q, stores, index
    )


def test_the_mask_is_literally_the_rule() -> None:
    index = jnp.array([[0, 1, 2, 3], [EMPTY, EMPTY, 2, 3]])
    got = np.asarray(visible(index, jnp.array([1, 3]), 1)).astype(int).tolist()
    assert got == [[[0, 1, 0, 0], [0, 1, 1, 1]], [[0, 0, 0, 0], [0, 0, 1, 1]]]


def test_a_ring_in_any_order_is_masked_by_index() -> None:
    index = jnp.array([[4, 5, 2, 3, EMPTY]])
    got = np.asarray(visible(index, jnp.array([3, 4, 5]), 3)).astype(int).tolist()
    assert got == [[[0, 0, 0, 1, 0], [1, 0, 0, 1, 0], [1, 1, 0, 1, 0]]]


def test_weights_follow_a_literal_mask() -> None:
    """Equal keys: each output is the plain mean of the values that its row of the mask allows."""
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]])
    values = np.random.default_rng(2).normal(size=(1, 4, DIM)).astype(np.float32)
    flat = Entries(jnp.zeros((1, DIM, 4)), jnp.asarray(values), jnp.arange(4)[None])
    got = attend_whole(queries(1, 3), flat, jnp.array([1, 2, 3]))
    np.testing.assert_allclose(
        got[0], mask / mask.sum(axis=1, keepdims=True) @ values[0], rtol=1e-5, atol=1e-6
    )


def assert_gradients_close(mine: jax.Array, wanted: jax.Array) -> None:
    """Within float32's rounding of sums as large as the largest entry."""
    np.testing.assert_allclose(mine, wanted, atol=1e-5 * max(float(np.abs(wanted).max()), 1))


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize(("slots", "count"), [(300, 100), (257, 257), (5, 1)])
def test_attend_equals_the_reference(ways: None, slots: int, count: int, *, aligned: bool) -> None:
    entries, q = store(4, padded(slots, 0, 2)), queries(4, count)
    index = jnp.arange(slots - count, slots)
    got = np.asarray(jitted(q, [entries], index, aligned=aligned))
    wanted = np.asarray(attend_reference(q, entries, index))
    seen = np.isfinite(wanted)  # the first queries of a padded example see nothing
    assert np.isfinite(got).all()
    assert seen.mean() > 0.9
    np.testing.assert_allclose(got[seen], wanted[seen], atol=2e-6)


@pytest.mark.parametrize(("slots", "count", "pad"), [(300, 100, 2), (257, 257, 0), (180, 50, 70), (5, 1, 2)])
def test_gradients_equal_those_of_the_reference(ways: None, slots: int, count: int, pad: int) -> None:
    entries, q = store(4, padded(slots, 0, pad)), queries(4, count)
    index = jnp.arange(slots - count, slots)
    weight = jax.random.normal(jax.random.key(5), q.shape)

    def fast(q: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
        return (weight * attend_whole(q, Entries(keys, values, entries.index), index)).sum()

    def plain(q: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
        return (weight * attend_reference(q, Entries(keys, values, entries.index), index)).sum()

    got = jax.jit(jax.grad(fast, argnums=(0, 1, 2)))(q, entries.keys, entries.values)
    wanted = jax.grad(plain, argnums=(0, 1, 2))(q, entries.keys, entries.values)
    for mine, reference in zip(got, wanted, strict=True):
        assert np.abs(reference).max() > 0.1
        assert_gradients_close(mine, reference)


def test_the_window_starts_where_it_is_told(ways: None) -> None:
    entries, q, index = store(4, padded(300, 0, 3)), queries(4, 99), jnp.arange(201, 300)
    got = jitted(q, [entries], index, 150, aligned=True)
    np.testing.assert_allclose(got, attend_reference(q, entries, index, 150), atol=2e-6)
    kept = Entries(entries.keys[:, :, 150:], entries.values[:, 150:], entries.index[:, 150:])
    np.testing.assert_allclose(got, attend_reference(q, kept, index), atol=2e-6)


def test_two_stores_are_one_longer_store(ways: None) -> None:
    whole, q, index = store(4, padded(300, 0, 200)), queries(4, 9), jnp.arange(291, 300)
    cuts = [slice(0, 170), slice(170, 171), slice(171, 300)]
    stores = [Entries(whole.keys[:, :, cut], whole.values[:, cut], whole.index[:, cut]) for cut in cuts]
    for order in (stores, stores[::-1]):
        np.testing.assert_allclose(jitted(q, order, index), attend_reference(q, whole, index), atol=2e-6)


def test_one_index_row_serves_all_examples_that_are_not_padded(ways: None) -> None:
    q, index = queries(6, 4), jnp.arange(296, 300)
    one, each = store(6, padded(300, 0)), store(6, padded(300, 0, 0, 0))
    np.testing.assert_allclose(jitted(q, [one], index), attend_reference(q, each, index), atol=2e-6)


@pytest.mark.parametrize("pads", [(0,), (0, 40)], ids=["one example", "two padded examples"])
def test_takes_share_a_prefix_as_if_each_had_a_copy(ways: None, pads: tuple[int, ...]) -> None:
    heads, takes = 2, 3
    rows = len(pads) * takes * heads
    prefix, q, index = store(len(pads) * heads, padded(300, *pads)), queries(rows, 5), jnp.arange(305, 310)
    recent = store(rows, 300 + np.arange(10)[None], seed=3)

    def copied(x: jax.Array, group: int) -> jax.Array:
        return jnp.repeat(x.reshape(-1, group, *x.shape[1:]), takes, axis=0).reshape(-1, *x.shape[1:])

    own = Entries(copied(prefix.keys, heads), copied(prefix.values, heads), copied(prefix.index, 1))
    recent_index = jnp.broadcast_to(recent.index, (len(own.index), 10))
    whole = Entries(
        jnp.concatenate([own.keys, recent.keys], 2),
        jnp.concatenate([own.values, recent.values], 1),
        jnp.concatenate([own.index, recent_index], 1),
    )
    got = jitted(q, [prefix, recent], index)
    np.testing.assert_allclose(got, attend_reference(q, whole, index), atol=2e-6)


def test_a_query_that_sees_nothing_gets_finite_values_and_gradients() -> None:
    entries = store(2, np.full((1, 6), EMPTY))
    total, gradient = jax.value_and_grad(lambda q: attend_whole(q, entries, jnp.arange(3)).sum())(
        queries(2, 3)
    )
    assert np.isfinite(total) and np.isfinite(gradient).all()


def test_a_query_that_sees_nothing_changes_no_gradient(ways: None) -> None:
    """The first 40 of 60 latents are padding: what comes of them is finite, and nobody's gradient but zero's."""
    entries, q, index = store(2, padded(100, 80)), queries(2, 60), jnp.arange(40, 100)

    def gradients(q: jax.Array, index: jax.Array) -> tuple[jax.Array, ...]:
        def loss(q: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
            return jnp.square(attend_whole(q, Entries(keys, values, entries.index), index)[:, -20:]).sum()

        return jax.jit(jax.grad(loss, (0, 1, 2)))(q, entries.keys, entries.values)

    with_blind, without = gradients(q, index), gradients(q[:, 40:], index[40:])
    assert (np.asarray(with_blind[0])[:, :40] == 0).all()
    assert_gradients_close(with_blind[0][:, 40:], without[0])
    for mine, theirs in zip(with_blind[1:], without[1:], strict=True):
        assert_gradients_close(mine, theirs)


@pytest.mark.parametrize(
    ("platform", "capability", "dim", "has"),
    [
        ("gpu", "9.0", 64, True),
        ("gpu", "12.0", 128, True),
        ("gpu", "7.5", 64, False),
        ("gpu", "gfx942", 64, False),
        ("gpu", "9.0", 36, False),
        ("gpu", "9.0", 256, False),
        ("cpu", "", 64, False),
    ],
)
def test_a_gpus_kernel_is_used_where_it_runs(platform: str, capability: str, dim: int, *, has: bool) -> None:
    assert has_kernel(SimpleNamespace(platform=platform, compute_capability=capability), dim) == has
    assert not has_kernel(jax.devices("cpu")[0], dim)


@pytest.mark.parametrize(("prefix", "used"), [(0, True), (9 * 24, True), (9 * 24 + 1, False)])
def test_a_gpus_kernel_is_not_used_for_few_queries(
    prefix: int, *, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time grows with the square of the whole sequence."""
    asked = []
    monkeypatch.setattr(attention, "has_kernel", lambda *_: True)
    monkeypatch.setattr(attention, "fused", lambda queries, *_: asked.append(True) or queries)
    made = store(6, padded(prefix + 24, 0, 0, 0))
    entries = Entries(made.keys.astype(jnp.bfloat16), made.values.astype(jnp.bfloat16), made.index)
    attend_whole(queries(6, 24), entries, jnp.arange(prefix, prefix + 24))
    assert bool(asked) == used


@pytest.mark.parametrize("prefix", [0, 5, 40])
def test_a_gpus_kernel_gives_the_same_with_its_gradients(prefix: int) -> None:
    """By what computes it on a CPU with the mask of that kernel; an example's padding may reach into the latents."""
    entries, q = store(6, padded(prefix + 24, 0, 3, prefix + 2)), queries(6, 24)
    index, weight = jnp.arange(prefix, prefix + 24), jnp.sin(jnp.arange(6 * 24 * DIM)).reshape(6, 24, DIM)
    seen = jnp.repeat(entries.index[:, -24:] != EMPTY, 2, axis=0)[..., None]

    def value(kernel: bool, q: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
        mine = Entries(keys, values, entries.index)
        found = fused(q, mine, "xla") if kernel else attend_whole(q, mine, index)
        return (weight * jnp.where(seen, found, 0)).sum()

    parts = q, entries.keys, entries.values
    gradient = jax.jit(jax.grad(value, (1, 2, 3)), static_argnums=0)
    for got, wanted in zip(gradient(True, *parts), gradient(False, *parts), strict=True):
        assert_gradients_close(got, wanted)
    got, wanted = (
        np.where(seen, x, 0) for x in (fused(q, entries, "xla"), attend_reference(q, entries, index))
    )
    np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize("prefix", [0, 140])
def test_gradients_in_bfloat16_are_near_those_in_float32(prefix: int) -> None:
    """With and without a prefix: latents of one block alone are products of other shapes to a compiler."""
    entries, q = store(2, padded(prefix + 60, 3)), queries(2, 60)
    index = jnp.arange(prefix, prefix + 60)

    def gradients(dtype: str) -> tuple[jax.Array, ...]:
        def loss(q: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
            rounded = Entries(keys.astype(dtype), values.astype(dtype), entries.index)
            return jnp.square(attend_whole(q, rounded, index)).sum()

        return jax.jit(jax.grad(loss, (0, 1, 2)))(q, entries.keys, entries.values)

    for coarse, fine in zip(gradients("bfloat16"), gradients("float32"), strict=True):
        assert coarse.dtype == jnp.float32
        assert np.abs(coarse - fine).max() < 0.02 * np.abs(fine).max()


MEMORY = r"""
import re, pathlib
import jax, jax.numpy as jnp, numpy as np
from perceiver_ar.attention import attend_whole
from perceiver_ar.cache import Entries

def peak():  # not getrusage: what it says begins with the parent's peak
    return int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1])

def loss(queries, keys, values):
    store = Entries(keys, values, jnp.arange(131072)[None])
    return jnp.square(attend_whole(queries, store, jnp.arange(131072 - 1024, 131072))).sum()

shapes = (2, 1024, 16), (2, 16, 131072), (2, 131072, 16)
rng = np.random.default_rng(0)  # JAX's own would take memory of its own, and give it back when it likes
arguments = [jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes]
jax.block_until_ready(arguments)
before = peak()
jax.block_until_ready(jax.jit(jax.grad(loss, (0, 1, 2)))(*arguments))
print((peak() - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_a_long_context_takes_far_less_memory_than_its_scores() -> None:
    """Two heads, 1,024 latents and 131,072 tokens, there and back: the scores alone would be 1,024 MiB."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert 16 < int(done.stdout) < 512
