"""A small piano model: the one that ships in `assets/piano-small`, for tests and slow machines."""

from dataclasses import replace

from training.config import Stage
from training.presets import piano

PRESET = replace(
    piano.PRESET,
    model=replace(
        piano.PRESET.model,
        context=4096,
        position_shape=(),
        latents=512,
        width=128,
        layers=4,
        heads=2,
        cross_heads=2,
    ),
    stages=(Stage(0.8, 1536, 8), Stage(1.0, 4096, 8)),
    steps=1600,
    optim=replace(piano.PRESET.optim, decay=1300),
)
"""Ours: 1.1 million parameters, 23 minutes of one CPU core."""

TINY = piano.TINY
"""That of `maestro`."""
