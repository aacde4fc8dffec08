"""Random crops of pieces, a pure function of (seed, step): a resumed run sees what an unbroken one would have."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from perceiver_ar.codecs.music import PITCHES, MusicCodec
from perceiver_ar.config import FIRST_DATA, PAD
from training.config import AugmentConfig, TrainConfig
from training.data.midi import Pieces


class Batch(NamedTuple):
    """Int32 tokens (batch, seq), positions (batch, seq, 1), and targets (batch, latents): each latent's next token."""

    tokens: np.ndarray
    positions: np.ndarray
    targets: np.ndarray


def batch_of(crops: list[np.ndarray], context: int, latents: int) -> Batch:
    """Crops of at most `context + 1` tokens, padded on the left; the last `latents` tokens are targets."""
    tokens = np.full((len(crops), context + 1), PAD, np.int32)
    for row, crop in zip(tokens, crops, strict=True):
        row[context + 1 - len(crop) :] = crop
    positions = np.broadcast_to(np.arange(context, dtype=np.int32)[None, :, None], (len(crops), context, 1))
    return Batch(tokens[:, :-1], positions, tokens[:, -latents:])


def training_batch(pieces: Pieces, config: TrainConfig, step: int) -> Batch:
    """The batch of a step: crops that end anywhere in a piece, each token as likely as any other.

    A crop near a piece's beginning is shorter and padded, so that first tokens are predicted too.
    """
    rng = np.random.default_rng((config.seed, step))
    stage = config.stage(step)
    latents = min(config.model.latents, stage.context)
    lengths = np.diff(pieces.offsets)
    crops = []
    for number in rng.choice(len(pieces), stage.batch, p=lengths / lengths.sum()):
        piece = pieces[number]
        end = int(rng.integers(min(latents + 1, len(piece)), len(piece) + 1))
        # A stretch makes time shifts more or fewer; a margin keeps the crop as long as it should be.
        begin = max(0, end - 2 * (stage.context + 1))
        crop = augment(piece[begin:end].astype(np.int32), config.augment, rng)
        crops.append(crop[-(stage.context + 1) :])
    return batch_of(crops, stage.context, latents)


def batches(pieces: Pieces, config: TrainConfig, first: int) -> Iterator[Batch]:
    """The batches from step `first` to the run's end, one made while the one before is used."""
    with ThreadPoolExecutor(1) as worker:
        ahead = worker.submit(training_batch, pieces, config, first)
        for step in range(first, config.steps):
            batch = ahead.result()
            if step + 1 < config.steps:
                ahead = worker.submit(training_batch, pieces, config, step + 1)
            yield batch


def augment(tokens: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """The same music transposed and at another tempo, both drawn evenly from what `config` allows."""
    semitones = int(rng.integers(-config.transpose, config.transpose + 1))
    factor = 1 + float(rng.uniform(-config.stretch, config.stretch))
    return stretch(transpose(tokens, semitones), factor)


def transpose(tokens: np.ndarray, semitones: int) -> np.ndarray:
    """Tokens with every pitch moved, or unchanged where a pitch would leave MIDI's range."""
    notes = (tokens >= FIRST_DATA) & (tokens < FIRST_DATA + 2 * PITCHES)
    pitches = (tokens[notes] - FIRST_DATA) % PITCHES + semitones
    if pitches.size and not 0 <= pitches.min() <= pitches.max() < PITCHES:
        return tokens
    moved = tokens.copy()
    moved[notes] += semitones
    return moved


def stretch(tokens: np.ndarray, factor: float) -> np.ndarray:
    """Tokens with all times multiplied, rounded to steps as absolute times so that no error adds up."""
    codec = MusicCodec()
    shifts = (tokens >= codec.time_shift) & (tokens < codec.velocity)
    elapsed = np.cumsum(np.where(shifts, tokens - codec.time_shift + 1, 0))
    events = ~shifts
    times = np.rint(elapsed[events] * factor).astype(np.int64)
    gaps = np.diff(times, prepend=0)
    whole, rest = np.divmod(gaps, codec.max_shift_steps)
    counts = whole + (rest > 0) + 1
    out = np.full(counts.sum(), codec.time_shift + codec.max_shift_steps - 1, np.int32)
    at = np.cumsum(counts) - 1
    out[at] = tokens[events]
    with_rest = rest > 0
    out[at[with_rest] - 1] = codec.time_shift + rest[with_rest] - 1
    return out
