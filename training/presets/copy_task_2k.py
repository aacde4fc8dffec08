"""The mirrored copy task of 2,048 symbols."""

from dataclasses import replace

from training.config import OptimConfig, Stage
from training.data.copy_task import CopyTask
from training.presets import copy_task_131k

DOMAIN = CopyTask(length=2_048)
PRESET = replace(
    copy_task_131k.PRESET,
    domain=DOMAIN,
    model=replace(
        copy_task_131k.PRESET.model,
        context=DOMAIN.length,
        latents=256,
        position_shape=(DOMAIN.length,),
    ),
    stages=(Stage(1.0, DOMAIN.length, 1024),),
)
"""Ours: `copy_task_131k` at this length, with a fourth of the second half as latents."""

TINY = replace(
    PRESET,
    domain=replace(DOMAIN, shortest=32),
    model=replace(PRESET.model, width=128, layers=1, heads=4, cross_heads=1, dropout=0.0, remat=False),
    stages=(Stage(1.0, DOMAIN.length, 8),),
    steps=2000,
    optim=OptimConfig(rate=2e-3, warmup=100, decay=400),
    evaluate_every=250,
)
"""Ours: for a CPU, which knows nearly all after an hour, and every symbol when it is trained on at full length
(docs/results.md)."""
