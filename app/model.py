"""A model that gets ready while the page is already there."""

import threading
from pathlib import Path

import numpy as np

from perceiver_ar.checkpoint import Pretrained, load, music, read_codec, read_config
from perceiver_ar.continuation import Request, continue_music, keep_compiled_programs
from perceiver_ar.registry import resolve


class NotPossible(ValueError):
    """Not possible as asked; the message is for the user."""


class Model:
    """A model that is loaded and compiled in the background.

    Raises:
        FileNotFoundError: no such model.
        CheckpointError: its config or codec is missing or damaged, or it makes no music.
    """

    def __init__(self, name: str | Path) -> None:
        self._name, folder = name, resolve(name)
        self.config, self.codec = read_config(folder), music(read_codec(folder))
        self._pretrained: Pretrained | None = None
        self._failure: Exception | None = None
        self._ready = threading.Event()
        threading.Thread(target=self._prepare, daemon=True, name="model").start()

    def wait(self, seconds: float | None = None) -> Pretrained | None:
        """The model, or None if it is not ready after `seconds`; NotPossible if it cannot be loaded."""
        if not self._ready.wait(seconds):
            return None
        if self._failure:
            raise NotPossible(f"The model could not be loaded: {self._failure}")
        return self._pretrained

    def _prepare(self) -> None:
        """Load it, then make a moment of music, which compiles what every run needs."""
        try:
            keep_compiled_programs()
            self._pretrained = load(self._name)
            silence = np.full(8, self.codec.time_shift, np.int32)
            for progress in continue_music(self._pretrained, silence, Request(seconds=0.1)):
                if progress.tokens:
                    break
        except Exception as error:  # whatever it was, the page says so
            self._failure = error
        finally:
            self._ready.set()
