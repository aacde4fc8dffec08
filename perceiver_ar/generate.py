"""Continue token sequences: prefill, jitted chunks of steps, and beside them the refill for when the latents are full.

Tokens in, tokens out; music and files are other modules' business.
"""

from collections.abc import Generator, Hashable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from perceiver_ar import memory
from perceiver_ar.ahead import Ahead, Program, Shape
from perceiver_ar.cache import Cache, Latents
from perceiver_ar.codecs.base import Codec
from perceiver_ar.config import FIRST_DATA, PAD
from perceiver_ar.fills import bucket, heard, piece_of, primer_limit, refill_room, refilled
from perceiver_ar.model import PerceiverAR
from perceiver_ar.products import helped
from perceiver_ar.sampling import Lately, Sampling, Values, after, gumbel, refused, sample

CHUNK = 32
"""Tokens a call of the device: about a second of piano."""
SMALLEST = 64
"""Fewest prefix slots; a shorter primer is padded, so that few shapes are ever compiled."""
RING = 1024
"""First size of the ring of new tokens; it doubles up to the context."""


class Chunk(NamedTuple):
    """New tokens, int32 (rows, count), and the logits each was drawn from, float32 (rows, count, vocab)."""

    tokens: np.ndarray
    logits: np.ndarray


def generate(
    model: PerceiverAR,
    codec: Codec,
    primers: list[np.ndarray],
    *,
    takes: int = 1,
    sampling: Sampling | None = None,
    seed: int = 0,
    chunk: int = CHUNK,
) -> Generator[Chunk]:
    """Continue every primer `takes` times, without end; closing the iterator stops at once.

    Rows of a chunk are primers x takes, the takes of one primer together. All takes of a primer share its
    prefill. A row depends on the seed, the primers and its number alone, not on its takes or the chunk size: in
    float32 to the last bits of the logits, in bfloat16 to its rounding.

    Args:
        primers: int tokens (n,), one or more each; of a long one the model hears the end (`heard`), and all of its
            tokens count for the table of legal tokens and the bounds of `sampling`.

    Raises:
        ValueError: an empty primer, a token the model does not know, no take, an empty chunk, or a model
            with one latent, which leaves no room for a new token.
    """
    if not primers or takes < 1 or chunk < 1:
        raise ValueError("give at least one primer, one take and one token a chunk")
    if model.config.latents < 2:
        raise ValueError("a model with one latent cannot continue anything: it needs two or more")
    for primer in primers:
        if len(primer) < 1:
            raise ValueError("a primer must have at least one token")
        if primer.min() < PAD or primer.max() >= model.config.vocab_size:
            raise ValueError(f"a primer's tokens must lie between 0 and {model.config.vocab_size - 1}")
    run = _Run(model, codec, primers, takes, sampling or Sampling(), seed, chunk)
    try:
        while True:
            yield run.advance()
    finally:
        run.close()


