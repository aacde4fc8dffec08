"""MAESTRO as MIDI performances: the model that ships in `assets/piano`."""

from dataclasses import replace

from perceiver_ar.config import ModelConfig
from training.config import OptimConfig, Stage, TrainConfig
from training.data.music import Music

PRESET = TrainConfig(
    domain=Music(),
    model=ModelConfig(
        vocab_size=391,
        context=16_384,
        latents=512,
        width=256,
        layers=6,
        heads=4,
        cross_heads=4,
        cross_attend_dropout=0.1,
        dtype="bfloat16",
    ),
    stages=(Stage(0.4, 2048, 8), Stage(0.6, 4096, 8), Stage(0.7, 8192, 8), Stage(1.0, 16_384, 4)),
    steps=12_000,
    optim=OptimConfig(name="muon", rate=1e-3, muon_rate=0.006, warmup=100, decay=2_400, b2=0.99),
)
"""Ours: a model for one CPU core, short contexts first, and the long ones while the rate is still high, since a
model has to learn to spread its attention over them. The paper's MAESTRO model has 12 layers of width 512.

The data are `maestro-v3.0.0-midi.zip`, the official archive, or any older version of it."""

TINY = replace(
    PRESET,
    model=replace(PRESET.model, context=1024, latents=256, width=64, layers=2),
    stages=(Stage(1.0, 1024, 8),),
    steps=600,
    optim=replace(PRESET.optim, decay=200),
)
"""Ours: 0.2 million parameters."""
