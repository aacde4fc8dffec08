"""One step of training, and one look at held-out windows."""

from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from perceiver_ar.config import PAD, ModelConfig
from perceiver_ar.model import Params, PerceiverAR, from_params, to_params
from training.config import TrainConfig
from training.loss import token_nll, training_loss
from training.optim import optimiser


class State(NamedTuple):
    """Everything a run needs to go on."""

    step: Int[Array, ""]
    params: Params
    optim: optax.OptState


def new_state(config: TrainConfig) -> State:
    """The state before the first step."""
    params = to_params(PerceiverAR(config.model, jax.random.key(config.seed)))
    return State(jnp.zeros((), jnp.int32), params, optimiser(config.optim, config.steps).init(params))


def make_step(config: TrainConfig):
    """A jitted (state, tokens, positions, targets) -> (state, mean NLL in nats); the state is donated.

    Tokens are (batch, seq), positions (batch, seq, axes), targets (batch, latents).
    """
    update = optimiser(config.optim, config.steps)

    def loss(params: Params, tokens: Array, positions: Array, targets: Array, key: Array):
        model = from_params(config.model, params)
        logits, _ = model(tokens, positions, targets.shape[1], key=key)
        return training_loss(logits, targets, config.optim.z_loss)

    def step(state: State, tokens: Array, positions: Array, targets: Array) -> tuple[State, Array]:
        key = jax.random.fold_in(jax.random.key(config.seed + 1), state.step)
        gradient = jax.value_and_grad(loss, has_aux=True)
        (_, nll), gradients = gradient(state.params, tokens, positions, targets, key)
        updates, optim = update.update(gradients, state.optim, state.params)
        params = cast(Params, optax.apply_updates(state.params, updates))
        return State(state.step + 1, params, optim), nll

    return jax.jit(step, donate_argnums=0)


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
