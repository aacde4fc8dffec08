"""MAESTRO as MIDI performances."""

from dataclasses import replace

from perceiver_ar.config import ModelConfig
from training.config import OptimConfig, Stage, TrainConfig
from training.data.music import Music

PRESET = TrainConfig(
    domain=Music(),
    model=ModelConfig(
        vocab_size=391,
        context=4096,
        latents=2048,
        width=512,
        layers=12,
        heads=8,
        cross_heads=8,
        dropout=0.1,
        cross_attend_dropout=0.1,
        dtype="bfloat16",
        remat=True,
    ),
    stages=(Stage(1.0, 4096, 128),),
    steps=100_000,
    optim=OptimConfig(warmup=10_000),
)
"""Layers, width, context and latents are the paper's for MAESTRO as we understand it (section 5.6); they were not
checked against its tables, and its released code has no such value. The rest is ours: heads, dropout, batch, steps,
number format, recomputed layers and augmentation. `--model.context 16384 --stages.0.context 16384` primes it with
whole pieces; `piano` does that with a small model.

The data are `maestro-v3.0.0-midi.zip`, the official archive, or any older version of it."""

TINY = replace(
    PRESET,
    model=replace(
        PRESET.model,
        context=1024,
        position_shape=(),
        latents=256,
        width=64,
        layers=2,
        heads=4,
        cross_heads=4,
        dropout=0.0,
        remat=False,
    ),
    stages=(Stage(1.0, 1024, 8),),
    steps=600,
    optim=OptimConfig(name="muon", rate=1e-3, muon_rate=0.006, warmup=100, decay=200, b2=0.99),
)
"""Ours: 0.2 million parameters."""
