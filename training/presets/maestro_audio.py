"""MAESTRO's recordings as the codes of a residual vector quantizer, 1,200 tokens a second."""

from dataclasses import replace

from perceiver_ar.config import ModelConfig
from training.config import OptimConfig, Stage, TrainConfig
from training.data.audio import Audio

DOMAIN = Audio()
PRESET = TrainConfig(
    domain=DOMAIN,
    model=ModelConfig(
        vocab_size=DOMAIN.codec.vocab_size,
        context=8192,
        latents=1024,
        width=1024,
        layers=12,
        heads=16,
        cross_heads=16,
        dropout=0.1,
        dtype="bfloat16",
        remat=True,
    ),
    stages=(Stage(1.0, 8192, 256),),
    steps=250_000,
    optim=OptimConfig(warmup=10_000),
)
"""The paper's codes at its 12 kbit/s, and the shortest context of its audio models: 6.8 seconds. Its longest are 65,536
tokens. 12 layers of width 1024 with 16 heads are the defaults of its released code, which has no setting for audio;
batch, steps, number format and recomputed layers are ours.

`maestro_audio_18` and `maestro_audio_22` are its 18 and 22 kbit/s. SoundStream's own weights were never published;
codes of any residual vector quantizer will do, one `.npy` file (frames, codebooks) a recording. Say with
`--domain.codes` and `--domain.frames-per-second` if they differ from 1,024 codes and 50 frames. Without `--data` the
codes are made up."""


def with_codebooks(config: TrainConfig, codebooks: int) -> TrainConfig:
    """The same on the first `codebooks`, which make another vocabulary."""
    domain = replace(DOMAIN, codebooks=codebooks)
    return replace(config, domain=domain, model=replace(config.model, vocab_size=domain.codec.vocab_size))


_SMALL = replace(
    PRESET,
    model=replace(
        PRESET.model,
        context=1024,
        position_shape=(),
        latents=256,
        width=64,
        layers=2,
        heads=4,
        cross_heads=4,
        dropout=0.0,
        remat=False,
    ),
    stages=(Stage(1.0, 1024, 8),),
    steps=600,
    optim=OptimConfig(name="muon", rate=2e-3, muon_rate=0.01, warmup=50, decay=200, b2=0.99),
    evaluate_every=200,
)
TINY = with_codebooks(_SMALL, 4)
"""Ours: 0.7 million parameters on the first four codebooks, which are 2 kbit/s."""
