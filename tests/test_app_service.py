"""What the page does, tried without the page: sessions, runs, stopping, and the files these leave."""

import os
import subprocess
import sys
import time
from math import inf
from pathlib import Path

import jax
import midi_builder as build
import pytest
from app_runs import SHORT, finish
from midi_builder import BAD, GOOD, SCALE

from app.model import Model, NotPossible
from app.service import AROUND, BEFORE, MOST_KEPT, STOPPING, Session, shipped
from perceiver_ar import render
from perceiver_ar.codecs.midi import MidiError, read_midi
from perceiver_ar.continuation import Request

ROOT = Path(__file__).parents[1]
LONG = Request(seconds=600)


@pytest.fixture(scope="module")
def model(small_model: Path) -> Model:
    model = Model(small_model)
    assert model.wait(), "the model gets ready"
    return model


@pytest.fixture
def session(model: Model, tmp_path: Path) -> Session:
    return Session(model, tmp_path / "session")


def numbers(notes: str) -> list[int]:
    return [int(word) for word in notes.split()]


def test_the_service_knows_no_gradio() -> None:
    script = "import sys, app.service; sys.exit('gradio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0


def test_a_run_leaves_a_file_for_each_take_with_the_original_in_it(session: Session, scale: Path) -> None:
    piece = session.open(scale)
    run, line = finish(session, SHORT)
    assert line.startswith("Done: 3.0 of 3 s of music")
    names = [take.midi.name for take in run.takes if take.midi]
    assert names == ["größer 音-continued-1.mid", "größer 音-continued-2.mid"]
    original = SCALE[SCALE.index(b"MTrk") :]
    for take in run.takes:
        assert take.midi
        written = read_midi(take.midi)
        assert original in written.data
        assert written.notes == piece.midi.notes + take.count


def test_a_seed_gives_the_same_take_again(session: Session, scale: Path) -> None:
    session.open(scale)
    (one,), (two,) = (finish(session, Request(seconds=3, seed=5))[0].takes for _ in range(2))
    assert one.notes == two.notes
    assert one.midi and two.midi and one.midi != two.midi
    assert one.midi.exists() and two.midi.name == "größer 音-continued-2.mid"


def test_drawn_notes_only_grow_until_they_are_those_of_the_file(session: Session, scale: Path) -> None:
    session.open(scale)
    run = session.prepare(Request(seconds=20))
    seen = [""]
    for _ in session.carry_out(run):
        picture = session.picture()
        assert picture
        for take in picture["takes"]:
            if take["growing"]:
                assert take["notes"].startswith(seen[-1])
                seen.append(take["notes"])
    (take,) = run.takes
    assert len(seen) > 2, "notes were there before the end"
    final = list(zip(*[iter(numbers(take.notes))] * 4, strict=True))
    before = zip(*[iter(numbers(seen[-2]))] * 4, strict=True)
    assert set(before) <= set(final)
    assert take.midi
    added = read_midi(take.midi).played[-len(final) :]
    assert sorted(note[0] for note in final) == sorted(note.pitch for note in added)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_gets_a_sentence_and_changes_nothing(session: Session, scale: Path, name: str) -> None:
    session.open(scale)
    finish(session, SHORT)
    before = session.picture()
    data, words = BAD[name]
    bad = scale.with_name("bad.mid")
    bad.write_bytes(data)
    with pytest.raises(MidiError) as caught:
        session.open(bad)
    assert words in str(caught.value)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
    assert session.picture() == before


@pytest.mark.parametrize("name", GOOD)
def test_unusual_files_are_continued(session: Session, scale: Path, name: str) -> None:
    scale.write_bytes(GOOD[name])
    session.open(scale)
    run, line = finish(session, Request(seconds=1))
    assert line.startswith("Done")
    assert run.takes[0].midi


def test_stopping_keeps_what_was_made(session: Session, scale: Path) -> None:
    session.open(scale)
    run = session.prepare(LONG)
    lines = []
    for line, _ in session.carry_out(run):
        lines.append(line)
        if run.takes:
            session.stop()
    assert lines[-2] == STOPPING and lines[-1].startswith("Stopped: ") and run.over
    (take,) = run.takes
    assert 0 < take.seconds < LONG.seconds
    assert take.midi and read_midi(take.midi).notes > 24


