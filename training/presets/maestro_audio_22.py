"""MAESTRO as audio codes at 22 kbit/s."""

from training.presets import maestro_audio

PRESET = maestro_audio.with_codebooks(maestro_audio.PRESET, 44)
"""`maestro_audio` with the codebooks of the paper's 22 kbit/s: 3.7 seconds of context, and 29.8 with `--model.context
65536 --stages.0.context 65536`."""

TINY = maestro_audio.TINY
"""That of `maestro_audio`."""
