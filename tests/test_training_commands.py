"""What `python -m training` says and makes without training."""

import json
from pathlib import Path

import pytest
from PIL import Image

from training.__main__ import main
from training.config import Paths
from training.curves import curves
from training.metrics import Metrics, read_metrics
from training.presets.copy_task_32 import TINY
from training.state import write_config


def test_a_run_without_a_checkpoint_is_not_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(TINY, Paths(tmp_path))
    assert main(["export", str(tmp_path), str(tmp_path / "out"), "--licence", "CC0-1.0"]) == 2
    assert "no checkpoint yet" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_dry_run_says_what_a_run_needs_and_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["maestro", "--tiny", "--dry-run", "--workdir", str(tmp_path / "run")]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["parameters"] == 198_528 and said["config"]["model"]["width"] == 64
    assert not (tmp_path / "run").exists()


def test_a_run_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "curves.png"
    assert main(["curves", str(tmp_path), str(output)]) == 2
    assert "no metrics yet" in capsys.readouterr().err
    lines = [{"step": step, "loss": 6.0 - step / 50} for step in (50, 100, 150)]
    lines.insert(2, {"step": 100, "validation_nll": 4.5})
    # Resumed from step 100: what is written of it later counts.
    lines += [{"step": 150, "loss": 2.0}, {"step": 200, "loss": 1.5}, {"step": 200, "validation_nll": 2.5}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = curves(tmp_path)
    assert found["loss"] == ([50, 100, 150, 200], [5.0, 4.0, 2.0, 1.5])
    assert found["validation_nll"] == ([100, 200], [4.5, 2.5])
    assert main(["curves", str(tmp_path), str(tmp_path / "curves.txt")]) == 2
    assert "does not end in .png" in capsys.readouterr().err
    assert main(["curves", str(tmp_path), str(output)]) == 0
    with Image.open(output) as picture:
        colours = picture.convert("RGB").getcolors(2**16)
    assert picture.format == "PNG" and colours is not None and len(colours) > 20


def test_a_line_that_a_crash_has_cut_is_left_out(tmp_path: Path) -> None:
    whole, cut = '{"step": 50, "loss": 5.0}\n', '{"step": 100, "lo'
    (tmp_path / "metrics.jsonl").write_text(whole + cut)
    assert read_metrics(tmp_path) == [{"step": 50, "loss": 5.0}]
    for step in (100, 150):  # the second finds nothing cut
        with Metrics(Paths(tmp_path), TINY, 50) as metrics:
            metrics.write(step, loss=4.0)
    assert [line["step"] for line in read_metrics(tmp_path)] == [50, 100, 150]


def test_impossible_commands_get_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    said = capsys.readouterr().err
    assert "transcribed_piano,wikitext103,evaluate,export,vocabulary,curves" in said
    assert "maestro           MAESTRO as MIDI performances." in said
    assert main(["--help"]) == 0
    assert main(["evaluate", "nope", "--data", str(tmp_path)]) == 2
    assert "no model 'nope'" in capsys.readouterr().err
    assert main(["export", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "no training run" in capsys.readouterr().err
    assert main(["maestro", "--data", str(tmp_path / "none.zip"), "--workdir", str(tmp_path / "run")]) == 2
    assert "there is no file or folder" in capsys.readouterr().err
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04, and no more")
    assert main(["maestro", "--data", str(tmp_path / "cut.zip"), "--workdir", str(tmp_path / "run")]) == 2
    assert "neither a folder nor a whole zip or tar" in capsys.readouterr().err
