"""The project itself as a contestant, run by `generate.py`, `train_step.py` and `learning.py`."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from benchmarks.contest import Measurement, Shape, serve, steady
from perceiver_ar.checkpoint import load
from perceiver_ar.codecs.music import MusicCodec
from perceiver_ar.config import FIRST_DATA, CacheDType, ModelConfig
from perceiver_ar.continuation import keep_compiled_programs
from perceiver_ar.fills import refilled
from perceiver_ar.generate import generate
from perceiver_ar.model import PerceiverAR, from_params, to_params

if TYPE_CHECKING:
    from training.config import OptimConfig
    from training.data.crops import Batch
    from training.step import State


def prepare(task: dict[str, Any]) -> Callable[[], Measurement]:
    """What measures a task of `generate.py` (it has `takes`), `learning.py` (`windows`) or `train_step.py`."""
    shape = Shape(**task["shape"])
    if "windows" in task:
        return learning(config_of(shape, task["dtype"]), shape, task)
    if "takes" in task:
        model = config_of(shape, cache_dtype=task["cache_dtype"])
        return generation(model, shape, task["takes"], task["tokens"], task["chunk"])
    return training(config_of(shape, task["dtype"], task["remat"]), shape, task["steps"])


def config_of(
    shape: Shape, dtype: Any = "float32", remat: bool = False, cache_dtype: CacheDType = None
) -> ModelConfig:
    """The model's config, without any dropout."""
    return ModelConfig(
        vocab_size=shape.vocab,
        context=shape.context,
        latents=shape.latents,
        width=shape.width,
        layers=shape.layers,
        heads=shape.heads,
        cross_heads=shape.heads,
        dtype=dtype,
        remat=remat,
        cache_dtype=cache_dtype,
    )


def random_model(config: ModelConfig) -> PerceiverAR:
    """Random weights, made as a checkpoint's come: by numpy, since JAX's own take as much memory again to make."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: to_params(PerceiverAR(config, jax.random.key(0))))
    params = jax.tree.map(
        lambda x: (0.02 * rng.standard_normal(x.shape, np.float32)).astype(np.float16), shapes
    )
    return from_params(config, params, unrolled=True)


def generation(
    config: ModelConfig, shape: Shape, takes: int, count: int, chunk: int
) -> Callable[[], Measurement]:
    """Seconds to the first token, tokens a second of all takes together, and seconds of the longest pause.

    The first token is that of a generator that gives one by one. The rate is that of the `count` tokens behind the
    first `chunk`, with what of a refill falls among them. Generation then goes on until the refilled latents are in
    use; the pause is by how much the chunk that was waited for longest exceeds the median.
    """
    keep_compiled_programs()  # as the command line and the page do
    if shape.name == "piano":
        pretrained = load(shape.name)
        model, codec = pretrained.model, pretrained.codec
        model.config = replace(model.config, cache_dtype=config.cache_dtype)
    else:
        model = random_model(config)
        others = MusicCodec(velocity_bins=0).vocab_size
        codec = MusicCodec(velocity_bins=shape.vocab - others)
    primer = np.random.default_rng(0).integers(FIRST_DATA, shape.vocab, shape.primer, np.int32)
    room = shape.latents - refilled(model.config)
    chunk = min(chunk, max(room // 2, 1))

    def measure() -> Measurement:
        begin = time.perf_counter()
        next(generate(model, codec, [primer], takes=takes, chunk=1))
        first = time.perf_counter() - begin

        chunks = generate(model, codec, [primer], takes=takes, chunk=chunk)
        done = next(chunks).tokens.shape[1]
        timed = []  # tokens before a chunk, tokens in it, seconds
        while done < chunk + count or done <= room:
            begin = time.perf_counter()
            size = next(chunks).tokens.shape[1]
            timed.append((done, size, time.perf_counter() - begin))
            done += size
        wanted = [one for one in timed if one[0] < chunk + count]
        rate = takes * sum(size for _, size, _ in wanted) / sum(seconds for _, _, seconds in wanted)
        waits = [seconds for _, size, seconds in timed if size == chunk]
        # What it compiles ahead must not slow the next contestant, nor the next measurement.
        while compiling := [thread for thread in threading.enumerate() if thread.name == "compile"]:
            for thread in compiling:
                thread.join()
            next(chunks)
        chunks.close()
        return {"first": first, "rate": rate, "pause": max(waits) - median(waits)}

    return measure


def trainer(
    model: ModelConfig, shape: Shape, optim: "OptimConfig"
) -> "tuple[Callable, State, Callable[[np.ndarray], Batch]]":
    """The compiled step, a fresh state, and what makes a batch of windows (examples, context + 1)."""
    # Here, since who generates has none of it in memory.
    from training import devices
    from training.config import Stage, TrainConfig
    from training.data.copy_task import CopyTask
    from training.data.crops import Crop, batch_of
    from training.step import compiled, placed_state

    stage, domain = Stage(1.0, shape.context, shape.batch), CopyTask(symbols=shape.vocab - FIRST_DATA)
    config, mesh = TrainConfig(domain, model, (stage,), steps=1_000_000, optim=optim), devices.mesh()

    def batch(windows: np.ndarray) -> "Batch":
        crops = [Crop(window.astype(np.int32), shape.latents) for window in windows]
        return devices.spread(batch_of(crops, domain.codec, shape.context, shape.latents), mesh)

    return compiled(config, stage, mesh), placed_state(config, mesh), batch


def training(model: ModelConfig, shape: Shape, steps: int) -> Callable[[], Measurement]:
    """Latents (predicted tokens) a second and seconds a step, of `steps` steps on one random batch."""
    from training.config import OptimConfig

    step, state, batch_of_windows = trainer(model, shape, OptimConfig(name="adam"))
    size = (shape.batch, shape.context + 1)
    batch = batch_of_windows(np.random.default_rng(0).integers(FIRST_DATA, shape.vocab, size))

    def one() -> None:
        nonlocal state
        state, nll = step(state, *batch)
        jax.block_until_ready(state)
        assert np.isfinite(nll), "the loss is not finite"

    def measure() -> Measurement:
        seconds = steady(one, steps)
        return {"rate": shape.batch * shape.latents / seconds, "step": seconds}

    return measure


def learning(model: ModelConfig, shape: Shape, task: dict[str, Any]) -> Callable[[], Measurement]:
    """The next steps on a run's windows: mean loss, NLL of held-out windows behind them, latents a second."""
    from training.config import OptimConfig
    from training.step import make_score

    optim = OptimConfig(name="adam", rate=task["rate"], warmup=task["warmup"], z_loss=0.0)
    step, state, batch = trainer(model, shape, optim)
    nll, held_out = make_score(model), batch(np.load(task["held_out"]))
    steps = map(batch, np.load(task["windows"]))

    def measure() -> Measurement:
        nonlocal state
        begin, losses = time.perf_counter(), []
        for _ in range(task["steps"]):
            state, loss = step(state, *next(steps))
            losses.append(float(loss))
        seconds = time.perf_counter() - begin
        found = nll(state.params, *held_out)[0]
        return {
            "loss": float(np.mean(losses)),
            "validation": float(found.mean()),
            "rate": task["steps"] * shape.batch * shape.latents / seconds,
        }

    return measure


if __name__ == "__main__":
    serve(prepare)
