"""The mirrored copy task of 32 symbols."""

from dataclasses import replace

from perceiver_ar.config import ModelConfig
from training.config import OptimConfig, Stage, TrainConfig
from training.data.copy_task import CopyTask

DOMAIN = CopyTask(length=32)
PRESET = TrainConfig(
    domain=DOMAIN,
    model=ModelConfig(
        vocab_size=DOMAIN.codec.vocab_size,
        context=32,
        latents=16,
        width=1024,
        layers=1,
        heads=16,
        cross_heads=16,
        position="sinusoidal",
        dropout=0.1,
    ),
    stages=(Stage(1.0, 32, 1024),),
    steps=25_000,
    optim=OptimConfig(warmup=1000, decay=24_000, decay_shape="cosine"),
)
"""The released code's `random_mirrored_32`, but for its number of steps, which is ours."""

TINY = replace(
    PRESET,
    model=replace(PRESET.model, width=128, heads=4, cross_heads=1, dropout=0.0),
    stages=(Stage(1.0, 32, 64),),
    steps=1000,
    optim=OptimConfig(rate=2e-3, warmup=100, decay=400),
    evaluate_every=250,
)
"""Ours: 0.5 million parameters, which know the task after 200 steps, less than half a minute of a CPU core, and every
symbol of it after 1,000."""
