"""MIDI files in and out: what is wrong with a file, what of it primes the model, and the file continued.

The original is kept as bytes from beginning to end. Reading works on a scan of those bytes, writing copies them.
"""

import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from perceiver_ar.codecs import smf, sounding
from perceiver_ar.codecs.music import MAX_TICK, MusicCodec, Note, import_note_seq
from perceiver_ar.codecs.smf import MidiError, TempoMap
from perceiver_ar.codecs.splice import CUT_SLACK, continuation_bytes, pick_channel, write_continuation

if TYPE_CHECKING:
    from note_seq import NoteSequence

# The largest real performances here take half a megabyte. With these bounds a file is read in seconds.
MAX_BYTES = 2_000_000
MAX_NOTES = 100_000
MAX_SECONDS = 24 * 3600
MAX_TICKS_PER_SECOND = 400_000  # ten minutes of continuation still fit one delta time
COARSE_TICK_SECONDS = 0.02
PIANOS = range(8)
FADED_SECONDS = 5.0
"""What the pedal still holds so long after the last key was released is not waited for: strings of the shipped piano
are then 28 dB softer than when they were struck, and higher ones 40."""

__all__ = [
    "MidiError",
    "MidiFile",
    "Primer",
    "Track",
    "continuation_bytes",
    "read_midi",
    "write_continuation",
]


@dataclass(frozen=True, eq=False)
class Track:
    """One track: its name, the channels and programs of its messages, its notes without drums, its drum notes.

    Notes have a length; one that is struck twice at once is one. Drums are counted as they are struck.
    """

    name: str
    channels: tuple[int, ...]
    programs: tuple[int, ...]
    notes: int
    drums: int
    events: smf.Events


@dataclass(frozen=True, eq=False)
class Primer:
    """What comes before the continuation.

    tokens: int32 (n,), all of the music before the cut. start: where the continuation begins in the file, in
    seconds, in time with the last token. notes: as they sound, in seconds of the file, for drawing. shortened:
    seconds of silence that the file has and the tokens have not.
    """

    tokens: np.ndarray
    start: float
    notes: list[Note]
    shortened: float


@dataclass(frozen=True, eq=False)
class MidiFile:
    """A MIDI file that can be continued; `read_midi` makes it.

    data: the bytes as they came. division: ticks a quarter note. notes: how many, without drums. first: seconds
    of the first onset. seconds: when the last sound has ended, with drums, or what the sustain pedal holds has faded.
    warnings: sentences.
    """

    name: str
    data: bytes
    format: int
    division: int
    tracks: tuple[Track, ...]
    tempo: TempoMap
    chunks: tuple[smf.Chunk, ...]
    played: tuple[sounding.Played, ...]
    pedals: tuple[sounding.Pedal, ...]
    first: float
    seconds: float
    warnings: tuple[str, ...]

    @property
    def notes(self) -> int:
        return len(self.played)

    @property
    def drums(self) -> int:
        """How many drum notes; they stay in the file and do not prime the model."""
        return sum(track.drums for track in self.tracks)

    @cached_property
    def note_sequence(self) -> "NoteSequence":
        """Notes without drums and sustain pedal, as note-seq's reader gives them; a channel is an instrument.

        Unlike there, a pedal moves its channel in whatever track it stands, tempo changes count in every track,
        and a note that is never released lasts until the file ends.
        """
        import_note_seq()
        from note_seq import NoteSequence

        sequence = NoteSequence(ticks_per_quarter=self.division)
        times = self.tempo.seconds(np.array([(note.start, note.end) for note in self.played]))
        for note, (start, end) in zip(self.played, times.tolist(), strict=True):
            sequence.notes.add(
                instrument=note.channel,
                pitch=note.pitch,
                velocity=note.velocity,
                start_time=start,
                end_time=end,
            )
        sequence.total_time = float(times.max())
        for move in self.pedals:
            sequence.control_changes.add(
                instrument=move.channel,
                control_number=sounding.SUSTAIN,
                control_value=move.value,
                time=float(self.tempo.seconds(move.tick)),
            )
        return sequence

    def primer(self, codec: MusicCodec, start: float | None = None) -> Primer:
        """The music before `start` seconds, by default all of it; MidiError if there is none or it is past."""
        if start is not None and not self.first < start <= self.seconds + CUT_SLACK:
            raise MidiError(
                f"The music lies between {self.first:.2f} s and {self.seconds:.2f} s; "
                f"choose a start point there instead of {start:g} s."
            )
        part = codec.quantize(self.note_sequence, start)
        if not part.notes:
            raise MidiError(f"Before {start:g} s there are no notes yet; choose a later start point.")
        rate = codec.steps_per_second
        if start is not None:
            end = codec.step(start) / rate
        else:
            end = max(codec.step(self.seconds), *(note.quantized_end_step for note in part.notes)) / rate
        tokens = codec.tokens(part, end)
        shifts = tokens[(tokens >= codec.time_shift) & (tokens < codec.velocity)] - codec.time_shift + 1
        notes = [
            Note(note.pitch, note.velocity, note.quantized_start_step / rate, note.quantized_end_step / rate)
            for note in part.notes
        ]
        return Primer(tokens, end, notes, end - int(shifts.sum()) / rate)


