"""Perceiver AR (Hawthorne et al., ICML 2022): one call for training, prefill, step and refill."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from perceiver_ar.attention import attend, attend_whole
from perceiver_ar.cache import EMPTY, Cache, Entries, Latents
from perceiver_ar.config import PAD, ModelConfig
from perceiver_ar.positions import Rotation, learned, rotate, rotation, sinusoidal
from perceiver_ar.products import cache_dtype, kernels, product

Params = dict[str, Any]
Key = Array

PART = 512
"""Most inputs whose keys and values are computed at once for a cache: for all of a long primer's it takes 200 MiB."""
UNROLL = 8
"""Latent layers an iteration of the training scan: on a CPU a step of six unrolled layers is a tenth faster."""


def _matrix(key: Key, inputs: int, outputs: int, gain: float = 1.0) -> nnx.Param:
    return nnx.Param(jax.random.normal(key, (outputs, inputs)) * (gain * inputs**-0.5))


def project(x: Float[Array, "... inputs"], weight: nnx.Param, dtype: str) -> Float[Array, "... outputs"]:
    """`x` times a matrix (outputs, inputs), as one flat product: on a CPU its gradient is a fifth faster so."""
    y = product(x.reshape(-1, x.shape[-1]), weight[...], dtype)
    return y.reshape(*x.shape[:-1], y.shape[-1])


class LayerNorm(nnx.Module):
    """Layer normalisation in float32 (Ba et al. 2016)."""

    def __init__(self, width: int) -> None:
        self.scale = nnx.Param(jnp.ones(width))
        self.offset = nnx.Param(jnp.zeros(width))

    def __call__(self, x: Float[Array, "... width"]) -> Float[Array, "... width"]:
        x = x - x.mean(axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + 1e-5)
        return x * self.scale[...] + self.offset[...]


class Attention(nnx.Module):
    """The projections of multi-head attention; cross and self differ only in what they are given."""

    def __init__(self, config: ModelConfig, heads: int, key: Key) -> None:
        keys = jax.random.split(key, 3)
        self.heads, self.dtype = heads, config.dtype
        self.query = _matrix(keys[0], config.width, config.width)
        self.key_value = _matrix(keys[1], config.width, 2 * config.width)
        self.out = _matrix(keys[2], config.width, config.width, (2 * config.layers + 2) ** -0.5)

    def queries(self, x: Float[Array, "batch seq width"], by: Rotation | None) -> Array:
        """Rotated and scaled queries, (batch x heads, seq, dim)."""
        q = project(x, self.query, self.dtype).reshape(*x.shape[:2], self.heads, -1)
        q = rotate(q, by) * q.shape[-1] ** -0.5
        return q.swapaxes(1, 2).reshape(-1, x.shape[1], q.shape[-1])

    def entries(
        self, x: Float[Array, "batch seq width"], by: Rotation | None, index: Array, dtype: Any
    ) -> Entries:
        """Rotated keys and values of `x`, in the layout of the cache."""
        kv = project(x, self.key_value, self.dtype).reshape(*x.shape[:2], 2, self.heads, -1)
        keys, values = rotate(kv[:, :, 0], by), kv[:, :, 1]
        seq, dim = x.shape[1], keys.shape[-1]
        keys = keys.transpose(0, 2, 3, 1).reshape(-1, dim, seq).astype(dtype)
        values = values.swapaxes(1, 2).reshape(-1, seq, dim).astype(dtype)
        return Entries(keys, values, index)

    def merge_heads(self, x: Float[Array, "rows seq dim"]) -> Float[Array, "batch seq width"]:
        """Average of each head to the block's output."""
        x = x.reshape(-1, self.heads, *x.shape[1:]).swapaxes(1, 2)
        return project(x.reshape(*x.shape[:2], -1), self.out, self.dtype)


