"""MAESTRO as audio codes at 18 kbit/s."""

from dataclasses import replace

from training.presets import maestro_audio

DOMAIN = replace(maestro_audio.DOMAIN, codebooks=36)
PRESET = replace(
    maestro_audio.PRESET,
    domain=DOMAIN,
    model=replace(maestro_audio.PRESET.model, vocab_size=DOMAIN.codec.vocab_size),
)
"""`maestro_audio` with the codebooks of the paper's 18 kbit/s: 4.6 seconds of context, and 36.4 with `--model.context
65536 --stages.0.context 65536`."""

TINY = maestro_audio.TINY
"""That of `maestro_audio`."""
