"""MAESTRO as audio codes at 18 kbit/s."""

from training.presets import maestro_audio

PRESET = maestro_audio.with_codebooks(maestro_audio.PRESET, 36)
"""`maestro_audio` with the codebooks of the paper's 18 kbit/s: 4.6 seconds of context, and 36.4 with `--model.context
65536 --stages.0.context 65536`."""

TINY = maestro_audio.TINY
"""That of `maestro_audio`."""
