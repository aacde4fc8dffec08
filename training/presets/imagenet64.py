"""ImageNet 64x64: 12,288 subpixels an image."""

from dataclasses import replace

from perceiver_ar.config import ModelConfig
from training.config import OptimConfig, Stage, TrainConfig
from training.data.images import Images

DOMAIN = Images()
PRESET = TrainConfig(
    domain=DOMAIN,
    model=ModelConfig(
        vocab_size=DOMAIN.codec.vocab_size,
        context=DOMAIN.codec.length,
        latents=1024,
        width=1024,
        layers=60,
        heads=16,
        cross_heads=16,
        position="learned",
        position_shape=DOMAIN.codec.shape,
        dropout=0.1,
        dtype="bfloat16",
        remat=True,
    ),
    stages=(Stage(1.0, DOMAIN.codec.length, 2048),),
    steps=750_000,
    optim=OptimConfig(warmup=10_000, decay=50_000, decay_shape="cosine"),
)
"""The paper's (section 5.2) and its released code's `imagenet_w_positions`: 60 layers, learned positions, 750,000
steps, the last 50,000 with a cosine. Number format and recomputed layers are ours. `--domain.order planes` is the order
R, G, B.

The data are the official archive (van den Oord et al. 2016): `train_64x64.tar` and `valid_64x64.tar`, unpacked into one
folder. `--data hf:NAME` reads any dataset with a column of images of that size, but published figures are those of the
archive."""

TINY = replace(
    PRESET,
    model=replace(
        PRESET.model, latents=512, width=128, layers=4, heads=4, cross_heads=4, dropout=0.0, remat=False
    ),
    stages=(Stage(1.0, DOMAIN.codec.length, 2),),
    steps=400,
    optim=OptimConfig(name="muon", rate=2e-3, muon_rate=0.01, warmup=50, decay=100, b2=0.99),
    save_every=100,
    evaluate_every=200,
)
"""Ours: 1.1 million parameters."""