class Block(nnx.Module):
    """Pre-norm attention and a squared-ReLU MLP, each with a residual on the queries' side."""

    def __init__(self, config: ModelConfig, heads: int, key: Key, *, cross: bool = False) -> None:
        keys = jax.random.split(key, 3)
        hidden = config.widening * config.width
        self.dropout = config.dropout
        self.norm = LayerNorm(config.width)
        self.inputs_norm = LayerNorm(config.width) if cross else None
        self.attention = Attention(config, heads, keys[0])
        self.mlp_norm = LayerNorm(config.width)
        self.expand = _matrix(keys[1], config.width, hidden)
        self.contract = _matrix(keys[2], hidden, config.width, (2 * config.layers + 2) ** -0.5)

    def entries(self, x: Array, by: Rotation | None, index: Array, dtype: Any) -> Entries:
        """Keys and values of the attention's inputs."""
        return self.attention.entries((self.inputs_norm or self.norm)(x), by, index, dtype)

    def queries(self, x: Array, by: Rotation | None) -> Array:
        """Queries of the residual stream."""
        return self.attention.queries(self.norm(x), by)

    def finish(self, x: Array, attended: Array, key: Key | None) -> Float[Array, "batch seq width"]:
        """The residual stream after the attention's averages and the MLP."""
        first, second = (None, None) if key is None else jax.random.split(key)
        x = x + _drop(self.attention.merge_heads(attended), self.dropout, first)
        dtype = self.attention.dtype
        hidden = jnp.square(jax.nn.relu(project(self.mlp_norm(x), self.expand, dtype)))
        return x + _drop(project(hidden, self.contract, dtype), self.dropout, second)


def _drop(x: Array, rate: float, key: Key | None) -> Array:
    if key is None or not rate:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def drop_prefix(
    tokens: Int[Array, "batch seq"],
    positions: Int[Array, "batch seq axes"],
    latents: int,
    rate: float,
    key: Key,
) -> tuple[Int[Array, "batch kept"], Int[Array, "batch kept axes"]]:
    """Cross-attend dropout: keep a random (1 - rate) of the tokens before the latents, in order.

    They are removed before they are embedded, so that a hidden token costs nothing (paper, appendix).
    """
    prefix = tokens.shape[1] - latents
    kept = prefix - int(prefix * rate)
    order = jax.random.uniform(key, (tokens.shape[0], prefix)).argsort(axis=1)[:, :kept]
    chosen = jnp.concatenate(
        [jnp.sort(order, axis=1), jnp.broadcast_to(prefix + jnp.arange(latents), (tokens.shape[0], latents))],
        axis=1,
    )
    return jnp.take_along_axis(tokens, chosen, 1), jnp.take_along_axis(positions, chosen[..., None], 1)


