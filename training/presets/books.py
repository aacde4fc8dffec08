"""Books as bytes."""

from dataclasses import replace

from perceiver_ar.config import ModelConfig
from training.config import OptimConfig, Stage, TrainConfig
from training.data.text import Text

DOMAIN = Text()
PRESET = TrainConfig(
    domain=DOMAIN,
    model=ModelConfig(
        vocab_size=DOMAIN.codec.vocab_size,
        context=16_384,
        latents=1024,
        width=1024,
        layers=24,
        heads=16,
        cross_heads=16,
        dropout=0.1,
        dtype="bfloat16",
        remat=True,
    ),
    stages=(Stage(1.0, 16_384, 256),),
    steps=250_000,
    optim=OptimConfig(warmup=10_000),
)
"""Ours, in the size of the paper's larger models: it reads subwords of an unpublished corpus, this reads bytes of any
folder, zip or tar of .txt files whose folders or names say `train` and `validation`, or `hf:NAME`, any dataset of
Hugging Face's with a column `text`, a book a row."""

TINY = replace(
    PRESET,
    model=replace(
        PRESET.model,
        context=2048,
        position_shape=(),
        latents=512,
        width=128,
        layers=4,
        heads=4,
        cross_heads=4,
        dropout=0.0,
        remat=False,
    ),
    stages=(Stage(1.0, 2048, 8),),
    steps=1000,
    optim=OptimConfig(name="muon", rate=2e-3, muon_rate=0.01, warmup=50, decay=300, b2=0.99),
    evaluate_every=250,
)
"""Ours: 1.1 million parameters."""