def read_midi(source: str | Path | bytes, name: str | None = None) -> MidiFile:
    """Read and check a MIDI file, given as a path or as its bytes; MidiError if it cannot be continued."""
    data = source if isinstance(source, bytes) else _read_bytes(Path(source))
    if name is None:
        name = "MIDI file" if isinstance(source, bytes) else Path(source).name
    if len(data) > MAX_BYTES:
        raise _too_large(len(data))
    form, declared, division, chunks, end = smf.chunks(data)
    if form > 1:
        kind = "is of type 2, a set of separate patterns" if form == 2 else f"is of an unknown type ({form})"
        raise MidiError(f"The file {kind}; export it as type 0 or 1.")
    if not 0 < division < 0x8000:
        raise MidiError("The file counts time in SMPTE frames; export it with ticks per quarter note.")
    bodies = [chunk for chunk in chunks if chunk.kind == smf.TRACK]
    scanned = [smf.events(data, chunk, number) for number, chunk in enumerate(bodies, 1)]
    longest = max((int(events.ticks[-1]) for events in scanned if len(events.ticks)), default=0)
    if longest > MAX_TICK:
        raise MidiError(
            f"The file claims to be {longest:,} ticks long, more than {MAX_TICK:,}; it is damaged, export it again."
        )
    tracks = tuple(_track(events) for events in scanned)
    _check_notes(sum(track.notes for track in tracks), sum(track.drums for track in tracks))
    found = [sounding.notes(events, longest + 1) for events in scanned]
    tracks = tuple(
        replace(track, notes=sum(note.channel != sounding.DRUM_CHANNEL for note in notes))
        for track, notes in zip(tracks, found, strict=True)
    )
    tempo = _tempo_map(division, scanned)
    played, pedals, last = _performance(scanned, found, tempo)
    seconds = float(tempo.seconds(last))
    if seconds > MAX_SECONDS:
        raise MidiError(f"The music lasts {seconds / 3600:,.0f} hours; cut it to less than 24.")
    return MidiFile(
        name=name,
        data=data,
        format=form,
        division=division,
        tracks=tracks,
        tempo=tempo,
        chunks=tuple(chunks),
        played=tuple(played),
        pedals=tuple(pedals),
        first=float(tempo.seconds(min(note.start for note in played))),
        seconds=seconds,
        warnings=tuple(_warnings(declared, len(data) - end, tracks, tempo, played)),
    )


