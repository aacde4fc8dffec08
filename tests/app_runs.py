"""Runs of the page's service, for tests of what it does."""

from app.service import Run, Session
from perceiver_ar.continuation import Request

SHORT = Request(seconds=3, takes=2, seed=5)


def finish(session: Session, request: Request) -> tuple[Run, str]:
    """Carry a run out; the run and its last line."""
    run = session.prepare(request)
    lines = [line for line, _ in session.carry_out(run)]
    return run, lines[-1]
