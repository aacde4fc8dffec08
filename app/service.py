"""What the page does, without the page: sessions, their runs, and the files these leave."""

import json
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from app.model import Model, NotPossible
from app.picture import Take, written
from perceiver_ar.checkpoint import Pretrained
from perceiver_ar.codecs.midi import MidiFile, Primer, continuation_bytes, read_midi
from perceiver_ar.continuation import Priming, Progress, Request, continue_music, prime
from perceiver_ar.registry import asset
from perceiver_ar.report import clock, progress_text

EVERY = 0.25
"""Least seconds between two updates of the page."""
BEFORE, LONG = 60.0, 180.0
"""Seconds of the original that are heard before a take, which goes on from later than the second number."""
AROUND = 600.0
"""Seconds of the original that are heard by themselves."""
MOST_KEPT = 12
"""Takes of a piece that stay; the oldest go."""
STOPPING = "Stopping ..."
RECORDINGS = {
    ".aac",
    ".aif",
    ".aiff",
    ".flac",
    ".m4a",
    ".mp3",
    ".mp4",
    ".ogg",
    ".opus",
    ".wav",
    ".webm",
    ".wma",
}
NO_MUSIC = "Stopped before there was any music."
MOST_SESSIONS = 30
"""More are not kept: with the sound of what they made each may hold 50 MB and more."""
NUMBERS = count(1)
"""Pieces and runs are numbered, so that the page sees when one is new."""


class Shipped(NamedTuple):
    """A piece that ships with the program."""

    label: str
    path: Path


def shipped() -> list[Shipped]:
    """The pieces to choose from."""
    folder = asset("primers")
    pieces = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    return [
        Shipped(
            f"{one['composer']}: {one['title']} ({one['style']}, {clock(one['seconds'])})",
            folder / one["file"],
        )
        for one in pieces
    ]


@dataclass(frozen=True, eq=False)
class Piece:
    """A file to continue, from its end or from an earlier `start`."""

    number: int
    midi: MidiFile
    whole: Primer
    primer: Primer
    priming: Priming

    @property
    def cut(self) -> float | None:
        """Where the file is cut, in seconds; None: it is kept whole."""
        return None if self.primer is self.whole else self.primer.start

    def sentences(self) -> Iterator[str]:
        """The file, how much of it the model hears, and what else there is to know."""
        yield f"{self.midi.name}, {clock(self.midi.seconds)}"
        whole = self.priming.used == self.priming.total
        if self.cut is None:
            start, amount = "its end", "all of it"
        else:
            start, amount = clock(self.cut), "all that is before"
        amount = amount if whole else f"the {clock(self.priming.seconds)} before that"
        yield f"New takes go on from {start}; the model hears {amount}."
        if self.primer.shortened > 0:
            yield f"{clock(self.primer.shortened)} of silence are left out for the model, not in the file."
        yield from self.midi.warnings


@dataclass(eq=False)
class Run:
    """One press of the button: its takes, and whether it is to stop."""

    piece: Piece
    request: Request
    takes: list[Take] = field(default_factory=list)
    waiting: bool = True
    over: bool = False
    stopping: threading.Event = field(default_factory=threading.Event)
    number: int = field(default_factory=lambda: next(NUMBERS))

    def begin(self, last: int) -> None:
        """Its takes, numbered on from `last`."""
        request, start = self.request, self.piece.primer.start
        for place in range(1, request.takes + 1):
            made = f"From {clock(start)} on, seed {request.seed}"
            made += f" ({place} of {request.takes})" if request.takes > 1 else ""
            for name, value in vars(request).items():
                if name in ("temperature", "top_p", "min_p") and value != getattr(Request, name):
                    made += f", {name.replace('_', '-')} {value:g}"
            self.takes.append(Take(last + place, self.number, start, request.seconds, made + "."))


