"""Softmax attention over one or more stores of keys and values, and the plain reference beside it.

In bfloat16 on a GPU, attention over a whole sequence is a kernel of cuDNN's; the rest is written for a CPU, and works
on both.

A query block's share of each store is summed without its normaliser and the shares are merged, so that a
score matrix never spans more than one block of queries and one block of keys (Milakov & Gimelshein 2018;
Rabe & Staats 2021), and stores of different batch sizes meet in one softmax without being copied together.
"""

from functools import reduce
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from perceiver_ar.cache import EMPTY, MASKED, Entries
from perceiver_ar.products import by_rows, kernels, matmul

BLOCK = 128
"""Queries a block: keys later than the block's last query are skipped, not masked."""
SCORES = 1 << 19
"""Most scores held at once (2 MiB in float32, which stay in a CPU's cache): keys are cut into blocks of as many as that
leaves room for, and of `BLOCK` at least."""
SCORES_OFF_CPU = 1 << 27
"""The same on a GPU, where few large kernels are faster than many small ones: 512 MiB."""
SPAN = 10
"""Most keys a query for which cuDNN's kernel is used: it computes what each token before the queries would see as well,
and with more of them blocks take less time."""


class Partial(NamedTuple):
    """A share of a softmax average: unnormalised sum, its normaliser, and the maximum both are relative to."""

    total: Float[Array, "rows queries dim"]
    weight: Float[Array, "rows queries 1"]
    peak: Float[Array, "rows queries 1"]

    def merge(self, other: "Partial") -> "Partial":
        """The share of both sets of keys together."""
        peak = jnp.maximum(self.peak, other.peak)
        mine, theirs = jnp.exp(self.peak - peak), jnp.exp(other.peak - peak)
        return Partial(
            self.total * mine + other.total * theirs, self.weight * mine + other.weight * theirs, peak
        )

    def average(self) -> tuple[Array, Array]:
        """Averages, and the logarithm of each query's normaliser, (rows, queries, 1)."""
        return self.total / self.weight, self.peak + jnp.log(self.weight)


def visible(
    index: Int[Array, "examples slots"], query: Int[Array, "queries"], start: Int[Array, ""] | int
) -> Array:
    """Boolean (examples, queries, slots): slots that hold a token of the window, no later than the query."""
    index = index[:, None, :]
    return (index > EMPTY) & (index >= start) & (index <= query[None, :, None])


def attend_whole(
    queries: Float[Array, "rows queries dim"],
    store: Entries,
    index: Int[Array, "queries"],
    start: Int[Array, ""] | int = 0,
) -> Float[Array, "rows queries dim"]:
    """Softmax attention of a whole sequence's last tokens to all of it: later keys are skipped, not masked.

    What `attend` says of its arguments holds here too. Its derivative is written out, in reverse mode alone.
    """
    whole = isinstance(start, int) and start == 0 and store.keys.shape[-1] <= SPAN * queries.shape[1]
    if whole and store.keys.dtype == jnp.bfloat16 and has_kernel(jax.devices()[0], queries.shape[-1]):
        return fused(queries, store, "cudnn")
    return _aligned(queries, *store, index, jnp.asarray(start, jnp.int32))


def attend(
    queries: Float[Array, "rows queries dim"],
    stores: list[Entries],
    index: Int[Array, "queries"],
    start: Int[Array, ""] | int = 0,
    *,
    aligned: bool = False,
    alike: tuple[int, Int[Array, ""] | int] = (1, 0),
) -> Float[Array, "rows queries dim"]:
    """Softmax attention of `queries`, already scaled, over all `stores` at once; it need have no derivative.

    Args:
        queries: rows are batch x heads, batch outermost. A store may have fewer rows by a whole factor:
            each of its examples then serves as many consecutive ones of the batch, and has an index row.
        index: where each query stands in the sequence; it sees entries with `start <= index <= its own`.
        aligned: the queries are the last ones of the only store.
        alike: (group, count): each `group` consecutive examples of the only store have the same keys and values in
            their first `count` slots, which need to be read but once a group.

    Returns:
        The averages in float32; a query that sees nothing gets finite values of no meaning.
    """
    if stores[0].keys.dtype in (jnp.float32, jnp.float16) and (fast := kernels()):
        return fast.attend(queries, stores, index, start, alike)
    if aligned:
        return attend_whole(queries, stores[0], index, start)
    shares = [_over_store(queries, store, index, start, store.keys.shape[-1]) for store in stores]
    return reduce(Partial.merge, shares).average()[0]


