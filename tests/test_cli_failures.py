"""What a run makes is kept, whatever goes wrong beside it: nobody reads, the disk is full, a signal comes."""

import errno
import io
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from midi_builder import SCALE

from perceiver_ar import cli
from perceiver_ar.codecs.midi import read_midi
from perceiver_ar.render import _deaf


class Deaf(io.StringIO):
    """A stream that nothing can be written to."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def write(self, _: str) -> int:
        raise self.error


GONE, FULL = BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("stream", [None, Deaf(GONE), Deaf(FULL)], ids=["closed", "gone", "full"])
def test_nobody_has_to_read_the_progress(
    run: Callable, source: Path, monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    output = source.with_name("out.mid")
    code, out, _ = run(source, output, "--json")
    assert code == 0
    assert json.loads(out)["files"] == [str(output)] and output.is_file()


def test_nobody_has_to_read_the_result(run: Callable, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Deaf(GONE))
    output = source.with_name("out.mid")
    code, _, err = run(source, output, "--json")
    assert code == 0
    assert err.endswith(f"wrote {output}\n") and output.is_file()


def test_music_without_a_place_is_kept_elsewhere(
    run: Callable, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, other = source.with_name("folder"), source.with_name("other")
    folder.mkdir()
    other.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(other))
    monkeypatch.setattr(
        "perceiver_ar.report.ProgressLine.show", lambda *_: shutil.rmtree(folder, ignore_errors=True)
    )
    code, out, err = run(source, folder / "out.mid", "--json", "--takes", "2", "--wav")
    files = json.loads(out)["files"]
    assert code == 2
    assert [Path(path).name for path in files] == ["out-1.mid", "out-2.mid"]
    assert all(Path(path).is_relative_to(other) and read_midi(path).notes >= 24 for path in files)
    assert "Cannot write" in err and f"The music is in '{Path(files[0]).parent}' instead." in err


def test_a_signal_while_the_sound_is_made_leaves_the_music(
    run: Callable, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("perceiver_ar.render.write_wav", stop)
    output = source.with_name("out.mid")
    code, out, err = run(source, output, "--wav", "--json")
    assert code == cli.STOPPED
    assert json.loads(out)["files"] == [str(output)] and output.is_file()
    assert err.endswith(f"wrote {output}\nstopped\n")


def test_the_synthesizer_never_hears_a_signal() -> None:
    """Of its own it would show a trace: what it inherits as it starts is that it hears none."""
    with _deaf():
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_name_that_the_terminal_cannot_show_is_shown_as_far_as_it_goes(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "Präludium.mid"
    path.write_bytes(SCALE)
    terminal = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert cli.main(["info", str(path), "--model", str(small_model)]) == 0
    terminal.seek(0)
    assert terminal.read().startswith("file      Pr\\xe4ludium.mid: type 1")


def test_a_start_behind_the_end_is_that_with_sound_too(run: Callable, source: Path) -> None:
    code, _, err = run(source, source.with_name("out.mid"), "--wav", "--start", "1e9")
    assert code == 2 and "choose a start point there" in err
