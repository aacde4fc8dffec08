"""An interrupt ends a program wherever it comes."""

import signal
import sys
import time

import pytest

from perceiver_ar.interrupts import insistent


class Interrupted:
    """What receives a signal in its finaliser, out of which no exception can come."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_an_interrupt_that_nobody_could_catch_comes_again(capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.unraisablehook, signal.getsignal(signal.SIGTERM)

    @insistent()
    def run() -> None:
        Interrupted()
        time.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert capfd.readouterr().err == ""
    assert (sys.unraisablehook, signal.getsignal(signal.SIGTERM)) == before


def test_other_exceptions_that_nobody_could_catch_are_told_as_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    class Wrong:
        def __del__(self) -> None:
            raise ValueError

    with insistent():
        Wrong()
    assert [one.exc_type for one in told] == [ValueError]
