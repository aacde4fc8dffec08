"""What the page draws of a continuation, while it is made and after."""

from dataclasses import dataclass
from pathlib import Path

from perceiver_ar.codecs.music import Note, NoteStream


@dataclass(eq=False)
class Take:
    """One continuation as the page draws it: notes as numbers in a text that only grows while it is made."""

    notes: str = ""
    sounding: str = ""
    count: int = 0
    seconds: float = 0.0
    midi: Path | None = None
    wav: Path | None = None
    trouble: str = ""
    """Why there is no sound."""
    _taken: int = 0

    def follow(self, stream: NoteStream, start: float, limit: float) -> None:
        """Take over what is new in `stream`, which begins `start` seconds into the file."""
        fresh = stream.notes[self._taken :]
        self._taken += len(fresh)
        self.notes += written(fresh, start, limit)
        now = min(stream.time, limit)
        opened = [
            Note(pitch, velocity, begin, now)
            for pitch, (begin, velocity) in stream.open.items()
            if begin < now
        ]
        self.sounding = written(opened, start, limit)
        self.count, self.seconds = self._taken + len(opened), now

    def finish(self, notes: list[Note], start: float, path: Path) -> None:
        """All of its notes, and where its file lies."""
        self.notes, self.sounding, self.count, self.midi = written(notes, start), "", len(notes), path


def written(notes: list[Note], start: float = 0.0, limit: float = float("inf")) -> str:
    """Notes as `pitch velocity start length `, the times in hundredths of a second of the file."""
    return "".join(
        f"{note.pitch} {note.velocity} {round(100 * (start + note.start))} "
        f"{round(100 * (min(note.end, limit) - note.start))} "
        for note in notes
        if note.start < limit
    )
