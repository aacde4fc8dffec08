"""The piano model that ships in `assets/piano`: MAESTRO, and other performances laid out like it."""

from dataclasses import replace

from training.config import OptimConfig, Stage
from training.data.music import Music
from training.presets import maestro

PRESET = replace(
    maestro.PRESET,
    domain=Music(transpose=0, stretch=0.0, loudness=0),
    model=replace(
        maestro.PRESET.model,
        context=16_384,
        position_shape=(),
        latents=1024,
        width=256,
        layers=6,
        heads=4,
        cross_heads=4,
        dropout=0.0,
        cross_attend_dropout=0.0,
        remat=False,
    ),
    stages=(Stage(0.55, 2048, 4), Stage(0.7, 4096, 4), Stage(0.85, 8192, 4), Stage(1.0, 16_384, 4)),
    steps=2900,
    optim=OptimConfig(name="muon", rate=3e-3, muon_rate=0.01, warmup=100, decay=1700, b2=0.99),
)
"""Ours: 5.7 million parameters, 110 minutes of two shared CPU cores, less than half a pass over the data, which is
why nothing is augmented. Short contexts first, and the long ones while the rate still falls: a model that has settled
without them does not learn to use them."""

TINY = maestro.TINY
"""That of `maestro`."""
