"""Random crops of sequences, a pure function of (seed, step, row): a resumed run sees what an unbroken one would have,
and processes share a batch without a word between them.
"""

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import grain
import numpy as np

from perceiver_ar.codecs.base import Codec
from perceiver_ar.config import PAD
from training import devices
from training.config import TrainConfig
from training.data.domain import Sequences

MAKERS = min(max((os.cpu_count() or 1) // 2, 2), 8)
"""Threads that make batches."""


class Batch(NamedTuple):
    """Int32 tokens (batch, seq), positions (batch, seq, axes), and targets (batch, latents), one a latent."""

    tokens: np.ndarray
    positions: np.ndarray
    targets: np.ndarray


class Crop(NamedTuple):
    """Consecutive tokens of a sequence; the last `scored` of them are to be predicted."""

    tokens: np.ndarray
    scored: int
    start: int = 0
    """Step of the first token, whose position is the codec's there."""


def batch_of(crops: list[Crop], codec: Codec, context: int, latents: int) -> Batch:
    """Crops of at most `context + 1` tokens, padded on the left.

    The last `latents` tokens are targets, and padding where they are not scored.
    """
    tokens = np.full((len(crops), context + 1), PAD, np.int32)
    targets = np.full((len(crops), latents), PAD, np.int32)
    shift = np.array([context + 1 - len(crop.tokens) for crop in crops])
    for number, crop in enumerate(crops):
        tokens[number, shift[number] :] = crop.tokens
        targets[number, latents - crop.scored :] = tokens[number, context + 1 - crop.scored :]
    start = np.array([crop.start for crop in crops])
    steps = start[:, None] + np.maximum(np.arange(context) - shift[:, None], 0)
    return Batch(tokens[:, :-1], codec.positions(0, int(steps.max()) + 1)[steps], targets)


def training_batch(
    sequences: Sequences, config: TrainConfig, step: int, rows: Iterable[int] | None = None
) -> Batch:
    """The batch of a step: crops that end anywhere in a sequence. One near its beginning is shorter and padded.

    The first and the last token are learned as often as those in the middle. A token n < `latents` behind the first, or
    before the last, is learned 1 + n / `latents` times as often: ends that would lie beyond are moved to the nearest
    that gives all latents something to predict (or to `shortest_crop`), so that no part of a batch is wasted.

    Args:
        rows: numbers of the examples to make, each the same whoever makes it; all of the batch by default.
    """
    stage, domain = config.stage(step), config.domain
    latents = min(config.model.latents, stage.context)
    crops = []
    for row in range(stage.batch) if rows is None else rows:
        rng = np.random.default_rng((config.seed, step, row))
        sequence = sequences[sequences.draw(rng)]
        first = domain.first_scored(len(sequence))
        least = first + latents if config.shortest_crop is None else max(config.shortest_crop, first + 1)
        # Ends drawn from the sequence alone would leave its last token to one of them, and its first one likewise.
        end = int(
            np.clip(
                rng.integers(first + 1, len(sequence) + latents), min(least, len(sequence)), len(sequence)
            )
        )
        # What an augmentation makes shorter is still as long as it should be.
        begin = max(0, end - 2 * (stage.context + 1))
        tokens = domain.augment(sequence[begin:end].astype(np.int32), rng)[-(stage.context + 1) :]
        start = end - len(tokens) if domain.placed else 0
        crops.append(Crop(tokens, min(latents, end - first, len(tokens) - 1), start))
    return batch_of(crops, domain.codec, stage.context, latents)


def batches(sequences: Sequences, config: TrainConfig, first: int) -> Iterator[Batch]:
    """A process's examples of the batches from step `first` to the run's end, made ahead of their use."""

    def batch(step: int) -> Batch:
        return training_batch(sequences, config, step, devices.rows(config.stage(step).batch))

    ahead = grain.ReadOptions(num_threads=MAKERS, prefetch_buffer_size=2 * MAKERS)
    yield from grain.MapDataset.range(first, config.steps).map(batch).to_iter_dataset(ahead)
