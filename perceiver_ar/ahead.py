"""Programs compiled in a thread beside what runs, so that nobody waits for a compiler when they are needed."""

import contextlib
from collections.abc import Hashable
from threading import Event, Thread
from typing import Any, NamedTuple

import jax

from perceiver_ar import memory

Program = tuple[Any, tuple]
"""A jitted function, and what it will be called with; of arrays only shapes and types are kept."""
_COMPILED: set[Hashable] = set()
"""What this process has compiled, which JAX keeps: functions, with the shapes and types of what they take."""


class Shape(NamedTuple):
    """What the programs of a continuation depend on."""

    slots: int
    """Of the ring."""
    prefix: bool
    """Whether some of it is still in the window."""
    known: bool
    """Whether the next refill takes what the cross-attend gave its tokens before, since the window does not move."""

    @property
    def steps(self) -> tuple:
        """A name for the program of a chunk."""
        return "steps", self.slots, self.prefix

    def refill(self, size: int) -> tuple:
        """A name for that of a piece of the next refill."""
        return ("refill", size) if self.known else ("refill", size, self.slots, self.prefix)


class Ahead:
    """At most one thread, which compiles one thing after the other.

    It is no daemon, since a compiler that loses its interpreter aborts loudly: a program that ends at that moment waits
    for what is being compiled.
    """

    def __init__(self) -> None:
        self.begun: set[Hashable] = set()
        """Names of all programs that are compiled, or will be before long."""
        self._closed, self._thread = Event(), None
        self._names: frozenset[Hashable] = frozenset()

    @property
    def busy(self) -> bool:
        """Whether it is compiling."""
        return self._thread is not None and self._thread.is_alive()

    def compile(self, programs: dict[Hashable, Program]) -> None:
        """Begin with these, each by a name of its own."""
        if not (wanted := self._wanted(programs)):
            return

        def compile_all(closed: Event = self._closed) -> None:  # and not all that its owner holds
            memory.give_back()  # of what the first programs took
            with contextlib.suppress(Exception):  # who needs the program meets the same error, and handles it
                for key, program in wanted.items():
                    if not closed.is_set():
                        _compile(key, program)
            memory.give_back()

        self._names, self._thread = frozenset(programs), Thread(target=compile_all, name="compile")
        self._thread.start()

    def compile_now(self, name: Hashable, program: Program) -> None:
        """Compile this one while its user waits: where it runs, threads that help would wait busily for a compiler."""
        for key, wanted in self._wanted({name: program}).items():
            _compile(key, wanted)

    def _wanted(self, programs: dict[Hashable, Program]) -> dict[Hashable, Program]:
        """Those that the process has not compiled yet, each by all that it depends on."""
        self.begun |= set(programs)
        wanted: dict[Hashable, Program] = {}
        for program, given in programs.values():
            given = jax.tree.map(_abstract, given)
            leaves, structure = jax.tree.flatten(given)
            if (key := (program, structure, *leaves)) not in _COMPILED:
                wanted[key] = program, given
        return wanted

    def ready(self, name: Hashable) -> bool:
        """Whether the program was begun, and nobody is compiling it."""
        return name in self.begun and not (self.busy and name in self._names)

    def wait(self) -> None:
        """Until it compiles nothing."""
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """Nothing more will be needed."""
        self._closed.set()


def _compile(key: Hashable, program: Program) -> None:
    function, given = program
    function.lower(*given).compile()
    _COMPILED.add(key)


def _abstract(x: Any) -> Any:
    """What a compiler must know of an array, whose data may be gone when it asks; all else stays as it is."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype) if hasattr(x, "dtype") else x
