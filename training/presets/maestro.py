"""MAESTRO as MIDI performances: the model that ships in `assets/piano`."""

from perceiver_ar.config import ModelConfig
from training.config import OptimConfig, Stage, TrainConfig

PRESET = TrainConfig(
    model=ModelConfig(
        vocab_size=391,
        context=16_384,
        latents=512,
        width=256,
        layers=6,
        heads=4,
        cross_heads=4,
        cross_attend_dropout=0.1,
    ),
    stages=(Stage(0.7, 1024, 4), Stage(0.9, 4096, 4), Stage(1.0, 16_384, 2)),
    steps=12_000,
    optim=OptimConfig(name="muon", rate=3e-3, muon_rate=0.02, warmup=100, decay=2_000, b2=0.99),
)
"""Ours: a model for one CPU core, short contexts first. The paper's MAESTRO model has 12 layers of width 512."""
