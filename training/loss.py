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
    logits: Float[Array, "batch latents vocab"],
    targets: Int[Array, "batch latents"],
    count: Int[Array, ""],
    z_loss: float,
    label_smoothing: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """A batch's or a part's share of the loss, and of the mean NLL: sums over its targets, divided by `count`.

    Args:
        count: scored targets of the whole batch, so that the shares of its parts add up to its loss.
        z_loss: weight of the squared log-normaliser (PaLM, section 5; Perceiver AR's released code).
        label_smoothing: part of each target that is spread evenly over all tokens (Szegedy et al. 2016).
    """
    nll, normaliser = token_nll(logits, targets)
    extra = z_loss * normaliser**2
    if label_smoothing:
        extra += label_smoothing * (normaliser - logits.mean(axis=-1) - nll)
    return (nll + jnp.where(targets == PAD, 0.0, extra)).sum() / count, nll.sum() / count
