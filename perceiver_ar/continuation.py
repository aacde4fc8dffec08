"""Continue music: a primer's tokens and a request in, takes that grow chunk by chunk out."""

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from math import ceil
from numbers import Integral, Real
from typing import NamedTuple

import jax
import numpy as np

from perceiver_ar.checkpoint import Pretrained
from perceiver_ar.codecs.music import MusicCodec, NoteStream
from perceiver_ar.config import SOS, ModelConfig
from perceiver_ar.fills import heard
from perceiver_ar.generate import generate
from perceiver_ar.registry import user_cache
from perceiver_ar.sampling import Sampling

MAX_SECONDS = 600.0
MAX_TAKES = 16
MOST_TOKENS_A_SECOND = 300
"""No playing is denser than this for long: a take that is gets no more tokens, so that every run ends."""

MOST_RESTS = 3
"""Time shifts in a row, of a second at most each, after which something has to happen."""
MOST_ALIKE = ((1, 20), (2, 90), (4, 110), (8, 300))
"""Different pitches, and the most notes in a row of so few: then one of another pitch has to come. In whole
performances of MAESTRO's validation split the longest such rows have 17, 83, 100 and 126 notes."""
BEING_WRITTEN = 60.0
"""Seconds in which a file of the cache that is empty may still be filled."""
LONGEST_NOTE = 10.0
"""Seconds after which a key is let go. Of 191,579 notes of a third of MAESTRO's validation split, pedal included, one
in a thousand lasts longer than 9.1; a model that forgets a note-off would hold it for the rest of the take."""


@dataclass(frozen=True)
class Request:
    """What to make; the defaults are the recommended ones.

    Raises:
        ValueError: a value out of its range.
    """

    seconds: float = 30.0
    """Length of each take."""
    takes: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    min_p: float = 0.005
    """What came nearest to how pianists go on (docs/models/piano.md)."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("takes", "seed"):
            if not isinstance(getattr(self, name), Integral):
                raise ValueError(f"{name} must be a whole number, not {getattr(self, name)!r}")
        for name in ("seconds", "temperature", "top_p", "min_p"):
            if not isinstance(getattr(self, name), Real):
                raise ValueError(f"{name} must be a number, not {getattr(self, name)!r}")
        if not 0 < self.seconds <= MAX_SECONDS:
            raise ValueError(f"seconds must be above 0 and at most {MAX_SECONDS:g}, not {self.seconds}")
        if not 1 <= self.takes <= MAX_TAKES:
            raise ValueError(f"takes must be between 1 and {MAX_TAKES}, not {self.takes}")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be between 0 and {2**31 - 1}, not {self.seed}")
        self.sampling()

    def sampling(self) -> Sampling:
        """How tokens are drawn; ValueError if they cannot be."""
        return Sampling(temperature=self.temperature, top_p=self.top_p, min_p=self.min_p)


def musical(codec: MusicCodec, sampling: Sampling) -> Sampling:
    """The same, without what a model may never leave once it has begun: silence, or a row of few pitches.

    A primer that ends as pieces end makes an end likely, which may not be drawn. What is left then is time that passes,
    and each second of it makes the next one likelier: after `MOST_RESTS` time shifts something happens. Each time that
    a trill or a chord comes again makes it likelier too, which goes no farther than `MOST_ALIKE`.
    """
    return replace(
        sampling,
        rest=(codec.time_shift, codec.velocity),
        rests=MOST_RESTS,
        event=(codec.note_on, codec.note_off),
        alike=MOST_ALIKE,
    )


def take_stream(codec: MusicCodec, primer: np.ndarray) -> NoteStream:
    """What decodes a take as it is made."""
    return NoteStream(codec, primer, LONGEST_NOTE)


class Priming(NamedTuple):
    """What of a primer the model hears: its last `used` of `total` tokens, which last `seconds`."""

    tokens: np.ndarray
    """What goes into the model, with the start token where the piece's beginning is heard."""
    used: int
    total: int
    seconds: float