def has_kernel(device: Any, dim: int) -> bool:
    """Whether cuDNN's kernel runs on the device with so many channels a head, there and back (JAX's documentation)."""
    capability = getattr(device, "compute_capability", "")  # AMD's are no numbers
    modern = capability[:1].isdigit() and float(capability) >= 8
    return device.platform == "gpu" and modern and dim % 8 == 0 and dim <= 128


def fused(
    queries: Float[Array, "rows queries dim"], store: Entries, implementation: Literal["cudnn", "xla"]
) -> Float[Array, "rows queries dim"]:
    """Attention of a whole sequence's last tokens to all of it, by a kernel of JAX's.

    Such a kernel's causal mask begins at the first query and the first key. So there are zeros for the queries that
    are not asked for, and the padding is turned to the right, where no token sees it.

    Args:
        store: of each example all padding (index `EMPTY`) is on the left. Any behind a token would be seen, and as many
            of the first tokens would not.
    """
    examples, seen = store.index.shape
    rows, count, dim = queries.shape
    padding = (store.index == EMPTY).sum(axis=1)

    def laid(x: Array) -> Array:
        return _turned(x.reshape(examples, -1, seen, dim).swapaxes(1, 2), -padding)

    asked = jnp.pad(queries.astype(store.keys.dtype), ((0, 0), (seen - count, 0), (0, 0)))
    average = jax.nn.dot_product_attention(
        *(laid(x) for x in (asked, store.keys.mT, store.values)),
        scale=1.0,
        is_causal=True,
        implementation=implementation,
    )
    average = _turned(average, padding)[:, seen - count :]
    return average.swapaxes(1, 2).reshape(rows, count, dim).astype(jnp.float32)


@jax.custom_vjp
def _turned(x: Float[Array, "examples seq heads dim"], by: Int[Array, "examples"]) -> Array:
    """Each example rolled along its sequence. XLA's own derivative of that would add up numbers one by one."""
    seq = x.shape[1]
    source = (jnp.arange(seq) - by[:, None]) % seq
    return jnp.take_along_axis(x, source[:, :, None, None], axis=1)


_turned.defvjp(lambda x, by: (_turned(x, by), by), lambda by, gradient: (_turned(gradient, -by), None))


@jax.custom_vjp
def _aligned(
    queries: Array, keys: Array, values: Array, slots: Array, index: Array, start: Array
) -> Float[Array, "rows queries dim"]:
    """Attention of a store's last tokens to the store, with a backward pass that keeps no scores."""
    return _aligned_forward(queries, keys, values, slots, index, start)[0]


def _aligned_forward(
    queries: Array, keys: Array, values: Array, slots: Array, index: Array, start: Array
) -> tuple[Array, tuple]:
    store = Entries(keys, values, slots)
    like_queries = queries[:0]  # carries their type, which the gradient shall have
    if fast := kernels():  # they multiply in float32: nothing is gained by rounding
        average, normaliser = fast.attend_whole(*_widened((queries, store)), index, start)
    else:
        queries = queries.astype(keys.dtype)
        average, normaliser = _average_and_normaliser(queries, store, index, start)
    return average, (queries, like_queries, store, index, start, average, normaliser)


def _average_and_normaliser(
    queries: Array, store: Entries, index: Array, start: Array
) -> tuple[Array, Array]:
    count, seen = queries.shape[1], store.keys.shape[-1]
    blocks = []
    for first in range(0, count, BLOCK):
        last = min(first + BLOCK, count)
        shares = _over_store(queries[:, first:last], store, index[first:last], start, seen - count + last)
        blocks.append(shares.average())
    average, normaliser = (jnp.concatenate(x, axis=1) for x in zip(*blocks, strict=True))
    return average, normaliser


