"""The command line: what it prints and writes, and what a user reads when something is wrong."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import midi_builder as build
import pytest
from midi_builder import BAD, GOOD, SCALE

from perceiver_ar import cli, registry
from perceiver_ar.checkpoint import CheckpointError, load, read_config, weights_sha256
from perceiver_ar.codecs.midi import read_midi
from perceiver_ar.config import FIRST_DATA
from perceiver_ar.registry import asset, shipped

ROOT = Path(__file__).parents[1]
KEYS = [
    "seed",
    "model",
    "primer_tokens",
    "primer_tokens_total",
    "seconds",
    "notes",
    "tokens_per_second",
    "realtime_factor",
    "files",
]


def chunks(data: bytes) -> list[bytes]:
    """The track chunks of a file."""
    found, at = [], 14
    while at < len(data):
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8])
        found.append(data[at:end])
        at = end
    return found


def process(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "perceiver_ar.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_original_is_kept_byte_for_byte_and_one_track_is_added(run: Callable, source: Path) -> None:
    output = source.with_name("out.mid")
    code, out, err = run(source, output, "--seconds", "3", "--seed", "1")
    assert code == 0, err
    assert out == ""
    before, after = chunks(source.read_bytes()), chunks(output.read_bytes())
    assert after[: len(before)] == before
    assert len(after) == len(before) + 1
    assert b"Perceiver AR" in after[-1]
    assert read_midi(output).notes > read_midi(source).notes
    assert str(output) in err


def test_json_has_what_the_readme_says(run: Callable, source: Path) -> None:
    output = source.with_name("out.mid")
    code, out, _ = run(source, output, "--json", "--takes", "2", "--seed", "7")
    found = json.loads(out)
    assert code == 0
    assert list(found) == KEYS
    assert found["seed"] == 7
    assert found["model"] == "small"
    assert found["primer_tokens"] == found["primer_tokens_total"] == len(_tokens(source))
    assert found["seconds"] == 0.5
    assert found["tokens_per_second"] > 0
    assert found["files"] == [str(source.with_name(f"out-{number}.mid")) for number in (1, 2)]
    assert all(Path(path).is_file() for path in found["files"])
    assert found["notes"] == sum(
        read_midi(path).notes - read_midi(source).notes for path in map(Path, found["files"])
    )


def _tokens(path: Path) -> list[int]:
    from perceiver_ar.codecs.music import MusicCodec

    return read_midi(path).primer(MusicCodec()).tokens.tolist()


def test_a_seed_gives_the_same_bytes_and_another_seed_others(run: Callable, source: Path) -> None:
    paths = [source.with_name(name) for name in ("a.mid", "b.mid", "c.mid")]
    for path, seed in zip(paths, ("3", "3", "4"), strict=True):
        assert run(source, path, "--seed", seed)[0] == 0
    first, second, third = (path.read_bytes() for path in paths)
    assert first == second != third


def test_a_start_point_leaves_out_what_comes_after(run: Callable, source: Path) -> None:
    output = source.with_name("out.mid")
    code, out, _ = run(source, output, "--start", "2.0", "--json")
    assert code == 0
    assert json.loads(out)["primer_tokens_total"] < len(_tokens(source))
    first_track = read_midi(output).tracks[0]
    assert 0 < first_track.notes < read_midi(source).tracks[0].notes


def test_the_continuation_alone(run: Callable, source: Path) -> None:
    output = source.with_name("out.mid")
    assert run(source, output, "--continuation-only", "--seconds", "3", "--seed", "1")[0] == 0
    assert b"words" not in output.read_bytes()
    assert read_midi(output).notes > 0


def test_wav_beside_the_midi(run: Callable, source: Path) -> None:
    import soundfile

    output = source.with_name("out.mid")
    code, _, err = run(source, output, "--wav")
    assert code == 0, err
    sound, rate = soundfile.read(output.with_suffix(".wav"))
    assert len(sound) / rate > read_midi(source).seconds
    assert abs(sound).max() > 0.01


def test_no_take_is_lost_for_want_of_sound(
    run: Callable, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perceiver_ar.render import RenderError

    def fail(*_: object) -> None:
        raise RenderError("There is no sound.")

    output = source.with_name("out.mid")
    with monkeypatch.context() as patch:
        patch.setattr("perceiver_ar.render.MAX_SECONDS", 1)
        _refused(run(source, output, "--wav"), "leave --wav out")
    assert not output.exists()
    monkeypatch.setattr("perceiver_ar.render.write_wav", fail)
    code, out, err = run(source, output, "--wav", "--takes", "3", "--json")
    assert code == 2 and err.endswith("perceiver-ar: There is no sound.\n")
    paths = [str(source.with_name(f"out-{number}.mid")) for number in (1, 2, 3)]
    assert json.loads(out)["files"] == paths and all(f"wrote {path}\n" in err for path in paths)
    assert [read_midi(source.with_name(f"out-{number}.mid")).notes >= 24 for number in (1, 2, 3)] == [
        True
    ] * 3


def test_the_help_names_the_defaults_and_limits(capsys: pytest.CaptureFixture[str]) -> None:
    from perceiver_ar.continuation import MAX_SECONDS, MAX_TAKES, Request

    with pytest.raises(SystemExit):
        cli.main(["continue", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    usual = Request()
    for words in (
        f"({usual.seconds:g}; at most {MAX_SECONDS:g})",
        f"({usual.takes}; at most {MAX_TAKES})",
        f"0: the likeliest ({usual.temperature:g})",
        f"this part ({usual.top_p:g})",
        f"of the likeliest ({usual.min_p:g})",
    ):
        assert words in said


def test_stopping_keeps_what_was_made(run: Callable, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []

    def stop(_: object, progress: object) -> None:
        shown.append(progress)
        if len(shown) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("perceiver_ar.report.ProgressLine.show", stop)
    output = source.with_name("out.mid")
    code, _, _ = run(source, output, "--seconds", "500")
    assert code == cli.STOPPED
    assert len(shown) == 3
    assert read_midi(output).notes > read_midi(source).notes


def test_info_says_what_is_there_and_what_is_wrong(
    small_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "Präludium.MID"
    path.write_bytes(build.midi(build.track((0, build.on(60)), (480, build.on(64)), end=480)))
    assert cli.main(["info", str(path), "--model", str(small_model)]) == 0
    out = capsys.readouterr().out
    assert "2 notes" in out
    assert "all" in out and "tokens" in out
    assert "never released" in out
    assert cli.main(["info", str(path), "--model", str(small_model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == 2


def test_models_lists_the_shipped_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models"]) == 0
    assert "piano (default)" in capsys.readouterr().out
    assert cli.main(["models", "--json"]) == 0
    piano, small = json.loads(capsys.readouterr().out)
    assert piano["name"] == "piano" and piano["bytes"] > 1_000_000
    assert small["name"] == "piano-small" and small["bytes"] < 4_000_000
    for model in (piano, small):
        assert model["sha256"] == weights_sha256(Path(model["folder"]))
        assert model["context"] == read_config(Path(model["folder"])).context


def test_shipped_weights_that_were_changed_are_refused(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small_model, tmp_path / "piano")
    monkeypatch.setattr(registry, "ROOTS", (tmp_path,))
    with pytest.raises(CheckpointError, match="SHA-256 is not the shipped one"):
        load("piano")


def test_a_name_may_come_as_a_path() -> None:
    assert shipped(Path("piano")) is shipped("piano") is not None
    assert shipped(asset("piano")) is None


def test_a_request_of_no_numbers_is_refused_as_any_other() -> None:
    from perceiver_ar.continuation import Request

    wrong: dict[str, Any] = {"seconds": "30", "temperature": None, "top_p": [1], "min_p": "0"}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match="must be a number"):
            Request(**{name: value})


def test_little_music_is_told_as_it_was_asked_for() -> None:
    from perceiver_ar.continuation import Progress
    from perceiver_ar.report import progress_text

    assert progress_text(Progress([], 0.05, 1, 9, 0.0, 0.0, True), 0.05) == "0.05 of 0.05 s of music, 1 notes"


@pytest.mark.parametrize("name", GOOD)
def test_unusual_files_are_continued(run: Callable, tmp_path: Path, name: str) -> None:
    source = tmp_path / "größer 音.MID"
    source.write_bytes(GOOD[name])
    output = tmp_path / "out.mid"
    code, _, err = run(source, output)
    assert code == 0, err
    assert chunks(output.read_bytes())[:-1] == chunks(source.read_bytes())


@pytest.mark.parametrize("name", BAD)
def test_bad_files_get_a_sentence(run: Callable, tmp_path: Path, name: str) -> None:
    data, words = BAD[name]
    source, output = tmp_path / "in.mid", tmp_path / "out.mid"
    source.write_bytes(data)
    output.write_bytes(b"untouched")
    _refused(run(source, output), words)
    assert output.read_bytes() == b"untouched"


def test_missing_files_and_folders_get_a_sentence(run: Callable, tmp_path: Path, source: Path) -> None:
    output = tmp_path / "out.mid"
    _refused(run(tmp_path / "none.mid", output), "no file")
    _refused(run(tmp_path, output), "folder")
    _refused(run(source, tmp_path / "none" / "out.mid"), "no folder")
    _refused(run(source, tmp_path / "out.txt"), ".mid")
    _refused(run(source, source), "never overwritten")
    (tmp_path / "dir.mid").mkdir()
    _refused(run(source, tmp_path / "dir.mid"), "folder")
    (tmp_path / "out.wav").mkdir()
    _refused(run(source, output, "--wav"), "folder")
    _refused(run(source, Path("/proc/out.mid")), "nothing can be written to '/proc'")
    assert not output.exists()
    assert source.read_bytes() == SCALE


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seconds", "0"], "seconds"),
        (["--seconds", "1e9"], "seconds"),
        (["--seconds", "nan"], "seconds"),
        (["--seconds", "600.0001"], "at most 600, not 600.0001"),
        (["--takes", "0"], "takes"),
        (["--takes", "99"], "takes"),
        (["--takes", "300000000"], "takes"),
        (["--temperature", "-1"], "temperature"),
        (["--top-p", "0"], "top-p"),
        (["--min-p", "1"], "min-p"),
        (["--seed", "-1"], "seed"),
        (["--start", "99"], "start point"),
        (["--start", "-1"], "start point"),
        (["--model", "nope"], "no model"),
    ],
)
def test_impossible_options_get_a_sentence(
    run: Callable, source: Path, options: list[str], words: str
) -> None:
    output = source.with_name("out.mid")
    _refused(run(source, output, *options), words)
    assert not output.exists()


def _refused(result: tuple[int, str, str], words: str) -> None:
    code, out, err = result
    assert code == 2
    assert out == ""
    assert err.startswith("perceiver-ar: ") and err.count("\n") == 1
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize("files", [("weights.safetensors",), ("config.json",), ("codec.json",)])
def test_a_damaged_model_gets_a_sentence(
    small_model: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], files: tuple[str]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in small_model.iterdir():
        data = path.read_bytes()
        (folder / path.name).write_bytes(data[: len(data) // 2] if path.name in files else data)
    code = cli.main(["continue", str(source), "-o", str(tmp_path / "out.mid"), "--model", str(folder)])
    out, err = capsys.readouterr()
    _refused((code, out, err), "damaged")


@pytest.mark.parametrize(
    ("codec", "words"),
    [({"name": "copy_task"}, "makes copy task, not music"), ({"name": "base"}, "damaged")],
)
def test_a_model_of_no_music_gets_a_sentence(
    small_model: Path,
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    codec: dict,
    words: str,
) -> None:
    folder = shutil.copytree(small_model, tmp_path / "model")
    symbols = json.loads((folder / "config.json").read_text())["vocab_size"] - FIRST_DATA
    (folder / "codec.json").write_text(json.dumps(codec | {"symbols": symbols}))
    code = cli.main(["continue", str(source), "-o", str(tmp_path / "out.mid"), "--model", str(folder)])
    out, err = capsys.readouterr()
    _refused((code, out, err), words)


def test_a_huge_file_is_refused_in_bounded_time_and_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge.mid"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    began = time.monotonic()
    script = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (500_000_000, 500_000_000))\n"
        "from perceiver_ar.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", script, "continue", str(path), "-o", str(tmp_path / "out.mid")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert time.monotonic() - began < 5
    _refused((done.returncode, done.stdout, done.stderr), "100.0 MB")


@pytest.mark.slow
def test_the_shipped_model_continues_a_shipped_primer(tmp_path: Path) -> None:
    primers = ROOT / "assets" / "primers"
    first = json.loads((primers / "index.json").read_text())[0]
    source, output = primers / first["file"], tmp_path / "out.mid"
    done = process("continue", source, "-o", output, "--seconds", "5", "--seed", "1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["model"] == "piano"
    assert found["primer_tokens"] == found["primer_tokens_total"]
    assert chunks(output.read_bytes())[: len(chunks(source.read_bytes()))] == chunks(source.read_bytes())
    assert "of music" in done.stderr


@pytest.mark.slow
def test_a_real_performance_primes_with_all_the_context_and_stays_whole(
    shared_data: Path, tmp_path: Path
) -> None:
    name, data = max(build.performances("maestro-v3.0.0-midi.zip", 12), key=lambda one: len(one[1]))
    source, output = tmp_path / Path(name).with_suffix(".mid").name, tmp_path / "out.mid"
    source.write_bytes(data)
    done = process("continue", source, "-o", output, "--seconds", "3", "--seed", "1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["primer_tokens"] == min(found["primer_tokens_total"], 16_128)
    assert found["seconds"] == 3
    assert chunks(output.read_bytes())[:-1] == chunks(data)