class _Run:
    """The state of one `generate`: the cache, the last logits, and the tokens a refill needs again."""

    def __init__(
        self,
        model: PerceiverAR,
        codec: Codec,
        primers: list[np.ndarray],
        takes: int,
        sampling: Sampling,
        seed: int,
        chunk: int,
    ) -> None:
        self.chunk, self.ahead = chunk, Ahead()
        self.model, self.codec, self.config = model.unrolled(), codec, model.config
        self.legal, self.values = jnp.asarray(codec.legal), sampling.values()
        rows = jnp.arange(len(primers) * takes)
        self.piece = piece_of(self.config, len(rows))
        self.keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.key(seed), row))(rows)
        data = [np.count_nonzero(primer >= FIRST_DATA) for primer in primers]
        self.drawn = jnp.repeat(jnp.asarray(data, jnp.int32), takes)
        forks = [primer for primer in primers for _ in range(takes)]
        self.lately = sampling.lately(forks, self.config.vocab_size)
        self._prefill([heard(self.config, primer) for primer in primers], takes)

    def _prefill(self, primers: list[np.ndarray], takes: int) -> None:
        """Fill the cache with the primers, the shorter ones padded on the left, and fork it into takes."""
        longest = max(map(len, primers))
        size = bucket(longest, min(SMALLEST, refilled(self.config)), max(longest, primer_limit(self.config)))
        latents = min(size, refilled(self.config))
        tokens = np.full((len(primers), size), PAD, np.int32)
        for row, primer in zip(tokens, primers, strict=True):
            row[size - len(primer) :] = primer
        self.shift = np.repeat([size - len(primer) for primer in primers], takes)
        self.history = np.repeat(tokens, takes, axis=0)
        self.origin = self.length = size
        self.ahead.begun.clear()
        self.room = self._room(size, self.config.latents - latents)
        positions = self._positions(0, size)[::takes]
        given = self.model, tokens, positions, latents, self._start(self.full)
        self.ahead.compile_now("prefill", (_prefill, given))
        with helped():
            logits, cache = jax.block_until_ready(_prefill(*given))
        self.logits = jnp.repeat(logits, takes, axis=0)
        self.cache = cache.fork(self.config, takes, max(min(RING, self.config.context), self.room))
        self.coming: Latents | None = None
        self.ready = self.full - refilled(self.config)

    def advance(self) -> Chunk:
        """The next chunk: fewer tokens where the latents are full before."""
        if self.room == 0:
            self._turn()
        else:
            self._refill()
        steps = min(self.chunk, self.room)
        given, name = self._arguments(self.cache, steps), self._shape().steps
        if name not in self.ahead.begun:
            self.ahead.compile_now(name, (_steps, given))
        with helped():
            self.cache, self.logits, self.lately, tokens, logits = _steps(*given)
            tokens = np.asarray(tokens)[:, :steps]
        self.history = np.concatenate([self.history, tokens], axis=1)[:, -self.config.context :]
        self.length, self.room, self.drawn = self.length + steps, self.room - steps, self.drawn + steps
        self._compile_ahead()
        return Chunk(tokens, np.asarray(logits)[:, :steps])

    @property
    def full(self) -> int:
        """The length at which the latents will be full."""
        return self.length + self.room

    def _refill(self) -> None:
        """Compute latents of the next fill for tokens that are there already, so that nobody waits when these are full.

        It begins as late as two tokens computed again for each new one allow: a continuation that ends before has no
        use for it. Until its program is compiled it is put off.
        """
        shape, start = self._shape(), self._start(self._end(self.full))
        while self.full - self.ready >= 2 * self.room:
            size = (self.full - self.ready) % self.piece or self.piece
            late = self.ready + size > self.length
            if late or self._begins_again(self.full) or not self.ahead.ready(shape.refill(size)):
                return
            if self.coming is None:
                self.coming = _no_latents(self.config, len(self.history))
            at = self.ready - self.length + self.history.shape[1]
            tokens, positions = self.history[:, at : at + size], self._positions(self.ready, size)
            with helped():
                seen = _seen(self.cache, shape)
                logits, seen, self.coming = jax.block_until_ready(
                    _refill(self.model, seen, self.coming, tokens, positions, self.ready, start)
                )
            prefix, recent = self.cache.prefix, self.cache.recent
            self.cache = seen._replace(prefix=prefix, recent=recent) if shape.known else seen
            self.ready += size
            if self.ready == self.full:
                self.logits = logits

    def _turn(self) -> None:
        """Go on with the latents of the refill (paper, section 3.2)."""
        if self._begins_again(self.length):
            limit = primer_limit(self.config)
            self._prefill([row[row != PAD][-limit:] for row in self.history], 1)
            return
        needs = self._needs(self.length)
        while not all(map(self.ahead.ready, {needs.steps, *self._refills(self._shape())})):
            self.ahead.wait()
            self._compile_ahead()
        self._refill()
        assert self.coming is not None
        self.room = self._room(self.length)
        start = jnp.asarray(self._start(self.full), jnp.int32)
        self.cache = _fitted(self.cache, needs)._replace(latents=self.coming, start=start)
        self.coming, self.ready = None, self.full - refilled(self.config)

    def _start(self, end: int) -> int:
        """First index in the window of tokens up to `end`; the window does not move among absolute positions."""
        return max(0, end - self.config.context) if self.config.position == "rotary" else 0

    def _room(self, length: int, most: int | None = None) -> int:
        """New tokens of a fill at `length`, for which there are `most` latents.

        Absolute positions end with the context of the row that has most tokens. One more token is drawn from what all
        of it says, before the window begins again with that token in it.
        """
        most = refill_room(self.config) if most is None else most
        if self.config.position == "rotary":
            return most
        return max(0, min(most, self.config.context + 1 + int(self.shift.min()) - length))

    def _end(self, length: int) -> int:
        """The length at which the latents of a fill at `length` will be full."""
        return length + self._room(length)

    def _begins_again(self, length: int) -> bool:
        """Whether a refill at `length` is a prefill of the window's last tokens."""
        return self._room(length) == 0

    def _known(self, end: int) -> bool:
        """Whether the window up to `end`, and that up to the end of the fill behind it, begin with the same token."""
        before, behind = self._start(end), self._start(self._end(end))
        return before == behind or behind <= self.shift.min()

    def _shape(self) -> Shape:
        """What there is."""
        assert self.cache.recent is not None
        slots, prefix = self.cache.recent.keys.shape[-1], self.cache.prefix is not None
        return Shape(slots, prefix, self._known(self.full))

    def _needs(self, length: int) -> Shape:
        """The shape for what follows a refill at `length`."""
        ring, visible, _ = self._shape()
        end = self._end(length)
        needed = min(end - self.origin, self.config.context)
        if self.cache.prefix is not None:
            visible = self._start(end) < self.cache.prefix.keys.shape[-1]
        slots = ring if needed <= ring else min(max(2 * ring, needed), self.config.context)
        return Shape(slots, visible, self._known(end))

    def _compile_ahead(self) -> None:
        """Compile in the background what will be needed before long and is not compiled yet."""
        if self.ahead.busy:
            return
        every, shape = refill_room(self.config), self._shape()
        for end in range(self.full, self.full + max(RING, every) + 1, every):
            refills = {} if self._begins_again(end) else self._refills(shape)
            if missing := {shape.steps, *refills} - self.ahead.begun:
                programs = self._programs(shape)
                self.ahead.compile({name: what for name, what in programs.items() if name in missing})
            if missing or not refills:
                return
            shape = self._needs(end)

    def _refills(self, shape: Shape) -> dict[tuple, int]:
        """The sizes of a refill's pieces, by the names of their programs."""
        count = refilled(self.config)
        return {
            shape.refill(size): size for size in (min(count, self.piece), count % self.piece or self.piece)
        }

    def _programs(self, shape: Shape) -> dict[Hashable, Program]:
        """What a shape needs, by its names."""
        cache = jax.eval_shape(lambda cache: _fitted(cache, shape), self.cache)
        programs: dict[Hashable, Program] = {shape.steps: (_steps, self._arguments(cache, self.chunk))}
        for name, size in self._refills(shape).items():
            positions = self._positions(0, size)
            given = self.model, _seen(cache, shape), cache.latents, positions[:, :, 0], positions, 0, 0
            programs[name] = _refill, given
        return programs

    def close(self) -> None:
        """Nothing more will be needed, nor asked for."""
        self.ahead.close()
        del self.cache, self.coming, self.logits
        memory.give_back()

    def _arguments(self, cache: Cache, steps: int) -> tuple:
        """What `_steps` takes for the next `steps` tokens."""
        positions = self._positions(self.length, self.chunk)
        state = self.model, cache, self.logits, self.keys
        return (*state, positions, self.legal, self.values, self.drawn, self.lately, steps)

    def _positions(self, begin: int, count: int) -> np.ndarray:
        """Positions of indices `begin` on, (rows, count, axes); padding before a row's primer has the first one."""
        wanted = np.arange(begin, begin + count) - self.shift[:, None]
        return self.codec.positions(0, begin + count)[np.maximum(wanted, 0)]


