"""MIDI files to sound: the shipped piano, played by a process of its own.

The synthesizer holds the interpreter lock while it plays, and its memory grows with the length. It is therefore given
segments, each with the seconds before it as a lead-in, and what it returns is joined.
"""

import multiprocessing
import signal
import wave
from bisect import bisect_left
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from io import BytesIO
from math import ceil, inf
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from typing import BinaryIO

import numpy as np

from perceiver_ar.codecs import smf, sounding
from perceiver_ar.codecs.midi import MidiError, MidiFile, read_midi
from perceiver_ar.files import whole
from perceiver_ar.soundbank import soundfont

RATE = 48_000  # what midirenderer gives
MAX_SECONDS = 30 * 60
TAIL = 1.5  # seconds that the last sound may take to fade
SEGMENT, LEAD, JOIN = 60.0, 15.0, 0.05  # seconds
DIVISION, TICKS = 1000, 2000  # ticks a quarter note, and a second at the tempo of a file that names none
SOFTEST = 14  # below this velocity the synthesizer plays nothing at all
GAIN = 4.0  # the loudest of real performances then fill the range
FULL = 0.98 * 32767
VOLUME, PAN, EXPRESSION, SOUND_OFF, RESET, NOTES_OFF = 7, 10, 11, 120, 121, 123
CONTROLS = (sounding.SUSTAIN, VOLUME, PAN, EXPRESSION, SOUND_OFF, RESET, NOTES_OFF)
"""Controllers that mean something to a piano; it has no vibrato, and no bend."""

Message = tuple[int, bytes]
"""A channel message and its tick, `TICKS` a second."""


class RenderError(ValueError):
    """There is no sound; the text is one sentence that says what is wrong and what to do."""


def render(midi: bytes, *, begin: float = 0.0, end: float = inf, timeout: float | None = None) -> np.ndarray:
    """The music of a MIDI file on a piano, without drums: int16 (frames, 2), `RATE` frames a second.

    It begins and ends at these seconds of the file, and has `TAIL` more to fade. It is made softer where it would clip.
    RenderError if the file cannot be read, is longer than `MAX_SECONDS` or takes more than `timeout` seconds.
    """
    try:
        file = read_midi(midi)
    except MidiError as error:
        raise RenderError(str(error)) from None
    length = min(file.seconds, end) - begin
    if length > MAX_SECONDS:
        raise RenderError(
            f"The music lasts {ceil(length / 60)} minutes, and at most {MAX_SECONDS // 60} can be made audible; "
            "choose a shorter file."
        )
    total = length + TAIL
    audio = np.zeros((round(total * RATE), 2), np.int16)
    join = round(JOIN * RATE)
    rise = np.linspace(0, 1, join)[:, None]
    pieces = list(_segments(_messages(file), begin, total))
    with closing(_play([piece for _, _, piece in pieces], timeout)) as played:
        for (start, lead, _), piece in zip(pieces, played, strict=True):
            piece = piece[lead : lead + len(audio) - start]
            if start:
                head, piece = piece[:join], piece[join:]
                old = audio[start : start + len(head)]
                old[:] = old * (1 - rise[: len(head)]) + head * rise[: len(head)]
                start += len(head)
            audio[start : start + len(piece)] = piece
    _level(audio)
    return audio


def wav_bytes(midi: bytes, *, begin: float = 0.0, end: float = inf) -> bytes:
    """`render` as a WAV file of 16 bits."""
    target = BytesIO()
    _write(target, render(midi, begin=begin, end=end))
    return target.getvalue()


def write_wav(path: str | Path, midi: bytes, *, timeout: float | None = None) -> None:
    """Write `render` to a WAV file; on failure (RenderError) what was there before stays as it was."""
    audio = render(midi, timeout=timeout)
    try:
        with whole(path) as target:
            _write(target, audio)
    except OSError as error:
        raise RenderError(
            f"Cannot write {str(path)!r} ({error.strerror}); choose another output path."
        ) from None


