"""Visitors of the page: each has a session, which holds so much and no more, and leaves nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from app_runs import SHORT, finish

from app.service import Service
from perceiver_ar import render


@pytest.fixture
def service(small_model: Path, tmp_path: Path) -> Iterator[Service]:
    service = Service(small_model, tmp_path)
    yield service
    service.model.wait()


def test_sessions_are_apart_and_leave_nothing(service: Service, scale: Path) -> None:
    one, two = service.session("one"), service.session("two")
    assert service.session("one") is one
    one.open(scale)
    assert two.piece is None
    run, _ = finish(one, SHORT)
    path = run.takes[0].midi
    assert path and path.exists()
    service.close("one")
    assert not path.exists() and not one.folder.exists()
    assert service.session("one").piece is None
    service.close("never opened")


def test_a_tab_that_closes_while_its_sound_is_made_leaves_nothing(
    service: Service, scale: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def close(*_: object, **__: object) -> bytes:
        service.close("one")
        return b"RIFF"

    session = service.session("one")
    session.open(scale)
    finish(session, SHORT)
    monkeypatch.setattr(render, "wav_bytes", close)
    list(session.render())
    assert session.closed and not session.folder.exists()
    session = service.session("one")
    session.open(scale)
    session.listen()
    assert session.closed and not session.folder.exists()


def test_a_key_that_is_a_path_leads_nowhere(service: Service, scale: Path, tmp_path: Path) -> None:
    service.folder = tmp_path / "served"
    other = tmp_path / "other"
    (service.folder / "session-x").mkdir(parents=True)
    other.mkdir()
    for key in ("x/../../other", str(other)):
        session = service.session(key)
        session.open(scale)
        finish(session, SHORT)
        assert session.folder.parent == service.folder and session.folder.exists()
        service.close(key)
        assert not session.folder.exists()
    assert other.exists() and not list(other.iterdir())


def test_of_too_many_sessions_the_one_unused_longest_is_closed(
    service: Service, scale: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.service.MOST_SESSIONS", 3)
    busy, left, used = (service.session(key) for key in ("busy", "left", "used"))
    busy.open(scale)
    run = busy.prepare(SHORT)
    run.waiting = False
    left.folder.mkdir()
    assert service.session("left") is left and service.session("used") is used
    service.session("fourth")
    assert left.closed and not left.folder.exists()
    assert not busy.closed and service.session("used") is used
    run.over = True
    service.session("fifth")
    assert busy.closed and run.stopping.is_set() and not used.closed
