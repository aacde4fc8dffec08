"""One step of training, and one look at held-out windows."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from perceiver_ar import memory
from perceiver_ar.config import PAD, ModelConfig
from perceiver_ar.model import Params, PerceiverAR, from_params, to_params
from training import devices
from training.config import Stage, TrainConfig
from training.loss import token_nll, training_loss
from training.optim import optimiser


class State(NamedTuple):
    """Everything a run needs to go on."""

    step: Int[Array, ""]
    params: Params
    optim: optax.OptState
    average: Params
    """Exponential moving average of the weights, empty in a run that keeps none."""

    @property
    def weights(self) -> Params:
        """What is measured and exported."""
        return self.average or self.params


def new_state(config: TrainConfig) -> State:
    """The state before the first step."""
    params = to_params(PerceiverAR(config.model, jax.random.key(config.seed)))
    optim = optimiser(config.optim, config.steps).init(params)
    average = jax.tree.map(jnp.copy, params) if config.optim.average else {}
    return State(jnp.zeros((), jnp.int32), params, optim, average)


def placed_shapes(config: TrainConfig, mesh: Mesh) -> State:
    """The shapes of a run's state, each with the devices that its array lies on."""
    shapes = jax.eval_shape(lambda: new_state(config))
    places = devices.placed(shapes, mesh, config.shard)
    return jax.tree.map(lambda x, place: x.update(sharding=place), shapes, places)


def placed_state(config: TrainConfig, mesh: Mesh) -> State:
    """The state before the first step, on the mesh's devices."""
    places = jax.tree.map(lambda x: x.sharding, placed_shapes(config, mesh))
    return jax.jit(lambda: new_state(config), out_shardings=places)()


def make_step(config: TrainConfig, mesh: Mesh):
    """A jitted (state, tokens, positions, targets) -> (state, mean NLL in nats); the state is donated.

    Tokens are (batch, seq), positions (batch, seq, axes), targets (batch, latents), each spread over the mesh by its
    examples. Gradients are those of the whole batch on however many devices and in however many parts.
    """
    update = optimiser(config.optim, config.steps)

    def loss(params: Params, batch: tuple[Array, Array, Array], key: Array, count: Array):
        tokens, positions, targets = batch
        logits, _ = from_params(config.model, params)(tokens, positions, targets.shape[1], key=key)
        return training_loss(logits, targets, count, config.optim.z_loss, config.optim.label_smoothing)

    def gradient(params: Params, *batch: Array, key: Array) -> tuple[Params, Array]:
        count = jnp.maximum((batch[-1] != PAD).sum(), 1)
        share = jax.grad(partial(loss, count=count), has_aux=True)
        if config.accumulate == 1:
            return share(params, batch, key)

        def part(x: Array) -> Array:  # every n-th example, so that each part is spread over all devices
            return jnp.moveaxis(x.reshape(-1, config.accumulate, *x.shape[1:]), 1, 0)

        def add(total: tuple[Params, Array], one: tuple) -> tuple[tuple[Params, Array], None]:
            number, batch = one
            return jax.tree.map(jnp.add, total, share(params, batch, jax.random.fold_in(key, number))), None

        zero = jax.tree.map(jnp.zeros_like, params), jnp.zeros(())
        return jax.lax.scan(add, zero, (jnp.arange(config.accumulate), jax.tree.map(part, batch)))[0]

    def step(state: State, tokens: Array, positions: Array, targets: Array) -> tuple[State, Array]:
        key = jax.random.fold_in(jax.random.key(config.seed + 1), state.step)
        gradients, nll = gradient(state.params, tokens, positions, targets, key=key)
        updates, optim = update.update(gradients, state.optim, state.params)
        # Else weights that are lost would be saved before the next step's loss told.
        nll = jnp.where(jnp.isfinite(optax.tree.norm(updates)), nll, jnp.nan)
        params = cast(Params, optax.apply_updates(state.params, updates))
        average = state.average and optax.incremental_update(params, state.average, 1 - config.optim.average)
        return State(state.step + 1, params, optim, cast(Params, average)), nll

    state = jax.tree.map(lambda x: x.sharding, placed_shapes(config, mesh))
    examples = devices.by_example(mesh)
    return jax.jit(
        step,
        in_shardings=(state, examples, examples, examples),
        out_shardings=(state, devices.whole(mesh)),
        donate_argnums=0,
    )


def compiled(config: TrainConfig, stage: Stage, mesh: Mesh) -> jax.stages.Compiled:
    """The step of `make_step` for batches of a stage's shape, ready to run.

    Raises:
        ValueError: the devices do not divide the batch.
    """
    devices.rows(stage.batch)
    latents = min(config.model.latents, stage.context)
    batch = [
        jax.ShapeDtypeStruct((stage.batch, *rest), jnp.int32, sharding=devices.by_example(mesh))
        for rest in ((stage.context,), (stage.context, config.model.axes), (latents,))
    ]
    program = make_step(config, mesh).lower(placed_shapes(config, mesh), *batch).compile()
    memory.give_back()  # of what the compiler took, a large part of all that a step needs
    return program


class Steps:
    """The steps of a run from the step `first` on, a program for each shape of batch.

    Those of later stages are compiled in a thread while the first stage trains: each takes half a minute for a GPU.
    """

    def __init__(self, config: TrainConfig, mesh: Mesh, first: int) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._compile = {
            (stage.batch, stage.context): partial(compiled, config, stage, mesh)
            for stage in config.stages_from(first)
        }
        # Processes that compile together must not differ in what they give up when a run is stopped.
        ahead = self._compile if jax.process_count() == 1 else {}
        self._programs = {shape: self._pool.submit(make) for shape, make in ahead.items()}

    def __call__(self, state: State, tokens: Array, positions: Array, targets: Array) -> tuple[State, Array]:
        """As `make_step`."""
        examples, context = tokens.shape
        shape = examples, context
        if shape not in self._programs:
            self._programs[shape] = self._pool.submit(self._compile[shape])
        return self._programs[shape].result()(state, tokens, positions, targets)

    def close(self) -> None:
        """Wait for a program that is being compiled, and give up those that are not."""
        self._pool.shutdown(cancel_futures=True)


@cache
def make_score(config: ModelConfig):
    """A jitted (params, tokens, positions, targets) -> NLL in nats of each target, and whether it was likeliest.

    Both (batch, latents); 0 and false where the target is padding.
    """

    def score(
        params: Params, tokens: Array, positions: Array, targets: Array
    ) -> tuple[Float[Array, "batch latents"], Bool[Array, "batch latents"]]:
        logits, _ = from_params(config, params)(tokens, positions, targets.shape[1])
        likeliest = (logits.argmax(axis=-1) == targets) & (targets != PAD)
        return token_nll(logits, targets)[0], likeliest

    return jax.jit(score)
