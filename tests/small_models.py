"""Small random models and a toy codec, for tests of the model's core."""

from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from perceiver_ar.config import FIRST_DATA, ModelConfig
from perceiver_ar.model import PerceiverAR, from_params, to_params

VOCAB = 24


def small_config(**changes: Any) -> ModelConfig:
    """Two layers of width 32, heads of 8 channels, 8 latents in a context of 32."""
    shape: dict[str, Any] = {
        "vocab_size": VOCAB,
        "context": 32,
        "latents": 8,
        "width": 32,
        "layers": 2,
        "heads": 4,
        "cross_heads": 2,
        "widening": 2,
    }
    return ModelConfig(**shape | changes)


@cache
def small_model(config: ModelConfig, seed: int = 0) -> PerceiverAR:
    """A model whose norms and embeddings are far from their first values, so that each of them matters."""

    def disturb(path: tuple, value: jax.Array) -> jax.Array:
        name = path[-1].key
        if name in {"scale", "offset"}:
            noise = jax.random.normal(jax.random.fold_in(jax.random.key(seed), len(str(path))), value.shape)
            return value + 0.3 * noise
        return 20 * value if name == "embedding" else value

    params = to_params(PerceiverAR(config, jax.random.key(seed)))
    return from_params(config, jax.tree_util.tree_map_with_path(disturb, params))


def places(count: int, shape: tuple[int, ...], start: int = 0) -> np.ndarray:
    """Positions of `count` steps, int32 (count, axes): counted up along the last axis first."""
    steps = np.arange(start, start + count)
    if len(shape) < 2:
        return steps[:, None].astype(np.int32)
    return np.stack([steps // shape[1], steps % shape[1]], axis=1).astype(np.int32)


@partial(jax.jit, static_argnames="latents")
def uncached(
    model: PerceiverAR,
    tokens: jax.Array,
    positions: jax.Array,
    latents: int,
    key: jax.Array | None = None,
) -> jax.Array:
    """Logits of one plain call."""
    return model(tokens, positions, latents, key=key)[0]


def logits_of(model: PerceiverAR, tokens: np.ndarray, latents: int) -> np.ndarray:
    """Logits of one plain call on `tokens` (batch, seq), at positions from 0 on."""
    where = places(tokens.shape[1], model.config.position_shape)
    where = np.broadcast_to(where, (len(tokens), *where.shape))
    return np.asarray(uncached(model, jnp.asarray(tokens, jnp.int32), jnp.asarray(where), latents))


@dataclass(frozen=True)
class ToyCodec:
    """Numbers for tokens; every data token is legal at every step unless `legal` says otherwise."""

    shape: tuple[int, ...] = ()
    legal: np.ndarray = field(default_factory=lambda: np.arange(VOCAB)[None] >= FIRST_DATA)
    name: str = "toy"
    vocab_size: int = VOCAB

    def encode(self, source: Any) -> np.ndarray:
        return np.asarray(source, np.int32)

    def decode(self, tokens: np.ndarray) -> Any:
        return tokens.tolist()

    def positions(self, start: int, count: int) -> np.ndarray:
        return places(count, self.shape, start)

    def to_dict(self) -> dict[str, Any]:
        return {}