def _fitted(cache: Cache, shape: Shape) -> Cache:
    """The cache with a ring of so many slots, and without its prefix unless that is still in the window."""
    assert cache.recent is not None
    if shape.slots > cache.recent.keys.shape[-1]:
        cache = cache._replace(recent=cache.recent.grow(shape.slots))
    return cache if shape.prefix else cache._replace(prefix=None)


def _seen(cache: Cache, shape: Shape) -> Cache:
    """The part of the cache that a refill reads: without the cross-attend's entries where its results are known."""
    return cache._replace(prefix=None, recent=None) if shape.known else cache


_no_latents = jax.jit(Latents.empty, static_argnums=(0, 1))  # in one call: two dozen take 5 ms


@partial(jax.jit, static_argnames="latents")
def _prefill(
    model: PerceiverAR, tokens: Array, positions: Array, latents: int, start: Array
) -> tuple[Array, Cache]:
    empty = Cache.empty(model.config, tokens.shape[0], start)
    logits, cache = model(tokens, positions, latents, empty, predict=1)
    assert cache is not None
    return logits[:, 0], cache


@partial(jax.jit, donate_argnames=("cache", "coming"))
def _refill(
    model: PerceiverAR,
    cache: Cache,
    coming: Latents,
    tokens: Array,
    positions: Array,
    begin: Array,
    start: Array,
) -> tuple[Array, Cache, Latents]:
    """Compute latents for `tokens`, which begin at index `begin` and are in the cache already, behind those `coming`.

    They see what is in the window from `start` on, and no latent of the cache's. A cache without entries is one whose
    latents know what the cross-attend gives.
    """
    begin, start, count = jnp.asarray(begin, jnp.int32), jnp.asarray(start, jnp.int32), tokens.shape[1]
    earlier = cache.earlier(coming, begin, start, 0 if cache.recent else count)
    logits, seen = model(tokens, positions, count, earlier, predict=1)
    assert seen is not None
    return logits[:, 0], cache._replace(recent=seen.recent), seen.latents


