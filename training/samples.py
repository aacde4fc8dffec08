"""Held-out sequences that a model completes, to look at and listen to."""

import numpy as np

from perceiver_ar.generate import generate
from perceiver_ar.model import PerceiverAR
from training.data.domain import Domain, Sample, Sequences


def complete(
    model: PerceiverAR, domain: Domain, sequences: Sequences, count: int, most: int, seed: int = 0
) -> list[Sample]:
    """The beginning of `count` sequences, spread over the split, and what the model makes of the rest.

    The rest is as long as it was, but for `most` tokens at most. All sequences go on side by side.

    Raises:
        ValueError: nothing is wanted.
    """
    if min(count, most) < 1:
        raise ValueError("there is nothing to complete: give at least 1 sequence and 1 token")
    chosen = np.linspace(0, len(sequences) - 1, min(count, len(sequences))).astype(int)
    whole = [sequences[int(number)].astype(np.int32) for number in chosen]
    primers = [tokens[: _begun(domain, len(tokens))] for tokens in whole]
    wanted = min(most, max(len(tokens) - len(primer) for tokens, primer in zip(whole, primers, strict=True)))
    made, parts = 0, []
    chunks = generate(model, domain.codec, primers, seed=seed)
    while made < wanted:
        parts.append(next(chunks).tokens)
        made += parts[-1].shape[1]
    chunks.close()
    rows = np.concatenate(parts, axis=1)
    return [
        Sample(primer, row[: min(most, len(tokens) - len(primer))])
        for tokens, primer, row in zip(whole, primers, rows, strict=True)
    ]


def _begun(domain: Domain, length: int) -> int:
    """Tokens of a sequence of so many that a model goes on from: SOS, half of the rest, and all that is never scored.

    Tokens that take turns, as the codes of a frame of audio do, are not parted.
    """
    half = (length - 1) // 2
    return max(domain.first_scored(length), 1 + half - half % len(domain.codec.legal))
