"""Keys and values kept between calls, in the layout the attention reads.

Batch and heads are one leading axis and keys are stored transposed: on a CPU a dot reads exactly these shapes,
and any reshape fused with an in-place update would copy the whole cache at every token.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from perceiver_ar.config import ModelConfig
from perceiver_ar.products import cache_dtype

EMPTY = -1
"""Index of a slot that holds nothing, or padding: never attended to."""
MASKED = -1e30
"""Score of a key that must not be seen: finite, so that a query with no keys yields numbers, not NaN."""


class Entries(NamedTuple):
    """Keys and values of one attention, each slot with the index its token has in the sequence.

    `rows` is batch x heads, batch outermost. `index` has one row an example, or one for all where none is padded.
    """

    keys: Float[Array, "rows dim slots"]
    values: Float[Array, "rows slots dim"]
    index: Int[Array, "examples slots"]

    @classmethod
    def empty(cls, heads: tuple[int, int, int], slots: int, dtype: str, examples: int = 1) -> "Entries":
        """`slots` slots that hold nothing, for `heads` = (batch, heads, channels a head)."""
        batch, count, dim = heads
        return cls(
            jnp.zeros((batch * count, dim, slots), dtype),
            jnp.zeros((batch * count, slots, dim), dtype),
            jnp.full((examples, slots), EMPTY, jnp.int32),
        )

    def part(self, at: Array | int, count: int) -> "Entries":
        """`count` slots from `at` on."""
        cut = jax.lax.dynamic_slice_in_dim
        return Entries(
            cut(self.keys, at, count, 2), cut(self.values, at, count, 1), cut(self.index, at, count, 1)
        )

    def put(self, new: "Entries", at: Array | int) -> "Entries":
        """Write `new` into the slots from `at` on, of which there must be enough."""
        update = jax.lax.dynamic_update_slice_in_dim
        return Entries(
            update(self.keys, new.keys, at, axis=2),
            update(self.values, new.values, at, axis=1),
            update(self.index, new.index, at, axis=1),
        )

    def append(self, new: "Entries", at: Int[Array, ""]) -> "Entries":
        """Write `new` into the slots from `at` on, as in a ring."""
        count, slots = new.keys.shape[-1], self.keys.shape[-1]
        at = at % slots
        index = new.index[: self.index.shape[0]]
        if count == 1:  # one slot cannot wrap, and a slice updates in place where a scatter may not
            return self.put(new._replace(index=index), at)
        where = (at + jnp.arange(count)) % slots
        return Entries(
            self.keys.at[:, :, where].set(new.keys),
            self.values.at[:, where].set(new.values),
            self.index.at[:, where].set(index),
        )

    def grow(self, slots: int) -> "Entries":
        """The same entries with room for `slots`; only for a ring that has not wrapped yet."""
        more = slots - self.keys.shape[-1]
        return Entries(
            jnp.pad(self.keys, ((0, 0), (0, 0), (0, more))),
            jnp.pad(self.values, ((0, 0), (0, more), (0, 0))),
            jnp.pad(self.index, ((0, 0), (0, more)), constant_values=EMPTY),
        )


class Latents(NamedTuple):
    """What a fill of the latents, and the tokens since, leave in the latent layers."""

    layers: tuple[tuple[Float[Array, "rows dim slots"], Float[Array, "rows slots dim"]], ...]
    """Keys and values of each layer."""
    inputs: Float[Array, "batch slots width"]
    """What each latent was before the first layer: the cross-attend's, which a refill need not compute again."""
    slots: Int[Array, "examples slots"]
    """Index of the latent in each slot, the same in all layers."""
    filled: Int[Array, ""]
    """How many there are."""
    shared: Int[Array, ""]
    """How many of the first ones all takes of an example have alike: those of the prefill, and none after a refill."""

    @classmethod
    def empty(cls, config: ModelConfig, batch: int) -> "Latents":
        """None yet, with room for all that the config allows."""
        heads = (batch, config.heads, config.width // config.heads)
        layers = [
            Entries.empty(heads, config.latents, cache_dtype(config), batch) for _ in range(config.layers)
        ]
        inputs = jnp.zeros((batch, config.latents, config.width))
        slots = jnp.full((batch, config.latents), EMPTY, jnp.int32)
        filled, shared = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)  # each its own, to be donated
        return cls(tuple((keys, values) for keys, values, _ in layers), inputs, slots, filled, shared)


class Cache(NamedTuple):
    """What the model remembers of the calls before: passed in, handed back, never hidden in a module.

    Tokens are numbered from the first one of the first call, padding included: `length` is the next index.
    A query at index i sees the entries with `start <= index <= i`, whichever part holds them.
    """

    prefix: Entries | None
    """Cross-attend entries of the first call, one copy for all takes of an example; None before that call, and
    when all of them have left the window."""
    recent: Entries | None
    """Cross-attend entries of the later calls, a ring an example and take; None before `fork`."""
    latents: Latents
    """Those since the last fill."""
    length: Int[Array, ""]
    """Tokens so far."""
    start: Int[Array, ""]
    """First index still inside the context window."""
    origin: Int[Array, ""]
    """Index of the first token after the first call: slot 0 of the ring."""
    known: Float[Array, "batch seq width"] | None = None
    """What the cross-attend gives the tokens of the next call, where that is known; see `earlier`."""

    @classmethod
    def empty(cls, config: ModelConfig, batch: int, start: Int[Array, ""] | int = 0) -> "Cache":
        """A cache for a first call on `batch` examples, which becomes the prefix."""
        zero, start = jnp.zeros((), jnp.int32), jnp.asarray(start, jnp.int32)
        return cls(None, None, Latents.empty(config, batch), zero, start, zero)

    def fork(self, config: ModelConfig, takes: int, slots: int) -> "Cache":
        """`takes` continuations of each example that share the prefix; takes of one example lie together.

        `slots`: room for the tokens of later calls, see `grow`.
        """

        def repeat(x: Array, heads: int) -> Array:
            if takes == 1:
                return x
            return jnp.repeat(x.reshape(-1, heads, *x.shape[1:]), takes, axis=0).reshape(-1, *x.shape[1:])

        heads = (
            takes * self.latents.slots.shape[0],
            config.cross_heads,
            config.width // config.cross_heads,
        )
        return self._replace(
            recent=Entries.empty(heads, slots, cache_dtype(config)),
            latents=self.latents._replace(
                layers=jax.tree.map(lambda x: repeat(x, config.heads), self.latents.layers),
                inputs=repeat(self.latents.inputs, 1),
                slots=repeat(self.latents.slots, 1),
                shared=jnp.copy(self.latents.filled),
            ),
            origin=jnp.copy(self.length),
        )

    def earlier(
        self, latents: Latents, length: Int[Array, ""], start: Int[Array, ""], known: int = 0
    ) -> "Cache":
        """The cache as it was at `length`, with other latents: for a call on tokens that are in it already.

        Their cross-attend entries stay where they are, those past `length` unseen until they are written again.

        Args:
            known: how many of the call's tokens, all or none, take what the cross-attend gives them from
                `Latents.inputs`. That is right only if `start` is what it was when these were made.
        """
        found = None
        if known:
            at = self.latents.filled - (self.length - length)
            found = jax.lax.dynamic_slice_in_dim(self.latents.inputs, at, known, axis=1)
        return self._replace(latents=latents, length=length, start=start, known=found)
