"""What the page does, without the page: sessions, their runs, and the files these leave."""

import json
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from app.model import Model, NotPossible
from app.picture import Take, written
from perceiver_ar.checkpoint import Pretrained
from perceiver_ar.codecs.midi import MidiFile, Primer, continuation_bytes, read_midi
from perceiver_ar.continuation import Priming, Progress, Request, continue_music, prime
from perceiver_ar.registry import asset
from perceiver_ar.report import clock, heard, progress_text

EVERY = 0.25
"""Least seconds between two updates of the page."""
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
        """What primes the model, and what there is to know of the file."""
        yield f"Primed by {heard(self.priming)}."
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
    running: bool = True
    stopping: threading.Event = field(default_factory=threading.Event)
    number: int = field(default_factory=lambda: next(NUMBERS))


class Session:
    """One visitor: a piece, the last run with music in it, and the folder with their files."""

    def __init__(self, model: Model, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.piece: Piece | None = None
        self.sound: Path | None = None
        self.trouble = ""
        self.shown: Run | None = None
        self.run: Run | None = None
        self.closed = False

    def open(self, path: Path) -> Piece:
        """Read a file; MidiError, and everything stays as it was, if it cannot be continued."""
        midi = read_midi(path)
        whole = midi.primer(self.model.codec)
        priming = prime(self.model.config, self.model.codec, whole.tokens)
        self.stop()
        self.piece = Piece(next(NUMBERS), midi, whole, whole, priming)
        self.sound, self.trouble, self.shown, self.run = None, "", None, None
        return self.piece

    def begin_at(self, seconds: float) -> Piece:
        """Continue from `seconds` of the file; from its last sound on, the file is kept whole."""
        piece = self.chosen()
        codec, primer = self.model.codec, piece.whole
        if seconds < min(piece.midi.seconds, piece.whole.start):
            primer = piece.midi.primer(codec, seconds)
        priming = prime(self.model.config, codec, primer.tokens)
        self.piece = Piece(piece.number, piece.midi, piece.whole, primer, priming)
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
        return self.run is not None and self.run.running and not self.run.waiting

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
                yield f"Listening to {heard(run.piece.priming)} ...", 0.0
                for progress in self._grow(run, pretrained):
                    seconds = run.request.seconds
                    yield progress_text(progress, seconds), progress.seconds / seconds
            if self.run is not run:  # another piece was opened
                yield "", 0.0
                return
            if progress is None or not (progress.done or any(take.count for take in run.takes)):
                yield NO_MUSIC, 0.0
                return
            run.running = False
            self._keep(run, progress)
            text = progress_text(progress._replace(done=True), run.request.seconds)
            yield ("Done: " if progress.done else "Stopped: ") + text, progress.seconds / run.request.seconds
        finally:
            run.running = False

    def _grow(self, run: Run, pretrained: Pretrained) -> Iterator[Progress]:
        """The run's progress, not too often; its takes follow."""
        start, limit = run.piece.primer.start, run.request.seconds
        music = continue_music(pretrained, run.piece.primer.tokens, run.request)
        last = 0.0
        try:
            for progress in music:
                stopping = run.stopping.is_set()
                if progress.tokens and (stopping or progress.done or time.monotonic() - last > EVERY):
                    last = time.monotonic()
                    run.takes = run.takes or [Take() for _ in progress.takes]
                    for take, stream in zip(run.takes, progress.takes, strict=True):
                        take.follow(stream, start, limit)
                    if self.run is run and (progress.done or any(take.count for take in run.takes)):
                        self.shown = run
                    yield progress
                if stopping:
                    return
        finally:
            music.close()

    def _keep(self, run: Run, progress: Progress) -> None:
        """Write each take's file, unless nobody is there to have it."""
        if self.closed:
            return
        piece, folder = run.piece, self.folder / str(run.number)
        folder.mkdir(parents=True, exist_ok=True)
        stem = Path(piece.midi.name).stem
        for number, (take, stream) in enumerate(zip(run.takes, progress.takes, strict=True), 1):
            notes = stream.all(limit=run.request.seconds)
            path = folder / f"{stem}-continued{f'-{number}' if len(run.takes) > 1 else ''}.mid"
            path.write_bytes(continuation_bytes(piece.midi, notes, piece.primer.start, cut=piece.cut))
            take.finish(notes, piece.primer.start, path)

    def render(self) -> Iterator[None]:
        """Make the sound of the piece and of finished takes that have none yet; a step for each."""
        if (piece := self.piece) and not (self.sound or self.trouble):
            path = self.folder / str(piece.number) / f"{Path(piece.midi.name).stem}.wav"
            trouble = _sound(piece.midi.data, path)
            if self.piece and self.piece.number == piece.number:
                self.sound, self.trouble = (None, trouble) if trouble else (path, "")
            yield
        for take in self.shown.takes if self.shown else []:
            if take.midi and not (take.wav or take.trouble or self.closed):
                path = take.midi.with_suffix(".wav")
                take.trouble = _sound(take.midi.read_bytes(), path)
                take.wav = None if take.trouble else path
                yield

    def picture(self) -> dict[str, Any] | None:
        """All that the page draws, as values that JSON can hold, and paths; None without a piece."""
        if (piece := self.piece) is None:
            return None
        run = self.shown and {
            "number": self.shown.number,
            "start": self.shown.piece.primer.start,
            "length": self.shown.request.seconds,
            "running": self.shown.running,
            "takes": [
                {name: value for name, value in vars(take).items() if not name.startswith("_")}
                for take in self.shown.takes
            ],
        }
        return {
            "piece": piece.number,
            "name": piece.midi.name,
            "seconds": piece.midi.seconds,
            "notes": written(piece.whole.notes),
            "start": piece.primer.start,
            "wav": self.sound,
            "trouble": self.trouble,
            "run": run,
        }


def _sound(midi: bytes, path: Path) -> str:
    """Render to `path`; what went wrong, or an empty text."""
    from perceiver_ar.render import RenderError, wav_bytes

    try:
        sound = wav_bytes(midi)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sound)
    except (RenderError, OSError) as error:
        return str(error)
    return ""


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
                session.closed = True
                session.stop()
                shutil.rmtree(session.folder, ignore_errors=True)