def _widened(tree: Any) -> Any:
    """What is rounded, as float32, which the kernels take; indices stay what they are."""
    return jax.tree.map(lambda x: x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def _aligned_backward(kept: tuple, gradient: Array) -> tuple:
    # Outside of a jit some of it comes back as numpy's.
    queries, like_queries, store, index, start, average, normaliser = jax.tree.map(jnp.asarray, kept)
    offset = (gradient * average).sum(-1, keepdims=True)
    if fast := kernels():
        factors = _widened((queries, store))
        found = fast.attention_gradient(*factors, index, start, gradient, normaliser, offset)
    else:
        found = _gradients(queries, store, index, start, gradient, normaliser, offset)
    towards_queries, keys, values = found
    dtype = store.keys.dtype
    return (
        towards_queries.astype(like_queries.dtype),
        keys.astype(dtype),
        values.astype(dtype),
        None,
        None,
        None,
    )


_aligned.defvjp(_aligned_forward, _aligned_backward)


def _gradients(
    queries: Array,
    store: Entries,
    index: Array,
    start: Array,
    gradient: Array,
    normaliser: Array,
    offset: Array,
) -> tuple[Array, Array, Array]:
    """Gradients from scores computed again, a block of keys at a time (Dao et al. 2022, algorithm 4).

    Scores are held transposed, (rows, slots, queries): then none of the five products needs a transposed copy of them.
    """
    rows, count, dim = queries.shape
    prefix = store.keys.shape[-1] - count
    block = _keys_at_once(rows * count)
    gradient = gradient.astype(store.keys.dtype)
    sides = _Sides(
        queries, by_rows(queries.mT), gradient, by_rows(gradient.mT), normaliser.mT, offset.mT, index
    )
    towards_queries = jnp.zeros((rows, dim, count), jnp.float32)
    parts = []
    whole = prefix // block
    if whole:

        def step(total: Array, at: Array) -> tuple[Array, tuple[Array, Array]]:
            more, keys, values = _block_gradient(store.part(at, block), sides, start)
            return total + more, (keys, values)

        towards_queries, stacked = jax.lax.scan(step, towards_queries, block * jnp.arange(whole))
        parts.append(tuple(x.swapaxes(0, 1).reshape(rows, whole * block, dim) for x in stacked))
    # The latents' own keys, in blocks that only the later queries see.
    cuts = [(whole * block, 0)] if prefix % block else []
    cuts += [(prefix + first, first) for first in range(0, count, BLOCK)]
    ends = [at for at, _ in cuts[1:]] + [prefix + count]
    for (at, first), end in zip(cuts, ends, strict=True):
        more, keys, values = _block_gradient(store.part(at, end - at), sides.since(first), start)
        towards_queries = towards_queries.at[:, :, first:].add(more)
        parts.append((keys, values))
    keys, values = (jnp.concatenate(x, axis=1) for x in zip(*parts, strict=True))
    # One block's product would be merged with the transposition into one that XLA's CPU kernels lack in bfloat16.
    towards_queries, keys = jax.lax.optimization_barrier((towards_queries, keys))
    return towards_queries.mT, keys.mT, values


class _Sides(NamedTuple):
    """What the backward pass needs of the queries and of the averages' gradient.

    Both as (rows, queries, dim) and transposed; numbers as (rows, 1, queries).
    """

    queries: Array
    queries_transposed: Array
    gradient: Array
    gradient_transposed: Array
    normaliser: Array
    offset: Array
    index: Array

    def since(self, first: int) -> "_Sides":
        """Without the queries before `first`."""
        return _Sides(
            self.queries[:, first:],
            self.queries_transposed[:, :, first:],
            self.gradient[:, first:],
            self.gradient_transposed[:, :, first:],
            self.normaliser[:, :, first:],
            self.offset[:, :, first:],
            self.index[first:],
        )


def _block_gradient(store: Entries, sides: _Sides, start: Array) -> tuple[Array, Array, Array]:
    """Gradients that pass through one block of keys: of the queries (transposed), of its keys, of its values."""
    dtype = store.keys.dtype
    scores = matmul(by_rows(store.keys.mT), sides.queries_transposed)
    seen = visible(store.index, sides.index, start).mT
    weights = _where(seen, jnp.exp(scores - sides.normaliser), 0.0)
    towards_weights = matmul(store.values, sides.gradient_transposed)
    towards_scores = (weights * (towards_weights - sides.offset)).astype(dtype)
    return (
        matmul(store.keys, towards_scores),
        matmul(towards_scores, sides.queries),
        matmul(weights.astype(dtype), sides.gradient),
    )


def _where(seen: Array, scores: Array, other: float) -> Array:
    """`scores` where the example's own mask says so, for all its heads."""
    split = scores.reshape(seen.shape[0], -1, *scores.shape[1:])
    return jnp.where(seen[:, None], split, other).reshape(scores.shape)


def _over_store(queries: Array, store: Entries, index: Array, start: Array | int, slots: int) -> Partial:
    """The share of the first `slots` of a store, whose rows may each serve several takes."""
    rows, count, dim = queries.shape
    own = store.keys.shape[0]
    takes = rows // own
    if takes > 1:  # takes of one example lie together: bring them beside the queries, so a key is read once
        heads = own // store.index.shape[0]
        queries = (
            queries.reshape(-1, takes, heads, count, dim).swapaxes(1, 2).reshape(own, takes * count, dim)
        )
        index = jnp.tile(index, takes)
    share = _over_blocks(queries, store, index, start, slots)
    if takes > 1:

        def back(x: Array) -> Array:
            return x.reshape(-1, heads, takes, count, x.shape[-1]).swapaxes(1, 2).reshape(rows, count, -1)

        share = Partial(*(back(x) for x in share))
    return share


def _share(queries: Array, store: Entries, index: Array, start: Array | int) -> Partial:
    dtype = store.keys.dtype
    scores = matmul(queries.astype(dtype), store.keys)
    scores = _where(visible(store.index, index, start), scores, MASKED)
    peak = scores.max(axis=-1, keepdims=True)
    weights = jnp.exp(scores - peak)
    total = matmul(weights.astype(dtype), store.values)
    return Partial(total, weights.sum(axis=-1, keepdims=True), peak)


def _keys_at_once(queries: int) -> int:
    """Keys of a block that so many queries are compared with."""
    return max((SCORES if jax.default_backend() == "cpu" else SCORES_OFF_CPU) // queries, BLOCK)


def _over_blocks(queries: Array, store: Entries, index: Array, start: Array | int, slots: int) -> Partial:
    """The share of the first `slots`, a block of keys at a time; the last block overlaps none, it is shorter."""
    rows, count, dim = queries.shape
    block = _keys_at_once(rows * count)
    whole = slots // block
    if whole == 0 or slots == block:
        return _share(queries, store.part(0, slots), index, start)

    def step(share: Partial, at: Array) -> tuple[Partial, None]:
        return share.merge(_share(queries, store.part(at, block), index, start)), None

    none = jnp.zeros((rows, count, 1), jnp.float32)
    share = Partial(jnp.zeros((rows, count, dim), jnp.float32), none, none + MASKED)
    share, _ = jax.lax.scan(step, share, block * jnp.arange(whole))
    if slots % block:
        share = share.merge(_share(queries, store.part(whole * block, slots % block), index, start))
    return share


def attend_reference(queries: Array, store: Entries, index: Array, start: Array | int = 0) -> Array:
    """The same for one store, as one softmax over the whole score matrix: what the fast path is tested against."""
    scores = jnp.einsum("rqd,rds->rqs", queries, store.keys).astype(jnp.float32)
    seen = visible(store.index, index, start)
    heads = scores.shape[0] // seen.shape[0]
    scores = jnp.where(jnp.repeat(seen, heads, axis=0), scores, -jnp.inf)
    return jnp.einsum("rqs,rsd->rqd", jax.nn.softmax(scores, axis=-1), store.values)
