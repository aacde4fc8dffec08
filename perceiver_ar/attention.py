"""Softmax attention over one or more stores of keys and values, and the plain reference beside it.

A query block's share of each store is summed without its normaliser and the shares are merged, so that a
score matrix never spans more than one block of queries and one block of keys (Milakov & Gimelshein 2018;
Rabe & Staats 2021), and stores of different batch sizes meet in one softmax without being copied together.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from perceiver_ar.cache import EMPTY, Entries

QUERY_BLOCK = 128
"""Queries a block: keys later than the block's last query are skipped, not masked."""
SCORES = 1 << 24
"""Most scores held at once; a block of keys is made as short as this asks (64 MiB in float32)."""
KEPT = 4 * SCORES
"""Most scores that all blocks of queries may hold side by side and keep for the backward pass; where there are more,
the blocks run one after the other and the backward pass computes their scores again."""
MASKED = np.float32(-1e30)
"""Score of a key that must not be seen: finite, so that a query with no keys yields numbers, not NaN."""


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


def visible(
    index: Int[Array, "examples slots"], query: Int[Array, "queries"], start: Int[Array, ""] | int
) -> Array:
    """Boolean (examples, queries, slots): slots that hold a token of the window, no later than the query."""
    index = index[:, None, :]
    return (index > EMPTY) & (index >= start) & (index <= query[None, :, None])


def attend(
    queries: Float[Array, "rows queries dim"],
    stores: list[Entries],
    index: Int[Array, "queries"],
    start: Int[Array, ""] | int = 0,
    *,
    aligned: bool = False,
) -> Float[Array, "rows queries dim"]:
    """Softmax attention of `queries`, already scaled, over all `stores` at once.

    Args:
        queries: rows are batch x heads, batch outermost. A store may have fewer rows by a whole factor:
            each of its examples then serves as many consecutive ones of the batch, and has an index row.
        index: where each query stands in the sequence; it sees entries with `start <= index <= its own`.
        aligned: the queries are the last ones of the only store, so that later keys need not be computed.

    Returns:
        The averages, in the queries' dtype; a query that sees nothing gets finite values of no meaning.
    """
    count = queries.shape[1]
    if not aligned:
        return _attend_block(queries, stores, index, start)
    (store,) = stores
    slots = store.keys.shape[-1]
    if queries.shape[0] * count * slots > KEPT and count > QUERY_BLOCK:
        return _attend_in_turn(queries, store, index, start)
    blocks = []
    for first in range(0, count, QUERY_BLOCK):
        last = min(first + QUERY_BLOCK, count)
        seen = slots - count + last
        part = Entries(store.keys[:, :, :seen], store.values[:, :seen], store.index[:, :seen])
        blocks.append(_attend_block(queries[:, first:last], [part], index[first:last], start))
    return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=1)


def _attend_in_turn(queries: Array, store: Entries, index: Array, start: Array | int) -> Array:
    """Blocks of queries as a loop, since a compiler may run unrolled ones at once, with all their scores."""
    rows, count, dim = queries.shape
    more = -count % QUERY_BLOCK
    queries = jnp.pad(queries, ((0, 0), (0, more), (0, 0))).reshape(rows, -1, QUERY_BLOCK, dim)
    index = jnp.pad(index, (0, more)).reshape(-1, QUERY_BLOCK)

    @jax.checkpoint
    def block(part: tuple[Array, Array]) -> Array:
        return _attend_block(part[0], [store], part[1], start)

    blocks = jax.lax.map(block, (queries.swapaxes(0, 1), index))
    return blocks.swapaxes(0, 1).reshape(rows, -1, dim)[:, :count]


def _attend_block(queries: Array, stores: list[Entries], index: Array, start: Array | int) -> Array:
    parts = [_over_store(queries, store, index, start) for store in stores]
    share = parts[0]
    for part in parts[1:]:
        share = share.merge(part)
    return (share.total / share.weight).astype(queries.dtype)


def _over_store(queries: Array, store: Entries, index: Array, start: Array | int) -> Partial:
    """The share of one store, whose rows may each serve several takes."""
    rows, count, dim = queries.shape
    own, _, slots = store.keys.shape
    takes = rows // own
    heads = own // store.index.shape[0] if store.index.shape[0] > 1 else own
    if takes > 1:  # takes of one example lie together: bring them beside the queries, so a key is read once
        heads = own // store.index.shape[0]
        queries = (
            queries.reshape(-1, takes, heads, count, dim).swapaxes(1, 2).reshape(own, takes * count, dim)
        )
        index = jnp.tile(index, takes)
    block = max(SCORES // (own * takes * count), 128)
    share = (
        _over_blocks(queries, store, index, start, block)
        if slots > block
        else _share(queries, store, index, start)
    )
    if takes > 1:

        def back(x: Array) -> Array:
            return x.reshape(-1, heads, takes, count, x.shape[-1]).swapaxes(1, 2).reshape(rows, count, -1)

        share = Partial(*(back(x) for x in share))
    return share


def _share(queries: Array, store: Entries, index: Array, start: Array | int) -> Partial:
    rows, count, _ = queries.shape
    scores = jnp.matmul(queries, store.keys, preferred_element_type=jnp.float32)
    seen = visible(store.index, index, start)
    scores = scores.reshape(seen.shape[0], -1, *scores.shape[1:])
    scores = jnp.where(seen[:, None], scores, MASKED).reshape(rows, count, -1)
    peak = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    weights = jnp.exp(scores - peak)
    total = jnp.matmul(weights.astype(store.values.dtype), store.values, preferred_element_type=jnp.float32)
    return Partial(total, weights.sum(axis=-1, keepdims=True), peak)


def _over_blocks(queries: Array, store: Entries, index: Array, start: Array | int, block: int) -> Partial:
    """The share of a long store, a block of keys at a time; the last block overlaps none, it is shorter."""
    slots = store.keys.shape[-1]
    whole = slots // block

    def part(at: Array | int, size: int) -> Entries:
        cut = jax.lax.dynamic_slice_in_dim
        return Entries(
            cut(store.keys, at, size, 2), cut(store.values, at, size, 1), cut(store.index, at, size, 1)
        )

    @jax.checkpoint
    def step(share: Partial, at: Array) -> tuple[Partial, None]:
        return share.merge(_share(queries, part(at, block), index, start)), None

    rows, count, dim = queries.shape
    none = jnp.zeros((rows, count, 1), jnp.float32)
    share = Partial(jnp.zeros((rows, count, dim), jnp.float32), none, none + MASKED)
    share, _ = jax.lax.scan(step, share, block * jnp.arange(whole))
    if slots % block:
        share = share.merge(_share(queries, part(whole * block, slots % block), index, start))
    return share


def attend_reference(queries: Array, store: Entries, index: Array, start: Array | int = 0) -> Array:
    """The same for one store, as one softmax over the whole score matrix: what the fast path is tested against."""
    scores = jnp.einsum("rqd,rds->rqs", queries, store.keys).astype(jnp.float32)
    seen = visible(store.index, index, start)
    heads = scores.shape[0] // seen.shape[0]
    scores = jnp.where(jnp.repeat(seen, heads, axis=0), scores, -jnp.inf)
    return jnp.einsum("rqs,rsd->rqd", jax.nn.softmax(scores, axis=-1), store.values)