class Progress(NamedTuple):
    """How far a continuation has come. Streams are the same objects each time, and grow."""

    takes: list[NoteStream]
    seconds: float
    """Music made in every take so far, at most what was asked for."""
    notes: int
    """Notes of all takes together, without those drawn past the end."""
    tokens: int
    """Tokens of all takes together."""
    tokens_per_second: float
    """Of all takes together, since the first chunk was there: without compilation and prefill."""
    realtime_factor: float
    """Seconds of music of every take made in a second, over the same time."""
    done: bool


def prime(config: ModelConfig, codec: MusicCodec, tokens: np.ndarray) -> Priming:
    """As much of the primer as the context holds, counted from its end. `tokens` is int (n,), without SOS."""
    primer = heard(config, np.concatenate([[SOS], tokens])).astype(np.int32)
    used = min(len(tokens), len(primer))
    shifts = primer[(primer >= codec.time_shift) & (primer < codec.velocity)] - codec.time_shift + 1
    return Priming(primer, used, len(tokens), float(shifts.sum()) / codec.steps_per_second)


def continue_music(pretrained: Pretrained, tokens: np.ndarray, request: Request) -> Generator[Progress]:
    """Continue the primer `tokens` (n,) as `request` says; closing the iterator stops at once.

    The first progress, without any music, comes before the model has run. The same request gives the same takes
    on the same machine.
    """
    codec = pretrained.music
    primer = prime(pretrained.config, codec, tokens).tokens
    takes = [take_stream(codec, primer) for _ in range(request.takes)]
    most = ceil(request.seconds * MOST_TOKENS_A_SECOND)
    made, clock = 0, _Clock()
    yield _progress(takes, request, made, clock, done=False)
    with closing(
        generate(
            pretrained.model,
            codec,
            [primer],
            takes=request.takes,
            sampling=musical(codec, request.sampling()),
            seed=request.seed,
        )
    ) as chunks:
        done = False
        while not done:
            new = next(chunks).tokens
            made += new.shape[1]
            for take, row in zip(takes, new, strict=True):
                if take.time < request.seconds:
                    take.feed(row)
            done = made >= most or all(take.time >= request.seconds for take in takes)
            progress = _progress(takes, request, made, clock, done=done)
            clock.start(progress)
            yield progress


class _Clock:
    """Time since the first chunk, and what was there by then."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.first: Progress | None = None

    def start(self, progress: Progress) -> None:
        """The first chunk is there; unless it was all, the rates count from here on."""
        if self.first is None and not progress.done:
            self.first, self.began = progress, time.monotonic()


def _progress(takes: list[NoteStream], request: Request, made: int, clock: _Clock, *, done: bool) -> Progress:
    seconds = min(request.seconds, *(take.time for take in takes))
    notes = sum(_begun(take, request.seconds) for take in takes)
    tokens = made * len(takes)
    elapsed = max(time.monotonic() - clock.began, 1e-6)
    before = clock.first
    new_tokens = tokens - (before.tokens if before else 0)
    new_seconds = seconds - (before.seconds if before else 0)
    return Progress(takes, seconds, notes, tokens, new_tokens / elapsed, new_seconds / elapsed, done)


def _begun(take: NoteStream, limit: float) -> int:
    """How many notes `take.all(limit)` has."""
    begun = sum(note.start < limit for note in take.notes)
    return begun + sum(start < min(take.time, limit) for start, _ in take.open.values())


def keep_compiled_programs() -> None:
    """Keep what XLA compiles in the user's cache folder, so that the next start takes a second and not twenty."""
    folder = user_cache("compiled")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # JAX warns of what a process that was killed has left empty, and never writes it anew.
        for path in folder.iterdir():
            if not path.stat().st_size and time.time() - path.stat().st_mtime > BEING_WRITTEN:
                path.unlink()
    except OSError:
        return  # no home to write to: it compiles every time
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # The smallest too: a process that compiles nothing at all never has XLA's compiler in memory.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
