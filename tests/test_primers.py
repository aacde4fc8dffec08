"""The shipped primers: they can be read, they are what their script makes, and bars add up."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from perceiver_ar.codecs.midi import read_midi
from perceiver_ar.codecs.music import MusicCodec
from perceiver_ar.registry import asset

FOLDER = asset("primers")
INDEX = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What make_primers.py defines."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return runpy.run_path(str(FOLDER / "make_primers.py"))


def test_there_is_a_choice() -> None:
    assert len(INDEX) >= 5
    assert len({entry["style"] for entry in INDEX}) >= 5
    # What `make continue` wrote beside one of them is no primer.
    there = {path.name for path in FOLDER.glob("*.mid") if not path.stem.endswith("-continued")}
    assert there == {entry["file"] for entry in INDEX}


@pytest.mark.parametrize("entry", INDEX, ids=lambda entry: Path(entry["file"]).stem)
def test_primer_is_read(entry: dict[str, Any]) -> None:
    file = read_midi(FOLDER / entry["file"])
    assert file.notes > 40
    assert not file.warnings
    assert file.seconds == pytest.approx(entry["seconds"], abs=0.006)
    assert 20 <= file.seconds <= 60
    assert len({note.velocity for note in file.played}) > 10, "it is played without feeling"
    assert file.primer(MusicCodec()).tokens.size > 100


def test_script_makes_these_bytes(script: dict[str, Any]) -> None:
    made = script["files"]()
    assert {name: (FOLDER / name).read_bytes() for name in made} == made


def test_bars_must_add_up(script: dict[str, Any]) -> None:
    fields = script["PIECES"][3]
    wrong = fields | {"voices": ((70, "c4/2 d4 e4 | c4/2 d4"),)}
    with pytest.raises(ValueError, match="bar 2 has 4 steps"):
        script["Piece"](**wrong).keys()
    with pytest.raises(ValueError, match="no note"):
        script["pitch"]("h4")


@pytest.mark.parametrize(("name", "key"), [("c4", 60), ("a4", 69), ("f#5", 78), ("bb3", 58)])
def test_names_of_keys(script: dict[str, Any], name: str, key: int) -> None:
    assert script["pitch"](name) == key