def _write(target: BinaryIO, audio: np.ndarray) -> None:
    with wave.open(target, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(audio.astype("<i2", copy=False).data)


def _level(audio: np.ndarray) -> None:
    """Raise the level in place, by less than usual where that would clip."""
    peak = max(int(audio.max(initial=0)), -int(audio.min(initial=0)), 1)
    gain = min(GAIN, FULL / peak)
    fade = round(JOIN * RATE)
    for start in range(0, len(audio), RATE):
        audio[start : start + RATE] = np.rint(audio[start : start + RATE] * gain)
    audio[-fade:] = np.rint(audio[-fade:] * np.linspace(1, 0, fade)[:, None])


def _messages(file: MidiFile) -> list[Message]:
    """What a piano plays of a file, in order. Drums are left out, and so are programs: there is one instrument."""
    end = int(file.seconds * TICKS)
    messages: list[Message] = []
    for track in file.tracks:
        rows = track.events.rows(smf.NOTE_OFF, smf.NOTE_ON, smf.CONTROL)
        times = file.tempo.seconds(np.array([row[0] for row in rows], np.int64))
        for tick, (_, status, first, second) in zip((times * TICKS).astype(int).tolist(), rows, strict=True):
            kind, channel = status & 0xF0, status & 0x0F
            if channel == sounding.DRUM_CHANNEL or (kind == smf.CONTROL and first not in CONTROLS):
                continue
            if kind == smf.NOTE_ON and second:
                second = SOFTEST + second * (127 - SOFTEST) // 127
            messages.append((min(tick, end), bytes((status, first, second))))
        messages += [(end, message) for message in sounding.closings(track.events)]
    return sorted(messages, key=lambda message: message[0])


def _segments(messages: list[Message], begin: float, total: float) -> Iterator[tuple[int, int, bytes]]:
    """(first frame, frames of lead-in, MIDI file) of each segment of `total` seconds from `begin` on.

    A lead-in starts with the controllers as they stand. Notes older than it are missing, which the join hides.
    """
    controllers: dict[bytes, bytes] = {}
    first = 0
    for number in range(int(total // SEGMENT) + 1):
        start = number * SEGMENT
        lead = max(0, round((begin + start - LEAD) * TICKS))
        end = round((begin + min(start + SEGMENT + JOIN, total)) * TICKS) + 1
        while first < len(messages) and messages[first][0] < lead:
            message = messages[first][1]
            if message[0] & 0xF0 == smf.CONTROL:
                controllers.pop(message[:2], None)  # the order is that of the last moves
                controllers[message[:2]] = message
            first += 1
        last = bisect_left(messages, end, first, key=lambda message: message[0])
        body = [(lead, message) for message in controllers.values()]
        body += [*messages[first:last], (end, smf.meta(smf.END_OF_TRACK))]
        fields = b"".join(value.to_bytes(2) for value in (0, 1, DIVISION))
        piece = smf.HEADER + len(fields).to_bytes(4) + fields + smf.track_chunk(smf.lay(body, lead))
        yield round(start * RATE), round((begin + start - lead / TICKS) * RATE), piece


def _play(pieces: list[bytes], timeout: float | None) -> Generator[np.ndarray, None, None]:
    """int16 (frames, 2) of each MIDI file. The process ends with this iterator, whatever ends that."""
    deadline = None if timeout is None else monotonic() + timeout
    context = multiprocessing.get_context("spawn")
    pipe, its_end = context.Pipe()
    # The piano goes through the pipe: a process whose arguments break off, as its parent ends, prints a trace.
    process = context.Process(target=_work, args=(its_end,), daemon=True)
    with _deaf():
        process.start()
    its_end.close()
    try:
        pipe.send((soundfont(), pieces))
        for _ in pieces:
            if not pipe.poll(None if deadline is None else max(0.0, deadline - monotonic())):
                raise RenderError(f"The sound was not ready after {timeout:g} s; try a shorter file.")
            with wave.open(BytesIO(pipe.recv_bytes())) as file:
                yield np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    except (EOFError, ConnectionError):
        raise RenderError("The synthesizer stopped early; close other programs and try again.") from None
    finally:
        process.kill()
        process.join()
        pipe.close()


@contextmanager
def _deaf() -> Iterator[None]:
    """A process that is started within it never hears Ctrl-C, which is the parent's to answer.

    Told to pass it over when it runs, it would show a trace if that came while it imports what it needs.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # which `start` would do, and open the ears again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection) -> None:
    """Play pieces one by one. A parent that is gone breaks the pipe, and that ends the process."""
    from midirenderer import render_wave_from

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be started deaf
    with suppress(OSError, EOFError):
        piano, pieces = pipe.recv()
        for piece in pieces:
            pipe.send_bytes(render_wave_from(piano, piece))
