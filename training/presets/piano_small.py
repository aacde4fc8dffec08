"""A small piano model: the one that ships in `assets/piano-small`, for tests and slow machines."""

from dataclasses import replace

from training.config import OptimConfig, Stage
from training.data.music import Music
from training.presets import piano

PRESET = replace(
    piano.PRESET,
    domain=Music(transpose=0, stretch=0.0, loudness=0),
    model=replace(
        piano.PRESET.model,
        context=4096,
        position_shape=(),
        latents=512,
        width=128,
        layers=4,
        heads=2,
        cross_heads=2,
        dropout=0.0,
    ),
    stages=(Stage(0.8, 1536, 8), Stage(1.0, 4096, 8)),
    steps=1600,
    optim=OptimConfig(name="muon", rate=3e-3, muon_rate=0.01, warmup=100, decay=1300, b2=0.99),
    save_every=250,
    evaluate_every=500,
)
"""Ours: 1.1 million parameters, 23 minutes of one CPU core, a quarter of a pass over the data, which is why nothing is
augmented."""

TINY = piano.TINY
"""That of `maestro`."""
