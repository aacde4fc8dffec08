"""A continuation added to a MIDI file: one more track behind chunks that are copied byte for byte."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from perceiver_ar.codecs import smf, sounding
from perceiver_ar.codecs.music import MusicCodec, Note
from perceiver_ar.codecs.smf import MidiError, TempoMap
from perceiver_ar.files import whole

if TYPE_CHECKING:
    from perceiver_ar.codecs.midi import MidiFile

NAME = "Perceiver AR"
PIANO = 0
# Said before the program: some files set up all sixteen channels, and none is then as it was at power-on.
BANK, VOLUME, BANK_LSB, RESET_CONTROLLERS = 0, 7, 32, 121
FRESH = ((RESET_CONTROLLERS, 0), (VOLUME, 100), (BANK, 0), (BANK_LSB, 0))
# Half a step of the codec: what starts this little before a cut stands, in steps, at the cut.
CUT_SLACK = 0.005
# A continuation alone: 480 ticks a quarter note at the default tempo are about one a millisecond.
ALONE_DIVISION = 480


def write_continuation(
    path: str | Path,
    original: "MidiFile | None",
    notes: Sequence[Note],
    start: float,
    *,
    cut: float | None = None,
    only: bool = False,
) -> None:
    """Write `continuation_bytes` to `path`; on failure (MidiError) what was there before stays as it was."""
    data = continuation_bytes(original, notes, start, cut=cut, only=only)
    try:
        with whole(path) as file:
            file.write(data)
    except OSError as error:
        raise MidiError(
            f"Cannot write {str(path)!r} ({error.strerror}); choose another output path."
        ) from None


def continuation_bytes(
    original: "MidiFile | None",
    notes: Sequence[Note],
    start: float,
    *,
    cut: float | None = None,
    only: bool = False,
) -> bytes:
    """The original with a track of `notes` (seconds from `start`, which is in seconds of the file).

    With `cut` (seconds) every track ends there: events before it stay as they are, what they leave sounding is
    silenced. With `only`, or without an original, a file of the continuation alone, from time 0.
    """
    if only or original is None:
        tempo = TempoMap(ALONE_DIVISION)
        messages = [
            (0, smf.meta(smf.SET_TEMPO, smf.DEFAULT_TEMPO.to_bytes(3))),
            (0, bytes([smf.PROGRAM, PIANO])),
            *_note_messages(notes, 0.0, 0, tempo, 0),
        ]
        return _header(0, 1, ALONE_DIVISION) + _track(messages)
    tempo = original.tempo
    tracks = [track.events for track in original.tracks]
    messages: list[tuple[int, bytes]] = []
    begin = tempo.tick(start)
    if cut is None:
        body = original.data[_header_end(original.data) : original.chunks[-1].end]
        messages += _silence(tracks, begin)
    else:
        limit = _limit(tempo, cut)
        body = _cut_chunks(original, limit)
        tracks = [events.before(limit) for events in tracks]
        tempo = TempoMap(original.division, tracks)
        begin = max(begin, limit)
    channel = pick_channel(tracks)
    messages += [(begin, bytes([smf.CONTROL | channel, control, value])) for control, value in FRESH]
    messages.append((begin, bytes([smf.PROGRAM | channel, PIANO])))
    messages += _note_messages(notes, start, begin, tempo, channel)
    messages.sort(key=lambda message: message[0])
    extra = original.data[14 : _header_end(original.data)]
    header = _header(1, len(tracks) + 1, original.division, extra)
    return header + body + _track(messages) + original.data[original.chunks[-1].end :]


def _silence(tracks: Sequence[smf.Events], begin: int) -> list[tuple[int, bytes]]:
    """What silences the original from the tick `begin` on.

    Not before its last message, or something could be struck, or the pedal go down, after it was silenced.
    """
    last = max(int(events.ticks[events.status < smf.SYSEX].max(initial=0)) for events in tracks)
    return [(max(begin, last), message) for events in tracks for message in sounding.closings(events)]


def pick_channel(tracks: Iterable[smf.Events]) -> int:
    """The lowest channel that no message uses, drums apart; if there is none, the one with the fewest notes."""
    messages, notes = np.zeros(16, int), np.zeros(16, int)
    for events in tracks:
        channels = events.status & 0x0F
        messages += np.bincount(channels[events.status < smf.SYSEX], minlength=16)
        notes += np.bincount(channels[(events.status & 0xF0) == smf.NOTE_ON], minlength=16)
    melodic = [channel for channel in range(16) if channel != sounding.DRUM_CHANNEL]
    return min(melodic, key=lambda channel: (messages[channel] > 0, notes[channel], channel))


def _limit(tempo: TempoMap, cut: float) -> int:
    """The first tick that stands, in steps of the codec, at the cut."""
    step = MusicCodec().step
    limit = tempo.tick(cut - CUT_SLACK, up=True)
    # Exactly half a step before, the last bit of the tick's time says to which step it is rounded.
    while step(float(tempo.seconds(limit))) < step(cut):
        limit += 1
    return limit


def _cut_chunks(original: "MidiFile", limit: int) -> bytes:
    """All chunks, the tracks among them ended at the tick `limit`."""
    out = bytearray()
    tracks = iter(original.tracks)
    for chunk in original.chunks:
        whole = original.data[chunk.start - 8 : chunk.end]
        out += (
            whole if chunk.kind != smf.TRACK else _cut_track(original.data, chunk, next(tracks).events, limit)
        )
    return bytes(out)


def _cut_track(data: bytes, chunk: smf.Chunk, events: smf.Events, limit: int) -> bytes:
    kept = events.before(limit)
    closings = sounding.closings(kept)
    if kept.ended and not closings:
        return data[chunk.start - 8 : chunk.end]
    count = len(kept.ticks) - kept.ended
    end = int(events.offsets[count]) if count < len(events.offsets) else chunk.end
    tick = int(kept.ticks[count - 1]) if count else 0
    messages = [(limit, message) for message in [*closings, smf.meta(smf.END_OF_TRACK)]]
    return smf.track_chunk(data[chunk.start : end] + smf.lay(messages, tick))


def _note_messages(
    notes: Iterable[Note], start: float, begin: int, tempo: TempoMap, channel: int
) -> list[tuple[int, bytes]]:
    """Note-ons and note-offs in order, none before the tick `begin`; on one tick the offs come first.

    A pitch struck again before its end is released first; where two fall on one tick, the later stays.
    """
    messages: list[tuple[int, int, bytes]] = []
    following: dict[int, int] = {}
    for note in sorted(notes, key=lambda note: note.start, reverse=True):
        on = max(begin, tempo.tick(start + note.start))
        off = min(max(on + 1, tempo.tick(start + note.end)), following.get(note.pitch, smf.MAX_DELTA))
        if off <= on:
            continue
        following[note.pitch] = on
        velocity = min(max(note.velocity, 1), 127)
        messages.append((on, 1, bytes([smf.NOTE_ON | channel, note.pitch, velocity])))
        messages.append((off, 0, bytes([smf.NOTE_OFF | channel, note.pitch, 0])))
    return [(tick, message) for tick, _, message in sorted(messages)]


def _track(messages: Sequence[tuple[int, bytes]]) -> bytes:
    last = messages[-1][0]
    named = [(0, smf.meta(smf.TRACK_NAME, NAME.encode())), *messages, (last, smf.meta(smf.END_OF_TRACK))]
    return smf.track_chunk(smf.lay(named))


def _header(form: int, tracks: int, division: int, extra: bytes = b"") -> bytes:
    fields = b"".join(value.to_bytes(2) for value in (form, tracks, division))
    return smf.HEADER + (len(fields) + len(extra)).to_bytes(4) + fields + extra


def _header_end(data: bytes) -> int:
    return 8 + int.from_bytes(data[4:8])
