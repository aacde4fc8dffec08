"""What the page draws of a continuation, while it is made and after."""

from dataclasses import dataclass
from pathlib import Path

from perceiver_ar.codecs.music import Note, NoteStream


@dataclass(eq=False)
class Take:
    """One continuation as the page draws it: notes as numbers in a text that only grows while it is made."""

    number: int
    """Among the takes of its piece, from 1."""
    run: int
    start: float
    """Where it goes on, in seconds of the file."""
    length: float
    """Seconds that were asked for."""
    made: str
    """What it was made with."""
    growing: bool = True
    notes: str = ""
    sounding: str = ""
    count: int = 0
    seconds: float = 0.0
    midi: Path | None = None
    wav: Path | None = None
    heard: float = 0.0
    """Where `wav` begins, in seconds of the file."""
    trouble: str = ""
    """Why there is no sound."""
    _taken: int = 0

    def follow(self, stream: NoteStream) -> None:
        """Take over what is new in `stream`."""
        fresh = stream.notes[self._taken :]
        self._taken += len(fresh)
        self.notes += written(fresh, self.start, self.length)
        now = min(stream.time, self.length)
        opened = [
            Note(pitch, velocity, begin, now)
            for pitch, (begin, velocity) in stream.open.items()
            if begin < now
        ]
        self.sounding = written(opened, self.start, self.length)
        self.count, self.seconds = self._taken + len(opened), now

    def finish(self, notes: list[Note], path: Path) -> None:
        """All of its notes, and where its file lies."""
        self.notes, self.sounding, self.count = written(notes, self.start), "", len(notes)
        self.midi, self.growing = path, False


def written(notes: list[Note], start: float = 0.0, limit: float = float("inf")) -> str:
    """Notes as `pitch velocity start length `, the times in hundredths of a second of the file."""
    return "".join(
        f"{note.pitch} {note.velocity} {round(100 * (start + note.start))} "
        f"{round(100 * (min(note.end, limit) - note.start))} "
        for note in notes
        if note.start < limit
    )
