"""MAESTRO with a small model: the one that ships in `assets/piano-small`, for tests and slow machines."""

from dataclasses import replace

from training.config import Stage
from training.presets import maestro

PRESET = replace(
    maestro.PRESET,
    model=replace(
        maestro.PRESET.model,
        context=4096,
        latents=512,
        width=128,
        layers=4,
        heads=2,
        cross_heads=2,
        cross_attend_dropout=0.0,
    ),
    stages=(Stage(0.8, 1536, 8), Stage(1.0, 4096, 8)),
    steps=1600,
    optim=replace(maestro.PRESET.optim, rate=3e-3, muon_rate=0.01, decay=1300),
)
"""Ours: 1.1 million parameters, 23 minutes of one CPU core."""

TINY = maestro.TINY
"""That of `maestro`."""