class Session:
    """One visitor: a piece, its takes, and the folder with their files."""

    def __init__(self, model: Model, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.piece: Piece | None = None
        self.sound: Path | None = None
        self.trouble = ""
        self.heard = 0.0
        """Where `sound` begins, in seconds of the piece."""
        self.takes: list[Take] = []
        self.run: Run | None = None
        self.closed = False
        self._lock = threading.Lock()

    def open(self, path: Path) -> Piece:
        """Read a file; MidiError or NotPossible, and everything stays as it was, if it cannot be continued."""
        if path.suffix.lower() in RECORDINGS:
            raise NotPossible(
                "This is a recording, and the model reads notes: make a MIDI file of it first, with a transcription "
                "program such as Basic Pitch or one of your music software, and upload that."
            )
        midi = read_midi(path)
        whole = midi.primer(self.model.codec)
        priming = prime(self.model.config, self.model.codec, whole.tokens)
        self.stop()
        with self._lock:
            if self.piece:
                shutil.rmtree(self._files(self.piece), ignore_errors=True)
            self.piece = Piece(next(NUMBERS), midi, whole, whole, priming)
            self.sound, self.trouble, self.heard, self.takes, self.run = None, "", 0.0, [], None
        return self.piece

    def begin_at(self, seconds: float) -> Piece:
        """Continue from `seconds` of the file; from its last sound on, the file is kept whole."""
        piece = self.chosen()
        codec, primer = self.model.codec, piece.whole
        if seconds < min(piece.midi.seconds, piece.whole.start):
            primer = piece.midi.primer(codec, seconds)
        priming = prime(self.model.config, codec, primer.tokens)
        self.piece = Piece(piece.number, piece.midi, piece.whole, primer, priming)
        if self.sound and not self.heard <= primer.start <= self.heard + AROUND:
            self.sound.unlink(missing_ok=True)
            self.sound = None
        return self.piece

    def chosen(self) -> Piece:
        """The piece; NotPossible if there is none yet."""
        if self.piece is None:
            raise NotPossible("There is no music yet; upload a MIDI file, or pick one of the pieces.")
        return self.piece

    def prepare(self, request: Request) -> Run:
        """Announce a run, so that it can be stopped while it waits for its turn."""
        self.stop()
        self.run = Run(self.chosen(), request)
        return self.run

    def stop(self) -> None:
        """End the run after the notes it is at; what was made by then is kept."""
        if self.run:
            self.run.stopping.set()

    @property
    def generating(self) -> bool:
        """Whether a run is at work, rather than waiting for its turn."""
        return self.run is not None and not (self.run.waiting or self.run.over)

    def carry_out(self, run: Run) -> Iterator[tuple[str, float]]:
        """Make the music; gives a line to read and the part that is done, 0 to 1."""
        run.waiting = False
        try:
            if not self.model.wait(0):
                yield "The model is getting ready: this takes up to a minute the first time.", 0.0
            while not (pretrained := self.model.wait(0.2)):
                if run.stopping.is_set():
                    break
            progress = None
            if pretrained and not run.stopping.is_set():
                yield f"Listening to {clock(run.piece.priming.seconds)} of music ...", 0.0
                for progress in self._grow(run, pretrained):
                    seconds = run.request.seconds
                    text = STOPPING if run.stopping.is_set() else progress_text(progress, seconds)
                    yield text, progress.seconds / seconds
            if not self._has(run.piece):
                yield "", 0.0
                return
            if progress is None or not (progress.done or any(take.count for take in run.takes)):
                yield NO_MUSIC, 0.0
                return
            self._keep(run, progress)
            text = progress_text(progress._replace(done=True), run.request.seconds)
            yield ("Done: " if progress.done else "Stopped: ") + text, progress.seconds / run.request.seconds
        finally:
            run.over = True
            for take in run.takes:
                take.growing = False

    def _has(self, piece: Piece) -> bool:
        """Whether this piece is still the one that is open."""
        return self.piece is not None and self.piece.number == piece.number

    def _grow(self, run: Run, pretrained: Pretrained) -> Iterator[Progress]:
        """The run's progress, not too often; its takes follow."""
        music = continue_music(pretrained, run.piece.primer.tokens, run.request)
        last = 0.0
        try:
            for progress in music:
                stopping = run.stopping.is_set()
                if progress.tokens and (stopping or progress.done or time.monotonic() - last > EVERY):
                    last = time.monotonic()
                    if not run.takes:
                        run.begin(self.takes[-1].number if self.takes else 0)
                    for take, stream in zip(run.takes, progress.takes, strict=True):
                        take.follow(stream)
                    if progress.done or any(take.count for take in run.takes):
                        self._show(run)
                    yield progress
                if stopping:
                    return
        finally:
            music.close()

    def _show(self, run: Run) -> None:
        """Put its takes behind those of earlier runs of the piece; too old ones go, and their files."""
        if not self._has(run.piece) or run.takes[0] in self.takes:
            return
        takes = [*self.takes, *run.takes]
        self.takes = takes[-MOST_KEPT:]
        for take in takes[:-MOST_KEPT]:
            for path in (take.midi, take.wav):
                if path:
                    path.unlink(missing_ok=True)

    def _keep(self, run: Run, progress: Progress) -> None:
        """Write each take's file, unless nobody is there to have it."""
        piece = run.piece
        for take, stream in zip(run.takes, progress.takes, strict=True):
            notes = stream.all(limit=take.length)
            data = continuation_bytes(piece.midi, notes, take.start, cut=piece.cut)
            if path := self._write(piece, f"-continued-{take.number}.mid", data):
                take.finish(notes, path)

    def _write(self, piece: Piece, end: str, data: bytes) -> Path | None:
        """Write a file whose name has this `end`; None if the piece was left meanwhile: nobody would remove it."""
        with self._lock:
            if self.closed or not self._has(piece):
                return None
            path = self._files(piece) / f"{Path(piece.midi.name).stem}{end}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            return path

    def _files(self, piece: Piece) -> Path:
        """The folder of a piece's files."""
        return self.folder / str(piece.number)

    def close(self) -> None:
        """Stop what runs, and remove all files; none comes after."""
        self.stop()
        with self._lock:
            self.closed = True
            shutil.rmtree(self.folder, ignore_errors=True)

    def listen(self) -> None:
        """Make the sound of the piece, of a long one around where it is gone on from."""
        piece = self.chosen()
        if self.sound or self.trouble:
            return
        begin = max(0.0, min(piece.primer.start - AROUND / 2, piece.whole.start - AROUND))
        end = f"-from-{begin:.0f}-s.wav" if begin else ".wav"
        sound, trouble = self._sound(piece, end, piece.midi.data, begin, begin + AROUND)
        if self._has(piece):
            self.sound, self.trouble, self.heard = sound, trouble, begin

    def render(self) -> Iterator[None]:
        """Make the sound of finished takes that have none yet; a step for each."""
        for take in self.takes:
            if (
                self.piece
                and take in self.takes
                and take.midi
                and not (take.wav or take.trouble or self.closed)
            ):
                end = f"-continued-{take.number}.wav"
                take.heard = take.start - BEFORE if take.start > LONG else 0.0
                take.wav, take.trouble = self._sound(self.piece, end, take.midi, take.heard)
                if take.wav and take not in self.takes:
                    take.wav.unlink(missing_ok=True)
                yield

    def _sound(
        self, piece: Piece, name: str, midi: Path | bytes, begin: float, end: float = inf
    ) -> tuple[Path | None, str]:
        """Render to a file, as `_write` does; and what went wrong, or an empty text."""
        from perceiver_ar.render import RenderError, wav_bytes

        try:
            data = midi if isinstance(midi, bytes) else midi.read_bytes()
            return self._write(piece, name, wav_bytes(data, begin=begin, end=end)), ""
        except (RenderError, OSError) as error:
            return None, str(error)

    def picture(self) -> dict[str, Any] | None:
        """All that the page draws, as values that JSON can hold, and paths; None without a piece."""
        if (piece := self.piece) is None:
            return None
        return {
            "piece": piece.number,
            "name": piece.midi.name,
            "seconds": piece.midi.seconds,
            "notes": written(piece.whole.notes),
            "start": piece.primer.start,
            "wav": self.sound,
            "heard": self.heard,
            "trouble": self.trouble,
            "takes": [
                {name: value for name, value in vars(take).items() if not name.startswith("_")}
                for take in self.takes
            ],
        }


class Service:
    """The model, and everybody's sessions below `folder`."""

    def __init__(self, model: str | Path, folder: Path) -> None:
        self.model, self.folder = Model(model), folder
        self._sessions: dict[str, Session] = {}
        """Those used last come last."""
        self._changing = threading.RLock()

    def session(self, key: str) -> Session:
        """The session of that key, or a new one; of too many the one that was not used longest is closed."""
        with self._changing:
            # The visitor chose the key, and it may be a path; a folder has a name that nobody guesses.
            folder = self.folder / f"session-{secrets.token_hex(16)}"
            session = self._sessions.pop(key, None) or Session(self.model, folder)
            self._sessions[key] = session
            if len(self._sessions) > MOST_SESSIONS:
                self.close(next(old for old, other in self._sessions.items() if not other.generating))
            return session

    def close(self, key: str) -> None:
        """Stop what runs, and remove the session's files."""
        with self._changing:
            if session := self._sessions.pop(key, None):
                session.close()