def test_a_run_stopped_before_its_turn_keeps_the_last_result(session: Session, scale: Path) -> None:
    session.open(scale)
    finish(session, SHORT)
    before = session.picture()
    run = session.prepare(LONG)
    session.stop()
    assert [line for line, _ in session.carry_out(run)] == ["Stopped before there was any music."]
    assert session.picture() == before


def test_takes_of_earlier_runs_stay_until_they_are_too_many(session: Session, scale: Path) -> None:
    session.open(scale)
    first, _ = finish(session, Request(seconds=1, takes=2, seed=5, temperature=0.9))
    assert first.takes[1].made == "From 6.0 s on, seed 5 (2 of 2), temperature 0.9."
    session.begin_at(3.0)
    for _ in range(MOST_KEPT // 4):
        run, _ = finish(session, Request(seconds=1, takes=4))
    picture = session.picture()
    assert picture
    assert [take["number"] for take in picture["takes"]] == list(range(3, 3 + MOST_KEPT))
    assert {(take["start"], take["growing"]) for take in picture["takes"]} == {(3.0, False)}
    files = [take["midi"] for take in picture["takes"]]
    assert len(set(files)) == MOST_KEPT and all(path.exists() for path in files)
    assert not any(take.midi and take.midi.exists() for take in first.takes), "the oldest went"
    assert files[-1] == run.takes[-1].midi
    assert session.open(scale).number != first.piece.number and not session.takes


def test_another_piece_ends_the_run(session: Session, scale: Path) -> None:
    session.open(scale)
    run = session.prepare(LONG)
    for _ in session.carry_out(run):
        if run.takes and session.run:
            session.open(scale)
    picture = session.picture()
    assert picture and not picture["takes"]
    assert not any(take.midi for take in run.takes)


def test_an_earlier_start_cuts_and_says_so(session: Session, scale: Path) -> None:
    whole = session.open(scale)
    assert list(whole.sentences()) == [
        "größer 音.MID, 6.0 s",
        "New takes go on from its end; the model hears all of it.",
    ]
    _, sentence = session.begin_at(3.0).sentences()
    assert sentence == "New takes go on from 3.0 s; the model hears all that is before."
    run, _ = finish(session, SHORT)
    assert run.takes[0].midi
    assert read_midi(run.takes[0].midi).notes == 12 + run.takes[0].count
    assert session.begin_at(whole.midi.seconds).cut is None
    with pytest.raises(MidiError, match="choose a start point"):
        session.begin_at(-1)


def test_nothing_to_continue_is_said(session: Session) -> None:
    with pytest.raises(NotPossible, match="upload a MIDI file"):
        session.prepare(SHORT)
    assert session.picture() is None


def test_all_that_can_be_heard_is_rendered(session: Session, scale: Path) -> None:
    session.open(scale)
    run, _ = finish(session, SHORT)
    list(session.render())
    assert not session.sound, "nobody asked for it"
    session.listen()
    assert session.sound and session.sound.read_bytes().startswith(b"RIFF")
    for take in run.takes:
        assert take.wav and take.midi and take.wav.name == take.midi.with_suffix(".wav").name
    assert not list(session.render()), "there is nothing left to render"


def test_what_sounds_of_a_long_piece_is_bounded(
    session: Session, scale: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A take sounds with the minute before it, the original around the cut, also where neither can be made whole."""
    asked = []
    monkeypatch.setattr(render, "wav_bytes", lambda midi, begin, end: asked.append((begin, end)) or b"RIFF")
    scale.write_bytes(
        build.midi(build.track(*build.melody(), (40 * 60 * 960, build.on(60)), (960, build.off(60))))
    )
    end = session.open(scale).whole.start
    session.listen()
    run, _ = finish(session, Request(seconds=1))
    list(session.render())
    assert asked == [(end - AROUND, end), (end - BEFORE, inf)]
    assert [session.heard, run.takes[0].heard] == [begin for begin, _ in asked]
    session.begin_at(end - 60)
    assert session.sound, "what was made has it still"
    session.begin_at(end - 20 * 60)
    assert not session.sound
    session.listen()
    begin, last = asked[-1]
    assert begin < end - 20 * 60 < last == begin + AROUND


def test_without_sound_the_files_stay(session: Session, scale: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(midi: bytes, **_: float) -> bytes:
        raise render.RenderError("It is too quiet here.")

    monkeypatch.setattr(render, "wav_bytes", fail)
    session.open(scale)
    run, _ = finish(session, SHORT)
    list(session.render())
    session.listen()
    assert session.trouble == run.takes[0].trouble == "It is too quiet here."
    assert run.takes[0].midi and run.takes[0].midi.exists()


def test_a_model_that_is_not_ready_is_waited_for(
    small_model: Path, tmp_path: Path, scale: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = Model._prepare
    monkeypatch.setattr(Model, "_prepare", lambda model: (time.sleep(1), prepare(model)))
    session = Session(Model(small_model), tmp_path)
    session.open(scale)
    lines = [line for line, _ in session.carry_out(session.prepare(SHORT))]
    assert lines[0].startswith("The model is getting ready")
    assert lines[-1].startswith("Done")


def test_a_damaged_model_is_said(small_model: Path, tmp_path: Path, scale: Path) -> None:
    for path in small_model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "weights.safetensors").write_bytes(b"no weights")
    session = Session(Model(tmp_path), tmp_path)
    session.open(scale)
    with pytest.raises(NotPossible, match="could not be loaded"):
        list(session.carry_out(session.prepare(SHORT)))


def test_a_recording_is_told_the_way_and_karaoke_is_opened(session: Session, scale: Path) -> None:
    sound = scale.with_name("take.MP3")
    sound.write_bytes(b"ID3")
    with pytest.raises(NotPossible, match="make a MIDI file of it first"):
        session.open(sound)
    assert session.open(scale.rename(scale.with_name("song.kar"))).midi.name == "song.kar"


def test_another_piece_removes_the_files_of_the_one_before(session: Session, scale: Path) -> None:
    session.open(scale)
    run, _ = finish(session, SHORT)
    session.open(scale)
    assert not any(take.midi and take.midi.exists() for take in run.takes)


def test_the_shipped_pieces_can_be_continued(session: Session) -> None:
    pieces = shipped()
    assert len(pieces) >= 4
    for piece in pieces:
        assert session.open(piece.path).priming.used


def test_a_piece_of_drums_and_piano_warns(session: Session, scale: Path) -> None:
    scale.write_bytes(
        build.midi(
            build.track(*build.melody()),
            build.track((0, build.on(36, channel=9)), (9, build.off(36, channel=9))),
        )
    )
    assert any("drum" in sentence for sentence in session.open(scale).sentences())


@pytest.mark.parametrize("port", ["99999", "0", "-1", "x"])
def test_a_port_that_is_none_gets_a_sentence(
    port: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.__main__ import main

    for arguments in ([f"--port={port}"], ["--model=nowhere"]):
        monkeypatch.setenv("GRADIO_SERVER_PORT", port)
        with pytest.raises(SystemExit):
            main(arguments)
        assert f"'{port}' is no port: give a number from 1 to 65535" in capsys.readouterr().err


def test_programs_that_were_left_empty_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that is just being written is not."""
    from perceiver_ar.continuation import BEING_WRITTEN, keep_compiled_programs
    from perceiver_ar.registry import user_cache

    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    kept = {name: jax.config.values[name] for name in names}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = user_cache("compiled")
    folder.mkdir(parents=True)
    for name, data in (("whole", b"program"), ("old", b""), ("new", b"")):
        (folder / name).write_bytes(data)
    os.utime(folder / "old", (0, time.time() - 2 * BEING_WRITTEN))
    try:
        keep_compiled_programs()
    finally:
        for name, value in kept.items():
            jax.config.update(name, value)
    assert sorted(path.name for path in folder.iterdir()) == ["new", "whole"]
