"""Piano transcribed from recordings: any folder, zip or tar of MIDI files, the more the better."""

from perceiver_ar.config import ModelConfig
from training.config import OptimConfig, Stage, TrainConfig
from training.data.music import Music
from training.presets import maestro

DOMAIN = Music()
PRESET = TrainConfig(
    domain=DOMAIN,
    model=ModelConfig(
        vocab_size=DOMAIN.codec.vocab_size,
        context=32_768,
        latents=1024,
        width=1024,
        layers=24,
        heads=16,
        cross_heads=16,
        dropout=0.1,
        dtype="bfloat16",
        remat=True,
    ),
    stages=(Stage(1.0, 32_768, 256),),
    steps=250_000,
    optim=OptimConfig(warmup=10_000),
)
"""The paper's context, latents and layers for its 10,000 hours of transcribed piano, which it does not publish; it got
1.2418 nats a token on its test split. Width and heads are those of its released code; batch, steps, number format and
recomputed layers are ours. So are transposed, stretched, louder and softer examples (`--domain.transpose 0
--domain.stretch 0 --domain.loudness 0` leaves them as they are), and that pieces of all lengths are learned: the paper
has those of 1,024 to 32,768 tokens.

So many files are best prepared ahead: `python -m training prepare transcribed_piano`, on all cores or on a cluster by
Beam."""

TINY = maestro.TINY
"""That of `maestro`."""
