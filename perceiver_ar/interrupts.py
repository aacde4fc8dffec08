"""Ctrl-C and SIGTERM as KeyboardInterrupt, wherever they find the program."""

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

AGAIN = 0.05
"""Seconds after which an interrupt that nobody could catch comes again."""


@contextmanager
def insistent() -> Iterator[None]:
    """Within it SIGTERM raises KeyboardInterrupt as Ctrl-C does, and where either is lost it is raised again.

    JAX has Python called whenever garbage is collected, and Python itself calls finalisers: what is raised there is
    printed, and the program goes on. Outside the main thread, where no signals arrive, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual, timers = sys.unraisablehook, []

    def hook(lost: Any) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            timers.append(threading.Timer(AGAIN, _terminate_main))
            timers[-1].start()
        else:
            usual(lost)

    sys.unraisablehook, terminate = hook, signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        sys.unraisablehook = usual
        signal.signal(signal.SIGTERM, terminate)


def _terminate_main() -> None:
    if hasattr(signal, "pthread_kill"):  # a signal in earnest, which ends a wait too
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    else:
        _thread.interrupt_main(signal.SIGTERM)
