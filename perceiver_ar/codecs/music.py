"""Piano music as the performance events of note-seq.

Source: Oore et al., "This Time with Feeling" (2018), as implemented by `note_seq.performance_lib`.
"""

import math
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from perceiver_ar.codecs.base import every_token, steps
from perceiver_ar.config import FIRST_DATA

if TYPE_CHECKING:
    from note_seq import NoteSequence

PITCHES = 128
VELOCITIES = 127
"""From 1 on: 0 is a note-off."""
# A longer stretch without any event says nothing more, and an hour of it would fill the context.
MAX_SILENCE_SECONDS = 10
MAX_TICK = 10_000_000  # pretty_midi's own bound on the length of a file
# Before the first velocity token: mezzo-forte.
DEFAULT_VELOCITY = 64


class Note(NamedTuple):
    """One note: MIDI pitch and velocity, start and end in seconds."""

    pitch: int
    velocity: int
    start: float
    end: float


@dataclass(frozen=True)
class MusicCodec:
    """Notes to tokens: note-on, note-off, time shift, velocity, in note-seq's order behind the specials.

    Raises:
        ValueError: a field that no codec can have.
    """

    steps_per_second: int = 100
    max_shift_steps: int = 100
    velocity_bins: int = 32
    """0: all notes are equally loud."""

    name = "music"

    def __post_init__(self) -> None:
        for name, least in (("steps_per_second", 1), ("max_shift_steps", 1), ("velocity_bins", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
        if self.velocity_bins > VELOCITIES:
            raise ValueError(f"velocity_bins must be at most {VELOCITIES}, not {self.velocity_bins}")

    @property
    def note_on(self) -> int:
        """Token of a note-on of pitch 0."""
        return FIRST_DATA

    @property
    def note_off(self) -> int:
        """Token of a note-off of pitch 0."""
        return self.note_on + PITCHES

    @property
    def time_shift(self) -> int:
        """Token of a shift by one step."""
        return self.note_off + PITCHES

    @property
    def velocity(self) -> int:
        """Token of the lowest velocity bin."""
        return self.time_shift + self.max_shift_steps

    @property
    def vocab_size(self) -> int:
        return self.velocity + self.velocity_bins

    @property
    def legal(self) -> np.ndarray:
        """Boolean (1, vocab_size): any event may follow any other."""
        return every_token(self.vocab_size)

    def positions(self, start: int, count: int) -> np.ndarray:
        """Int32 of shape (count, 1)."""
        return steps(start, count)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name} | asdict(self)

    def encode(self, source: "NoteSequence | str | Path", end: float | None = None) -> np.ndarray:
        """Tokens (n,) int32 of a NoteSequence or a MIDI file, all instruments but drums as one piano.

        With `end` (seconds) the music is cut there: later notes are left out, sounding ones end, and a time
        shift leads up to it.
        """
        return self.tokens(self.quantize(source, end), end)

    def quantize(self, source: "NoteSequence | str | Path", end: float | None = None) -> "NoteSequence":
        """The piano part with the sustain pedal applied, quantized, no two notes of a pitch overlapping."""
        import_note_seq()
        from note_seq import sequences_lib

        sequence = sequences_lib.apply_sustain_control_changes(self._read(source))
        # The pedal is in the notes now; left in, it would be applied a second time by whoever plays them.
        del sequence.control_changes[:]
        quantized = sequences_lib.quantize_note_sequence_absolute(sequence, self.steps_per_second)
        last = None if end is None else self.step(end)
        notes = _one_piano(quantized.notes, last)
        del quantized.notes[:]
        quantized.notes.extend(notes)
        return quantized

    def tokens(self, quantized: "NoteSequence", end: float | None = None) -> np.ndarray:
        """Tokens of what `quantize` returned, with long silences shortened."""
        import_note_seq()
        from note_seq.performance_encoder_decoder import PerformanceOneHotEncoding
        from note_seq.performance_lib import Performance

        last = 0 if end is None else self.step(end)
        shortened, length = _shorten_silences(quantized, last, MAX_SILENCE_SECONDS * self.steps_per_second)
        performance = Performance(
            shortened, num_velocity_bins=self.velocity_bins, max_shift_steps=self.max_shift_steps
        )
        if end is not None:
            performance.set_length(length)
        one_hot = PerformanceOneHotEncoding(self.velocity_bins, self.max_shift_steps)
        return np.array([FIRST_DATA + one_hot.encode_event(event) for event in performance], np.int32)

    def step(self, seconds: float) -> int:
        """The step nearest to a time, by note-seq's rule."""
        return int(seconds * self.steps_per_second + 0.5)

    def decode(self, tokens: np.ndarray) -> list[Note]:
        """Notes in seconds, sorted by start and pitch; what was never ended ends with the tokens."""
        stream = NoteStream(self)
        stream.feed(tokens)
        return stream.all()

    def elapsed(self, tokens: np.ndarray) -> np.ndarray:
        """Steps from the beginning to where each token leaves off, int64 (n,)."""
        shifts = (tokens >= self.time_shift) & (tokens < self.velocity)
        return np.cumsum(np.where(shifts, tokens.astype(np.int64) - self.time_shift + 1, 0))

    def _read(self, source: "NoteSequence | str | Path") -> "NoteSequence":
        if not isinstance(source, str | Path):
            return source
        from note_seq import midi_io

        return midi_io.midi_file_to_note_sequence(str(source))


class NoteStream:
    """Decodes tokens as they are made: what is finished, what is sounding, how far time has come.

    A note-off without its note-on is passed over, a note-on of a sounding pitch ends the note before, and a note
    without length is dropped, as note-seq does: nobody would hear it. `primer` are the tokens that came before;
    of them only the velocity in force is taken over. A note that is held for `longest` seconds ends there.
    """

    def __init__(
        self, codec: MusicCodec, primer: np.ndarray | None = None, longest: float = math.inf
    ) -> None:
        self.notes: list[Note] = []
        self._codec = codec
        self._longest = longest * codec.steps_per_second
        self._step = 0
        self._sounding: dict[int, tuple[int, int]] = {}
        self._velocity = DEFAULT_VELOCITY
        if primer is not None:
            velocities = primer[(primer >= codec.velocity) & (primer < codec.vocab_size)]
            self.feed(velocities[-1:])

    @property
    def time(self) -> float:
        """Seconds since the start of the stream."""
        return self._step / self._codec.steps_per_second

    @property
    def open(self) -> dict[int, tuple[float, int]]:
        """Start in seconds and velocity of every sounding pitch."""
        rate = self._codec.steps_per_second
        return {pitch: (start / rate, velocity) for pitch, (start, velocity) in self._sounding.items()}

    def feed(self, tokens: Iterable[int]) -> None:
        """Take in the next tokens, any number of them."""
        codec = self._codec
        bin_size = math.ceil(VELOCITIES / max(codec.velocity_bins, 1))
        for token in map(int, tokens):
            if token < codec.note_on or token >= codec.vocab_size:
                continue
            if token < codec.note_off:
                pitch = token - codec.note_on
                self._end(pitch)
                self._sounding[pitch] = self._step, self._velocity
            elif token < codec.time_shift:
                self._end(token - codec.note_off)
            elif token < codec.velocity:
                self._step += token - codec.time_shift + 1
                self._release()
            else:
                self._velocity = 1 + (token - codec.velocity) * bin_size

    def all(self, limit: float | None = None) -> list[Note]:
        """Finished notes and sounding ones, these ended now; all of it cut at `limit` seconds."""
        now = self.time
        notes = self.notes + [
            Note(pitch, velocity, start, now) for pitch, (start, velocity) in self.open.items()
        ]
        if limit is not None:
            notes = [note._replace(end=min(note.end, limit)) for note in notes]
        return sorted((note for note in notes if note.end > note.start), key=lambda n: (n.start, n.pitch))

    def _release(self) -> None:
        """End what has been held for too long."""
        due = self._step - self._longest
        for pitch in [pitch for pitch, (start, _) in self._sounding.items() if start <= due]:
            self._end(pitch)

    def _end(self, pitch: int) -> None:
        start, velocity = self._sounding.pop(pitch, (self._step, 0))
        end = min(self._step, start + self._longest)
        if end > start:
            rate = self._codec.steps_per_second
            self.notes.append(Note(pitch, velocity, start / rate, end / rate))


def import_note_seq() -> None:
    """Import note-seq (seconds, the first time), without its noise and its change to pretty_midi.

    Its audio functions, unused here, import pydub, which warns of ffmpeg. And it lifts pretty_midi's cap on the
    length of a file to 1e10 ticks: a file of 37 bytes can then ask for gigabytes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import note_seq.midi_io  # noqa: F401
    import pretty_midi.pretty_midi

    pretty_midi.pretty_midi.MAX_TICK = MAX_TICK


def _one_piano(notes: Iterable[Any], last: int | None) -> list[Any]:
    """Quantized notes without drums, such that one piano could play them.

    A key struck again is released before; it then stays down as long as any of its notes lasts. Notes of one pitch
    that begin in the same step are one note, as loud as the louder.
    """
    kept: list[Any] = []
    sounding: dict[int, Any] = {}
    for note in sorted(notes, key=lambda note: (note.start_time, note.pitch)):
        if note.is_drum or (last is not None and note.quantized_start_step >= last):
            continue
        if last is not None:
            note.quantized_end_step = min(note.quantized_end_step, last)
        before = sounding.get(note.pitch)
        if before is not None and before.quantized_end_step > note.quantized_start_step:
            note.quantized_end_step = max(before.quantized_end_step, note.quantized_end_step)
            if before.quantized_start_step == note.quantized_start_step:
                before.quantized_end_step = note.quantized_end_step
                before.velocity = max(before.velocity, note.velocity)
                continue
            before.quantized_end_step = note.quantized_start_step
        sounding[note.pitch] = note
        kept.append(note)
    return kept


def _shorten_silences(quantized: Any, last: int, longest: int) -> tuple[Any, int]:
    """A copy in which no two successive events are more than `longest` steps apart, and where `last` is in it."""
    notes = quantized.notes
    times = np.array(
        [(note.quantized_start_step, note.quantized_end_step) for note in notes], np.int64
    ).ravel()
    steps = np.unique(np.concatenate([times, [0, last]]))
    new = np.concatenate([[0], np.cumsum(np.minimum(np.diff(steps), longest))])
    moved = new[np.searchsorted(steps, times)].reshape(-1, 2).tolist()
    shortened = type(quantized)()
    shortened.CopyFrom(quantized)
    for note, (start, end) in zip(shortened.notes, moved, strict=True):
        note.quantized_start_step, note.quantized_end_step = start, end
    return shortened, int(new[np.searchsorted(steps, last)])


CODEC = MusicCodec
