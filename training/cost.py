"""What a step of training costs: arithmetic, memory, and how much of a machine it uses."""

import sys
import time
from typing import Any

import jax
import jax.numpy as jnp

from perceiver_ar.config import ModelConfig
from perceiver_ar.products import matmul
from training import devices
from training.config import Stage, TrainConfig
from training.step import compiled, new_state


def forward_flops(config: ModelConfig, seq: int, latents: int) -> float:
    """Floating-point operations of one example's forward pass: two for each product of two factors.

    Matrix products and attention alone, of the keys that a latent sees; norms and activations are left out.
    """
    width = config.width
    matrices = (4 + 2 * config.widening) * width**2  # queries, keys, values, output; the two of the MLP
    inside = latents * (latents + 1) / 2  # pairs of latents that see each other
    pairs = inside * (1 + config.layers) + latents * (seq - latents)
    weights = latents * (matrices * (1 + config.layers) + width * config.vocab_size)
    weights += (seq - latents) * 2 * width**2  # the prefix has keys and values alone
    return 2 * weights + 4 * width * pairs


def step_flops(config: TrainConfig, stage: Stage) -> float:
    """Floating-point operations of a step: the backward pass costs two forward passes; `remat` is not counted."""
    latents = min(config.model.latents, stage.context)
    kept = stage.context - int((stage.context - latents) * config.model.cross_attend_dropout)
    return 3 * stage.batch * forward_flops(config.model, kept, latents)


def peak_flops(dtype: str) -> float:
    """Operations a second that all processors together reach on one large matrix product, as measured here."""
    on_cpu = jax.default_backend() == "cpu"
    size = 2048 if on_cpu else 8192
    factors = jnp.ones((2, size, size), dtype)
    product = jax.jit(lambda x: matmul(x[0], x[1]))
    product(factors).block_until_ready()
    fastest = min(_seconds(lambda: product(factors).block_until_ready()) for _ in range(3))
    return 2 * size**3 / fastest * (jax.process_count() if on_cpu else jax.device_count())


def _seconds(run: Any) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


class Meter:
    """Counts a run's tokens and operations against the clock and the machine's peak."""

    def __init__(self, config: TrainConfig) -> None:
        self._config, self._peak = config, peak_flops(config.model.dtype)
        self._tokens, self._flops, self._began = 0, 0.0, time.monotonic()

    def count(self, step: int) -> None:
        """One more step done, of number `step` from 0."""
        stage = self._config.stage(step)
        self._tokens += stage.batch * min(self._config.model.latents, stage.context)
        self._flops += step_flops(self._config, stage)

    @property
    def tokens_per_second(self) -> float:
        """Predicted tokens a second of the whole run, padding included."""
        return self._tokens / (time.monotonic() - self._began)

    @property
    def utilisation(self) -> float:
        """Model FLOPs utilisation: operations that the model needs over those the machine could do meanwhile."""
        return self._flops / (time.monotonic() - self._began) / self._peak


def dry_run(config: TrainConfig) -> dict[str, Any]:
    """What a run would need, by compiling its steps and computing none: parameters, bytes a device, FLOPs a step."""
    mesh, state = devices.mesh(), jax.eval_shape(lambda: new_state(config))
    size = sum(x.size for x in jax.tree.leaves(state.params))
    each = ", ".join(f"{step_flops(config, stage):.3g}" for stage in config.stages)
    print(
        f"{size:,} parameters, {each} FLOPs a step; its memory is known when it is compiled ...",
        file=sys.stderr,
    )
    stages = []
    for context, batch in dict.fromkeys((each.context, each.batch) for each in config.stages):
        stage = Stage(1.0, context, batch)
        memory = compiled(config, stage, mesh).memory_analysis()
        assert memory is not None
        flops = step_flops(config, stage)
        used = memory.argument_size_in_bytes + memory.temp_size_in_bytes
        stages.append({"context": context, "batch": batch, "flops_per_step": flops, "bytes_per_device": used})
    return {
        "parameters": size,
        "state_bytes": sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)),
        "devices": jax.device_count(),
        "stages": stages,
        "config": config.to_dict(),
    }
