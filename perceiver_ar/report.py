"""What the command line says, and the page in the same words: a file, its primer, how far a run has come."""

import os
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from perceiver_ar.codecs.midi import MidiFile, Primer
    from perceiver_ar.continuation import Priming, Progress


@cache
def nowhere() -> TextIO:
    """What stands for stdout or stderr when there is none, or nobody reads it any more."""
    return Path(os.devnull).open("w", encoding="utf-8")


def say(text: str, end: str = "\n") -> None:
    """Print on stderr. Nobody has to read it: neither a reader that has gone nor a full disk ends a run."""
    try:
        print(text, end=end, file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = nowhere()


def sentence(error: BaseException) -> str:
    """What is wrong, without the number that the system gives it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def clock(seconds: float) -> str:
    """A duration: `3 min 41 s`, or `41.5 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def heard(priming: "Priming") -> str:
    """How much of the piece primes the model: `all 8,211 tokens, 3 min 41 s`."""
    used, total = priming.used, priming.total
    amount = f"all {total:,} tokens" if used == total else f"the last {used:,} of {total:,} tokens"
    return f"{amount}, {clock(priming.seconds)}"


def facts(midi: "MidiFile", primer: "Primer", priming: "Priming") -> dict[str, Any]:
    """A file and its primer as values that JSON can hold."""
    return {
        "type": midi.format,
        "ticks_per_quarter": midi.division,
        "seconds": round(midi.seconds, 3),
        "notes": midi.notes,
        "drum_notes": midi.drums,
        "tracks": [
            {"name": track.name, "notes": track.notes, "drum_notes": track.drums} for track in midi.tracks
        ],
        "start": primer.start,
        "silence_shortened": round(primer.shortened, 3),
        "primer_tokens": priming.used,
        "primer_tokens_total": priming.total,
        "warnings": list(midi.warnings),
    }


def described(midi: "MidiFile", primer: "Primer", priming: "Priming") -> Iterator[str]:
    """The same as lines to read."""
    drums = f", {midi.drums:,} drum notes" if midi.drums else ""
    yield f"file      {midi.name}: type {midi.format}, {midi.division} ticks a quarter note"
    yield f"music     {clock(midi.seconds)}, {midi.notes:,} notes{drums}"
    for number, track in enumerate(midi.tracks, 1):
        parts = [f"{track.notes:,} notes"] if track.notes or not track.drums else []
        parts += [f"{track.drums:,} drum notes"] if track.drums else []
        if track.channels:
            parts.append("channel " + ", ".join(str(channel + 1) for channel in track.channels))
        yield f"track {number:<3} {track.name or '(no name)'}: {', '.join(parts)}"
    yield f"primer    {heard(priming)}"
    yield f"goes on   at {clock(primer.start)}"
    if primer.shortened > 0:
        yield f"note      {clock(primer.shortened)} of silence are left out for the model, not in the file"
    for warning in midi.warnings:
        yield f"note      {warning}"


def progress_text(progress: "Progress", seconds: float) -> str:
    """Music made of `seconds`, notes, rate against real time, time left."""
    factor = progress.realtime_factor
    made = f"{progress.seconds:.{1 if seconds >= 1 else 2}f}"
    text = f"{made} of {seconds:g} s of music, {progress.notes:,} notes"
    if factor > 0:
        text += f", {factor:.2f} x real time"
        text += "" if progress.done else f", {(seconds - progress.seconds) / factor:.0f} s left"
    return text


class ProgressLine:
    """Progress on stderr: one line that is overwritten on a terminal, else a line every few seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.terminal = sys.stderr.isatty()
        self.last = -float("inf")

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *_: object) -> None:
        if self.terminal:
            say("")

    def show(self, progress: "Progress") -> None:
        """Say how far it is."""
        now = time.monotonic()
        if not (self.terminal or progress.done or now - self.last > 2):
            return
        self.last = now
        text = progress_text(progress, self.seconds)
        if self.terminal:
            say(f"\r\x1b[K{text}", end="")
        else:
            say(text)
