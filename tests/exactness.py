"""What continuations are compared with: uncached forwards of the same tokens, one for each fill."""

from collections.abc import Iterator

import numpy as np
import pytest
from small_models import VOCAB, ToyCodec, places, uncached

from perceiver_ar import generate as generation
from perceiver_ar.config import FIRST_DATA, PAD, ModelConfig
from perceiver_ar.fills import bucket, heard, primer_limit, refilled
from perceiver_ar.generate import Chunk, generate
from perceiver_ar.model import PerceiverAR


def cut_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pad primers to a few short lengths, and cut most refills into two pieces, of one token and of three."""
    monkeypatch.setattr(generation, "SMALLEST", 4)
    monkeypatch.setattr(generation, "piece_of", lambda config, rows: max(3 // rows, 1))


def primer(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, count]).integers(FIRST_DATA, VOCAB, count).astype(np.int32)


def collect(chunks: Iterator[Chunk], count: int) -> Chunk:
    """The next `count` tokens or a few more, as one chunk."""
    got: list[Chunk] = []
    while sum(part.tokens.shape[1] for part in got) < count:
        got.append(next(chunks))
    tokens, logits = zip(*got, strict=True)
    return Chunk(np.concatenate(tokens, 1), np.concatenate(logits, 1))


def fills(config: ModelConfig, size: int, padding: int) -> Iterator[tuple[int, int, int, int]]:
    """Where each fill leaves things: (tokens before it, room, first latent, first token seen), padding counted.

    `size` is the length of the padded primers, of which the longest has so much padding. A fill recomputes half of the
    latents. With absolute positions, when all of the context's have been seen, the window starts again on the last
    `primer_limit` tokens.
    """
    half, absolute = config.latents // 2, config.position != "rotary"
    length, latents, begin, again = size, min(size, half), 0, padding + config.context + 1
    while True:
        room = min(config.latents - latents, again - length) if absolute else config.latents - latents
        yield length, room, length - latents, begin
        length, latents = length + room, half
        if not absolute:
            begin = max(begin, length + config.latents - half - config.context)
        elif length == again:
            begin = length - primer_limit(config)
            again = begin + config.context + 1


def check_exact(
    model: PerceiverAR,
    primers: list[np.ndarray],
    takes: int,
    count: int,
    chunk: int = 5,
    kept: PerceiverAR | None = None,
    atol: float = 1e-4,
) -> float:
    """Compare the logits of `count` tokens with uncached forwards of the same tokens, one for each fill.

    `kept` generates in the place of `model`: the same with weights, or a cache, of another type. The greatest
    difference is given.
    """
    most = 0.0
    config, codec = model.config, ToyCodec(model.config.position_shape)
    got = collect(generate(kept or model, codec, primers, takes=takes, chunk=chunk), count)
    used = [heard(config, part) for part in primers]
    longest = max(map(len, used))
    size = bucket(longest, min(4, refilled(config)), max(longest, primer_limit(config)))
    rows = [part for part in used for _ in range(takes)]
    assert got.tokens.shape == got.logits.shape[:2] == (len(rows), got.tokens.shape[1])
    for row, (before, new, logits) in enumerate(zip(rows, got.tokens, got.logits, strict=True)):
        shift, whole = size - len(before), np.concatenate([before, new])
        for length, room, boundary, begin in fills(config, size, size - longest):
            done, end = length - size, length + room - 1
            if done + room > len(new):
                break
            first = max(begin - shift, 0)
            seen, latents = whole[first : end - shift], end - max(boundary, shift)
            wanted = forward(model, seen, latents, first if config.position == "rotary" else 0)
            np.testing.assert_allclose(
                logits[done : done + room], wanted[-room:], atol=atol, err_msg=f"row {row}, from token {done}"
            )
            most = max(most, float(np.abs(logits[done : done + room] - wanted[-room:]).max()))
    return most


def forward(model: PerceiverAR, seen: np.ndarray, latents: int, start: int) -> np.ndarray:
    """Uncached logits of the last `latents` of the tokens `seen`, at positions from `start` on.

    Padding on the left, which test_model.py shows to change nothing, spares compiling every length.
    """
    pads = model.config.context - len(seen)
    tokens = np.pad(seen, (pads, 0), constant_values=PAD)
    positions = np.pad(places(len(seen), model.config.position_shape, start), ((pads, 0), (0, 0)))
    return np.asarray(uncached(model, tokens[None], positions[None], latents))[0]
