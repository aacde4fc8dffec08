"""Cross-entropy in nats a token."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from perceiver_ar.config import PAD


def token_nll(
    logits: Float[Array, "batch latents vocab"], targets: Int[Array, "batch latents"]
) -> tuple[Float[Array, "batch latents"], Float[Array, "batch latents"]]:
    """Negative log-likelihood of each target in nats, 0 where it is padding, and the log-normaliser."""
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jnp.where(targets == PAD, 0.0, normaliser - chosen), normaliser


def training_loss(
    logits: Float[Array, "batch latents vocab"], targets: Int[Array, "batch latents"], z_loss: float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The mean loss with its z-loss (PaLM, section 5; Perceiver AR's released code), and the mean NLL alone."""
    nll, normaliser = token_nll(logits, targets)
    scored = targets != PAD
    count = jnp.maximum(scored.sum(), 1)
    mean = nll.sum() / count
    return mean + z_loss * jnp.where(scored, normaliser**2, 0.0).sum() / count, mean
