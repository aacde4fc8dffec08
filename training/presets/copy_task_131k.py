"""The mirrored copy task of 131,072 symbols."""

from dataclasses import replace

from perceiver_ar.config import ModelConfig
from training.config import OptimConfig, Stage, TrainConfig
from training.data.copy_task import CopyTask

DOMAIN = CopyTask(length=131_072)
PRESET = TrainConfig(
    domain=DOMAIN,
    model=ModelConfig(
        vocab_size=DOMAIN.codec.vocab_size,
        context=131_072,
        latents=1024,
        width=1024,
        layers=6,
        heads=16,
        cross_heads=16,
        position="sinusoidal",
        dropout=0.1,
        dtype="bfloat16",
        remat=True,
    ),
    stages=(Stage(1.0, 131_072, 4096),),
    steps=25_000,
    optim=OptimConfig(warmup=1000, decay=24_000, decay_shape="cosine"),
)
"""The released code's `random_mirrored_131072`, with which the paper predicts the second half perfectly (section 5.1).
The number of steps, the number format and the recomputed layers are ours."""

TINY = replace(
    PRESET,
    domain=replace(DOMAIN, shortest=32),
    model=replace(PRESET.model, width=128, layers=1, heads=4, cross_heads=1, dropout=0.0, remat=False),
    stages=(Stage(1.0, DOMAIN.length, 1),),
    steps=200,
    optim=OptimConfig(rate=2e-3, warmup=100, decay=50),
    evaluate_every=100,
    evaluate_windows=8,
)
"""Ours: on a CPU the whole length, to see that it runs, and far too few steps to learn it; with eight examples a
step a GPU learns all but one symbol of 80,000 in five minutes (docs/results.md)."""
