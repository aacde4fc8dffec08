"""The piano model that ships in `assets/piano`: MAESTRO, and other performances laid out like it."""

from dataclasses import replace

from training.config import OptimConfig, Stage
from training.presets import maestro

PRESET = replace(
    maestro.PRESET,
    model=replace(
        maestro.PRESET.model,
        context=16_384,
        position_shape=(),
        latents=2048,
        width=512,
        layers=6,
        heads=8,
        cross_heads=8,
        dropout=0.1,
        cross_attend_dropout=0.0,
        dtype="bfloat16",
        remat=False,
    ),
    stages=(Stage(0.5, 2048, 16), Stage(0.7, 4096, 16), Stage(0.9, 8192, 16), Stage(1.0, 16_384, 16)),
    steps=12_600,
    optim=OptimConfig(
        name="muon", rate=3e-3, muon_rate=0.02, warmup=200, decay=6300, b2=0.99, weight_decay=0.05
    ),
    save_every=2100,
    evaluate_every=2100,
)
"""Ours: 22 million parameters, eight minutes of one H200, in which it sees the data fifteen times, which is why they
are augmented. Short contexts first, and the long ones while the rate still falls: a model that has settled without them
does not learn to use them. It ships with half as many latents, which halves the pauses of generation."""

TINY = maestro.TINY
"""That of `maestro`."""