def _read_bytes(path: Path) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise MidiError(f"{str(path)!r} is a folder; give the MIDI file itself.")
        if not stat.S_ISREG(status.st_mode):
            raise MidiError(f"{str(path)!r} is not an ordinary file; give a MIDI file.")
        if status.st_size > MAX_BYTES:
            raise _too_large(status.st_size)
        return path.read_bytes()
    except FileNotFoundError:
        raise MidiError(f"There is no file {str(path)!r}; check the path.") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        if isinstance(error, MidiError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise MidiError(
            f"Cannot read {str(path)!r} ({reason}); check the path and its permissions."
        ) from None


def _too_large(size: int) -> MidiError:
    return MidiError(
        f"The file has {size / 1e6:.1f} MB, and the most that can be read is {MAX_BYTES / 1e6:.0f} MB; "
        "choose a shorter one."
    )


def _track(events: smf.Events) -> Track:
    kinds, channels = events.status & 0xF0, events.status & 0x0F
    voiced = kinds < smf.SYSEX
    struck = (kinds == smf.NOTE_ON) & (events.data2 > 0)
    drums = int(np.count_nonzero(struck & (channels == sounding.DRUM_CHANNEL)))
    return Track(
        name=events.name,
        channels=tuple(np.unique(channels[voiced]).tolist()),
        programs=tuple(np.unique(events.data1[kinds == smf.PROGRAM]).tolist()),
        notes=int(np.count_nonzero(struck)) - drums,
        drums=drums,
        events=events,
    )


def _check_notes(notes: int, drums: int) -> None:
    if not notes and drums:
        raise MidiError("The file has only drums; choose one with a melodic instrument.")
    if not notes:
        raise MidiError("The file has no notes; choose one with music in it.")
    if notes > MAX_NOTES:
        raise MidiError(f"The file has {notes:,} notes, more than {MAX_NOTES:,}; choose a shorter one.")


def _performance(
    tracks: Sequence[smf.Events], found: Sequence[Sequence[sounding.Played]], tempo: TempoMap
) -> tuple[list[sounding.Played], list[sounding.Pedal], int]:
    """Notes and sustain pedal without drums, and the tick at which the last sound has ended, drums included."""
    notes = [note for each in found for note in each]
    played = [note for note in notes if note.channel != sounding.DRUM_CHANNEL]
    if not played:
        raise MidiError("The file has no notes of any length; choose another.")
    pedals = [move for move in sounding.pedals(tracks) if move.channel != sounding.DRUM_CHANNEL]
    if len(pedals) > MAX_NOTES:
        raise MidiError(f"The file moves the pedal {len(pedals):,} times; choose a shorter one.")
    released = max(note.end for note in played)
    pedals = sounding.lifted(pedals, tempo.tick(float(tempo.seconds(released)) + FADED_SECONDS))
    # A drum that is never released does not sound on: it was struck.
    drums = [
        note.end if note.released else note.start for note in notes if note.channel == sounding.DRUM_CHANNEL
    ]
    return played, pedals, max([sounding.last_sound(played, pedals), *drums])


def _tempo_map(division: int, tracks: Iterable[smf.Events]) -> TempoMap:
    tempo = TempoMap(division, tracks)
    if 1 / tempo.scales.min() > MAX_TICKS_PER_SECOND:
        raise MidiError("The file's tempo is beyond all music; it is damaged, export it again.")
    return tempo


def _warnings(
    declared: int, rest: int, tracks: Sequence[Track], tempo: TempoMap, played: Sequence[sounding.Played]
) -> Iterator[str]:
    if declared != len(tracks):
        yield f"The header announces {declared} tracks, the file has {len(tracks)}."
    if rest:
        yield f"{rest:,} bytes after the last track are no MIDI; they are kept and not read."
    open_ended = [str(number) for number, track in enumerate(tracks, 1) if not track.events.ended]
    if open_ended:
        yield f"No End of Track in track {', '.join(open_ended[:8])}; the last event is taken as the end."
    if any(not microseconds for track in tracks for _, microseconds in track.events.tempos):
        yield "A tempo of zero is passed over."
    if drums := sum(track.drums for track in tracks):
        yield f"{drums:,} drum notes stay in the file and do not prime the model."
    if any(program not in PIANOS for track in tracks if track.notes for program in track.programs):
        yield "Instruments other than the piano are read as one piano."
    if stuck := sum(not note.released for note in played):
        yield f"Notes that are never released ({stuck:,}) end with the file."
    if (coarse := float(tempo.scales.max())) > COARSE_TICK_SECONDS:
        yield f"The file counts in ticks of up to {coarse * 1000:.0f} ms; new notes are rounded to them."
    channel = pick_channel(track.events for track in tracks)
    if any(note.channel == channel for note in played):
        yield f"All channels are in use; the continuation shares channel {channel + 1}."