class PerceiverAR(nnx.Module):
    """The model: embedding, cross-attend over the whole context, latent stack, head (paper, section 3)."""

    def __init__(self, config: ModelConfig, key: Key) -> None:
        keys = jax.random.split(key, 5)
        self.config = config
        # As strong as the sines and cosines that are added: much weaker, what a token is drowns in where it is.
        scale = 0.5**0.5 if config.position == "sinusoidal" else 0.02
        self.embedding = nnx.Param(scale * jax.random.normal(keys[0], (config.vocab_size, config.width)))
        shape = config.position_shape if config.position == "learned" else ()
        self.tables = nnx.Dict({str(axis): self._table(keys[4], axis) for axis in range(len(shape))})
        self.cross = Block(config, config.cross_heads, keys[1], cross=True)
        self.layers = jax.vmap(lambda k: Block(config, config.heads, k))(
            jax.random.split(keys[2], config.layers)
        )
        self.norm = LayerNorm(config.width)
        self.head = _matrix(keys[3], config.width, config.vocab_size)

    def __call__(
        self,
        tokens: Int[Array, "batch seq"],
        positions: Int[Array, "batch seq axes"],
        latents: int,
        cache: Cache | None = None,
        *,
        predict: int | None = None,
        key: Key | None = None,
    ) -> tuple[Float[Array, "batch predict vocab"], Cache | None]:
        """Logits of the token after each of the last `predict` tokens, and the cache with all tokens in it.

        Training is this call without a cache; prefill with `Cache.empty`; a step is one token with one
        latent; a refill is calls on the last tokens again, with new latents (`Cache.earlier`). Only the first call on
        a cache may have more tokens than latents. Examples of unequal length are padded with `PAD` on the left.

        Args:
            latents: how many of the last tokens are processed deeply.
            predict: of how many of these logits are asked for; None: of all. With a cache the last layer then computes
                no others.
            key: randomness of dropout and cross-attend dropout, in training only.

        Raises:
            ValueError: more latents than tokens, or than the config allows.
        """
        config = self.config
        if not 0 < latents <= min(tokens.shape[1], config.latents):
            raise ValueError(
                f"{latents} latents do not fit {tokens.shape[1]} tokens and {config.latents} latents"
            )
        layer_key = None
        if key is not None:
            drop_key, layer_key = jax.random.split(key)
            if config.cross_attend_dropout and tokens.shape[1] > latents:
                tokens, positions = drop_prefix(
                    tokens, positions, latents, config.cross_attend_dropout, drop_key
                )
        begin = jnp.zeros((), jnp.int32) if cache is None else cache.length
        order = begin + jnp.arange(tokens.shape[1], dtype=jnp.int32)
        index = jnp.where(tokens == PAD, EMPTY, order)
        latent_positions = positions[:, -latents:]
        x, cache = self._cross_attend(tokens, positions, index, order[-latents:], latents, cache, layer_key)
        by = rotation(config, config.heads, latent_positions)
        if cache is None:
            x = self._latent_stack(x, by, index[:, -latents:], order[-latents:], layer_key)
        else:
            asked = predict or latents
            x, cache = self._cached_stack(x, by, index[:, -latents:], order[-latents:], cache, asked)
        if predict:
            x = x[:, -predict:]
        return project(self.norm(x), self.head, config.dtype), cache

    def unrolled(self) -> "PerceiverAR":
        """The same model with arrays of its own for each latent layer: what `generate` wants.

        A stacked layer would be sliced out of its stack, and so copied, for every token.
        """
        model = nnx.merge(*nnx.split(self))
        model.layers = nnx.List(self._blocks())
        return model

    def _stack(self) -> Block:
        """The latent layers as one, their parameters stacked."""
        if isinstance(self.layers, nnx.List):
            return jax.tree.map(lambda *each: jnp.stack(each), *self.layers)
        return self.layers

    def _blocks(self) -> list[Block]:
        """The latent layers one by one."""
        if isinstance(self.layers, nnx.List):
            return list(self.layers)
        return [
            jax.tree.map(lambda stacked, n=number: stacked[n], self.layers)
            for number in range(self.config.layers)
        ]

    def _table(self, key: Key, axis: int) -> nnx.Param:
        shape = (self.config.position_shape[axis], self.config.width)
        return nnx.Param(0.02 * jax.random.normal(jax.random.fold_in(key, axis), shape))

    def _embed(self, tokens: Array, positions: Array) -> Array:
        x = self.embedding[...][tokens].astype(jnp.float32)
        if self.config.position == "sinusoidal":
            x = x + sinusoidal(self.config, positions)
        elif self.config.position == "learned":
            x = x + learned([self.tables[str(axis)][...] for axis in range(self.config.axes)], positions)
        return x

    def _cross_attend(self, tokens, positions, index, order, latents, cache, key):
        """The latents after the cross-attend, (batch, latents, width), and the cache with its new entries."""
        if cache is not None and cache.known is not None:
            return cache.known, cache
        parts = cache is not None and tokens.shape[1] > PART
        dtype = self.config.dtype if cache is None else cache_dtype(self.config)
        new = (self._entries_in_parts if parts else self._entries)(tokens, positions, index, dtype)
        positions = positions[:, -latents:]
        x = self._embed(tokens[:, -latents:], positions)
        queries = self.cross.queries(x, rotation(self.config, self.config.cross_heads, positions))
        if cache is None:
            attended = attend_whole(queries, new, order)
        elif cache.recent is None:
            cache = cache._replace(prefix=new)
            attended = attend(queries, [new], order, cache.start, aligned=True)
        else:
            cache = cache._replace(recent=cache.recent.append(new, cache.length - cache.origin))
            stores = [store for store in (cache.prefix, cache.recent) if store is not None]
            attended = attend(queries, stores, order, cache.start)
        return self.cross.finish(x, attended, _fold(key, self.config.layers)), cache

    def _entries(self, tokens, positions, index, dtype):
        """Keys and values of all inputs."""
        by = rotation(self.config, self.config.cross_heads, positions)
        return self.cross.entries(self._embed(tokens, positions), by, index, dtype)

    def _entries_in_parts(self, tokens, positions, index, dtype):
        """The same, computed one part after the other."""
        (batch, seq), config = tokens.shape, self.config

        def put(store: Entries, at: Array | int, count: int) -> Entries:
            part = [jax.lax.dynamic_slice_in_dim(x, at, count, 1) for x in (tokens, positions, index)]
            return store.put(jax.lax.optimization_barrier(self._entries(*part, dtype=dtype)), at)

        heads = batch, config.cross_heads, config.width // config.cross_heads
        store = Entries.empty(heads, seq, dtype, batch)
        store = jax.lax.fori_loop(0, seq // PART, lambda n, store: put(store, n * PART, PART), store)
        rest = seq % PART
        return put(store, seq - rest, rest) if rest else store

    def _latent_stack(self, x, by, index, order, key):
        """All latent layers as one scan over their stacked parameters."""

        def step(x: Array, layer: tuple[Block, Array]) -> tuple[Array, None]:
            block, number = layer
            attended = attend_whole(
                block.queries(x, by), block.entries(x, by, index, self.config.dtype), order
            )
            return block.finish(x, attended, _fold(key, number)), None

        unroll = UNROLL
        if self.config.remat:  # unrolled, a compiler sees that it has computed it all before, and keeps it
            step, unroll = jax.checkpoint(step), 1
        return jax.lax.scan(step, x, (self._stack(), jnp.arange(self.config.layers)), unroll=unroll)[0]

    def _cached_stack(self, x, by, index, order, cache, predict):
        """The same layers one by one, each with its part of the cache; the last gives but so many of the latents."""
        kept, before, first, seq = [], cache.latents, x, x.shape[1]
        slots = before.slots
        examples = None if cache.prefix is None else cache.prefix.keys.shape[0] // self.config.cross_heads
        takes = x.shape[0] // examples if examples else 1
        fresh = cache.recent is None and cache.known is None
        given = by, index, order, before.filled, before.shared
        counts = [seq] * (self.config.layers - 1) + [predict]
        for block, (keys, values), count in zip(self._blocks(), before.layers, counts, strict=True):
            entries, shape = Entries(keys, values, before.slots), (fresh, takes, count)
            x, (keys, values, slots) = _cached_layer(block, x, entries, *given, *shape)
            kept.append((keys, values))
        inputs = jax.lax.dynamic_update_slice_in_dim(before.inputs, first, before.filled, axis=1)
        latents = Latents(tuple(kept), inputs, slots, before.filled + seq, before.shared)
        return x, cache._replace(latents=latents, length=order[-1] + 1, known=None)


@partial(jax.jit, static_argnums=(8, 9, 10))  # for all layers are alike, and it is traced for the first alone
def _cached_layer(  # noqa: PLR0913
    block: Block,
    x: Array,
    entries: Entries,
    by: Any,
    index: Array,
    order: Array,
    filled: Array,
    shared: Array,
    first: bool,
    takes: int,
    count: int,
) -> tuple[Array, Entries]:
    """The last `count` latents behind a layer, and `entries` with the keys and values of all of them.

    At the `first` call there is nothing else in these.
    """
    new = block.entries(x, by, index, entries.keys.dtype)
    entries = entries.put(new, filled)
    store = new if first else entries  # which need not be read back
    x, by, order = x[:, -count:], jax.tree.map(lambda part: part[:, -count:], by), order[-count:]
    attended = attend(block.queries(x, by), [store], order, aligned=first, alike=(takes, shared))
    return block.finish(x, attended, None), entries


def _fold(key: Key | None, number: Array | int) -> Key | None:
    return None if key is None else jax.random.fold_in(key, number)


def to_params(model: PerceiverAR) -> Params:
    """The model's arrays as a plain nested dict, in float32."""
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    params |= {"layers": nnx.to_pure_dict(nnx.state(model._stack(), nnx.Param))}
    return jax.tree.map(lambda x: x.astype(jnp.float32), params)


def from_params(config: ModelConfig, params: Params, *, unrolled: bool = False) -> PerceiverAR:
    """The model that `to_params` described; shapes are checked.

    Args:
        unrolled: what `PerceiverAR.unrolled` would give, from arrays of any type, numpy's too. It never holds the
            layers both stacked and alone, which would be the most memory that generation takes. float16 matrices stay
            what they are where that is faster (`products.kernels`); all else becomes float32.

    Raises:
        ValueError: an array is missing, unknown, or of another shape than the config asks for.
    """
    shapes = jax.eval_shape(lambda: PerceiverAR(config, jax.random.key(0)))
    graph, state = nnx.split(shapes)
    wanted = jax.tree.map(lambda x: x.shape, nnx.to_pure_dict(state))
    got = jax.tree.map(lambda x: tuple(x.shape), params)
    if wanted != got:
        raise ValueError("the weights do not fit the model's config: they were made for another one")
    if unrolled:
        graph, _ = nnx.split(jax.eval_shape(lambda: PerceiverAR(config, jax.random.key(0)).unrolled()))
        alone = {
            number: jax.tree.map(lambda stacked, n=number: stacked[n], params["layers"])
            for number in range(config.layers)
        }

        def kept(x: Any) -> Array:
            half = x.dtype == jnp.float16 and x.ndim == 2 and kernels() is not None
            return jnp.asarray(x, x.dtype if half else jnp.float32)

        params = jax.tree.map(kept, params | {"layers": alone})
    return nnx.merge(graph, nnx.State(params))