@partial(jax.jit, donate_argnames=("cache", "logits"))
def _steps(  # noqa: PLR0913
    model: PerceiverAR,
    cache: Cache,
    logits: Array,
    keys: Array,
    positions: Array,
    legal: Array,
    values: Values,
    drawn: Int[Array, "rows"],
    lately: Lately,
    count: Array,
) -> tuple[Cache, Array, Lately, Array, Array]:
    """`count` steps, at most as many as there are positions: draw a token, then call the model on it.

    `drawn` counts each row's data tokens so far: its step in the table of legal tokens.
    """
    rows, size, _ = positions.shape
    numbers = drawn[:, None] + jnp.arange(size)
    noise = gumbel(keys, numbers, logits.shape[-1])
    allowed = legal[numbers % legal.shape[0]]
    tokens = jnp.zeros((rows, size), jnp.int32)
    record = jnp.zeros((rows, size, logits.shape[-1]), jnp.float32)

    def step(i: Array, carry: tuple) -> tuple:
        cache, logits, lately, tokens, record = carry
        at = partial(jax.lax.dynamic_index_in_dim, index=i, axis=1, keepdims=False)
        token = sample(logits, at(allowed) & ~refused(values, lately), values, at(noise))
        tokens = jax.lax.dynamic_update_slice(tokens, token[:, None], (0, i))
        record = jax.lax.dynamic_update_slice(record, logits[:, None], (0, i, 0))
        position = jax.lax.dynamic_slice_in_dim(positions, i, 1, axis=1)
        new, cache = model(token[:, None], position, 1, cache)
        return cache, new[:, 0], after(values, lately, token), tokens, record

    return jax.lax.fori_loop(0, count, step, (cache, logits, lately, tokens, record))
