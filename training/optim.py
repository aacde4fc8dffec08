"""Optimisers and rate schedules, by optax."""

from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers, muon

from training.config import OptimConfig


def schedule(config: OptimConfig, peak: float, steps: int) -> optax.Schedule:
    """Linear warm-up to `peak`, constant, linear or cosine decay to zero over the last steps."""
    last = max(config.decay, 1)
    decay = {
        "linear": optax.linear_schedule(peak, 0.0, last),
        "cosine": optax.cosine_decay_schedule(peak, last),
    }
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, peak, config.warmup),
            optax.constant_schedule(peak),
            decay[config.decay_shape],
        ],
        [config.warmup, steps - config.decay],
    )


def matrices(params: optax.Params) -> Any:
    """Muon's view of the parameters: the blocks' matrices, stacked or not; None for everything Adam takes."""

    def dims(path: tuple, x: jax.Array) -> MuonDimensionNumbers | None:
        top = path[0].key
        if top == "layers" and x.ndim == 3:
            return MuonDimensionNumbers((2,), (1,))
        return MuonDimensionNumbers((1,), (0,)) if top == "cross" and x.ndim == 2 else None

    return jax.tree_util.tree_map_with_path(dims, params)


def optimiser(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """The optimiser of a run of `steps` steps.

    Raises:
        ValueError: an optimiser that is none of `OptimConfig.name`'s.
    """
    rate = schedule(config, config.rate, steps)
    if config.name in ("adam", "adamw"):

        def decays(params: optax.Params) -> optax.Params:
            norms = {"scale", "offset"}
            return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in norms, params)

        core = optax.adamw(
            rate, config.b1, config.b2, config.eps, weight_decay=config.weight_decay, mask=decays
        )
    elif config.name == "muon":
        core = muon(
            schedule(config, config.muon_rate, steps),
            eps=config.eps,
            adam_learning_rate=rate,
            adam_b1=config.b1,
            adam_b2=config.b2,
            weight_decay=config.weight_decay,
            muon_weight_dimension_numbers=matrices,
        )
    else:
        raise ValueError(f"optimiser must be adam, adamw or muon, not {config.name!r}")
    return optax.chain(optax.clip_by_global_norm(config.clip), core)
